"""Ctrl-C and SIGTERM: one of them cancels a run, and those after it don't disturb its end.

1. Both signals have one handler, `OneInterrupt`, from before a run until the program ends.
2. A signal that is raised as an exception in the middle of an event loop can lose the wake-up of
   a task, and the loop waits for ever. So a run has its loop in a thread of its own: `apart`.
3. Whoever has waited for the end long enough ends the program with one more signal.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from effects.waiting import PATIENCE_S, OneInterrupt, is_main_thread

P = ParamSpec("P")
T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CANCELLED = 130


@contextmanager
def terminated_like_interrupted() -> Generator[None]:
    """Let SIGTERM do what Ctrl-C does: calls in flight are hung up, the log says ``cancelled``.

    The handler stays: what follows is to tell how the run ended. `interrupts_restored` ends it.
    """
    if is_main_thread():
        handler = OneInterrupt(_end_if_late)
        signal.signal(signal.SIGTERM, handler)
        # Else it is ignored, as by nohup, or somebody's own.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, handler)
    yield


def apart(act: Callable[P, T]) -> Callable[P, T]:
    """`act`, called where an event loop is running: the library gives the run a thread then."""

    def acted(*args: P.args, **options: P.kwargs) -> T:
        async def inside() -> T:
            return act(*args, **options)

        return asyncio.run(inside())

    return acted


def hear_no_interrupts() -> None:
    """The work is over: what is left is to tell how it ended, which takes a moment."""
    if not is_main_thread():
        return
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if isinstance(handler, OneInterrupt):
            handler.end()
        elif handler is signal.default_int_handler:
            signal.signal(number, signal.SIG_IGN)


def ignore_interrupts() -> None:
    """The program ends. Python takes its own handlers away before it is gone, but not this."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_restored() -> Generator[None]:
    """Whatever is done with interrupts within it, they are heard as before after it."""
    if not is_main_thread():
        yield
        return
    before = [(number, signal.getsignal(number)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _end_if_late(since_s: float) -> None:
    """A log survives this, like any death of the program."""
    if since_s > PATIENCE_S:
        os._exit(_CANCELLED)
