"""Calls of tools that wait for a person: which they are, and answers from another process.

An answer is an event of its run like any other, appended by whoever gives it; nothing is done
before the run is resumed. So whoever approves needs neither the run's functions nor its models.
"""

import getpass
from collections.abc import Sequence
from contextlib import ExitStack

from effects.jobs import open_log
from effects.log.base import EventLog
from effects.rlm import LogLike, log_of
from effects.tools.requests import requested, requests
from effects.tools.toolbox import ApprovalRequest
from rlm_fsm.errors import UsageError
from rlm_fsm.event import ApprovalGiven, Event
from rlm_fsm.fold import advance
from rlm_fsm.ids import RunId
from rlm_fsm.state import RunState


def approve(
    run_id: str,
    calls: Sequence[str] | None = None,
    *,
    deny: bool = False,
    reason: str = "",
    by: str | None = None,
    log: LogLike = None,
) -> tuple[ApprovalRequest, ...]:
    """Agree to calls of tools for which a run waits, or deny them; `resume` then goes on.

    `calls` are their ids; None: all that wait. `reason` is recorded, and the code is told a
    refusal's. `by` is who answers; None: the name that this program runs under. Gives the requests
    of the run, those that are answered included.

    Raises `UsageError` for a run that doesn't wait for such a call, `RunBusy` while somebody works
    on it, and `RunNotFound`.
    """
    with ExitStack() as stack:
        opened = open_log(log_of(run_id, log), stack)
        name = opened.find(run_id)
        stack.enter_context(opened.lead(name))
        events = [logged.event for logged in opened.load(name)]
        state, found = requested(name, events)
        chosen = _chosen(name, state, found, calls)
        who = _user() if by is None else by
        given = [
            ApprovalGiven(
                frame=state.approvals[item.call_id].call.frame,
                call_id=item.call_id,
                is_approved=not deny,
                reason=reason,
                by=who,
            )
            for item in chosen
        ]
        _append(opened, name, state, given)
        return requests(name, [logged.event for logged in opened.load(name)])


def approvals(run_id: str, *, log: LogLike = None) -> tuple[ApprovalRequest, ...]:
    """The calls of tools for which a run asks a person, those included that were answered since it
    stopped."""
    with ExitStack() as stack:
        opened = open_log(log_of(run_id, log), stack)
        name = opened.find(run_id)
        return requests(name, (logged.event for logged in opened.load(name)))


def _chosen(
    run_id: RunId,
    state: RunState,
    found: Sequence[ApprovalRequest],
    calls: Sequence[str] | None,
) -> list[ApprovalRequest]:
    """The requests to answer. `UsageError` when one of them can't be."""
    if found and state.status == "running":
        raise UsageError(
            f"run {run_id} did not stop to wait: it was killed, or is being worked on; resume it "
            "first, it asks again"
        )
    waiting = [item for item in found if item.is_approved is None]
    if calls is None and waiting:
        return waiting
    if not found:
        raise UsageError(f"run {run_id} ({state.status}) waits for no approval")
    known = ", ".join(f"{item.call_id} ({item.tool})" for item in waiting) or "none"
    by_id: dict[str, ApprovalRequest] = {item.call_id: item for item in waiting}
    unknown = [call for call in dict.fromkeys(calls or ()) if call not in by_id]
    if unknown or not waiting:
        answered = {item.call_id for item in found} - by_id.keys()
        what = "was answered already" if answered & {*unknown} or not unknown else "isn't waiting"
        named = ", ".join(unknown or sorted(answered))
        raise UsageError(f"run {run_id}: call {named} {what}; waiting: {known}")
    return [by_id[call] for call in dict.fromkeys(calls or ())]


def _append(log: EventLog, run_id: RunId, state: RunState, given: Sequence[Event]) -> None:
    log.append(run_id, state.seq, advance(state, given).events)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id
        return ""
