"""Events -> state, and what is still owed. Resume is `fold` and then `pending`; replay is `fold`.

`advance` is one commit: events that arrived together, each followed by what it derives.

`fold` is the only way from a log to a state. Since `step` refuses derived events that differ from
what it derives, a fold that succeeds has also shown that the log says what the machine would do.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rlm_fsm import tool_calls
from rlm_fsm.effect import Effect, Record
from rlm_fsm.event import (
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    DeadlinePassed,
    Event,
    RunResumed,
)
from rlm_fsm.frames import under_way
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, RunState

_OF_ONE_RUN = (ApprovalGiven, ApprovalPostponed, RunResumed, Cancelled, DeadlinePassed)


class Commit(NamedTuple):
    """What `advance` gives: all of it is appended in one transaction, then the effects start."""

    state: RunState
    events: tuple[Event, ...]
    """The events that arrived, each followed by what it derived."""
    effects: tuple[Effect, ...]
    """What to start once they are durable, in this order; no `Record` among them."""


def advance(state: RunState, arrived: Iterable[Event]) -> Commit:
    """The commit of events that arrived together. What comes after the run's end is dropped, but
    for what belongs to it, a resume, and a person's answer. A run that is over starts nothing."""
    events: list[Event] = []
    effects: list[Effect] = []
    waiting = deque(arrived)
    while waiting:
        event = waiting.popleft()
        if state.is_over and not state.owed and not isinstance(event, RunResumed | ApprovalGiven):
            break
        state, caused = step(state, event)
        events.append(event)
        derived: list[Event] = []
        for effect in caused:
            if isinstance(effect, Record):
                derived.append(effect.event)
            else:
                effects.append(effect)
        waiting.extendleft(reversed(derived))
    return Commit(state, tuple(events), () if state.is_over else tuple(effects))


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


def branching(events: Sequence[Event]) -> tuple[int, tuple[Event, ...]]:
    """Where a fork begins that shares these events, and the outcome that it takes over as its own.

    It shares whole commits. The outcome of the last one, where that isn't whole, is the fork's own;
    but for what befell one run only: that it was stopped or went on, or what a person answered.
    """
    state, boundary = INITIAL, 0
    for event in events:
        state, _ = step(state, event)
        if not state.owed:
            boundary = state.seq
    outcome = tuple(events[boundary : boundary + 1])
    return boundary, () if isinstance(next(iter(outcome), None), _OF_ONE_RUN) else outcome


def pending(state: RunState) -> tuple[Effect, ...]:
    """The effects that were caused and have no outcome: derived events first, then the rest.

    A call of a model or a tool among them was announced: whoever performs it again repeats a call
    that may have been paid for, or done.
    """
    if state.is_over:
        return ()
    owed: tuple[Effect, ...] = tuple(Record(event=event) for event in state.owed)
    calls: tuple[Effect, ...] = tuple(state.calls[key] for key in sorted(state.calls))
    return (*owed, *calls, *tool_calls.under_way(state), *under_way(state))
