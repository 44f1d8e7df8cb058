"""The SQLite log: the contract, its file, other files, other writers, the disk, the views."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from effects.log import SqliteLog
from effects.log.schema import APPLICATION_ID, SCHEMA_VERSION, version_of
from rlm_fsm.errors import LogConflict, LogError, LogForeign, LogNewer, UsageError
from tests.log_contract import (
    LONG,
    RUN,
    LogContract,
    a_run,
    events_in,
    fill,
    intent,
    replied,
    started,
)
from tests.log_files import rewrite, sql
from tests.log_kinds import InAFile, InAQuickFile, InMemory

REPOSITORY = Path(__file__).parents[1]


class TestInMemory(InMemory, LogContract): ...


class TestInAFile(InAFile, LogContract): ...


class TestWithProcessDurability(InAQuickFile, LogContract): ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(path) as log:
        yield log


# The file


def test_a_closed_log_is_one_plain_file_and_its_heads(path: Path, log: SqliteLog) -> None:
    fill(log, RUN, a_run())
    assert path.with_name("log.db-wal").exists()
    log.close()
    assert sorted(item.name for item in path.parent.iterdir()) == ["log.db", "log.db-heads"]
    with SqliteLog(path) as again:
        assert events_in(again) == a_run()


def test_all_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with SqliteLog(tmp_path / "a" / "b" / "log.db") as log:
            log.append(RUN, 0, [started()])
            modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in tmp_path.rglob("*")}
    finally:
        os.umask(old)
    assert modes == {
        "a": 0o700,
        "b": 0o700,
        "log.db": 0o600,
        "log.db-wal": 0o600,
        "log.db-shm": 0o600,
        "log.db-heads": 0o600,
    }


def test_the_header_says_whose_file_it_is(path: Path, log: SqliteLog) -> None:
    assert sql(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert sql(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(("durability", "synchronous"), [("disk", 2), ("process", 1)])
def test_durability_decides_what_sqlite_waits_for(
    path: Path, durability: str, synchronous: int
) -> None:
    with SqliteLog(path, durability=durability) as log:  # type: ignore[arg-type]
        assert log._connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)


def test_bad_arguments_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose 'disk' or 'process'"):
        SqliteLog(tmp_path / "log.db", durability="none")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no path"):
        SqliteLog("")
    assert list(tmp_path.iterdir()) == []


def test_opening_an_existing_log_loads_no_sqlite_utils(path: Path) -> None:
    SqliteLog(path).close()
    code = (
        "import sys; from effects.log import SqliteLog; SqliteLog(sys.argv[1]).close(); "
        "sys.exit('sqlite_utils' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], cwd=REPOSITORY, check=True)


def test_the_protocol_alone_loads_no_database() -> None:
    code = "import sys, effects.log.base, effects.log; sys.exit('sqlite3' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_a_relative_path_is_made_absolute(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with SqliteLog("log.db") as log:
        assert log.path == str(path)
        monkeypatch.chdir("/")
        log.append(RUN, 0, [started()])
    assert path.with_name("log.db-heads").exists()


def test_a_log_object_is_for_one_thread(log: SqliteLog) -> None:
    with ThreadPoolExecutor(1) as other:
        for action in (log.runs, lambda: log.load(RUN), lambda: log.append(RUN, 0, [started()])):
            with pytest.raises(LogError, match="used by a thread that didn't open it"):
                other.submit(action).result()


def test_a_closed_log_says_that_it_is_closed(log: SqliteLog) -> None:
    log.close()
    for action in (log.runs, lambda: log.load(RUN), lambda: log.append(RUN, 0, [started()])):
        with pytest.raises(LogError, match="closed"):
            action()


# Files that aren't ours


def test_a_file_that_is_no_database_is_refused_untouched(path: Path) -> None:
    path.write_text("dear diary, " * 100)
    with pytest.raises(LogForeign, match="no SQLite database"):
        SqliteLog(path)
    assert path.read_text() == "dear diary, " * 100


def test_the_database_of_another_program_is_refused_untouched(path: Path) -> None:
    sql(path, "CREATE TABLE diary (entry TEXT)")
    before = path.read_bytes()
    with pytest.raises(LogForeign, match=r"another program.*give another path"):
        SqliteLog(path)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["log.db"]


def test_another_application_id_is_refused(path: Path) -> None:
    sql(path, "PRAGMA application_id = 252006673")
    with pytest.raises(LogForeign):
        SqliteLog(path)


def test_a_log_of_a_newer_schema_is_refused(path: Path) -> None:
    SqliteLog(path).close()
    sql(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(LogNewer, match="Upgrade rlm-fsm"):
        SqliteLog(path)


def test_an_event_of_a_newer_version_is_refused_when_it_is_reached(path: Path) -> None:
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started(), intent(1)])
    rewrite(path, "UPDATE events SET version = 9 WHERE seq = 2")
    rehash(path)
    with SqliteLog(path) as log:
        events = log.load(RUN)
        assert next(events).event == started()
        with pytest.raises(LogNewer, match="run run-1: event EffectStarted version 9"):
            next(events)


def rehash(path: Path) -> None:
    """Give a run's second event a hash that fits, everywhere, as a newer version would have."""
    from effects.log.chain import event_hash

    columns = "prev_hash, run_id, seq, kind, version, at, frame, call_id, data"
    row = sql(path, f"SELECT {columns} FROM events WHERE seq = 2")[0]
    digest = event_hash(*row)  # type: ignore[arg-type]
    sql(path, "UPDATE events SET hash = ? WHERE seq = 2", digest)
    sql(path, "UPDATE runs SET head_hash = ?", digest)
    path.with_name("log.db-heads").unlink()


