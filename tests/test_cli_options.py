"""Misuse of the command line, and its options: on the line, in the environment, in the help."""

import re
from pathlib import Path

import pytest
from cli_driving import ANSWER, CODE, ask, make_folder, recorded, scripted, set_up, type_in

from effects.cli import COMMANDS, main
from rlm_fsm import runs
from rlm_fsm.event import RunStarted


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise, with a key, as a user would have them."""
    return set_up(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


# Misuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no question"),
        (["  ", "notes"], "there is no question"),
        (["What?", "missing.txt", "--model", "ollama:m"], "missing.txt: not found"),
        (["What?", "notes/*.md", "--model", "ollama:m"], "no file matches this pattern"),
        (["What?", "notes/picture.bin", "--model", "ollama:m"], "binary file"),
        (["What?", "notes"], "no model is configured"),
        (["What?", "notes", "--model", "x:m", "--base-url", "ftp://h"], "http:// or https://"),
        (["What?", "notes", "--model", "anthropic:m"], "no adapter for anthropic"),
        (["What?", "notes", "--model", "ollama:m", "--log", "notes/a.txt"], "not a log of rlm-fsm"),
        (["What?", "notes", "--max-steps", "many"], "give a whole number, 0 or more, not 'many'"),
        (["What?", "notes", "--max-total-tokens", "-1"], "none is no limit"),
        (["What?", "notes", "--max-cost", "nan"], "give a number, 0 or more"),
        (["What?", "notes", "--price", "m=1"], "give MODEL=IN,OUT"),
        (["What?", "notes", "--price", "m=1,x"], "give MODEL=IN,OUT"),
        (["What?", "notes", "--compaction", "2"], "give a share from 0 to 1, such as 0.8"),
        (
            ["What?", "notes", "--model", "x:m", "--base-url", "http://h", "--compaction", "0.8"],
            "nobody knows this model's window",
        ),
        (["What?", "notes", "--repl", "bash"], "choose python or monty, not 'bash'"),
        (["What?", "notes", "--nonsense"], "unrecognized arguments: --nonsense"),
        (
            ["What?", "notes", "--model", "ollama:m", "--system-prompt", "missing"],
            "--system-prompt missing: No such file",
        ),
    ],
)
def test_misuse_is_one_message_and_nothing_is_started(
    arguments: list[str],
    message: str,
    log: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder.parent)
    assert main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rlm-fsm: ")
    assert message in err
    assert not log.exists()


def test_a_model_without_a_key_says_which_to_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LLM_API_KEY", raising=False)
    assert main(["run", "What?", str(folder), "--model", "gpt-5"]) == 2
    assert "Set LLM_API_KEY or OPENAI_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "message"),
    [(b" \n", "standard input is empty"), (b"\xff\xfe", "standard input is not UTF-8 (byte 0")],
)
def test_unusable_standard_input_is_misuse(
    typed: bytes,
    message: str,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    type_in(monkeypatch, typed)
    assert main(["run", "What?", "--model", "ollama:m"]) == 2
    assert message in capsys.readouterr().err


def test_no_command_and_an_unknown_one_are_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: rlm-fsm" in err
    assert main(["rum"]) == 2
    assert "invalid choice: 'rum'" in capsys.readouterr().err


# Options


def test_help_names_every_option_and_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name, command in COMMANDS.items():
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        for option in command.options:
            assert f"--{option.name}" in text
            assert f"[{option.variable}]" in text
        assert max(map(len, text.splitlines())) <= 80
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in COMMANDS)
    assert max(map(len, text.splitlines())) <= 80
    assert main(["--version"]) == 0
    assert re.fullmatch(r"rlm-fsm \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_the_environment_stands_in_for_options_and_the_command_line_wins(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted([CODE, CODE, ANSWER]) as server:
        monkeypatch.setenv("RLM_FSM_MODEL", "openai:from-the-environment")
        monkeypatch.setenv("RLM_FSM_BASE_URL", server.base_url)
        monkeypatch.setenv("RLM_FSM_MAX_STEPS", "2")
        monkeypatch.setenv("RLM_FSM_QUIET", "yes")
        monkeypatch.setenv("RLM_FSM_JSON", "0")
        assert main(["run", "What?", str(folder)]) == 3
        assert main(["run", "What?", str(folder), "--max-steps", "3"]) == 0
        assert server.requests[0].json["model"] == "from-the-environment"
    assert capsys.readouterr().err == (
        "rlm-fsm: partial: the limit max_steps is reached; the best answer so far.\n"
        f"Steps: rlm-fsm show {runs(log)[1].run_id}\n"
        f"Go on: rlm-fsm resume {runs(log)[1].run_id} --max-steps 4\n"
    )


def test_a_bad_value_in_the_environment_names_its_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLM_FSM_MAX_SUBCALLS", "few")
    assert main(["run", "What?", str(folder)]) == 2
    assert "RLM_FSM_MAX_SUBCALLS: give a whole number" in capsys.readouterr().err
    monkeypatch.delenv("RLM_FSM_MAX_SUBCALLS")
    monkeypatch.setenv("RLM_FSM_PARALLEL", "perhaps")
    assert main(["run", "What?", str(folder)]) == 2
    assert "RLM_FSM_PARALLEL: give 1 or 0" in capsys.readouterr().err


def test_every_option_reaches_the_recorded_run(log: Path, folder: Path) -> None:
    prompt = folder.parent / "prompt.txt"
    prompt.write_text("Be terse.")
    options = (
        "--max-steps 7 --max-subcalls 8 --max-total-tokens none --max-cost 1.5 --max-seconds 60 "
        "--max-subcall-tokens 5000 --max-tokens 99 --subcall-max-tokens 98 --concurrency 3 "
        "--max-history-tokens 9000 --compaction 0.75 "
        "--max-recursion-depth 3 --cell-timeout 7.5 --isolation strict "
        "--require-repl-before-final --require-subcall-before-final --auto-finalize-var found "
        "--invalid-response-limit 6 --repl-error-limit 5 --loop-limit none "
        f"--parallel --recursive --repl monty --subcall-model small --quiet "
        f"--system-prompt {prompt}"
    )
    prices = ("--price", "m=1,2 small=0,0.5")
    with scripted(["```python\nfound = llm_query('What?')\n```", "That."]) as server:
        assert ask(server, "What?", str(folder), *options.split(), *prices) == 0
    started = recorded(log, runs(log)[0].run_id)[0]
    assert isinstance(started, RunStarted)
    chosen, policy = started.options, started.options.policy
    assert (policy.max_steps, policy.max_subcalls, policy.max_total_tokens) == (7, 8, None)
    assert (policy.max_cost_usd, policy.max_seconds) == (1.5, 60)
    assert policy.max_subcall_tokens == 5_000
    assert [
        (item.adapter, item.model, item.price.completion_usd_per_mtok) for item in chosen.prices
    ] == [("root", "m", 2), ("subcall", "small", 0.5)]
    assert (chosen.max_tokens, chosen.subcall_max_tokens) == (99, 98)
    assert (chosen.max_concurrent_subcalls, chosen.repl_backend) == (3, "monty")
    assert (chosen.max_history_tokens, chosen.compaction) == (9_000, 0.75)
    assert chosen.parallel_subcalls
    assert chosen.recursive_subcalls
    assert chosen.system_prompt == "Be terse."
    assert chosen.require_repl_before_final
    assert chosen.require_subcall_before_final
    assert (chosen.auto_finalize_var, chosen.loop_limit) == ("found", None)
    assert (chosen.invalid_response_limit, chosen.repl_error_limit) == (6, 5)
    assert chosen.max_recursion_depth == 3
    assert "small" in started.environment["adapter.subcall"]
