"""Events to rows: what is written of them, and what of a run's row follows from them."""

from collections.abc import Sequence

from effects.log.chain import Row, event_hash
from effects.log.heads import RUN_ID_CHARS
from rlm_fsm.codec import Encoded
from rlm_fsm.errors import UsageError
from rlm_fsm.event import Event, RunFinished, RunStarted, Status


def check_order(run_id: str, expected_seq: int, events: Sequence[Event]) -> None:
    """`UsageError` unless a new run has a short plain id and begins with its only `RunStarted`."""
    starts = [isinstance(event, RunStarted) for event in events]
    if starts[0] is not (expected_seq == 0) or any(starts[1:]):
        raise UsageError(f"run {run_id!r}: RunStarted must be the first event, and only the first")
    check_id(run_id)


def check_id(run_id: str) -> None:
    """`UsageError` unless a run's id is a short plain name."""
    is_plain = run_id.isascii() and run_id.isprintable() and " " not in run_id
    if not is_plain or not 1 <= len(run_id) <= RUN_ID_CHARS:
        raise UsageError(
            f"run_id={run_id!r}: give 1 to {RUN_ID_CHARS} printable ASCII characters, no blanks"
        )


def chained(
    run_id: str,
    seq: int,
    prev_hash: str,
    at: str,
    events: Sequence[Event],
    encoded: Sequence[Encoded],
) -> list[Row]:
    """The rows of events that follow event `seq`, each with the hash of the one before."""
    rows: list[Row] = []
    for event, (kind, version, data, _) in zip(events, encoded, strict=True):
        seq += 1
        frame, call_id = event.frame, getattr(event, "call_id", None)
        digest = event_hash(prev_hash, run_id, seq, kind, version, at, frame, call_id, data)
        rows.append(Row(run_id, seq, kind, version, at, frame, call_id, data, prev_hash, digest))
        prev_hash = digest
    return rows


def standing(last: Event) -> tuple[Status, str | None]:
    """Status and output of a run whose last event is `last`. A run that goes on has no output."""
    if isinstance(last, RunFinished):
        return last.status, showable(last.output) or None
    return "running", None


def showable(text: str) -> str:
    """A text that SQLite can hold: lone surrogates, which UTF-8 lacks, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
