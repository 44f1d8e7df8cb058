"""A test per row of the table, in its order, and the full product of phases and events."""

from dataclasses import replace

import pytest
from machine import BOOM, Machine, code, kinds, names, replied
from pyrsistent import pmap

from rlm_fsm.errors import IllegalEvent, ReplayDiverged
from rlm_fsm.event import (
    DERIVED,
    EVENTS,
    AnswerChecked,
    ApprovalAsked,
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodeExecuted,
    CodePaused,
    DeadlinePassed,
    EffectStarted,
    GuardTripped,
    HistoryCompacted,
    LimitReached,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    ToolFailed,
    ToolReturned,
    VariableRead,
)
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.profiles import PYRLM
from rlm_fsm.reducer import IMPOSSIBLE, TRANSITIONS, step
from rlm_fsm.state import INITIAL, Frame, Phase
from rlm_fsm.values import GivenFinal, HostCall, Outcome

from machine import TEXT  # isort: skip


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.start()
    return machine


@pytest.fixture
def running(machine: Machine) -> Machine:
    machine.reply(code("x = 1"))
    return machine


@pytest.fixture
def reading(machine: Machine) -> Machine:
    machine.reply("FINAL_VAR: x")
    return machine


@pytest.fixture
def closing() -> Machine:
    machine = Machine()
    machine.start(policy=Policy(max_steps=1))
    machine.reply(code("print(7)"))
    machine.ran("7\n")
    return machine


# -- NEW ------------------------------------------------------------------------------------------


def test_new_opens_the_root_and_asks_the_model():
    machine = Machine()
    effects = machine.start()
    assert names(machine.commits[0]) == ["RunStarted", "EffectStarted"]
    assert kinds(effects) == ["CallModel 0.m1"]
    assert machine.frame().phase is Phase.ASKING
    assert [message.role for message in machine.frame().messages] == ["system", "user"]
    assert "What?" in machine.frame().messages[1].content


def test_new_with_no_steps_makes_no_call():
    machine = Machine()
    assert machine.start(policy=Policy(max_steps=0)) == ()
    assert names(machine.commits[0]) == ["RunStarted", "LimitReached", "RunFinished"]
    assert (machine.state.status, machine.state.limit) == ("partial", "max_steps")


# -- ASKING ---------------------------------------------------------------------------------------


def test_asking_runs_the_code_of_a_reply(machine: Machine):
    effects = machine.reply(code("x = 1"))
    assert kinds(effects) == ["RunCode 0.c1"]
    assert effects[0].code == "x = 1"
    assert machine.frame().phase is Phase.RUNNING


def test_asking_ends_with_a_text_answer(machine: Machine):
    assert machine.reply("FINAL: 42") == ()
    assert names(machine.commits[-1]) == ["ModelReplied", "RunFinished"]
    assert (machine.state.status, machine.state.output) == ("finished", "42")
    assert machine.frame().phase is Phase.DONE


def test_asking_reads_the_variable_of_an_answer(machine: Machine):
    assert kinds(machine.reply("FINAL_VAR: x")) == ["ReadVariable 0.r1"]
    assert machine.frame().phase is Phase.READING


def test_asking_refuses_a_reply_without_code_or_answer(machine: Machine):
    effects = machine.reply("I will think about it.")
    assert names(machine.commits[-1]) == ["ModelReplied", "GuardTripped", "EffectStarted"]
    assert kinds(effects) == ["CallModel 0.m2"]
    tripped = machine.commits[-1][1]
    assert tripped.reason in machine.frame().messages[-1].content


def test_asking_fails_when_the_model_fails(machine: Machine):
    assert machine.fail(error="auth") == ()
    assert machine.frame().phase is Phase.FAILED
    assert (machine.state.status, machine.state.cause) == ("failed", "auth")


def test_asking_asks_again_after_a_guard_tripped(machine: Machine):
    machine.reply("")
    assert machine.frame().invalid == 1
    assert machine.frame().phase is Phase.ASKING


def test_asking_gives_up_after_too_many_refused_replies():
    machine = Machine()
    machine.start(invalid_response_limit=2)
    machine.reply("Hm.")
    assert machine.reply("Hm.") == ()
    assert (machine.state.status, machine.state.cause) == ("failed", "guard")
    assert "2 refused replies" in (machine.state.error or "")


