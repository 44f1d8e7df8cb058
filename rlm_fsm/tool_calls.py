"""Calls of tools: approvals, the window of calls in flight, and the rows of their events.

A tool is a function of the caller's program (`toolspec`). Code calls it, its cell pauses, and the
call is an effect like a model call: announced before it starts, recorded when it ended.

1. A call that needs no approval waits in a queue of its own for the whole tree, and starts when
   fewer than `max_concurrent_tools` are in flight. It counts against no limit but the time.
2. A call that needs one is asked for first, all of a pause at once. Only when a person has agreed
   does it enter the queue; a refusal is its outcome.
3. When nobody is there to answer, the call is put off. Once nothing else is left to do, the run
   ends as ``waiting``. An answer may come then, from any process: it is recorded, and nothing is
   done before the run is resumed. A resume asks again for what was not answered.
4. A call that was in flight when the run stopped is made again, or fails, as the tool's
   ``idempotent`` says, and else ``on_uncertain``. In a fork too: the other run's call may have done
   what it does. One that a person has agreed to fails, unless its tool says otherwise: the person
   agreed to one call, and the code may ask for another. So an answer that was given while the run
   stood doesn't count for its forks.
5. Whether a call needs an approval is what its tool says when the call is made: a resume asks for
   one that waits for a place, and not for one that waits for a person, when that has changed.
6. Equal calls are never merged: a function of a program may do something.
"""

from collections.abc import Mapping

from pyrsistent import pdeque

from rlm_fsm import typed
from rlm_fsm.calls import Step, announced, at, deliver
from rlm_fsm.effect import AskApproval, CallTool, Effect, Record
from rlm_fsm.event import (
    ApprovalAsked,
    ApprovalGiven,
    ApprovalPostponed,
    RunFinished,
    RunResumed,
    ToolFailed,
    ToolReturned,
)
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import CallId
from rlm_fsm.options import Options
from rlm_fsm.state import Approval, Frame, Phase, RunState
from rlm_fsm.toolspec import ToolSpec
from rlm_fsm.values import HostCall, Outcome, TextRef

UNCERTAIN = "the run stopped while this call was in flight; it may have been done"
DENIED = "a person refused this call"


def spec_of(options: Options, name: str) -> ToolSpec | None:
    """The tool of this name; None when the run has none."""
    return next((tool for tool in options.tools if tool.name == name), None)


def begin(state: RunState, frame: Frame, calls: Mapping[CallId, HostCall]) -> Step:
    """Ask for approval or queue what a cell called, and let out what may start."""
    effects: list[Effect] = []
    for call_id, asked in calls.items():
        call = CallTool(
            frame=frame.id, call_id=call_id, tool=asked.fn, arguments=TextRef.of(asked.prompt)
        )
        if _needs_approval(state.options, call):
            state, more = _ask_for(state, call)
            effects += more
        else:
            state = evolve(state, tool_queue=state.tool_queue.append(call))
    state, started = pump(state)
    return state, (*effects, *started)


def pump(state: RunState) -> Step:
    """Let calls out of the queue while there is a place."""
    started: list[Effect] = []
    while state.tool_queue and len(state.tools) < state.options.max_concurrent_tools:
        call = state.tool_queue.left
        state = evolve(
            state,
            tool_queue=state.tool_queue.popleft(),
            tools=state.tools.set(call.call_id, call),
        )
        started += announced(call)
    return state, tuple(started)


def under_way(state: RunState) -> tuple[Effect, ...]:
    """Calls in flight, and those that a person is asked for."""
    calls = tuple(state.tools[name] for name in sorted(state.tools))
    return (*calls, *(_ask(item.call) for item in _unanswered(state) if not item.is_put_off))


def ending(state: RunState) -> tuple[Record, ...]:
    """The end of a run that only waits for people; nothing otherwise."""
    if not state.approvals or state.is_over or not _is_idle(state):
        return ()
    ended = RunFinished(status="waiting", output=state.root.best)
    return (Record(event=ended),)


def going_on(
    state: RunState, event: RunResumed, before: Options, not_made: frozenset[CallId]
) -> Step:
    """What becomes of the calls of a run that is resumed: those in flight, of which some were not
    made yet, those that wait for a place, and those for which a person was asked. `before`: the
    options under which they were asked for."""

    def is_new(call: CallTool) -> bool:
        """Whether the call needs an approval that it didn't need, or that a fork hasn't."""
        needed = _needs_approval(before, call) and not event.is_fork
        return _needs_approval(state.options, call) and not needed

    effects: list[Effect] = []
    to_ask: list[CallTool] = []
    for call in (state.tools[name] for name in sorted(state.tools)):
        if call.call_id in event.answered:
            continue
        if call.call_id not in not_made and not _may_be_made_twice(state.options, call, event):
            effects.append(Record(event=_lost(call)))
        elif is_new(call):
            state = evolve(state, tools=state.tools.remove(call.call_id))
            to_ask.append(call)
        else:
            effects += announced(call)
    to_ask += filter(is_new, state.tool_queue)
    queue = pdeque(call for call in state.tool_queue if not is_new(call))
    state = evolve(state, tool_queue=queue)
    for name in sorted(state.approvals):
        state, more = _asked_again(state, state.approvals[name], event)
        effects += more
    for call in to_ask:
        state, more = _ask_for(state, call)
        effects += more
    state, more = pump(state)
    return state, (*effects, *more)


