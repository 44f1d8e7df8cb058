"""What a run that is gone on with is refused for, before anything is started.

Each raises `UsageError` that says what to do instead.
"""

import json

from effects.log.base import EventLog
from effects.typed import AnswerType
from rlm_fsm.errors import UsageError
from rlm_fsm.ids import RunId
from rlm_fsm.policy import Policy
from rlm_fsm.state import RunState


def check_begun(log: EventLog, run_id: RunId) -> None:
    """Refuse a fork that has not begun: what it was to change is recorded nowhere, so that it would
    go on as its parent. `branch` leaves none; version 1 of the log could."""
    for info in log.runs():
        if info.run_id == run_id and info.parent is not None and info.events == info.parent_seq:
            raise UsageError(
                f"the fork {run_id} was stopped before it began, and what it was to change isn't "
                f"in the log: fork {info.parent} again"
            )


def no_such_event(log: EventLog, run_id: RunId, at: int) -> UsageError:
    """The error for a number that no event of the run has."""
    last = sum(1 for _ in log.load(run_id))
    return UsageError(f"at={at}: the run {run_id} has events 1 to {last}")


def check_limit(state: RunState, policy: Policy | None) -> None:
    """Refuse to go on under the limit that ended the run: it would end at once, and again."""
    if state.limit is None:
        return
    name = state.limit
    allowed = getattr(state.options.policy, name, None)
    now = allowed if policy is None else getattr(policy, name, None)
    if allowed is not None and now is not None and now <= allowed:
        raise UsageError(
            f"the run ended at its limit {name}={allowed:g}: "
            f"pass a policy with a larger {name} to go on"
        )


def check_type(run_id: RunId, given: AnswerType | None, schema: str | None) -> None:
    """Refuse to go on without the type of the run's answer, or with another one."""
    if schema is None and given is None:
        return
    if given is None:
        raise UsageError(
            f"the answer of run {run_id} has a type, which the log can't hold: pass output_type= "
            f"again, whose JSON schema is {schema}"
        )
    if schema is None or json.loads(schema) != json.loads(given.schema):
        raise UsageError(
            f"output_type={given.name} isn't what run {run_id} was asked for "
            f"({schema or 'an answer in words'}): pass that, or fork the run at event 1"
        )
