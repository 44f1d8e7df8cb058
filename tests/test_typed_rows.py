"""Rows of the table that have to do with types: checks of answers, calls with a schema."""

import pytest
from machine import Machine, code, kinds, names

from rlm_fsm.errors import IllegalEvent
from rlm_fsm.event import AnswerChecked, DeadlinePassed, ModelReplied, RunResumed
from rlm_fsm.fold import fold, pending
from rlm_fsm.policy import Policy
from rlm_fsm.state import Phase
from rlm_fsm.values import GivenFinal, Problem

SCHEMA = '{"type":"integer"}'
MISFIT = (Problem(path="", message="no integer", found='"x"'),)


def checking(**options) -> Machine:
    machine = Machine()
    machine.start(answer_schema=SCHEMA, **options)
    assert kinds(machine.reply("FINAL: x")) == ["CheckAnswer 0.k1"]
    return machine


def asking(*prompts: str, **options) -> Machine:
    machine = Machine()
    machine.start(**options)
    machine.reply(code("ask()"))
    machine.pause(*prompts, schema=SCHEMA)
    return machine


def test_an_answer_that_fits_ends_the_run_with_its_value() -> None:
    machine = checking()
    machine.checked("0.k1", "7")
    assert (machine.state.status, machine.state.output, machine.state.value) == (
        "finished",
        "x",
        "7",
    )


def test_an_answer_that_does_not_fit_is_refused_and_asked_for_again() -> None:
    machine = checking()
    machine.checked("0.k1", problems=MISFIT, more_problems=2)
    assert names(machine.commits[-1]) == ["AnswerChecked", "GuardTripped", "EffectStarted"]
    told = machine.frame().messages[-1].content
    assert '- the value: no integer; found "x"\n- and 2 more' in told


def test_answers_that_do_not_fit_are_no_invalid_replies() -> None:
    machine = checking(invalid_response_limit=1)
    machine.checked("0.k1", problems=MISFIT)
    assert machine.frame().phase is Phase.ASKING
    assert machine.frame().invalid == 0


def test_what_the_cells_showed_is_told_with_the_refusal() -> None:
    machine = Machine()
    machine.start(answer_schema=SCHEMA)
    machine.reply(code("print(5)\nSUBMIT('x')"))
    machine.ran("5", final=GivenFinal(form="SUBMIT", text="x"))
    machine.checked("0.k1", problems=MISFIT)
    assert "Output:\n5" in machine.frame().messages[-1].content


def test_guards_come_before_the_check() -> None:
    machine = Machine()
    machine.start(answer_schema=SCHEMA, require_repl_before_final=True)
    machine.reply("FINAL: 7")
    assert "GuardTripped" in names(machine.commits[-1])
    assert machine.frame().phase is Phase.ASKING


@pytest.mark.parametrize("stop", ["cancel", "deadline"])
def test_a_check_can_be_stopped_and_taken_up_again(stop: str) -> None:
    machine = checking(policy=Policy(max_seconds=9))
    if stop == "cancel":
        machine.cancel()
    else:
        machine.send(DeadlinePassed(clock_s=9))
    assert machine.state.status in ("cancelled", "partial")
    assert kinds(machine.send(RunResumed())) == ["CheckAnswer 0.k1"]
    machine.checked("0.k1", "7")
    assert machine.state.value == "7"


def test_the_check_is_owed_after_a_crash() -> None:
    machine = checking()
    assert kinds(pending(fold(machine.log))) == ["CheckAnswer 0.k1"]
    calls = asking("one")
    calls.reply("7")
    assert kinds(pending(fold(calls.log))) == ["CheckAnswer 0.1"]


@pytest.mark.parametrize("check", ["0.k2", "0.1"])
def test_an_outcome_of_no_check_is_illegal(check: str) -> None:
    with pytest.raises(IllegalEvent, match="nothing of this name"):
        checking().send(AnswerChecked(frame="0", call_id=check, value="1"))


