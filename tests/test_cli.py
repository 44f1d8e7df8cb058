"""The command line's runs as people and programs meet them: streams, exit codes, messages."""

import io
import json
import signal
import sys
from pathlib import Path

import pytest
from cli_driving import (
    ANSWER,
    CODE,
    LOOK,
    ask,
    make_folder,
    recorded,
    recorded_run,
    scripted,
    set_up,
    start,
    type_in,
    wait_until,
)
from loopback import Respond

from effects.cli import main
from rlm_fsm import runs
from rlm_fsm.event import Cancelled, RunFinished


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise, with a key, as a user would have them."""
    return set_up(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


# Answers


def test_the_answer_alone_goes_to_stdout_and_progress_to_stderr(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([LOOK, ANSWER]) as server:
        assert ask(server, "What?", str(folder)) == 0
    out, err = capsys.readouterr()
    assert out == "forty-two\n"
    run_id = runs(log)[0].run_id
    assert err.splitlines()[0].endswith(
        "picture.bin: passed over, a binary file (it has NUL bytes)"
    )
    assert f"run {run_id}: 16 characters in 2 documents" in err
    assert "turn 1: 18 tokens" in err
    assert "cell 1: 1 line of code" in err
    assert "printed 17 characters" in err
    assert "finished: 2 turns, 36 tokens" in err
    assert err.endswith(f"see its steps with: rlm-fsm show {run_id}\n")


def test_quiet_leaves_stderr_empty(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--quiet") == 0
    assert capsys.readouterr() == ("forty-two\n", "")


def test_json_tells_the_whole_result(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    usage = found.pop("usage")
    assert found == {
        "run_id": runs(log)[0].run_id,
        "status": "finished",
        "output": "forty-two",
        "limit": None,
        "error": None,
        "cost_usd": None,
        "approvals": [],
        "log": str(log),
    }
    assert (usage["steps"], usage["model_calls"], usage["total_tokens"]) == (1, 1, 18)


def test_options_may_stand_among_the_paths(log: Path, folder: Path) -> None:
    with scripted([ANSWER]) as server:
        first, second = str(folder / "b.txt"), str(folder / "a.txt")
        arguments = ["run", "What?", "--model", "m", first, "--quiet", second]
        assert main([*arguments, "--base-url", server.base_url]) == 0
        assert "9 characters" not in server.conversations[0][1]["content"]
        assert "16 characters in 2 documents" in server.conversations[0][1]["content"]


def test_standard_input_is_the_context_when_no_path_is_given(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "déjà vu".encode())
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", "--quiet") == 0
        assert "P holds 7 characters" in server.conversations[0][1]["content"]


def test_a_dash_puts_standard_input_before_the_files(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, b"typed")
    code = "```python\nprint(ctx.metadata()['document_names'])\nanswer = P\n```"
    with scripted([code, "FINAL_VAR: answer"]) as server:
        assert ask(server, "What?", str(folder / "a.txt"), "-", "--quiet") == 0
    assert capsys.readouterr().out == "typed\n\n---\n\nalpha\n"


def test_an_answer_that_the_locale_cannot_print_is_escaped(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    with scripted(["FINAL: café ☕"]) as server:
        assert ask(server, "What?", str(folder), "--quiet") == 0
    ascii_only.seek(0)
    assert ascii_only.read() == "caf\\xe9 \\u2615\n"


def test_a_limit_gives_the_best_answer_and_exit_code_3(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([CODE, "FINAL: so far"]) as server:
        assert ask(server, "What?", str(folder), "--max-steps", "1") == 3
    out, err = capsys.readouterr()
    assert out == "so far\n"
    assert "rlm-fsm: partial: the limit max_steps is reached; the best answer so far.\n" in err


def test_json_of_a_partial_run_names_the_limit(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([CODE]) as server:
        assert ask(server, "What?", str(folder), "--json", "--max-total-tokens", "3") == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["limit"]) == ("partial", "max_total_tokens")


# Failures


def test_a_wrong_key_shows_the_providers_words_and_the_run_but_no_key(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_API_KEY", "sk-wrong-0987654321")
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", str(folder)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Incorrect API key provided." in err
    run_id = runs(log)[0].run_id
    assert f"The run {run_id} is in the log {log}; it can be resumed.\nSteps: rlm-fsm sh" in err
    assert err.endswith(f"\nGo on: rlm-fsm resume {run_id}\n")
    assert ".." not in err
    assert "sk-wrong" not in err
    assert "Traceback" not in err


def test_json_of_a_failed_run_has_the_error(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([Respond(status=400, body={"error": {"message": "no such model"}})]) as server:
        assert ask(server, "What?", str(folder), "--json", "--quiet") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["status"], found["run_id"]) == ("failed", runs(log)[0].run_id)
    assert "no such model" in found["error"]
    assert "no such model" in err


def test_an_endpoint_that_is_not_there_fails_with_the_address(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([ANSWER]) as server:
        address = server.base_url
    code = main(["run", "What?", str(folder), "--model", "m", "--base-url", address])
    assert code == 1
    err = capsys.readouterr().err
    assert address in err
    assert "Check base_url and the network." in err


def test_a_model_that_gives_no_code_and_no_answer_ends_as_partial(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(["I am not sure what to do."]) as server:
        assert ask(server, "What?", str(folder), "--max-steps", "2") == 3
    assert "refused: " in capsys.readouterr().err


# Real processes


@pytest.mark.parametrize(
    ("at", "sent"),
    [
        ("a turn", signal.SIGINT),
        ("a subcall", signal.SIGINT),
        ("a cell", signal.SIGINT),
        ("a subcall", signal.SIGTERM),
    ],
)
def test_a_signal_leaves_a_whole_log_and_names_the_run(
    at: str, sent: signal.Signals, log: Path, folder: Path
) -> None:
    slow = Respond(body="", delay_s=60)
    code = {
        "a turn": "",
        "a subcall": "llm_batch([P, P + '!'])",
        "a cell": "import time\nprint('going on')\ntime.sleep(60)",
    }[at]
    first = f"```python\n{code}\n```" if code else slow
    asked, in_flight = {"a turn": (1, [0]), "a subcall": (3, [1, 2]), "a cell": (1, [])}[at]
    begun = {"a turn": "run ", "a subcall": "llm_batch: 2", "a cell": "cell 1"}[at]
    with scripted([first, ANSWER], sub=slow) as server:
        arguments = ("run", "What?", str(folder), "--model", "m", "--base-url", server.base_url)
        with start(*arguments, log=log) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(begun):
                    break
            wait_until(lambda: len(server.requests) == asked)
            process.send_signal(sent)
            out, err = process.communicate(timeout=30)
        wait_until(lambda: all(server.requests[number].hung_up for number in in_flight))
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    run_id = runs(log)[0].run_id
    assert f"cancelled. The run {run_id} is in the log {log}.\nSteps: rlm-fsm show {run_id}" in err
    assert err.endswith(f"\nGo on: rlm-fsm resume {run_id}\n")
    events = recorded(log, run_id)
    assert isinstance(events[-2], Cancelled)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].status == "cancelled"


def test_ctrl_c_before_a_run_says_that_nothing_was_started(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted()))
    assert main(["run", "What?", "--model", "ollama:m"]) == 130
    assert capsys.readouterr().err == "rlm-fsm: cancelled; nothing was started\n"
    assert not log.exists()


def test_a_reader_that_goes_away_is_no_error(log: Path) -> None:
    for _ in range(3):
        recorded_run(log)
    for arguments in (("show", "last", "--full"), ("runs",), ("runs", "--json"), ("--help",)):
        with start(*arguments, log=log) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == ""
        assert process.returncode == 0, arguments