def answered(event: ApprovalGiven) -> str:
    """How somebody answered for a call, in words."""
    told = ("approved" if event.is_approved else "denied") + (f" by {event.by}" if event.by else "")
    return f"{told}: {event.reason}" if event.reason else told


# -- the rows -------------------------------------------------------------------------------------


def on_waiting_approval_asked(state: RunState, _: Frame, __: ApprovalAsked) -> Step:
    """It is on record that a call waits for a person."""
    return state, ()


def on_waiting_approval_given(state: RunState, _: Frame, event: ApprovalGiven) -> Step:
    """The call is queued, or its code sees a refusal. Of a run that stands, the answer is kept for
    the resume, and the run still stands as it did."""
    approval = state.approvals[event.call_id]
    if state.is_over:
        answered = state.approvals.set(event.call_id, evolve(approval, given=event))
        return evolve(state, approvals=answered), (Record(event=_still(state)),)
    state, effects = _judged(at(state, event.clock_s), approval, event)
    state, more = pump(state)
    return state, effects + more


def on_waiting_approval_postponed(state: RunState, _: Frame, event: ApprovalPostponed) -> Step:
    """The call waits for another process. When nothing else is left to do, the run ends as
    ``waiting``."""
    put_off = evolve(state.approvals[event.call_id], is_put_off=True)
    state = evolve(state, approvals=state.approvals.set(event.call_id, put_off))
    return at(state, event.clock_s), ()


def on_waiting_tool_returned(state: RunState, _: Frame, event: ToolReturned) -> Step:
    """The next queued call of a tool starts; the last answer resumes the cell."""
    return _ended(state, event, Outcome("text", event.value))


def on_waiting_tool_failed(state: RunState, _: Frame, event: ToolFailed) -> Step:
    """Its code will see an error; the other calls go on."""
    return _ended(state, event, Outcome("error", event.message))


# -- what they share ------------------------------------------------------------------------------


def _ended(state: RunState, event: ToolReturned | ToolFailed, outcome: Outcome) -> Step:
    state = evolve(at(state, event.clock_s), tools=state.tools.remove(event.call_id))
    spent = evolve(state.spent, tool_calls=state.spent.tool_calls + 1)
    state, effects = deliver(evolve(state, spent=spent), event.call_id, outcome)
    state, more = pump(state)
    return state, effects + more


def _judged(state: RunState, approval: Approval, event: ApprovalGiven) -> Step:
    """Do what an answer says; calls that may start are left to `pump`."""
    call = approval.call
    state = evolve(state, approvals=state.approvals.remove(call.call_id))
    if event.is_approved:
        return evolve(state, tool_queue=state.tool_queue.append(call)), ()
    return deliver(state, call.call_id, Outcome("denied", event.reason or DENIED), is_vain=True)


def _may_be_made_twice(options: Options, call: CallTool, event: RunResumed) -> bool:
    spec = spec_of(options, call.tool)
    if spec is not None and spec.idempotent is not None:
        return spec.idempotent
    return event.on_uncertain == "retry" and not (spec is not None and spec.needs_approval)


def _asked_again(state: RunState, approval: Approval, event: RunResumed) -> Step:
    call = approval.call
    if approval.given is not None and not event.is_fork:
        return _judged(state, approval, approval.given)
    spec = spec_of(state.options, call.tool)
    if spec is not None and not spec.needs_approval:
        approvals = state.approvals.remove(call.call_id)
        return evolve(state, approvals=approvals, tool_queue=state.tool_queue.append(call)), ()
    asked = state.approvals.set(call.call_id, Approval(call=call))
    return evolve(state, approvals=asked), (_ask(call),)


def _ask_for(state: RunState, call: CallTool) -> Step:
    told = ApprovalAsked(frame=call.frame, call_id=call.call_id, tool=call.tool)
    approvals = state.approvals.set(call.call_id, Approval(call=call))
    return evolve(state, approvals=approvals), (Record(event=told), _ask(call))


def _needs_approval(options: Options, call: CallTool) -> bool:
    spec = spec_of(options, call.tool)
    return spec is not None and spec.needs_approval


def _unanswered(state: RunState) -> list[Approval]:
    found = [state.approvals[name] for name in sorted(state.approvals)]
    return [approval for approval in found if approval.given is None]


def _is_idle(state: RunState) -> bool:
    """Whether the world owes nothing but answers of people who aren't there."""
    if state.calls or state.queue or state.tools or state.tool_queue:
        return False
    if any(frame.phase is not Phase.WAITING for frame in state.frames.values()):
        return False
    if any(typed.under_way(frame) for frame in state.frames.values()):
        return False
    return all(approval.is_put_off for approval in state.approvals.values())


def _still(state: RunState) -> RunFinished:
    """The end of a run that stands, said again: the newest event of a log tells how its run is."""
    return RunFinished(
        status=state.status,
        output=state.output,
        limit=state.limit,
        error=state.error,
        cause=state.cause,
        value=state.value,
    )


def _ask(call: CallTool) -> AskApproval:
    return AskApproval(
        frame=call.frame, call_id=call.call_id, tool=call.tool, arguments=call.arguments
    )


def _lost(call: CallTool) -> ToolFailed:
    return ToolFailed(frame=call.frame, call_id=call.call_id, error="uncertain", message=UNCERTAIN)
