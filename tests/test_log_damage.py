"""Damage of every kind, as a matrix: what each comes to stands beside it.

A run is read exactly as it was written, or it is refused, after the events that are good. There is
no third outcome: never another history.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from effects.log import SqliteLog
from effects.log.heads import Head, HeadFile
from rlm_fsm.errors import LogCorrupt, LogError
from rlm_fsm.event import Event
from rlm_fsm.ids import RunId
from tests.log_contract import RUN, a_run, fill, finished, intent, replied
from tests.log_contract_runs import FORK
from tests.log_files import heads_of, rewrite, sql

EXACT = "exact"

WRITTEN: dict[RunId, list[Event]] = {
    RUN: a_run(),
    FORK: [*a_run()[:6], intent(7), replied(7, "A long reply of the fork. " * 400), finished()],
    RunId("other"): a_run(5, "Something else?"),
}
"""What the log holds: a run of 14 events, a fork of it from event 6 on, and another run."""


def write(path: Path, durability: str = "process") -> SqliteLog:
    """The log, still open."""
    log = SqliteLog(path, durability=durability)  # type: ignore[arg-type]
    fill(log, RUN, WRITTEN[RUN])
    log.fork(FORK, RUN, 6)
    log.append(FORK, 6, WRITTEN[FORK][6:])
    fill(log, RunId("other"), WRITTEN[RunId("other")])
    return log


Verdict = int | str
"""`EXACT`; the last good sequence number of a run that is refused; or the name of the error that
refuses the whole file."""


def verdict(path: Path, run_id: RunId) -> Verdict:
    """What reading a run comes to. What was read must be what was written."""
    good: list[Event] = []
    try:
        with SqliteLog(path) as log:
            good.extend(logged.event for logged in log.load(run_id))
    except LogCorrupt as error:
        return error.last_good_seq
    except LogError as error:
        assert good == [], "a file that is refused gives nothing"
        return type(error).__name__
    finally:
        assert good == WRITTEN[run_id][: len(good)], "another history was read"
    assert good == WRITTEN[run_id], "a shorter history was read as if it were whole"
    return EXACT


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the log as it is after closing, and as a kill leaves it."""
    directory = tmp_path_factory.mktemp("sound")
    log = write(directory / "log.db")
    for ending in ("", "-wal", "-shm", "-heads"):
        shutil.copy(directory / f"log.db{ending}", directory / f"killed.db{ending}")
    log.close()
    return directory


@pytest.fixture
def path(tmp_path: Path, sound: Path) -> Path:
    """A closed log."""
    for ending in ("", "-heads"):
        shutil.copy(sound / f"log.db{ending}", tmp_path / f"log.db{ending}")
    return tmp_path / "log.db"


@pytest.fixture
def killed(tmp_path: Path, sound: Path) -> Path:
    """A log whose process was killed before SQLite could tidy up."""
    for ending in ("", "-wal", "-shm", "-heads"):
        shutil.copy(sound / f"killed.db{ending}", tmp_path / f"killed.db{ending}")
    return tmp_path / "killed.db"


# Rows that another program changed

