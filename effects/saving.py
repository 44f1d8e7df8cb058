"""When a session is written down, so that a resume need not run its cells again.

A snapshot is a cache (see `sessions`): what matters is that it is right and costs little.

1. It is taken where an event names what the session is: at a pause and between two cells. It
   bears the number of that event, and is taken only once the event is committed.
2. It is taken while the session waits, next to the calls that the event caused, and never when the
   session is to go on at once. A batch of a thousand calls is one pause, and so one snapshot at
   most, not one for each outcome.
3. It is due when the frame has computed for long enough since the last one
   (`repls.base.SnapshotRule`): a short run never takes one.
4. A snapshot that fails is logged, and the run goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from effects.log.base import EventLog
from effects.repls.base import Repl, ReplUnavailable, SavesSessions, SnapshotRule
from effects.sessions import BroughtBack
from rlm_fsm.effect import Effect, ReadVariable, ResumeCode, RunCode
from rlm_fsm.event import CodeExecuted, CodePaused, Event
from rlm_fsm.ids import FrameId, RunId

_logger = logging.getLogger("rlm_fsm")


@dataclass(slots=True)
class _Session:
    """What is known of a frame's session."""

    seq: int | None = None
    """The event after which it is as it is; None while it computes."""
    unsaved_s: float = 0.0
    """Seconds of computing that no snapshot holds."""
    due_s: float = 0.0
    """How many of them make the next snapshot worth it."""
    tried: int | None = None
    """The event of the newest snapshot that was begun."""
    is_saving: bool = False
    is_saved: bool = False
    """Whether the log may hold snapshots of it."""


@dataclass(kw_only=True)
class Saver:
    """Takes the snapshots of one run. For the event loop that drives the run."""

    run_id: RunId
    log: EventLog
    rule: SnapshotRule
    clock: Callable[[], float]
    _sessions: dict[FrameId, _Session] = field(default_factory=dict[FrameId, _Session])
    _due: set[FrameId] = field(default_factory=set[FrameId])
    """Frames that have computed for long enough: mostly none, so that a commit costs nothing."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def note(self, seq: int, committed: Sequence[Event]) -> None:
        """Events were committed after event number `seq`."""
        for number, event in enumerate(committed, seq + 1):
            if not isinstance(event, CodePaused | CodeExecuted):
                continue
            session = self._session(event.frame)
            session.seq = number
            session.unsaved_s += event.elapsed_s
            if isinstance(event, CodeExecuted) and event.repl_lost:
                session.seq, session.unsaved_s = None, 0.0
            self._judge(event.frame, session)

    def start(self, repls: Mapping[FrameId, Repl], effects: Sequence[Effect]) -> None:
        """Begin the snapshots that are due, but for sessions that `effects` let go on."""
        for frame in self._due:
            session = self._sessions[frame]
            if session.is_saving or session.seq is None or session.seq == session.tried:
                continue
            repl = repls.get(frame)
            if isinstance(repl, SavesSessions) and not _goes_on(frame, effects):
                task = asyncio.create_task(self._save(frame, session, repl))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def is_back(self, frame: FrameId, how: BroughtBack) -> None:
        """The session was brought back."""
        self._session(frame).is_saved = how.snapshot is not None

    def moves(self, frame: FrameId) -> None:
        """The session is about to compute: from now on it is not what the last event says."""
        if (session := self._sessions.get(frame)) is not None:
            session.seq = None

    def forget(self, frame: FrameId) -> None:
        """The frame has ended: nothing will bring its session back."""
        self._due.discard(frame)
        session = self._sessions.pop(frame, None)
        if session is not None and session.is_saved:
            try:
                self.log.drop_snapshots(self.run_id, frame)
            except Exception as error:
                _logger.warning("run %s: old snapshots stay: %s", self.run_id, error)

    async def stop(self) -> None:
        """Give up the snapshots that are being taken; their sessions are to be closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _session(self, frame: FrameId) -> _Session:
        session = self._sessions.get(frame)
        if session is None:
            session = self._sessions[frame] = _Session(due_s=self.rule.after_s)
        return session

    def _judge(self, frame: FrameId, session: _Session) -> None:
        if session.unsaved_s >= session.due_s:
            self._due.add(frame)
        else:
            self._due.discard(frame)

    async def _save(self, frame: FrameId, session: _Session, repl: SavesSessions) -> None:
        seq, seconds, began = session.seq, session.unsaved_s, self.clock()
        if seq is None or session.is_saving or seq == session.tried:
            return  # it went on, or another task was faster
        session.is_saving, session.tried = True, seq
        try:
            data = await repl.snapshot()
            is_open = self._sessions.get(frame) is session  # else the frame has ended meanwhile
            if data is not None and is_open and len(data) <= self.rule.most_bytes:
                session.is_saved = True
                self.log.save_snapshot(self.run_id, frame, seq, data)
        except ReplUnavailable:
            pass  # it was closed: its frame has ended
        except Exception as error:
            _logger.warning("run %s: no snapshot of frame %s: %s", self.run_id, frame, error)
        finally:
            session.is_saving = False
            session.unsaved_s -= seconds
            taken_s = self.clock() - began
            session.due_s = max(self.rule.after_s, taken_s / self.rule.most_share)
            if self._sessions.get(frame) is session:
                self._judge(frame, session)


def _goes_on(frame: FrameId, effects: Sequence[Effect]) -> bool:
    return any(
        isinstance(effect, RunCode | ResumeCode | ReadVariable) and effect.frame == frame
        for effect in effects
    )
