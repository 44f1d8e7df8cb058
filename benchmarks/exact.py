"""Sleeping on an event loop for exactly so long, as an answer over a network would take.

An event loop waits with ``epoll``, whose time is whole milliseconds, rounded up: what sleeps 20 ms
on it sleeps 20.5 on average, and what ended at different moments of a millisecond goes on at the
same one. A socket isn't rounded: the loop wakes when something is there. So calls that stand for
those of a service are timed by the kernel (``timerfd``), whose timer is a descriptor that becomes
readable, like a socket.
"""

import asyncio
import ctypes
import os
import time
from heapq import heappop, heappush
from itertools import count

_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_NS = 10**9
_libc = ctypes.CDLL(None, use_errno=True)


class _Setting(ctypes.Structure):
    """``struct itimerspec``: the interval, which is none, and the time."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """Wakes sleepers of one event loop. Made in and bound to the running one; `close` it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._numbers = count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._set_ns = 0
        self._loop.add_reader(self._fd, self._on_time)

    async def sleep(self, seconds: float) -> None:
        """Come back after so long, and the few microseconds that waking takes."""
        due_ns = time.monotonic_ns() + round(seconds * _NS)
        woken: asyncio.Future[None] = self._loop.create_future()
        heappush(self._sleepers, (due_ns, next(self._numbers), woken))
        if not self._set_ns:
            self._set(due_ns)
        await woken

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _on_time(self) -> None:
        os.read(self._fd, 8)
        now_ns = time.monotonic_ns()
        while self._sleepers and self._sleepers[0][0] <= now_ns:
            woken = heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
        self._set(self._sleepers[0][0] if self._sleepers else 0)

    def _set(self, at_ns: int) -> None:
        """Ring at a time; 0 for never. All sleep equally long, so none comes before the first."""
        self._set_ns = at_ns
        setting = _Setting(0, 0, *divmod(at_ns, _NS))
        if _libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
