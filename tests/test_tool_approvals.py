"""Approvals from outside, and programs that die while a tool is called: real processes."""

import asyncio
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_driving import ROOT_DIR, recorded, scripted, set_up, start
from machine import code

from effects.cli import main
from rlm_fsm import (
    ApprovalRequest,
    FakeAdapter,
    RunBusy,
    SqliteLog,
    UsageError,
    approvals,
    approve,
    fork,
    replay,
    resume,
    run,
    runs,
    tool,
)
from rlm_fsm.event import ApprovalAsked, ApprovalGiven, RunFinished, ToolFailed
from rlm_fsm.ids import RunId

TWO = (
    "import asyncio\n"
    "async def one(to):\n"
    "    try:\n        return await send(to)\n"
    "    except ToolDenied as error:\n        return str(error)\n"
    "print(await asyncio.gather(one('Ann'), one('Bob')))"
)
ONE = "print(send('Ann'))"
Sent = list[str]


@pytest.fixture
def sent() -> Sent:
    return []


@pytest.fixture
def send(sent: Sent) -> Any:
    def send(to: str) -> str:
        """Send a message."""
        sent.append(to)
        return f"sent to {to}"

    return tool(send, needs_approval=True)


def model(cell: str = TWO) -> FakeAdapter:
    return FakeAdapter(script=[code(cell), "FINAL: done"])


def printed(result: Any) -> str:
    (step,) = (step for step in result.trace if step.kind == "repl_exec")
    return step.stdout or step.error or ""


# -- in one program -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (lambda request: request.arguments["to"] == "Ann", "a person refused this call"),
        (lambda request: request.arguments["to"] == "Ann" or "never Bob", "never Bob"),
    ],
)
def test_a_callback_answers_at_once(
    send: Any, sent: Sent, answer: Callable[[ApprovalRequest], Any], shown: str
):
    result = run("q", "text", adapter=model(), log=":memory:", tools=[send], on_approval=answer)
    assert (result.status, sent) == ("finished", ["Ann"])
    assert printed(result) == f"['sent to Ann', 'send was refused: {shown}']\n"
    assert result.approvals == ()


def test_an_async_callback_is_awaited_and_what_was_agreed_runs_meanwhile(send: Any, sent: Sent):
    async def answer(request: ApprovalRequest) -> bool:
        return request.tool == "send"

    result = run("q", "text", adapter=model(), log=":memory:", tools=[send], on_approval=answer)
    assert (result.status, sorted(sent)) == ("finished", ["Ann", "Bob"])


@pytest.mark.parametrize("bad", ["raises", "nonsense", "later"])
def test_a_callback_that_gives_no_answer_makes_the_run_wait(
    send: Any, sent: Sent, bad: str, caplog: pytest.LogCaptureFixture
):
    def answer(_: ApprovalRequest) -> Any:
        if bad == "raises":
            raise KeyError("oh")
        return None if bad == "later" else 17

    with caplog.at_level(logging.ERROR, "rlm_fsm"):
        result = run("q", "text", adapter=model(), log=":memory:", tools=[send], on_approval=answer)
    assert (result.status, sent) == ("waiting", [])
    assert [request.call_id for request in result.approvals] == ["0.1", "0.2"]
    assert ("on_approval" in caplog.text) == (bad != "later")


def test_without_a_callback_a_run_waits_and_says_for_what(send: Any, sent: Sent, tmp_path: Path):
    log = tmp_path / "log.db"
    result = run("q", "text", adapter=model(), log=log, tools=[send])
    assert (result.status, result.output, sent) == ("waiting", "", [])
    assert result.approvals == (
        ApprovalRequest(run_id=result.run_id, call_id="0.1", tool="send", arguments={"to": "Ann"}),
        ApprovalRequest(run_id=result.run_id, call_id="0.2", tool="send", arguments={"to": "Bob"}),
    )
    assert approvals(result.run_id, log=log) == result.approvals
    assert [info.status for info in runs(log)] == ["waiting"]
    assert replay(result.run_id, log=log).status == "waiting"


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_calls_are_answered_one_by_one_and_the_run_goes_on_as_far_as_it_can(
    send: Any, sent: Sent, tmp_path: Path, backend: str
):
    log = tmp_path / "log.db"
    adapter = model()
    first = run("q", "text", adapter=adapter, log=log, tools=[send], repl_backend=backend)
    found = approve(first.run_id, ["0.2"], deny=True, reason="never Bob", by="ann", log=log)
    assert [request.is_approved for request in found] == [None, False]
    assert sent == []
    assert [info.status for info in runs(log)] == ["waiting"]

    still = resume(first.run_id, adapter=adapter, log=log, tools=[send])
    assert (still.status, sent) == ("waiting", [])
    approve(first.run_id, log=log)
    last = resume(first.run_id, adapter=adapter, log=log, tools=[send])
    assert (last.status, sent) == ("finished", ["Ann"])
    assert printed(last) == "['sent to Ann', 'send was refused: never Bob']\n"
    assert replay(first.run_id, log=log, run_code=True).status == "finished"

    found = recorded(log, first.run_id)
    given = [event for event in found if isinstance(event, ApprovalGiven)]
    assert [(e.call_id, e.is_approved, e.reason) for e in given] == [
        ("0.2", False, "never Bob"),
        ("0.1", True, ""),
    ]
    assert given[0].by == "ann"
    assert given[1].by
    assert sum(isinstance(event, ApprovalAsked) for event in found) == 2
    steps = [step.output for step in last.trace if step.kind == "approval"]
    assert steps[0] == "denied by ann: never Bob"


