"""Waiting, in a thread whose event loop is running, for a run that has a thread of its own.

1. Whatever interrupts the wait (Ctrl-C above all) cancels the run, and is raised once the run has
   ended.
2. `asyncio.run` takes the first Ctrl-C for itself and cancels its main task. That one is the very
   task that waits here, in the middle of a step, and never gets to hear of it. So for as long as
   the wait lasts, Ctrl-C is Python's own `KeyboardInterrupt` in place of asyncio's handler.
3. A handler of the program's own stays: whoever has one has decided what Ctrl-C does.
4. `OneInterrupt` is such a handler, the command line's. Nothing is raised in the middle of the
   wait then: the handler cancels the run, and the `KeyboardInterrupt` comes when it has ended.
"""

import asyncio
import functools
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


class OneInterrupt:
    """A handler of signals that hears one of them: it cancels the run that is waited for.

    It is a `KeyboardInterrupt` while there is no run yet, and nothing once there has been one.
    """

    def __init__(self, again: Callable[[float], None]) -> None:
        """`again` is called for each further signal, with the seconds since the first."""
        self._again = again
        self._first_s: float | None = None
        self._cancel: Callable[[], None] | None = None
        self._is_over = False

    def __call__(self, number: int, frame: object) -> None:
        del number, frame
        now_s = time.monotonic()
        if self._first_s is not None:
            self._again(now_s - self._first_s)
            return
        self._first_s = now_s
        if self._cancel is not None:
            self._cancel()
        elif not self._is_over:
            raise KeyboardInterrupt

    @contextmanager
    def cancels(self, cancel: Callable[[], None]) -> Generator[None]:
        """Call `cancel` for the first signal within it; after it there is nothing to interrupt."""
        self._cancel = cancel
        try:
            yield
        finally:
            self.end()

    def end(self) -> None:
        """There is nothing more to interrupt."""
        self._is_over, self._cancel = True, None


def in_own_thread(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in a thread with a loop of its own, and wait for it."""
    results: list[T] = []
    errors: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    interrupted, ended = threading.Event(), threading.Event()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None, "this is a task"
        running.append((asyncio.get_running_loop(), task))
        if interrupted.is_set():
            raise asyncio.CancelledError("interrupted before it had begun")
        return await job()

    def work() -> None:
        try:
            results.append(asyncio.run(main()))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    def cancel() -> None:
        interrupted.set()
        for loop, task in running:
            with suppress(RuntimeError):  # the loop has ended: so has the run
                loop.call_soon_threadsafe(task.cancel)

    with _interruptible(cancel):
        thread = threading.Thread(target=work, name="rlm-fsm-run")
        thread.start()
        try:
            # Not `join`: interrupted, it may take a thread that still runs for an ended one.
            ended.wait()
        except BaseException:
            cancel()
            ended.wait()
            raise
        finally:
            thread.join()
    if not errors:
        return results[0]
    if interrupted.is_set() and isinstance(errors[0], asyncio.CancelledError):
        raise KeyboardInterrupt
    raise errors[0]


@contextmanager
def _interruptible(cancel: Callable[[], None]) -> Generator[None]:
    """Let Ctrl-C interrupt what waits within it, where asyncio would take it for itself, and let
    `OneInterrupt` cancel it."""
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and (one := _one_interrupt()) is not None:
        with one.cancels(cancel):
            yield
        return
    if not is_main or not _is_asyncios(before):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _one_interrupt() -> OneInterrupt | None:
    """The `OneInterrupt` that is installed. One that hears SIGTERM only is one too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if isinstance(handler := signal.getsignal(number), OneInterrupt):
            return handler
    return None


def _is_asyncios(handler: object) -> bool:
    """Whether a handler of a signal is that of `asyncio.run`: a method of its `Runner`, with the
    main task as an argument."""
    method = handler.func if isinstance(handler, functools.partial) else handler
    return isinstance(getattr(method, "__self__", None), asyncio.Runner)
