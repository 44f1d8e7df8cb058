"""Tools in the table: their rows, the window of calls, and what a resume does with them."""

from dataclasses import replace
from typing import Any

import pytest
from machine import Machine, code, kinds, names

from rlm_fsm.effect import CallTool, ResumeCode
from rlm_fsm.errors import IllegalEvent, UsageError
from rlm_fsm.event import (
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodePaused,
    DeadlinePassed,
    RunResumed,
    ToolFailed,
    ToolReturned,
)
from rlm_fsm.fold import branching, fold, pending
from rlm_fsm.ids import CallId, FrameId, frame_of
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.state import Phase
from rlm_fsm.toolspec import ToolParameter, ToolSpec, told
from rlm_fsm.values import HostCall, Outcome, TextRef

LOOK = ToolSpec(
    name="look",
    signature="(city: str) -> str",
    doc="Look up a city.\n\nOnly large ones.",
    parameters=(ToolParameter(name="city"),),
)
SEND = ToolSpec(name="send", needs_approval=True)
ONCE = ToolSpec(name="once", idempotent=False)
OFTEN = ToolSpec(name="often", idempotent=True)


def begun(**options) -> Machine:
    machine = Machine()
    machine.start(tools=(LOOK, SEND, ONCE, OFTEN), **options)
    machine.reply(code("x = 1"))
    return machine


def call(machine: Machine, *fns: str, frame: str = "0", parallel: bool = True):
    """The cell calls tools; a name with a question mark is a subcall."""
    cell = machine.frame(frame).cell
    assert cell is not None
    calls = tuple(
        HostCall(fn="llm_query", prompt=fn)
        if fn.endswith("?")
        else HostCall(fn=fn, prompt="{}", dedupe=False, kind="tool")
        for fn in fns
    )
    return machine.send(
        CodePaused(frame=FrameId(frame), call_id=cell.id, calls=calls, parallel=parallel)
    )


def returned(call_id: str, value: str = "1") -> ToolReturned:
    return ToolReturned(frame=frame_of(CallId(call_id)), call_id=CallId(call_id), value=value)


def failed(call_id: str, message: str = "KeyError: 'x'") -> ToolFailed:
    frame = frame_of(CallId(call_id))
    return ToolFailed(frame=frame, call_id=CallId(call_id), error="raised", message=message)


def given(call_id: str, is_approved: bool = True, reason: str = "") -> ApprovalGiven:
    return ApprovalGiven(
        frame=frame_of(CallId(call_id)),
        call_id=CallId(call_id),
        is_approved=is_approved,
        reason=reason,
        by="ann",
    )


def nobody(call_id: str) -> ApprovalPostponed:
    return ApprovalPostponed(frame=frame_of(CallId(call_id)), call_id=CallId(call_id))


# -- what the model is told -----------------------------------------------------------------------


def test_the_root_and_its_sub_runs_are_told_of_the_tools():
    machine = begun(recursive_subcalls=True, system_prompt_supplement="Be brief.")
    system = machine.frame().messages[0].content
    assert "- look(city: str) -> str\n    Look up a city.\n\n    Only large ones.\n- send" in system
    assert "- send()\n    A person is asked" in system
    assert system.endswith("Be brief.")
    machine.pause("dig")
    assert "- look(city: str)" in machine.frame("0.1").messages[0].content


def test_a_run_without_tools_is_told_nothing_of_them():
    machine = Machine()
    machine.start()
    assert "ToolError" not in machine.frame().messages[0].content
    assert told(Options().profile, ()) == ""


# -- calls ----------------------------------------------------------------------------------------


def test_a_call_of_a_tool_is_announced_and_made():
    machine = begun()
    effects = call(machine, "look")
    assert effects == (CallTool(frame="0", call_id="0.1", tool="look", arguments=TextRef.of("{}")),)
    assert names(machine.commits[-1]) == ["CodePaused", "EffectStarted"]
    assert machine.commits[-1][1].effect == "CallTool"
    assert machine.frame().phase is Phase.WAITING


def test_its_result_resumes_the_cell():
    machine = begun()
    call(machine, "look")
    (effect,) = machine.send(returned("0.1", '"sun"'))
    assert isinstance(effect, ResumeCode)
    assert effect.outcomes == (Outcome("text", '"sun"'),)
    assert machine.frame().phase is Phase.RUNNING
    assert machine.state.spent.tool_calls == 1
    assert machine.state.spent.subcalls == 0


