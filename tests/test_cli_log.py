"""What the command line shows of a log: `runs` and `show`."""

import json
from pathlib import Path

import pytest
from cli_driving import ANSWER, ask, make_folder, recorded_run, scripted, set_up
from log_files import rewrite

from effects.cli import main
from rlm_fsm import FakeAdapter, run


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise, with a key, as a user would have them."""
    return set_up(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def test_runs_are_listed_newest_first(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert f"no runs yet in {log}" in capsys.readouterr().err
    assert not log.exists()
    older, newer = recorded_run(log, "first question"), recorded_run(log, "second [b]question[/b]")
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", newer, older]
    assert "second [b]question[/b]" in lines[1]
    assert lines[1].split()[-1] == "done"
    assert main(["runs", "--limit", "1"]) == 0
    out, err = capsys.readouterr()
    assert older not in out
    assert "1 of 2 runs" in err
    assert main(["runs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [info["run_id"] for info in found] == [newer, older]
    assert found[0]["status"] == "finished"


@pytest.mark.parametrize("name", ["last", "-1", "the id", "its beginning"])
def test_show_tells_the_steps_of_a_run(
    name: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = recorded_run(log)
    given = {"the id": run_id, "its beginning": run_id[:-3]}.get(name, name)
    assert main(["show", given]) == 0
    out = capsys.readouterr().out
    in_order = [
        "What?",
        run_id,
        "turn 1",
        "I ask.",
        "replies = llm_batch",
        "2 subcalls asked",
        "1 → first",
        "2 → second",
        "['first', 'second']",
        "ZeroDivisionError: division by zero",
        "turn 2",
        "finished · 2 turns, 2 subcalls",
        "│ done",
    ]
    at = 0
    for text in in_order:
        assert text in out[at:], text
        at = out.index(text, at) + len(text)


def test_show_cuts_long_texts_unless_all_is_wanted(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ["```python\nfor i in range(500): print('line', i)\n```", "FINAL: x"]
    run("What?", "text", adapter=FakeAdapter(script), log=log)
    assert main(["show", "last"]) == 0
    out = capsys.readouterr().out
    assert "… 488 more lines …" in out
    assert "line 250" not in out
    assert main(["show", "last", "--full"]) == 0
    assert "line 250" in capsys.readouterr().out


def test_show_as_json_holds_the_run_and_its_steps(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = recorded_run(log)
    assert main(["show", "last", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run_id"], found["status"], found["output"]) == (run_id, "finished", "done")
    assert found["damage"] is None
    assert found["usage"]["subcalls"] == 2
    kinds = [step["kind"] for step in found["steps"]]
    assert kinds == ["root_call", "subcall", "subcall", "repl_exec", "root_call"]


def test_a_damaged_run_is_shown_up_to_the_damage(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded_run(log)
    rewrite(log, "UPDATE events SET data = '{}' WHERE seq = 5")
    assert main(["show", "last"]) == 1
    out, err = capsys.readouterr()
    assert "turn 1" in out
    assert "turn 2" not in out
    assert "the run is damaged after event 4" in err
    assert main(["show", "last", "--json"]) == 1
    assert "damaged after event 4" in json.loads(capsys.readouterr().out)["damage"]


def test_a_run_that_is_not_there_is_misuse(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "last"]) == 2
    assert "there is no such log" in capsys.readouterr().err
    assert not log.exists()
    recorded_run(log)
    assert main(["show", "nope"]) == 2
    assert "holds no run 'nope'" in capsys.readouterr().err


def test_another_log_is_named_in_the_command_that_shows_the_run(
    log: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder.parent / "my log.sqlite"
    with scripted([ANSWER]) as server:
        assert ask(server, "What?", str(folder), "--log", str(other)) == 0
    assert f"--log '{other}'" in capsys.readouterr().err
    assert not log.exists()
