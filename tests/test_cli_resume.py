"""`rlm-fsm resume` and `rlm-fsm fork`: real runs, killed, stopped and refused, go on."""

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from cli_driving import (
    ANSWER,
    CODE,
    KEY,
    ask,
    make_folder,
    on_terminal,
    recorded,
    recorded_run,
    scripted,
    set_up,
    start,
    type_in,
    wait_until,
)
from loopback import ChatServer, Respond, chat

from effects.cli import main
from rlm_fsm import SqliteLog, runs
from rlm_fsm.event import CodeExecuted, Event, ModelReplied, RunResumed

WORDS = "one three four five sixth seventh"
BATCH = (
    "```python\nfound = llm_batch([f'size of {word}' for word in P.split()])\nprint(found)\n```",
    "```python\ntotal = sum(map(int, found))\n```",
    "FINAL_VAR: total",
)
TOTAL = "28"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise, with a key, as a user would have them."""
    return set_up(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(WORDS)
    return path


class Ruler:
    """A model that measures words; it never answers some, until it is `healed`."""

    def __init__(self, *stuck: str) -> None:
        self.stuck = set(stuck)
        self.server = ChatServer(self._reply, key=KEY)

    def heal(self) -> None:
        self.stuck.clear()

    @property
    def asked(self) -> Counter[str]:
        """How often each word was asked about, and each turn."""
        return Counter(map(_what, self.server.conversations))

    def _reply(self, messages: list[dict[str, str]]) -> str | Respond:
        what = _what(messages)
        if what in self.stuck:
            return chat("", delay_s=60)
        if what.startswith("turn "):
            return BATCH[min(int(what[5:]), len(BATCH) - 1)]
        return str(len(what))


def _what(messages: list[dict[str, str]]) -> str:
    if messages[0]["content"].startswith("You are a sub-LLM"):
        return messages[-1]["content"].split()[-1]
    return f"turn {sum(message['role'] == 'assistant' for message in messages)}"


def begin(model: Ruler, words: Path, log: Path, *more: str) -> "subprocess.Popen[str]":
    """``rlm-fsm run`` in a process, two subcalls at a time."""
    url = model.server.base_url
    arguments = ("What?", str(words), "--model", "m", "--base-url", url, "--concurrency", "2")
    return start("run", *arguments, *more, log=log)


def killed_in_a_batch(model: Ruler, words: Path, log: Path) -> str:
    """A run killed by force while two of its six subcalls are in flight; its id."""
    with begin(model, words, log) as process:
        wait_until(lambda: model.stuck <= set(model.asked))
        process.kill()
        process.communicate()
    return runs(log)[0].run_id


def place_of(log: Path, run_id: str, kind: type[Event]) -> int:
    """The number of the first event of a kind."""
    return next(n for n, event in enumerate(recorded(log, run_id), 1) if isinstance(event, kind))


# Resume


def test_a_killed_run_asks_only_what_is_missing_and_what_was_in_flight(
    log: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Ruler("four", "five")
    with model.server:
        run_id = killed_in_a_batch(model, words, log)
        before = model.asked
        assert before == Counter(["turn 0", "one", "three", "four", "five"])
        assert main(["show", "last"]) == 0
        shown = capsys.readouterr().out
        assert "2 calls in flight (0.3, 0.4) without an outcome: uncertain" in shown
        assert shown.rstrip().endswith(f"it goes on with: rlm-fsm resume {run_id}")
        model.heal()
        assert main(["resume", "last", "--base-url", model.server.base_url]) == 0
        again = model.asked - before
    assert again == Counter(["four", "five", "sixth", "seventh", "turn 1", "turn 2"])
    out, err = capsys.readouterr()
    assert out == f"{TOTAL}\n"
    announced, *lines = err.splitlines()
    assert f"run {run_id} stopped after event 10: 1 turn, 6 subcalls" in announced
    assert announced.endswith(
        "2 calls in flight (0.3, 0.4) uncertain: made again, and perhaps paid twice"
    )
    assert lines[0] == f"run {run_id} goes on after event 10"
    assert any(line.startswith("6 subcalls answered") for line in lines)
    assert "rlm-fsm: 2 calls in flight when the run stopped" in err
    assert main(["show", "last"]) == 0
    shown = capsys.readouterr().out
    assert "resumed after event 10: 2 calls in flight (0.3, 0.4) uncertain, made again" in shown
    assert "rlm-fsm resume" not in shown


def test_uncertain_calls_can_be_refused(
    log: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Ruler("four", "five")
    with model.server:
        killed_in_a_batch(model, words, log)
        model.heal()
        arguments = ["resume", "last", "--base-url", model.server.base_url, "--json"]
        assert main([*arguments, "--on-uncertain", "fail", "--max-steps", "3"]) == 3
        assert model.asked["four"] == model.asked["five"] == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["usage"]["uncertain_calls"] == 2
    assert "uncertain: counted as failed; max_steps: 40 -> 3" in err
    resumed = recorded(log, runs(log)[0].run_id)[10]
    assert isinstance(resumed, RunResumed)
    assert resumed.on_uncertain == "fail"
    assert resumed.options is not None
    assert resumed.options.policy.max_steps == 3


def test_the_live_view_takes_up_a_run_in_the_middle(log: Path, words: Path) -> None:
    model = Ruler("four", "five")
    with model.server:
        killed_in_a_batch(model, words, log)
        model.heal()
        shown = on_terminal("resume", "last", "--base-url", model.server.base_url, log=log)
    assert "goes on after event 10" in shown
    assert "turn 2" in shown
    assert "turn 1" not in shown
    assert "Traceback" not in shown


def test_a_run_stopped_by_ctrl_c_goes_on(
    log: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Ruler("turn 1")
    with model.server:
        with begin(model, words, log) as process:
            wait_until(lambda: model.asked["turn 1"] == 1)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        assert process.returncode == 130
        command = told.splitlines()[-1].removeprefix("Go on: rlm-fsm ")
        model.heal()
        assert main([*command.split(), "--base-url", model.server.base_url]) == 0
        assert model.asked == Counter([*WORDS.split(), "turn 0", "turn 1", "turn 1", "turn 2"])
    out, err = capsys.readouterr()
    assert out == f"{TOTAL}\n"
    assert "ended (cancelled)" in err


def test_a_run_with_a_wrong_key_goes_on_with_the_right_one(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([CODE, ANSWER]) as server:
        monkeypatch.setenv("LLM_API_KEY", "sk-wrong-0987654321")
        assert ask(server, "What?", str(folder)) == 1
        assert main(["resume", "last", "--base-url", server.base_url]) == 1
        monkeypatch.setenv("LLM_API_KEY", KEY)
        assert main(["resume", "last", "--base-url", server.base_url]) == 0
        assert [request.json["model"] for request in server.requests] == ["m"] * 4
    out, err = capsys.readouterr()
    assert out == "forty-two\n"
    assert "sk-wrong" not in err


def test_a_run_at_its_limit_asks_for_a_larger_one(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([CODE, "FINAL: so far", ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--max-steps", "1") == 3
        again = ["resume", "last", "--base-url", server.base_url]
        assert main(again) == 2
        assert "max_steps=1: give a larger --max-steps to go on" in capsys.readouterr().err
        assert main([*again, "--max-steps", "3"]) == 0
    assert capsys.readouterr().out == "forty-two\n"


def test_a_finished_run_is_told_again_without_a_model(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = recorded_run(log)
    before = recorded(log, run_id)
    monkeypatch.delenv("LLM_API_KEY")
    assert main(["resume", "last"]) == 0
    out, err = capsys.readouterr()
    assert out == "done\n"
    assert "has finished: no call is made" in err
    assert recorded(log, run_id) == before


def test_a_run_that_somebody_works_on_is_left_alone(log: Path, words: Path) -> None:
    model = Ruler("four", "five")
    with model.server:
        killed_in_a_batch(model, words, log)
        with SqliteLog(log) as opened:
            run_id = opened.find(runs(log)[0].run_id)
            with opened.lead(run_id):
                before = model.asked
                url = model.server.base_url
                with start("resume", run_id, "--base-url", url, log=log) as process:
                    out, err = process.communicate(timeout=30)
        assert model.asked == before
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"rlm-fsm: {log}: run {run_id} is being worked on by")
    assert "Traceback" not in err


def test_files_that_changed_are_refused_until_the_right_ones_are_given(
    log: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Ruler("four", "five")
    with model.server:
        killed_in_a_batch(model, words, log)
        model.heal()
        again = ["resume", "last", "--quiet", "--base-url", model.server.base_url]
        words.write_text("changed")
        assert main(again) == 2
        err = capsys.readouterr().err
        assert "not the context that the run began with" in err
        assert "Give the same files with --context" in err
        moved = words.rename(words.with_name("moved.txt"))
        assert main(again) == 2
        assert "words.txt" in capsys.readouterr().err
        moved.rename(words).write_text(WORDS)
        assert main([*again, "--context", str(words)]) == 0
    assert capsys.readouterr().out == f"{TOTAL}\n"


def test_a_cell_that_prints_something_else_says_how_to_go_on(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ["```python\nimport os\nprint(os.getpid())\n```", CODE, ANSWER]
    with scripted([cells[0], Respond(status=400, body={"error": {"message": "no"}})]) as server:
        assert ask(server, "What?", str(folder)) == 1
    with scripted(cells) as server:
        capsys.readouterr()
        again = ["resume", "last", "--base-url", server.base_url]
        assert main(again) == 1
        err = capsys.readouterr().err
        assert "diverges at event 4:\n  expected: " in err
        assert "\n  found:    " in err
        assert "--accept-changed-output" in err
        assert main([*again, "--accept-changed-output"]) == 0
    assert capsys.readouterr().out == "forty-two\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume", "nope"], "holds no run 'nope'"),
        (["resume"], "the following arguments are required: RUN"),
        (["resume", "last", "--on-uncertain", "hope"], "choose retry or fail"),
        (["fork", "last"], "--at N is missing"),
        (["fork", "last", "--at", "99"], "--at 99: the run"),
        (["fork", "last", "--at", "2", "--edit", "x"], "EffectStarted, which has no text to edit"),
        (["fork", "last", "--at", "3", "--edit", "missing"], "--edit missing: No such file"),
        (["fork", "last", "--at", "3"], "no model is configured"),
    ],
)
def test_misuse_is_one_message(
    arguments: list[str], message: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = recorded_run(log)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rlm-fsm: ")
    assert message in err
    assert [info.run_id for info in runs(log)] == [run_id]


# Fork


def test_a_fork_with_another_reply_shares_what_was_before(
    log: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(["```python\nx = 1\n```", "FINAL_VAR: x"]) as server:
        assert ask(server, "What?", str(folder), "--quiet") == 0
        first = runs(log)[0].run_id
        edited = tmp_path / "reply.txt"
        edited.write_text("```python\nx = 99\n```\n")
        at = place_of(log, first, ModelReplied)
        arguments = ["fork", first, "--at", str(at), "--edit", str(edited)]
        capsys.readouterr()
        assert main([*arguments, "--base-url", server.base_url, "--max-tokens", "77"]) == 0
        assert len(server.requests) == 3
        assert server.requests[-1].json["max_tokens"] == 77
    forked = runs(log)[0]
    out, err = capsys.readouterr()
    assert out == "99\n"
    assert f"a fork of {first} begins with another text in event {at}" in err
    assert f"run {forked.run_id}, a fork, goes on after event {at - 1}" in err
    assert (forked.parent, forked.parent_seq) == (first, at - 1)
    assert main(["show", forked.run_id]) == 0
    shown = capsys.readouterr().out
    assert f"fork of {first}, which it shares up to event {at - 1}" in shown
    assert "the fork begins here" in shown
    assert main(["runs"]) == 0
    assert f"{first} at {at - 1}" in capsys.readouterr().out


def test_a_fork_may_ask_another_question_and_take_it_from_standard_input(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--quiet") == 0
        type_in(monkeypatch, b"Another question?\n")
        url = server.base_url
        assert main(["fork", "last", "--at", "1", "--edit", "-", "--base-url", url, "--json"]) == 0
        assert "Question: Another question?\n" in server.conversations[1][1]["content"]
    out, err = capsys.readouterr()
    found = json.loads(out[out.index("{") :])
    assert found["run_id"] == runs(log)[0].run_id
    assert f"run {found['run_id']}: 16 characters" in err


def test_a_fork_may_be_told_that_a_cell_printed_something_else(
    log: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([CODE, CODE, ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--quiet") == 0
        edited = tmp_path / "output.txt"
        edited.write_text("two\n")
        at = place_of(log, runs(log)[0].run_id, CodeExecuted)
        arguments = ["fork", "last", "--at", str(at), "--edit", str(edited), "--quiet"]
        capsys.readouterr()
        assert main([*arguments, "--base-url", server.base_url]) == 0
        assert "two" in server.conversations[3][-1]["content"]
    assert capsys.readouterr() == ("forty-two\n", "")


def test_a_fork_whose_edit_ends_it_needs_no_call(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([CODE, ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--quiet") == 0
        type_in(monkeypatch, b"FINAL: at once")
        at = place_of(log, runs(log)[0].run_id, ModelReplied)
        capsys.readouterr()
        arguments = ["fork", "last", "--at", str(at), "--edit", "-"]
        assert main([*arguments, "--base-url", server.base_url]) == 0
        assert len(server.requests) == 2
    assert capsys.readouterr().out == "at once\n"
