"""``rlm-fsm doctor``, and what runs record and show of their sandbox."""

import asyncio
import json
from pathlib import Path

import pytest
from cli_driving import KEY, recorded_run, set_up

from effects.cli import main
from effects.sandbox.report import LAYERS, report_of
from rlm_fsm import FakeAdapter, ReplLimits, UsageError, run, runs

OPEN = report_of({name: "not here" for name in LAYERS if name != "interpreter without a system"})


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return set_up(tmp_path, monkeypatch)


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the first session had found no layer at all."""
    monkeypatch.setattr("effects.repls._isolation._first", {(): OPEN})


def test_doctor_says_what_there_is(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("Python 3.", "SQLite 3.", "pydantic-monty 1.", "sandbox of the python backend"):
        assert word in out
    assert f"log: {log} (writable, not there yet)" in out
    assert "configured: LLM_API_KEY" in out
    assert KEY not in out
    assert not log.exists()


def test_doctor_gives_a_document(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    document = json.loads(text)
    assert document["configured"] == ["LLM_API_KEY"]
    assert KEY not in text
    assert document["log"]["writable"] is True
    named = document["sandbox"]["active"].keys() | document["sandbox"]["missing"].keys()
    assert named <= LAYERS.keys()
    assert document["sandbox"]["files_closed"] is True
    assert document["sandbox"]["network_closed"] is True


def test_doctor_works_where_a_loop_is_running(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effects.repls._isolation._first", {})

    async def program() -> int:
        return main(["doctor"])

    assert asyncio.run(program()) == 0
    assert "sandbox of the python backend" in capsys.readouterr().out


@pytest.mark.usefixtures("bare_machine", "log")
def test_a_strict_doctor_fails_where_a_layer_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    assert main(["doctor", "--strict"]) == 1
    out = capsys.readouterr().out
    assert "files OPEN, network OPEN" in out
    assert "MISSING  landlock" in out
    assert "why: not here" in out
    assert "remedy: Linux 5.13" in out


def test_doctor_says_why_a_log_can_not_be_written(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--log", str(tmp_path)]) == 0
    assert f"NOT writable: {tmp_path}: it is no file" in capsys.readouterr().out
    (tmp_path / "file").write_text("x")
    assert main(["doctor", "--log", str(tmp_path / "file" / "log.sqlite")]) == 0
    assert "NOT writable" in capsys.readouterr().out


@pytest.mark.usefixtures("bare_machine")
def test_a_strict_run_is_refused_before_anything_is_recorded(log: Path, tmp_path: Path) -> None:
    strict = ReplLimits(isolation="strict")
    with pytest.raises(UsageError, match="files and network could not be closed") as refused:
        run("q", "text", adapter=FakeAdapter(script=["FINAL: x"]), log=log, repl_limits=strict)
    assert "landlock: not here" in str(refused.value)
    assert not log.exists() or runs(log) == []
    (tmp_path / "a.txt").write_text("text")
    about = ["run", "q", str(tmp_path / "a.txt"), "--model", "openai:m"]
    assert main([*about, "--isolation", "strict"]) == 2


@pytest.mark.usefixtures("bare_machine")
def test_monty_is_closed_everywhere(log: Path) -> None:
    strict, adapter = ReplLimits(isolation="strict"), FakeAdapter(script=["FINAL: x"])
    result = run("q", "t", adapter=adapter, log=log, repl_limits=strict, repl_backend="monty")
    assert result.output == "x"


def test_a_run_records_its_sandbox_and_show_tells_it(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded_run(log)
    capsys.readouterr()
    assert main(["show", "last", "--json"]) == 0
    environment = json.loads(capsys.readouterr().out)["environment"]
    assert environment["sandbox"] == "files closed, network closed"
    assert "no new privileges" in environment["sandbox.active"].split(", ")
    assert main(["show", "last"]) == 0
    short = capsys.readouterr().out
    assert "sandbox: files closed, network closed" in short
    assert "no new privileges" not in short
    assert main(["show", "last", "--full"]) == 0
    assert "no new privileges" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("bare_machine")
def test_what_is_open_is_recorded_too(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("q", "text", adapter=FakeAdapter(script=["FINAL: x"]), log=log)
    assert main(["show", "last", "--full"]) == 0
    assert "sandbox: files OPEN, network OPEN" in capsys.readouterr().out
