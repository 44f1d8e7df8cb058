"""Paused cells that ask in vain: they come to an end."""

from pathlib import Path
from typing import Any

import pytest
from machine import Machine, code

from rlm_fsm import FakeAdapter, Policy, SqliteLog, replay, run
from rlm_fsm.calls import IDLE_PAUSES
from rlm_fsm.effect import ResumeCode
from rlm_fsm.event import CodeExecuted, CodePaused

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
REFUSED = (
    "n = 0\nwhile True:\n    try:\n        llm_query('x')\n    except Exception:\n        n += 1"
)
POLLING = "n = 0\nwhile True:\n    n += budget()['steps']"


def running(**limits: Any) -> Machine:
    machine = Machine()
    machine.start(policy=Policy(**limits), subcall_system_prompt="", tell_budget=False)
    machine.reply(code("x"))
    return machine


def outcome(machine: Machine) -> str:
    (resumed,) = machine.effects
    assert isinstance(resumed, ResumeCode)
    return resumed.outcomes[0].kind


@pytest.mark.parametrize(
    ("limits", "asked", "answer"),
    [
        ({"max_subcalls": 0}, {}, "limit"),
        ({"max_subcall_tokens": 10}, {}, "limit"),
        ({}, {"kind": "budget"}, "text"),
    ],
    ids=["subcalls", "tokens", "budget"],
)
def test_pauses_that_begin_nothing_are_counted_and_the_cell_is_stopped(
    limits: dict[str, Any], asked: dict[str, Any], answer: str
):
    machine = running(**limits)
    for _ in range(IDLE_PAUSES):
        machine.pause("x" * 100, **asked)
        assert outcome(machine) == answer
    machine.pause("x" * 100, **asked)
    assert outcome(machine) == "stop"
    machine.ran(error=None)
    machine.reply(code("y"))
    machine.pause("x" * 100, **asked)
    assert outcome(machine) == answer, "the next cell begins anew"


def test_a_call_that_is_made_in_between_begins_the_count_anew():
    machine = running(max_subcalls=1)
    for _ in range(IDLE_PAUSES):
        machine.pause("", kind="budget")
    machine.pause("x")
    machine.reply("A")
    assert outcome(machine) == "text"
    machine.pause("x")
    assert outcome(machine) == "limit"


@BACKENDS
@pytest.mark.parametrize("cell", [REFUSED, POLLING], ids=["refused", "polling"])
def test_code_that_asks_in_vain_for_ever_is_stopped_and_the_run_goes_on(
    cell: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rlm_fsm.calls.IDLE_PAUSES", 50)
    script = ["```python\nx = 41\n```", f"```python\n{cell}\n```", "```python\nx += 1\n```"]
    adapter = FakeAdapter(script=[*script, "FINAL_VAR: x"])
    log = tmp_path / "log.sqlite"
    result = run(
        "q", "P", adapter=adapter, repl_backend=backend, policy=Policy(max_subcalls=0), log=log
    )
    assert (result.status, result.output) == ("finished", "42")
    with SqliteLog(log) as opened:
        events = [logged.event for logged in opened.load(result.run_id)]
    assert sum(isinstance(event, CodePaused) for event in events) == 51
    ended = [event for event in events if isinstance(event, CodeExecuted)][1]
    assert ended.error is not None
    assert ended.error.kind == "CellStopped"
    assert "CellStopped" in adapter.call_log[2][-1]["content"]
    assert replay(result.run_id, log=log, run_code=True).output == "42"
