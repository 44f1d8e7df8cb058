"""Snapshots in the SQLite log: the contract, and that a damaged one is never used."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from effects.log import SqliteLog
from effects.log.base import Snapshot
from rlm_fsm.errors import RunBusy
from rlm_fsm.ids import ROOT
from tests.log_contract import RUN, a_run, events_in, fill
from tests.log_contract_snapshots import SnapshotsContract
from tests.log_files import rewrite, sql
from tests.log_kinds import InAQuickFile, InMemory, Plain

OLDER, NEWER = Snapshot(seq=4, data=b"older" * 99), Snapshot(seq=8, data=b"newer" * 99)


class TestInMemory(InMemory, SnapshotsContract): ...


class TestMemoryLog(Plain, SnapshotsContract): ...


class TestInAFile(InAQuickFile, SnapshotsContract): ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(path) as log:
        fill(log, RUN, a_run())
        for saved in (OLDER, NEWER):
            log.save_snapshot(RUN, ROOT, saved.seq, saved.data)
        yield log


def sound(log: SqliteLog) -> bool:
    """Whether the history is what it was."""
    return events_in(log) == a_run() and [check.problem for check in log.verify()] == [None]


def test_snapshots_survive_closing(path: Path, log: SqliteLog) -> None:
    log.close()
    with SqliteLog(path) as again:
        assert again.snapshot(RUN, ROOT) == NEWER


@pytest.mark.parametrize(
    "change",
    [
        "data = substr(data, 1, 400)",
        "data = zeroblob(length(data))",
        "data = x''",
        "digest = 'x'",
        "event_hash = (SELECT hash FROM events WHERE seq = 9)",
        "event_hash = 'x'",
        "seq = 9",
        "seq = 9, event_hash = (SELECT hash FROM events WHERE seq = 9)",
        "seq = 99",
    ],
)
def test_a_changed_snapshot_is_passed_over_and_damages_nothing(
    path: Path, log: SqliteLog, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    sql(path, f"UPDATE snapshots SET {change} WHERE seq = 8")
    assert log.snapshot(RUN, ROOT) == OLDER
    assert "is damaged and not used" in caplog.text or "seq = 99" in change
    assert sound(log)


def test_a_snapshot_moved_to_another_frame_is_not_used(path: Path, log: SqliteLog) -> None:
    sql(path, "UPDATE snapshots SET frame = '0.1'")
    assert log.snapshot(RUN, "0.1") is None  # type: ignore[arg-type]


def test_a_snapshot_of_an_event_that_was_lost_is_not_used(path: Path, log: SqliteLog) -> None:
    log.close()
    rewrite(path, "DELETE FROM events WHERE seq > 6")
    sql(path, "UPDATE runs SET head_seq = 6, head_hash = (SELECT hash FROM events WHERE seq = 6)")
    path.with_name(path.name + "-heads").unlink()
    with SqliteLog(path) as shorter:
        assert events_in(shorter) == a_run()[:6]
        assert shorter.snapshot(RUN, ROOT) == OLDER


@pytest.mark.parametrize("statement", ["DELETE FROM snapshots", "DROP TABLE snapshots"])
def test_snapshots_may_be_taken_away_at_any_time(
    path: Path, log: SqliteLog, statement: str
) -> None:
    sql(path, statement)
    assert log.snapshot(RUN, ROOT) is None
    assert sound(log)


def test_bits_that_flip_never_give_another_snapshot(path: Path, log: SqliteLog) -> None:
    log.close()
    whole = path.read_bytes()
    start = whole.index(b"newer" * 20)
    dice = random.Random(5)
    seen = {True: 0, False: 0}
    for _ in range(30):
        at = start + dice.randrange(-200, 700)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :])
        with SqliteLog(path) as log:
            found = log.snapshot(RUN, ROOT)
            assert found in (NEWER, OLDER, None)
            seen[found == NEWER] += 1
            assert sound(log)
    assert min(seen.values()) >= 1


def test_a_leader_that_was_taken_over_saves_nothing(path: Path, log: SqliteLog) -> None:
    with log.lead(RUN):
        sql(path, "UPDATE runs SET generation = generation + 1")
        with pytest.raises(RunBusy, match="was taken over"):
            log.save_snapshot(RUN, ROOT, 12, b"late")
    assert log.snapshot(RUN, ROOT) == NEWER


def test_a_snapshot_is_one_transaction(path: Path, log: SqliteLog) -> None:
    seen: list[str] = []
    log._connection.set_trace_callback(seen.append)
    log.save_snapshot(RUN, ROOT, 12, b"twelve")
    log._connection.set_trace_callback(None)
    words = [statement.split()[0] for statement in seen]
    assert (words[0], words[-1], words.count("COMMIT")) == ("BEGIN", "COMMIT", 1)


def test_a_snapshot_on_a_full_disk_changes_nothing(log: SqliteLog) -> None:
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    log._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Exception, match="disk is full"):
        log.save_snapshot(RUN, ROOT, 12, bytes(1 << 20))
    assert log.snapshot(RUN, ROOT) == NEWER
    assert sound(log)


def test_the_table_is_strict(path: Path, log: SqliteLog) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        sql(path, "UPDATE snapshots SET data = 'a text'")