def test_a_failed_call_is_an_error_for_its_code_and_the_others_go_on():
    machine = begun()
    call(machine, "look", "once")
    assert machine.send(failed("0.2")) == ()
    (effect,) = machine.send(returned("0.1"))
    assert effect.outcomes == (Outcome("text", "1"), Outcome("error", "KeyError: 'x'"))


def test_equal_calls_are_each_made():
    machine = begun()
    assert kinds(call(machine, "look", "look")) == ["CallTool 0.1", "CallTool 0.2"]


def test_a_tool_that_the_run_has_not_is_an_error_and_nothing_is_called():
    machine = begun()
    (effect,) = call(machine, "gone")
    assert isinstance(effect, ResumeCode)
    assert effect.outcomes == (Outcome("error", "there is no tool 'gone'"),)


def test_only_so_many_tools_are_called_at_once():
    machine = begun(max_concurrent_tools=2)
    assert kinds(call(machine, *["look"] * 4)) == ["CallTool 0.1", "CallTool 0.2"]
    assert kinds(machine.send(returned("0.2"))) == ["CallTool 0.3"]
    assert kinds(machine.send(failed("0.1"))) == ["CallTool 0.4"]


def test_tools_take_no_place_from_subcalls_and_count_against_no_limit_of_theirs():
    machine = begun(policy=Policy(max_subcalls=1), max_concurrent_subcalls=1)
    effects = call(machine, "look", "look", "what?")
    assert sorted(kinds(effects)) == ["CallModel 0.3", "CallTool 0.1", "CallTool 0.2"]
    assert machine.state.in_flight == 1


def test_tools_are_called_when_the_subcalls_beside_them_are_beyond_a_limit():
    machine = begun(policy=Policy(max_subcalls=0))
    assert kinds(call(machine, "look", "what?")) == ["CallTool 0.1"]
    (effect,) = machine.send(returned("0.1"))
    assert [outcome.kind for outcome in effect.outcomes] == ["text", "limit"]


def test_subcalls_that_go_one_by_one_still_do_beside_a_tool():
    machine = begun()
    effects = call(machine, "a?", "look", "b?", "c?", parallel=False)
    assert kinds(effects) == ["CallModel 0.1", "CallTool 0.2"]
    machine.send(returned("0.2"))
    machine.reply("A", "0.1")
    machine.reply("B", "0.3")
    (effect,) = machine.reply("C", "0.4")
    assert [outcome.text for outcome in effect.outcomes] == ["A", "1", "B", "C"]


def test_a_negative_window_is_refused():
    with pytest.raises(UsageError, match="max_concurrent_tools"):
        Options(max_concurrent_tools=0)


# -- approvals ------------------------------------------------------------------------------------


def test_a_call_that_needs_an_approval_is_asked_for_and_not_made():
    machine = begun()
    effects = call(machine, "send", "look")
    assert kinds(effects) == ["AskApproval 0.1", "CallTool 0.2"]
    assert names(machine.commits[-1]) == ["CodePaused", "ApprovalAsked", "EffectStarted"]
    assert machine.state.status == "running"


def test_an_approved_call_is_made():
    machine = begun()
    call(machine, "send")
    assert kinds(machine.send(given("0.1"))) == ["CallTool 0.1"]
    assert names(machine.commits[-1]) == ["ApprovalGiven", "EffectStarted"]
    assert machine.state.approvals == {}


def test_a_denied_call_is_told_to_its_code_with_the_reason():
    machine = begun()
    call(machine, "send")
    (effect,) = machine.send(given("0.1", False, "wrong address"))
    assert effect.outcomes == (Outcome("denied", "wrong address"),)


def test_a_refusal_without_a_reason_says_who_refused():
    machine = begun()
    call(machine, "send")
    (effect,) = machine.send(given("0.1", False))
    assert effect.outcomes == (Outcome("denied", "a person refused this call"),)


def test_a_run_waits_when_nobody_answers_and_nothing_else_is_left():
    machine = begun()
    call(machine, "send", "look", "what?")
    machine.send(nobody("0.1"))
    assert machine.state.status == "running"
    machine.send(returned("0.2"))
    assert machine.state.status == "running"
    assert machine.reply("it", "0.3") == ()
    assert names(machine.commits[-1]) == ["ModelReplied", "RunFinished"]
    assert machine.state.status == "waiting"
    assert pending(machine.state) == ()


