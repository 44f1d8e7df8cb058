"""Ctrl-C and SIGTERM: one of them cancels a run, and those after it don't disturb its end."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def terminated_like_interrupted() -> Generator[None]:
    """Let SIGTERM do what Ctrl-C does: calls in flight are hung up, the log says ``cancelled``."""
    if not _is_main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        del number, frame
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def hear_no_interrupts() -> None:
    """The work is over: what is left is to tell how it ended, which takes a moment."""
    if _is_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupts_restored() -> Generator[None]:
    """Whatever is done with interrupts within it, they are heard as before after it."""
    if not _is_main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_main_thread() -> bool:
    """Signals are the main thread's."""
    return threading.current_thread() is threading.main_thread()
