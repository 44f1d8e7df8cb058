"""The watched variable: when its value is judged, by whom, and what the fallback makes of it."""

import pytest
from machine import BOOM, Machine, code

from rlm_fsm import FakeAdapter, RunResult, run
from rlm_fsm.event import GuardTripped
from rlm_fsm.values import GivenFinal

both = pytest.mark.parametrize("backend", ["python", "monty"])


def watching(reply: str = "ans = 1", **options: object) -> Machine:
    """A run that watches `ans`, with a cell under way."""
    machine = Machine()
    machine.start(auto_finalize_var="ans", **options)
    machine.reply(code(reply))
    return machine


def leaves(machine: Machine, text: str, **ended: object) -> None:
    """The cell ends, with this value of the watched variable."""
    machine.ran(watched={"ans": text} if text else {}, **ended)


def turn(machine: Machine, text: str, **ended: object) -> None:
    """One more turn of other code."""
    machine.reply(code(f"step = {machine.frame().turns}"))
    leaves(machine, text, **ended)


def guards_of(machine: Machine) -> list[str]:
    return [event.guard for event in machine.log if isinstance(event, GuardTripped)]


def newest(machine: Machine) -> str:
    return machine.frame().messages[-1].content


def ended(machine: Machine) -> tuple[str, str]:
    return machine.state.status, machine.state.output


def go(script: list[str], backend: str = "python", **options: object) -> RunResult:
    adapter = FakeAdapter(script=script)
    adapter.add_rule("You are a sub-LLM", "sub")
    return run("Q", "text", adapter=adapter, log=":memory:", repl_backend=backend, **options)


# -- a variable that is named ---------------------------------------------------------------------

UNKNOWN = {"auto_finalize_reject_patterns": ("unknown",), "auto_finalize_reject_limit": 3}


def test_a_named_value_that_a_pattern_matches_is_refused_and_counted_each_time():
    machine = watching(**UNKNOWN)
    leaves(machine, "unknown")
    for number in (2, 3):
        assert machine.state.status == "running"
        machine.reply("FINAL_VAR: ans")
        machine.read("unknown")
        assert guards_of(machine)[:number] == ["auto_finalize_reject_patterns"] * number
    assert guards_of(machine)[-1] == "auto_finalize_reject_limit"
    assert machine.state.status == "failed"


def test_a_value_is_counted_once_in_a_reply_that_sets_and_names_it():
    machine = Machine()
    machine.start(auto_finalize_var="ans", **UNKNOWN)
    machine.reply(code("ans = 'unknown'") + "\nFINAL_VAR: ans")
    leaves(machine, "unknown")
    machine.read("unknown")
    assert (guards_of(machine), machine.frame().rejects) == (["auto_finalize_reject_patterns"], 1)
    assert "Output:\n" in newest(machine)
    turn(machine, "Ada")
    assert ended(machine) == ("finished", "Ada")


def test_a_named_value_that_is_too_short_is_refused_and_an_invalid_reply():
    machine = watching(auto_finalize_min_length=5, invalid_response_limit=1)
    leaves(machine, "a")
    assert machine.state.status == "running", "the reply had code"
    machine.reply("FINAL_VAR: ans")
    machine.read("a")
    assert guards_of(machine)[1:] == ["auto_finalize_min_length", "invalid_response_limit"]


def test_another_variable_and_an_answer_in_words_are_not_judged_as_values():
    machine = watching(**UNKNOWN)
    leaves(machine, "")
    machine.reply("FINAL_VAR: other")
    machine.read("unknown")
    assert ended(machine) == ("finished", "unknown")
    machine = watching(**UNKNOWN)
    machine.ran(final=GivenFinal(form="SUBMIT", text="unknown"))
    assert ended(machine) == ("finished", "unknown")


def test_a_call_of_final_var_has_a_refused_value_judged_again():
    machine = watching(**UNKNOWN)
    leaves(machine, "unknown")
    turn(machine, "unknown", final=GivenFinal(form="FINAL_VAR", text="unknown"))
    assert guards_of(machine) == ["auto_finalize_reject_patterns"] * 2
    turn(machine, "unknown")
    assert guards_of(machine) == ["auto_finalize_reject_patterns"] * 2


def test_a_call_of_final_var_with_a_good_value_ends_the_run():
    machine = watching(**UNKNOWN)
    leaves(machine, "Ada", final=GivenFinal(form="FINAL_VAR", text="Ada"))
    assert ended(machine) == ("finished", "Ada")


@both
@pytest.mark.parametrize(
    "naming",
    [
        [code("ans = 'unknown'"), "FINAL_VAR: ans"],
        [code("ans = 'unknown'") + "\nFINAL_VAR: ans"],
        [code("ans = 'unknown'\nFINAL_VAR('ans')")],
    ],
)
def test_naming_the_variable_is_no_way_around_its_guards(backend: str, naming: list[str]):
    result = go(
        [*naming, code("ans = 'Ada'")],
        backend,
        auto_finalize_var="ans",
        auto_finalize_reject_patterns=["unknown"],
    )
    assert (result.status, result.output) == ("finished", "Ada")


