"""Paused cells that ask in vain: they come to an end."""

from pathlib import Path
from typing import Any

import pytest
from machine import Machine, code

from rlm_fsm import FakeAdapter, Policy, SqliteLog, replay, run
from rlm_fsm.calls import IDLE_PAUSES
from rlm_fsm.effect import ResumeCode
from rlm_fsm.event import CodeExecuted, CodePaused
from rlm_fsm.toolspec import ToolSpec

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


def test_what_is_asked_in_vain_counts_by_its_size_too():
    """Every prompt is in the log, also of a batch that is refused."""
    machine = running(max_subcalls=1)
    large = ["x" * 10_000] * 999
    asked = 0
    while not asked or outcome(machine) == "limit":
        machine.pause(*(f"{n}{text}" for n, text in enumerate(large)))
        asked += 1
    assert (outcome(machine), asked) == ("stop", 11)


def test_sub_runs_that_were_begun_are_not_in_vain_whatever_ends_them():
    machine = Machine()
    machine.start(recursive_subcalls=True, recursive_subcall_max_steps=1, max_recursion_depth=1)
    machine.reply(code("x"))
    machine.pause("a", recursive=True)
    machine.reply(code("y"))
    machine.ran("clue", frame="0.1")
    machine.reply(code("z"))
    assert outcome(machine) == "limit"
    assert machine.frame().cell.idle == 0


def test_denied_approvals_are_in_vain():
    machine = Machine()
    spec = ToolSpec(name="send", signature="()", needs_approval=True)
    machine.start(tools=(spec,))
    machine.reply(code("x"))
    machine.call_tools(["send", "{}"])
    machine.of_tool("denied", "0.1")
    assert outcome(machine) == "denied"
    assert machine.frame().cell.idle == 1


def test_a_call_of_a_model_that_is_not_there_is_no_subcall():
    machine = running(max_subcalls=3)
    machine.pause("a", "b", "c", model="gpt")
    for name in ("0.1", "0.2", "0.3"):
        machine.fail(name, error="unknown_model")
    (resumed,) = machine.effects
    assert [answer.kind for answer in resumed.outcomes] == ["error"] * 3
    assert (machine.state.spent.subcalls, machine.frame().subcalls) == (0, 0)
    assert machine.state.spent.model_calls == 1, "the root's"
    assert machine.frame().cell.idle == 1
    machine.pause("a", "b", "c")
    assert len(machine.state.calls) == 3


@BACKENDS
def test_a_batch_of_an_unknown_model_leaves_its_places_to_the_corrected_one(backend: str):
    cell = (
        "first = llm_batch([str(n) for n in range(9)], model='gpt', on_error='return')\n"
        "print(first[0])\nx = len(llm_batch([str(n) for n in range(9)]))\n"
        "try:\n    rlm_query('a', model='gpt')\nexcept Exception as e:\n    print('no', e)\n"
        "print(budget()['subcalls'])"
    )
    adapter = FakeAdapter(script=[f"```python\n{cell}\n```", "FINAL_VAR: x"])
    adapter.add_rule("You are a sub-LLM", "yes")
    policy = Policy(max_subcalls=10)
    result = run("q", "P", adapter=adapter, repl_backend=backend, policy=policy, log=":memory:")
    assert (result.output, result.usage.subcalls) == ("9", 9)
    shown = adapter.call_log[-1][-1]["content"]
    assert shown.count("there is no model named 'gpt'") == 2
    assert "\n1\n" in shown


@BACKENDS
@pytest.mark.parametrize("cell", [REFUSED, POLLING], ids=["refused", "polling"])
def test_code_that_asks_in_vain_for_ever_is_stopped_and_the_run_goes_on(
    cell: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rlm_fsm.calls.IDLE_PAUSES", 50)
    script = ["```python\nx = 41\n```", f"```python\n{cell}\n```", "```python\nx += n > 0\n```"]
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
    assert not ended.repl_lost, "its variables are kept"
    assert "CellStopped" in adapter.call_log[2][-1]["content"]
    assert replay(result.run_id, log=log, run_code=True).output == "42"
