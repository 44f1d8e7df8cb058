"""The machine: `step(state, event) -> (state, effects)`, driven by the table `TRANSITIONS`.

Rule 1: everything that decides what a run does next is a row: a phase of a frame, a kind of
event, the handler (`handlers`), and the phases in which the frame may then be.

Rule 2: the core knows no clock, no file, no network and no order but that of the events.

Rule 3: a pair of phase and event without a row is in `IMPOSSIBLE`, with the reason. Such an event
raises `IllegalEvent` and leaves the state untouched.

Rule 4: derived events (intents, refusals, limits, the end) are decided by a handler, returned as
`Record` effects, and remembered in `state.owed`. The next events must be exactly those, so a log
that says otherwise can't be folded: `ReplayDiverged`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from rlm_fsm import checks, compacting, stopping, tool_calls, typed
from rlm_fsm import handlers as on
from rlm_fsm.calls import Step
from rlm_fsm.effect import Lost, Record
from rlm_fsm.errors import IllegalEvent, ReplayDiverged
from rlm_fsm.event import (
    DERIVED,
    EVENTS,
    AnswerChecked,
    ApprovalAsked,
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodeExecuted,
    CodePaused,
    DeadlinePassed,
    Derived,
    EffectStarted,
    Event,
    GuardTripped,
    HistoryCompacted,
    LimitReached,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    ToolFailed,
    ToolReturned,
    VariableRead,
)
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import ROOT
from rlm_fsm.state import LIVE, Frame, Phase, RunState

Handler = Callable[[RunState, Frame, Any], Step]


class Row(NamedTuple):
    """One transition of a frame."""

    handler: Handler
    to: tuple[Phase, ...]
    """Where the frame may stand afterwards. A sub-run in DONE or FAILED is gone: its parent has
    the outcome."""


def row(handler: Handler, *to: Phase) -> Row:
    """A row, as the table below writes it."""
    return Row(handler, to)


NEW, ASKING, COMPACTING, RUNNING, WAITING, READING, CHECKING, CLOSING, DONE, FAILED = Phase

TRANSITIONS: dict[tuple[Phase, type[Event]], Row] = {
    (NEW, RunStarted): row(on.on_new_run_started, ASKING),
    (ASKING, EffectStarted): row(on.on_asking_effect_started, ASKING),
    (ASKING, ModelReplied): row(
        on.on_asking_model_replied, RUNNING, READING, CHECKING, ASKING, DONE, FAILED
    ),
    (ASKING, ModelFailed): row(on.on_asking_model_failed, FAILED),
    (ASKING, GuardTripped): row(on.on_asking_guard_tripped, ASKING, COMPACTING, RUNNING, FAILED),
    (ASKING, LimitReached): row(on.on_asking_limit_reached, CLOSING, DONE, FAILED),
    (ASKING, RunResumed): row(stopping.on_live_run_resumed, ASKING),
    (ASKING, Cancelled): row(stopping.on_live_cancelled, ASKING),
    (ASKING, DeadlinePassed): row(stopping.on_live_deadline_passed, ASKING),
    (ASKING, RunFinished): row(stopping.on_any_run_finished, ASKING),
    (COMPACTING, EffectStarted): row(compacting.on_compacting_effect_started, COMPACTING),
    (COMPACTING, ModelReplied): row(compacting.on_compacting_model_replied, COMPACTING),
    (COMPACTING, ModelFailed): row(compacting.on_compacting_model_failed, COMPACTING),
    (COMPACTING, HistoryCompacted): row(compacting.on_compacting_history_compacted, ASKING),
    (COMPACTING, RunResumed): row(stopping.on_live_run_resumed, COMPACTING),
    (COMPACTING, Cancelled): row(stopping.on_live_cancelled, COMPACTING),
    (COMPACTING, DeadlinePassed): row(stopping.on_live_deadline_passed, COMPACTING),
    (COMPACTING, RunFinished): row(stopping.on_any_run_finished, COMPACTING),
    (RUNNING, CodePaused): row(on.on_running_code_paused, WAITING, RUNNING),
    (RUNNING, CodeExecuted): row(
        on.on_running_code_executed, RUNNING, ASKING, COMPACTING, READING, CHECKING, DONE, FAILED
    ),
    (RUNNING, ReplFailed): row(on.on_running_repl_failed, FAILED),
    (RUNNING, RunResumed): row(stopping.on_live_run_resumed, RUNNING),
    (RUNNING, Cancelled): row(stopping.on_live_cancelled, RUNNING),
    (RUNNING, DeadlinePassed): row(stopping.on_live_deadline_passed, RUNNING),
    (RUNNING, RunFinished): row(stopping.on_any_run_finished, RUNNING),
    (WAITING, EffectStarted): row(on.on_waiting_effect_started, WAITING),
    (WAITING, ModelReplied): row(on.on_waiting_model_replied, WAITING, RUNNING),
    (WAITING, ModelFailed): row(on.on_waiting_model_failed, WAITING, RUNNING),
    (WAITING, AnswerChecked): row(checks.on_waiting_answer_checked, WAITING, RUNNING),
    (WAITING, ApprovalAsked): row(tool_calls.on_waiting_approval_asked, WAITING),
    (WAITING, ApprovalGiven): row(tool_calls.on_waiting_approval_given, WAITING, RUNNING),
    (WAITING, ApprovalPostponed): row(tool_calls.on_waiting_approval_postponed, WAITING),
    (WAITING, ToolReturned): row(tool_calls.on_waiting_tool_returned, WAITING, RUNNING),
    (WAITING, ToolFailed): row(tool_calls.on_waiting_tool_failed, WAITING, RUNNING),
    (WAITING, RunResumed): row(stopping.on_live_run_resumed, WAITING, RUNNING),
    (WAITING, Cancelled): row(stopping.on_live_cancelled, WAITING),
    (WAITING, DeadlinePassed): row(stopping.on_live_deadline_passed, WAITING),
    (WAITING, RunFinished): row(stopping.on_any_run_finished, WAITING),
    (READING, VariableRead): row(on.on_reading_variable_read, CHECKING, DONE, ASKING),
    (READING, ReplFailed): row(on.on_reading_repl_failed, FAILED),
    (READING, RunResumed): row(stopping.on_live_run_resumed, READING),
    (READING, Cancelled): row(stopping.on_live_cancelled, READING),
    (READING, DeadlinePassed): row(stopping.on_live_deadline_passed, READING),
    (READING, RunFinished): row(stopping.on_any_run_finished, READING),
    (CHECKING, AnswerChecked): row(checks.on_checking_answer_checked, DONE, ASKING, FAILED),
    (CHECKING, RunResumed): row(stopping.on_live_run_resumed, CHECKING),
    (CHECKING, Cancelled): row(stopping.on_live_cancelled, CHECKING),
    (CHECKING, DeadlinePassed): row(stopping.on_live_deadline_passed, CHECKING),
    (CHECKING, RunFinished): row(stopping.on_any_run_finished, CHECKING),
    (CLOSING, EffectStarted): row(on.on_closing_effect_started, CLOSING),
    (CLOSING, LimitReached): row(on.on_closing_limit_reached, DONE),
    (CLOSING, ModelReplied): row(on.on_closing_model_replied, DONE, CLOSING),
    (CLOSING, ModelFailed): row(on.on_closing_model_failed, DONE, CLOSING),
    (CLOSING, VariableRead): row(on.on_closing_variable_read, DONE, CLOSING),
    (CLOSING, ReplFailed): row(on.on_closing_repl_failed, DONE, CLOSING),
    (CLOSING, AnswerChecked): row(checks.on_closing_answer_checked, DONE),
    (CLOSING, RunResumed): row(stopping.on_live_run_resumed, CLOSING),
    (CLOSING, Cancelled): row(stopping.on_live_cancelled, CLOSING),
    (CLOSING, DeadlinePassed): row(stopping.on_live_deadline_passed, CLOSING),
    (CLOSING, RunFinished): row(stopping.on_any_run_finished, CLOSING),
    (DONE, RunResumed): row(stopping.on_done_run_resumed, ASKING, COMPACTING),
    (DONE, RunFinished): row(stopping.on_any_run_finished, DONE),
    (FAILED, RunResumed): row(stopping.on_failed_run_resumed, ASKING, COMPACTING, RUNNING, READING),
    (FAILED, RunFinished): row(stopping.on_any_run_finished, FAILED),
}
"""Every row of the machine, in the order of a frame's life."""


