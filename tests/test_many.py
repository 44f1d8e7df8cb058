"""`run_many`: jobs and their mistakes, rows, limits over all runs, doing only what is missing."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effects.repls.base import ReplSettings
from effects.repls.monty import MontyRepl
from rlm_fsm import (
    RLM,
    AdapterError,
    Budget,
    FakeAdapter,
    Job,
    JobResult,
    ModelResponse,
    Policy,
    RunBusy,
    SqliteLog,
    Usage,
    UsageError,
    arun_many,
    resume,
    run_many,
    runs,
    stream_many,
)
from rlm_fsm.event import Cancelled, ModelReplied, RunResumed, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.values import Messages

ASK = "```python\nanswer = llm_query('about ' + P)\n```"


class Answering:
    """A model that answers each question by name, and counts what is asked of it."""

    model = "answering"
    reports_cost = True

    def __init__(
        self, reply: Callable[[str], str] | None = None, *, tokens: int = 100, cost: float = 0.0
    ) -> None:
        self.calls: list[str] = []
        self.at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self.signal_at, self.signal = 0, asyncio.Event()
        """The number of a call, and what is set when it comes."""
        self.reply = reply or (lambda question: f"FINAL: {question.upper()}")
        self.usage = Usage(tokens - 10, 10, tokens)
        self.meta: dict[str, Any] = {"cost_usd": cost} if cost else {}

    async def acomplete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        asked = messages[1]["content"].partition("\n")[0].removeprefix("Question: ")
        if messages[0]["content"].startswith("You are a sub-LLM"):
            asked = "sub " + messages[1]["content"]
        self.calls.append(asked)
        if len(self.calls) == self.signal_at:
            self.signal.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay_s)
            turn = sum(message["role"] == "assistant" for message in messages)
            said = self.reply(asked if turn == 0 else f"turn {turn + 1} {asked}")
        finally:
            self.at_once -= 1
        return ModelResponse(said, self.usage, self.model, self.meta)

    complete = None  # only the asynchronous method is there


def answering(**options: Any) -> Any:
    return Answering(**options)


def events(log: Path, run_id: str) -> list[Any]:
    with SqliteLog(log) as opened:
        return [logged.event for logged in opened.load(RunId(run_id))]


# -- rows


def test_jobs_of_every_form_give_rows_in_their_order(tmp_path: Path):
    (tmp_path / "a.txt").write_text("alpha")
    jobs: list[object] = [
        Job("one", "text", id="first", metadata={"gold": 1}),
        ("two", ["a", "b"]),
        {"query": "three", "paths": str(tmp_path / "a.txt"), "id": 3},
        "four",
    ]
    model = answering()
    done = run_many(jobs, adapter=model, context="for all", log=tmp_path / "log.sqlite")
    assert [row.output for row in done] == ["ONE", "TWO", "THREE", "FOUR"]
    assert [row.status for row in done] == ["finished"] * 4
    assert [row.id for row in done][::2] == ["first", "3"]
    assert (done[0].metadata, done[0].origin) == ({"gold": 1}, "new")
    assert (len(done), done[-1].query, done.by_id("3").query) == (4, "four", "three")
    assert done.counts() == {"finished": 4, "partial": 0, "failed": 0, "not_started": 0}
    assert (done.total_tokens, done.cost_usd, done.stopped) == (400, None, None)
    trace = done[1].trace
    assert trace is not None
    assert [step.kind for step in trace] == ["root_call"]
    started = events(tmp_path / "log.sqlite", done[0].run_id)[0]
    assert started.environment["batch"] == done.name
    assert started.environment["job"] == "first"


def test_rows_are_written_as_jsonl_and_as_a_table(tmp_path: Path):
    jobs = [Job("one", "text", id="a", metadata={"gold": ["x"]}), Job("two", "text", id="b")]
    model = answering(reply=lambda q: "FINAL: \ud800 " + q, cost=0.25)
    done = run_many(jobs, adapter=model, log=":memory:", name="b1")
    done.to_jsonl(tmp_path / "rows.jsonl")
    done.to_jsonl(tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0]["output"] == "\ud800 one"
    assert rows[0] == done[0].to_dict()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]
    done.to_sqlite(tmp_path / "rows.db")
    done.to_sqlite(tmp_path / "rows.db")
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        found = connection.execute(
            "SELECT batch, id, output, cost_usd, json_extract(metadata, '$.gold[0]') FROM results"
        ).fetchall()
    connection.close()
    assert found == [("b1", "a", "? one", 0.25, "x"), ("b1", "b", "? two", 0.25, None)]
    assert done.cost_usd == 0.5


def test_metadata_with_lone_surrogates_goes_into_a_table(tmp_path: Path):
    metadata = {"a": ["\udfff é", {"b\ud800": "\ud800"}], "\udc00": 1}
    done = run_many([Job("q", "text", metadata=metadata)], adapter=answering(), log=":memory:")
    done.to_sqlite(tmp_path / "rows.db")
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        ((stored,),) = connection.execute("SELECT metadata FROM results").fetchall()
    connection.close()
    assert stored == '{"a": ["? é", {"b?": "?"}], "?": 1}'


def test_a_trace_can_be_read_when_the_log_is_in_memory():
    done = run_many([("q", "text")], adapter=answering(), log=":memory:")
    trace = done[0].trace
    assert trace is not None
    assert len(trace) == 1


# -- what is wrong with jobs


def test_everything_wrong_with_jobs_is_told_before_anything_starts(tmp_path: Path):
    log, model = tmp_path / "log.sqlite", answering()
    jobs: list[object] = [
        ("good", "text"),
        ("", "text"),
        {"query": "q"},
        {"query": "q", "context": "text", "gold": 1},
        {"query": "q", "paths": ["missing.txt"]},
        {"query": "q", "paths": ["a"], "context": "text"},
        Job("q", "text", id=""),
        Job("q", "text", metadata={"when": object()}),
        ("q", 7),
        7,
        ("good", "text"),
        Job("x", "text", id="same"),
        Job("y", "text", id="same"),
    ]
    with pytest.raises(UsageError) as caught:
        run_many(jobs, adapter=model, log=log)
    lines = str(caught.value).splitlines()
    assert lines[0] == "11 of 13 jobs can't be run; nothing was started:"
    wanted = [
        "job 2: it has no query",
        "job 3: it has no context, and the batch has none for all",
        "job 4: unknown: 'gold'. A job has query, context, paths, id, metadata",
        "job 5: 1 path can't be read",
        "job 6: it has a context and paths",
        "job 7: id=''",
        "job 8: metadata can't be kept as JSON",
        "job 9: a context is a Context, a str",
        "job 10: a job is a Job, a pair",
        "job 11: the same as job 1; to run both, give them ids",
        "job 13: the id 'same' is that of job 12 too",
    ]
    told = [line.strip() for line in lines[1:] if line.startswith("  job")]
    assert len(told) == len(wanted)
    for line, begins in zip(told, wanted, strict=True):
        assert line.startswith(begins)
    assert model.calls == []
    assert not log.exists()


def test_lines_of_a_file_are_named_and_its_paths_are_relative_to_it(tmp_path: Path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha")
    file = folder / "jobs.jsonl"
    file.write_text('{"query": "q", "paths": "a.txt"}\n\n{"query": "r", "context": "c"}\n')
    done = run_many(file, adapter=answering(), log=":memory:")
    assert [row.output for row in done] == ["Q", "R"]
    file.write_text('{"query": "q", "context": "c"}\n{"query": \n[1]\n')
    with pytest.raises(UsageError) as caught:
        run_many(file, adapter=answering(), log=":memory:")
    assert f"{file}, line 2: not JSON" in str(caught.value)
    assert f"{file}, line 3: a line holds an object, not list" in str(caught.value)
    with pytest.raises(UsageError, match="can't be read"):
        run_many(tmp_path / "none.jsonl", adapter=answering(), log=":memory:")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_runs": 0}, "max_runs=0: give a whole number, 1 or more"),
        ({"max_calls": True}, "max_calls=True"),
        ({"max_failures": -1}, "max_failures=-1"),
        ({"name": "a b"}, "name='a b'"),
        ({"name": "x" * 31}, "give 1 to 30"),
        ({"name": 5}, "name=5: give 1 to 30"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"policy": {}}, "policy={}: give a Policy"),
        ({"policy": {"max_steps": 3}}, "policy={'max_steps': 3}: give a Policy"),
        ({"budget": {}}, "budget={}: give a Budget, or None"),
        ({"budget": 0}, "budget=0: give a Budget, or None"),
        ({"budget": {"max_cost_usd": 1}}, "budget={'max_cost_usd': 1}: give a Budget"),
        ({"on_row": 5}, "on_row=5: give a function, or None"),
        ({"progress": "no"}, "progress='no': give True, False or None"),
        ({"watcher": 5}, "watcher=5: give a Watcher, or None"),
        ({"on_uncertain": "x"}, "on_uncertain='x': choose 'retry' or 'fail'"),
        ({"on_changed_output": None}, "on_changed_output=None: choose 'raise' or 'accept'"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(
    options: dict[str, Any], message: str, tmp_path: Path
):
    model = answering()
    with pytest.raises(UsageError, match=re.escape(message)):
        run_many([("q", "text")], adapter=model, log=tmp_path / "log", **options)
    assert (model.calls, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("rlm", [0, "gpt-5", RLM])
def test_what_is_no_rlm_is_refused(rlm: Any):
    with pytest.raises(UsageError, match="give an RLM, or None"):
        run_many([("q", "text")], rlm=rlm)


@pytest.mark.parametrize(
    "budget", [{"max_cost_usd": -1}, {"max_total_tokens": 1.5}, {"max_seconds": "1"}]
)
def test_a_bad_budget_is_refused(budget: dict[str, Any]):
    with pytest.raises(UsageError, match="give a"):
        Budget(**budget)


def test_what_is_no_list_of_jobs_is_refused():
    for jobs in ("jobs.jsonl", {"query": "q"}, 7):
        with pytest.raises(TypeError, match=r"jobs is a list of jobs or the pathlib\.Path"):
            run_many(jobs, adapter=answering(), log=":memory:")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there are no jobs"):
        run_many([], adapter=answering(), log=":memory:")
    with pytest.raises(UsageError, match="pass rlm= or adapter"):
        run_many([("q", "t")], rlm=RLM(answering()), adapter=answering())


# -- limits over all runs


def test_runs_and_calls_at_the_same_time_are_limited_over_all_runs(tmp_path: Path):
    fan_out = "```python\nr = llm_batch([P + str(n) for n in range(6)])\n```"

    def reply(asked: str) -> str:
        if asked.startswith("sub "):
            return "ok"
        return "FINAL: done" if asked.startswith("turn 2") else fan_out

    model = answering(reply=reply)
    model.delay_s = 0.01
    jobs = [(f"q{n}", f"text {n}") for n in range(6)]
    done = run_many(jobs, adapter=model, log=tmp_path / "log", max_runs=3, max_calls=4)
    assert done.counts()["finished"] == 6
    assert model.most_at_once == 4
    model.most_at_once = 0
    run_many(jobs, adapter=model, log=tmp_path / "log", max_runs=2, max_calls=100, name="again")
    assert 6 < model.most_at_once <= 12


def test_failures_are_rows_and_the_others_go_on(tmp_path: Path):
    def reply(asked: str) -> str:
        if asked == "q1":
            raise AdapterError("the service is down", kind="server", status=503)
        if asked == "q2":
            raise RuntimeError("a bug of the adapter's")
        return f"FINAL: {asked}"

    log = tmp_path / "log"
    jobs = [(f"q{n}", "text") for n in range(4)]
    done = run_many(jobs, adapter=answering(reply=reply), log=log, max_runs=1)
    assert [row.status for row in done] == ["finished", "failed", "failed", "finished"]
    assert "the service is down" in (done[1].error or "")
    assert "a bug of the adapter's" in (done[2].error or "")
    assert [row.query for row in done.having("failed")] == ["q1", "q2"]
    again = answering()
    done = run_many(jobs, adapter=again, log=log)
    assert [row.origin for row in done] == ["log", "resumed", "resumed", "log"]
    assert [row.output for row in done] == ["q0", "Q1", "Q2", "q3"]
    assert sorted(again.calls) == ["q1", "q2"]


def test_a_session_that_cannot_be_had_is_a_row():
    def broken(_: object) -> Any:
        raise OSError("no process")

    done = run_many([("q", "t")], adapter=answering(), log=":memory:", repl_backend=broken)
    assert done[0].status == "failed"
    assert "no process" in (done[0].error or "")


class OddEnd(BaseException):
    """An exception that is no `Exception`."""


@pytest.mark.parametrize("raised", [asyncio.CancelledError, SystemExit, GeneratorExit, OddEnd])
@pytest.mark.parametrize("max_runs", [1, 3])
def test_whatever_a_run_raises_is_its_row(raised: type[BaseException], max_runs: int):
    def broken(context: Any) -> Any:
        if context.slice(0, 3) == "bad":
            raise raised("odd")
        return MontyRepl(context, ReplSettings())

    jobs = [("q0", "fine"), ("q1", "bad"), ("q2", "fine")]
    done = run_many(
        jobs, adapter=answering(), log=":memory:", repl_backend=broken, max_runs=max_runs
    )
    assert [row.status for row in done] == ["finished", "failed", "finished"]
    assert done[1].error == f"{raised.__name__}: odd"
    assert (done[1].origin, done.stopped) == ("new", None)


def test_a_refused_key_stops_the_batch():
    def reply(_: str) -> str:
        raise AdapterError("bad key", kind="auth", status=401)

    model = answering(reply=reply)
    jobs = [(f"q{n}", "text") for n in range(5)]
    done = run_many(jobs, adapter=model, log=":memory:", max_runs=1)
    assert [row.status for row in done] == ["failed"] + ["not_started"] * 4
    assert "refused the key" in (done.stopped or "")
    assert "Start the batch again" in (done[4].error or "")
    assert len(model.calls) == 1


def test_too_many_failures_stop_the_batch():
    def reply(_: str) -> str:
        raise AdapterError("down", kind="server")

    jobs = [(f"q{n}", "text") for n in range(5)]
    done = run_many(
        jobs, adapter=answering(reply=reply), log=":memory:", max_runs=1, max_failures=1
    )
    assert done.counts()["failed"] == 2
    assert done.stopped == "more than 1 job failed"


# -- the budget


@pytest.mark.parametrize("max_runs", [1, 3])
def test_a_budget_of_tokens_holds_over_all_runs(tmp_path: Path, max_runs: int):
    model = answering(tokens=1_000)
    jobs = [(f"q{n}", "text") for n in range(12)]
    budget = Budget(max_total_tokens=6_500)
    log = tmp_path / "log"
    done = run_many(jobs, adapter=model, log=log, budget=budget, max_runs=max_runs)
    counts = done.counts()
    assert done.total_tokens == 1_000 * counts["finished"] <= 6_500
    assert counts["finished"] >= 5
    assert counts["finished"] + counts["not_started"] == 12
    assert "the budget is used up: max_total_tokens=6,500" in (done.stopped or "")
    assert len(model.calls) == counts["finished"]
    assert len(runs(log)) == counts["finished"]
    again = answering(tokens=1_000)
    done = run_many(jobs, adapter=again, log=log, budget=Budget(max_total_tokens=30_000))
    assert done.counts()["finished"] == 12
    assert len(again.calls) == 12 - counts["finished"]


def test_a_budget_of_cost_counts_what_earlier_processes_spent(tmp_path: Path):
    log = tmp_path / "log"
    jobs = [(f"q{n}", "text") for n in range(6)]

    def spend(usd: float) -> Any:
        model = answering(cost=1.0)
        return run_many(
            jobs, adapter=model, log=log, budget=Budget(max_cost_usd=usd), max_runs=1
        ), len(model.calls)

    first, calls = spend(2.0)
    assert (first.counts()["finished"], calls, first.cost_usd) == (2, 2, 2.0)
    assert "max_cost_usd=2, $0 left" in (first.stopped or "")
    second, calls = spend(2.0)
    assert (second.counts()["finished"], calls) == (2, 0)
    third, calls = spend(5.0)
    assert (third.counts()["finished"], calls, third.cost_usd) == (5, 3, 5.0)


def test_a_budget_of_seconds_ends_with_jobs_that_are_not_started():
    model = answering()
    model.delay_s = 0.15
    jobs = [(f"q{n}", "text") for n in range(20)]
    done = run_many(jobs, adapter=model, log=":memory:", budget=Budget(max_seconds=0.4), max_runs=2)
    counts = done.counts()
    assert 0 < counts["finished"] + counts["partial"] < 12
    assert counts["not_started"] >= 8
    assert "the budget's time is over: max_seconds=0.4" in (done.stopped or "")


def test_a_run_that_its_share_cut_short_goes_on_when_others_left_enough():
    """Two runs get half each; the long one needs more, and the short one leaves it."""

    def reply(asked: str) -> str:
        if "short" in asked or asked.startswith("turn 6"):
            return "FINAL: done"
        return "```python\nprint(1)\n```"

    model = answering(reply=reply, tokens=2_000)
    done = run_many(
        [("long", "t"), ("short", "t")],
        adapter=model,
        log=":memory:",
        budget=Budget(max_total_tokens=18_000),
        max_runs=2,
        loop_limit=None,
    )
    assert [row.status for row in done] == ["finished", "finished"]
    kinds = [type(event) for event in done[0].result._events()]  # type: ignore[union-attr]
    assert kinds.count(RunResumed) == 1
    assert done.total_tokens <= 18_000


def test_a_run_that_goes_on_is_given_all_that_the_others_left():
    """Each of three needs more than a third, and what one leaves is less than its next call takes;
    what all of them leave is enough for one."""

    def reply(asked: str) -> str:
        return "FINAL: done" if asked.startswith("turn 3") else "```python\nprint(1)\n```"

    model = answering(reply=reply, tokens=6_000)
    done = run_many(
        [(f"q{n}", "t") for n in range(3)],
        adapter=model,
        log=":memory:",
        budget=Budget(max_total_tokens=49_500),
        max_runs=3,
        loop_limit=None,
    )
    assert sorted(row.status for row in done) == ["finished", "partial", "partial"]
    assert done.total_tokens == 48_000
    assert "the budget is used up: max_total_tokens=49,500, 1,500 left" in (done.stopped or "")


def test_a_batch_whose_budget_left_runs_unfinished_says_so(tmp_path: Path):
    """More than a first call takes is left, and less than the run's next one."""
    long = "```python\n" + "print(1)\n" * 500 + "```"
    for origin in ("new", "log"):
        done = run_many(
            [("q", "t")],
            adapter=answering(reply=lambda _: long, tokens=500),
            log=tmp_path / "log",
            budget=Budget(max_total_tokens=4_000),
            loop_limit=None,
        )
        assert (done[0].status, done[0].origin) == ("partial", origin)
        assert "the batch's budget left it max_total_tokens=4,000" in (done[0].error or "")
        told = f"the budget is used up: max_total_tokens=4,000, {4_000 - done.total_tokens:,} left"
        assert told in (done.stopped or "")


