"""What a reader of a run should know between its steps: where it went on, what is uncertain."""

from collections.abc import Sequence

from rlm_fsm.event import Event, RunResumed
from rlm_fsm.numbers import counted
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, RunState
from rlm_fsm.trace import trace

_IDS_SHOWN = 8


def marks(events: Sequence[Event]) -> dict[int, list[str]]:
    """What is to be said after so many steps of the trace of these events."""
    state, found = INITIAL, dict[int, list[str]]()
    for number, event in enumerate(events):
        before = state
        state, _ = step(state, event)
        if isinstance(event, RunResumed):
            place = len(trace(events[:number]))
            found.setdefault(place, []).append(_went_on(event, before, state))
    if state.under_way and state.status != "finished":
        told = f"{in_flight(state)} without an outcome: uncertain, and made again by a resume"
        found.setdefault(len(trace(events)), []).append(told)
    return found


def in_flight(state: RunState) -> str:
    """The calls that have begun and have no outcome, in words."""
    ids = state.under_way
    more = ", …" if len(ids) > _IDS_SHOWN else ""
    return f"{counted(len(ids), 'call')} in flight ({', '.join(ids[:_IDS_SHOWN])}{more})"


def _went_on(event: RunResumed, before: RunState, after: RunState) -> str:
    changed = "" if event.options is None else ", with other options"
    if event.is_fork:
        return f"the fork begins here, after event {before.seq:,}{changed}"
    stopped = "" if before.status == "running" else f" ({before.status})"
    told = f"resumed after event {before.seq:,}{stopped}{changed}"
    uncertain = after.uncertain - before.uncertain
    if not uncertain:
        return told
    what = "made again" if event.on_uncertain == "retry" else "counted as failed"
    return f"{told}: {in_flight(before)} uncertain, {what}"
