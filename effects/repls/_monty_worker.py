"""The process that a sandboxed session runs in."""

import os
import signal
import sys
import sysconfig
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, cast

from pydantic_monty import (
    FunctionSnapshot,
    FutureSnapshot,
    Monty,
    MontyComplete,
    MontyError,
    MontySession,
    NameLookupSnapshot,
)

from effects.repls._fixed import DEFAULT_START_S, number_of
from effects.repls._monty_values import Output, encodable, utf8_bytes
from effects.repls.base import ReplLimits, ReplUnavailable

# pydantic-monty asks for the folders of scripts when a pool is made, and several sessions may be
# opened at once, each in its own thread: the first use of sysconfig isn't safe for threads
# (AttributeError: 'userbase'), later ones are.
sysconfig.get_config_vars()

_STANDING = datetime.fromtimestamp(DEFAULT_START_S, UTC).replace(tzinfo=None)
SEED = 0
"""Where random numbers begin in a session without a seed."""
BACKSTOP_S = 10.0
"""Seconds after the time limit at which a worker that answers nothing at all is killed. (The
sandbox's own watchdog kills one that goes on computing a second after the limit.)"""
PIECE_CHARS = 8 << 20
"""A long text crosses in pieces of so many characters, which take up to 32 MiB: a message of the
sandbox holds 256 MiB at most, and its buffers count as the sandbox's memory."""

TELEMETRY = "opentelemetry"
"""What pydantic-monty reports to, where it is installed."""

Snapshot = FunctionSnapshot | NameLookupSnapshot | FutureSnapshot | MontyComplete
"""Where a source stands that was fed: suspended at something it asks for, or at its end."""


class Unsearched:
    """Within it, importing a package that isn't installed fails at once.

    pydantic-monty tries to import opentelemetry at each feed. Python doesn't remember that there
    is none: it looks through `sys.path` again, which took 35 of a trivial feed's 65 microseconds.
    An entry of None in `sys.modules` is Python's way to say so; it stays for the feed only.
    """

    def __init__(self, package: str) -> None:
        self._package = package

    def __enter__(self) -> None:
        self._modules.setdefault(self._package, None)

    def __exit__(self, *exc_info: object) -> None:
        # Sessions of other threads may be within theirs, or it was imported after all.
        if self._modules.get(self._package, self) is None:
            self._modules.pop(self._package, None)

    @property
    def _modules(self) -> dict[str, ModuleType | None]:
        return cast(dict[str, ModuleType | None], sys.modules)


def room_bytes(text: str) -> int:
    """Memory that `Worker.bind_text` needs for a text beyond the limit of what code may use.

    Twice its size while the pieces are joined, and buffers; measured at up to 2.25 times its size
    and 32 MiB, for texts of 1 to 100 MB with 1 to 3 bytes a character.
    """
    size = utf8_bytes(text)
    return size * 5 // 2 + min(size, 4 * PIECE_CHARS)


