"""Logs of every schema version that was ever written: each still loads, folds and replays.

A golden log is never edited; `make_golden_log` says how one is made.
"""

import json
import runpy
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from effects.log import SqliteLog, schema
from effects.log.base import Snapshot
from effects.log.schema import SCHEMA_VERSION
from rlm_fsm import fold, replay
from rlm_fsm.errors import LogCorrupt, LogForeign, LogNewer
from rlm_fsm.ids import ROOT, RunId
from tests.log_contract import RUN, started
from tests.log_files import heads_of, sql

LOGS = Path(__file__).parent / "data" / "logs"
GOLDEN = sorted(LOGS.glob("v*.db"))
every_log = pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)


def copy_of(golden: Path, directory: Path) -> Path:
    """A copy to open: opening a golden log might change it."""
    shutil.copy(heads_of(golden), directory)
    return Path(shutil.copy(golden, directory))


def expected_of(golden: Path) -> dict[str, dict[str, object]]:
    return json.loads(golden.with_suffix(".json").read_text())


def test_there_is_a_golden_log_of_every_version() -> None:
    assert [path.stem for path in GOLDEN] == [f"v{n}" for n in range(1, SCHEMA_VERSION + 1)]


@every_log
def test_an_old_log_says_what_it_always_said(golden: Path, tmp_path: Path) -> None:
    made = runpy.run_path(str(LOGS.parents[1] / "make_golden_log.py"))
    with SqliteLog(copy_of(golden, tmp_path)) as log:
        assert made["expectation"](log) == expected_of(golden)
        assert [check.problem for check in log.verify()] == [None] * 3


@every_log
def test_an_old_log_holds_what_a_golden_log_should(golden: Path) -> None:
    told = expected_of(golden)
    first, batch, fork = told.values()
    assert (first["output"], batch["output"], fork["output"]) == ("240", "many barrels", "none")
    assert (fork["parent"], first["parent"], batch["parent"]) == (list(told)[1], None, None)
    kinds = {row[0] for row in sql_of(golden, "SELECT kind FROM events")}
    assert {"CodePaused", "RunResumed", "VariableRead", "RunFinished"} <= kinds
    encodings = {row[0] for row in sql_of(golden, "SELECT encoding FROM blobs")}
    assert encodings == {"utf-8", "zlib"}


def sql_of(golden: Path, statement: str) -> list[tuple[object, ...]]:
    """Ask a golden log itself, so that not even SQLite could change it."""
    connection = sqlite3.connect(f"{golden.as_uri()}?immutable=1", uri=True)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


@every_log
def test_an_old_log_replays(golden: Path, tmp_path: Path) -> None:
    path = copy_of(golden, tmp_path)
    for run_id, expected in expected_of(golden).items():
        assert replay(run_id, log=path).output == expected["output"]


@every_log
def test_an_old_log_can_be_added_to(golden: Path, tmp_path: Path) -> None:
    path = copy_of(golden, tmp_path)
    (first, *_), expected = list(expected_of(golden)), expected_of(golden)
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started()])
        log.fork(RunId("late"), first, 3)
        with log.lead(first) as lease:
            assert lease.generation == 2
        assert fold(logged.event for logged in log.load(first)).seq == expected[first]["events"]
        assert [check.problem for check in log.verify()] == [None] * 5


def test_a_log_from_before_snapshots_can_keep_them(tmp_path: Path) -> None:
    path = copy_of(LOGS / "v1.db", tmp_path)
    first = RunId(next(iter(expected_of(LOGS / "v1.db"))))
    with SqliteLog(path) as log:
        assert log.snapshot(first, ROOT) is None
        log.save_snapshot(first, ROOT, 4, b"session")
    with SqliteLog(path) as log:
        assert log.snapshot(first, ROOT) == Snapshot(seq=4, data=b"session")
        assert [check.problem for check in log.verify()] == [None] * 3


def test_a_snapshot_of_an_older_version_of_the_log_is_given(tmp_path: Path) -> None:
    made = runpy.run_path(str(LOGS.parents[1] / "make_golden_log.py"))
    _, batch, fork = map(RunId, expected_of(LOGS / "v2.db"))
    with SqliteLog(copy_of(LOGS / "v2.db", tmp_path)) as log:
        kept = log.snapshot(batch, ROOT)
        assert kept is not None
        assert kept.data == made["SESSION"]
        assert log.snapshot(fork, ROOT) is None, "it stands for an event after the fork"


def test_a_golden_log_is_not_overwritten() -> None:
    before = {path: path.read_bytes() for path in LOGS.iterdir()}
    script = Path(__file__).parent / "make_golden_log.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.returncode, "never overwritten" in done.stderr) == (1, True)
    assert before == {path: path.read_bytes() for path in LOGS.iterdir()}


# Migrations: the way from one schema version to the next


def with_a_step(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """As if a later version had one more migration."""

    def _v2_notes(db: object) -> None:
        db.conn.execute(statement)  # type: ignore[attr-defined]

    monkeypatch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, _v2_notes))


def test_an_older_log_is_migrated_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(GOLDEN[-1], tmp_path)
    with_a_step(monkeypatch, "ALTER TABLE runs ADD COLUMN notes TEXT")
    made = runpy.run_path(str(LOGS.parents[1] / "make_golden_log.py"))
    for _ in range(2):  # The second time there is nothing to do.
        with SqliteLog(path) as log:
            assert made["expectation"](log) == expected_of(GOLDEN[-1])
        assert sql(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]
    assert sql(path, "SELECT count(*) FROM runs WHERE notes IS NULL") == [(3,)]
    monkeypatch.undo()
    with pytest.raises(LogNewer, match="Upgrade rlm-fsm"):
        SqliteLog(path)


def test_a_new_log_gets_all_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_step(monkeypatch, "CREATE TABLE notes (text TEXT) STRICT")
    with SqliteLog(tmp_path / "log.db") as log:
        log.append(RUN, 0, [started()])
    assert sql(tmp_path / "log.db", "SELECT count(*) FROM notes") == [(0,)]


def test_a_migration_that_fails_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(GOLDEN[-1], tmp_path)
    with_a_step(monkeypatch, "ALTER TABLE gone ADD COLUMN notes TEXT")
    with pytest.raises(LogCorrupt, match="no such table: gone"):
        SqliteLog(path)
    monkeypatch.undo()
    with SqliteLog(path) as log:
        assert [check.problem for check in log.verify()] == [None] * 3
    assert sql(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_another_programs_version_is_not_taken_for_an_old_one(tmp_path: Path) -> None:
    sql(tmp_path / "log.db", "PRAGMA user_version = 1")
    with pytest.raises(LogForeign):
        SqliteLog(tmp_path / "log.db")
