"""Tasks that have to end: cancelled, waited for a little, and left behind if need be.

1. All of them have the same `GRACE_S` to end, by the event loop's clock. What ends at once, as
   nearly all tasks do, is waited for no longer than it takes.
2. Whoever waits is not to be hurried: cancelling it meanwhile changes nothing, and it has to look
   itself whether that happened (`calling.cancellations`).
3. A task that swallows its cancellation can't be stopped. Nobody waits for such a one, neither the
   run nor the end of its event loop or of the program, and what it gives or raises is dropped.
"""

import asyncio
import logging
import sys
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeAlias

GRACE_S = 1.5
"""Seconds for tasks that were cancelled: more than a tool has within them
(`tools.apart.GRACE_S`), and short for a person who has pressed Ctrl-C."""
_Task: TypeAlias = "asyncio.Task[Any]"
_LEFT: set[_Task] = set()
"""Tasks that nobody waits for, until they end: an event loop alone doesn't keep them."""

_logger = logging.getLogger("rlm_fsm")


def begun(work: Coroutine[Any, Any, None]) -> _Task:
    """A task that has gone as far as its first wait already, where Python has such tasks (3.12): it
    may be done, and the event loop was spared a turn."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.create_task(work)


async def stop(tasks: Iterable[_Task], *, whose: str) -> None:
    """Cancel tasks and wait until they have ended, or were given their time. `whose` they are is
    told of those that go on."""
    left: set[_Task] = {task for task in tasks if not task.done()}
    for task in left:
        task.cancel()
    clock = asyncio.get_running_loop().time
    end_s = clock() + GRACE_S
    while left and (left_s := end_s - clock()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait(left, timeout=left_s)
        left = {task for task in left if not task.done()}
    for task in left:
        leave(task)
    if left:
        _logger.warning(
            "%s: %d of its calls go on although they were cancelled: nobody waits for them any "
            "more",
            whose,
            len(left),
        )


def leave(task: _Task) -> None:
    """Let a task go on without anybody who waits for it.

    `asyncio.run` waits for all tasks that are registered. A task that is pending when its loop is
    closed says so when it is destroyed, unless it is told that this is meant to be.
    """
    _LEFT.add(task)
    task.add_done_callback(_LEFT.discard)
    with suppress(AttributeError):  # where Python has these no more, it waits, or says so
        asyncio._unregister_task(task)  # pyright: ignore[reportPrivateUsage]
        task._log_destroy_pending = False  # type: ignore[attr-defined]
