"""How a run stands after one of its events: as lines for people, as a document for programs."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, assert_never

from effects.view.cut import clean, head
from effects.view.plain import totals
from rlm_fsm.effect import (
    AskApproval,
    CallModel,
    CallTool,
    CheckAnswer,
    Effect,
    ReadVariable,
    Record,
    ResumeCode,
    RunCode,
)
from rlm_fsm.fold import pending
from rlm_fsm.ids import CallId
from rlm_fsm.numbers import counted
from rlm_fsm.state import Frame, RunState

_TEXT_CHARS = 200
_MACHINERY = ("reservations", "bills")


def state_lines(run_id: str, state: RunState) -> Iterator[str]:
    """A state in lines: frames, what is in flight and owed, what was spent."""
    yield f"run {run_id} after event {state.seq:,}: {state.status}"
    for _, frame in sorted(state.frames.items()):
        yield f"frame {frame.id}: {_frame(frame)}"
    if in_flight := state.under_way:
        yield f"in flight: {', '.join(in_flight)}"
    if queued := len(state.queue) + len(state.tool_queue):
        yield f"waiting for a place: {counted(queued, 'call')}"
    for call_id, approval in sorted(state.approvals.items()):
        answer = "waits for" if approval.given is None else "has"
        yield f"call {call_id} of {approval.call.tool} {answer} a person's answer"
    for effect in pending(state):
        yield f"owed: {_effect(effect)}"
    yield f"spent: {totals(state)}"
    if state.uncertain:
        yield f"uncertain so far: {counted(state.uncertain, 'call')}"
    for name in ("limit", "error", "output"):
        if text := getattr(state, name):
            yield clean(f"{name}: {head(text, _TEXT_CHARS)}")


def state_document(run_id: str, state: RunState) -> dict[str, Any]:
    """A state as plain data, without its conversations."""
    return {
        "run_id": run_id,
        "seq": state.seq,
        "status": state.status,
        "query": state.query,
        "frames": [_frame_document(frame) for _, frame in sorted(state.frames.items())],
        "in_flight": [*state.under_way],
        "queued": _queued(state),
        "approvals": [
            {
                "call_id": name,
                "tool": approval.call.tool,
                "is_approved": None if approval.given is None else approval.given.is_approved,
            }
            for name, approval in sorted(state.approvals.items())
        ],
        "owed": [_effect(effect) for effect in pending(state)],
        "spent": _spent(state),
        "uncertain_calls": state.uncertain,
        "output": state.output,
        "limit": state.limit,
        "error": state.error,
        "cause": state.cause,
    }


def _queued(state: RunState) -> list[CallId]:
    models = [call.call_id for call in state.queue]
    return [*models, *(call.call_id for call in state.tool_queue)]


def _frame(frame: Frame) -> str:
    facts = [frame.phase.name, f"turn {frame.turns} of {frame.max_steps}"]
    if frame.cell is not None:
        facts.append(f"cell {frame.cell.id}")
    if frame.pause is not None:
        asked = len(set(frame.pause.asked))
        facts.append(f"{asked - frame.pause.missing:,} of {counted(asked, 'call')} answered")
    if frame.reading is not None:
        facts.append(f"reads {frame.reading}")
    if frame.summary:
        facts.append(f"{counted(frame.skipped, 'message')} summed up or dropped")
    if frame.limit is not None:
        facts.append(f"limit {frame.limit}")
    return ", ".join(facts)


def _frame_document(frame: Frame) -> dict[str, Any]:
    pause = frame.pause
    return {
        "frame": frame.id,
        "phase": frame.phase.name,
        "turns": frame.turns,
        "max_steps": frame.max_steps,
        "cell": None if frame.cell is None else frame.cell.id,
        "code": None if frame.cell is None else frame.cell.code,
        "asked": [] if pause is None else list(pause.asked),
        "answered": [] if pause is None else sorted(pause.answers),
        "missing": 0 if pause is None else pause.missing,
        "reading": frame.reading,
        "limit": frame.limit,
        "skipped_messages": frame.skipped,
        "summary": frame.summary[0].content if frame.summary else None,
        "best": frame.best,
    }


def _effect(effect: Effect) -> str:
    match effect:
        case Record():
            return f"record {type(effect.event).__name__}"
        case CallModel():
            return f"call {effect.call_id} of the model {effect.adapter!r}"
        case RunCode():
            return f"run cell {effect.call_id}"
        case ResumeCode():
            return f"go on with cell {effect.call_id}"
        case ReadVariable():
            return f"read {effect.name}"
        case CheckAnswer():
            return f"check {effect.call_id}"
        case CallTool():
            return f"call {effect.call_id} of the tool {effect.tool}"
        case AskApproval():
            return f"ask for an approval of {effect.call_id}, a call of {effect.tool}"
        case _:
            assert_never(effect)


def _spent(state: RunState) -> dict[str, Any]:
    """What was spent as plain data, without what only the machine needs."""
    spent = state.spent
    found = {item.name: getattr(spent, item.name) for item in fields(spent)}
    found["usage"] = asdict(spent.usage)
    return {name: value for name, value in found.items() if name not in _MACHINERY}
