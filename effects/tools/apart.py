"""Calls of functions that aren't ours, each apart from the run that waits for it.

1. An ``async`` function is called on the run's event loop, in a task of its own; any other in a
   thread of its own. What a plain function gives that has to be awaited has a task, too.
2. Whatever a call raises is a value for the one who waits. One exception is raised instead: a
   `KeyboardInterrupt` in a task, since it is a person's who pressed Ctrl-C in the middle of it.
   In a thread it can only be the function's own.
3. So a cancellation that is raised here is that of the one who waits.
4. A call that takes too long, or that nobody wants any more, is cancelled and given `GRACE_S` to
   clean up. Neither a thread nor a task that swallows its cancellation can be stopped: nobody
   waits for such a one, neither the run nor the end of its event loop or of the program, and what
   it gives or raises is dropped.
"""

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from returns.result import Failure, Result, Success

from effects.leaving import leave

Made: TypeAlias = Result[Any, BaseException]
"""What a call gave or raised."""
GRACE_S = 1.0
"""Seconds for a task that was cancelled to clean up: enough to close a connection, and short for
a person who has pressed Ctrl-C."""

_logger = logging.getLogger("rlm_fsm")


async def made(
    call: Callable[[], Any], *, is_async: bool, name: str, timeout_s: float | None = None
) -> Made:
    """Make a call and wait for what comes of it. Raises `TimeoutError` when that takes longer than
    `timeout_s`; a `TimeoutError` of the function's own is a value, as all that it raises."""
    one = _Call(answer=asyncio.get_running_loop().create_future(), name=name)
    if is_async:
        one.await_in_task(call)
    else:
        one.call_in_thread(call)
    try:
        async with asyncio.timeout(timeout_s):
            return await one.answer
    except (TimeoutError, asyncio.CancelledError):
        await one.drop()
        raise


def is_async(fn: Any) -> bool:
    """Whether a function is called on the event loop."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004 - an object whose call is async
    )


@dataclass(eq=False, kw_only=True)
class _Call:
    """A call that is under way."""

    answer: "asyncio.Future[Made]"
    """Has a result once there is one; cancelled when nobody waits for it any more."""
    name: str
    task: "asyncio.Task[None] | None" = None

    def await_in_task(self, call: Callable[[], Any]) -> None:
        self.task = asyncio.create_task(self._await(call), name="rlm-tool")
        self.task.add_done_callback(self._ended)

    def call_in_thread(self, call: Callable[[], Any]) -> None:
        """Call a plain function. Daemonic: the end of the program doesn't wait for it."""
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def work() -> None:
            gave, is_awaitable = context.run(_called, call)
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(self._returned, gave, is_awaitable, context=context)

        try:
            threading.Thread(target=work, name="rlm-tool", daemon=True).start()
        except RuntimeError as error:  # there are too many already
            self._settle(Failure(error))

    async def drop(self) -> None:
        """Cancel what is left of the call, and wait for it a little."""
        task = self.task
        if task is None or task.done():
            return
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=GRACE_S)
        finally:
            if not task.done():
                leave(task)
                _logger.warning(
                    "%s goes on although it was cancelled: nobody waits for it any more", self.name
                )

    async def _await(self, call: Callable[[], Any]) -> None:
        try:
            value = call()
            gave: Made = Success(await value if inspect.isawaitable(value) else value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            gave = Failure(error)
        self._settle(gave)

    def _returned(self, gave: Made, is_awaitable: bool) -> None:
        """The thread has ended."""
        if not is_awaitable:
            self._settle(gave)
        elif not self.answer.done():
            self.await_in_task(gave.unwrap)
        elif inspect.iscoroutine(value := gave.unwrap()):
            value.close()  # else Python warns that it was never awaited

    def _settle(self, gave: Made) -> None:
        if not self.answer.done():
            self.answer.set_result(gave)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """The task is over; it has told what it gave, unless it was stopped from outside."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.answer.done():
            self.answer.set_exception(error)
        self._settle(Failure(asyncio.CancelledError("it was cancelled before it began")))


def _called(call: Callable[[], Any]) -> tuple[Made, bool]:
    """What a plain function gives, and whether that has to be awaited."""
    try:
        value = call()
        return Success(value), inspect.isawaitable(value)
    except BaseException as error:  # whatever it is, the one who waits is told
        return Failure(error), False
