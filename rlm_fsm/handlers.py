"""What each row of the table does: one handler per row, whose docstring is the row's prose.

A handler is called by `reducer.step` with the state, the event's frame and the event, and gives
the next state and the effects. Names are ``on_<phase>_<event>``. How turns, calls and sub-runs
work in detail stands in `frames` and `calls`, what becomes of answers in `verdicts`.

Oddity: handlers of the same outcome in two phases are two, even where they do alike. The table
is read more often than it is written.
"""

from returns.pipeline import is_successful

from rlm_fsm import calls, checks, frames, guards, history, pauses, stalls, verdicts
from rlm_fsm.calls import Step
from rlm_fsm.event import (
    UNKNOWN_MODEL,
    CodeExecuted,
    CodePaused,
    EffectStarted,
    GuardTripped,
    LimitReached,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunStarted,
    VariableRead,
)
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import ROOT
from rlm_fsm.numbers import number
from rlm_fsm.profile import Profile
from rlm_fsm.reply import TextAnswer, VariableAnswer, parse, visible
from rlm_fsm.state import Frame, RunState
from rlm_fsm.typed import has_schema
from rlm_fsm.values import Message, Outcome, text_hash
from rlm_fsm.wording import refusal_message

# -- the start ------------------------------------------------------------------------------------


def on_new_run_started(state: RunState, _: Frame, event: RunStarted) -> Step:
    """The root is opened and asks the model for its first turn."""
    state = evolve(state, query=event.query, context=event.context, options=event.options)
    frame = frames.open_frame(
        ROOT,
        event.query,
        event.context,
        event.options,
        max_steps=event.options.policy.max_steps,
    )
    return frames.ask(state, frame)


# -- ASKING ---------------------------------------------------------------------------------------


def on_asking_effect_started(state: RunState, _: Frame, __: EffectStarted) -> Step:
    """The turn's intent is on record; its call may start."""
    return state, ()


def on_asking_model_replied(state: RunState, frame: Frame, event: ModelReplied) -> Step:
    """Code is run; an answer ends the frame if the guards agree; anything else is refused.

    When the same code came too often in a row, the frame gives up instead.
    """
    state, _ = calls.ended(state, event)
    said = _said(event, state.options.profile)
    parsed = parse(event.text, state.options.profile, event.finish_reason)
    if not is_successful(parsed):
        error = parsed.failure()
        refused = guards.Refusal(error.kind, error.reason)
        return calls.then_pump(verdicts.refuse(state, history.append(frame, said), refused))
    reply = parsed.unwrap()
    if not reply.blocks:
        assert reply.answer is not None, "a reply holds code or an answer"
        return calls.then_pump(
            verdicts.conclude(state, history.append(frame, said), reply.answer, "text")
        )
    digest = text_hash("\0".join(reply.blocks))
    repeats = frame.repeats + 1 if digest == frame.code_digest else 1
    frame = history.append(
        frame,
        said,
        invalid=0,
        answer=reply.answer,
        final=None,
        code_digest=digest,
        repeats=repeats,
        notice=verdicts.notice(reply, repeats, state.options),
    )
    if guards.is_looping(frame, state.options):
        told = refusal_message(
            state.options.profile, frame.notice, frame.turns_used, frame.max_steps
        )
        why = f"gave up: the same code came {repeats} times in a row"
        return calls.then_pump(stalls.give_up(state, evolve(frame, news=told), "loop_limit", why))
    return calls.then_pump(verdicts.run_next(state, frame, reply.blocks))


def on_asking_model_failed(state: RunState, frame: Frame, event: ModelFailed) -> Step:
    """The frame fails: the adapter has retried already. The run can be resumed. A sub-run never
    began whose model isn't there."""
    state, _ = calls.ended(state, event)
    if event.error == UNKNOWN_MODEL and frame.id != ROOT and frame.turns == 1:
        outcome = Outcome("error", _failure(event))
        return calls.then_pump(frames.never_begun(state, frame, outcome))
    return calls.then_pump(frames.fail(state, frame, _failure(event), event.error))