ROWS: list[tuple[str, Verdict, Verdict]] = [
    # What is done to the database,                                        run, its fork
    # - an event's columns; the fork shares events 1 to 6
    ("UPDATE events SET data = replace(data, '0.m1', '0.m2') WHERE {r} = 2", 1, 1),
    ("UPDATE events SET data = '{{}}' WHERE {r} = 3", 2, 2),
    ("UPDATE events SET kind = 'ModelFailed' WHERE {r} = 3", 2, 2),
    ("UPDATE events SET version = 2 WHERE {r} = 3", 2, 2),
    ("UPDATE events SET at = '2020-01-01' WHERE {r} = 3", 2, 2),
    ("UPDATE events SET frame = '0.1' WHERE {r} = 3", 2, 2),
    ("UPDATE events SET call_id = NULL WHERE {r} = 3", 2, 2),
    ("UPDATE events SET prev_hash = hash WHERE {r} = 3", 2, 2),
    ("UPDATE events SET hash = prev_hash WHERE {r} = 3", 2, 2),
    ("UPDATE events SET hash = prev_hash WHERE {r} = 6", 5, 0),  # The one that is shared last.
    ("UPDATE events SET data = '{{}}' WHERE {r} = 6", 5, 5),
    ("UPDATE events SET data = '{{}}' WHERE {r} = 7", 6, EXACT),
    ("UPDATE events SET at = '' WHERE {f} = 8", EXACT, 7),
    ("UPDATE events SET pos = pos + 1000 WHERE {r} = 3", EXACT, EXACT),  # No part of the history.
    # - gaps, moves, duplicates
    ("DELETE FROM events WHERE {r} = 3", 2, 2),
    ("DELETE FROM events WHERE {r} = 1", 0, 0),
    ("DELETE FROM events WHERE {r} = 5", 4, 4),
    ("DELETE FROM events WHERE {r} = 6", 5, 0),  # Whose beginning the fork has can't be told now.
    ("DELETE FROM events WHERE {r} >= 5", 4, 0),
    ("DELETE FROM events WHERE {r} >= 7", 6, EXACT),
    ("DELETE FROM events WHERE {f} = 7", EXACT, 6),
    ("DELETE FROM events WHERE {f} = 9", EXACT, 8),
    ("DELETE FROM events WHERE {f} > 0", EXACT, 6),
    ("DELETE FROM events", 0, 0),
    ("UPDATE events SET run_id = 'run-1', seq = 15 WHERE {f} = 9", 14, 8),
    ("UPDATE events SET seq = 20 WHERE {r} = 14", 13, EXACT),
    ("UPDATE events SET seq = CASE seq WHEN 4 THEN -1 ELSE 4 END WHERE {r} IN (4, 5)", 0, 0),
    ("INSERT INTO events SELECT NULL, 'run-1', 15, {copy} WHERE {r} = 14", 14, EXACT),
    ("INSERT INTO events SELECT NULL, 'fork', 6, {copy} WHERE {r} = 6", EXACT, 6),
    ("INSERT INTO events SELECT NULL, 'fork', 10, {copy} WHERE {r} = 10", EXACT, 9),
    # - the runs' own rows
    ("UPDATE runs SET head_seq = head_seq - 1", 14, 9),
    ("UPDATE runs SET head_seq = head_seq + 1 WHERE run_id = 'run-1'", 14, EXACT),
    ("UPDATE runs SET head_hash = 'x' WHERE run_id = 'fork'", EXACT, 9),
    ("DELETE FROM runs WHERE run_id = 'run-1'", 0, 0),
    ("DELETE FROM runs WHERE run_id = 'fork'", EXACT, 0),
    ("DELETE FROM runs", 0, 0),
    ("UPDATE runs SET parent_seq = 5 WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_seq = 7 WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_seq = 0 WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_hash = 'x' WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_hash = NULL WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_seq = NULL WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_run_id = 'other' WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_run_id = 'gone' WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_run_id = NULL WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_run_id = 'fork' WHERE run_id = 'fork'", EXACT, 0),
    ("UPDATE runs SET parent_run_id = 'fork', parent_seq = 9 WHERE run_id = 'run-1'", 0, 0),
    ("UPDATE runs SET parent_run_id = 'other', parent_seq = 3 WHERE run_id = 'run-1'", 0, 0),
    ("UPDATE runs SET generation = 99", EXACT, EXACT),
    # - the long texts: of event 4, the batch, and of the fork's event 8
    ("DELETE FROM blobs", 0, 0),
    ("DELETE FROM blobs WHERE encoding = 'zlib'", 3, 3),
    ("UPDATE blobs SET data = x'00' WHERE encoding = 'zlib'", 3, 3),
    (
        "UPDATE blobs SET data = CAST(x'00' || substr(data, 2) AS BLOB) WHERE encoding = 'zlib'",
        3,
        3,
    ),
    ("UPDATE blobs SET size = size - 1 WHERE encoding = 'zlib'", 3, 3),
    ("UPDATE blobs SET encoding = 'utf-8'", 3, 3),
    ("DELETE FROM blobs WHERE rowid = (SELECT max(rowid) FROM blobs WHERE {b})", EXACT, 7),
]