def test_what_cannot_be_approved_is_refused_with_what_can(send: Any, tmp_path: Path):
    log = tmp_path / "log.db"
    run_id = run("q", "text", adapter=model(), log=log, tools=[send]).run_id
    with pytest.raises(UsageError, match=r"call 0\.9 isn't waiting; waiting: 0\.1 \(send\), 0\.2"):
        approve(run_id, ["0.9"], log=log)
    approve(run_id, ["0.1"], log=log)
    with pytest.raises(UsageError, match=r"0\.1 was answered already; waiting: 0\.2 \(send\)"):
        approve(run_id, ["0.1"], log=log)
    approve(run_id, log=log)
    with pytest.raises(UsageError, match="answered already; waiting: none"):
        approve(run_id, log=log)
    other = run("q", "text", adapter=FakeAdapter(script=["FINAL: 1"]), log=log).run_id
    with pytest.raises(UsageError, match=r"\(finished\) waits for no approval"):
        approve(other, log=log)


@pytest.mark.parametrize("at", [ApprovalGiven, RunFinished])
def test_a_fork_of_a_run_with_an_answer_asks_again(send: Any, sent: Sent, at: type, tmp_path: Path):
    log = tmp_path / "log.db"
    run_id = run("q", "text", adapter=model(ONE), log=log, tools=[send]).run_id
    approve(run_id, log=log)
    number = max(n for n, event in enumerate(recorded(log, run_id), 1) if isinstance(event, at))
    branch = fork(run_id, at=number, log=log, adapter=model(ONE), tools=[send])
    assert (branch.status, sent) == ("waiting", [])
    asked: list[str] = []

    def agree(request: ApprovalRequest) -> bool:
        asked.append(request.call_id)
        return True

    last = FakeAdapter(["FINAL: done"])
    again = fork(run_id, at=number, log=log, adapter=last, tools=[send], on_approval=agree)
    assert (again.status, asked, sent) == ("finished", ["0.1"], ["Ann"])
    last = FakeAdapter(["FINAL: done"])
    assert resume(run_id, log=log, adapter=last, tools=[send]).status == "finished"
    assert sent == ["Ann", "Ann"]


def test_what_a_tool_needs_now_holds_for_calls_that_wait(send: Any, sent: Sent, tmp_path: Path):
    log = tmp_path / "log.db"
    run_id = run("q", "text", adapter=model(ONE), log=log, tools=[send]).run_id
    free = tool(send.fn, needs_approval=False)
    last = FakeAdapter(["FINAL: done"])
    assert resume(run_id, log=log, adapter=last, tools=[free]).status == "finished"
    assert sent == ["Ann"]


def test_nobody_approves_while_somebody_works_on_the_run(send: Any, tmp_path: Path):
    log = tmp_path / "log.db"
    run_id = run("q", "text", adapter=model(), log=log, tools=[send]).run_id
    with SqliteLog(str(log)) as opened, opened.lead(RunId(run_id)), pytest.raises(RunBusy):
        approve(run_id, log=log)


def test_a_cancelled_run_takes_an_answer_and_goes_on(send: Any, sent: Sent, tmp_path: Path):
    log = tmp_path / "log.db"

    async def answer(_: ApprovalRequest) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)

    adapter = model(ONE)
    with pytest.raises(KeyboardInterrupt):
        run("q", "text", adapter=adapter, log=log, tools=[send], on_approval=answer)
    (info,) = runs(log)
    assert info.status == "cancelled"
    approve(info.run_id, log=log)
    assert [one.status for one in runs(log)] == ["cancelled"]
    last = resume(info.run_id, adapter=adapter, log=log, tools=[send])
    assert (last.status, sent) == ("finished", ["Ann"])


# -- other processes ------------------------------------------------------------------------------