def test_asking_closes_when_a_limit_is_reached(closing: Machine):
    assert closing.frame().phase is Phase.CLOSING
    assert kinds(closing.effects) == ["CallModel 0.m2"]
    assert closing.effects[0].purpose == "closing"
    assert "max_steps" in closing.frame().messages[-1].content


def test_asking_fails_at_a_limit_when_the_policy_says_raise():
    machine = Machine()
    machine.start(policy=Policy(max_steps=1, on_limit="raise"))
    machine.reply(code("print(7)"))
    assert machine.ran("7\n") == ()
    assert (machine.state.status, machine.state.limit) == ("failed", "max_steps")
    assert machine.state.output == "7"


def test_asking_ends_at_a_token_limit_that_leaves_no_room_for_a_last_call():
    machine = Machine()
    machine.start(policy=Policy(max_total_tokens=5_000))
    machine.reply(code("print(7)"), tokens=4_900)
    assert machine.ran("7\n") == ()
    assert (machine.state.status, machine.state.limit) == ("partial", "max_total_tokens")
    assert machine.state.output == "7"


def test_asking_is_cancelled_and_stays_where_it_is(machine: Machine):
    machine.cancel()
    assert machine.state.status == "cancelled"
    assert machine.frame().phase is Phase.ASKING


# -- RUNNING --------------------------------------------------------------------------------------


def test_running_waits_for_host_calls(running: Machine):
    effects = running.pause("a", "b")
    assert kinds(effects) == ["CallModel 0.1", "CallModel 0.2"]
    assert names(running.commits[-1]) == ["CodePaused", "EffectStarted", "EffectStarted"]
    assert running.frame().phase is Phase.WAITING


def test_running_resumes_at_once_when_the_subcall_limit_forbids_the_batch():
    machine = Machine()
    machine.start(policy=Policy(max_subcalls=2))
    machine.reply(code("x"))
    (resumed,) = machine.pause("a", "b", "c")
    assert [outcome.kind for outcome in resumed.outcomes] == ["limit"] * 3
    assert machine.state.spent.subcalls == 0


def test_running_resumes_at_once_when_the_code_asks_for_the_time(running: Machine):
    cell = running.frame().cell
    assert cell is not None
    asked = (HostCall(fn="time", prompt="", kind="clock"),)
    pause = CodePaused(frame="0", call_id=cell.id, calls=asked, now_s=1795371300.25)
    (resumed,) = running.send(pause)
    assert resumed.outcomes == (Outcome("text", "1795371300.250000"),)
    assert names(running.commits[-1]) == ["CodePaused"]
    assert running.state.spent.subcalls == 0


def test_running_says_so_when_a_pause_holds_no_time(running: Machine):
    cell = running.frame().cell
    assert cell is not None
    asked = (HostCall(fn="time", prompt="", kind="clock"),)
    (resumed,) = running.send(CodePaused(frame="0", call_id=cell.id, calls=asked))
    assert [outcome.kind for outcome in resumed.outcomes] == ["error"]


def test_running_shows_the_output_and_asks_again(running: Machine):
    effects = running.ran("hello\n")
    assert kinds(effects) == ["CallModel 0.m2"]
    assert names(running.commits[-1]) == ["CodeExecuted", "EffectStarted"]
    assert "hello" in running.frame().messages[-1].content


def test_running_runs_the_next_block_and_then_takes_the_answer(machine: Machine):
    machine.reply(code("a = 1") + "\n" + code("b = 2") + "\nFINAL: done")
    assert kinds(machine.ran("")) == ["RunCode 0.c2"]
    machine.ran("")
    assert machine.state.output == "done"


def test_running_stops_at_the_block_that_raises_and_takes_no_answer(machine: Machine):
    machine.reply(code("a = 1") + "\n" + code("b = 2") + "\nFINAL: done")
    assert kinds(machine.ran("", error=BOOM)) == ["CallModel 0.m2"]
    assert "ValueError: boom" in machine.frame().messages[-1].content
    assert machine.frame().todo == ()


def test_running_ends_when_the_watched_variable_is_set():
    machine = Machine()
    machine.start(auto_finalize_var="answer")
    (run,) = machine.reply(code("answer = 5"))
    assert run.watch == ("answer",)
    machine.ran("", watched={"answer": "5"})
    assert (machine.state.status, machine.state.output) == ("finished", "5")


def test_running_does_not_end_when_the_cell_that_set_the_variable_raised():
    machine = Machine()
    machine.start(auto_finalize_var="answer")
    machine.reply(code("answer = 5; 1/0"))
    machine.ran("", watched={"answer": "5"}, error=BOOM)
    assert machine.state.status == "running"