@pytest.mark.parametrize(("statement", "run", "fork"), ROWS, ids=[row[0][:60] for row in ROWS])
@pytest.mark.parametrize("has_heads", [True, False], ids=["with-heads", "without"])
def test_a_change_is_found_where_it_is(
    path: Path, statement: str, run: Verdict, fork: Verdict, has_heads: bool
) -> None:
    if not has_heads:
        heads_of(path).unlink()
    rewrite(path, filled(statement))
    assert (verdict(path, RUN), verdict(path, FORK)) == (run, fork)
    with SqliteLog(path) as log:
        for run_id, expected in ((RUN, run), (FORK, fork)):
            check = log.verify(run_id)[0]
            assert (check.problem is None) is (expected == EXACT)
            assert check.events == (len(WRITTEN[run_id]) if expected == EXACT else expected)
        bad = {check.run_id for check in log.verify() if check.problem is not None}
    lost = {RUN, FORK} if has_heads or "FROM runs" not in statement else {RUN}
    refused = {run_id for run_id, it in ((RUN, run), (FORK, fork)) if it != EXACT}
    assert bad & {RUN, FORK} == refused & (lost | bad)


def filled(statement: str) -> str:
    """The statement with its abbreviations spelled out."""
    return statement.format(
        r="run_id = 'run-1' AND seq",
        f="run_id = 'fork' AND seq",
        b="hash IN (SELECT json_extract(data, '$.text.$blob') FROM events WHERE run_id = 'fork')",
        copy="kind, version, at, frame, call_id, data, prev_hash, hash FROM events",
    )


def test_a_damaged_text_is_refused_by_hash(path: Path) -> None:
    with SqliteLog(path) as log:
        digest = log.put_blob("the truth")
    rewrite(path, "UPDATE blobs SET data = ? WHERE hash = ?", b"the trout", digest)
    with SqliteLog(path) as log, pytest.raises(LogCorrupt, match="was changed"):
        log.blob(digest)


def test_verify_also_reads_the_list_of_runs(path: Path) -> None:
    sql(path, "UPDATE runs SET query = 'Else?' WHERE run_id = 'run-1'")
    sql(path, "UPDATE runs SET status = 'failed' WHERE run_id = 'fork'")
    with SqliteLog(path) as log:
        assert [check.problem for check in log.verify()] == [
            "the list of runs shows another question than its first event",
            "the list of runs shows another end than its last event",
            None,
        ]


# Files that were lost, cut, changed or exchanged


class Files(NamedTuple):
    """A log's files, and those of another log to take some from."""

    log: Path
    sound: Path

    def beside(self, ending: str) -> Path:
        return self.log.with_name(self.log.name + ending)

    def change(self, ending: str, at: int, content: bytes) -> None:
        """Overwrite bytes of a file."""
        whole = self.beside(ending).read_bytes()
        self.beside(ending).write_bytes(whole[:at] + content + whole[at + len(content) :])

    def cut(self, ending: str, share: float) -> None:
        """Keep the beginning of a file."""
        whole = self.beside(ending).read_bytes()
        self.beside(ending).write_bytes(whole[: int(len(whole) * share)])

    def put(self, ending: str, content: bytes) -> None:
        """Replace a file."""
        self.beside(ending).write_bytes(content)

    def early_wal(self) -> bytes:
        """The beginning of the write-ahead file that the first four events fill."""
        path = self.log.with_name("early.db")
        with SqliteLog(path, durability="process") as log:
            fill(log, RUN, WRITTEN[RUN][:4])
            size_bytes = path.with_name("early.db-wal").stat().st_size
        return self.beside("-wal").read_bytes()[:size_bytes]

    def note(self, head: Head, slot: int = 1) -> None:
        """Write a line of the head file."""
        heads = HeadFile(str(self.beside("-heads")))
        heads.write(slot, head)
        heads.close()


def other_log(files: Files) -> Path:
    """Another log with the same names of runs: an older or a foreign one put in place."""
    path = files.log.with_name("other.db")
    with SqliteLog(path, durability="process") as log:
        fill(log, RUN, a_run(4, "Which?"))
        fill(log, FORK, a_run(4, "Which fork?"))
        shutil.copy(path.with_name("other.db-wal"), path.with_name("saved-wal"))
    return path


def foreign_wal(files: Files) -> None:
    other_log(files)
    files.log.with_name("saved-wal").rename(files.beside("-wal"))
    files.beside("-shm").unlink(missing_ok=True)


def foreign_heads(files: Files) -> None:
    other_log(files).with_name("other.db-heads").rename(files.beside("-heads"))


def emptied(files: Files) -> None:
    files.log.write_bytes(b"")


