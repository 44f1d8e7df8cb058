"""Runs that go on in the machine: what is made again is judged again, by the limits of now."""

from dataclasses import replace
from typing import Any

import pytest
from machine import Machine, code

from rlm_fsm import fold
from rlm_fsm.event import CodePaused, RunResumed
from rlm_fsm.policy import Policy
from rlm_fsm.values import HostCall


def smaller(machine: Machine, **limits: Any) -> RunResumed:
    """A resume under these limits."""
    return RunResumed(options=replace(machine.state.options, policy=Policy(**limits)))


def test_calls_in_flight_are_made_again_as_far_as_a_smaller_limit_allows_it():
    machine = Machine()
    machine.start(subcall_max_tokens=100, max_tokens=1, subcall_system_prompt="")
    machine.reply(code("x"))
    machine.pause(*(f"p{number}" for number in range(10)))
    machine.cancel()
    machine.send(smaller(machine, max_subcall_tokens=450))
    assert sorted(machine.state.calls) == ["0.1", "0.2"], "the others wait for their bills"
    while machine.state.calls:
        machine.reply("A", sorted(machine.state.calls)[0], tokens=101)
    (resumed,) = machine.effects
    assert [outcome.kind for outcome in resumed.outcomes].count("text") == 4
    assert machine.state.spent.subcall_tokens == 404
    assert machine.state.spent.subcalls == 4


def test_a_smaller_limit_leaves_the_calls_alone_that_it_has_room_for():
    machine = Machine()
    machine.start(subcall_max_tokens=100, max_tokens=1, subcall_system_prompt="")
    machine.reply(code("x"))
    machine.pause(*(f"p{number}" for number in range(10)))
    calls, spent = dict(machine.state.calls), machine.state.spent
    machine.cancel()
    machine.send(smaller(machine, max_total_tokens=100_000))
    assert (dict(machine.state.calls), machine.state.spent) == (calls, spent)


@pytest.mark.parametrize("on_limit", ["finalize", "raise"])
def test_a_turn_in_flight_that_a_smaller_limit_forbids_ends_the_run(on_limit: str):
    machine = Machine()
    machine.start(max_tokens=100)
    machine.reply(code("x"), tokens=500)
    machine.ran("clue")
    machine.cancel()
    machine.send(smaller(machine, max_total_tokens=510, on_limit=on_limit))
    state = machine.state
    assert (state.status, state.limit, state.output) == (
        "partial" if on_limit == "finalize" else "failed",
        "max_total_tokens",
        "clue",
    )
    assert (dict(state.calls), state.spent.reserved_tokens) == ({}, 0)
    machine.send(smaller(machine, max_total_tokens=100_000))
    assert machine.call().purpose == "turn"
    told = machine.frame().messages[-1]
    assert told.role == "user"
    assert told.content.strip(), "nobody is sent an empty message"
    assert fold(machine.log) == machine.state


def test_a_turn_in_flight_is_made_again_under_the_same_limits_whatever_room_it_would_need_now():
    for limit in range(2_000, 6_000, 10):
        machine = Machine()
        machine.start(policy=Policy(max_total_tokens=limit), max_tokens=100)
        machine.reply(code("x"))
        machine.ran("clue " * 800)
        if machine.call().purpose == "turn":
            break
    assert machine.call().purpose == "turn"
    steps = machine.state.spent.steps
    machine.cancel()
    machine.send(RunResumed())
    assert (machine.call().purpose, machine.state.spent.steps) == ("turn", steps)


def test_a_closing_turn_in_flight_that_a_smaller_limit_forbids_leaves_the_best_answer():
    machine = Machine()
    machine.start(policy=Policy(max_steps=1), max_tokens=100)
    machine.reply(code("x"), tokens=500)
    machine.ran("clue")
    assert machine.call().purpose == "closing"
    machine.cancel()
    machine.send(smaller(machine, max_total_tokens=510))
    assert (machine.state.status, machine.state.output) == ("partial", "clue")


def test_calls_that_were_in_flight_go_before_those_that_never_began_whatever_waits():
    """Under the same limits a resume does what the run would have done."""
    machine = Machine()
    machine.start(
        policy=Policy(max_subcall_tokens=700),
        subcall_max_tokens=100,
        max_tokens=100,
        max_concurrent_subcalls=1,
        max_recursion_depth=1,
        subcall_system_prompt="",
        recursive_subcall_system_prompt="",
    )
    machine.reply(code("x"))
    calls = [HostCall(fn="f", prompt=name, recursive=name == "a") for name in "abc"]
    machine.send(CodePaused(frame="0", call_id="0.c1", calls=tuple(calls), parallel=True))
    in_flight = dict(machine.state.calls)
    assert sorted(in_flight) == ["0.1.m1"]
    machine.cancel()
    machine.send(RunResumed())
    assert dict(machine.state.calls) == in_flight


def test_sub_runs_are_made_again_in_the_order_in_which_they_were_opened():
    machine = Machine()
    machine.start(max_concurrent_subcalls=12, recursive_subcalls=True, max_recursion_depth=1)
    machine.reply(code("x"))
    machine.pause(*(f"p{number}" for number in range(12)))
    machine.cancel()
    machine.send(RunResumed())
    made = [effect.call_id for effect in machine.effects]
    assert made == [f"0.{number}.m1" for number in range(1, 13)]


def test_a_fork_leaves_the_calls_alone_whose_outcomes_it_takes_over():
    machine = Machine()
    machine.start(subcall_max_tokens=100, max_tokens=1)
    machine.reply(code("x"))
    machine.pause("a", "b")
    options = replace(machine.state.options, policy=Policy(max_subcall_tokens=1))
    machine.send(RunResumed(options=options, is_fork=True, answered=("0.1",)))
    assert sorted(machine.state.calls) == ["0.1"], "0.2 has no room any more"
    (resumed,) = machine.reply("A", "0.1")
    assert [outcome.kind for outcome in resumed.outcomes] == ["text", "limit"]