GIVEN = GivenFinal(form="SUBMIT", text="given")


def test_running_ends_with_an_answer_that_the_code_gave(running: Machine):
    running.ran("so", final=GIVEN)
    assert (running.state.status, running.state.output) == ("finished", "given")


def test_running_takes_the_codes_answer_before_the_watched_variable_and_the_text():
    machine = Machine()
    machine.start(auto_finalize_var="v")
    machine.reply(f"{code('a')}\n{code('b')}\nFINAL: text")
    machine.ran(watched={"v": "watched"}, final=GIVEN)
    assert machine.state.output == "given"
    assert [type(event).__name__ for event in machine.log].count("CodeExecuted") == 1


def test_running_takes_no_answer_of_a_cell_that_raised_and_shows_it(running: Machine):
    running.ran(error=BOOM, final=GIVEN)
    assert running.state.status == "running"
    told = running.frame().messages[-1].content
    assert "boom" in told
    assert "(SUBMIT) was not accepted, since the code raised afterwards. It was:\ngiven" in told


def test_running_refuses_an_empty_answer_of_the_code(running: Machine):
    running.ran(final=GivenFinal(form="answer", text=" \n"))
    assert names(running.commits[-1]) == ["CodeExecuted", "GuardTripped", "EffectStarted"]
    assert running.log[-2].guard == "empty_answer"


def test_running_lets_guards_judge_the_codes_answer():
    machine = Machine()
    machine.start(require_subcall_before_final=True)
    machine.reply(code("x = 1"))
    machine.ran("seen", final=GIVEN)
    assert machine.log[-2].guard == "require_subcall"
    assert "seen" in machine.frame().messages[-1].content


def test_running_refuses_a_form_that_the_profile_does_not_accept():
    machine = Machine()
    machine.start(profile=replace(PYRLM, finals=("text",)))
    machine.reply(code("x = 1"))
    machine.ran(final=GIVEN)
    assert machine.log[-2].guard == "other_form"
    assert machine.log[-2].reason.startswith("SUBMIT is not how to finish here.")


def test_asking_gives_up_when_the_same_code_comes_again_and_again():
    machine = Machine()
    machine.start(loop_limit=3)
    for count in (1, 2):
        machine.reply(code("print(1)"))
        machine.ran("1")
        told = machine.frame().messages[-1].content
        assert ("this same code 2 times in a row" in told) == (count == 2)
    machine.reply(code("print(1)"))
    assert (machine.state.status, machine.state.cause) == ("failed", "guard")
    assert machine.state.error == "gave up: the same code came 3 times in a row"
    machine.send(RunResumed())
    assert "same code 3 times" in machine.frame().messages[-1].content


def test_other_code_in_between_is_no_loop():
    machine = Machine()
    machine.start(loop_limit=2)
    for number in range(6):
        machine.reply(code(f"print({number % 2})"))
        machine.ran("1")
    assert machine.state.status == "running"


def stalled(**options: object) -> Machine:
    """A run that has given up and runs its fallback code."""
    machine = Machine()
    machine.start(fallback_code="last()", invalid_response_limit=1, min_steps=9, **options)
    (effect,) = machine.reply("Hm.")
    assert effect.code == "last()"
    return machine


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        ({}, {"final": GIVEN}),
        ({}, {"watched": {"answer": "given"}}),
        ({"auto_finalize_var": "v"}, {"watched": {"v": "given"}}),
    ],
)
def test_fallback_code_gives_the_answer_of_a_run_that_would_give_up(options: dict, ended: dict):
    machine = stalled(**options)
    machine.ran(**ended)
    assert (machine.state.status, machine.state.output) == ("finished", "given")


@pytest.mark.parametrize(
    ("ended", "said"),
    [({}, "the fallback code gave no answer"), ({"error": BOOM}, "the fallback code raised")],
)
def test_a_run_fails_when_its_fallback_code_gives_no_answer(ended: dict, said: str):
    machine = stalled()
    machine.ran("seen", **ended)
    assert (machine.state.status, machine.state.output) == ("failed", "seen")
    assert machine.state.error.startswith("gave up after 1 refused replies in a row")
    assert said in machine.state.error


def test_fallback_code_without_a_repl_is_run_again():
    machine = stalled()
    machine.repl_fails()
    (effect,) = machine.send(RunResumed())
    assert effect.code == "last()"
    machine.ran(final=GIVEN)
    assert (machine.state.status, machine.state.output) == ("finished", "given")


