"""One sandboxed child process, seen from the host: talking to it, and ending it.

1. It is started and ended by `_spawning`.
2. The socket doesn't block. Frames go out at once where they fit into its buffer; one callback
   on the event loop takes the answers, unless they come so soon that the request itself finds
   them (see `_pace`). There is one request at a time, and a frame that nobody waits for ends the
   process.
3. What comes from the child is never trusted: a frame has a limited length, bears the mark of the
   request that it answers, and must be a JSON object, else the process is ended. A request that
   isn't answered in time ends it too.
4. A request never raises for what the child does: it returns the frame, or `Lost`.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_bytes
from select import select
from time import perf_counter
from typing import Any, cast

from effects.repls import _frames
from effects.repls._pace import HOST_SPIN_S, Pace
from effects.repls._spawning import REAP_TIMEOUT_S, Started, how_it_exited, kill_session

READ_BYTES = 1 << 16
"""What is read at once; also the size from which a frame gets a buffer of its own."""
MOST_FDS = 1024
"""`select` takes descriptors below this."""
MARKS_AT_ONCE = 32
"""What is taken of them is copied, so not too many."""
EXIT_TIMEOUT_S = 0.5
"""How long a process whose socket was closed may take to exit by itself: long enough to learn
how it ended."""
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Lost:
    """The process is gone, and its session with it."""

    kind: str
    """``CellTimeout`` when it didn't answer in time, ``CellStopped`` when the cell was to stop and
    asked on, else ``ReplDied``."""
    message: str


class Child:
    """A child process that serves a session. Made in and bound to the running event loop."""

    def __init__(self, started: Started) -> None:
        self.lost: Lost | None = None
        """Why it is gone; None as long as it lives."""
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(len(os.sched_getaffinity(0)))
        self._asked = False
        """A request was sent and is not settled."""
        self._mark = b""
        """That of the last request."""
        self._marks = b""
        """What the marks of the next requests are taken from."""
        self._answer: dict[str, Any] | Lost | None = None
        """What came for it."""
        self._waiter: asyncio.Future[None] | None = None
        """The request sleeps until this is done."""
        self._timer: asyncio.TimerHandle | None = None
        """Looks whether `_deadline`, that of the request which sleeps, has passed."""
        self._deadline = 0.0
        self._ended = False
        """The socket was closed at the other end."""
        self._unsent = memoryview(b"")
        self._head = b""
        self._large: bytearray | None = None
        self._filled = 0
        self._closed = False
        self._started = started
        self._socket = started.socket
        self._may_block = self._socket.fileno() < MOST_FDS
        self._loop.add_reader(self._socket, self._on_readable)

    @property
    def pid(self) -> int:
        """The process; also its process group and its session."""
        return self._started.process.pid

    async def request(
        self, message: dict[str, Any], timeout_s: float, *, fds: Sequence[int] = ()
    ) -> dict[str, Any] | Lost:
        """Send a frame, descriptors with it, and wait for the answer, at most `timeout_s`
        seconds. The message is the process's: it is changed on its way."""
        if self.lost is not None:
            return self.lost
        self._asked = True
        spins, child_spins = self._pace.asks(perf_counter())
        try:
            self._mark = mark = self._new_mark()
            if child_spins:
                message["spin"] = True
            self._send(_frames.encode(message, mark), fds)
            if spins:
                self._spin()
            elif self._may_block and self._pace.blocks():
                self._block()
            if self._answer is None:
                await self._sleep(timeout_s)
            if self._pace.answered(perf_counter()):
                await asyncio.sleep(0)
            answer = self._answer
            assert answer is not None, "it sleeps until there is one"
            return answer
        except asyncio.CancelledError:
            # The answer could not be told from that to the next request.
            self._lose(Lost("ReplDied", "the cell was cancelled"))
            raise
        finally:
            self._asked = False
            self._answer = None

    async def close(self, why: Lost) -> None:
        """End the process and all it started, and delete its folder. Safe to call twice."""
        self._lose(why)
        if self._closed:
            return
        self._closed = True
        try:
            # The system tells of an exit by a signal, which belongs to the whole program.
            for _ in range(int(REAP_TIMEOUT_S / _POLL_S)):
                if how_it_exited(self.pid):
                    break
                await asyncio.sleep(_POLL_S)
        finally:
            # Also while being cancelled: nothing may be left behind.
            kill_session(self.pid)
            self._started.reap()

    def _new_mark(self) -> bytes:
        """Random bytes; the system is asked for many at once."""
        if not self._marks:
            self._marks = token_bytes(_frames.MARK_BYTES * MARKS_AT_ONCE)
        mark, self._marks = self._marks[: _frames.MARK_BYTES], self._marks[_frames.MARK_BYTES :]
        return mark

    def _spin(self) -> None:
        """Look for the answer for a moment."""
        end_s = perf_counter() + HOST_SPIN_S
        while self._answer is None and not self._ended and perf_counter() < end_s:
            self._on_readable()
        self._pace.spun(in_vain=self._answer is None)

    def _block(self) -> None:
        """Wait for the answer for a moment, with the processor left to whoever wants it."""
        end_s = perf_counter() + HOST_SPIN_S
        left_s = HOST_SPIN_S
        while self._answer is None and not self._ended and left_s > 0:
            if not select([self._socket], (), (), left_s)[0]:
                break
            self._on_readable()
            left_s = end_s - perf_counter()
        self._pace.blocked(in_vain=self._answer is None)

    async def _sleep(self, timeout_s: float) -> None:
        """Wait on the event loop until there is an answer: in time, or `Lost`."""
        self._waiter = self._loop.create_future()
        self._set_timer(self._loop.time() + timeout_s)
        self._pace.sleeps()
        try:
            await self._waiter
        finally:
            self._pace.wakes(perf_counter())
            self._waiter = None

    def _set_timer(self, deadline: float) -> None:
        """Have `_on_timer` called at the deadline or before it: a timer that is under way is left
        alone, since a session makes thousands of requests that are answered long before."""
        self._deadline = deadline
        if self._timer is not None and self._timer.when() > deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _send(self, frame: bytes, fds: Sequence[int]) -> None:
        try:
            sent = socket.send_fds(self._socket, [frame], fds) if fds else self._socket.send(frame)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # the reader learns of the end, and how it came about
        if sent < len(frame):
            self._unsent = memoryview(frame)[sent:]
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            if self._large is not None:
                self._on_more(self._large)
                return
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._on_end()
            return
        data = self._head + data if self._head else data
        start = _frames.HEADER_BYTES
        size = int.from_bytes(data[: _frames.LENGTH_BYTES], "big")
        if len(data) < start:
            self._head = data
        elif data[_frames.LENGTH_BYTES : start] != self._mark:
            self._lose(Lost("ReplDied", "the process sent what is no answer, and was ended"))
        elif size > _frames.MAX_FRAME_BYTES or len(data) > start + size:
            self._lose(Lost("ReplDied", "the process sent what is no frame, and was ended"))
        elif len(data) == start + size:
            self._head = b""
            self._on_frame(data[start:])
        elif size < READ_BYTES:
            self._head = data
        else:
            self._head = b""
            self._large, self._filled = bytearray(size), len(data) - start
            self._large[: self._filled] = data[start:]

    def _on_more(self, large: bytearray) -> None:
        """Another part of a large frame."""
        with memoryview(large) as view:
            try:
                count = self._socket.recv_into(view[self._filled :])
            except (ConnectionError, TimeoutError):
                count = 0
        self._filled += count
        if not count:
            self._on_end()
        elif self._filled == len(large):
            self._large = None
            self._on_frame(large)

    def _on_frame(self, payload: bytes | bytearray) -> None:
        try:
            message = _frames.decode(payload)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._lose(Lost("ReplDied", "the process sent what is no frame, and was ended"))
        elif not self._asked or self._answer is not None:
            self._lose(Lost("ReplDied", "the process spoke out of turn, and was ended"))
        else:
            self._settle(cast(dict[str, Any], message))

    def _settle(self, answer: dict[str, Any] | Lost) -> None:
        """Give the request its answer."""
        self._answer = answer
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiter is None:
            return  # the next request sets it again
        if self._loop.time() < self._deadline:
            self._set_timer(self._deadline)
            return
        self._lose(
            Lost(
                "CellTimeout",
                "the code did not stop at its time limit, so its process was ended",
            )
        )

    def _on_end(self) -> None:
        """The socket was closed at the other end: learn how, and tell."""
        self._ended = True
        self._loop.remove_reader(self._socket)
        self._tell_end(self._loop.time() + EXIT_TIMEOUT_S)

    def _tell_end(self, deadline: float) -> None:
        how = how_it_exited(self.pid)
        if how is None and self._loop.time() < deadline:
            self._loop.call_later(_POLL_S, self._tell_end, deadline)
        else:
            self._lose(Lost("ReplDied", f"the process {how or 'closed its connection'}"))

    def _lose(self, lost: Lost) -> None:
        """Kill everything and answer whoever waits. What is left is for `close`."""
        if self.lost is not None:
            return
        self.lost = lost
        kill_session(self.pid)
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._asked and self._answer is None:
            self._settle(lost)