def test_blanks_around_a_value_do_not_make_it_longer():
    machine = watching(auto_finalize_min_length=5)
    leaves(machine, "  ab  ")
    assert guards_of(machine) == ["auto_finalize_min_length"]
    assert "ans holds 2 characters" in newest(machine)


def test_feedback_has_its_places_filled_and_keeps_other_braces():
    feedback = "{var} matched {pattern}: {count} of {limit}, {remaining} left. Use {'a': 1}, {b}."
    machine = watching(**UNKNOWN, auto_finalize_reject_feedback=feedback)
    leaves(machine, "unknown")
    told = "ans matched unknown: 1 of 3, 2 left. Use {'a': 1}, {b}."
    assert told in newest(machine)


# -- a cell that raised ---------------------------------------------------------------------------


def test_what_a_cell_left_that_raised_is_told_and_counts_only_when_it_changes():
    machine = watching()
    leaves(machine, "draft", error=BOOM)
    assert "Your final answer (ans) was not accepted, since the code raised" in newest(machine)
    assert "draft" in newest(machine)
    turn(machine, "draft")
    assert machine.state.status == "running"
    turn(machine, "done")
    assert ended(machine) == ("finished", "done")


def test_what_a_cell_left_that_raised_counts_when_it_is_named():
    machine = watching()
    leaves(machine, "draft", error=BOOM)
    machine.reply("FINAL_VAR: ans")
    machine.read("draft")
    assert ended(machine) == ("finished", "draft")


def test_a_value_of_an_earlier_cell_outlives_one_that_raises():
    machine = watching(min_steps=3)
    leaves(machine, "kept")
    turn(machine, "kept", error=BOOM)
    assert "(ans)" not in newest(machine)
    turn(machine, "kept")
    assert ended(machine) == ("finished", "kept")


@pytest.mark.parametrize("text", ["draft", "unknown"])
def test_fallback_code_has_not_answered_with_what_was_left_by_a_cell_that_raised(text: str):
    machine = watching(**UNKNOWN, repl_error_limit=1, fallback_code="last()")
    leaves(machine, text, error=BOOM)
    leaves(machine, text)
    assert machine.state.status == "failed"


def test_fallback_code_has_not_answered_with_a_value_that_would_be_refused():
    machine = watching(**UNKNOWN, min_steps=5, invalid_response_limit=1, fallback_code="last()")
    leaves(machine, "unknown", final=GivenFinal(form="FINAL", text="no"))
    machine.reply("Hm.")
    leaves(machine, "unknown")
    assert machine.state.status == "failed"


def test_fallback_code_may_answer_in_answer_beside_a_value_that_was_refused():
    machine = watching(**UNKNOWN | {"auto_finalize_reject_limit": 1}, fallback_code="last()")
    leaves(machine, "unknown")
    machine.ran(watched={"ans": "unknown", "answer": "Ada"})
    assert ended(machine) == ("finished", "Ada")


@both
def test_a_draft_is_no_answer_in_real_sessions(backend: str):
    script = [code("ans = 'draft'\n1/0"), code("print('checking')"), "FINAL: other"]
    result = go(script, backend, auto_finalize_var="ans")
    assert result.output == "other"


# -- texts that say nothing -----------------------------------------------------------------------


@both
def test_the_run_goes_on_when_the_fallback_code_found_no_more_than_no_answer(backend: str):
    script = [code("ans = 'NO_ANSWER'"), code("ans = 'found'")]
    result = go(script, backend, auto_finalize_var="ans", fallback_code="print('looked')")
    assert result.output == "found"


def test_no_answer_is_an_answer_when_it_is_named_after_the_fallback_code_ran():
    machine = watching(fallback_code="last()")
    leaves(machine, "NO_ANSWER")
    leaves(machine, "NO_ANSWER")
    assert "It gave no answer" in newest(machine)
    turn(machine, "NO_ANSWER")
    assert machine.state.status == "running"
    machine.reply("FINAL_VAR: ans")
    machine.read("NO_ANSWER")
    assert ended(machine) == ("finished", "NO_ANSWER")


@pytest.mark.parametrize("text", ["none", " 0 ", "NO_ANSWER"])
def test_a_guard_on_steps_that_is_due_takes_no_text_that_says_nothing(text: str):
    machine = watching(fallback_guard_steps=1)
    leaves(machine, text)
    assert guards_of(machine) == ["fallback_guard_steps"]
    turn(machine, text)
    assert machine.state.status == "running"
    turn(machine, "42")
    assert ended(machine) == ("finished", "42")


def test_a_guard_on_steps_that_is_not_due_takes_any_text():
    machine = watching(fallback_guard_steps=2)
    leaves(machine, "none")
    assert ended(machine) == ("finished", "none")