def test_fallback_code_may_ask_sub_models():
    machine = stalled()
    machine.pause("a")
    (resumed,) = machine.reply("A", "0.1")
    assert resumed.outcomes[0].text == "A"
    machine.ran(final=GIVEN)
    assert machine.state.output == "given"


def test_a_sub_run_that_stalls_fails_without_the_fallback_code(running: Machine):
    machine = Machine()
    machine.start(
        fallback_code="last()",
        invalid_response_limit=1,
        recursive_subcalls=True,
        max_recursion_depth=2,
    )
    machine.reply(code("x = 1"))
    machine.pause("a")
    (resumed,) = machine.reply("Hm.", "0.1.m1")
    assert resumed.outcomes[0].kind == "error"


def test_a_sub_run_may_end_with_an_answer_of_its_code():
    machine = Machine()
    machine.start(recursive_subcalls=True, max_recursion_depth=2)
    machine.reply(code("x = 1"))
    machine.pause("a")
    machine.reply(code("y = 1"), "0.1.m1")
    (resumed,) = machine.ran(frame="0.1", final=GIVEN)
    assert resumed.outcomes[0].text == "given"


def test_running_gives_up_after_too_many_errors():
    machine = Machine()
    machine.start(repl_error_limit=1)
    machine.reply(code("1/0"))
    machine.ran("", error=BOOM)
    assert (machine.state.status, machine.state.cause) == ("failed", "guard")


def test_running_fails_when_there_is_no_repl(running: Machine):
    running.repl_fails()
    assert (running.state.status, running.state.cause) == ("failed", "repl")
    assert running.frame().phase is Phase.FAILED


def test_running_is_cancelled(running: Machine):
    running.cancel()
    assert running.state.status == "cancelled"
    assert running.frame().phase is Phase.RUNNING


# -- WAITING --------------------------------------------------------------------------------------


def test_waiting_resumes_code_with_the_outcomes_in_call_order(running: Machine):
    running.pause("a", "b")
    assert running.reply("B", "0.2") == ()
    (resumed,) = running.reply("A", "0.1")
    assert [outcome.text for outcome in resumed.outcomes] == ["A", "B"]
    assert running.frame().phase is Phase.RUNNING


def test_waiting_lets_the_next_call_out_when_one_is_answered():
    machine = Machine()
    machine.start(max_concurrent_subcalls=2)
    machine.reply(code("x"))
    assert kinds(machine.pause("a", "b", "c")) == ["CallModel 0.1", "CallModel 0.2"]
    assert kinds(machine.reply("B", "0.2")) == ["CallModel 0.3"]
    assert names(machine.commits[-1]) == ["ModelReplied", "EffectStarted"]


def test_waiting_asks_one_after_the_other_when_the_code_wants_that(running: Machine):
    assert kinds(running.pause("a", "b", parallel=False)) == ["CallModel 0.1"]
    assert kinds(running.reply("A")) == ["CallModel 0.2"]
    (resumed,) = running.reply("B")
    assert [outcome.text for outcome in resumed.outcomes] == ["A", "B"]


def test_waiting_asks_equal_prompts_once(running: Machine):
    assert kinds(running.pause("a", "b", "a")) == ["CallModel 0.1", "CallModel 0.2"]
    assert running.state.spent.subcalls == 2
    running.reply("A", "0.1")
    (resumed,) = running.reply("B", "0.2")
    assert [outcome.text for outcome in resumed.outcomes] == ["A", "B", "A"]


def test_waiting_gives_the_code_an_error_when_a_subcall_fails(running: Machine):
    running.pause("a", "b")
    running.fail("0.1")
    (resumed,) = running.reply("B", "0.2")
    assert [outcome.kind for outcome in resumed.outcomes] == ["error", "text"]
    assert "down" in resumed.outcomes[0].text


def test_waiting_answers_calls_beyond_the_token_limit_with_the_limit():
    machine = Machine()
    machine.start(policy=Policy(max_subcall_tokens=700), max_concurrent_subcalls=1)
    machine.reply(code("x"))
    machine.pause("a", "b", "c")
    (resumed,) = machine.reply("A", "0.1", tokens=690)
    assert [outcome.kind for outcome in resumed.outcomes] == ["text", "limit", "limit"]
    assert "max_subcall_tokens" in resumed.outcomes[1].text


