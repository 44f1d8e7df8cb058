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
   Its row and its first own events are one transaction.
7. The journal is given room once it is used often (see `journal`), for speed alone.
8. Snapshots of sessions are a cache beside the history (see `snapshots`): no event depends on
   them, and what is wrong with one is no damage of a run.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Literal, Self

from effects.log import answers, inserting, journal, snapshots
from effects.log.base import Lease, Logged, RunInfo, Snapshot
from effects.log.chain import GENESIS
from effects.log.checking import RunCheck, check_run
from effects.log.files import MEMORY, connect, heads_path, locks_path
from effects.log.heads import Head, HeadFile
from effects.log.locks import RunLocks
from effects.log.reading import Found, events_of, lost
from effects.log.stored import (
    RunRow,
    Stored,
    has_events,
    ids_like,
    orphans,
    run_infos,
    run_row,
    stored_rows,
)
from effects.log.transactions import tidy, translated, writing
from effects.log.writing import check_id, check_order, showable
from rlm_fsm.codec import Encoded, encode
from rlm_fsm.errors import LogConflict, LogCorrupt, LogError, RunBusy, RunNotFound, UsageError
from rlm_fsm.event import Event, ModelReplied, RunStarted
from rlm_fsm.ids import FrameId, RunId

Durability = Literal["disk", "process"]
_SYNCHRONOUS = {"disk": "FULL", "process": "NORMAL"}

_NEW_LEADER = "UPDATE runs SET generation = generation + 1 WHERE run_id = ? RETURNING generation"
_ALL = 2**63 - 1
_logger = logging.getLogger("rlm_fsm")


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
        self._grows = durability == "disk" and self._path != MEMORY
        """Whether a commit waits for its file to grow."""
        self._appends = 0
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
        blobs = self._new_blobs(encoded)
        self._appends += 1
        with self._writing():
            if self._appends == journal.AFTER_APPENDS and self._grows:
                journal.make_room(self._path)
            slot, head = self._expect(run_id, expected_seq)
            if expected_seq == 0:
                slot = self._begin(slot, head, events[0], at)
            inserting.insert_blobs(self._cursor, blobs)
            head = inserting.insert_events(self._cursor, slot, head, at, events, encoded)
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
            with self._writing():
                row = self._cursor.execute(_NEW_LEADER, (run_id,)).fetchone()
        except BaseException:
            self._locks.drop(run_id)
            raise
        generation = self._led[run_id] = 1 if row is None else row[0]
        return Lease(run_id, generation, self._release)

    def fork(
        self, run_id: RunId, parent_run_id: RunId, at: int, events: Sequence[Event] = ()
    ) -> int:
        """Begin a run that shares the events of another; see `EventLog.fork`.

        The shared events are read and checked first.
        """
        check_id(run_id)
        if events:
            check_order(run_id, at, events)
        encoded = [encode(event) for event in events]
        found = self._fetch(parent_run_id, at)
        if not 0 <= at <= found.head.seq:
            raise UsageError(
                f"at={at}: run {parent_run_id} has the events 1 to {found.head.seq}. Give one of "
                "them, the last one to be shared, or 0 to share none."
            )
        shared = [logged.event for logged in events_of(found, self._sound_blob)]
        head, now = Head(run_id, at, found.stored.last_hash), _now()
        blobs = self._new_blobs(encoded)
        with self._writing():
            if run_row(self._cursor, run_id) is not None:
                raise LogConflict(
                    f"{self._path}: there is a run {run_id} already. Give the fork another id.",
                    path=self._path,
                )
            slot = self._new_run(head, shared or events, now, parent_run_id)
            inserting.insert_blobs(self._cursor, blobs)
            if events:
                head = inserting.insert_events(self._cursor, slot, head, now, events, encoded)
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
        with self._translated():
            return inserting.insert_text(self._cursor, text)

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

    def answer(self, key: str) -> ModelReplied | None:
        """The newest reply with this key; see `EventLog.answer`."""
        with self._translated():
            return answers.newest(self._cursor, key, self._sound_blob)

    def save_snapshot(self, run_id: RunId, frame: FrameId, seq: int, data: bytes) -> None:
        """Keep what a frame's session is after event `seq`; see `EventLog.save_snapshot`."""
        with self._writing():
            run = run_row(self._cursor, run_id)
            if run is not None:
                self._check_led(run_id, run)
            if not snapshots.insert(self._cursor, run_id, frame, seq, data, _now()):
                raise UsageError(f"run {run_id} has appended no event {seq} to be saved")

    def snapshot(
        self, run_id: RunId, frame: FrameId, *, until: int | None = None
    ) -> Snapshot | None:
        """The newest sound snapshot of a frame; see `EventLog.snapshot`."""
        last = _ALL if until is None else min(until, _ALL)
        try:
            with self._translated():
                return snapshots.newest(self._cursor, run_id, frame, last)
        except LogError as error:  # damaged pages, say
            _logger.warning("a snapshot of run %s can't be read: %s", run_id, error)
            return None

    def drop_snapshots(self, run_id: RunId, frame: FrameId) -> None:
        """Forget the snapshots of a frame that has ended."""
        with self._writing():
            snapshots.drop(self._cursor, run_id, frame)

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
        tidy(self._connection)
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

    def _new_blobs(self, encoded: Sequence[Encoded]) -> list[inserting.BlobRow]:
        """The rows of the long texts that the log lacks: packed before a transaction begins."""
        if not any(item.blobs for item in encoded):
            return []
        with self._translated():
            return inserting.new_blobs(self._cursor, encoded)

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self._connection, self._path)

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self._connection, self._path)

    def _expect(self, run_id: RunId, expected_seq: int) -> tuple[int, Head]:
        """The run's slot (0 for a new run) and head, if it ends where the caller thinks."""
        run = run_row(self._cursor, run_id)
        seq = 0 if run is None else run.head_seq
        if run is not None:
            self._check_led(run_id, run)
        if seq == expected_seq:
            slot, last_hash = (0, GENESIS) if run is None else (run.slot, run.head_hash)
            return slot, Head(run_id, seq, last_hash)
        raise LogConflict(
            f"{self._path}: run {run_id} has {seq} events, {expected_seq} were expected: another "
            "process works on it, or it was resumed elsewhere. Load it again.",
            path=self._path,
        )

    def _check_led(self, run_id: RunId, run: RunRow) -> None:
        """`RunBusy` when this object leads the run and another has taken it over since."""
        if self._led.get(run_id, run.generation) != run.generation:
            raise RunBusy(
                f"{self._path}: run {run_id} was taken over: leader {run.generation} works on it, "
                f"this was {self._led[run_id]}. Nothing was written. Leave the run to it.",
                path=self._path,
            )

    def _begin(self, slot: int, head: Head, event: Event, at: str) -> int:
        """Make the run's row and return its slot. A fork that shares nothing has one already."""
        if slot == 0:
            return self._new_run(head, [event], at)
        assert isinstance(event, RunStarted)
        inserting.name_question(self._cursor, slot, event)
        return slot

    def _new_run(
        self, head: Head, events: Sequence[Event], at: str, parent: RunId | None = None
    ) -> int:
        """Make the row of a run with these events, of which it shares `head.seq`; its slot."""
        slot = inserting.free_slot(self._cursor, self._heads.slots())
        generation = self._led.get(RunId(head.run_id), 0)
        inserting.insert_run(
            self._cursor, slot, head, events, at, parent=parent, generation=generation
        )
        return slot

    def _sound_blob(self, digest: str) -> str:
        return inserting.sound_blob(self._cursor, digest)

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
