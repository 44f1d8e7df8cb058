"""What a run was refused by its share of a batch's budget, though it has finished."""

from effects.log.base import EventLog
from effects.many.budget import SHARED, Ledger, Limit
from effects.replaying import folded
from rlm_fsm.effect import Effect, ResumeCode
from rlm_fsm.errors import RLMError
from rlm_fsm.event import Event
from rlm_fsm.ids import RunId
from rlm_fsm.policy import Policy
from rlm_fsm.state import RunState


def refused_by(log: EventLog, run_id: RunId, ledger: Ledger, granted: Policy) -> Limit | None:
    """The limit that forbade a run's code a subcall, if it had that from the budget.

    No event says so: what code is answered follows from the log, so it is folded.
    """
    limits: list[Limit] = [name for name in SHARED if ledger.cut_by(name, granted)]
    if not limits:
        return None
    refusals = _Refusals()
    try:
        folded(log.load(run_id), run_id, refusals)
    except RLMError:
        return None
    return next((name for name in limits if name in refusals.limits), None)


class _Refusals:
    """The limits that forbade calls of code, in a fold."""

    def __init__(self) -> None:
        self.limits: set[str | None] = set()

    def take(self, state: RunState, event: Event, effects: tuple[Effect, ...]) -> None:
        """Look at what a step answers a cell."""
        del state, event
        for effect in effects:
            if isinstance(effect, ResumeCode):
                self.limits |= {answer.limit for answer in effect.outcomes}
