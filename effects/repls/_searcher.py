"""Searches of the context in a process of their own, so that a pattern can be stopped.

A backend that answers `ctx.find` in the host's process must not run the model's patterns there:
Python's `re` holds the whole process, its event loop and Ctrl-C included, for as long as a
pattern takes, and ``(a+)+$`` takes 20 seconds on 26 letters (measured 2026-11). Plain texts,
which take linear time, are searched in place.

The process (`_helping`) is started by the first pattern, with the text copied into it, and lives
until it is closed or must be killed. It holds a `_text.TextView`; requests and answers are JSON.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effects.repls._helping import SANDBOX_FOLDER, Helper
from effects.repls._text import TextView

Match = tuple[int, int, str]

START_S = 30.0
"""Seconds that the process may take to start and to read the text; far more than it needs."""

_CHILD = """
import json, resource, sys
sys.path[:0] = sys.argv[1:3]
import _helper
from _text import TextView
del sys.path[:2]
_helper.lock()
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)

def receive():
    head = sys.stdin.buffer.read(8)
    if len(head) < 8:
        sys.exit()
    return sys.stdin.buffer.read(int.from_bytes(head, "little"))

def send(value):
    data = json.dumps(value).encode()
    sys.stdout.buffer.write(len(data).to_bytes(8, "little") + data)
    sys.stdout.buffer.flush()

view = TextView(receive().decode("utf-8", "surrogatepass"))
send("ready")
while True:
    options = json.loads(receive())
    try:
        found = view.find(**options)
        send({"found": found})
    except Exception as error:
        found = None
        send({"kind": type(error).__name__, "message": str(error)})
"""
_ERRORS: dict[str, Callable[[str], Exception]] = {
    "TypeError": TypeError,
    "ValueError": ValueError,
    "MemoryError": lambda _: MemoryError("the search found too much: lower max_matches"),
}


class Searcher:
    """`ctx.find` with a time limit. Call from one thread; `kill` may come from another.

    `allowed_s` is asked for the seconds that the next search may take.
    """

    def __init__(
        self, view: TextView, *, allowed_s: Callable[[], float], memory_bytes: int
    ) -> None:
        self._view = view
        self._allowed_s = allowed_s
        self._memory_bytes = memory_bytes
        self._helper: Helper | None = None
        self.starting_s = 0.0
        """Seconds spent on starting processes so far, which are no part of any search."""

    def find(
        self,
        pattern: Any,
        regex: bool = False,
        *,
        max_matches: int | None = 20,
        case_sensitive: bool = True,
        flags: Any = None,
    ) -> list[Match]:
        """As `TextView.find`. Raises `TimeoutError` when the pattern takes too long."""
        is_plain = not regex and flags is None and case_sensitive
        if is_plain or not isinstance(pattern, str):
            return self._view.find(
                pattern, regex, max_matches=max_matches, case_sensitive=case_sensitive, flags=flags
            )
        if flags is not None and not isinstance(flags, int):
            raise TypeError(f"flags must be those of re (int), not {type(flags).__name__}")
        options = {
            "pattern": pattern,
            "regex": bool(regex),
            "max_matches": max_matches,
            "case_sensitive": bool(case_sensitive),
            "flags": flags,
        }
        reply = self._ask(json.dumps(options).encode())
        if "found" in reply:
            return [(start, end, text) for start, end, text in reply["found"]]
        raise _ERRORS.get(reply["kind"], RuntimeError)(reply["message"])

    def kill(self) -> None:
        """End a search that runs."""
        if (helper := self._helper) is not None:
            helper.kill()

    def close(self) -> None:
        """End the process. Safe to call twice."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close()

    def _ask(self, request: bytes) -> dict[str, Any]:
        allowed_s = max(self._allowed_s(), 0.0)
        try:
            answer: dict[str, Any] = json.loads(self._started().ask(request, allowed_s))
        except TimeoutError:
            self.close()
            raise TimeoutError(
                f"the search took more than {allowed_s:.2g} seconds and was stopped: "
                "simplify the pattern"
            ) from None
        except OSError as error:
            self.close()
            raise RuntimeError(f"the search was ended: {error}") from None
        return answer

    def _started(self) -> Helper:
        if self._helper is None:
            text = self._view.text.encode("utf-8", "surrogatepass")
            # The text as bytes and as characters of up to 4 bytes, and what is found.
            memory_bytes = self._memory_bytes + 6 * len(text)
            began = time.monotonic()
            folders = (str(Path(__file__).parent), SANDBOX_FOLDER)
            self._helper = Helper(_CHILD, *folders, memory_bytes=memory_bytes)
            self._helper.ask(text, START_S)
            self.starting_s += time.monotonic() - began
        return self._helper
