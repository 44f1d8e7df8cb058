"""The end of a run's time: the handler of `DeadlinePassed`, whatever the root is doing.

The deadline is the one limit that doesn't wait for a call to be made: what is in flight then is
given up, and may have been paid for.
"""

from rlm_fsm.calls import Step
from rlm_fsm.effect import Record
from rlm_fsm.event import DeadlinePassed, RunFinished
from rlm_fsm.evolve import evolve
from rlm_fsm.state import Frame, RunState


def on_live_deadline_passed(state: RunState, frame: Frame, event: DeadlinePassed) -> Step:
    """The run ends where it is, with the best answer that it has; its frames stay as they are, so
    that it can be resumed with more time."""
    policy = state.options.policy
    ended = RunFinished(status="partial", output=frame.best, limit="max_seconds")
    if policy.on_limit == "raise":
        error = f"the limit max_seconds ({policy.max_seconds:g}) is reached"
        ended = RunFinished(
            status="failed", output=frame.best, limit="max_seconds", error=error, cause="limit"
        )
    spent = evolve(state.spent, seconds=max(state.spent.seconds, event.clock_s))
    return evolve(state, spent=spent), (Record(event=ended),)
