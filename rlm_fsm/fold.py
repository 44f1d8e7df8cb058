"""Events -> state, and what is still owed. Resume is `fold` and then `pending`; replay is `fold`.

`advance` is one commit: events that arrived together, each followed by what it derives.

`fold` is the only way from a log to a state. Since `step` refuses derived events that differ from
what it derives, a fold that succeeds has also shown that the log says what the machine would do.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from rlm_fsm.effect import Effect, ReadVariable, Record, ResumeCode, RunCode
from rlm_fsm.event import Event
from rlm_fsm.ids import read_id
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, Frame, Phase, RunState


class Commit(NamedTuple):
    """What `advance` gives: all of it is appended in one transaction, then the effects start."""

    state: RunState
    events: tuple[Event, ...]
    """The events that arrived, each followed by what it derived."""
    effects: tuple[Effect, ...]
    """What to start once they are durable, in this order; no `Record` among them."""


def advance(state: RunState, arrived: Iterable[Event]) -> Commit:
    """The commit of events that arrived together. What comes after the run's end is dropped."""
    events: list[Event] = []
    effects: list[Effect] = []
    waiting = deque(arrived)
    while waiting and not state.is_over:
        event = waiting.popleft()
        state, caused = step(state, event)
        events.append(event)
        derived: list[Event] = []
        for effect in caused:
            if isinstance(effect, Record):
                derived.append(effect.event)
            else:
                effects.append(effect)
        waiting.extendleft(reversed(derived))
    return Commit(state, tuple(events), tuple(effects))


def fold(events: Iterable[Event], state: RunState = INITIAL) -> RunState:
    """The state after all events."""
    for event in events:
        state, _ = step(state, event)
    return state


def state_at(events: Iterable[Event], seq: int) -> RunState:
    """The state after event number `seq`, counted from 1; 0 is the state before the first."""
    state = INITIAL
    for number, event in enumerate(events, 1):
        if number > seq:
            break
        state, _ = step(state, event)
    return state


def pending(state: RunState) -> tuple[Effect, ...]:
    """The effects that were caused and have no outcome: derived events first, then the rest.

    A model call among them was announced: whoever performs it again repeats a call that may have
    been paid for.
    """
    if state.is_over:
        return ()
    owed: tuple[Effect, ...] = tuple(Record(event=event) for event in state.owed)
    calls: tuple[Effect, ...] = tuple(state.calls[key] for key in sorted(state.calls))
    frames = (state.frames[key] for key in sorted(state.frames))
    code = (effect for frame in frames for effect in _of_frame(frame, state))
    return (*owed, *calls, *code)


def _of_frame(frame: Frame, state: RunState) -> tuple[Effect, ...]:
    """The cell or the read that a frame waits for."""
    if frame.phase is Phase.RUNNING and frame.cell is not None:
        cell = frame.cell
        if cell.outcomes is not None:
            return (ResumeCode(frame=frame.id, call_id=cell.id, outcomes=cell.outcomes),)
        watched = state.options.auto_finalize_var
        watch = (watched,) if watched else ()
        return (RunCode(frame=frame.id, call_id=cell.id, code=cell.code, watch=watch),)
    if frame.reading is not None:
        read = read_id(frame.id, frame.reads)
        return (ReadVariable(frame=frame.id, call_id=read, name=frame.reading),)
    return ()
