"""Waiting for a run from a plain function: here, or in a thread with a loop of its own.

1. A run goes on in the thread of its caller, and in one of its own where the caller's event loop
   is running already.
2. The first Ctrl-C cancels the run, and is raised once the run has ended. Those close behind it
   change nothing: raised in the middle of an event loop, they can lose the wake-up of a task, and
   the loop waits for ever; or the end of the log. One that comes `PATIENCE_S` later is raised at
   once.
3. So for as long as a run is waited for, `OneInterrupt` hears Ctrl-C, in place of Python's own
   handler or of that of `asyncio.run`.
4. A handler of the program's own stays: whoever has one has decided what Ctrl-C does. What it
   raises in the middle of a wait for another thread cancels the run there, too.
5. The system may give a signal to any thread, and then the main thread, whose handlers are to hear
   it, isn't woken. So whatever waits in the main thread wakes by itself every `LISTEN_S`.
6. The command line installs a `OneInterrupt` itself, for longer than a run. It raises nothing then:
   whoever installed it tells how the run ended.
"""

import asyncio
import functools
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, T]]

PATIENCE_S = 5.0
"""A cancelled run waits `leaving.GRACE_S` for its tasks; what takes much longer hangs, in a thread
of an adapter say."""
LISTEN_S = 0.1
"""Nobody notices so short a delay of Ctrl-C, and ten wake-ups a second cost nothing."""


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

    @property
    def has_heard(self) -> bool:
        """Whether a signal came."""
        return self._first_s is not None

    @contextmanager
    def cancels(self, cancel: Callable[[], None]) -> Generator[None]:
        """Call `cancel` for the first signal within it; after it there is nothing to interrupt,
        unless another run waits for this one."""
        outer, self._cancel = self._cancel, cancel
        try:
            yield
        finally:
            if outer is None:
                self.end()
            else:
                self._cancel = outer

    def end(self) -> None:
        """There is nothing more to interrupt."""
        self._is_over, self._cancel = True, None


def run_job(job: Job[T]) -> T:
    """Run a coroutine to its end: in a loop of its own, and in a thread of its own when the
    caller's loop is running."""
    return _in_own_thread(job) if _is_in_loop() else _in_this_thread(job)


def _in_own_thread(job: Job[T]) -> T:
    """Run a coroutine to its end in a thread with a loop of its own, and wait for it."""
    task = _Task(job)
    with _interruptible(task):
        return _Thread(task).run()


def _in_this_thread(job: Job[T]) -> T:
    task = _Task(job)
    with _interruptible(task):
        return asyncio.run(task.main())


class _Task(Generic[T]):
    """A job as the main task of a loop; handlers of signals and other threads may cancel it."""

    def __init__(self, job: Job[T]) -> None:
        self._job = job
        self._cancelled_s: float | None = None
        self._is_told = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    async def main(self) -> T:
        """The job."""
        task = asyncio.current_task()
        assert task is not None, "this is a task"
        loop = asyncio.get_running_loop()
        self._running = (loop, task)
        if is_main_thread():
            _keep_awake(loop)
        if self._cancelled_s is not None:
            raise asyncio.CancelledError("interrupted before it had begun")
        return await self._job()

    def cancel(self) -> None:
        """Cancel it, now or when it begins; once, however often this is called.

        No lock is taken: a handler may be interrupted by itself.
        """
        if self._cancelled_s is None:
            self._cancelled_s = time.monotonic()
        if self._running is not None:
            loop, task = self._running
            with suppress(RuntimeError):  # the loop has ended: so has the job
                loop.call_soon_threadsafe(self._tell, task)

    @property
    def is_late(self) -> bool:
        """Whether it should have ended long ago."""
        since_s = self._cancelled_s
        return since_s is not None and time.monotonic() - since_s > PATIENCE_S

    def _tell(self, task: asyncio.Task[Any]) -> None:
        """Cancel the task, in the thread of its loop."""
        if not self._is_told:
            self._is_told = True
            task.cancel()


class _Thread(Generic[T]):
    """A task in a thread of its own, with the context variables of its caller."""

    def __init__(self, task: _Task[T]) -> None:
        self._task = task
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        self._has_begun = False
        self._ended = threading.Event()
        # A daemon: whoever has lost patience with a run wants the program to end.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work,), name="rlm-fsm-run", daemon=True
        )

    def run(self) -> T:
        """The job's result; what it raises is raised."""
        try:
            self._thread.start()
            self._wait()
        except BaseException:  # of a handler of the program's own
            self._end()
            raise
        self._thread.join()
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def _work(self) -> None:
        self._has_begun = True
        try:
            self._results.append(asyncio.run(self._task.main()))
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._ended.set()

    def _end(self) -> None:
        """Cancel the job and wait for its end; what interrupts that is dropped for a while."""
        while not self._task.is_late:
            with suppress(BaseException):
                self._task.cancel()
                # A thread that has not begun sees that the job is cancelled, whenever it begins.
                if self._has_begun:
                    self._wait()
                    self._thread.join()
                return

    def _wait(self) -> None:
        # Not `join`: interrupted, it may take a thread that still runs for an ended one.
        while not self._ended.wait(LISTEN_S):
            pass


@contextmanager
def _interruptible(task: _Task[Any]) -> Generator[None]:
    """Let the first Ctrl-C within it cancel a task, and be raised at its end."""
    if not is_main_thread():
        yield
    elif (theirs := _one_interrupt()) is not None:
        with theirs.cancels(task.cancel):
            try:
                yield
            except asyncio.CancelledError as cancelled:
                if theirs.has_heard:
                    raise KeyboardInterrupt from cancelled
                raise
    elif _is_plain(before := signal.getsignal(signal.SIGINT)):
        ours = OneInterrupt(_raise_if_late)
        try:
            with ours.cancels(task.cancel):
                signal.signal(signal.SIGINT, ours)
                yield
        finally:
            if signal.getsignal(signal.SIGINT) is ours:
                signal.signal(signal.SIGINT, before)
            if ours.has_heard:
                raise KeyboardInterrupt
    else:
        yield


def _keep_awake(loop: asyncio.AbstractEventLoop) -> None:
    """Let a loop that waits for something see signals that another thread was given."""
    loop.call_later(LISTEN_S, _keep_awake, loop)


def _one_interrupt() -> OneInterrupt | None:
    """The `OneInterrupt` that is installed. One that hears SIGTERM only is one too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if isinstance(handler := signal.getsignal(number), OneInterrupt):
            return handler
    return None


def _raise_if_late(since_s: float) -> None:
    if since_s > PATIENCE_S:
        raise KeyboardInterrupt


def _is_plain(handler: object) -> bool:
    """Whether a handler of Ctrl-C is Python's own, or that of `asyncio.run`: a method of its
    `Runner`, with the main task as an argument."""
    method = handler.func if isinstance(handler, functools.partial) else handler
    is_asyncios = isinstance(getattr(method, "__self__", None), asyncio.Runner)
    return is_asyncios or handler is signal.default_int_handler


def is_main_thread() -> bool:
    """Signals are the main thread's."""
    return threading.current_thread() is threading.main_thread()


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
