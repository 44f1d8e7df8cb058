"""Bringing a session back: the recorded cells run again with the recorded outcomes.

What a cell asks and prints the second time is compared with what it asked and printed the first
time. Another question is always a `ReplayDiverged`: the recorded answers would not fit it.
Another output (a clock, a random number) is one too, unless the caller accepts it.
"""

import logging
from collections.abc import Sequence
from typing import Literal

from effects.repls.base import Paused, Repl, ReplUnavailable
from rlm_fsm.cells import RecordedCell
from rlm_fsm.errors import ReplayDiverged
from rlm_fsm.event import CodeExecuted
from rlm_fsm.ids import RunId
from rlm_fsm.values import CodeResult

OnChangedOutput = Literal["raise", "accept"]
"""What to do with a cell that prints something else when it is run again."""

_logger = logging.getLogger("rlm_fsm")


async def bring_back(
    repl: Repl, cells: Sequence[RecordedCell], *, run_id: RunId, on_changed: OnChangedOutput
) -> None:
    """Run the recorded cells in an empty session, up to where the last one stands.

    A cell without an end is left paused at its last pause; one that hasn't paused is not started:
    the effect that the machine still owes does that.
    """
    for cell in cells:
        if cell.end is None and not cell.pauses:
            return
        result = await repl.start(cell.code, cell.watch)
        for number, pause in enumerate(cell.pauses, 1):
            asked = result.calls if isinstance(result, Paused) else ()
            if asked != pause.calls:
                raise ReplayDiverged(
                    run_id=run_id,
                    seq=pause.seq,
                    expected=[call.prompt for call in pause.calls],
                    found=[call.prompt for call in asked] or result,
                    hint="The cell asks something else when it is run again.",
                )
            if cell.end is None and number == len(cell.pauses):
                return
            assert pause.outcomes is not None, "a cell goes on only when it was answered"
            result = await repl.resume(pause.outcomes)
        if cell.end is not None:
            _compare(cell.end, cell.end_seq, result, run_id, on_changed)


async def rebuild(repl: Repl, cells: Sequence[RecordedCell], *, run_id: RunId) -> bool:
    """Bring back a session that died, as it was after these cells; whether that worked.

    Another output is accepted: the run goes on, and nobody waits to be asked. When it didn't work,
    the session is of no use.
    """
    try:
        await bring_back(repl, cells, run_id=run_id, on_changed="accept")
    except (ReplayDiverged, ReplUnavailable) as error:
        _logger.warning("a session that died could not be brought back: %s", error)
        return False
    return True


def _compare(
    recorded: CodeExecuted,
    seq: int,
    result: Paused | CodeResult,
    run_id: RunId,
    on_changed: OnChangedOutput,
) -> None:
    then, now = _shown(recorded), result if isinstance(result, Paused) else _shown(result)
    if then == now:
        return
    diverged = ReplayDiverged(
        run_id=run_id,
        seq=seq,
        expected=then,
        found=now,
        hint="The cell prints something else when it is run again: a clock, chance, or the "
        'outside world. Pass on_changed_output="accept" to go on with what it gives now.',
    )
    if on_changed == "raise" or isinstance(result, Paused) or result.repl_lost:
        raise diverged
    _logger.warning("%s", diverged)


def _shown(result: CodeExecuted | CodeResult) -> tuple[str, str | None, dict[str, str]]:
    """What is compared: the output, the error without its traceback, the watched values."""
    error = result.error
    told = None if error is None else f"{error.kind}: {error.message}"
    return result.stdout, told, dict(result.watched)
