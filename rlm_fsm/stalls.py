"""When a frame stalls: it gives up, or a guard on steps presses; the fallback code is run once.

Rules:

1. Each is a `GuardTripped` with its reason, named after the option that asked for it.
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
from rlm_fsm.profile import fill
from rlm_fsm.state import Frame, Phase, RunState
from rlm_fsm.values import text_hash
from rlm_fsm.verdicts import answered, refuse, run_next, with_news, with_notice
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
PRESSES = frozenset({"subcall_guard_steps", "fallback_guard_steps", "no_answer"})
"""Guards that run the fallback code of a run that could go on."""


def end_turn(state: RunState, frame: Frame, value: str, *, raised: bool) -> Step:
    """Go on after a turn's cells: a guard trips, or the model sees what they showed.

    `value` is the watched variable's, empty without one; that of a cell that raised isn't judged.
    """
    options = state.options
    if frame.id != ROOT or options.rules < 2:
        return frames.ask(state, with_news(frame, options))
    refused = guards.value_refusal(frame, options, value) if value and not raised else None
    if refused is None or text_hash(value) == frame.refused_value:
        refused = guards.pressing(frame, options, value)
    if refused is None:
        return frames.ask(state, with_news(frame, options))
    if refused.guard in PRESSES:
        frame = evolve(frame, pressed=(*frame.pressed, refused.guard))
        return refuse(state, with_notice(frame), refused)
    rejects = frame.rejects + (refused.guard == "auto_finalize_reject_patterns")
    frame = evolve(frame, refused_value=text_hash(value), rejects=rejects)
    if guards.too_many_rejects(frame, options):
        error = f"gave up after {rejects} refused values of {options.auto_finalize_var}; the last: "
        told = with_news(frame, options)
        return give_up(state, told, "auto_finalize_reject_limit", error + refused.reason)
    return refuse(state, with_notice(frame), refused)


def pressed(state: RunState, frame: Frame) -> Step | None:
    """Derive the guard on steps that presses after a reply that was refused; None when none does.
    What is told of the refusal stays to be told."""
    if frame.id != ROOT or state.options.rules < 2:
        return None
    # A value that was refused is one: what lacks is another.
    found = guards.pressing(frame, state.options, frame.refused_value)
    if found is None:
        return None
    frame = evolve(frame, pressed=(*frame.pressed, found.guard))
    event = GuardTripped(frame=frame.id, guard=found.guard, reason=found.reason)
    return put(state, frame), (Record(event=event),)


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
    if event.guard in PRESSES and _has_fallback(state, frame):
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


def fallen_back(state: RunState, frame: Frame, event: CodeExecuted) -> Step:
    """The fallback code has run: its answer is the run's, guards or not; without one it fails, or
    goes on when only a guard pressed. A value that was refused before is no answer of the code."""
    left = (event.watched.get(name, "") for name in frames.watched(state.options))
    text = event.final.text if event.final else next(filter(str.strip, left), "")
    if text_hash(text) == frame.refused_value and event.final is None:
        text = ""
    if event.error is None and text.strip():
        return answered(state, frame, text, event.final.data if event.final else None)
    if frame.goes_on:
        return frames.ask(state, _going_on(state, frame))
    if event.error is not None:
        error = f"{frame.stalled}; then the fallback code raised: {event.error}"
    else:
        error = f"{frame.stalled}; the fallback code gave no answer"
    return frames.fail(state, frame, error, "guard")


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