def _impossible() -> dict[tuple[Phase, type[Event]], str]:
    """The pairs without a row, each with its reason."""
    by_phase: dict[Phase, str] = {
        Phase.NEW: "nothing can happen before the run has started",
        Phase.ASKING: "no cell runs and no variable is read while the model is asked",
        Phase.COMPACTING: "a frame whose conversation is summed up runs no cell and reads nothing",
        Phase.RUNNING: "a frame whose cell runs has no model call in flight and reads nothing",
        Phase.WAITING: "a paused cell can't go on before its host calls are answered",
        Phase.READING: "a frame that reads its answer runs no cell and asks no model",
        Phase.CHECKING: "a frame whose answer is being checked runs no cell and asks no model",
        Phase.CLOSING: "a frame that is closing runs no code and accepts what it is given",
        Phase.DONE: "the frame has its answer",
        Phase.FAILED: "the frame has failed",
    }
    return {
        (phase, kind): "a run starts once" if kind is RunStarted and phase in LIVE else reason
        for phase, reason in by_phase.items()
        for kind in EVENTS
        if (phase, kind) not in TRANSITIONS
    }


IMPOSSIBLE = _impossible()
"""Every pair of phase and event that has no row, with the reason."""


def step(state: RunState, event: Event) -> Step:
    """The state after an event, and the effects that it causes, in order.

    Pure: the same state and event always give the same result, and neither is changed.
    Raises `IllegalEvent` for an event that can't happen now and `ReplayDiverged` for a derived
    event that differs from what was derived.
    """
    frame = state.frames.get(event.frame)
    owed = _take_owed(state, frame, event)
    phase = frame.phase if frame else None
    row = TRANSITIONS.get((phase, type(event))) if phase else None
    if row is None or frame is None:
        raise _illegal(phase, event, IMPOSSIBLE.get((phase, type(event))) if phase else None)
    after, effects = row.handler(state, frame, event)
    if after.approvals and not owed:
        effects += tool_calls.ending(after)
    if effects:
        owed = (*[e.event for e in effects if isinstance(e, Record)], *owed)
    return evolve(after, seq=state.seq + 1, owed=owed), effects