def test_a_batch_whose_time_left_runs_unfinished_says_so():
    model = answering(reply=lambda _: "```python\nprint(1)\n```")
    model.delay_s = 0.15
    jobs = [(f"q{n}", "text") for n in range(2)]
    done = run_many(
        jobs, adapter=model, log=":memory:", budget=Budget(max_seconds=0.4), loop_limit=None
    )
    assert {row.limit for row in done} == {"max_seconds"}
    assert done.stopped == "the budget's time is over: max_seconds=0.4"


def test_a_run_that_its_own_limit_ended_does_not_stop_the_batch():
    model = answering(reply=lambda _: "```python\nprint(1)\n```", tokens=1_000)
    done = run_many(
        [("q", "t")],
        adapter=model,
        log=":memory:",
        policy=Policy(max_total_tokens=4_000),
        budget=Budget(max_total_tokens=90_000),
        loop_limit=None,
    )
    assert (done[0].status, done[0].limit) == ("partial", "max_total_tokens")
    assert done.stopped is None


def test_a_run_that_the_budget_cut_short_says_so():
    model = answering(reply=lambda _: "```python\nprint(1)\n```", tokens=1_000)
    done = run_many(
        [("long", "t")], adapter=model, log=":memory:", budget=Budget(max_total_tokens=5_000)
    )
    assert (done[0].status, done[0].limit) == ("partial", "max_total_tokens")
    assert done[0].error == "the batch's budget left it max_total_tokens=5,000"
    assert done.total_tokens <= 5_000


