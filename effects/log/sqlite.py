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
   one file. Who works on a run leads it (see `lead`): a lock that dies with the process keeps
   others away before they spend anything, and a generation number in the run's row, compared in
   every append of a leader, stops one that was taken for dead.
5. A closed log is one plain file, and beside it its head file and, once a run was led, a file for
   locks that may be deleted while no run is worked on.
6. A fork shares rows with its parent: its first own event bears the hash of the last shared one.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, Self

from effects.log.base import Lease, Logged, RunInfo
from effects.log.blobs import pack, unpack
from effects.log.chain import GENESIS, Row
from effects.log.checking import RunCheck, check_run
from effects.log.faults import SQLITE_ERRORS, log_error
from effects.log.files import MEMORY, connect, heads_path, locks_path
from effects.log.heads import Head, HeadFile
from effects.log.locks import RunLocks
from effects.log.reading import Found, events_of, lost
from effects.log.schema import SCHEMA_VERSION
from effects.log.stored import (
    Stored,
    has_events,
    ids_like,
    orphans,
    run_infos,
    run_row,
    stored_rows,
)
from effects.log.writing import chained, check_id, check_order, showable, standing
from rlm_fsm.codec import Encoded, encode
from rlm_fsm.errors import LogConflict, LogCorrupt, LogError, RunBusy, RunNotFound, UsageError
from rlm_fsm.event import Event, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.values import text_hash

Durability = Literal["disk", "process"]
_SYNCHRONOUS = {"disk": "FULL", "process": "NORMAL"}

_NEW_EVENT = f"""INSERT INTO events ({", ".join(Row._fields)})
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LAST_SLOT = "SELECT coalesce(max(slot), 0) FROM runs"
_NEW_RUN = """INSERT INTO runs (slot, run_id, parent_run_id, parent_seq, parent_hash, created_at,
  updated_at, schema_version, status, query, output, head_seq, head_hash, generation)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_NEW_HEAD = """UPDATE runs SET head_seq = ?, head_hash = ?, updated_at = ?, status = ?, output = ?
  WHERE slot = ?"""
