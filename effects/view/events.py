"""Events in a line each, and how two of them differ."""

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, assert_never

from effects.view.cut import clean, head
from rlm_fsm.event import (
    AnswerChecked,
    ApprovalAsked,
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodeExecuted,
    CodePaused,
    DeadlinePassed,
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
from rlm_fsm.numbers import counted, number
from rlm_fsm.tool_calls import answered

NOT_COMPARED = frozenset({"elapsed_s", "clock_s", "request_id", "seed", "now_s"})
"""Fields that differ in any two runs and say nothing about them."""
_BEFORE_CHARS = 20
"""What is shown of a text before the place where it differs."""


def says(event: Event) -> str:
    """What an event says, whole."""
    match event:
        case RunStarted():
            return event.query
        case EffectStarted():
            return event.effect
        case ModelReplied():
            return event.text
        case ModelFailed():
            return f"{event.error}: {event.message}"
        case CodePaused():
            if event.now_s is not None and len(event.calls) == 1:
                now = datetime.fromtimestamp(event.now_s, UTC)
                return f"{event.calls[0].fn}: it is {now:%Y-%m-%d %H:%M:%S} UTC"
            fns = ", ".join(dict.fromkeys(call.fn for call in event.calls))
            prompt = event.calls[0].prompt if event.calls else ""
            return f"{fns}: {counted(len(event.calls), 'call')}, “{prompt}”"
        case ToolReturned():
            return event.value
        case ToolFailed():
            return f"{event.error}: {event.message}"
        case ApprovalAsked():
            return f"{event.tool} waits for an approval"
        case ApprovalGiven():
            return answered(event)
        case ApprovalPostponed():
            return "nobody was there to answer"
        case CodeExecuted():
            raised = f"raised {event.error.kind}: {event.error.message}" if event.error else ""
            return "; ".join(filter(None, (raised, event.stdout)))
        case ReplFailed():
            return event.message
        case VariableRead():
            return f"{event.name} = {event.text if event.text is not None else event.error}"
        case AnswerChecked():
            found = [f"{item.path or 'the value'}: {item.message}" for item in event.problems]
            return "fits" if event.value is not None else "; ".join(found)
        case GuardTripped():
            return f"{event.guard}: {event.reason}"
        case LimitReached():
            return f"{event.limit}: {number(event.used)} of {number(event.allowed)}"
        case HistoryCompacted():
            return compacted(event)
        case RunResumed():
            what = "a fork" if event.is_fork else f"uncertain calls: {event.on_uncertain}"
            return what if event.options is None else f"{what}, other options"
        case Cancelled():
            return event.reason
        case DeadlinePassed():
            return f"at {event.clock_s:,.1f} s"
        case RunFinished():
            return f"{event.status}: {event.output or event.error or ''}"
        case _:
            assert_never(event)


def compacted(event: HistoryCompacted) -> str:
    """What became of a conversation, in words."""
    if event.failure:
        return f"no summary: {event.failure}"
    after = counted(event.tokens_after, "token")
    return f"{counted(event.messages, 'message')} summed up, {event.tokens_before:,} to {after}"


def about(event: Event) -> str:
    """The call that an event is about, or else its frame."""
    return getattr(event, "call_id", None) or event.frame


def event_line(seq: int, at: str, event: Event, width: int) -> str:
    """An event in a line of a terminal."""
    start = f"{seq:>5}  {at[:19].replace('T', ' ')}  {type(event).__name__:<17}  {about(event):<8} "
    return clean(start) + head(says(event), max(20, width - len(start)))


def differing(first: Event, second: Event) -> list[tuple[str, Any, Any]]:
    """The fields in which two events differ, each with both values; none for equal events."""
    if type(first) is not type(second):
        return [("kind", type(first).__name__, type(second).__name__)]
    pairs = (
        (item.name, getattr(first, item.name), getattr(second, item.name))
        for item in fields(first)
        if item.name not in NOT_COMPARED
    )
    return [(name, ours, theirs) for name, ours, theirs in pairs if ours != theirs]


def from_difference(first: str, second: str, chars: int) -> tuple[str, str]:
    """Both texts from shortly before the place where they differ, on a line each."""
    same = 0
    for same, (ours, theirs) in enumerate(zip(first, second, strict=False)):  # noqa: B007
        if ours != theirs:
            break
    else:
        same = min(len(first), len(second))
    start = max(0, same - _BEFORE_CHARS)
    before = "…" if start else ""
    return before + head(first[start:], chars), before + head(second[start:], chars)