def test_a_run_that_the_budget_cut_short_goes_on_only_with_a_larger_one(tmp_path: Path):
    def ask(tokens: int) -> tuple[str, str, int]:
        model = answering(
            reply=lambda asked: "FINAL: x" if "turn 7" in asked else "```python\nprint(1)\n```",
            tokens=1_000,
        )
        budget = Budget(max_total_tokens=tokens)
        done = run_many(
            [("q", "t")], adapter=model, log=tmp_path / "log", budget=budget, loop_limit=None
        )
        return done[0].status, done[0].origin, len(model.calls)

    status, origin, calls = ask(5_000)
    assert (status, origin) == ("partial", "new")
    assert ask(5_000) == ("partial", "log", 0)
    assert ask(60_000) == ("finished", "resumed", 7 - calls)


def test_a_runs_own_limits_hold_beside_the_budget():
    model = answering(reply=lambda _: "```python\nprint(1)\n```", tokens=1_000)
    done = run_many(
        [("a", "t"), ("b", "t")],
        adapter=model,
        log=":memory:",
        policy=Policy(max_steps=2),
        budget=Budget(max_total_tokens=1_000_000),
    )
    assert [(row.status, row.limit) for row in done] == [("partial", "max_steps")] * 2
    assert [row.error for row in done] == ["the limit max_steps is reached"] * 2


