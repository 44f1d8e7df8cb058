"""What the cells of a run did, as its log has it: how a session is brought back.

A session's variables are in no log. They come back by running the recorded cells again with the
recorded outcomes, and what a cell asks and prints the second time is compared with the first.

`Recorder` collects, during a fold, the cells of every frame that is open, from the last point at
which the frame's session was empty. A cell with which its session died is not among them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rlm_fsm.effect import Effect, ResumeCode, RunCode
from rlm_fsm.event import CodeExecuted, CodePaused, Event
from rlm_fsm.ids import FrameId
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, RunState
from rlm_fsm.values import ContextInfo, HostCall, Message, Outcome


@dataclass(slots=True)
class RecordedPause:
    """What a cell asked, and what it was answered."""

    seq: int
    """The event that recorded it."""
    calls: tuple[HostCall, ...]
    parallel: bool
    outcomes: tuple[Outcome, ...] | None = None
    """None while the cell still waits."""


@dataclass(slots=True)
class RecordedCell:
    """A cell, from its start to its end or to where it stands."""

    code: str
    watch: tuple[str, ...]
    pauses: list[RecordedPause] = field(default_factory=list[RecordedPause])
    end: CodeExecuted | None = None
    """How it ended; None when it hasn't."""
    end_seq: int = 0
    """The event that recorded its end."""
    messages: Sequence[Message] = ()
    """The conversation when it started; shared with the state, not copied."""


@dataclass(slots=True)
class Recorder:
    """The cells of the open frames. `take` every event of a run, in order."""

    keeps_closed: bool = False
    """Whether the cells of frames that have ended are kept too."""
    cells: dict[FrameId, list[RecordedCell]] = field(
        default_factory=dict[FrameId, list[RecordedCell]]
    )
    contexts: dict[FrameId, ContextInfo] = field(default_factory=dict[FrameId, ContextInfo])
    """What the frames of `cells` work on."""

    def take(self, state: RunState, event: Event, effects: tuple[Effect, ...]) -> None:
        """Note one step: the state after it, the event, and what it caused."""
        if isinstance(event, CodePaused):
            # A fault is the host's finding: no part of what the code asked.
            calls = tuple(replace(call, fault="") if call.fault else call for call in event.calls)
            pause = RecordedPause(state.seq, calls, event.parallel)
            self.cells[event.frame][-1].pauses.append(pause)
        elif isinstance(event, CodeExecuted):
            self._end(event, state.seq)
        for effect in effects:
            if isinstance(effect, RunCode):
                self._begin(effect, state)
            elif isinstance(effect, ResumeCode):
                self.cells[effect.frame][-1].pauses[-1].outcomes = effect.outcomes
        if not self.keeps_closed and len(self.cells) > len(state.frames):
            self.cells = {name: c for name, c in self.cells.items() if name in state.frames}

    def _begin(self, effect: RunCode, state: RunState) -> None:
        """A cell starts; one that was started before, and did not get far, starts again."""
        cells = self.cells.setdefault(effect.frame, [])
        if cells and cells[-1].end is None:
            cells.pop()
        frame = state.frames[effect.frame]
        cells.append(RecordedCell(effect.code, effect.watch, messages=frame.messages))
        context = frame.context
        if context is not None:
            self.contexts[effect.frame] = context

    def _end(self, event: CodeExecuted, seq: int) -> None:
        if event.rebuilt:
            self.cells[event.frame].pop()  # what came after began with what was before it
            return
        if event.repl_lost:
            self.cells[event.frame] = []  # what came after began with an empty session
            return
        cell = self.cells[event.frame][-1]
        cell.end, cell.end_seq = event, seq


def before(events: Iterable[Event], frame: FrameId) -> list[RecordedCell]:
    """The cells of a frame before the one that runs, from the events of its run so far."""
    state, recorder = INITIAL, Recorder()
    for event in events:
        state, effects = step(state, event)
        recorder.take(state, event, effects)
    return [cell for cell in recorder.cells.get(frame, ()) if cell.end is not None]
