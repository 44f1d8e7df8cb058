"""Guards on the watched variable and on steps, and the fallback code that they run."""

import re
from typing import Any

import pytest
from machine import BOOM, Machine, code, kinds, names

from rlm_fsm import RLM, FakeAdapter, run
from rlm_fsm.errors import UsageError
from rlm_fsm.event import GuardTripped, VariableRead
from rlm_fsm.options import Options, check_guards
from rlm_fsm.policy import Policy
from rlm_fsm.toolspec import ToolSpec


def watching(**options: object) -> Machine:
    """A run that watches a variable, with a cell under way."""
    machine = Machine()
    machine.start(auto_finalize_var="answer", **options)
    machine.reply(code("answer = 1"))
    return machine


def guards_of(machine: Machine) -> list[str]:
    return [event.guard for event in machine.log if isinstance(event, GuardTripped)]


def newest(machine: Machine) -> str:
    return machine.frame().messages[-1].content


def go(machine: Machine, text: str = "", **ended: object) -> None:
    """One more turn of other code, whose cell leaves `text` in the watched variable."""
    machine.reply(code(f"step = {machine.frame().turns}"))
    machine.ran(watched={"answer": text} if text else {}, **ended)


def test_a_value_that_is_too_short_is_told_once_and_judged_anew_when_it_changes():
    machine = watching(auto_finalize_min_length=10)
    machine.ran("seen", watched={"answer": "short"})
    assert names(machine.commits[-1]) == ["CodeExecuted", "GuardTripped", "EffectStarted"]
    assert "Output:\nseen" in newest(machine)
    assert "answer holds 5 characters; an answer needs at least 10" in newest(machine)
    go(machine, "short")
    assert guards_of(machine) == ["auto_finalize_min_length"]
    go(machine, "longer")
    assert guards_of(machine) == ["auto_finalize_min_length"] * 2
    go(machine, "long enough")
    assert (machine.state.status, machine.state.output) == ("finished", "long enough")


def test_the_later_blocks_of_a_reply_run_before_a_value_is_refused():
    machine = Machine()
    machine.start(auto_finalize_var="answer", auto_finalize_min_length=3)
    machine.reply(code("answer = 'a'") + "\n" + code("answer += 'bc'"))
    assert kinds(machine.ran(watched={"answer": "a"})) == ["RunCode 0.c2"]
    machine.ran(watched={"answer": "abc"})
    assert (machine.state.output, guards_of(machine)) == ("abc", [])


@pytest.mark.parametrize("feedback", [None, "Names only."])
def test_a_value_that_a_pattern_matches_is_refused_in_any_case(feedback: str | None):
    machine = watching(
        auto_finalize_reject_patterns=("^i think", "unknown"),
        auto_finalize_reject_feedback=feedback,
    )
    machine.ran(watched={"answer": "It is UNKNOWN"})
    assert guards_of(machine) == ["auto_finalize_reject_patterns"]
    expected = feedback or "What answer holds was not accepted as the answer: it matches unknown."
    assert expected in newest(machine)
    go(machine, "Ada")
    assert (machine.state.status, machine.state.output) == ("finished", "Ada")


def test_a_run_gives_up_after_too_many_refused_values_and_keeps_the_last():
    machine = watching(auto_finalize_reject_patterns=("no",), auto_finalize_reject_limit=2)
    machine.ran(watched={"answer": "no 1"})
    go(machine, "no 1")
    assert machine.state.status == "running", "the same value isn't counted twice"
    go(machine, "no 2")
    assert guards_of(machine)[-1] == "auto_finalize_reject_limit"
    assert (machine.state.status, machine.state.cause) == ("failed", "guard")
    assert machine.state.output == "no 2"
    assert machine.state.error.startswith("gave up after 2 refused values of answer")


