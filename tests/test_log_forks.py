"""Forks in the SQLite log: the contract, and what the file holds of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from effects.log import SqliteLog
from rlm_fsm.errors import LogCorrupt
from rlm_fsm.ids import RunId
from tests.log_contract import RUN, a_run, events_in, fill, intent, replied, started
from tests.log_contract_runs import FORK, GRANDCHILD, RunsContract
from tests.log_files import heads_of, rewrite, sql
from tests.log_kinds import InAQuickFile, InMemory, Plain


class TestInMemory(InMemory, RunsContract): ...


class TestMemoryLog(Plain, RunsContract): ...


class TestInAFile(InAQuickFile, RunsContract): ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(path) as log:
        fill(log, RUN, a_run())
        log.fork(FORK, RUN, 6)
        log.append(FORK, 6, [intent(7), replied(7)])
        log.fork(GRANDCHILD, FORK, 7)
        yield log


def test_shared_rows_are_not_copied(path: Path, log: SqliteLog) -> None:
    rows = sql(path, "SELECT run_id, count(*), min(seq) FROM events GROUP BY run_id")
    assert rows == [(FORK, 2, 7), (RUN, 14, 1)]
    assert sql(path, "PRAGMA foreign_key_check") == []


def test_one_chain_of_hashes_runs_through_a_fork(path: Path, log: SqliteLog) -> None:
    parting = sql(path, "SELECT hash FROM events WHERE run_id = ? AND seq = 6", RUN)
    assert sql(path, "SELECT prev_hash FROM events WHERE run_id = ? AND seq = 7", FORK) == parting


def test_a_fork_survives_closing(path: Path, log: SqliteLog) -> None:
    log.close()
    with SqliteLog(path) as again:
        assert events_in(again, GRANDCHILD) == [*a_run()[:6], intent(7)]
        assert again.append(GRANDCHILD, 7, [replied(7, "later")]) == 8
        assert [check.problem for check in again.verify()] == [None] * 3
        assert [check.events for check in again.verify()] == [14, 8, 8]


def test_the_head_file_knows_forks_also_those_without_events_of_their_own(
    path: Path, log: SqliteLog
) -> None:
    lines = [line.split()[:2] for line in heads_of(path).read_text().splitlines()]
    assert lines == [[RUN, "14"], [FORK, "8"], [GRANDCHILD, "7"]]
    log.fork(RunId("blank"), RUN, 0)
    assert events_in(log, RunId("blank")) == []
    log.append(RunId("blank"), 0, [started("anew")])
    assert events_in(log, RunId("blank")) == [started("anew")]


def test_a_fork_that_was_lost_is_known_to_be_lost(path: Path, log: SqliteLog) -> None:
    rewrite(path, "DELETE FROM runs WHERE run_id = ?", GRANDCHILD)
    with pytest.raises(LogCorrupt, match="run grandchild is lost"):
        log.load(GRANDCHILD)
    assert {check.run_id: check.problem is None for check in log.verify()} == {
        RUN: True,
        FORK: True,
        GRANDCHILD: False,
    }


def test_a_damaged_beginning_can_not_be_forked_a_sound_one_can(path: Path, log: SqliteLog) -> None:
    rewrite(path, "UPDATE events SET at = 'x' WHERE run_id = ? AND seq = 5", RUN)
    with pytest.raises(LogCorrupt) as caught:
        log.fork(RunId("late"), FORK, 7)
    assert (caught.value.run_id, caught.value.last_good_seq) == (FORK, 4)
    log.fork(RunId("soon"), FORK, 4)
    assert events_in(log, RunId("soon")) == a_run()[:4]


def test_a_fork_costs_one_commit_and_no_more_for_a_longer_history(log: SqliteLog) -> None:
    def statements(at: int) -> list[str]:
        seen: list[str] = []
        log._connection.set_trace_callback(seen.append)
        log.fork(RunId(f"at{at}"), RUN, at)
        log._connection.set_trace_callback(None)
        return [statement.split()[0] for statement in seen if "FROM blobs" not in statement]

    assert statements(14) == statements(1)
    assert statements(2).count("COMMIT") == 2  # One of them ends the reading.