# -- going on


def test_what_has_ended_is_not_asked_again_and_new_jobs_are(tmp_path: Path):
    log = tmp_path / "log"
    first = run_many([("a", "t"), ("b", "t")], adapter=answering(), log=log, name="n")
    model = answering()
    jobs = [("c", "t"), ("b", "t"), ("a", "t"), ("a", "other text")]
    done = run_many(jobs, adapter=model, log=log, name="n")
    assert sorted(model.calls) == ["a", "c"]
    assert [row.origin for row in done] == ["new", "log", "log", "new"]
    assert [row.run_id for row in done][1:3] == [first[1].run_id, first[0].run_id]
    assert done[2].usage == first[0].usage
    trace = done[2].trace
    assert trace is not None
    assert len(trace) == 1


def test_without_a_name_a_batch_is_known_by_jobs_options_and_models(tmp_path: Path):
    log = tmp_path / "log"

    def calls(*jobs: tuple[str, str], model: str = "m", **options: Any) -> int:
        made = answering()
        made.model = model
        run_many(jobs, adapter=made, log=log, **options)
        return len(made.calls)

    assert calls(("a", "t"), ("b", "t")) == 2
    assert calls(("b", "t"), ("a", "t")) == 0
    assert calls(("a", "t"), ("b", "t"), policy=Policy(max_steps=9)) == 0
    assert calls(("a", "t"), ("b", "t"), max_tokens=99) == 2
    assert calls(("a", "t"), ("b", "t"), model="other") == 2
    assert calls(("a", "t")) == 1