def test_a_run_waits_for_a_sub_run_that_waits():
    machine = begun(recursive_subcalls=True)
    machine.pause("dig", "plain", recursive=True)
    machine.reply(code("y = 1"), "0.1.m1")
    call(machine, "send", frame="0.1")
    machine.send(nobody("0.1.1"))
    assert machine.state.status == "running"
    machine.reply("FINAL: there", "0.2.m1")
    assert machine.state.status == "waiting"
    machine.send(given("0.1.1"))
    assert kinds(machine.send(RunResumed())) == ["CallTool 0.1.1"]


def test_an_answer_for_a_run_that_stands_is_kept_and_nothing_is_started():
    machine = begun()
    call(machine, "send", "send")
    machine.send(nobody("0.1"), nobody("0.2"))
    assert machine.send(given("0.1")) == ()
    assert names(machine.commits[-1]) == ["ApprovalGiven", "RunFinished"]
    assert machine.state.status == "waiting"
    assert fold(machine.log) == machine.state


def test_a_resume_does_what_was_answered_and_asks_again_for_the_rest():
    machine = begun()
    call(machine, "send", "send", "send")
    machine.send(nobody("0.1"), nobody("0.2"), nobody("0.3"))
    machine.send(given("0.1"))
    machine.send(given("0.3", False, "no"))
    assert kinds(machine.send(RunResumed())) == ["AskApproval 0.2", "CallTool 0.1"]
    machine.send(returned("0.1"))
    machine.send(nobody("0.2"))
    assert machine.state.status == "waiting"
    machine.send(given("0.2"))
    machine.send(RunResumed())
    (effect,) = machine.send(returned("0.2"))
    assert [outcome.kind for outcome in effect.outcomes] == ["text", "text", "denied"]


def test_a_refusal_alone_resumes_the_cell_with_the_run():
    machine = begun()
    call(machine, "send")
    machine.send(nobody("0.1"))
    machine.send(given("0.1", False, "no"))
    assert kinds(machine.send(RunResumed())) == ["ResumeCode 0.c1"]
    assert machine.state.uncertain == 0


def test_a_call_is_answered_for_once():
    machine = begun()
    call(machine, "send")
    machine.send(nobody("0.1"))
    machine.send(given("0.1"))
    with pytest.raises(IllegalEvent):
        machine.send(given("0.1", False))


def test_an_answer_for_a_call_that_waits_for_none_is_illegal():
    machine = begun()
    call(machine, "look")
    with pytest.raises(IllegalEvent, match="waits for an outcome"):
        machine.send(given("0.1"))


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_run_that_was_stopped_while_it_asked_takes_answers(how: str):
    machine = begun(policy=Policy(max_seconds=5))
    call(machine, "send")
    stop = machine.cancel if how == "cancelled" else lambda: machine.send(DeadlinePassed(clock_s=5))
    stop()
    before = machine.state.status
    machine.send(given("0.1"))
    assert machine.state.status == before
    assert kinds(machine.send(RunResumed())) == ["CallTool 0.1"]


# -- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "on_uncertain", "is_made"),
    [
        ("look", "retry", True),
        ("look", "fail", False),
        ("once", "retry", False),
        ("often", "fail", True),
    ],
)
def test_a_call_in_flight_is_made_again_as_its_tool_or_the_caller_says(
    tool: str, on_uncertain: str, is_made: bool
):
    machine = begun()
    call(machine, tool)
    effects = machine.send(RunResumed(on_uncertain=on_uncertain))
    assert machine.state.uncertain == 1
    if is_made:
        assert kinds(effects) == ["CallTool 0.1"]
        assert names(machine.commits[-1]) == ["RunResumed", "EffectStarted"]
    else:
        assert kinds(effects) == ["ResumeCode 0.c1"]
        assert names(machine.commits[-1]) == ["RunResumed", "ToolFailed"]
        assert effects[0].outcomes[0].kind == "error"
        assert "may have been done" in effects[0].outcomes[0].text


def test_a_call_that_a_person_agreed_to_is_not_made_a_second_time():
    machine = begun()
    call(machine, "send")
    machine.send(given("0.1"))
    effects = machine.send(RunResumed(on_uncertain="retry"))
    assert kinds(effects) == ["ResumeCode 0.c1"]
    assert "may have been done" in effects[0].outcomes[0].text


def test_a_fork_makes_no_call_again_that_may_not_be_made_twice():
    machine = begun()
    call(machine, "once", "look")
    effects = machine.send(RunResumed(is_fork=True))
    assert kinds(effects) == ["CallTool 0.2"]
    assert machine.state.uncertain == 0


