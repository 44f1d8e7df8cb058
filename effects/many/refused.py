"""What a run was refused by its share of a batch's budget, though it has finished."""

from effects.log.base import EventLog
from effects.many.budget import SHARED, Ledger, Limit
from effects.replaying import folded
from rlm_fsm.cells import Recorder
from rlm_fsm.errors import RLMError
from rlm_fsm.ids import RunId
from rlm_fsm.policy import Policy


def refused_by(log: EventLog, run_id: RunId, ledger: Ledger, granted: Policy) -> Limit | None:
    """The limit that forbade a run's code a subcall, if it had that from the budget.

    No event says so: what code is answered follows from the log, so it is folded.
    """
    limits: list[Limit] = [name for name in SHARED if ledger.cut_by(name, granted)]
    if not limits:
        return None
    recorder = Recorder(keeps_closed=True)
    try:
        folded(log.load(run_id), run_id, recorder)
    except RLMError:
        return None
    told = [
        outcome.text
        for cells in recorder.cells.values()
        for cell in cells
        for pause in cell.pauses
        for outcome in pause.outcomes or ()
        if outcome.kind == "limit"
    ]
    return next((name for name in limits if any(f"{name}:" in text for text in told)), None)