def test_fallback_code_answers_for_a_run_whose_values_are_refused():
    machine = watching(
        auto_finalize_reject_patterns=("no",),
        auto_finalize_reject_limit=1,
        fallback_code="last()",
    )
    (effect,) = machine.ran(watched={"answer": "no"})
    assert effect.code == "last()"
    machine.ran(watched={"answer": "no"})
    assert machine.state.status == "failed", "a refused value is no answer of the fallback code"


def test_a_refused_value_is_no_refused_reply():
    machine = watching(auto_finalize_min_length=10, invalid_response_limit=1)
    machine.ran(watched={"answer": "short"})
    assert machine.state.status == "running"


@pytest.mark.parametrize(
    ("options", "guard", "said"),
    [
        (
            {"subcall_guard_steps": 2, "require_subcall_before_final": True},
            "subcall_guard_steps",
            "This was turn 2, and you have asked no sub-model yet.",
        ),
        (
            {"fallback_guard_steps": 2},
            "fallback_guard_steps",
            "This was turn 2, and answer holds no answer yet.",
        ),
    ],
)
def test_a_guard_on_steps_presses_once(options: dict, guard: str, said: str):
    machine = watching(**options)
    machine.ran("a")
    assert guards_of(machine) == []
    go(machine, error=BOOM)
    assert guards_of(machine) == [guard]
    assert "boom" in newest(machine)
    assert said in newest(machine)
    go(machine)
    assert guards_of(machine) == [guard]


@pytest.mark.parametrize(
    "options",
    [
        {"subcall_guard_steps": 1},
        {"subcall_guard_steps": 2, "require_subcall_before_final": True},
    ],
)
def test_the_guard_on_subcalls_waits_for_its_turn_and_for_the_rule_that_it_serves(options: dict):
    machine = watching(**options)
    machine.ran("a")
    assert guards_of(machine) == []


def test_a_subcall_satisfies_the_guard_on_subcalls():
    machine = watching(subcall_guard_steps=1, require_subcall_before_final=True)
    machine.pause("a")
    machine.reply("A", "0.1")
    machine.ran("a")
    assert guards_of(machine) == []


@pytest.mark.parametrize(("value", "trips"), [("none", True), ("NO_ANSWER", True), ("42", False)])
def test_a_value_that_says_nothing_does_not_hold_the_guard_off(value: str, trips: bool):
    machine = watching(fallback_guard_steps=1, auto_finalize_min_length=20)
    machine.ran(watched={"answer": value})
    go(machine, value)
    assert ("fallback_guard_steps" in guards_of(machine)) == trips


def test_a_guard_on_steps_runs_the_fallback_code_and_the_run_goes_on_without_an_answer():
    machine = watching(fallback_guard_steps=1, fallback_code="last()")
    (effect,) = machine.ran("seen")
    assert (effect.code, effect.watch) == ("last()", ("answer",))
    machine.ran("tried", error=BOOM)
    assert machine.state.status == "running"
    told = newest(machine)
    assert told.index("seen") < told.index("was run. It gave no answer, and showed:\ntried")
    go(machine)
    assert guards_of(machine) == ["fallback_guard_steps"], "the code runs once"
    go(machine, "42")
    assert machine.state.output == "42"


def test_the_answer_of_fallback_code_that_a_guard_asked_for_ends_the_run():
    machine = watching(
        subcall_guard_steps=1, require_subcall_before_final=True, fallback_code="last()"
    )
    machine.ran("seen")
    machine.ran(watched={"answer": "42"})
    assert (machine.state.status, machine.state.output) == ("finished", "42")


def test_no_answer_is_an_answer_only_when_no_fallback_code_is_left():
    machine = watching()
    machine.ran(watched={"answer": "NO_ANSWER"})
    assert machine.state.output == "NO_ANSWER"
    machine = watching(fallback_code="last()")
    (effect,) = machine.ran(watched={"answer": " no_answer\n"})
    assert (effect.code, guards_of(machine)) == ("last()", ["no_answer"])
    machine.ran(watched={"answer": "found"})
    assert machine.state.output == "found"


