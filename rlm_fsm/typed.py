"""Types: what a model is told of them, and the checks that are under way.

The core knows a type as the text of a JSON schema and never looks into it. Whether a value fits is
found out by an effect, `CheckAnswer`; what follows from that is in `checks`.

1. Only the root's answer has a type (`Options.answer_schema`): a sub-run answers in words.
2. A subcall with a schema is a plain call, never a sub-run. Its schema stands in its prompt, and
   its outcome is the value that was accepted, as JSON.
3. A subcall whose reply doesn't fit is asked again, with the reply and what is wrong with it:
   `ATTEMPTS` times in all. Each attempt costs what it costs; `max_subcalls` counts the call once.
"""

from collections.abc import Mapping

from pyrsistent import PMap, pmap

from rlm_fsm.effect import CheckAnswer
from rlm_fsm.event import AnswerChecked
from rlm_fsm.ids import CallId, first_of
from rlm_fsm.profile import Profile, fill
from rlm_fsm.state import Checking, Frame, TypedCall
from rlm_fsm.values import HostCall

ATTEMPTS = 2
"""At most so often a subcall with a schema is asked: most replies that don't fit once fit the
second time, and those that don't seldom do later."""
REPLY_CHARS = 2_000
"""Of a reply that doesn't fit so much is shown when it is asked again, from its beginning."""

_NONE: PMap[CallId, TypedCall] = pmap()


def answer_shape(words: Profile, schema: str) -> str:
    """What the root is told of the type of its answer."""
    return fill(words.answer_shape, schema=schema)


def answer_misfit(words: Profile, event: AnswerChecked) -> str:
    """What the root is told of an answer that doesn't fit."""
    return fill(words.answer_misfit, problems=problems(words, event))


def misfit(words: Profile, call: TypedCall, event: AnswerChecked) -> str:
    """The prompt that asks again what was answered with something that doesn't fit."""
    reply = call.reply[:REPLY_CHARS]
    return fill(
        words.subcall_misfit, prompt=call.asked, reply=reply, problems=problems(words, event)
    )


def problems(words: Profile, event: AnswerChecked) -> str:
    """A line for each place that doesn't fit, and one for those that aren't listed."""
    lines = [
        fill(words.problem, path=item.path or "the value", message=item.message, found=item.found)
        for item in event.problems
    ]
    if event.more_problems:
        lines.append(fill(words.more_problems, count=event.more_problems))
    return "\n".join(lines)


def begun(calls: Mapping[CallId, HostCall], words: Profile) -> PMap[CallId, TypedCall]:
    """What is to be known of those calls that have a schema."""
    found: dict[CallId, TypedCall] = {}
    for call_id, call in calls.items():
        if call.schema is not None:
            asked = fill(words.subcall_shape, prompt=call.prompt, schema=call.schema)
            found[call_id] = TypedCall(schema=call.schema, asked=asked, prompt=asked)
    return pmap(found) if found else _NONE


def typed_calls(frame: Frame) -> PMap[CallId, TypedCall]:
    """The frame's unanswered calls that have a schema."""
    return _NONE if frame.pause is None else frame.pause.typed


def has_schema(frame: Frame, call_id: CallId) -> bool:
    """Whether the reply to an unanswered call must fit a schema."""
    calls = typed_calls(frame)
    return bool(calls) and first_of(call_id) in calls


def prompt_of(frame: Frame | None, call_id: CallId) -> str | None:
    """The prompt of a call with a schema; None for any other call."""
    if frame is None or not has_schema(frame, call_id):
        return None
    return typed_calls(frame)[first_of(call_id)].prompt


def check(frame: Frame, checking: Checking) -> CheckAnswer:
    """The effect that checks a frame's answer."""
    return CheckAnswer(
        frame=frame.id, call_id=checking.call_id, text=checking.text, data=checking.data
    )


def check_call(frame: Frame, call: TypedCall) -> CheckAnswer:
    """The effect that checks the reply of a call."""
    assert call.replied is not None, "there is a reply to check"
    call_id = call.replied.call_id
    return CheckAnswer(frame=frame.id, call_id=call_id, text=call.reply, schema=call.schema)


def under_way(frame: Frame) -> tuple[CheckAnswer, ...]:
    """The checks that a frame waits for."""
    if frame.checking is not None:
        return (check(frame, frame.checking),)
    calls = typed_calls(frame)
    if not calls:
        return ()
    found = [calls[name] for name in sorted(calls)]
    return tuple(check_call(frame, call) for call in found if call.replied is not None)


def is_checked(frame: Frame, call_id: CallId) -> bool:
    """Whether a check of this name is under way."""
    if frame.checking is not None:
        return frame.checking.call_id == call_id
    call = typed_calls(frame).get(first_of(call_id))
    return call is not None and call.replied is not None and call.replied.call_id == call_id