def test_waiting_is_cancelled(running: Machine):
    running.pause("a")
    running.cancel()
    assert running.state.status == "cancelled"
    assert running.frame().phase is Phase.WAITING


# -- READING --------------------------------------------------------------------------------------


def test_reading_ends_with_the_value(reading: Machine):
    reading.read("[1, 2]")
    assert (reading.state.status, reading.state.output) == ("finished", "[1, 2]")


def test_reading_refuses_a_missing_variable_and_names_those_that_exist(reading: Machine):
    effects = reading.read(None, names=("total", "hits"))
    assert kinds(effects) == ["CallModel 0.m2"]
    assert "total, hits" in reading.frame().messages[-1].content
    assert reading.frame().invalid == 1


def test_reading_fails_when_there_is_no_repl(reading: Machine):
    reading.repl_fails()
    assert reading.state.cause == "repl"


def test_reading_is_cancelled(reading: Machine):
    reading.cancel()
    assert reading.state.status == "cancelled"


# -- CLOSING --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "output"),
    [("FINAL: 8", "8"), ("It is 8, I think.", "It is 8, I think."), (code("print(8)"), "7")],
)
def test_closing_takes_the_reply_as_the_answer(closing: Machine, reply: str, output: str):
    assert closing.reply(reply) == ()
    assert (closing.state.status, closing.state.limit) == ("partial", "max_steps")
    assert closing.state.output == output


def test_closing_reads_the_variable_of_its_answer(closing: Machine):
    assert kinds(closing.reply("FINAL_VAR: x")) == ["ReadVariable 0.r1"]
    assert closing.frame().phase is Phase.CLOSING
    closing.read("eight")
    assert (closing.state.status, closing.state.output) == ("partial", "eight")


def test_closing_takes_the_best_so_far_when_the_variable_is_missing(closing: Machine):
    closing.reply("FINAL_VAR: x")
    closing.read(None)
    assert (closing.state.status, closing.state.output) == ("partial", "7")


def test_closing_takes_the_best_so_far_when_the_model_fails(closing: Machine):
    closing.fail()
    assert (closing.state.status, closing.state.output) == ("partial", "7")


def test_closing_takes_the_best_so_far_when_the_repl_is_gone(closing: Machine):
    closing.reply("FINAL_VAR: x")
    closing.repl_fails()
    assert (closing.state.status, closing.state.output) == ("partial", "7")


def test_closing_is_cancelled(closing: Machine):
    closing.cancel()
    assert closing.state.status == "cancelled"


def test_closing_ends_when_the_budget_went_while_its_call_waited():
    machine = Machine()
    machine.start(
        policy=Policy(max_subcall_tokens=6_000),
        max_concurrent_subcalls=1,
        recursive_subcall_max_steps=1,
    )
    machine.reply(code("x"))
    machine.pause("sub", recursive=True)
    machine.reply(code("print(1)"), "0.1.m1")
    machine.ran("1", frame="0.1")
    assert machine.frame("0.1").phase is Phase.CLOSING
    # the closing call waits behind nothing here: take its place by hand, as a sibling would
    waiting = machine.state.calls["0.1.m2"]
    blocked = replace(
        machine.state,
        calls=machine.state.calls.remove("0.1.m2"),
        owed=(LimitReached(frame="0.1", limit="max_subcall_tokens", allowed=1, used=2),),
        in_flight=0,
    )
    after, effects = step(blocked, blocked.owed[0])
    assert waiting.purpose == "closing"
    assert kinds(effects) == ["ResumeCode 0.c1"]
    assert effects[0].outcomes[0].kind == "limit"
    assert "0.1" not in after.frames


# -- going on --------------------------------------------------------------------------------------


def test_live_frames_go_on_with_uncertain_calls_made_again(running: Machine):
    running.pause("a", "b")
    running.reply("A", "0.1")
    effects = running.send(RunResumed())
    assert kinds(effects) == ["CallModel 0.2"]
    assert names(running.commits[-1]) == ["RunResumed", "EffectStarted"]
    assert running.state.uncertain == 1


def test_uncertain_calls_fail_when_that_was_asked(running: Machine):
    running.pause("a", "b")
    running.reply("A", "0.1")
    (resumed,) = running.send(RunResumed(on_uncertain="fail"))
    assert [outcome.kind for outcome in resumed.outcomes] == ["text", "error"]
    assert "may have been paid for" in resumed.outcomes[1].text
    assert names(running.commits[-1]) == ["RunResumed", "ModelFailed"]


