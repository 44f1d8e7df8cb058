"""Bringing a session back: from its newest snapshot, and else by running its cells again.

1. A snapshot (`saving`) is used when it stands for an event of the record, and the backend takes
   it. Else an older one is, or none. The cells behind it are run again with the recorded outcomes.
2. What a session asks and prints is compared with what was recorded. Another question is always a
   `ReplayDiverged`: the recorded answers would not fit it. Another output (a clock, a random
   number) is one too, unless the caller accepts it. A snapshot's pause is compared as well.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from effects.log.base import EventLog
from effects.repls.base import Paused, Repl, ReplUnavailable, SavesSessions, SnapshotRefused
from rlm_fsm.cells import RecordedCell
from rlm_fsm.errors import ReplayDiverged
from rlm_fsm.event import CodeExecuted
from rlm_fsm.ids import FrameId, RunId
from rlm_fsm.values import CodeResult

OnChangedOutput = Literal["raise", "accept"]
"""What to do with a cell that prints something else when it is run again."""

_logger = logging.getLogger("rlm_fsm")


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtBack:
    """How a session came back."""

    snapshot: int | None
    """The event whose snapshot was used; None: there was none that fits."""
    cells: int
    """Cells that were run again from their beginning."""


async def bring_back(
    repl: Repl,
    cells: Sequence[RecordedCell],
    *,
    run_id: RunId,
    frame: FrameId,
    on_changed: OnChangedOutput,
    log: EventLog | None = None,
) -> BroughtBack:
    """Make a new session what the recorded cells made of it, up to where the last one stands.

    A cell without an end is left paused at its last pause; one that hasn't paused is not started:
    the effect that the machine still owes does that. Snapshots are those of `log`; without it
    all cells are run again.
    """
    place = _Place()
    if log is not None and isinstance(repl, SavesSessions):
        place = await _restored(repl, cells, run_id, frame, log)
    rest = cells[place.cells :]
    if place.paused is not None:
        await _go_on(repl, rest[0], place.paused, place.pauses, run_id, on_changed)
        rest = rest[1:]
    run = 0
    for cell in rest:
        if cell.end is None and not cell.pauses:
            break
        repl.remember(cell.messages)
        run += 1
        result = await repl.start(cell.code, cell.watch)
        await _go_on(repl, cell, result, 0, run_id, on_changed)
    told = "from no snapshot" if place.seq is None else f"from its snapshot at event {place.seq}"
    _logger.info("run %s: session %s is back %s; cells run again: %d", run_id, frame, told, run)
    return BroughtBack(snapshot=place.seq, cells=run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a session stands; by default, at its beginning."""

    cells: int = 0
    """Recorded cells that have ended."""
    pauses: int = 0
    """Recorded pauses before the one that the next cell stands at."""
    seq: int | None = None
    """The event that recorded it."""
    paused: Paused | None = None


async def _restored(
    repl: SavesSessions, cells: Sequence[RecordedCell], run_id: RunId, frame: FrameId, log: EventLog
) -> _Place:
    """Bring a session back from its newest snapshot that is of any use."""
    until: int | None = None
    while (snapshot := log.snapshot(run_id, frame, until=until)) is not None:
        until = snapshot.seq - 1
        place = _place_of(cells, snapshot.seq)
        if place is None:
            continue  # of a session that was lost since
        ended, pauses = place
        try:
            paused = await repl.restore(snapshot.data)
        except SnapshotRefused as refused:
            _logger.warning(
                "run %s: the snapshot of session %s at event %d isn't used: %s",
                run_id,
                frame,
                snapshot.seq,
                refused,
            )
            continue
        if (paused is None) is not (pauses is None):
            found = "between two cells" if paused is None else paused
            raise ReplayDiverged(
                run_id=run_id,
                seq=snapshot.seq,
                expected="between two cells" if pauses is None else cells[ended].pauses[pauses],
                found=found,
                hint="The snapshot of the session is another one than its event says.",
            )
        return _Place(cells=ended, pauses=pauses or 0, seq=snapshot.seq, paused=paused)
    return _Place()


def _place_of(cells: Sequence[RecordedCell], seq: int) -> tuple[int, int | None] | None:
    """Where the cells stood after an event of theirs: how many had ended, and the number of the
    pause (from 0) at which the next one stood, or None between two cells."""
    for number, cell in enumerate(cells):
        if cell.end is not None and cell.end_seq == seq:
            return number + 1, None
        for index, pause in enumerate(cell.pauses):
            if pause.seq == seq:
                return number, index
    return None


async def _go_on(
    repl: Repl,
    cell: RecordedCell,
    result: Paused | CodeResult,
    first: int,
    run_id: RunId,
    on_changed: OnChangedOutput,
) -> None:
    """Let a cell go on that stands at its pause number `first` (from 0), or has ended before."""
    for number, pause in enumerate(cell.pauses[first:], first + 1):
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


async def rebuild(
    repl: Repl, cells: Sequence[RecordedCell], *, run_id: RunId, frame: FrameId
) -> bool:
    """Bring back a session that died, as it was after these cells; whether that worked.

    Another output is accepted: the run goes on, and nobody waits to be asked. When it didn't work,
    the session is of no use.
    """
    try:
        await bring_back(repl, cells, run_id=run_id, frame=frame, on_changed="accept")
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
