"""Threads in which a cache is asked: few, kept for the next question, and waited for by nobody.

An event loop's own executor won't do: `asyncio.run` and the end of the program wait for its
threads, so that a cache which hangs (a mount whose server is gone) would hold both for ever.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

MOST = 32
"""Threads at once, as many as an executor of asyncio has at most."""
IDLE_S = 1.0
"""How long a thread waits for the next job before it ends: a batch asks far more often."""


class Threads:
    """Does blocking jobs for one event loop."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        """Held for all that is below."""
        self._count = 0
        self._idle = 0

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` gives; it must not raise. Raises `RuntimeError` when no thread can be had.

        A job whose waiter was cancelled is done all the same.
        """
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(value: T) -> None:
            if not answer.done():
                answer.set_result(value)

        def job() -> None:
            value = context.run(work)
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(settle, value)

        self._submit(job)
        return await answer

    def _submit(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
            elif self._count < MOST:
                self._grow()

    def _grow(self) -> None:
        try:
            threading.Thread(target=self._serve, name="rlm-cache", daemon=True).start()
        except RuntimeError:  # the system gives no more: those that are there have to do
            if not self._count:
                self._jobs.pop()
                raise
        else:
            self._count += 1

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            job()
            del job  # else it lives, with all it refers to, until the next one comes

    def _next(self) -> Callable[[], None] | None:
        """The next job; None when there was none for a while: the thread has to end."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs, IDLE_S)
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._count -= 1
            return None