def test_fallback_code_that_ran_is_not_run_when_the_run_gives_up_later():
    machine = watching(fallback_guard_steps=1, fallback_code="last()", repl_error_limit=2)
    machine.ran("seen")
    machine.ran(error=BOOM)
    go(machine, error=BOOM)
    assert (machine.state.status, guards_of(machine)[-1]) == ("failed", "repl_error_limit")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"auto_finalize_reject_patterns": ("(",)}, "no regular expression"),
        ({"auto_finalize_reject_patterns": "no"}, "give a tuple"),
        ({"auto_finalize_reject_patterns": (1,)}, "give a tuple"),
        ({"subcall_guard_steps": 0}, "1 or more"),
        ({"auto_finalize_reject_limit": 0}, "1 or more"),
    ],
)
def test_options_of_guards_that_cannot_work_are_refused(options: dict, said: str):
    with pytest.raises(UsageError, match=re.escape(said)):
        Options(**options)


# -- with real sessions ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_guards_work_on_what_real_code_leaves(backend: str):
    script = [
        code("answer = None"),
        code("answer = ''"),
        code("answer = 'Unsure, perhaps Ada'"),
        code("answer = 'Ada'; 1/0"),
        code("answer = 'Ada Lovelace'"),
    ]
    adapter = FakeAdapter(script=script)
    result = run(
        "Who?",
        "Ada Lovelace wrote it.",
        adapter=adapter,
        log=":memory:",
        repl_backend=backend,
        auto_finalize_var="answer",
        auto_finalize_reject_patterns=["^unsure"],
        auto_finalize_min_length=5,
        fallback_guard_steps=2,
    )
    assert (result.status, result.output) == ("finished", "Ada Lovelace")
    tripped = [step.prompt_summary for step in result.trace if step.kind == "guard"]
    assert tripped == ["fallback_guard_steps", "auto_finalize_reject_patterns"]


def test_the_trace_shows_the_fallback_code_that_a_guard_ran():
    script = [code("1/0") + "\n" + code("never = 1"), code("answer = 'too late'")]
    result = run(
        "Who?",
        "Ada Lovelace wrote it.",
        adapter=FakeAdapter(script=script),
        log=":memory:",
        auto_finalize_var="answer",
        fallback_guard_steps=1,
        fallback_code="answer = P[:3]",
    )
    assert (result.status, result.output) == ("finished", "Ada")
    cells = [step.code for step in result.trace if step.kind == "repl_exec"]
    assert cells == ["1/0", "answer = P[:3]"]


def test_a_run_that_gives_up_is_a_result():
    adapter = FakeAdapter(script=["Hm.", "Hm, hm."])
    result = run("Who?", "text", adapter=adapter, log=":memory:", invalid_response_limit=2)
    assert (result.status, len(adapter.call_log)) == ("failed", 2)
    guards = [step.prompt_summary for step in result.trace if step.kind == "guard"]
    assert guards == ["no_code", "no_code", "invalid_response_limit"]


def test_a_lone_pattern_is_an_error_and_not_a_pattern_for_each_letter():
    with pytest.raises(UsageError, match="give a list of patterns"):
        RLM(adapter=FakeAdapter(script=[]), auto_finalize_reject_patterns="no")


# -- guards and limits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", [Policy(max_subcalls=0), Policy(max_subcall_tokens=0), Policy(max_subcall_tokens=9)]
)
def test_no_subcall_is_asked_for_where_the_limits_leave_no_room_for_any(policy: Policy):
    machine = Machine()
    machine.start(policy=policy, require_subcall_before_final=True, subcall_guard_steps=1)
    machine.reply(code("x = 1"))
    machine.ran()
    assert guards_of(machine) == []
    machine.reply("FINAL: 42")
    assert (machine.state.status, machine.state.output) == ("finished", "42")