def on_asking_guard_tripped(state: RunState, frame: Frame, event: GuardTripped) -> Step:
    """The model is told the reason and asked again; after too many refusals the frame gives up.

    To give up is to run the fallback code, once, where there is any, and else to fail. A guard on
    steps runs it too, and the frame goes on when it gives no answer.
    """
    taken = stalls.tripped(state, frame, event)
    if taken is not None:
        return taken
    # A turn whose code has run was no invalid reply, whatever became of its answer.
    counts = event.guard != "answer_type" and not frame.news
    words = state.options.profile
    told = refusal_message(words, event.reason, frame.turns_used, frame.max_steps)
    frame = evolve(
        frame,
        invalid=frame.invalid + counts,
        rejects=frame.rejects + (event.guard == "auto_finalize_reject_patterns"),
        news=f"{frame.news}\n\n{told}".lstrip(),
    )
    reached = stalls.too_many(frame, event, state.options)
    if reached is not None:
        return stalls.give_up(state, frame, *reached)
    return stalls.pressed(state, frame) or frames.ask(state, frame)


def on_asking_limit_reached(state: RunState, frame: Frame, event: LimitReached) -> Step:
    """A last turn is asked for where the budget allows it; else the frame ends with what it has.

    With ``on_limit="raise"`` the root fails at once.
    """
    if frame.id == ROOT and state.options.policy.on_limit == "raise":
        return frames.finish(
            state,
            frame,
            frame.best,
            status="failed",
            limit=event.limit,
            error=f"the limit {event.limit} ({number(event.allowed)}) is reached",
            cause="limit",
        )
    if frame.id != ROOT and event.limit != "recursive_subcall_max_steps":
        return frames.end_limited(state, frame, event)
    return frames.close(state, frame, event)


# -- RUNNING --------------------------------------------------------------------------------------


def on_running_code_paused(state: RunState, frame: Frame, event: CodePaused) -> Step:
    """Each host call becomes a call or a sub-run; the cell waits for all of them."""
    return pauses.pause(calls.at(state, event.clock_s), frame, event)


def on_running_code_executed(state: RunState, frame: Frame, event: CodeExecuted) -> Step:
    """The next block runs, or the frame ends with its answer, or the model sees the output; a guard
    on steps, on errors or on the watched variable may trip first.

    An answer that the code gave goes before the watched variable, and that before an answer in the
    text. An answer of a cell that raised afterwards doesn't count. One that a guard refuses waits
    for the blocks that are still to run: what the guard asks for may be in them.
    """
    state, options, before = calls.at(state, event.clock_s), state.options, frame
    frame = verdicts.after_cell(frame, event, options)
    if frame.stalled:
        return stalls.fallen_back(state, before, frame, event)
    if event.error is not None:
        frame = verdicts.after_error(before, frame, event, options)
        if guards.too_many_errors(frame, options):
            error = f"gave up after {frame.errors} cells that raised; the last: {event.error}"
            told = verdicts.with_news(frame, options)
            return stalls.give_up(state, told, "repl_error_limit", error)
        return stalls.end_turn(state, frame, raised=True)
    final = frame.final
    if final is not None and not (frame.todo and guards.final_refusal(state, frame, final)):
        return verdicts.given(state, frame, final)
    has_value = guards.has_value(frame, options)
    if has_value and not (frame.todo and guards.refusal(state, frame, "text")):
        return verdicts.conclude(state, frame, TextAnswer(frame.watched), "text")
    if frame.todo:
        return verdicts.run_next(state, frame, frame.todo)
    if frame.answer is not None:
        return verdicts.conclude(state, frame, frame.answer, "text")
    return stalls.end_turn(state, frame, raised=False)


def on_running_repl_failed(state: RunState, frame: Frame, event: ReplFailed) -> Step:
    """The frame fails: there is nothing to run its code in."""
    return frames.fail(state, frame, event.message, "repl")


# -- WAITING --------------------------------------------------------------------------------------


def on_waiting_effect_started(state: RunState, _: Frame, __: EffectStarted) -> Step:
    """A subcall's intent is on record; its call may start."""
    return state, ()


def on_waiting_model_replied(state: RunState, frame: Frame, event: ModelReplied) -> Step:
    """A subcall is answered: the next queued call starts; the last answer resumes the cell.

    A reply that must fit a schema is checked first. What a cache answered isn't counted.
    """
    state, call = calls.ended(state, event)
    if has_schema(frame, call.call_id):
        return calls.then_pump(checks.check_reply(state, frame, call, event))
    answer = Outcome("text", visible(event.text))
    return calls.then_pump(calls.deliver(state, call.call_id, answer, free=event.cache_hit))