@pytest.mark.parametrize(("value", "status"), [("7", "partial"), (None, "partial")])
def test_a_closing_answer_is_checked_and_taken_anyway(value: str | None, status: str) -> None:
    machine = Machine()
    machine.start(answer_schema=SCHEMA, policy=Policy(max_steps=1))
    machine.reply(code("x = 1"))
    machine.ran("1")
    assert kinds(machine.reply("FINAL: x")) == ["CheckAnswer 0.k1"]
    assert machine.frame().phase is Phase.CLOSING
    machine.checked("0.k1", value, problems=() if value else MISFIT)
    assert (machine.state.status, machine.state.output, machine.state.value) == (status, "x", value)


def test_going_on_after_a_limit_forgets_the_old_value() -> None:
    machine = Machine()
    machine.start(answer_schema=SCHEMA, policy=Policy(max_steps=1))
    machine.reply(code("x = 1"))
    machine.ran("1")
    machine.reply("FINAL: 7")
    machine.checked("0.k1", "7")
    machine.send(RunResumed())
    assert machine.state.value is None


def test_a_sub_run_answers_in_words() -> None:
    machine = Machine()
    machine.start(answer_schema=SCHEMA, recursive_subcalls=True)
    machine.reply(code("ask()"))
    machine.pause("piece", recursive=True)
    assert SCHEMA not in machine.frame("0.1").messages[-1].content
    assert kinds(machine.reply("FINAL: words")) == ["ResumeCode 0.c1"]


def test_a_reply_that_fits_is_the_outcome() -> None:
    machine = asking("one")
    machine.reply("seven: 7")
    (resume,) = machine.checked("0.1", "7")
    assert [outcome.text for outcome in resume.outcomes] == ["7"]
    assert machine.frame().pause is None


def test_the_place_of_a_call_is_free_while_its_reply_is_checked() -> None:
    machine = asking("one", "two", max_concurrent_subcalls=1)
    assert kinds(machine.reply("7")) == ["CheckAnswer 0.1", "CallModel 0.2"]
    assert machine.state.in_flight == 1


def test_a_second_attempt_goes_before_calls_that_wait() -> None:
    machine = asking("one", "two", "three", max_concurrent_subcalls=1)
    machine.reply("x")
    machine.checked("0.1", problems=MISFIT)
    assert kinds(machine.reply("7", "0.2")) == ["CheckAnswer 0.2", "CallModel 0.1~2"]


def test_calls_one_after_the_other_wait_for_the_second_attempt() -> None:
    machine = Machine()
    machine.start()
    machine.reply(code("ask()"))
    machine.pause("one", "two", parallel=False, schema=SCHEMA)
    machine.reply("x")
    assert kinds(machine.checked("0.1", problems=MISFIT)) == ["CallModel 0.1~2"]
    machine.reply("7")
    assert kinds(machine.checked("0.1~2", "7")) == ["CallModel 0.2"]


def test_a_second_attempt_beyond_a_limit_is_answered_with_the_limit() -> None:
    machine = asking("one", policy=Policy(max_subcall_tokens=1_000))
    machine.reply("x", tokens=990)
    (resume,) = machine.checked("0.1", problems=MISFIT)
    assert [outcome.kind for outcome in resume.outcomes] == ["limit"]


def test_a_second_attempt_that_fails_is_an_error_of_the_call() -> None:
    machine = asking("one")
    machine.reply("x")
    machine.checked("0.1", problems=MISFIT)
    (resume,) = machine.fail()
    assert [outcome.kind for outcome in resume.outcomes] == ["error"]


def test_the_second_attempt_counts_as_no_subcall_and_its_tokens_count() -> None:
    machine = asking("one")
    machine.reply("x")
    machine.checked("0.1", problems=MISFIT)
    machine.reply("7")
    assert machine.state.spent.subcalls == 1
    assert machine.state.spent.model_calls == 3


def test_equal_calls_with_a_schema_are_made_once() -> None:
    machine = Machine()
    machine.start()
    machine.reply(code("ask()"))
    machine.pause("one", "one", schema=SCHEMA)
    assert kinds(machine.effects) == ["CallModel 0.1"]


def test_a_second_attempt_in_flight_is_uncertain_and_made_again_on_resume() -> None:
    machine = asking("one")
    machine.reply("x")
    machine.checked("0.1", problems=MISFIT)
    machine.cancel()
    assert kinds(machine.send(RunResumed())) == ["CallModel 0.1~2"]
    assert machine.state.uncertain == 1
    assert isinstance(machine.log[2], ModelReplied)