_NEW_QUERY = "UPDATE runs SET query = ? WHERE slot = ?"
_NEW_LEADER = "UPDATE runs SET generation = generation + 1 WHERE run_id = ? RETURNING generation"
_HAS_BLOB = "SELECT 1 FROM blobs WHERE hash = ?"
_NEW_BLOB = "INSERT OR IGNORE INTO blobs (hash, size, encoding, data) VALUES (?, ?, ?, ?)"
_BLOB = "SELECT size, encoding, data FROM blobs WHERE hash = ?"
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
        self._locks = RunLocks(locks_path(self._path))
        self._led: dict[RunId, int] = {}
        """The runs that this object leads, with the generation that it leads them in."""
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
        at = _now()
        execute = self._cursor.execute
        with self._translated():
            blobs = self._new_blobs(encoded)
            execute("BEGIN IMMEDIATE")
            slot, prev_hash = self._expect(run_id, expected_seq)
            if expected_seq == 0:
                slot = self._begin(run_id, slot, events[0], at)
            rows = chained(run_id, expected_seq, prev_hash, at, events, encoded)
            if blobs:
                self._cursor.executemany(_NEW_BLOB, blobs)
            self._cursor.executemany(_NEW_EVENT, rows)
            head = Head(run_id, rows[-1].seq, rows[-1].hash)
            execute(_NEW_HEAD, (head.seq, head.hash, at, *standing(events[-1]), slot))
            execute("COMMIT")
        self._heads.write(slot, head)
        return head.seq

    def lead(self, run_id: RunId) -> Lease:
        """Become the one that works on a run; see `EventLog.lead`."""
        check_id(run_id)
        try:
            leader = self._locks.take(run_id)
        except OSError as error:
            raise LogError(
                f"{self._path}: run {run_id} can't be locked: {error.strerror}. A lock is a file "
                "beside the log: check the permissions there, or copy the log elsewhere.",
                path=self._path,
            ) from error
        if leader is not None:
            raise RunBusy(
                f"{self._path}: run {run_id} is being worked on by {leader}. Nothing was spent "
                "here. Wait until it ends, or stop it; then resume the run.",
                path=self._path,
            )
        try:
            with self._translated():
                self._cursor.execute("BEGIN IMMEDIATE")
                row = self._cursor.execute(_NEW_LEADER, (run_id,)).fetchone()
                self._cursor.execute("COMMIT")
        except BaseException:
            self._locks.drop(run_id)
            raise
        generation = self._led[run_id] = 1 if row is None else row[0]
        return Lease(run_id, generation, self._release)

    def fork(self, run_id: RunId, parent_run_id: RunId, at: int) -> None:
        """Begin a run that shares the events of another; see `EventLog.fork`.

        The shared events are read and checked first.
        """
        check_id(run_id)
        found = self._fetch(parent_run_id, at)
        if not 0 <= at <= found.head.seq:
            raise UsageError(
                f"at={at}: run {parent_run_id} has the events 1 to {found.head.seq}. Give one of "
                "them, the last one to be shared, or 0 to share none."
            )
        shared = [logged.event for logged in events_of(found, self._sound_blob)]
        head = Head(run_id, at, found.stored.last_hash)
        with self._translated():
            self._cursor.execute("BEGIN IMMEDIATE")
            if run_row(self._cursor, run_id) is not None:
                raise LogConflict(
                    f"{self._path}: there is a run {run_id} already. Give the fork another id.",
                    path=self._path,
                )
            slot = self._new_run(head, shared, _now(), parent_run_id)
            self._cursor.execute("COMMIT")
        self._heads.write(slot, head)

    def load(self, run_id: RunId, *, until: int | None = None) -> Iterator[Logged]:
        """The events of a run, checked; see `EventLog.load`.

        `RunNotFound` is raised here; `LogCorrupt` by the iterator, after the good events. With
        `until`, damage behind it is not looked for.
        """
        return events_of(self._fetch(run_id, until), self._sound_blob)

    def runs(self) -> list[RunInfo]:
        """All runs, newest first."""
        with self._translated():
            return run_infos(self._cursor)

    def find(self, prefix: str) -> RunId:
        """The run whose id is or begins with `prefix`; see `EventLog.find`."""
        noted = self._heads.beginning(prefix)  # First, as in `_fetch`.
        with self._translated():
            ids = ids_like(self._cursor, showable(prefix))
        if len(ids) == 1 or (ids and ids[0] == prefix):
            return ids[0]
        if ids:
            some = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
            raise RunNotFound(
                f"{self._path}: several runs begin with {prefix!r}: {some}. Give more of the id.",
                path=self._path,
            )
        raise self._missing(prefix, noted[0] if noted else None)

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
        noted = [RunId(head.run_id) for head in self._heads.all()]
        infos = {info.run_id: info for info in reversed(self.runs())}
        if run_id is not None:
            return [check_run(run_id, infos.get(run_id), self.load)]
        with self._translated():
            wanted = dict.fromkeys([*infos, *noted, *orphans(self._cursor)])
        return [check_run(name, infos.get(name), self.load) for name in wanted]

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
            self._led.clear()
            self._locks.close()

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
        run = run_row(self._cursor, run_id)
        seq = 0 if run is None else run.head_seq
        if run is not None and self._led.get(run_id, run.generation) != run.generation:
            raise RunBusy(
                f"{self._path}: run {run_id} was taken over: leader {run.generation} works on it, "
                f"this was {self._led[run_id]}. Nothing was written. Leave the run to it.",
                path=self._path,
            )
        if seq == expected_seq:
            return (0, GENESIS) if run is None else (run.slot, run.head_hash)
        raise LogConflict(
            f"{self._path}: run {run_id} has {seq} events, {expected_seq} were expected: another "
            "process works on it, or it was resumed elsewhere. Load it again.",
            path=self._path,
        )

    def _begin(self, run_id: RunId, slot: int, event: Event, at: str) -> int:
        """Make the run's row and return its slot. A fork that shares nothing has one already."""
        if slot == 0:
            return self._new_run(Head(run_id, 0, GENESIS), [event], at)
        assert isinstance(event, RunStarted)
        self._cursor.execute(_NEW_QUERY, (showable(event.query), slot))
        return slot

    def _new_run(
        self, head: Head, events: Sequence[Event], at: str, parent: RunId | None = None
    ) -> int:
        """Make the row of a run with these events, of which it shares `head.seq`; its slot."""
        run_id = RunId(head.run_id)
        last: int = self._cursor.execute(_LAST_SLOT).fetchone()[0]
        slot = max(last, self._heads.slots()) + 1
        query = showable(events[0].query) if events and isinstance(events[0], RunStarted) else ""
        status, output = standing(events[-1]) if events else ("running", None)
        shared = (None, None, None) if parent is None else (parent, head.seq, head.hash)
        told = (at, at, SCHEMA_VERSION, status, query, output)
        generation = self._led.get(run_id, 0)
        self._cursor.execute(
            _NEW_RUN, (slot, run_id, *shared, *told, head.seq, head.hash, generation)
        )
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
        stored: Stored | None = None
        with self._translated():
            self._cursor.execute("BEGIN")
            run = run_row(self._cursor, showable(run_id))
            if run is not None:
                noted_seq = 0 if noted is None else noted.seq
                stored = stored_rows(self._cursor, run_id, run, last, noted_seq)
            self._cursor.execute("COMMIT")
        if run is None or stored is None:
            raise self._missing(run_id, noted)
        return Found(
            path=self._path,
            run_id=run_id,
            until=until,
            stored=stored,
            head=Head(run_id, run.head_seq, run.head_hash),
            noted=noted,
            heads_path=self._heads.path,
        )

    def _missing(self, run_id: str, noted: Head | None) -> LogError:
        """The error for a run that isn't here: lost, or it never was."""
        if noted is not None:
            told = f"{self._heads.path} knows {noted.seq} events of it, the log holds none"
            return lost(self._path, noted.run_id, told)
        with self._translated():
            has_rows = has_events(self._cursor, showable(run_id))
        if has_rows:
            return lost(self._path, run_id, "the log holds events of it, but its own row is gone")
        return RunNotFound(
            f"{self._path} holds no run {run_id!r}. List its runs with `rlm-fsm runs`.",
            path=self._path,
        )

    def _release(self, run_id: RunId) -> None:
        """End a lease."""
        self._led.pop(run_id, None)
        self._locks.drop(run_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
