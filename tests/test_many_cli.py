"""`rlm-fsm many`: streams, exit codes, files; a batch that is killed; the progress bar."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_driving import KEY, on_terminal, set_up, start
from loopback import ChatServer
from rich.console import Console

from effects.cli import main
from effects.listeners import Appended
from effects.many.rows import JobResult
from effects.result import RunUsage
from effects.view.many import ManyBar
from rlm_fsm import SqliteLog, fold, runs
from rlm_fsm.event import CodeExecuted, EffectStarted, ModelReplied
from rlm_fsm.ids import ROOT, CallId, RunId
from rlm_fsm.values import Usage

ASK = "```python\nnotes = llm_batch([f'{n} of {P}' for n in range(4)])\n```"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise, with a key, as a user would have them."""
    return set_up(tmp_path, monkeypatch)


def reply(messages: list[dict[str, str]]) -> str:
    """A batch of subcalls in the first turn, an answer in the second."""
    if messages[0]["content"].startswith("You are a sub-LLM"):
        return "noted"
    turn = sum(message["role"] == "assistant" for message in messages)
    return "FINAL_VAR: notes" if turn else ASK


def jobs_file(folder: Path, count: int, **more: Any) -> Path:
    path = folder / "jobs.jsonl"
    lines = [
        {"query": f"Q{n}?", "id": f"j{n}", "context": f"text {n}", **more} for n in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def many(server: ChatServer, *arguments: str) -> int:
    return main(["many", *arguments, "--model", "m", "--base-url", server.base_url])


def test_rows_go_to_stdout_and_progress_to_stderr(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server:
        assert many(server, str(jobs_file(tmp_path, 3)), "--batch", "b") == 0
        out, err = capsys.readouterr()
        rows = [json.loads(line) for line in out.splitlines()]
        assert sorted(row["id"] for row in rows) == ["j0", "j1", "j2"]
        assert {(row["status"], row["output"], row["total_tokens"]) for row in rows} == {
            ("finished", "yes", 18)
        }
        assert err.startswith("batch b: 3 jobs\n")
        assert "3/3 j" in err
        assert "rlm-fsm: batch b: 3 finished, 54 tokens, " in err
        assert many(server, str(jobs_file(tmp_path, 3)), "--batch", "b", "--quiet") == 0
        again, err = capsys.readouterr()
        assert err == ""
        assert [json.loads(line)["origin"] for line in again.splitlines()] == ["log"] * 3
        assert len(server.requests) == 3


def test_options_of_the_work_reach_the_runs_of_a_batch(log: Path, tmp_path: Path) -> None:
    """What a sandbox must have, above all."""
    slow = "```python\nwhile True: pass\n```"
    given = [
        "--isolation",
        "strict",
        "--cell-timeout",
        "0.2",
        "--repl-error-limit",
        "1",
        "--loop-limit",
        "none",
    ]
    with ChatServer(lambda _: slow, key=KEY) as server:
        assert many(server, str(jobs_file(tmp_path, 1)), "--quiet", *given) == 1
    with SqliteLog(log) as opened:
        events = [item.event for item in opened.load(runs(log)[0].run_id)]
    executed = next(event for event in events if isinstance(event, CodeExecuted))
    assert executed.error is not None
    assert executed.error.kind == "CellTimeout"
    assert "0.2 s" in executed.error.message


def test_files_of_results_have_the_order_of_the_jobs(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, table = tmp_path / "out.jsonl", tmp_path / "out.db"
    files = ("--output", str(output), "--sqlite", str(table))
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server:
        assert many(server, str(jobs_file(tmp_path, 5)), *files, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"j{n}" for n in range(5)]
    assert found["rows"] == rows
    assert found["counts"]["finished"] == 5
    connection = sqlite3.connect(table)
    assert connection.execute("SELECT count(*) FROM results").fetchone() == (5,)
    connection.close()


def test_paths_are_the_context_of_jobs_without_one(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"query": "What?"}\n')
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server:
        assert many(server, str(jobs)) == 2
        assert "it has no context, and the batch has none for all" in capsys.readouterr().err
        assert many(server, str(jobs), str(tmp_path / "a.txt")) == 0
        assert "P holds 5 characters" in server.requests[0].json["messages"][1]["content"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there are no jobs: rlm-fsm many JOBS.jsonl"),
        (["missing.jsonl"], "the jobs can't be read: missing.jsonl"),
        (["jobs.jsonl", "--batch", "a b"], "--batch 'a b'"),
        (["jobs.jsonl", "--runs-at-once", "0"], "give a whole number, 1 or more"),
        (["jobs.jsonl", "--budget-cost", "-1"], "give a number, 0 or more"),
        (["jobs.jsonl", "--output", "none/out.jsonl"], "no file can be written there"),
        (["jobs.jsonl", "none.txt"], "none.txt: not found"),
    ],
)
def test_misuse_is_one_message_and_nothing_is_started(
    arguments: list[str],
    message: str,
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs_file(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    assert main(["many", *arguments, "--model", "ollama:m"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not log.exists()


def test_exit_codes_tell_of_failures_and_of_what_is_missing(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = str(jobs_file(tmp_path, 3))
    with ChatServer(lambda _: "FINAL: yes", key="another") as server:
        assert many(server, jobs, "--runs-at-once", "1") == 1
        out, err = capsys.readouterr()
        assert [json.loads(line)["status"] for line in out.splitlines()] == [
            "failed",
            "not_started",
            "not_started",
        ]
        assert "stopped: the model service refused the key" in err
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server:
        assert many(server, jobs, "--budget-tokens", "900", "--runs-at-once", "1") == 3
        assert "stopped: the budget is used up" in capsys.readouterr().err


def test_ctrl_c_cancels_cleanly_and_the_same_command_goes_on(log: Path, tmp_path: Path) -> None:
    reached = threading.Event()

    def answer(messages: list[dict[str, str]]) -> Any:
        from loopback import Respond

        if len(server.requests) > 4:
            reached.set()
            return Respond(delay_s=60)
        return reply(messages)

    jobs = str(jobs_file(tmp_path, 3))
    with ChatServer(answer, key=KEY) as server:
        arguments = ("many", jobs, "--model", "m", "--base-url", server.base_url)
        with start(*arguments, "--runs-at-once", "1", log=log) as process:
            assert reached.wait(30)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "cancelled: 0 of 3 jobs of batch many-" in err
        assert "Traceback" not in err
        assert out == ""
    assert [info.status for info in runs(log)] == ["cancelled"]
    with ChatServer(reply, key=KEY) as server:
        assert many(server, jobs, "--quiet") == 0
    assert [info.status for info in runs(log)] == ["finished"] * 3


# Killed


@pytest.mark.parametrize("at", [3, 9, 20])
def test_a_killed_batch_pays_for_nothing_twice(log: Path, tmp_path: Path, at: int) -> None:
    """Killed at its N-th request, in the middle of several runs, and started again."""
    killed = threading.Event()
    asked: list[str] = []
    processes: list[subprocess.Popen[str]] = []

    def answer(messages: list[dict[str, str]]) -> str:
        asked.append(json.dumps(messages))
        if len(asked) == at and not killed.is_set():
            killed.set()
            os.killpg(processes[0].pid, signal.SIGKILL)
        return reply(messages)

    jobs = str(jobs_file(tmp_path, 6))
    with ChatServer(answer, key=KEY) as server:
        command = [sys.executable, "-m", "rlm_fsm", "many", jobs, "--model", "m", "--batch", "b"]
        processes.append(
            subprocess.Popen(
                [*command, "--base-url", server.base_url, "--runs-at-once", "3"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ},
                start_new_session=True,
            )
        )
        processes[0].communicate(timeout=60)
        assert processes[0].returncode == -signal.SIGKILL
        before = {info.run_id: events(log, info.run_id) for info in runs(log)}
        first, asked[:] = list(asked), []
        assert many(server, jobs, "--batch", "b", "--quiet") == 0

    after = {info.run_id: events(log, info.run_id) for info in runs(log)}
    assert len(after) == 6
    assert [info.status for info in runs(log)] == ["finished"] * 6
    for run_id, then in before.items():
        assert after[run_id][: len(then)] == then
    answered = sum(isinstance(e, ModelReplied) for then in before.values() for e in then)
    begun = sum(isinstance(e, EffectStarted) for then in before.values() for e in then)
    uncertain = sum(fold(now).uncertain for now in after.values())
    assert uncertain == begun - answered
    # Each job takes two turns and four subcalls. What was answered is not asked again: only what
    # was in flight is.
    assert len(asked) == 6 * 6 - answered
    repeated = Counter(first) & Counter(asked)
    assert repeated.total() <= uncertain


def events(log: Path, run_id: str) -> list[Any]:
    with SqliteLog(log) as opened:
        return [logged.event for logged in opened.load(RunId(run_id))]


# The bar


def test_a_terminal_shows_a_bar_with_tokens_and_time_left(log: Path, tmp_path: Path) -> None:
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server:
        arguments = ("many", str(jobs_file(tmp_path, 4)), "--model", "m", "--batch", "b")
        wide = {"COLUMNS": "120", "LINES": "24"}
        shown = on_terminal(*arguments, "--base-url", server.base_url, log=log, extra=wide)
    assert "4/4" in shown
    assert "72 tokens" in shown
    assert "left" in shown
    assert "batch b: 4 finished" in shown


def test_the_bar_counts_runs_that_go_on_and_failures(tmp_path: Path) -> None:
    with (tmp_path / "screen").open("w+", encoding="utf-8") as screen:
        console = Console(file=screen, force_terminal=True, width=120, color_system=None)
        bar = ManyBar(console, auto_refresh=False)
        bar.begin("b", 3)
        replied = ModelReplied(
            frame=ROOT, call_id=CallId("0.m1"), text="x", usage=Usage(5, 5, 10), cost_usd=0.5
        )
        bar.handle(Appended(RunId("r1"), 2, replied))
        assert (bar.totals.tokens, bar.totals.cost_usd) == (10, 0.5)
        bar.ended(row("j1", "r1", tokens=10, cost=0.5))
        bar.ended(row("j2", "r2", tokens=7, error="it \x1b[2J broke"))
        assert (bar.totals.tokens, bar.totals.cost_usd, bar.totals.failed) == (17, 0.5, 1)
        bar.close()
        screen.seek(0)
        shown = screen.read()
    assert "2/3 j2: failed, 7 tokens, 1.0 s: it ␛[2J broke" in shown


def row(
    job: str, run: str, *, tokens: int, cost: float | None = None, error: str = ""
) -> JobResult:
    usage = RunUsage(
        steps=1,
        subcalls=0,
        model_calls=1,
        cache_hits=0,
        prompt_tokens=tokens,
        completion_tokens=0,
        total_tokens=tokens,
        cached_tokens=0,
        reasoning_tokens=0,
        estimated=False,
        seconds=1.0,
        uncertain_calls=0,
        unpriced_calls=0,
    )
    return JobResult(
        id=job,
        query="q",
        status="failed" if error else "finished",
        origin="new",
        run_id=RunId(run),
        error=error or None,
        usage=usage,
        cost_usd=cost,
    )