def test_subcalls_that_a_limit_forbids_do_not_satisfy_the_guard():
    machine = Machine()
    machine.start(policy=Policy(max_subcalls=1), require_subcall_before_final=True)
    machine.reply(code("llm_batch(['a', 'b'])"))
    machine.pause("a", "b")
    machine.ran(error=BOOM)
    machine.reply("FINAL: 42")
    assert guards_of(machine) == ["require_subcall"]


def test_a_subcall_whose_model_failed_satisfies_the_guard():
    machine = Machine()
    machine.start(require_subcall_before_final=True)
    machine.reply(code("llm_query('a')"))
    machine.pause("a")
    machine.fail("0.1")
    machine.ran(error=BOOM)
    machine.reply("FINAL: 42")
    assert machine.state.status == "finished"


@pytest.mark.parametrize("error", [None, "can't be shown"])
def test_a_model_that_names_a_missing_variable_again_and_again_is_stopped(error: str | None):
    machine = Machine()
    machine.start(invalid_response_limit=2, fallback_code="answer = 'FB'")
    for number in (1, 2):
        machine.reply("FINAL_VAR: nope")
        machine.send(
            VariableRead(frame="0", call_id=f"0.r{number}", name="nope", text=None, error=error)
        )
    missing = "unreadable_variable" if error else "missing_variable"
    assert guards_of(machine) == [missing, missing, "invalid_response_limit"]
    machine.ran(watched={"answer": "FB"})
    assert (machine.state.status, machine.state.output) == ("finished", "FB")


def test_a_missing_variable_after_code_is_no_invalid_reply():
    machine = Machine()
    machine.start(invalid_response_limit=1)
    machine.reply(code("x = 1") + "\nFINAL_VAR: nope")
    machine.ran()
    machine.read(None)
    assert guards_of(machine) == ["missing_variable"]


TOOL = ToolSpec(name="look")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": Policy(max_steps=3), "min_steps": 4}, "min_steps=4 with Policy(max_steps=3)"),
        (
            {"policy": Policy(max_subcalls=0), "require_subcall_before_final": True},
            "with Policy(max_subcalls=0)",
        ),
        ({"auto_finalize_var": "class"}, "is a word of Python's own"),
        ({"auto_finalize_var": "peek"}, "is a name of the runtime's own"),
        ({"auto_finalize_var": "look", "tools": (TOOL,)}, "is the name of a tool"),
    ],
)
def test_guards_that_no_run_could_satisfy_are_refused_for_new_runs(options: dict, said: str):
    with pytest.raises(UsageError, match=re.escape(said)):
        check_guards(Options(**options), {"answer", "peek"})


@pytest.mark.parametrize(
    "options",
    [
        {"policy": Policy(max_steps=3), "min_steps": 3},
        {"policy": Policy(max_steps=0), "min_steps": 3},
        {"auto_finalize_var": "answer"},
        {},
    ],
)
def test_guards_that_may_be_satisfied_are_not_refused(options: dict):
    check_guards(Options(**options), {"answer", "peek"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_steps": 5, "policy": Policy(max_steps=2)}, "min_steps=5 with"),
        (
            {"require_subcall_before_final": True, "policy": Policy(max_subcalls=0)},
            "no subcall may be made",
        ),
        ({"auto_finalize_var": "P"}, "auto_finalize_var='P'"),
        ({"auto_finalize_var": "llm_query"}, "auto_finalize_var='llm_query'"),
        ({"auto_finalize_var": "class"}, "a word of Python's own"),
    ],
)
def test_guards_that_no_run_can_satisfy_are_refused_before_anything_starts(
    options: dict[str, Any], says: str
):
    adapter = FakeAdapter(script=["FINAL: 1"])
    with pytest.raises(UsageError, match=says):
        run("q", "t", adapter=adapter, log=":memory:", **options)
    assert adapter.call_log == []
