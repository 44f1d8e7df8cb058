"""The views: a log as people query it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from effects.log import SqliteLog
from rlm_fsm.event import (
    CodeExecuted,
    EffectStarted,
    Event,
    HistoryCompacted,
    ModelFailed,
    ModelReplied,
)
from rlm_fsm.ids import ROOT, CallId, FrameId, RunId
from rlm_fsm.values import Usage, text_hash
from tests.log_contract import LONG, RUN, a_run, fill, finished, intent, replied, started
from tests.log_files import sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(path, durability="process") as log:
        yield log


def test_the_views_show_steps_calls_and_costs(path: Path, log: SqliteLog) -> None:
    cell = CallId("0.c1")
    failed = ModelFailed(frame=ROOT, call_id=CallId("0.m2"), error="timeout", message="late")
    log.append(RUN, 0, [started(), intent(1)])
    log.append(RUN, 2, [replied(1), CodeExecuted(frame=ROOT, call_id=cell, stdout="7\n" * 999)])
    log.append(RUN, 4, [intent(2), failed, intent(3)])
    steps = sql(path, "SELECT seq, kind, substr(text, 1, 9), tokens FROM v_steps ORDER BY seq")
    assert steps == [
        (1, "RunStarted", "How many?", None),
        (3, "ModelReplied", "```python", 110),
        (4, "CodeExecuted", "7\n7\n7\n7\n7", None),
        (6, "ModelFailed", "late", None),
    ]
    calls = sql(path, "SELECT call_id, outcome, cost_usd, error FROM v_calls ORDER BY call_id")
    assert calls == [
        ("0.m1", "ModelReplied", 0.01, None),
        ("0.m2", "ModelFailed", None, "timeout"),
        ("0.m3", "uncertain", None, None),
    ]
    costs = sql(path, "SELECT calls, failed, uncertain, total_tokens, cost_usd FROM v_costs")
    assert costs == [(3, 1, 1, 110, 0.01)]


def test_the_views_read_every_kind_of_event(path: Path, log: SqliteLog) -> None:
    fill(log, RUN, a_run())
    log.append(RUN, len(a_run()), [finished(LONG)])
    rows = sql(path, "SELECT text FROM v_steps WHERE kind = 'RunFinished' ORDER BY seq")
    assert rows[0] == ("42",)
    assert text_hash(LONG) in str(rows[1][0])
    assert json.loads(json.dumps(sql(path, "SELECT * FROM v_costs")))


# Trees and forks


def call(frame: str, name: str, tokens: int = 10, cost_usd: float | None = None) -> list[Event]:
    """A call with its outcome."""
    ids = {"frame": FrameId(frame), "call_id": CallId(name)}
    return [
        EffectStarted(**ids, effect="CallModel", effect_hash="a" * 64),
        ModelReplied(**ids, text="x", usage=Usage(tokens, 0, tokens), cost_usd=cost_usd),
    ]


def a_tree() -> list[Event]:
    """A turn whose code asks twice plainly, once recursively; the child asks once itself."""
    return [
        started(),
        *call("0", "0.m1", 100, 0.5),
        *call("0", "0.1"),
        *call("0.2", "0.2.m1", 20, 0.25),
        *call("0.2", "0.2.1", 7),
        *call("0", "0.10"),
        *call("0", "0.m2", 100),
    ]


def test_the_tree_shows_each_node_under_what_began_it(path: Path, log: SqliteLog) -> None:
    log.append(RUN, 0, a_tree())
    rows = sql(path, "SELECT tree, what, calls, total_tokens, cost_usd, parent, depth FROM v_tree")
    assert rows == [
        ("0", "frame", 6, 247, 0.75, None, 0),
        ("  0.m1", "turn", 1, 100, 0.5, "0", 1),
        ("  0.1", "subcall", 1, 10, None, "0", 1),
        ("  0.2", "frame", 2, 27, 0.25, "0", 1),
        ("    0.2.m1", "turn", 1, 20, 0.25, "0.2", 2),
        ("    0.2.1", "subcall", 1, 7, None, "0.2", 2),
        ("  0.10", "subcall", 1, 10, None, "0", 1),
        ("  0.m2", "turn", 1, 100, None, "0", 1),
    ]


def test_a_summary_is_a_call_of_the_frame_whose_conversation_it_sums_up(
    path: Path, log: SqliteLog
) -> None:
    saved = HistoryCompacted(frame=ROOT, call_id=CallId("0.s1"), messages=4)
    failed = HistoryCompacted(frame=ROOT, call_id=CallId("0.s2"), failure="the reply was empty")
    summaries = [*call("0", "0.s1", 30), saved, *call("0", "0.s2", 3), failed]
    log.append(RUN, 0, [started(), *call("0", "0.m1", 100), *summaries])
    rows = sql(path, "SELECT node, what, total_tokens FROM v_tree WHERE what <> 'frame'")
    assert rows == [("0.m1", "turn", 100), ("0.s1", "compaction", 30), ("0.s2", "compaction", 3)]
    told = sql(path, "SELECT text FROM v_steps WHERE kind = 'HistoryCompacted'")
    assert told == [(None,), ("the reply was empty",)]


def test_frames_whose_names_begin_alike_do_not_mix(path: Path, log: SqliteLog) -> None:
    log.append(RUN, 0, [started(), *call("0.1", "0.1.m1", 1), *call("0.10", "0.10.m1", 2)])
    rows = sql(path, "SELECT node, total_tokens FROM v_tree WHERE what = 'frame'")
    assert rows == [("0", 3), ("0.1", 1), ("0.10", 2)]


def test_a_fork_is_shown_whole_and_pays_for_its_own(path: Path, log: SqliteLog) -> None:
    log.append(RUN, 0, a_tree())
    log.fork(RunId("fork"), RUN, 7)
    log.append(RunId("fork"), 7, [*call("0.2", "0.2.1", 1, 0.125), finished()])
    log.fork(RunId("again"), RunId("fork"), 9)
    steps = sql(path, "SELECT seq, call_id, is_shared FROM v_steps WHERE run_id = 'fork'")
    assert steps == [
        (1, None, 1),
        (3, "0.m1", 1),
        (5, "0.1", 1),
        (7, "0.2.m1", 1),
        (9, "0.2.1", 0),
        (10, None, 0),
    ]
    assert sql(path, "SELECT run_id, count(*), sum(is_shared) FROM v_events GROUP BY run_id") == [
        ("again", 9, 9),
        ("fork", 10, 7),
        (RUN, 13, 0),
    ]
    costs = sql(path, "SELECT run_id, calls, total_tokens, cost_usd FROM v_costs")
    assert costs == [(RUN, 6, 247, 0.75), ("fork", 1, 1, 0.125), ("again", 0, 0, None)]
    tree = sql(path, "SELECT node, total_tokens, is_shared FROM v_tree WHERE run_id = 'again'")
    assert tree == [
        ("0", 131, 1),
        ("0.m1", 100, 1),
        ("0.1", 10, 1),
        ("0.2", 21, 1),
        ("0.2.m1", 20, 1),
        ("0.2.1", 1, 1),
    ]


def test_a_call_that_a_fork_cuts_in_two_is_its_own(path: Path, log: SqliteLog) -> None:
    log.append(RUN, 0, [started(), *call("0", "0.m1", 100)])
    log.fork(RunId("fork"), RUN, 2)
    calls = "SELECT begun, uncertain, outcome, is_shared FROM v_calls WHERE run_id = 'fork'"
    assert sql(path, calls) == [(1, 1, "uncertain", 1)]
    log.append(RunId("fork"), 2, call("0", "0.m1", 5))
    assert sql(path, calls) == [(2, 1, "ModelReplied", 0)]
    assert sql(path, "SELECT total_tokens FROM v_costs") == [(100,), (5,)]


def test_calls_that_were_in_flight_are_counted(path: Path, log: SqliteLog) -> None:
    lost = ModelFailed(frame=ROOT, call_id=CallId("0.m3"), error="uncertain", message="stopped")
    log.append(RUN, 0, [started(), intent(1), intent(1), replied(1), intent(2), intent(2)])
    log.append(RUN, 6, [intent(3), lost])
    calls = sql(path, "SELECT call_id, begun, uncertain, outcome FROM v_calls")
    assert calls == [
        ("0.m1", 2, 1, "ModelReplied"),
        ("0.m2", 2, 2, "uncertain"),
        ("0.m3", 1, 1, "ModelFailed"),
    ]
    assert sql(path, "SELECT calls, failed, uncertain FROM v_costs") == [(3, 1, 4)]
