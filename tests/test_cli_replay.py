"""`replay`, `events`, `diff` and `verify`: what the command line tells of a log without a model."""

import json
from pathlib import Path

import pytest
from cli_driving import recorded, recorded_run, set_up
from log_files import rewrite, sql

from effects.cli import main
from rlm_fsm import FakeAdapter, run
from rlm_fsm.adapters import AdapterError
from rlm_fsm.errors import ModelError
from rlm_fsm.event import CodePaused


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise; no key is needed here."""
    path = set_up(tmp_path, monkeypatch)
    monkeypatch.delenv("LLM_API_KEY")
    return path


# Replay


@pytest.mark.parametrize("more", [(), ("--run-code",)])
def test_a_replay_gives_the_answer_and_makes_no_call(
    more: tuple[str, ...], log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(recorded(log, recorded_run(log)))
    assert main(["replay", "last", *more]) == 0
    out, err = capsys.readouterr()
    assert out == "done\n"
    cells = ", cells run again" if more else ""
    assert err == f"rlm-fsm: finished: replayed {count} events{cells}, no call made\n"
    assert main(["replay", "last", *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["output"], found["events"]) == ("finished", "done", count)


def test_a_replay_stops_at_an_event_and_shows_the_state(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = recorded_run(log)
    at = next(n for n, e in enumerate(recorded(log, run_id), 1) if isinstance(e, CodePaused)) + 2
    assert main(["replay", run_id, "--at", str(at)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run {run_id} after event {at}: running"
    assert lines[1] == "frame 0: WAITING, turn 1 of 40, cell 0.c1, 0 of 2 calls answered"
    assert lines[2] == "in flight: 0.1, 0.2"
    assert lines[3] == "owed: call 0.1 of the model 'subcall'"
    assert lines[-1].startswith("spent: 1 turn, 2 subcalls")
    assert main(["replay", run_id, "--at", str(at), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["seq"], found["in_flight"]) == (at, ["0.1", "0.2"])
    assert found["frames"][0]["missing"] == 2
    assert main(["replay", run_id, "--at", "99"]) == 2
    assert "--at 99: the run" in capsys.readouterr().err


def test_a_cell_that_does_something_else_diverges(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ["import os\nprint(os.urandom(8))", "FINAL: x"]
    run_id = run("What?", "text", adapter=FakeAdapter(script), log=log).run_id
    assert main(["replay", "last"]) == 0
    capsys.readouterr()
    assert main(["replay", "last", "--run-code"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"rlm-fsm: run {run_id} diverges at event 4:\n  expected: ")
    assert "\n  found:    " in err


def test_a_run_that_failed_replays_too(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = FakeAdapter(["x = 1", AdapterError("gone", kind="server")])
    with pytest.raises(ModelError):
        run("What?", "text", adapter=adapter, log=log)
    assert main(["replay", "last"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "failed: replayed" in err


# Events


def test_events_are_a_line_each(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = recorded_run(log)
    events = recorded(log, run_id)
    assert main(["events", "last"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(events)
    first = lines[0].split()
    assert (first[0], first[3:]) == ("1", ["RunStarted", "0", "What?"])
    assert any(
        "CodePaused" in line and "llm_batch: 2 calls, “one the text”" in line for line in lines
    )
    assert max(map(len, lines)) <= 160
    assert main(["events", "last", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["kind"] for item in found] == [type(event).__name__ for event in events]
    assert found[-1]["output"] == "done"


def test_events_of_a_damaged_run_are_listed_up_to_the_damage(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded_run(log)
    rewrite(log, "UPDATE events SET data = '{}' WHERE seq = 5")
    assert main(["events", "last"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert "the run is damaged after event 4" in err
    for command in (["resume", "last"], ["replay", "last"], ["fork", "last", "--at", "6"]):
        assert main(command) == 1, command
        assert "Traceback" not in capsys.readouterr().err


# Diff


def test_equal_runs_have_no_difference(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = recorded_run(log), recorded_run(log)
    assert main(["diff", first, second]) == 0
    count = len(recorded(log, first))
    assert f"{count} events alike, then 0 differences" in capsys.readouterr().out


def test_the_first_differences_are_shown(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = "the same beginning of a reply, "
    for answer in ("this", "that"):
        script = ["print(1)", f"FINAL: {common}{answer}"]
        run("What?", "text", adapter=FakeAdapter(script), log=log)
    newer, older = (row[0] for row in sql(log, "SELECT run_id FROM runs ORDER BY rowid DESC"))
    assert main(["diff", str(older), str(newer), "--pairs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "5 events alike, then 2 differences\nModelReplied 0.m2\n" in out
    assert "- event 6, text: …beginning of a reply, this" not in out
    assert "- event 6, text: …" in out
    assert out.splitlines()[-1].endswith("that")
    assert "1 of 2 differences" in err
    assert main(["diff", str(older), str(newer), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shared"] == 5
    assert [pair["kinds"][0] for pair in found["differing"]] == ["ModelReplied", "RunFinished"]
    assert main(["diff", "last", str(newer)]) == 2
    assert "both names mean the run" in capsys.readouterr().err


# Verify


def test_verify_tells_of_each_run_and_finds_the_damaged_one(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = recorded_run(log), recorded_run(log)
    assert main(["verify"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["ok", good],
        ["ok", bad],
    ]
    rewrite(log, f"UPDATE events SET data = '{{}}' WHERE seq = 5 AND run_id = '{bad}'")
    assert main(["verify"]) == 1
    out, err = capsys.readouterr()
    ok, damaged = out.splitlines()
    assert ok.startswith(f"ok       {good}")
    assert damaged.startswith(f"DAMAGED  {bad}  good up to event 4: ")
    assert "1 of 2 runs damaged" in err
    assert main(["verify", good]) == 0
    capsys.readouterr()
    assert main(["verify", bad[:-2] if bad[:-2] != good[:-2] else bad, "--json"]) == 1
    (check,) = json.loads(capsys.readouterr().out)
    assert (check["run_id"], check["events"]) == (bad, 4)


def test_verify_of_a_file_that_is_no_log_is_misuse(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"]) == 2
    assert "there is no such log" in capsys.readouterr().err
    log.write_text("a text")
    assert main(["verify"]) == 2
    assert "not a log of rlm-fsm" in capsys.readouterr().err
