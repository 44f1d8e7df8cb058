"""Stored rows back to events: nothing is handed out that wasn't checked.

A run as read is either exact or refused: the good events come first, then `LogCorrupt` says what is
wrong, up to where the run is good, and what to do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from effects.log.base import Logged
from effects.log.chain import GENESIS, Row, problem_of
from effects.log.faults import SQLITE_ERRORS, log_error
from effects.log.heads import Head
from effects.log.stored import Stored
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
    stored: Stored
    head: Head
    """The run's head in the database."""
    noted: Head | None
    """The run's head in the head file, if it is known."""
    heads_path: str | None


def events_of(found: Found, blob: Callable[[str], str]) -> Iterator[Logged]:
    """The events, each checked before it is given. Raises `LogCorrupt` and `LogNewer`."""
    _check_before(found)
    _check_noted(found)
    sound, problem = _sound_rows(found)
    for row in sound:
        yield _decoded(found, row, blob)
    seq = len(sound)
    if problem is not None:
        raise _corrupt(found, problem, seq)
    damage = found.stored.damage
    if damage is not None:
        raise log_error(damage, found.path, run_id=found.run_id, last_good_seq=seq) from damage
    _check_end(found, seq, found.stored.last_hash)


def lost(path: str, run_id: str, reason: str) -> LogCorrupt:
    """The error for a run that was here and isn't any more."""
    return LogCorrupt(
        f"{path}: run {run_id} is lost: {reason}. Restore the log from a copy.",
        path=path,
        run_id=run_id,
    )


def _check_before(found: Found) -> None:
    """Whether the run's own row makes sense."""
    if type(found.head.seq) is not int:
        raise _corrupt(found, "the list of runs gives no length for it", 0)
    if found.stored.problem is not None:
        raise _corrupt(found, found.stored.problem, 0)


def _sound_rows(found: Found) -> tuple[list[Row], str | None]:
    """The rows up to the first that doesn't follow from those before, and what is wrong with it."""
    sound: list[Row] = []
    prev_hash = GENESIS
    for owner, rows in found.stored.parts:
        for row in rows:
            problem = problem_of(row, owner, len(sound) + 1, prev_hash)
            if problem is not None:
                return sound, problem
            sound.append(row)
            prev_hash = row.hash
    return sound, None


def _check_noted(found: Found) -> None:
    """Whether this is the history that the head file knows.

    Looked at before anything is handed out: of a history that was replaced, nothing is good. An
    event that is damaged itself is no sign of that; it is found in its place.
    """
    noted, row = found.noted, found.stored.noted
    if noted is None or row is None or row.hash == noted.hash:
        return
    if problem_of(row, row.run_id, noted.seq, row.prev_hash) is None:
        raise _corrupt(found, f"event {noted.seq} isn't the one that was first written", 0)


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


def _check_end(found: Found, seq: int, last_hash: str) -> None:
    """Whether the run ends where its two heads say."""
    head, noted, until = found.head, found.noted, found.until
    if seq < head.seq and (until is None or seq < until):
        raise _corrupt(found, f"it should have {head.seq} events", seq)
    if until is not None and until <= seq:
        return
    if seq != head.seq or last_hash != head.hash:
        raise _corrupt(found, "its last event isn't the one that the list of runs names", seq)
    if noted is None or noted.seq <= seq:
        return
    raise LogCorrupt(
        f"{found.path}: run {found.run_id} has lost its end: the log holds {seq} events, "
        f"{found.heads_path} knows of {noted.seq}. Restore the log from a copy; or, to go on from "
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