def test_a_fork_asks_for_what_was_answered_in_the_run_that_it_left():
    machine = begun()
    call(machine, "send", "send")
    machine.send(nobody("0.1"), nobody("0.2"))
    machine.send(given("0.1"))
    machine.send(given("0.2", False))
    assert kinds(machine.send(RunResumed(is_fork=True))) == ["AskApproval 0.1", "AskApproval 0.2"]
    assert kinds(machine.send(given("0.1"))) == ["CallTool 0.1"]


def test_a_fork_at_a_persons_answer_begins_before_it():
    machine = begun()
    call(machine, "send")
    asked = len(machine.log)
    machine.send(given("0.1"))
    assert branching(machine.log[: asked + 1]) == (asked, ())
    assert branching(machine.log) == (len(machine.log), ()), "the call was announced: it is shared"


def other(spec: ToolSpec, **changes: Any) -> Options:
    """The options of `begun` with one of its tools changed."""
    tools = tuple(replace(t, **changes) if t is spec else t for t in (LOOK, SEND, ONCE, OFTEN))
    machine = begun()
    return replace(machine.state.options, tools=tools)


def test_a_tool_that_needs_no_approval_any_more_is_called_without():
    machine = begun()
    call(machine, "send")
    machine.send(nobody("0.1"))
    resumed = RunResumed(options=other(SEND, needs_approval=False))
    assert kinds(machine.send(resumed)) == ["CallTool 0.1"]


def test_a_tool_that_needs_an_approval_now_is_asked_for_before_it_is_called():
    machine = begun(max_concurrent_tools=1)
    call(machine, "often", "often", "look")
    options = replace(other(OFTEN, needs_approval=True), max_concurrent_tools=1)
    effects = machine.send(RunResumed(options=options))
    assert kinds(effects) == ["AskApproval 0.1", "AskApproval 0.2", "CallTool 0.3"]
    assert names(machine.commits[-1]) == [
        "RunResumed",
        "ApprovalAsked",
        "ApprovalAsked",
        "EffectStarted",
    ]
    machine.send(returned("0.3"))
    assert kinds(machine.send(given("0.1"), given("0.2", False))) == ["CallTool 0.1"]
    (effect,) = machine.send(returned("0.1"))
    assert [outcome.kind for outcome in effect.outcomes] == ["text", "denied", "text"]


def test_a_call_that_was_agreed_to_and_waits_for_a_place_is_not_asked_for_again():
    machine = begun(max_concurrent_tools=1)
    call(machine, "look", "send")
    machine.send(given("0.2"))
    assert kinds(machine.send(RunResumed())) == ["CallTool 0.1"]
    assert kinds(machine.send(returned("0.1"))) == ["CallTool 0.2"]


def test_a_fork_asks_for_approved_calls_that_were_not_made_yet():
    machine = begun(max_concurrent_tools=1)
    call(machine, "look", "send")
    machine.send(given("0.2"))
    assert kinds(machine.send(RunResumed(is_fork=True))) == ["CallTool 0.1", "AskApproval 0.2"]


def test_a_refusal_holds_when_the_tool_needs_no_approval_any_more():
    machine = begun()
    call(machine, "send")
    machine.send(nobody("0.1"))
    machine.send(given("0.1", False, "never"))
    (effect,) = machine.send(RunResumed(options=other(SEND, needs_approval=False)))
    assert effect.outcomes == (Outcome("denied", "never"),)


@pytest.mark.parametrize(
    "event", [Cancelled(reason="x"), DeadlinePassed(clock_s=9.0), RunResumed()], ids=repr
)
def test_a_fork_does_not_take_over_what_befell_one_run(event: Any):
    machine = begun(policy=Policy(max_seconds=5))
    call(machine, "look")
    before = len(machine.log)
    machine.send(event)
    assert branching(machine.log[: before + 1]) == (before, ())


def test_a_call_that_was_not_made_before_the_run_stopped_is_made():
    machine = begun()
    call(machine, "once", "send")
    machine.send(given("0.2"))
    machine.send(Cancelled(reason="enough", not_made=(CallId("0.1"), CallId("0.2"))))
    assert machine.state.under_way == ()
    effects = machine.send(RunResumed(on_uncertain="fail"))
    assert kinds(effects) == ["CallTool 0.1", "CallTool 0.2"]
    assert machine.state.uncertain == 0


def test_what_is_owed_after_a_crash_are_the_calls_and_the_questions():
    machine = begun(max_concurrent_tools=1)
    call(machine, "send", "look", "once")
    assert kinds(pending(fold(machine.log))) == ["CallTool 0.2", "AskApproval 0.1"]