def test_an_uncertain_turn_that_must_fail_ends_the_run_and_can_be_asked_again(machine: Machine):
    machine.send(RunResumed(on_uncertain="fail"))
    assert (machine.state.status, machine.state.cause) == ("failed", "uncertain")
    assert kinds(machine.send(RunResumed())) == ["CallModel 0.m2"]


def test_a_cell_that_was_running_is_run_again(running: Machine):
    assert kinds(running.send(RunResumed())) == ["RunCode 0.c1"]


def test_a_cell_that_was_resumed_is_resumed_again(running: Machine):
    running.pause("a")
    running.reply("A", "0.1")
    (again,) = running.send(RunResumed())
    assert [outcome.text for outcome in again.outcomes] == ["A"]


def test_a_variable_that_was_being_read_is_read_again(reading: Machine):
    assert kinds(reading.send(RunResumed())) == ["ReadVariable 0.r1"]


def test_a_closing_call_is_made_again(closing: Machine):
    assert kinds(closing.send(RunResumed())) == ["CallModel 0.m2"]


def test_a_cancelled_run_goes_on_where_it_was(running: Machine):
    running.pause("a", "b")
    running.cancel()
    assert kinds(running.send(RunResumed())) == ["CallModel 0.1", "CallModel 0.2"]
    assert running.state.status == "running"


def test_a_turn_that_failed_is_asked_again_and_not_used_up():
    machine = Machine()
    machine.start(policy=Policy(max_steps=1))
    asked = machine.call().prompt
    machine.fail(error="auth")
    (again,) = machine.send(RunResumed())
    assert (again.call_id, again.prompt) == ("0.m2", asked)
    assert machine.state.spent.steps == 1
    machine.reply("FINAL: 42")
    assert machine.state.status == "finished"


def test_a_run_that_gave_up_is_told_why_and_asked_again():
    machine = Machine()
    machine.start(invalid_response_limit=1)
    machine.reply("Hm.")
    assert kinds(machine.send(RunResumed())) == ["CallModel 0.m2"]
    assert machine.frame().invalid == 0
    assert machine.frame().messages[-1].role == "user"


def test_a_cell_without_a_repl_is_run_again(running: Machine):
    running.repl_fails()
    assert kinds(running.send(RunResumed())) == ["RunCode 0.c1"]


def test_a_read_without_a_repl_is_done_again(reading: Machine):
    reading.repl_fails()
    assert kinds(reading.send(RunResumed())) == ["ReadVariable 0.r2"]


def test_a_partial_run_goes_on_under_a_larger_policy(closing: Machine):
    closing.reply("FINAL: 8")
    (asked,) = closing.send(RunResumed(options=Options(policy=Policy(max_steps=5))))
    assert asked.call_id == "0.m3"
    assert "limit was raised" in closing.frame().messages[-1].content
    closing.reply("FINAL: 9")
    assert (closing.state.status, closing.state.output) == ("finished", "9")


def test_the_last_call_for_the_best_answer_uses_up_no_turn(closing: Machine):
    closing.reply("FINAL: 8")
    closing.send(RunResumed(options=Options(policy=Policy(max_steps=2))))
    closing.reply(code("print(9)"))
    (closing_again,) = closing.ran("9")
    assert closing_again.purpose == "closing"
    assert closing.state.spent.steps == 2


def test_a_run_that_a_limit_failed_goes_on_under_a_larger_policy():
    machine = Machine()
    machine.start(policy=Policy(max_steps=1, on_limit="raise"))
    machine.reply(code("print(7)"))
    machine.ran("7\n")
    effects = machine.send(RunResumed(options=Options(policy=Policy(max_steps=2))))
    assert kinds(effects) == ["CallModel 0.m2"]
    assert "7" in machine.frame().messages[-1].content


def test_a_finished_run_can_not_go_on(machine: Machine):
    machine.reply("FINAL: 42")
    with pytest.raises(IllegalEvent, match="finished"):
        step(machine.state, RunResumed())


# -- recursion ------------------------------------------------------------------------------------


def test_a_recursive_call_is_a_frame_of_the_same_run(running: Machine):
    (first,) = running.pause("find it", question="where?", recursive=True)
    assert (first.frame, first.call_id, first.purpose) == ("0.1", "0.1.m1", "turn")
    assert "where?" in running.frame("0.1").messages[1].content
    assert running.frame("0.1").context.chars == len("find it")