def forgotten(files: Files) -> None:
    files.log.unlink()
    files.beside("-wal").unlink(missing_ok=True)
    files.beside("-shm").unlink(missing_ok=True)


def a_diary(files: Files) -> None:
    files.log.write_text("dear diary, " * 500)


def a_database_of_others(files: Files) -> None:
    files.log.unlink()
    sql(files.log, "CREATE TABLE diary (entry TEXT)")


Deed = Callable[[Files], object]

CLOSED: list[tuple[str, Deed, Verdict]] = [
    # The head file
    ("heads missing", lambda f: f.beside("-heads").unlink(), EXACT),
    ("heads emptied", lambda f: f.cut("-heads", 0), EXACT),
    ("heads garbled", lambda f: f.change("-heads", 0, b"\xff" * 40), EXACT),
    ("heads cut in the line", lambda f: f.cut("-heads", 0.2), EXACT),
    ("heads behind, another hash", lambda f: f.note(Head(RUN, 3, "0" * 64)), 0),
    ("heads ahead", lambda f: f.note(Head(RUN, 15, "0" * 64)), 14),
    ("heads of the same length, another hash", lambda f: f.note(Head(RUN, 14, "f" * 64)), 0),
    ("heads of other runs", lambda f: f.note(Head("elsewhere", 3, "0" * 64)), EXACT),
    ("heads of another log with such a run", foreign_heads, 14),
    # The database
    ("emptied", emptied, 0),
    ("deleted, but not its heads", forgotten, 0),
    ("cut at half", lambda f: f.cut("", 0.5), 0),
    ("no database any more", a_diary, "LogForeign"),
    ("a database of another program", a_database_of_others, "LogForeign"),
    ("header: no magic", lambda f: f.change("", 0, b"SQLite format 4"), "LogForeign"),
    ("header: page size 0", lambda f: f.change("", 16, b"\0\0"), "LogForeign"),
    ("header: page size halved", lambda f: f.change("", 16, b"\x08\0"), 0),
    ("header: no WAL", lambda f: f.change("", 18, b"\1\1"), EXACT),
    ("header: a file format of the future", lambda f: f.change("", 18, b"\7\7"), "LogForeign"),
    ("header: another program's id", lambda f: f.change("", 68, b"GPKG"), "LogForeign"),
    ("header: a newer schema", lambda f: f.change("", 60, b"\0\0\0\7"), "LogNewer"),
    ("header: no schema", lambda f: f.change("", 60, b"\0\0\0\0"), 0),
    ("first page: garbled", lambda f: f.change("", 100, b"\xff" * 500), 0),
]

KILLED: list[tuple[str, Deed, Verdict]] = [
    ("as it was left", lambda f: None, EXACT),
    ("shm missing", lambda f: f.beside("-shm").unlink(), EXACT),
    ("shm of another moment", lambda f: f.change("-shm", 0, b"\1" * 4096), EXACT),
    ("shm cut", lambda f: f.cut("-shm", 0.3), EXACT),
    ("wal missing", lambda f: f.beside("-wal").unlink(), 0),
    ("wal emptied", lambda f: f.cut("-wal", 0), 0),
    ("wal cut after four events", lambda f: f.put("-wal", f.early_wal()), 4),
    ("wal: torn header", lambda f: f.change("-wal", 0, b"\0" * 32), 0),
    ("wal: a torn first frame", lambda f: f.change("-wal", 100, b"\xff" * 64), 0),
    ("wal of another log with such a run", foreign_wal, 0),
    ("database missing, wal left", lambda f: f.log.unlink(), 0),
]


@pytest.mark.parametrize(("what", "deed", "expected"), CLOSED, ids=[row[0] for row in CLOSED])
def test_a_closed_log(path: Path, sound: Path, what: str, deed: Deed, expected: Verdict) -> None:
    deed(Files(path, sound))
    assert verdict(path, RUN) == expected
    for run_id in WRITTEN:
        verdict(path, run_id)


@pytest.mark.parametrize(("what", "deed", "expected"), KILLED, ids=[row[0] for row in KILLED])
def test_a_log_after_a_kill(
    killed: Path, sound: Path, what: str, deed: Deed, expected: Verdict
) -> None:
    deed(Files(killed, sound))
    assert verdict(killed, RUN) == expected
    for run_id in WRITTEN:
        verdict(killed, run_id)