def go(log: Path, *arguments: str, notes: Path) -> tuple[int, str, str]:
    """A command in a process of its own: its exit code, and what it wrote."""
    paths = {"PYTHONPATH": str(ROOT_DIR / "tests"), "TOOL_NOTES": str(notes)}
    process = start(*arguments, log=log, extra=paths)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_one_process_asks_another_approves_and_a_third_goes_on(tmp_path: Path):
    log, notes = tmp_path / "log.db", tmp_path / "notes"
    text = tmp_path / "a.txt"
    text.write_text("alpha")
    with scripted([code(TWO), "FINAL: done"]) as server:
        model = ("--model", "m", "--base-url", server.base_url)
        tools = ("--tools", "tool_examples:TOOLS")
        done, _, err = go(log, "run", "q", str(text), *model, *tools, notes=notes)
        assert done == 4, err
        (info,) = runs(log)
        assert f"rlm-fsm approve {info.run_id}" in err
        assert '0.1  waits  send({"to": "Ann"})' in err

        done, out, _ = go(log, "resume", "last", *model, *tools, "--json", notes=notes)
        assert (done, json.loads(out)["status"]) == (4, "waiting")
        assert [each["tool"] for each in json.loads(out)["approvals"]] == ["send", "send"]

        _, _, err = go(log, "runs", notes=notes)
        assert f'{info.run_id} 0.2  waits  send({{"to": "Bob"}})' in err

        done, _, err = go(log, "approve", "last", notes=notes)
        assert done == 2
        assert "2 calls: name one or more, or give --all" in err
        done, _, err = go(log, "approve", "last", "0.1", "--by", "ann", notes=notes)
        assert (done, notes.exists()) == (0, False)
        assert '0.1  approved  send({"to": "Ann"})' in err
        assert f"Go on: rlm-fsm resume {info.run_id}" in err
        denial = ("--deny", "--reason", "not Bob", "--json")
        done, out, _ = go(log, "approve", "last", *denial, notes=notes)
        assert [each["is_approved"] for each in json.loads(out)["approvals"]] == [True, False]

        done, _, err = go(log, "resume", "last", *model, notes=notes)
        assert done == 2
        assert "--tools MODULE:NAME" in err
        done, out, err = go(log, "show", "last", "--json", notes=notes)
        shown = json.loads(out)
        assert (done, shown["status"]) == (0, "waiting")
        assert [each["call_id"] for each in shown["approvals"]] == ["0.1", "0.2"]
        done, out, err = go(log, "show", "last", notes=notes)
        assert "approval · send" in out
        assert "then it goes on with: rlm-fsm resume" in out
        done, out, err = go(log, "resume", "last", *model, *tools, notes=notes)
        assert (done, out) == (0, "done\n"), err
    assert notes.read_text() == "sent to Ann\n"
    cell = next(e.stdout for e in recorded(log, info.run_id) if hasattr(e, "stdout"))
    assert cell == "['sent to Ann', 'send was refused: not Bob']\n"


@pytest.mark.parametrize(
    ("cell", "how", "called", "error"),
    [
        ("print(look('rome'), dies('a'))", "retry", ["look rome", "a", "a"], None),
        ("print(look('rome'), dies('a'))", "fail", ["look rome", "a"], "dies failed"),
        ("print(look('rome'), once())", "retry", ["look rome", "once"], "once failed"),
    ],
)
def test_a_call_that_a_kill_left_uncertain_is_made_again_only_where_it_may(
    tmp_path: Path, cell: str, how: str, called: list[str], error: str | None
):
    log, notes = tmp_path / "log.db", tmp_path / "notes"
    text = tmp_path / "a.txt"
    text.write_text("alpha")
    with scripted([code(cell), "FINAL: done"]) as server:
        model = ("--model", "m", "--base-url", server.base_url)
        tools = ("--tools", "tool_examples:TOOLS")
        killed, _, _ = go(log, "run", "q", str(text), *model, *tools, notes=notes)
        assert killed == -signal.SIGKILL
        (info,) = runs(log)
        assert info.status == "running"
        with pytest.raises(UsageError, match="waits for no approval"):
            approve(info.run_id, log=log)
        again = ("--on-uncertain", how)
        done, _, err = go(log, "resume", "last", *model, *tools, *again, notes=notes)
        assert done == 0, err
        assert "1 call in flight" in err
    assert notes.read_text().split("\n")[:-1] == called
    found = recorded(log, info.run_id)
    failures = [event for event in found if isinstance(event, ToolFailed)]
    assert [event.error for event in failures] == (["uncertain"] if error else [])
    (end,) = (event for event in found if hasattr(event, "stdout"))
    assert end.stdout == ("" if error else "ROME a\n")
    assert (error or "") in str(end.error or "")
    assert isinstance(found[-1], RunFinished)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("tool_examples", "give MODULE:NAME"),
        ("no_such_module:x", "the module can't be imported: ModuleNotFoundError"),
        ("tool_examples:nothing", "tool_examples has no nothing"),
    ],
)
def test_tools_that_cannot_be_found_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str,
    why: str,
):
    set_up(tmp_path, monkeypatch)
    (tmp_path / "a.txt").write_text("alpha")
    assert main(["run", "q", str(tmp_path / "a.txt"), "--model", "m", "--tools", given]) == 2
    assert why in capsys.readouterr().err
