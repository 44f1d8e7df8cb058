"""What follows from a check: the rows of `AnswerChecked`. See `typed` for the rules."""

from dataclasses import replace

from rlm_fsm import calls, frames, guards, typed, verdicts
from rlm_fsm.calls import Step, put
from rlm_fsm.effect import CallModel
from rlm_fsm.event import AnswerChecked, ModelReplied
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import attempt_id, first_of
from rlm_fsm.reply import visible
from rlm_fsm.state import Frame, RunState, TypedCall
from rlm_fsm.values import Outcome, TextRef, text_hash


def check_reply(state: RunState, frame: Frame, call: CallModel, replied: ModelReplied) -> Step:
    """Check a subcall's reply against its schema."""
    name, reply = first_of(call.call_id), visible(replied.text)
    asked = typed.typed_calls(frame)[name]
    paid = asked.paid or not replied.cache_hit
    checked = evolve(asked, replied=call, reply=reply, paid=paid)
    return put(state, _with_call(frame, call, checked)), (typed.check_call(frame, checked),)


def on_checking_answer_checked(state: RunState, frame: Frame, event: AnswerChecked) -> Step:
    """An answer that fits ends the frame. Any other is refused, and the model told where it
    doesn't fit; that of the fallback code fails the frame. What the watched variable holds isn't
    checked again until it changes."""
    checking = frame.checking
    assert checking is not None, "a check has an answer"
    frame = evolve(frame, checking=None)
    if event.value is not None:
        return frames.answer(state, frame, checking.text, event.value)
    frame = evolve(frame, misfits=frame.misfits + 1, best=checking.text)
    if checking.text == frame.watched:
        frame = evolve(frame, refused_value=text_hash(checking.text))
    told = typed.answer_misfit(state.options.profile, event)
    if frame.goes_on:
        frame = evolve(frame, stalled="", goes_on=False)
    if frame.stalled:
        last = " ".join(told.split())
        error = f"{frame.stalled}; then the fallback code's answer was refused: {last}"
        return frames.fail(state, frame, error, "guard")
    return verdicts.refuse(state, frame, guards.Refusal("answer_type", told))


def on_closing_answer_checked(state: RunState, frame: Frame, event: AnswerChecked) -> Step:
    """The frame ends with its answer; without a value, when that doesn't fit."""
    checking = frame.checking
    assert checking is not None, "a check has an answer"
    return frames.answer(state, evolve(frame, checking=None), checking.text, event.value)


def on_waiting_answer_checked(state: RunState, frame: Frame, event: AnswerChecked) -> Step:
    """A reply that fits is the call's outcome. Any other is asked for once more, and then is an
    error that the code sees."""
    name = first_of(event.call_id)
    call = typed.typed_calls(frame)[name]
    if event.value is not None:
        taken = calls.deliver(state, name, Outcome("text", event.value), free=not call.paid)
    elif call.attempts < typed.ATTEMPTS:
        taken = _ask_again(state, frame, call, event)
    else:
        found = typed.problems(state.options.profile, event)
        message = f"the reply doesn't fit the schema, asked {call.attempts} times:\n{found}"
        taken = calls.deliver(state, name, Outcome("error", message), free=not call.paid)
    state, effects = taken
    state, more = calls.pump(state)
    return state, effects + more


def _ask_again(state: RunState, frame: Frame, call: TypedCall, event: AnswerChecked) -> Step:
    assert call.replied is not None, "a check has a reply"
    prompt = typed.misfit(state.options.profile, call, event)
    number = call.attempts + 1
    name = attempt_id(first_of(call.replied.call_id), number)
    again = replace(call.replied, call_id=name, prompt=TextRef.of(prompt))
    waiting = evolve(call, prompt=prompt, attempts=number, replied=None, reply="")
    return calls.enqueue(put(state, _with_call(frame, again, waiting)), (again,), first=True)


def _with_call(frame: Frame, call: CallModel, now: TypedCall) -> Frame:
    pause = frame.pause
    assert pause is not None, "only a waiting frame has calls to be answered"
    return evolve(frame, pause=evolve(pause, typed=pause.typed.set(first_of(call.call_id), now)))
