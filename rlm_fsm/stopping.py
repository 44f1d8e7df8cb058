"""How a run stops, and how one that has stopped goes on: the rows of these, whatever the root does.

1. A run that is cancelled, or whose time is up, stops where it is. What is in flight is given up,
   and may have been paid for, unless it was announced and not made yet; the frames stay as they
   are.
2. The deadline is the one limit that doesn't wait for a call to be made.
3. To go on is a row like any other: calls that were in flight are uncertain, what failed is tried
   again, a limit that was raised gives another turn. Where limits have changed, a call is judged
   again before it is made again.
"""

from rlm_fsm import calls, frames, tool_calls, verdicts
from rlm_fsm.calls import Step, put
from rlm_fsm.effect import Record
from rlm_fsm.event import Cancelled, DeadlinePassed, RunFinished, RunResumed
from rlm_fsm.evolve import evolve
from rlm_fsm.numbers import number
from rlm_fsm.queue import in_order
from rlm_fsm.state import Frame, Phase, RunState

# -- the end --------------------------------------------------------------------------------------


def on_live_cancelled(state: RunState, frame: Frame, event: Cancelled) -> Step:
    """The run ends where it is; its frames stay as they are, so that it can be resumed."""
    finished = RunFinished(status="cancelled", output=frame.best, error=event.reason)
    return _stopped(state, event), (Record(event=finished),)


def on_live_deadline_passed(state: RunState, frame: Frame, event: DeadlinePassed) -> Step:
    """The run ends where it is, with the best answer that it has; its frames stay as they are, so
    that it can be resumed with more time."""
    policy = state.options.policy
    ended = RunFinished(status="partial", output=frame.best, limit="max_seconds")
    if policy.on_limit == "raise":
        error = f"the limit max_seconds ({number(policy.max_seconds or 0)}) is reached"
        ended = RunFinished(
            status="failed", output=frame.best, limit="max_seconds", error=error, cause="limit"
        )
    return _stopped(state, event), (Record(event=ended),)


def on_any_run_finished(state: RunState, _: Frame, event: RunFinished) -> Step:
    """The run is over: nothing more may happen."""
    over = evolve(
        state,
        status=event.status,
        output=event.output,
        limit=event.limit,
        error=event.error,
        cause=event.cause,
        value=event.value,
    )
    return over, ()


# -- going on -------------------------------------------------------------------------------------


def on_live_run_resumed(state: RunState, frame: Frame, event: RunResumed) -> Step:
    """Calls that were in flight are uncertain: counted, and made again or failed, as was asked, or
    as their tool has it; but those that certainly weren't made are made. What a person has answered
    in between is done. Cells and reads that were under way are started again; the interpreter
    brings their sessions back first.
    """
    uncertain = () if event.is_fork else state.under_way
    before, not_made = state.options, state.not_made
    state = _going_on(state, frame, event)
    cells = frames.under_way(state)
    state = evolve(state, uncertain=state.uncertain + len(uncertain))
    state, tools = tool_calls.going_on(state, event, before, not_made)
    left = [call for call in in_order(state) if call.call_id not in event.answered]
    again = [c for c in left if event.on_uncertain == "retry" or c.call_id in not_made]
    lost = [Record(event=calls.lost(call)) for call in left if call not in again]
    now = state.options
    is_judged = now.policy != before.policy
    is_judged |= now.max_concurrent_subcalls < before.max_concurrent_subcalls
    state, models = calls.made_again(state, again, is_judged=is_judged)
    return state, (*lost, *models, *cells, *tools)


def on_failed_run_resumed(state: RunState, frame: Frame, event: RunResumed) -> Step:
    """What failed is tried again: the turn, the cell, or what the frame gave up.

    A turn that failed isn't used up.
    """
    cause = state.cause
    state = _going_on(state, frame, event)
    frame = evolve(state.root, invalid=0, errors=0, repeats=0, misfits=0, rejects=0)
    if cause == "repl" and frame.cell is not None:
        running = evolve(frame, phase=Phase.RUNNING)
        return put(state, running), (frames.run_effect(state, running),)
    if cause == "repl" and frame.reading is not None:
        return verdicts.read_variable(state, evolve(frame, phase=Phase.READING), frame.reading)
    if cause in ("limit", "guard") and frame.news:
        return frames.ask(state, evolve(frame, stalled=""))
    return frames.retry(state, frame)


def on_done_run_resumed(state: RunState, frame: Frame, event: RunResumed) -> Step:
    """A run that a limit ended goes on under the limits that now hold."""
    state = _going_on(state, frame, event)
    news = frame.news or state.options.profile.limit_raised
    return frames.ask(state, evolve(state.root, limit=None, news=news))


def _stopped(state: RunState, event: Cancelled | DeadlinePassed) -> RunState:
    """The state at the time of its end, with the calls that weren't made."""
    return evolve(calls.at(state, event.clock_s), not_made=frozenset(event.not_made))


def _going_on(state: RunState, frame: Frame, event: RunResumed) -> RunState:
    """The state of a run that is not over any more, under the options that now hold."""
    options = event.options or state.options
    frame = evolve(frame, max_steps=options.policy.max_steps)
    state = evolve(
        state,
        status="running",
        options=options,
        output="",
        limit=None,
        error=None,
        cause=None,
        value=None,
        not_made=frozenset(),
        uncertain=0 if event.is_fork else state.uncertain,
    )
    return put(state, frame)