def test_a_larger_limit_goes_on_with_the_runs_that_it_ended(tmp_path: Path):
    log = tmp_path / "log"
    look = "```python\nprint(1)\n```"

    def done(max_steps: int) -> tuple[str, str, int]:
        model = answering(reply=lambda asked: "FINAL: x" if "turn 5" in asked else look)
        policy = Policy(max_steps=max_steps)
        row = run_many([("q", "t")], adapter=model, log=log, policy=policy)[0]
        return row.status, row.origin, len(model.calls)

    assert done(2) == ("partial", "new", 3)
    assert done(2) == ("partial", "log", 0)
    assert done(6) == ("finished", "resumed", 2)


def test_a_run_that_gave_up_is_not_tried_again(tmp_path: Path):
    log = tmp_path / "log"

    def ask() -> tuple[JobResult, int]:
        model = answering(reply=lambda _: "I don't know what to do.")
        done = run_many([("q", "t")], adapter=model, log=log, invalid_response_limit=2)
        return done[0], len(model.calls)

    row, calls = ask()
    assert (row.status, calls) == ("failed", 2)
    row, calls = ask()
    assert (row.status, row.origin, calls) == ("failed", "log", 0)


def test_a_context_that_changed_is_another_job(tmp_path: Path):
    log, file = tmp_path / "log", tmp_path / "a.txt"
    file.write_text("alpha")
    jobs = [Job("q", file, id="a")]
    first = run_many(jobs, adapter=answering(), log=log, name="n")
    file.write_text("beta")
    second = run_many(jobs, adapter=answering(), log=log, name="n")
    assert first[0].run_id != second[0].run_id
    assert second[0].origin == "new"


