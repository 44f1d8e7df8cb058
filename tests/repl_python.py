"""Driving the `python` backend in tests, and looking at the system's processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repl_driving import Answerer, Driving, context_of, settings_of, upper

from effects.context import Context
from effects.repls.base import Repl
from effects.repls.python import PythonRepl
from rlm_fsm.values import CodeResult

BARE = (
    "network namespace",
    "mount namespace",
    "ipc namespace",
    "host name namespace",
    "process namespace",
    "user namespace",
    "own user",
    "landlock",
    "system call filter",
)
"""The layers that keep code from seeing, opening and starting things: without them, a positive
control shows that what a test tries does work elsewhere."""


class PythonDriving(Driving):
    """Sessions of the `python` backend."""

    async def make(self, source: str | list[str] | Context, **settings: Any) -> Repl:
        return PythonRepl(context_of(source), settings_of(**settings))

    def error(self, code: str, answerer: Answerer = upper, **options: Any) -> tuple[str, str]:
        """Kind and traceback of the error of a cell after which the session goes on."""
        failed, after = self.cells(code, "print('on')", answerer=answerer, **options)
        assert failed.error is not None
        assert not failed.repl_lost, failed.error
        assert after.stdout == "on\n"
        return failed.error.kind, failed.error.traceback

    def lost(self, code: str, **options: Any) -> CodeResult:
        """The result of a cell that loses the session; the next one begins anew."""
        before, lost, after = self.cells("x = 1", code, "print('x' in dir(), P[:3])", **options)
        assert before.error is None
        assert lost.repl_lost
        assert after.stdout == "False The\n", after.error
        return lost


def descendants(pid: int) -> list[int]:
    """All processes that a process has started, and they in turn."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_bytes().rpartition(b")")[2].split()[1]) == pid:
                found += [int(path.parent.name), *descendants(int(path.parent.name))]
        except OSError:
            pass
    return found


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"


def sessions() -> set[int]:
    """The sessions of all processes that live."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] != b"Z":
            found.add(int(fields[3]))
    return found


def own_children() -> list[int]:
    """Child processes of this one, zombies included."""
    found = list[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def comes_true(claim: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Whether a claim about the system comes true soon."""
    end = time.monotonic() + within_s
    while not claim() and time.monotonic() < end:
        time.sleep(0.01)
    return claim()
