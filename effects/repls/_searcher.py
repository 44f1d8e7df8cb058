"""Searches of the context in a process of their own, so that a pattern can be stopped.

A backend that answers `ctx.find` in the host's process must not run the model's patterns there:
Python's `re` holds the whole process, its event loop and Ctrl-C included, for as long as a
pattern takes, and ``(a+)+$`` takes 20 seconds on 26 letters (measured 2026-11). Plain texts,
which take linear time, are searched in place.

The process is started by the first pattern, with the text copied into it, and lives until it is
closed or must be killed. It holds `_text.TextView`, an empty environment, a memory limit and what
of the sandbox fits it (`effects.sandbox._helper`), and talks frames over its pipes: 8 bytes of
length, little-endian, then UTF-8.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effects.repls._text import TextView
from effects.sandbox import _helper

Match = tuple[int, int, str]

SANDBOX_FOLDER = str(Path(_helper.__file__).parent)
"""What helpers load their layers from."""

START_S = 30.0
"""Seconds that the process may take to start and to read the text; far more than it needs."""
INTERPRETER_BYTES = 256 << 20
"""Address space of a Python that does nothing, rounded up well."""

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
        self._process: subprocess.Popen[bytes] | None = None
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
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                try:
                    pipe.close()
                except BrokenPipeError:  # what it never read
                    pass

    def _ask(self, request: bytes) -> dict[str, Any]:
        allowed_s = max(self._allowed_s(), 0.0)
        try:
            process = self._started()
            _send(process, request)
            answer: dict[str, Any] = _receive(process, allowed_s)
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

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            text = self._view.text.encode("utf-8", "surrogatepass")
            # The text as bytes and as characters of up to 4 bytes, and what is found.
            memory_bytes = INTERPRETER_BYTES + self._memory_bytes + 6 * len(text)
            began = time.monotonic()
            folders = [str(Path(__file__).parent), SANDBOX_FOLDER]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _CHILD, *folders, str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                start_new_session=True,  # Ctrl-C is the host's affair
            )
            _send(self._process, text)
            _receive(self._process, START_S)
            self.starting_s += time.monotonic() - began
        return self._process


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(len(data).to_bytes(8, "little"))
    process.stdin.write(data)
    process.stdin.flush()


def _receive(process: subprocess.Popen[bytes], timeout_s: float) -> Any:
    """The next frame, once it begins within the time."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], timeout_s)[0]:
        raise TimeoutError
    head = process.stdout.read(8)
    data = process.stdout.read(int.from_bytes(head, "little"))
    if len(head) < 8:
        raise BrokenPipeError("its process is gone")
    return json.loads(data)