class Worker:
    """A worker process, started by the constructor, which raises `ReplUnavailable`.

    `room_bytes` of memory are added to the limit. `seed`: see `_fixed`. `clock`: see
    `Clock.policy`. All calls block; `kill` alone may come from another thread.
    """

    def __init__(
        self,
        limits: ReplLimits,
        *,
        room_bytes: int,
        seed: str = "",
        clock: datetime | Literal["call_host"] | None = None,
    ) -> None:
        self._feeds = 0
        self._unsearched: AbstractContextManager[None] = (
            nullcontext() if _is_installed(TELEMETRY) else Unsearched(TELEMETRY)
        )
        self._session: MontySession | None = None
        self._pid: int | None = None
        # A pool of its own: the process then ends with the session, and is nobody else's.
        self._pool = Monty(max_processes=1, request_timeout=limits.cell_timeout_s + BACKSTOP_S)
        try:
            self._open(limits, room_bytes, seed, clock)
        except (MontyError, OSError, RuntimeError) as error:
            self.close()
            raise ReplUnavailable(
                f"the monty sandbox did not start: {error}. Is pydantic-monty installed whole? "
                'repl_backend="python" runs code in a CPython process instead.'
            ) from error

    def _open(
        self,
        limits: ReplLimits,
        room_bytes: int,
        seed: str,
        clock: datetime | Literal["call_host"] | None,
    ) -> None:
        self._pool.__enter__()
        session = self._pool.checkout(
            limits={
                "max_feed_duration_secs": limits.cell_timeout_s,
                "max_memory": limits.memory_bytes + room_bytes,
                "max_suspensions": 10**9,  # its own default is 1,000 for the whole session
                "max_recursion_depth": 1000,  # as CPython's
            },
            os_policy={
                "datetime": clock or _STANDING,
                "random_start": {"seed": number_of(seed) if seed else SEED},
                "sleep": "zero",
                "process_time": "zero",
            },
        )
        self._session = session.__enter__()
        self._pid = session.worker_pid

    @property
    def pid(self) -> int | None:
        """The process's id; None when it was closed."""
        return self._pid

    @property
    def next_file(self) -> str:
        """The file name that tracebacks will have for what is fed next."""
        return f"<python-input-{self._feeds}>"

    def feed(self, code: str, inputs: dict[str, Any] | None, output: Output) -> Snapshot:
        """Run a source until it suspends or ends, with `inputs` bound as globals before."""
        if self._session is None:
            raise RuntimeError("the process was closed")
        self._feeds += 1
        with self._unsearched:
            return self._session.feed_start(code, inputs=inputs or {}, print_callback=output)

    @property
    def feeds(self) -> int:
        """How many sources were fed; the sandbox counts them too, for the file names."""
        return self._feeds

    def dump(self) -> bytes:
        """All that the sandbox holds, between two sources."""
        if self._session is None:
            raise RuntimeError("the process was closed")
        return self._session.dump()

    def load(self, dump: bytes, feeds: int) -> None:
        """Make a process that was fed nothing what `dump` gave."""
        if self._session is None:
            raise RuntimeError("the process was closed")
        self._session.load_session(dump)
        self._feeds = feeds

    def load_paused(self, dump: bytes, feeds: int, output: Output) -> Snapshot:
        """The same for the dump of a suspended source: where it stands."""
        if self._session is None:
            raise RuntimeError("the process was closed")
        self._feeds = feeds
        return self._session.load_snapshot(dump, print_callback=output)

    def bind_text(self, name: str, text: str, *, piece_chars: int = PIECE_CHARS) -> None:
        """Copy a text into a global, in pieces where it is long."""
        text = encodable(text)
        if len(text) <= piece_chars:
            self.feed("None", {name: text}, Output(0))
            return
        self.feed("_rlm_pieces = []", None, Output(0))
        for start in range(0, len(text), piece_chars):
            piece = {"_rlm_piece": text[start : start + piece_chars]}
            self.feed("_rlm_pieces.append(_rlm_piece)", piece, Output(0))
        join = f"{name} = ''.join(_rlm_pieces)\n_rlm_pieces = _rlm_piece = None"
        self.feed(join, None, Output(0))

    def bind_texts(self, name: str, texts: list[str], *, piece_chars: int = PIECE_CHARS) -> None:
        """Copy a list of texts into a global, in pieces where it is long."""
        self.feed(f"{name} = []", None, Output(0))
        piece, chars = list[str](), 0
        for text in texts:
            if piece and chars + len(text) > piece_chars:
                self.feed(f"{name}.extend(_rlm_piece)", {"_rlm_piece": piece}, Output(0))
                piece, chars = [], 0
            piece.append(encodable(text))
            chars += len(text)
        self.feed(f"{name}.extend(_rlm_piece)\n_rlm_piece = None", {"_rlm_piece": piece}, Output(0))

    def kill(self) -> None:
        """End the process while it computes: the call that waits for it then fails at once."""
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process. Safe to call twice."""
        self._pid = None
        session, self._session = self._session, None
        with suppress(MontyError, RuntimeError):
            if session is not None:
                session.__exit__(None, None, None)
        with suppress(MontyError, RuntimeError):
            self._pool.__exit__(None, None, None)


def _is_installed(package: str) -> bool:
    # A module may have been put there without a spec, which `find_spec` would not forgive.
    return sys.modules.get(package) is not None or find_spec(package) is not None
