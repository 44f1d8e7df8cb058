"""Stored rows back to events: nothing is handed out that wasn't checked.

A run as read is either exact or refused: the good events come first, then `LogCorrupt` says what is
wrong, up to where the run is good, and what to do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from effects.log.base import Logged
from effects.log.chain import GENESIS, Row, problem_of
from effects.log.faults import SQLITE_ERRORS, SqliteError, log_error
from effects.log.heads import Head
from rlm_fsm.codec import decode
from rlm_fsm.errors import LogCorrupt, LogNewer
from rlm_fsm.ids import RunId

_RESTORE: Final = "Restore the log from a copy, or load the events before (`until=`)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the database and the head file gave for a run, unchecked."""

    path: str
    run_id: RunId
    until: int | None
    """The last event asked for; None for all."""
    rows: list[Row]
    head: Head
    """The run's head in the database."""
    noted: Head | None
    """The run's head in the head file, if it is known."""
    damage: SqliteError | None
    """What stopped the database from giving more rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheck:
    """What `SqliteLog.verify` found of one run."""

    run_id: RunId
    events: int
    """Events that are good, from the first one on."""
    problem: str | None
    """What is wrong, with what to do; None for a sound run."""


def events_of(found: Found, blob: Callable[[str], str]) -> Iterator[Logged]:
    """The events, each checked before it is given. Raises `LogCorrupt` and `LogNewer`."""
    seq, prev_hash, noted_hash = 0, GENESIS, None
    for row in found.rows:
        problem = problem_of(row, found.run_id, seq + 1, prev_hash)
        if problem is not None:
            raise _corrupt(found, problem, seq)
        logged = _decoded(found, row, blob)
        seq, prev_hash = row.seq, row.hash
        if found.noted is not None and seq == found.noted.seq:
            noted_hash = row.hash
        yield logged
    if found.damage is not None:
        raise log_error(
            found.damage, found.path, run_id=found.run_id, last_good_seq=seq
        ) from found.damage
    _check_end(found, seq, prev_hash, noted_hash)


def _decoded(found: Found, row: Row, blob: Callable[[str], str]) -> Logged:
    try:
        event = decode(row.kind, row.version, row.data, blob)
    except LogCorrupt as error:
        raise _corrupt(found, str(error), row.seq - 1) from error
    except LogNewer as error:
        raise LogNewer(f"{found.path}: run {found.run_id}: {error}", path=found.path) from error
    except SQLITE_ERRORS as error:
        raise log_error(
            error, found.path, run_id=found.run_id, last_good_seq=row.seq - 1
        ) from error
    return Logged(seq=row.seq, at=row.at, event=event)


def _check_end(found: Found, seq: int, last_hash: str, noted_hash: str | None) -> None:
    """Whether the run ends where its two heads say."""
    head, noted, until = found.head, found.noted, found.until
    if seq < head.seq and (until is None or seq < until):
        raise _corrupt(found, f"it should have {head.seq} events", seq)
    if until is not None and until <= seq:
        return
    if seq != head.seq or last_hash != head.hash:
        raise _corrupt(found, "its last event isn't the one that the list of runs names", seq)
    if noted is None or (noted.seq <= seq and noted_hash == noted.hash):
        return
    if noted.seq <= seq:
        raise _corrupt(found, f"event {noted.seq} isn't the one that was first written", seq)
    raise LogCorrupt(
        f"{found.path}: run {found.run_id} has lost its end: the log holds {seq} events, "
        f"{found.path}-heads knows of {noted.seq}. Restore the log from a copy; or, to go on from "
        f"event {seq} (after a power cut with durability='process', or when an older copy was put "
        "back on purpose), delete the -heads file.",
        path=found.path,
        run_id=found.run_id,
        last_good_seq=seq,
    )


def _corrupt(found: Found, problem: str, last_good_seq: int) -> LogCorrupt:
    return LogCorrupt(
        f"{found.path}: run {found.run_id} is damaged after event {last_good_seq}: {problem}. "
        f"{_RESTORE}",
        path=found.path,
        run_id=found.run_id,
        last_good_seq=last_good_seq,
    )
