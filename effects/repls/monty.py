"""The `monty` backend: model-written code in a sandbox without a CPython.

Code runs in pydantic-monty, an interpreter in a process of its own that can do nothing but
compute and ask the host. It speaks a part of Python; errors name the gaps and a way round.

1. The sandbox's calls block for as long as a cell computes. So each session has a thread: the
   event loop hands it a job and is told when it ended, once for a cell, or for a part of it
   between two pauses (`_lane`).
2. A cell that is given up, by cancellation or by `close`, has its worker killed; nothing else
   stops it.
3. A session that is lost is replaced when the next cell starts.
4. Patterns that code searches the context for run in a second process, which can be killed too
   (`_searcher`).
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from effects.repls._lane import Lane
from effects.repls._monty_session import Session
from effects.repls._text import TextView
from effects.repls.base import Answer, Paused, ReplSettings, ReplUnavailable
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeResult, Message, ReadResult

T = TypeVar("T")


class HasView(Protocol):
    """What is needed of a context."""

    @property
    def view(self) -> TextView: ...


class MontyRepl:
    """A session in the sandbox; see `effects.repls.base.Repl` and `SavesSessions`."""

    def __init__(self, context: HasView, settings: ReplSettings) -> None:
        self._host = _Host(context.view, settings)
        self._lane = Lane(self._host.give_up)
        self._is_closed = False
        # For a session that nobody closes. The thread knows lane and host, so it keeps neither
        # us alive nor, after this, itself.
        self._finalizer = weakref.finalize(self, self._lane.retire, self._host.close)

    async def open(self) -> None:
        """Start the worker, so that the first cell doesn't wait for it."""
        await self._do(self._host.open)

    def remember(self, messages: Sequence[Message]) -> None:
        """What code finds as `history` from here on."""
        self._host.history = messages

    async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused | CodeResult:
        """Run a cell until it pauses or ends. Raises `ReplUnavailable` without a worker."""
        return await self._do(lambda: self._host.start(code, watch))

    async def resume(self, answers: tuple[Answer, ...]) -> Paused | CodeResult:
        """Go on with the paused cell. Raises `UsageError` unless each call has its answer."""
        return await self._do(lambda: self._host.resume(answers))

    async def read(self, name: str) -> ReadResult:
        """A variable as text."""
        return await self._do(lambda: self._host.read(name))

    async def snapshot(self) -> bytes | None:
        """The session as it is now, as bytes; see `effects.repls.base.SavesSessions`."""
        return await self._do(self._host.save)

    async def restore(self, data: bytes) -> Paused | None:
        """Become the session that was written down. Raises `SnapshotRefused`."""
        return await self._do(lambda: self._host.restore(data))

    async def close(self) -> None:
        """End the session, and a cell that runs."""
        if self._is_closed:
            return
        self._is_closed = True
        self._finalizer.detach()
        await self._lane.close(self._host.close)

    @property
    def worker_pid(self) -> int | None:
        """Id of the sandbox's process, for diagnostics; None when there is none."""
        return self._host.worker_pid

    async def _do(self, work: Callable[[], T]) -> T:
        if self._is_closed:
            raise ReplUnavailable("this session was closed: open another one")
        return await self._lane.do(work)


class _Host:
    """The session of the moment. `give_up` may be called from any thread, the rest from one."""

    def __init__(self, view: TextView, settings: ReplSettings) -> None:
        self._view = view
        self._settings = settings
        self._session: Session | None = None
        self.history: Sequence[Message] = ()
        """The conversation, for the cells that start from here on."""

    def open(self) -> Session:
        """The session; a new one in place of a lost one."""
        old = self._session
        if old is not None and not old.is_lost:
            return old
        if old is not None:
            old.close()
        first_cell = 1 if old is None else old.next_cell
        self._session = Session(self._view, self._settings, first_cell)
        return self._session

    def start(self, code: str, watch: tuple[str, ...]) -> Paused | CodeResult:
        return self.open().start(code, watch, self.history)

    def resume(self, answers: tuple[Answer, ...]) -> Paused | CodeResult:
        if self._session is None or self._session.is_lost:
            raise UsageError("there is no paused cell to resume: start one first")
        return self._session.resume(answers)

    def read(self, name: str) -> ReadResult:
        if self._session is None or self._session.is_lost:
            return ReadResult()
        return self._session.read(name)

    def save(self) -> bytes | None:
        if self._session is None or self._session.is_lost:
            return None
        return self._session.save()

    def restore(self, data: bytes) -> Paused | None:
        # A sandbox takes a dump as long as it was given nothing else: the one that `open` has
        # started can't be used.
        self.close()
        self._session = None
        self._session = Session(self._view, self._settings, saved=data)
        return self._session.paused

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    @property
    def worker_pid(self) -> int | None:
        return None if self._session is None else self._session.worker_pid

    def give_up(self) -> None:
        """End what the session computes, and the session."""
        if self._session is not None:
            self._session.kill()
