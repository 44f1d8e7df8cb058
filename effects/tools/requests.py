"""The calls of tools for which a person is asked: which they are, from the events of a run."""

from collections.abc import Iterable

from effects.tools.toolbox import ApprovalRequest, parsed
from rlm_fsm.event import CodePaused, Event
from rlm_fsm.ids import CallId, RunId, host_call_id
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, RunState
from rlm_fsm.values import HostCall


def requests(run_id: RunId, events: Iterable[Event]) -> tuple[ApprovalRequest, ...]:
    """The calls of a run for which a person is asked, from its events."""
    return requested(run_id, events)[1]


def requested(
    run_id: RunId, events: Iterable[Event]
) -> tuple[RunState, tuple[ApprovalRequest, ...]]:
    """The state that events lead to, and `requests`."""
    state, asked = INITIAL, dict[CallId, HostCall]()
    for event in events:
        if isinstance(event, CodePaused):
            first = state.frames[event.frame].host_calls + 1
            named = {host_call_id(event.frame, n): c for n, c in enumerate(event.calls, first)}
            asked |= {name: call for name, call in named.items() if call.kind == "tool"}
        state, _ = step(state, event)
    found = [
        ApprovalRequest(
            run_id=run_id,
            call_id=name,
            tool=approval.call.tool,
            arguments=parsed(asked[name].prompt),
            is_approved=None if approval.given is None else approval.given.is_approved,
        )
        for name, approval in sorted(state.approvals.items())
    ]
    return state, tuple(found)
