"""`--cache` on the command line: `run`, `resume`, `fork`, `many`."""

import json
from pathlib import Path

import pytest
from caching_model import ONE, server, subcalls
from cli_driving import set_up

from effects.cli import main
from rlm_fsm import runs


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise, with a key, as a user would have them."""
    (tmp_path / "text.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    return set_up(tmp_path, monkeypatch)


def hits(capsys: pytest.CaptureFixture[str]) -> int:
    """How many hits the document on stdout tells of."""
    document = json.loads(capsys.readouterr().out)
    return document["usage"]["cache_hits"]


@pytest.mark.parametrize("where", ["replies", "log"])
def test_a_second_run_is_given_what_the_first_asked(
    log: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(ONE) as model:
        asked = ["run", "q", "text.txt", "--model", "m", "--base-url", model.base_url, "--json"]
        found = []
        for _ in range(2):
            assert main([*asked, "--cache", where]) == 0
            found.append(hits(capsys))
        assert main(asked) == 0
        assert subcalls(model)["one text"] == 2, "without the option nothing is cached"
    assert (found, hits(capsys)) == ([0, 1], 0)
    assert Path("replies").exists() == (where == "replies")


def test_the_environment_names_a_cache_and_the_command_line_wins(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLM_FSM_CACHE", "log")
    with server(ONE) as model:
        asked = ["run", "q", "text.txt", "--model", "m", "--base-url", model.base_url, "--json"]
        found = []
        for more in ([], [], ["--cache", "none"]):
            assert main([*asked, *more]) == 0
            found.append(hits(capsys))
    assert found == [0, 1, 0]


def test_a_fork_and_a_resume_may_be_given_a_cache(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(ONE) as model:
        to = ["--model", "m", "--base-url", model.base_url, "--json"]
        assert main(["run", "q", "text.txt", *to, "--cache", "replies"]) == 0
        assert main(["run", "q", "text.txt", *to, "--max-steps", "0"]) == 3
        capsys.readouterr()
        resumed = ["resume", "last", *to, "--max-steps", "9", "--cache", "replies"]
        assert main(resumed) == 0
        assert hits(capsys) == 1
        assert main(["fork", "last", "--at", "1", *to, "--cache", "none", "--max-steps", "9"]) == 0
        assert hits(capsys) == 0
    assert len(runs(log)) == 3


def test_a_batch_tells_of_hits_in_its_rows_and_lines(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("jobs.jsonl").write_text('{"query": "a?"}\n{"query": "b?"}\n')
    with server(ONE) as model:
        to = ["--model", "m", "--base-url", model.base_url, "--runs-at-once", "1"]
        assert main(["many", "jobs.jsonl", "text.txt", *to, "--cache", "log"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["subcalls"], row["cache_hits"]) for row in rows] == [(1, 0), (0, 1)]
    assert err.count("1 cache hit") == 1


def test_a_folder_that_cannot_be_written_is_misuse(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "q", "text.txt", "--model", "ollama:m", "--cache", "text.txt"]) == 2
    assert "nothing can be written to" in capsys.readouterr().err
    assert not log.exists()
