"""The event log in one SQLite file.

Rules:

1. Every append is one ``BEGIN IMMEDIATE`` transaction that checks the expected sequence number and
   writes the events, their long texts and the run's head. Immediate, because a transaction that
   reads first and writes later can't wait for another writer: SQLite refuses it at once.
2. Write-ahead log with ``synchronous=FULL``: an event is on the disk when `append` returns
   (``durability="disk"``). With ``durability="process"`` it survives the end of the process, but
   the last ones may be lost in a power cut.
3. What is read is checked: the chain of hashes, gaps, every long text, the run's head, and the
   head file (see `heads`). The events before the damage are given, then `LogCorrupt` is raised.
4. One connection per object, for one thread. Several objects, also in several processes, may use
   one file; who leads a run is decided elsewhere.
5. A closed log is one plain file, and its head file beside it.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Self

from effects.log.base import Logged, RunInfo
from effects.log.blobs import pack, unpack
from effects.log.chain import GENESIS, Row
from effects.log.faults import SQLITE_ERRORS, SqliteError, log_error
from effects.log.files import MEMORY, connect, heads_path
from effects.log.heads import Head, HeadFile
from effects.log.reading import Found, RunCheck, events_of
from effects.log.schema import SCHEMA_VERSION
from effects.log.writing import chained, check_order, showable, standing
from rlm_fsm.codec import Encoded, encode
from rlm_fsm.errors import LogConflict, LogCorrupt, LogError, RunNotFound, UsageError
from rlm_fsm.event import Event, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.values import text_hash

Durability = Literal["disk", "process"]
_SYNCHRONOUS = {"disk": "FULL", "process": "NORMAL"}

_COLUMNS = ", ".join(Row._fields)
_HEAD = "SELECT slot, head_seq, head_hash FROM runs WHERE run_id = ?"
_LAST_SLOT = "SELECT coalesce(max(slot), 0) FROM runs"
_NEW_RUN = """INSERT INTO runs (slot, run_id, created_at, updated_at, schema_version, status, query,
  head_seq, head_hash) VALUES (?, ?, ?, ?, ?, 'running', ?, 0, ?)"""
_NEW_EVENT = f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NEW_HEAD = """UPDATE runs SET head_seq = ?, head_hash = ?, updated_at = ?, status = ?, output = ?
  WHERE slot = ?"""
_HAS_BLOB = "SELECT 1 FROM blobs WHERE hash = ?"
_NEW_BLOB = "INSERT OR IGNORE INTO blobs (hash, size, encoding, data) VALUES (?, ?, ?, ?)"
_BLOB = "SELECT size, encoding, data FROM blobs WHERE hash = ?"
_EVENTS = f"SELECT {_COLUMNS} FROM events WHERE run_id = ? AND seq <= ? ORDER BY seq"
_RUNS = """SELECT run_id, query, status, created_at, updated_at, head_seq, output FROM runs
  ORDER BY slot DESC"""
_FIND = """SELECT run_id FROM runs WHERE substr(run_id, 1, length(:id)) = :id
  ORDER BY run_id = :id DESC, slot LIMIT 4"""
_ALL = 2**63 - 1


class SqliteLog:
    """An `EventLog` in a SQLite file, or in memory for the path ``:memory:``.

    The file is made when it is missing, readable by its owner only. Raises `LogForeign` for a file
    that isn't a log, `LogNewer` for one of a newer version, and `LogError` for what the disk does.
    A context manager: leaving it closes the log.
    """

    def __init__(self, path: str | os.PathLike[str], *, durability: Durability = "disk") -> None:
        if durability not in _SYNCHRONOUS:
            raise UsageError(f"durability={durability!r}: choose 'disk' or 'process'")
        given = os.fspath(path)
        if not given:
            raise UsageError("path='' is no path: give a file or ':memory:'")
        self._path = given if given == MEMORY else os.path.abspath(given)
        self._heads = HeadFile(heads_path(self._path))
        try:
            self._connection = connect(
                self._path, self._heads, synchronous=_SYNCHRONOUS[durability]
            )
        except BaseException:
            self._heads.close()
            raise
        self._cursor = self._connection.cursor()
        self._is_open = True

    @property
    def path(self) -> str:
        """The file as an absolute path, or ``:memory:``."""
        return self._path

    def append(self, run_id: RunId, expected_seq: int, events: Sequence[Event]) -> int:
        """Append events in one transaction; see `EventLog.append`.

        Also raises `UsageError`, before anything is written, for an event that can't be recorded,
        a run that doesn't begin with `RunStarted`, or a run id that is no short name.
        """
        if not events:
            return expected_seq
        check_order(run_id, expected_seq, events)
        encoded = [encode(event) for event in events]
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        execute = self._cursor.execute
        with self._translated():
            blobs = self._new_blobs(encoded)
            execute("BEGIN IMMEDIATE")
            slot, prev_hash = self._expect(run_id, expected_seq)
            if slot == 0:
                slot = self._begin_run(run_id, events[0], at)
            rows = chained(run_id, expected_seq, prev_hash, at, events, encoded)
            if blobs:
                self._cursor.executemany(_NEW_BLOB, blobs)
            self._cursor.executemany(_NEW_EVENT, rows)
            head = Head(run_id, rows[-1].seq, rows[-1].hash)
            execute(_NEW_HEAD, (head.seq, head.hash, at, *standing(events[-1]), slot))
            execute("COMMIT")
        self._heads.write(slot, head)
        return head.seq

    def load(self, run_id: RunId, *, until: int | None = None) -> Iterator[Logged]:
        """The events of a run, checked; see `EventLog.load`.

        `RunNotFound` is raised here; `LogCorrupt` by the iterator, after the good events. With
        `until`, damage behind it is not looked for.
        """
        return events_of(self._fetch(run_id, until), self._sound_blob)

    def runs(self) -> list[RunInfo]:
        """All runs, newest first."""
        with self._translated():
            rows: list[tuple[Any, ...]] = self._cursor.execute(_RUNS).fetchall()
        return [
            RunInfo(
                run_id=run_id,
                query=query,
                status=status,
                created_at=created_at,
                updated_at=updated_at,
                events=events,
                output=output,
            )
            for run_id, query, status, created_at, updated_at, events, output in rows
        ]

    def find(self, prefix: str) -> RunId:
        """The run whose id is or begins with `prefix`; see `EventLog.find`."""
        noted = self._heads.all()  # First, as in `_fetch`.
        with self._translated():
            rows: list[tuple[str]] = self._cursor.execute(
                _FIND, {"id": showable(prefix)}
            ).fetchall()
        ids = [RunId(run_id) for (run_id,) in rows]
        if len(ids) == 1 or (ids and ids[0] == prefix):
            return ids[0]
        if ids:
            some = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
            raise RunNotFound(
                f"{self._path}: several runs begin with {prefix!r}: {some}. Give more of the id.",
                path=self._path,
            )
        lost = next((head for head in noted if head.run_id.startswith(prefix)), None)
        raise self._missing(prefix, lost)

    def put_blob(self, text: str) -> str:
        """Keep a text by content and return its hash."""
        digest = text_hash(text)
        with self._translated():
            if self._cursor.execute(_HAS_BLOB, (digest,)).fetchone() is None:
                self._cursor.execute(_NEW_BLOB, (digest, *pack(text)))
        return digest

    def blob(self, hash: str) -> str | None:
        """A kept text, or None. `LogCorrupt` when it isn't what it was."""
        try:
            with self._translated():
                return self._sound_blob(hash)
        except KeyError:
            return None
        except ValueError as error:
            raise LogCorrupt(
                f"{self._path}: {error}. Restore the log from a copy.", path=self._path
            ) from error

    def verify(self, run_id: RunId | None = None) -> list[RunCheck]:
        """Read and check a run, or all of them, oldest first; also those that the log has lost."""
        infos = {info.run_id: info for info in reversed(self.runs())}
        lost = [RunId(head.run_id) for head in self._heads.all() if head.run_id not in infos]
        wanted = [*infos, *lost] if run_id is None else [run_id]
        return [self._verified(name, infos.get(name)) for name in wanted]

    def close(self) -> None:
        """Release the file, moving everything into it first. Safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except SQLITE_ERRORS:
            pass  # Another reader, or a full disk: the write-ahead file stays, and is as good.
        try:
            with self._translated():
                self._connection.close()
        finally:
            self._heads.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Undo a transaction that did not get to its end, and raise SQLite's errors as ours."""
        try:
            yield
        except SQLITE_ERRORS as error:
            self._roll_back()
            raise log_error(error, self._path) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except SQLITE_ERRORS:
            pass  # The first error is the one to report; an open transaction is never committed.

    def _expect(self, run_id: RunId, expected_seq: int) -> tuple[int, str]:
        """The run's slot (0 for a new run) and last hash, if it ends where the caller thinks."""
        row = self._cursor.execute(_HEAD, (run_id,)).fetchone()
        slot, seq, last_hash = row or (0, 0, GENESIS)
        if seq == expected_seq:
            return slot, last_hash
        raise LogConflict(
            f"{self._path}: run {run_id} has {seq} events, {expected_seq} were expected: another "
            "process works on it, or it was resumed elsewhere. Load it again.",
            path=self._path,
        )

    def _begin_run(self, run_id: RunId, event: Event, at: str) -> int:
        """Make the run's row and return its slot."""
        assert isinstance(event, RunStarted)
        last: int = self._cursor.execute(_LAST_SLOT).fetchone()[0]
        slot = max(last, self._heads.slots()) + 1
        query = showable(event.query)
        self._cursor.execute(_NEW_RUN, (slot, run_id, at, at, SCHEMA_VERSION, query, GENESIS))
        return slot

    def _new_blobs(self, encoded: Sequence[Encoded]) -> list[tuple[str, int, str, bytes]]:
        """The rows of the long texts that the log doesn't have yet."""
        texts = {digest: text for item in encoded for digest, text in item.blobs}
        return [
            (digest, *pack(text))
            for digest, text in texts.items()
            if self._cursor.execute(_HAS_BLOB, (digest,)).fetchone() is None
        ]

    def _sound_blob(self, digest: str) -> str:
        """A kept text. `KeyError` when it is missing, `ValueError` when it was changed."""
        row = self._cursor.execute(_BLOB, (digest,)).fetchone()
        if row is None:
            raise KeyError(digest)
        return unpack(digest, *row)

    def _fetch(self, run_id: RunId, until: int | None) -> Found:
        """The rows of a run and its heads, as of one moment."""
        noted = self._heads.find(run_id)  # First: it is never ahead of what is read after it.
        last = _ALL if until is None else min(until, _ALL)
        rows: list[Row] = []
        damage: SqliteError | None = None
        with self._translated():
            self._cursor.execute("BEGIN")
            head = self._cursor.execute(_HEAD, (showable(run_id),)).fetchone()
            try:
                for row in self._cursor.execute(_EVENTS, (showable(run_id), last)):
                    rows.append(Row(*row))
            except SQLITE_ERRORS as error:
                damage = error
            self._cursor.execute("COMMIT")
        if head is None:
            raise self._missing(run_id, noted)
        return Found(
            path=self._path,
            run_id=run_id,
            until=until,
            rows=rows,
            head=Head(run_id, head[1], head[2]),
            noted=noted,
            damage=damage,
        )

    def _missing(self, run_id: str, noted: Head | None) -> LogError:
        """The error for a run that isn't here: lost, if the head file knows it, or never was."""
        if noted is None:
            return RunNotFound(
                f"{self._path} holds no run {run_id!r}. List its runs with `rlm-fsm runs`.",
                path=self._path,
            )
        return LogCorrupt(
            f"{self._path}: run {noted.run_id} is lost: {self._heads.path} knows {noted.seq} "
            "events of it, the log holds none. Restore the log from a copy.",
            path=self._path,
            run_id=noted.run_id,
        )

    def _verified(self, run_id: RunId, info: RunInfo | None) -> RunCheck:
        events = 0
        problem: str | None = None
        event: Event | None = None
        try:
            for logged in self.load(run_id):
                events, event = logged.seq, logged.event
                if isinstance(event, RunStarted) and info and info.query != showable(event.query):
                    problem = "the list of runs shows another question than its first event"
        except LogError as error:
            problem = str(error)
        else:
            if info and event and (info.status, info.output) != standing(event):
                problem = "the list of runs shows another end than its last event"
        return RunCheck(run_id=run_id, events=events, problem=problem)