def _take_owed(state: RunState, frame: Frame | None, event: Event) -> tuple[Derived | Lost, ...]:
    """What is still owed after this event; raises when the event isn't the one that must come."""
    if state.owed:
        if event is not state.owed[0] and event != state.owed[0]:
            raise ReplayDiverged(
                run_id=None, seq=state.seq + 1, expected=state.owed[0], found=event
            )
        return state.owed[1:]
    if isinstance(event, DERIVED):
        raise _illegal(None, event, "the machine did not derive it")
    if state.is_over and not _may_follow_the_end(state, event):
        raise _illegal(None, event, f"the run is over ({state.status})")
    if not _is_expected(state, frame, event):
        raise _illegal(None, event, "nothing of this name waits for an outcome")
    return ()


def _may_follow_the_end(state: RunState, event: Event) -> bool:
    return state.status != "finished" and isinstance(event, RunResumed | ApprovalGiven)


def _is_expected(state: RunState, frame: Frame | None, event: Event) -> bool:
    """Whether an outcome belongs to something that is in flight."""
    match event:
        case ModelReplied() | ModelFailed():
            return event.call_id in state.calls
        case ToolReturned() | ToolFailed():
            return event.call_id in state.tools
        case ApprovalGiven() | ApprovalPostponed():
            asked = state.approvals.get(event.call_id)
            return asked is not None and asked.given is None
        case CodePaused() | CodeExecuted():
            return frame is not None and frame.cell is not None and frame.cell.id == event.call_id
        case VariableRead():
            return frame is not None and frame.reading == event.name
        case AnswerChecked():
            return frame is not None and typed.is_checked(frame, event.call_id)
        case Cancelled(not_made=not_made):
            return all(name in state.calls or name in state.tools for name in not_made)
        case DeadlinePassed(clock_s=clock_s, not_made=not_made):
            limit_s = state.options.policy.max_seconds
            known = all(name in state.calls or name in state.tools for name in not_made)
            return known and event.frame == ROOT and limit_s is not None and clock_s >= limit_s
        case ReplFailed():
            return frame is not None and (frame.cell is not None or frame.reading is not None)
        case _:
            return True


def _illegal(phase: Phase | None, event: Event, reason: str | None) -> IllegalEvent:
    name, kind = (phase.name if phase else "no such phase"), type(event).__name__
    return IllegalEvent(
        f"{kind} in frame {event.frame} ({name}): {reason or 'there is no such frame'}",
        phase=name,
        kind=kind,
        frame=event.frame,
    )