def test_a_sub_runs_answer_resumes_its_parent(running: Machine):
    running.pause("find it", "and this", recursive=True)
    running.reply(code("y = 1"), "0.1.m1")
    running.ran("ok", frame="0.1")
    running.reply("FINAL: here", "0.1.m2")
    (resumed,) = running.reply("FINAL: there", "0.2.m1")
    assert resumed.frame == "0"
    assert [outcome.text for outcome in resumed.outcomes] == ["here", "there"]
    assert set(running.state.frames) == {"0"}


def test_a_sub_run_that_fails_is_an_error_of_its_call(running: Machine):
    running.pause("find it", recursive=True)
    (resumed,) = running.fail("0.1.m1")
    assert resumed.outcomes[0].kind == "error"
    assert running.state.status == "running"


def test_a_sub_run_closes_at_its_own_step_limit():
    machine = Machine()
    machine.start(recursive_subcall_max_steps=1)
    machine.reply(code("x"))
    machine.pause("sub", recursive=True)
    machine.reply(code("print(1)"), "0.1.m1")
    (closing,) = machine.ran("1", frame="0.1")
    assert closing.purpose == "closing"
    (resumed,) = machine.reply("one", "0.1.m2")
    assert resumed.outcomes[0].text == "one"


def test_at_the_depth_limit_a_recursive_call_is_a_plain_one():
    machine = Machine()
    machine.start(recursive_subcalls=True, max_recursion_depth=1)
    machine.reply(code("x"))
    machine.pause("sub")
    machine.reply(code("y"), "0.1.m1")
    (call,) = machine.pause("deeper", frame="0.1")
    assert (call.purpose, call.call_id) == ("subcall", "0.1.1")


@pytest.mark.parametrize("recursive", [None, True])
def test_a_policy_may_forbid_sub_runs(recursive: bool | None):
    machine = Machine()
    machine.start(policy=Policy(max_recursion_depth=0), recursive_subcalls=True)
    machine.reply(code("x"))
    (call,) = machine.pause("sub", recursive=recursive)
    assert (call.purpose, call.frame) == ("subcall", "0")


def test_sub_runs_go_three_deep():
    machine = Machine()
    machine.start(recursive_subcalls=True, max_recursion_depth=3)
    machine.reply(code("x"))
    for frame in ("0", "0.1", "0.1.1"):
        machine.pause("sub", frame=frame)
        machine.reply(code("y"), f"{frame}.1.m1")
    assert "0.1.1.1" in machine.state.frames
    for frame in ("0.1.1.1", "0.1.1", "0.1"):
        machine.ran("", frame=frame)
        machine.reply(f"FINAL: from {frame}")
    machine.ran("")
    machine.reply("FINAL: done")
    assert machine.state.output == "done"


def test_the_turns_of_open_sub_runs_go_before_new_ones():
    machine = Machine()
    machine.start(max_concurrent_subcalls=1)
    machine.reply(code("x"))
    machine.pause("a", "b", recursive=True)
    (run,) = machine.reply(code("y"), "0.1.m1")[:1]
    assert run.frame == "0.1"
    assert not machine.state.calls, "nothing new begins while 0.1 computes"
    assert kinds(machine.ran("", frame="0.1")) == ["CallModel 0.1.m2"]
    assert kinds(machine.reply("FINAL: a", "0.1.m2")) == ["CallModel 0.2.m1"]


# -- guards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "guard"),
    [
        ({"min_steps": 2}, "min_steps"),
        ({"require_repl_before_final": True}, "require_repl"),
        ({"require_subcall_before_final": True}, "require_subcall"),
    ],
)
def test_a_guard_refuses_an_answer_that_comes_too_soon(options: dict, guard: str):
    machine = Machine()
    machine.start(**options)
    machine.reply("FINAL: 42")
    tripped = machine.commits[-1][1]
    assert isinstance(tripped, GuardTripped)
    assert tripped.guard == guard
    assert kinds(machine.effects) == ["CallModel 0.m2"]


def test_a_refused_answer_after_code_is_told_with_the_output():
    machine = Machine()
    machine.start(require_subcall_before_final=True)
    machine.reply(code("print(5)") + "\nFINAL: 5")
    machine.ran("5\n")
    told = machine.frame().messages[-1].content
    assert "Output:\n5" in told
    assert "sub-model" in told


# -- the product ----------------------------------------------------------------------------------


