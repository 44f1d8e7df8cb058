"""Replies by key in a log: the contract of every log, the index, damage, old files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from effects.log import EventLog, SqliteLog
from effects.log.answers import _NEWEST
from rlm_fsm.codec import encode
from rlm_fsm.event import ModelReplied
from rlm_fsm.ids import ROOT, CallId, RunId
from tests.log_contract import LONG, RUN, started
from tests.log_files import rewrite, sql
from tests.log_kinds import InAQuickFile, InMemory, Plain

KEY, OTHER = "a1" * 32, "b2" * 32
SECOND = RunId("run-2")


def answered(text: str = "yes", key: str = KEY, *, hit: bool = False) -> ModelReplied:
    """A subcall's reply that a cache may give again."""
    return ModelReplied(
        frame=ROOT, call_id=CallId("0.1"), text=text, cache_key=key, cache_hit=hit, clock_s=1.5
    )


class AnswersContract:
    """What every log owes those who look for replies in it."""

    def make(self) -> EventLog:
        """An empty log."""
        raise NotImplementedError

    @pytest.fixture
    def log(self) -> Iterator[EventLog]:
        log = self.make()
        yield log
        log.close()

    def test_a_reply_is_found_from_its_commit_on_whichever_run_has_it(self, log: EventLog) -> None:
        assert log.answer(KEY) is None
        log.append(RUN, 0, [started(), answered()])
        assert log.answer(KEY) == answered()
        assert log.answer(OTHER) is None
        log.append(SECOND, 0, [started(), answered("no", OTHER)])
        assert (log.answer(OTHER), log.answer(KEY)) == (answered("no", OTHER), answered())

    def test_the_newest_reply_is_given(self, log: EventLog) -> None:
        log.append(RUN, 0, [started(), answered("old"), answered("newer")])
        log.append(SECOND, 0, [started(), answered("newest", hit=True)])
        assert log.answer(KEY) == answered("newest", hit=True)

    def test_replies_without_a_key_are_never_found(self, log: EventLog) -> None:
        told = f'"cache_key":"{KEY}'
        plain = ModelReplied(frame=ROOT, call_id=CallId("0.1"), text=told, model_id=told)
        log.append(RUN, 0, [started(told), plain, replace(plain, text=KEY)])
        assert (log.answer(KEY), log.answer("")) == (None, None)

    def test_long_and_odd_texts_come_back_whole(self, log: EventLog) -> None:
        log.append(RUN, 0, [started(), answered(LONG)])
        assert log.answer(KEY) == answered(LONG)

    def test_a_fork_finds_what_its_parent_was_told(self, log: EventLog) -> None:
        log.append(RUN, 0, [started(), answered("old"), answered("new")])
        log.fork(SECOND, RUN, 2)
        assert log.answer(KEY) == answered("new")


class TestInMemory(InMemory, AnswersContract): ...


class TestMemoryLog(Plain, AnswersContract): ...


class TestInAFile(InAQuickFile, AnswersContract): ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def test_replies_are_found_by_the_index_and_not_by_looking_at_all_events(path: Path) -> None:
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started(), answered()])
        plan = log._cursor.execute(f"EXPLAIN QUERY PLAN {_NEWEST}", (KEY,)).fetchall()
    assert [row[3] for row in plan] == ["SEARCH events USING INDEX events_answers (<expr>=?)"]


def test_the_key_stands_where_the_index_looks_for_it() -> None:
    """The index counts on canonical JSON: only `cache_hit` sorts before `cache_key`."""
    for hit, place in ((False, 1), (True, 18)):
        data = encode(replace(answered(hit=hit), reasoning="r", model_id="m", cost_usd=1)).data
        assert data.index(f'"cache_key":"{KEY}"') == place


def test_only_replies_with_a_key_take_room_in_the_index(path: Path) -> None:
    with SqliteLog(path) as log:
        plain = replace(answered(), cache_key="")
        log.append(RUN, 0, [started(), *[plain] * 50, answered()])
        log.close()
    where = "kind = 'ModelReplied' AND instr(substr(data, 1, 31), '\"cache_key\":\"') > 0"
    counted = f"SELECT count(*) FROM events INDEXED BY events_answers WHERE {where}"
    assert sql(path, counted) == [(1,)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET data = replace(data, 'newest', 'nicest')",
        "UPDATE events SET version = 9 WHERE data LIKE '%newest%'",
        "UPDATE events SET hash = prev_hash WHERE data LIKE '%newest%'",
    ],
)
def test_a_damaged_reply_is_passed_over_for_an_older_one(path: Path, change: str) -> None:
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started(), answered("old"), answered("newest")])
    rewrite(path, change)
    with SqliteLog(path) as log:
        assert log.answer(KEY) == answered("old")


def test_a_reply_whose_text_is_lost_is_a_miss(path: Path) -> None:
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started(), answered(LONG)])
    rewrite(path, "DELETE FROM blobs")
    with SqliteLog(path) as log:
        assert log.answer(KEY) is None


def test_a_log_without_the_index_has_no_replies(path: Path) -> None:
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started(), answered()])
    sql(path, "DROP INDEX events_answers")
    with SqliteLog(path) as log:
        assert log.answer(KEY) is None


def test_an_old_log_gets_the_index_and_has_no_replies_yet(tmp_path: Path) -> None:
    golden = Path(__file__).parent / "data" / "logs" / "v1.db"
    path = tmp_path / "v1.db"
    path.write_bytes(golden.read_bytes())
    with SqliteLog(path) as log:
        assert log.answer(KEY) is None
        log.append(RUN, 0, [started(), answered()])
        assert log.answer(KEY) == answered()
