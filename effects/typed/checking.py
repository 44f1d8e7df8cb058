"""The effect `CheckAnswer`, and what is found out of calls with a schema before they are made."""

from dataclasses import replace

from effects.typed.answers import AnswerType
from effects.typed.schemas import check_reply, fault_of
from rlm_fsm.effect import CheckAnswer
from rlm_fsm.event import AnswerChecked
from rlm_fsm.values import HostCall


def checked(effect: CheckAnswer, answer_type: AnswerType | None) -> AnswerChecked:
    """The outcome of a check. `answer_type` is the type of the root's answer."""
    if effect.schema is not None:
        found = check_reply(effect.schema, effect.text)
    else:
        assert answer_type is not None, "a run whose answer has a type is begun with it"
        found = answer_type.check(effect.text, effect.data)
    return AnswerChecked(
        frame=effect.frame,
        call_id=effect.call_id,
        value=found.value,
        problems=found.problems,
        more_problems=found.more_problems,
    )


def judged(calls: tuple[HostCall, ...]) -> tuple[HostCall, ...]:
    """The calls, each with what is wrong with its schema: nothing is paid for one that can't be
    used."""
    if all(call.schema is None for call in calls):
        return calls
    faults = [fault_of(call.schema) if call.schema is not None else "" for call in calls]
    return tuple(
        replace(call, fault=fault) if fault else call
        for call, fault in zip(calls, faults, strict=True)
    )