def test_an_empty_file_becomes_a_log(path: Path) -> None:
    path.touch()
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started()])


def test_a_directory_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="is a directory"):
        SqliteLog(tmp_path)


def test_a_path_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match=r"can't be made.*Give a path that you can write"):
        SqliteLog(tmp_path / "file" / "log.db")


# Append only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = '{}'",
        "UPDATE events SET at = 'now' WHERE seq = 1",
        "DELETE FROM events",
        "UPDATE blobs SET data = x'00'",
        "DELETE FROM blobs",
        "REPLACE INTO events SELECT * FROM events WHERE seq = 1",
        "INSERT INTO events SELECT NULL, run_id, seq + 9, kind, version, at, frame, call_id, data,"
        " prev_hash, hash FROM events WHERE seq = 2",
        "INSERT INTO events SELECT NULL, run_id, 99, kind, version, at, frame, call_id, data,"
        " prev_hash, hash FROM events WHERE seq = 2",
    ],
)
def test_other_programs_can_not_change_what_was_written(
    path: Path, log: SqliteLog, statement: str
) -> None:
    log.append(RUN, 0, [started(), intent(1), replied(1, LONG)])
    with pytest.raises(sqlite3.IntegrityError, match=r"only be added to|must follow"):
        sql(path, statement)
    assert events_in(log) == [started(), intent(1), replied(1, LONG)]


def test_the_tables_are_strict_and_the_keys_are_real(path: Path, log: SqliteLog) -> None:
    log.append(RUN, 0, [started()])
    tables = sql(path, "SELECT name, strict FROM pragma_table_list WHERE schema = 'main'")
    assert {("runs", 1), ("events", 1), ("blobs", 1)} <= set(tables)
    assert log._connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert sql(path, "PRAGMA foreign_key_check") == []
    assert [row[2] for row in sql(path, "PRAGMA foreign_key_list(events)")] == ["runs"]


# Several writers


def test_two_objects_share_a_file_and_a_stale_one_is_told(path: Path) -> None:
    with SqliteLog(path) as one, SqliteLog(path) as two:
        one.append(RUN, 0, [started()])
        assert [info.run_id for info in two.runs()] == [RUN]
        two.append(RUN, 1, [intent(1)])
        with pytest.raises(LogConflict, match="another process works on it"):
            one.append(RUN, 1, [intent(1)])
        assert one.append(RUN, 2, [replied(1)]) == 3
        assert events_in(two) == [started(), intent(1), replied(1)]


WRITER = """
import sys
from effects.log import SqliteLog
from rlm_fsm.ids import RunId
from tests.log_contract import fill, intent, replied, started
events = [started(), *(event for n in range(1, 41) for event in (intent(n), replied(n)))]
with SqliteLog(sys.argv[1], durability="process") as log:
    print(fill(log, RunId(sys.argv[2]), events, batch=1))
"""


def test_processes_that_make_and_write_one_file_at_once_lose_nothing(path: Path) -> None:
    names = ["a", "b", "c"]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, name],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    assert [writer.communicate()[0].strip() for writer in writers] == ["81"] * 3
    with SqliteLog(path) as log:
        checks = log.verify()
        assert {check.run_id: check.events for check in checks} == dict.fromkeys(names, 81)
        assert [check.problem for check in checks] == [None] * 3
    assert sorted(sql(path, "SELECT slot FROM runs")) == [(1,), (2,), (3,)]


def test_a_failed_append_leaves_no_transaction_open(path: Path, log: SqliteLog) -> None:
    log.append(RUN, 0, [started()])
    with pytest.raises(LogConflict):
        log.append(RUN, 5, [intent(1)])
    sql(path, "CREATE TABLE scratch (x)")  # Would wait for the other's transaction.


def test_what_is_new_is_what_the_log_grows_by(path: Path) -> None:
    def size_of(turns: int) -> int:
        with SqliteLog(path.with_name(f"{turns}.db"), durability="process") as log:
            fill(log, RUN, [started(), *(e for n in range(turns) for e in (intent(n), replied(n)))])
        return path.with_name(f"{turns}.db").stat().st_size

    base, few, many = size_of(0), size_of(50), size_of(400)
    assert (many - base) / 400 <= 1.3 * (few - base) / 50


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_that_another_makes_while_it_is_looked_at_is_no_foreign_one(
    path: Path, place: int
) -> None:
    class Interrupted:
        """A connection; before its statement number `place` another process makes the log."""

        def __init__(self) -> None:
            self.connection = sqlite3.connect(path)
            self.statements = 0

        def execute(self, statement: str) -> sqlite3.Cursor:
            if self.statements == place:
                SqliteLog(path).close()
            self.statements += 1
            return self.connection.execute(statement)

    looked = Interrupted()
    try:
        assert version_of(looked, "log") in (0, SCHEMA_VERSION)  # type: ignore[arg-type]
    finally:
        looked.connection.close()
