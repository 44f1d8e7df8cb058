"""The sessions of one run: opened when a frame first needs one, brought back, closed.

Sessions follow the state: a frame has one from its first cell until the frame is gone. Opening one
is free and repeatable, so it is no effect; neither is bringing one back after a resume, or after
it died with a cell (`sessions`), nor writing one down for that (`saving`).
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from effects.log.base import EventLog
from effects.repls.base import Repl
from effects.saving import Saver
from effects.sessions import OnChangedOutput, bring_back, rebuild
from rlm_fsm.cells import Recorder, before
from rlm_fsm.effect import Effect
from rlm_fsm.event import Event
from rlm_fsm.ids import ROOT, FrameId, RunId
from rlm_fsm.state import RunState

_logger = logging.getLogger("rlm_fsm")


@dataclass(kw_only=True)
class Keeper:
    """Has the sessions of one run. For the event loop that drives it."""

    run_id: RunId
    log: EventLog
    saver: Saver
    on_changed_output: OnChangedOutput
    new: Callable[[FrameId], Repl]
    """Makes the session of a frame, which is not open yet."""
    _repls: dict[FrameId, Repl] = field(default_factory=dict[FrameId, Repl])
    _recorder: Recorder = field(default_factory=Recorder)
    """Cells of sessions that are to be brought back when they are first needed."""
    _warm: asyncio.Task[None] | None = None
    _closing: dict[asyncio.Task[None], Repl] = field(default_factory=dict[asyncio.Task[None], Repl])
    """Sessions of frames that are gone."""

    def take(self, state: RunState, event: Event, effects: tuple[Effect, ...]) -> None:
        """Note a step of the run that was restored: the state after it, and what it caused."""
        self._recorder.take(state, event, effects)

    def warm_up(self) -> None:
        """Start the root's session while the model thinks about its first turn."""
        repl = self._repls[ROOT] = self.new(ROOT)
        self._warm = asyncio.create_task(repl.open())

    def committed(self, seq: int, events: Sequence[Event]) -> None:
        """Events were appended after event number `seq`."""
        self.saver.note(seq, events)

    def save(self, effects: Sequence[Effect]) -> None:
        """Write down what is due, but for sessions that these effects let go on."""
        self.saver.start(self._repls, effects)

    async def of(self, frame: FrameId) -> Repl:
        """The session of a frame, as it was left. Raises what `bring_back` raises."""
        if self._warm is not None and frame == ROOT:
            warm, self._warm = self._warm, None
            await warm
        repl = self._repls.get(frame)
        if repl is None:
            repl = self._repls[frame] = self.new(frame)
        recorded = self._recorder.cells.pop(frame, None)
        if recorded:
            back = await bring_back(
                repl,
                recorded,
                run_id=self.run_id,
                frame=frame,
                on_changed=self.on_changed_output,
                log=self.log,
            )
            self.saver.is_back(frame, back)
        self.saver.moves(frame)
        return repl

    async def rebuild(self, frame: FrameId) -> bool:
        """Bring back a session that died with a cell, as it was before it; whether that worked."""
        logged = (item.event for item in self.log.load(self.run_id))
        cells = before(logged, frame)
        if await rebuild(self._repls[frame], cells, run_id=self.run_id, frame=frame):
            return True
        await self.close(self._repls[frame])
        self._repls[frame] = self.new(frame)
        return False

    def retire(self, open_frames: Collection[FrameId]) -> None:
        """Begin to close the sessions of frames that are gone."""
        for frame in [frame for frame in self._repls if frame not in open_frames]:
            self.saver.forget(frame)
            repl = self._repls.pop(frame)
            task = asyncio.create_task(self.close(repl))
            self._closing[task] = repl
            task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        """A session was closed, or somebody has cancelled that: it is left to `stop` then."""
        if not task.cancelled():
            self._closing.pop(task, None)

    async def close(self, repl: Repl) -> None:
        """End a session; a failure is logged."""
        try:
            await repl.close()
        except Exception:
            _logger.exception("closing a REPL failed")

    async def stop(self) -> None:
        """End every session, also while being cancelled: whoever waits has to look whether it
        was."""
        if self._warm is not None:
            self._warm.cancel()
        with suppress(asyncio.CancelledError):
            await self.saver.stop()
        if self._warm is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(self._warm, return_exceptions=True)
        sessions = [*self._closing.values(), *self._repls.values()]
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._closing, return_exceptions=True)
        for repl in sessions:
            with suppress(asyncio.CancelledError):
                await self.close(repl)
        self._closing.clear()
        self._repls.clear()
