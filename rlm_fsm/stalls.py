"""When a frame stalls: it gives up, or a guard on steps presses; the fallback code is run once.

Rules:

1. Each is a `GuardTripped` with its reason, named after the option that asked for it; ``no_answer``
   after the word that the watched variable holds.
2. To give up (`GIVES_UP`) is to run `fallback_code`, and to fail without it. Its answer is the
   run's, guards or not.
3. A guard that presses (`PRESSES`) runs the code too. Without any, or once it has run, the model is
   told, and each guard on steps says so once. When the code gives no answer, the run goes on.
4. Only the root has fallback code and a watched variable.
"""

from rlm_fsm import frames, guards
from rlm_fsm.calls import Step, put
from rlm_fsm.effect import Record
from rlm_fsm.event import CodeExecuted, GuardTripped
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import ROOT
from rlm_fsm.options import Options
from rlm_fsm.profile import fill
from rlm_fsm.state import Frame, Phase, RunState
from rlm_fsm.values import text_hash
from rlm_fsm.verdicts import answered, refuse, run_next, trip, with_news
from rlm_fsm.wording import next_action

GIVES_UP = frozenset(
    {
        "invalid_response_limit",
        "repl_error_limit",
        "loop_limit",
        "auto_finalize_reject_limit",
        "output_retries",
    }
)
"""Guards after which the frame gives up."""


def end_turn(state: RunState, frame: Frame, *, raised: bool) -> Step:
    """Go on after a turn's cells: a guard trips, or the model sees what they showed. What the
    watched variable holds isn't judged when the last cell raised."""
    options = state.options
    if frame.id != ROOT or options.rules < 2:
        return frames.ask(state, with_news(frame, options))
    refused = None
    if frame.watched and not raised and not guards.is_judged(frame):
        refused = guards.value_refusal(frame, options, frame.watched)
    refused = refused or guards.pressing(state, frame)
    if refused is None:
        return frames.ask(state, with_news(frame, options))
    return refuse(state, frame, refused)


def pressed(state: RunState, frame: Frame) -> Step | None:
    """Derive the guard on steps that presses after a reply that was refused; None when none does.
    What is told of the refusal stays to be told."""
    if frame.id != ROOT or state.options.rules < 2:
        return None
    found = guards.pressing(state, frame)
    return None if found is None else trip(state, frame, found)


def too_many(frame: Frame, event: GuardTripped, options: Options) -> tuple[str, str] | None:
    """The limit on refusals that a frame has come to, and in which words; None when it goes on."""
    if guards.too_many_invalid(frame, options):
        error = f"gave up after {frame.invalid} refused replies in a row; the last: {event.reason}"
        return "invalid_response_limit", error
    if event.guard == "answer_type" and guards.too_many_misfits(frame, options):
        last = " ".join(event.reason.split())
        error = f"gave up: no answer fitted its type, {frame.misfits} tried; the last: {last}"
        return "output_retries", error
    if event.guard == "auto_finalize_reject_patterns" and guards.too_many_rejects(frame, options):
        values = f"{frame.rejects} refused values of {options.auto_finalize_var}"
        return "auto_finalize_reject_limit", f"gave up after {values}; the last: {event.reason}"
    return None


def give_up(state: RunState, frame: Frame, guard: str, error: str) -> Step:
    """Derive that the frame gives up; its news is what a resumed run is told."""
    if state.options.rules < 2:
        return fall_back(state, frame, error, goes_on=False)
    event = GuardTripped(frame=frame.id, guard=guard, reason=error)
    return put(state, evolve(frame, phase=Phase.ASKING)), (Record(event=event),)


def tripped(state: RunState, frame: Frame, event: GuardTripped) -> Step | None:
    """Act on a guard that gives up or presses; None when the model is to be told its reason."""
    if event.guard in GIVES_UP:
        return fall_back(state, frame, event.reason, goes_on=False)
    if event.guard in guards.PRESSES and _has_fallback(state, frame):
        return fall_back(state, frame, event.reason, goes_on=True)
    return None


def fall_back(state: RunState, frame: Frame, reason: str, *, goes_on: bool) -> Step:
    """Run the fallback code, once and in the root only; without any, the frame fails."""
    code = state.options.fallback_code
    if code is None or not _has_fallback(state, frame):
        return frames.fail(state, frame, reason, "guard")
    stalled = evolve(
        frame, stalled=reason, goes_on=goes_on, has_fallen_back=True, answer=None, shown=()
    )
    return run_next(state, stalled, (code,))


def fallen_back(state: RunState, before: Frame, frame: Frame, event: CodeExecuted) -> Step:
    """The fallback code has run: its answer is the run's, guards or not; without one it fails, or
    goes on when only a guard pressed."""
    text = event.final.text if event.final else _left(state.options, before, event)
    if event.error is None and text.strip():
        return answered(state, frame, text, event.final.data if event.final else None)
    if frame.goes_on:
        return frames.ask(state, _going_on(state, frame))
    if event.error is not None:
        error = f"{frame.stalled}; then the fallback code raised: {event.error}"
    else:
        error = f"{frame.stalled}; the fallback code gave no answer"
    return frames.fail(state, frame, error, "guard")


def _left(options: Options, before: Frame, event: CodeExecuted) -> str:
    """What the fallback code left in a watched variable; empty for nothing. A value that was there
    before, and was refused or would be, is none of its own."""
    for name in frames.watched(options):
        text = event.watched.get(name, "")
        is_refused = text_hash(text) == before.refused_value or (
            text == before.watched and guards.value_refusal(before, options, text) is not None
        )
        if text.strip() and not is_refused:
            return text
    return ""


def _has_fallback(state: RunState, frame: Frame) -> bool:
    unused = frame.id == ROOT and not frame.has_fallen_back
    return unused and state.options.fallback_code is not None


def _going_on(state: RunState, frame: Frame) -> Frame:
    """The frame whose news has what the turn's cells showed, and then what the code showed."""
    words = state.options.profile
    told = fill(words.fallback_shown, output="\n\n".join(frame.shown))
    end = next_action(words, frame.turns_used, frame.max_steps)
    news = "\n\n".join(filter(None, (frame.news, told, end)))
    return evolve(frame, stalled="", goes_on=False, shown=(), answer=None, todo=(), news=news)