def test_a_file_that_changes_while_the_batch_runs_is_a_failure_of_its_job(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("alpha")

    def reply(asked: str) -> str:
        file.write_text("beta")
        return f"FINAL: {asked}"

    done = run_many(
        [("one", "text"), Job("two", [file])],
        adapter=answering(reply=reply),
        log=":memory:",
        max_runs=1,
    )
    assert [row.status for row in done] == ["finished", "failed"]
    assert "have changed since the batch began" in (done[1].error or "")


def test_two_processes_do_not_work_on_one_batch(tmp_path: Path):
    log, model = tmp_path / "log", answering()
    busy = pytest.raises(RunBusy, match="the batch n is being worked on")
    with SqliteLog(log) as other, other.lead(RunId("n")), busy:
        run_many([("q", "t")], adapter=model, log=log, name="n")
    assert model.calls == []


def test_a_run_of_a_batch_can_be_resumed_by_itself(tmp_path: Path):
    log = tmp_path / "log"

    def down(_: str) -> str:
        raise AdapterError("down", kind="server")

    done = run_many([Job("q", "t", id="x")], adapter=answering(reply=down), log=log, name="n")
    assert done[0].run_id.startswith("n.x.")
    assert resume("n.x.", adapter=answering(), log=log).output == "Q"
    model = answering()
    done = run_many([Job("q", "t", id="x")], adapter=model, log=log, name="n")
    assert (done[0].output, done[0].origin, model.calls) == ("Q", "log", [])


# -- in the middle


def test_cancelling_cancels_the_runs_cleanly_and_the_next_start_goes_on(tmp_path: Path):
    log = tmp_path / "log"
    jobs = [(f"q{n}", "t") for n in range(6)]
    slow = answering()
    slow.delay_s = 30.0
    slow.signal_at = 3

    async def scenario() -> None:
        task = asyncio.create_task(arun_many(jobs, adapter=slow, log=log, max_runs=3))
        await slow.signal.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "start it again to go on" in caught.value.__notes__[-1]

    asyncio.run(scenario())
    assert [info.status for info in runs(log)] == ["cancelled"] * 3
    for info in runs(log):
        assert any(isinstance(event, Cancelled) for event in events(log, info.run_id))
    model = answering()
    done = run_many(jobs, adapter=model, log=log)
    assert [row.origin for row in done] == ["resumed"] * 3 + ["new"] * 3
    assert len(model.calls) == 6
    assert [row.usage.uncertain_calls for row in done if row.usage] == [1, 1, 1, 0, 0, 0]


def test_cancelling_goes_through_what_a_model_makes_of_it(tmp_path: Path):
    """An adapter that raises an error of its own when it is cancelled: no further job begins."""
    model = answering()
    model.signal_at, model.delay_s = 1, 60.0
    hung = model.acomplete

    async def acomplete(*args: Any, **options: Any) -> ModelResponse:
        try:
            return await hung(*args, **options)
        except asyncio.CancelledError:
            raise AdapterError("the connection was closed", kind="bad_request") from None

    model.acomplete = acomplete
    jobs = [(f"q{n}", "text") for n in range(3)]

    async def scenario() -> None:
        task = asyncio.create_task(arun_many(jobs, adapter=model, log=tmp_path / "log", max_runs=1))
        await model.signal.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert model.calls == ["q0"]


def test_answered_subcalls_of_a_stopped_run_are_not_paid_again(tmp_path: Path):
    log = tmp_path / "log"

    async def scenario() -> None:
        model = answering(reply=lambda asked: "noted" if asked.startswith("sub ") else ASK)
        model.delay_s, model.signal_at = 0.2, 3
        task = asyncio.create_task(arun_many([("q", "t")], adapter=model, log=log))
        await model.signal.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.calls == ["q", "sub about t", "q"]

    asyncio.run(scenario())
    model = answering(reply=lambda _: "FINAL_VAR: answer")
    done = run_many([("q", "t")], adapter=model, log=log)
    assert (done[0].output, model.calls) == ("noted", ["q"])


def test_rows_are_streamed_as_the_jobs_end():
    async def scenario() -> list[str]:
        model = answering()
        seen: list[str] = []
        jobs = [(f"q{n}", "t") for n in range(4)]
        async for row in stream_many(jobs, adapter=model, log=":memory:", max_runs=1):
            seen.append(f"{row.query} after {len(model.calls)} calls")
        return seen

    seen = asyncio.run(scenario())
    assert len(seen) == 4
    assert seen[0].startswith("q0")


def test_leaving_the_stream_cancels_what_goes_on(tmp_path: Path):
    log = tmp_path / "log"

    async def scenario() -> None:
        model = answering()
        jobs = [(f"q{n}", "t") for n in range(6)]
        stream = stream_many(jobs, adapter=model, log=log, max_runs=1)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(scenario())
    assert 1 <= len(runs(log)) < 6


def test_a_function_that_is_given_rows_and_fails_ends_nothing(
    caplog: pytest.LogCaptureFixture,
):
    def broken(row: JobResult) -> None:
        raise ValueError(row.id)

    done = run_many([("a", "t"), ("b", "t")], adapter=answering(), log=":memory:", on_row=broken)
    assert done.counts()["finished"] == 2
    assert "on_row failed" in caplog.text


def test_a_function_that_is_given_rows_and_is_cancelled_ends_nothing(
    caplog: pytest.LogCaptureFixture,
):
    def broken(row: JobResult) -> None:
        raise asyncio.CancelledError

    done = run_many(
        [("a", "t"), ("b", "t")], adapter=answering(), log=":memory:", on_row=broken, max_runs=1
    )
    assert done.counts()["finished"] == 2
    assert "on_row failed" in caplog.text


def test_an_async_function_is_not_given_rows():
    class Given:
        async def __call__(self, row: JobResult) -> None: ...

    async def given(row: JobResult) -> None: ...

    for function in (given, Given()):
        with pytest.raises(UsageError, match="give a plain function"):
            run_many([("a", "t")], adapter=answering(), log=":memory:", on_row=function)


def test_an_adapter_that_raises_generator_exit_is_a_failed_row():
    def reply(asked: str) -> str:
        if asked == "bad":
            raise GeneratorExit("odd")
        return "FINAL: yes"

    jobs = [("bad", "t"), ("good", "t")]
    done = run_many(jobs, adapter=answering(reply=reply), log=":memory:")
    assert [row.status for row in done] == ["failed", "finished"]
    assert "GeneratorExit" in (done[0].error or "")


def test_a_batch_runs_inside_a_running_loop_and_with_a_synchronous_adapter():
    async def scenario() -> list[str]:
        adapter = FakeAdapter()
        adapter.add_rule("", "FINAL: yes")
        done = run_many([("a", "t"), ("b", "t")], adapter=adapter, log=":memory:")
        return [row.output for row in done]

    assert asyncio.run(scenario()) == ["yes", "yes"]


def test_an_rlm_can_be_passed_with_its_options(tmp_path: Path):
    rlm = RLM(answering(), log=tmp_path / "log", max_tokens=77)
    done = run_many([("a", "t")], rlm=rlm, name="n")
    started = events(tmp_path / "log", done[0].run_id)[0]
    assert isinstance(started, RunStarted)
    assert started.options.max_tokens == 77
    assert any(isinstance(e, ModelReplied) for e in events(tmp_path / "log", done[0].run_id))


def test_a_share_is_enough_for_the_first_call_of_a_run(tmp_path: Path):
    """The estimate is that of the machine: what it tells of tools, and its own words, included."""

    def look(x: int) -> int:
        return x

    look.__doc__ = "words " * 400
    adapter = FakeAdapter()
    adapter.add_rule("", "FINAL: x", regex=True)
    jobs = [Job(f"question {number}", "text", id=f"j{number}") for number in range(8)]
    result = run_many(
        jobs,
        adapter=adapter,
        log=tmp_path / "log.sqlite",
        budget=Budget(max_total_tokens=4_000),
        tools=[look],
    )
    for row in result:
        assert row.status in ("finished", "not_started"), row


def test_a_run_that_the_budget_cut_short_was_begun_by_this_process_all_the_same(tmp_path: Path):
    cell = "```python\nFINAL(llm_query('a' + P) + llm_query('b' + P))\n```"
    adapter, sub = FakeAdapter(), FakeAdapter()
    adapter.add_rule("", cell, regex=True)
    sub.add_rule("", "ans", regex=True)
    options = {"adapter": adapter, "subcall_adapter": sub, "log": tmp_path / "log.sqlite"}
    jobs = [Job("q", f"text {number}") for number in range(6)]
    budget = Budget(max_total_tokens=3_500)
    first = run_many(jobs, name="b", budget=budget, max_runs=1, **options)
    assert {"finished", "partial"} <= {row.status for row in first}
    assert {row.origin for row in first} <= {"new", "none"}
    again = run_many(jobs, name="b", budget=Budget(max_total_tokens=90_000), **options)
    assert {row.status for row in again} == {"finished"}
    assert "log" in {row.origin for row in again}
