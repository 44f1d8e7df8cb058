"""Arguments of the command line that are no ordinary words, and what is said of them."""

import sys
from pathlib import Path

import pytest
from cli_driving import ANSWER, ask, make_folder, scripted, set_up

from effects.cli import main
from rlm_fsm import runs


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return set_up(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def jobs(folder: Path) -> str:
    path = folder / "jobs.jsonl"
    path.write_text('{"query": "What?", "context": "text"}\n')
    return str(path)


# Tools


def test_a_module_of_tools_that_ends_the_program_is_told(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(folder)
    (folder / "ending_tools.py").write_text("import sys\nsys.exit(0)\n")
    command = ["run", "What?", "a.txt", "--model", "ollama:m", "--tools", "ending_tools:x"]
    assert main(command) == 2
    assert "ending_tools:x: the module can't be imported: SystemExit: 0" in capsys.readouterr().err
    assert not log.exists()


def test_a_directory_that_is_gone_is_told_where_tools_are_looked_for(
    log: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    file = str(folder / "a.txt")
    assert main(["run", "What?", file, "--model", "ollama:m", "--tools", "json:loads"]) == 2
    told = capsys.readouterr().err
    assert "--tools json:loads: the current directory can't be searched: No such file" in told


# What begins with a dash


@pytest.mark.parametrize("before", [["--quiet", "--"], ["--"]])
def test_what_stands_behind_two_dashes_is_no_option(
    before: list[str],
    log: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(folder)
    (folder / "-a.txt").write_text("alpha")
    with scripted([ANSWER]) as server:
        options = ["--model", "m", "--base-url", server.base_url]
        assert main(["run", *options, *before, "-DIRECT", "-a.txt", "b.txt"]) == 0
    assert capsys.readouterr().out == "forty-two\n"
    assert [info.query for info in runs(log)] == ["-DIRECT"]


def test_a_question_may_stand_before_the_two_dashes(log: Path, folder: Path):
    with scripted([ANSWER]) as server:
        options = ["--model", "m", "--base-url", server.base_url]
        assert main(["run", "What?", *options, "--", str(folder)]) == 0
    assert [info.query for info in runs(log)] == ["What?"]


def test_too_many_arguments_are_told_as_they_stand(log: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["show", "last", "--", "-x"]) == 2
    assert "unrecognized arguments: -x" in capsys.readouterr().err


# The words for what is wrong


def test_a_limit_of_cost_without_a_price_names_the_option(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--max-cost", "1") == 2
        run = capsys.readouterr().err
        model = ["--model", "m", "--base-url", server.base_url]
        assert main(["many", jobs(folder), "--budget-cost", "1", *model]) == 2
    for told in (run, capsys.readouterr().err):
        assert "prices=" not in told
        assert 'Give --price "m=SENT,GENERATED", in USD' in told
        assert "a limit of 1 USD can't be kept" in told


def test_a_window_that_nobody_knows_names_the_option(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", str(folder)) == 0
        capsys.readouterr()
        assert ask(server, "What?", str(folder), "--compaction", "0.8") == 2
        run = capsys.readouterr().err
        model = ["--model", "m", "--base-url", server.base_url]
        assert main(["fork", "last", "--at", "1", "--compaction", "0.8", *model]) == 2
    for told in (run, capsys.readouterr().err):
        assert "nobody knows this model's window: give --max-history-tokens N" in told
        assert "max_history_tokens" not in told


def test_a_wrong_name_of_a_batch_names_the_option(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["many", jobs(folder), "--batch", "a b", "--model", "ollama:m"]) == 2
    assert "rlm-fsm: --batch 'a b': give 1 to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "given"),
    [("--budget-tokens", ["1"]), ("--budget-cost", ["0.0000001", "--price", "m=1,1"])],
)
def test_a_budget_that_is_used_up_says_which_to_make_larger(
    option: str,
    given: list[str],
    log: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
):
    with scripted([ANSWER]) as server:
        model = ["--model", "m", "--base-url", server.base_url]
        assert main(["many", jobs(folder), *model, option, *given]) == 3
        assert server.requests == []
    told = capsys.readouterr().err
    assert f"The same command with a larger {option} goes on.\n" in told


def test_a_batch_whose_time_is_over_goes_on_with_the_same_command(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["many", jobs(folder), "--model", "ollama:m", "--budget-seconds", "0"]
    assert main(command) == 3
    assert "The same command goes on.\n" in capsys.readouterr().err
