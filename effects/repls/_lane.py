"""A thread that does blocking jobs for an event loop, one after the other.

1. A job that is over in a moment is waited for beside the event loop, asleep, when the ones before
   it were as quick (see `_pace`, 5): being told through the loop takes as long as a small cell.
2. `interrupt` ends the job that runs; it is called when nobody waits for it any more.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from time import perf_counter
from typing import Generic, TypeVar, cast

from effects.repls._pace import Pace

T = TypeVar("T")

QUICK_S = 500e-6
"""A trivial cell of the sandbox takes 150 to 250 microseconds. The event loop stands still for as
long."""


class _Job(Generic[T]):
    """What is to be done, and how it ended."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.is_given_up = False
        """Nobody waits for it any more."""
        self.sleeper: asyncio.Future[None] | None = None
        """What wakes the one who waits on the event loop."""
        self._work = work
        self._value: T | None = None
        self._error: BaseException | None = None
        self._running = threading.Lock()
        self._running.acquire()

    def run(self) -> None:
        """Do it."""
        try:
            self._value = self._work()
        except BaseException as error:  # whatever it is, the one who waits is told
            self._error = error

    def end(self) -> None:
        """It was done: let those go on who wait beside the loop."""
        self._running.release()

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        """Whether it is done, or will be in so many seconds."""
        if not self._running.acquire(timeout=timeout_s):
            return False
        self._running.release()
        return True

    def result(self) -> T:
        """What it gave, or raised."""
        if self._error is not None:
            raise self._error
        return cast(T, self._value)


class Lane:
    """The thread. Its methods are for the event loop that first uses it, but for `retire`."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pace = Pace(processors=1)  # this side never spins: the thread needs the interpreter
        self._is_busy = False
        self._is_closing = False

    async def do(self, work: Callable[[], T]) -> T:
        """Do a job and wait for it. Cancelling the wait interrupts it."""
        self._pace.asks(perf_counter())
        job = self._submit(work)
        try:
            if not self._is_quick(job):
                await self._wait(job)
            if self._pace.answered(perf_counter()):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            with self._lock:
                job.is_given_up = True
                if not self._is_closing:
                    self._interrupt()
            raise
        return job.result()

    async def close(self, last: Callable[[], None]) -> None:
        """Interrupt the job that runs, do a last one, and end the thread. Safe to call twice."""
        with self._lock:
            self._is_closing = True
            if self._is_busy:
                self._interrupt()
        thread = self._thread
        if thread is not None:
            job = self._submit(last)
            self._thread = None
            self._jobs.put(None)  # the thread ends, also when nobody waits for the job
            await self._wait(job)
            thread.join()  # a moment: nothing is left to do
            job.result()

    def retire(self, last: Callable[[], None]) -> None:
        """`close` for one who can't wait."""
        if self._thread is not None:
            self._jobs.put(_Job[object](last))
            self._jobs.put(None)

    def _submit(self, work: Callable[[], T]) -> _Job[T]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="rlm-monty", daemon=True)
            self._thread.start()
        job = _Job(work)
        self._jobs.put(cast("_Job[object]", job))
        return job

    def _is_quick(self, job: _Job[T]) -> bool:
        """Whether the job is over already, having waited for it a moment where that may help."""
        if not self._pace.blocks():
            return False
        is_quick = job.has_ended(QUICK_S)
        self._pace.blocked(in_vain=not is_quick)
        return is_quick

    async def _wait(self, job: _Job[T]) -> None:
        """Wait on the event loop."""
        with self._lock:
            if job.has_ended():
                return
            job.sleeper = asyncio.get_running_loop().create_future()
        self._pace.sleeps()
        try:
            await job.sleeper
        finally:
            self._pace.wakes(perf_counter())

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._perform(job)
            del job  # else it lives, with all it refers to, until the next one comes

    def _perform(self, job: _Job[object]) -> None:
        with self._lock:
            if job.is_given_up:
                return
            self._is_busy = True
        job.run()
        with self._lock:
            self._is_busy = False
            job.end()
            sleeper = job.sleeper
        if sleeper is not None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                sleeper.get_loop().call_soon_threadsafe(_wake, sleeper)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