@both
def test_fallback_code_answers_where_a_value_says_nothing(backend: str):
    options = {"fallback_guard_steps": 1, "fallback_code": "ans = 'fb'"}
    result = go([code("ans = 'none'")], backend, auto_finalize_var="ans", **options)
    assert result.output == "fb"


def test_a_value_that_waits_for_another_guard_holds_the_guard_on_steps_off():
    machine = watching(min_steps=9, fallback_guard_steps=2)
    leaves(machine, "42")
    machine.reply("FINAL: 42")
    assert guards_of(machine) == ["min_steps", "min_steps"]


# -- types ----------------------------------------------------------------------------------------


@both
def test_a_value_that_does_not_fit_is_checked_again_only_when_it_changes(backend: str):
    script = [code("ans = 'x'"), *(code(f"y = {n}") for n in range(4)), code("ans = 5")]
    result = go(script, backend, auto_finalize_var="ans", output_type=int)
    assert (result.status, result.value) == ("finished", 5)
    guards = [step.prompt_summary for step in result.trace if step.kind == "guard"]
    assert guards == ["answer_type"]


@both
@pytest.mark.parametrize(
    "naming", ["ans = {'a': [1, None]}", "ans = {'a': [1, None]}\nFINAL_VAR('ans')"]
)
def test_a_value_is_read_as_the_type_asks_also_when_code_names_it(backend: str, naming: str):
    result = go(
        [code(naming)], backend, auto_finalize_var="ans", output_type=dict[str, list[int | None]]
    )
    assert (result.status, result.value) == ("finished", {"a": [1, None]})


# -- several blocks -------------------------------------------------------------------------------

EARLY = GivenFinal(form="FINAL", text="early")


def two_blocks(**options: object) -> Machine:
    machine = Machine()
    machine.start(**options)
    machine.reply(code("z = 1\nFINAL('early')") + "\n" + code("x = llm_query('q')"))
    return machine


def test_the_later_blocks_may_do_what_an_answer_of_an_earlier_one_lacks():
    machine = two_blocks(require_subcall_before_final=True)
    (effect,) = machine.ran(final=EARLY)
    assert effect.code == "x = llm_query('q')"
    machine.pause("q")
    machine.reply("A", "0.1")
    machine.ran()
    assert ended(machine) == ("finished", "early")


def test_a_later_answer_goes_before_an_earlier_one_that_was_refused():
    machine = two_blocks(require_subcall_before_final=True)
    machine.ran(final=EARLY)
    machine.pause("q")
    machine.reply("A", "0.1")
    machine.ran(final=GivenFinal(form="FINAL", text="late"))
    assert ended(machine) == ("finished", "late")


def test_a_variable_that_is_named_later_goes_before_an_earlier_answer():
    machine = two_blocks(require_subcall_before_final=True, auto_finalize_var="ans")
    machine.ran(final=EARLY)
    machine.pause("q")
    machine.reply("A", "0.1")
    leaves(machine, "late", final=GivenFinal(form="FINAL_VAR", text="late"))
    assert ended(machine) == ("finished", "late")


def test_an_answer_is_refused_after_the_last_block_when_none_helped():
    machine = two_blocks(require_subcall_before_final=True)
    machine.ran(final=EARLY)
    machine.ran("seen")
    assert guards_of(machine) == ["require_subcall"]
    assert "seen" in newest(machine)
    machine.reply(code("y = 1"))
    machine.ran()
    assert guards_of(machine) == ["require_subcall"], "the answer was that turn's"


def test_an_answer_of_an_earlier_block_is_told_when_a_later_one_raises():
    machine = two_blocks(require_subcall_before_final=True)
    machine.ran(final=EARLY)
    machine.ran(error=BOOM)
    assert "Your final answer (FINAL) was not accepted" in newest(machine)
    assert "early" in newest(machine)


@both
def test_all_blocks_run_in_real_sessions(backend: str):
    reply = code("z = 1\nFINAL('early')") + "\n" + code("x = llm_query('q')\nFINAL(x)")
    result = go([reply], backend, require_subcall_before_final=True)
    assert (result.output, result.usage.total_tokens > 0) == ("sub", True)


@pytest.mark.parametrize("backend", ["python", "monty"])
@pytest.mark.parametrize("value", ["len", "lambda: 1", "math", "Kind", "mine"])
def test_a_function_a_class_or_a_module_is_no_value(value: str, backend: str) -> None:
    begin = "import math\nclass Kind:\n    pass\ndef mine():\n    pass\n"
    script = [f"```python\n{begin}ans = {value}\n```", "```python\nans = 'found'\n```"]
    adapter = FakeAdapter(script=[*script, "FINAL: late"])
    result = run(
        "q", "t", adapter=adapter, repl_backend=backend, auto_finalize_var="ans", log=":memory:"
    )
    assert result.output == "found"