def test_every_pair_of_phase_and_event_is_a_row_or_impossible_with_a_reason():
    pairs = {(phase, kind) for phase in Phase for kind in EVENTS}
    assert set(TRANSITIONS) | set(IMPOSSIBLE) == pairs
    assert not set(TRANSITIONS) & set(IMPOSSIBLE)
    assert all(reason.strip() for reason in IMPOSSIBLE.values())


def test_every_handler_is_named_after_its_row_and_has_prose():
    for (phase, kind), row in TRANSITIONS.items():
        event = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__)
        name = row.handler.__name__
        assert name in {f"on_{phase.value}{event}", f"on_live{event}", f"on_any{event}"}
        assert row.handler.__doc__


EXAMPLES = {
    RunStarted: RunStarted(query="q", context=TEXT, options=Options()),
    EffectStarted: EffectStarted(frame="0", call_id="0.m1", effect="CallModel", effect_hash="h"),
    ModelReplied: ModelReplied(frame="0", call_id="0.m1", text="FINAL: 1"),
    ModelFailed: ModelFailed(frame="0", call_id="0.m1", error="server", message="down"),
    CodePaused: CodePaused(frame="0", call_id="0.c1", calls=()),
    ApprovalAsked: ApprovalAsked(frame="0", call_id="0.1", tool="send"),
    ApprovalGiven: ApprovalGiven(frame="0", call_id="0.1", is_approved=True),
    ApprovalPostponed: ApprovalPostponed(frame="0", call_id="0.1"),
    ToolReturned: ToolReturned(frame="0", call_id="0.1", value="1"),
    ToolFailed: ToolFailed(frame="0", call_id="0.1", error="raised", message="no"),
    CodeExecuted: CodeExecuted(frame="0", call_id="0.c1"),
    ReplFailed: ReplFailed(frame="0", call_id="0.c1", message="gone"),
    VariableRead: VariableRead(frame="0", call_id="0.r1", name="x", text="1"),
    AnswerChecked: AnswerChecked(frame="0", call_id="0.k1", value="1"),
    GuardTripped: GuardTripped(frame="0", guard="empty", reason="say something"),
    LimitReached: LimitReached(frame="0", limit="max_steps", allowed=1, used=2),
    HistoryCompacted: HistoryCompacted(frame="0", call_id="0.s1", messages=4),
    RunResumed: RunResumed(),
    Cancelled: Cancelled(reason="enough"),
    DeadlinePassed: DeadlinePassed(clock_s=60),
    RunFinished: RunFinished(status="finished"),
}


@pytest.mark.parametrize(
    ("phase", "kind"),
    [(phase, kind) for phase in Phase for kind in EVENTS if (phase, kind) in IMPOSSIBLE],
    ids=lambda part: getattr(part, "name", None) or part.__name__,
)
def test_an_impossible_event_is_refused_and_changes_nothing(phase: Phase, kind: type):
    frame = Frame(id="0", phase=phase, max_steps=1)
    event = EXAMPLES[kind]
    owed = (event,) if kind in DERIVED else ()
    state = replace(INITIAL, frames=pmap({"0": frame}), owed=owed)
    with pytest.raises(IllegalEvent) as refused:
        step(state, event)
    assert kind.__name__ in str(refused.value)
    assert state.frames["0"] is frame
    assert state.owed == owed


def test_an_event_of_an_unknown_frame_is_refused(machine: Machine):
    with pytest.raises(IllegalEvent, match=r"0\.7"):
        machine.send(ModelReplied(frame="0.7", call_id="0.7.m1", text="hm"))


def test_an_outcome_of_an_unknown_call_is_refused(machine: Machine):
    with pytest.raises(IllegalEvent, match="waits for an outcome"):
        machine.send(ModelReplied(frame="0", call_id="0.m9", text="hm"))


def test_a_derived_event_that_was_not_derived_is_refused(machine: Machine):
    with pytest.raises(IllegalEvent, match="did not derive"):
        machine.send(GuardTripped(frame="0", guard="x", reason="y"))


def test_another_event_than_the_owed_one_is_a_divergence(machine: Machine):
    state, _ = step(machine.state, replied(machine.call(), "FINAL: 42"))
    with pytest.raises(ReplayDiverged) as diverged:
        step(state, RunFinished(status="finished", output="43"))
    assert diverged.value.seq == 4
    assert "42" in str(diverged.value)


def test_nothing_happens_after_the_end(machine: Machine):
    call = machine.call()
    machine.cancel()
    with pytest.raises(IllegalEvent, match="cancelled"):
        step(machine.state, replied(call, "FINAL: late"))
