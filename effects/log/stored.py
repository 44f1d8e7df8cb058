"""What the database holds, read and handed on unchecked: `reading` judges it.

A fork's events are its parent's up to the fork, then its own; the parent may be a fork too. So a
run is read as parts, oldest first: whose rows, and up to which event. A fork's row also holds the
hash of the last event that it shares: a damaged row can't give it the beginning of another run.
"""

import sqlite3
from typing import NamedTuple

from effects.log.base import RunInfo
from effects.log.chain import GENESIS, Row
from effects.log.faults import SQLITE_ERRORS, SqliteError
from rlm_fsm.ids import RunId

_RUN = """SELECT slot, head_seq, head_hash, generation, parent_run_id, parent_seq, parent_hash
  FROM runs WHERE run_id = ?"""
_COLUMNS = ", ".join(Row._fields)
_EVENT = f"SELECT {_COLUMNS} FROM events WHERE run_id = ? AND seq = ?"
_EVENTS = f"SELECT {_COLUMNS} FROM events WHERE run_id = ? AND seq <= ? ORDER BY seq"
_INFOS = """SELECT run_id, query, status, created_at, updated_at, head_seq AS events, output,
  parent_run_id AS parent, parent_seq FROM runs ORDER BY slot DESC"""
_FIND = """SELECT run_id FROM runs WHERE substr(run_id, 1, length(:id)) = :id
  ORDER BY run_id = :id DESC, slot LIMIT 4"""
_HAS_EVENTS = "SELECT 1 FROM events WHERE run_id = ? LIMIT 1"
_ORPHANS = """SELECT DISTINCT run_id FROM events WHERE run_id NOT IN (SELECT run_id FROM runs)
  ORDER BY run_id"""


class RunRow(NamedTuple):
    """A run's row, as far as its events need it."""

    slot: int
    head_seq: int
    head_hash: str
    generation: int
    parent_run_id: RunId | None
    parent_seq: int | None
    parent_hash: str | None

    @property
    def shared(self) -> int:
        """How many events the run has from its parents."""
        return self.parent_seq or 0


Line = list[tuple[RunId, RunRow]]
"""A run and its parents, as far as it shares events with them; youngest first."""


class Part(NamedTuple):
    """Events of a run that one run's rows hold."""

    run_id: RunId
    rows: list[Row]


class Stored(NamedTuple):
    """The rows of a run."""

    parts: list[Part]
    """Oldest first; the last one is the run itself."""
    problem: str | None
    """Why the parents can't be followed, or None."""
    damage: SqliteError | None
    """What stopped the database from giving more rows."""
    noted: Row | None
    """The event that the head file names last, if it is there."""

    @property
    def last_hash(self) -> str:
        """The hash of the last event."""
        return next((part.rows[-1].hash for part in self.parts[::-1] if part.rows), GENESIS)


def run_row(cursor: sqlite3.Cursor, run_id: str) -> RunRow | None:
    """A run's row, or None."""
    row = cursor.execute(_RUN, (run_id,)).fetchone()
    return None if row is None else RunRow(*row)


def stored_rows(
    cursor: sqlite3.Cursor, run_id: RunId, run: RunRow, last: int, noted_seq: int
) -> Stored:
    """The rows of a run up to event `last`; inside a transaction, so that they are of one moment.

    A part's rows are not cut off where they should begin: one that has no place in the history
    must be seen.
    """
    parts: list[Part] = []
    problem: str | None = None
    noted: Row | None = None
    try:
        line, problem = line_of(cursor, run_id, run)
        noted = _row_at(cursor, line, noted_seq)
        ends = [last]
        for _, member in line[:-1]:
            ends.append(min(ends[-1], member.shared))
        for (owner, _), end in zip(line[::-1], ends[::-1], strict=True):
            part = Part(owner, [])
            parts.append(part)
            for row in cursor.execute(_EVENTS, (owner, end)):
                part.rows.append(Row(*row))
    except SQLITE_ERRORS as error:
        return Stored(parts, problem, error, noted)
    return Stored(parts, problem, None, noted)


def line_of(cursor: sqlite3.Cursor, run_id: RunId, run: RunRow) -> tuple[Line, str | None]:
    """A run's line, and what is wrong with it."""
    line: Line = [(run_id, run)]
    while run.parent_run_id is not None and run.parent_seq != 0:
        parent = run_row(cursor, run.parent_run_id)
        if parent is None:
            return line, f"run {run.parent_run_id}, whose events it shares, is missing"
        if type(run.parent_seq) is not int or run.parent_run_id in (name for name, _ in line):
            return line, f"what it shares with run {run.parent_run_id} makes no sense"
        line.append((run.parent_run_id, parent))
        run = parent
    for older, (_, member) in enumerate(line, 1):
        is_fork = member.parent_run_id is not None
        parting = hash_at(cursor, line[older:], member.shared) if is_fork else None
        if member.parent_hash != parting or (member.parent_seq is None) is is_fork:
            return line, f"event {member.parent_seq} isn't the one that it shares with its parent"
    return line, None


def hash_at(cursor: sqlite3.Cursor, line: Line, seq: int) -> str | None:
    """The stored hash of an event, or None."""
    row = _row_at(cursor, line, seq)
    return GENESIS if seq == 0 else None if row is None else row.hash


def run_infos(cursor: sqlite3.Cursor) -> list[RunInfo]:
    """All runs, newest first."""
    found = cursor.execute(_INFOS)
    names = [column[0] for column in found.description]
    return [RunInfo(**dict(zip(names, row, strict=True))) for row in found.fetchall()]


def ids_like(cursor: sqlite3.Cursor, prefix: str) -> list[RunId]:
    """Ids that begin with a text, the one that equals it first; a few."""
    return [RunId(run_id) for (run_id,) in cursor.execute(_FIND, {"id": prefix}).fetchall()]


def has_events(cursor: sqlite3.Cursor, run_id: str) -> bool:
    """Whether there are events of a run."""
    return cursor.execute(_HAS_EVENTS, (run_id,)).fetchone() is not None


def orphans(cursor: sqlite3.Cursor) -> list[RunId]:
    """Runs of which there are events, but no row."""
    return [RunId(run_id) for (run_id,) in cursor.execute(_ORPHANS).fetchall()]


def _row_at(cursor: sqlite3.Cursor, line: Line, seq: int) -> Row | None:
    """An event of a run, wherever in its line it is."""
    for name, run in line:
        if seq > run.shared:
            row = cursor.execute(_EVENT, (name, seq)).fetchone()
            return None if row is None else Row(*row)
    return None