def on_waiting_model_failed(state: RunState, _: Frame, event: ModelFailed) -> Step:
    """A subcall failed: its code will see an error; the others go on. One that names a model which
    isn't there was no subcall."""
    state, call = calls.ended(state, event)
    is_vain = event.error == UNKNOWN_MODEL
    if is_vain:
        state = calls.unmade(state, call.frame)
    outcome = Outcome("error", _failure(event))
    return calls.then_pump(calls.deliver(state, call.call_id, outcome, is_vain=is_vain))


# -- READING --------------------------------------------------------------------------------------


def on_reading_variable_read(state: RunState, frame: Frame, event: VariableRead) -> Step:
    """The value is the answer; a missing variable is refused and the model told which exist, and
    so is a value of the watched variable that is no answer."""
    frame = evolve(frame, reading=None)
    if event.text is None:
        words = state.options.profile
        missing = guards.missing_variable(words, event.name, event.names, event.error)
        return verdicts.refuse(state, frame, missing)
    refused = guards.named_refusal(frame, state.options, event.name, event.text)
    if refused is not None:
        return verdicts.refuse(state, frame, refused)
    return verdicts.answered(state, frame, event.text)


def on_reading_repl_failed(state: RunState, frame: Frame, event: ReplFailed) -> Step:
    """The frame fails: there is nothing to read from."""
    return frames.fail(state, frame, event.message, "repl")


# -- CLOSING --------------------------------------------------------------------------------------


def on_closing_effect_started(state: RunState, _: Frame, __: EffectStarted) -> Step:
    """The last turn's intent is on record; its call may start."""
    return state, ()


def on_closing_limit_reached(state: RunState, frame: Frame, event: LimitReached) -> Step:
    """A sub-run's last turn waited, and meanwhile the budget went: it ends with what it has."""
    return frames.end_limited(state, frame, event)


def on_closing_model_replied(state: RunState, frame: Frame, event: ModelReplied) -> Step:
    """The reply is the answer: its FINAL, its variable, or its text. Code is not run, and is no
    answer where there is a better one, nor that of a sub-run."""
    state, _ = calls.ended(state, event)
    frame = history.append(frame, _said(event, state.options.profile))
    parsed = parse(event.text, state.options.profile, event.finish_reason)
    reply = parsed.value_or(None)
    match reply.answer if reply else None:
        case TextAnswer(text):
            return calls.then_pump(verdicts.answered(state, frame, text))
        case VariableAnswer(name):
            return calls.then_pump(verdicts.read_variable(state, frame, name))
        case None:
            text = visible(event.text)
            if text.strip() and "```" not in text:
                return calls.then_pump(verdicts.answered(state, frame, text))
            if frame.id == ROOT:
                return calls.then_pump(verdicts.answered(state, frame, frame.best or text))
            return calls.then_pump(frames.end_closing(state, frame))


def on_closing_model_failed(state: RunState, frame: Frame, event: ModelFailed) -> Step:
    """The root ends with the best answer that it has; the call of a sub-run fails."""
    state, _ = calls.ended(state, event)
    if frame.id == ROOT:
        return calls.then_pump(verdicts.answered(state, frame, frame.best))
    return calls.then_pump(frames.end_closing(state, frame, _failure(event)))


def on_closing_variable_read(state: RunState, frame: Frame, event: VariableRead) -> Step:
    """The value is the answer; a missing variable leaves the root's best one so far."""
    frame = evolve(frame, reading=None)
    if event.text is None and frame.id != ROOT:
        return frames.end_closing(state, frame)
    return verdicts.answered(state, frame, frame.best if event.text is None else event.text)


def on_closing_repl_failed(state: RunState, frame: Frame, event: ReplFailed) -> Step:
    """The root ends with the best answer that it has; the call of a sub-run fails."""
    frame = evolve(frame, reading=None)
    if frame.id == ROOT:
        return verdicts.answered(state, frame, frame.best)
    return frames.end_closing(state, frame, event.message)


# -- what handlers share --------------------------------------------------------------------------


def _said(event: ModelReplied, words: Profile) -> Message:
    """The reply as the conversation keeps it: without reasoning; never empty: that is refused."""
    return Message("assistant", visible(event.text) or words.empty_reply)


def _failure(event: ModelFailed) -> str:
    return f"{event.error}: {event.message}"
