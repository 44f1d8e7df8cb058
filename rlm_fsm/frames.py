"""Frames: their turns, and how a recursive sub-run is opened and ends.

A sub-run is a frame like the root. It differs in three ways only: its turns wait in the queue
(`calls`), its turns are limited by `recursive_subcall_max_steps`, and its end is the outcome that
its parent's cell waits for.
"""

from rlm_fsm import budget_line, compaction, history, toolspec, typed
from rlm_fsm.calls import (
    Step,
    deliver,
    drop,
    enqueue,
    limit_reached,
    pump,
    put,
    start,
    unmade,
)
from rlm_fsm.effect import (
    CallModel,
    CheckAnswer,
    Purpose,
    ReadVariable,
    Record,
    ResumeCode,
    RunCode,
)
from rlm_fsm.event import LimitReached, RunFinished, Status
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import (
    ROOT,
    CallId,
    FrameId,
    frame_of,
    read_id,
    turn_id,
)
from rlm_fsm.needs import breach, takes_a_place
from rlm_fsm.options import Options
from rlm_fsm.policy import Breach
from rlm_fsm.state import Frame, Phase, RunState
from rlm_fsm.values import ContextInfo, Message, Outcome
from rlm_fsm.wording import closing_message, first_message


def open_frame(
    frame_id: FrameId, query: str, context: ContextInfo, options: Options, *, max_steps: int
) -> Frame:
    """A frame at its beginning: system message said, task to be told."""
    is_root = frame_id == ROOT
    system = options.root_system if is_root else options.recursive_system
    if options.tools:
        system = f"{system}\n\n{toolspec.told(options.profile, options.tools)}"
    if is_root and options.system_prompt_supplement:
        system = f"{system}\n\n{options.system_prompt_supplement}"
    task = first_message(options.profile, query, context, max_steps)
    if is_root and options.answer_schema is not None:
        task = f"{task}\n\n{typed.answer_shape(options.profile, options.answer_schema)}"
    frame = Frame(
        id=frame_id,
        phase=Phase.ASKING,
        max_steps=max_steps,
        adapter="root" if is_root else "subcall",
        context=context,
        news=task,
    )
    return history.append(frame, Message("system", system))


def ask(state: RunState, frame: Frame) -> Step:
    """Take the next turn, or derive the limit that forbids it. The frame's news is told.

    Where the conversation has grown too long, its summary is asked for first.
    """
    if frame.phase is not Phase.ASKING:
        frame = evolve(frame, phase=Phase.ASKING)
    if frame.turns_left <= 0:
        limit = "max_steps" if frame.id == ROOT else "recursive_subcall_max_steps"
        exceeded = Breach(limit=limit, allowed=frame.max_steps, used=frame.turns_used + 1)
        return put(state, frame), (Record(event=limit_reached(frame.id, exceeded)),)
    told, call = next_turn(with_budget(state, frame), state.options, "turn")
    beyond = breach(state, call)
    compacted = None if beyond else compaction.prepared(frame, state.options)
    if compacted is not None:
        return compaction.begin(state, compacted, call, before=frame)
    if takes_a_place(call):
        return enqueue(put(state, told), (call,), first=True)
    if beyond is not None:
        return put(state, frame), (Record(event=limit_reached(frame.id, beyond)),)
    return start(state, call, told)


def close(state: RunState, frame: Frame, reached: LimitReached) -> Step:
    """Take a last turn for the best answer if the budget allows it; else end with what there is."""
    if frame.turns == 0:
        return end_limited(state, frame, reached)
    last = closing_message(state.options.profile, reached.limit)
    closing = evolve(
        frame,
        phase=Phase.CLOSING,
        limit=reached.limit,
        lost_turns=frame.lost_turns + 1,
        news=f"{frame.news}\n\n{last}".lstrip(),
    )
    told, call = next_turn(closing, state.options, "closing")
    if breach(state, call) is not None:
        return end_limited(state, frame, reached)
    if takes_a_place(call):
        return enqueue(put(state, told), (call,), first=True)
    return start(state, call, told)


def end_limited(state: RunState, frame: Frame, reached: LimitReached) -> Step:
    """End a frame that a limit stopped, with the best answer that it has."""
    if frame.id == ROOT:
        return finish(state, frame, frame.best, status="partial", limit=reached.limit)
    allowed = Breach(limit=reached.limit, allowed=reached.allowed, used=reached.used)
    told = f"the sub-run reached its limit {allowed}"
    if frame.turns == 1 and len(frame.messages) <= history.HEAD:
        return never_begun(state, frame, Outcome("limit", told, reached.limit))
    return end_child(state, frame, Outcome("limit", told, reached.limit))


def end_closing(state: RunState, frame: Frame, failure: str = "") -> Step:
    """End a sub-run whose last turn gave no answer: what it printed could be taken for one."""
    told = f"the sub-run reached its limit {frame.limit} and gave no answer"
    outcome = Outcome("error", failure) if failure else Outcome("limit", told, frame.limit)
    return end_child(state, frame, outcome)


def answer(state: RunState, frame: Frame, text: str, value: str | None = None) -> Step:
    """End a frame with an answer; one that was closing ends as partial. `value` is the answer as
    JSON, where it has a type and fits it."""
    if frame.id != ROOT:
        return end_child(state, frame, Outcome("text", text))
    status: Status = "finished" if frame.limit is None else "partial"
    return finish(state, frame, text, status=status, limit=frame.limit, value=value)


def finish(
    state: RunState,
    frame: Frame,
    output: str,
    *,
    status: Status,
    limit: str | None = None,
    error: str | None = None,
    cause: str | None = None,
    value: str | None = None,
) -> Step:
    """End the run: derive `RunFinished`."""
    phase = Phase.FAILED if status == "failed" else Phase.DONE
    event = RunFinished(
        status=status, output=output, limit=limit, error=error, cause=cause, value=value
    )
    return put(state, evolve(frame, phase=phase)), (Record(event=event),)


def fail(state: RunState, frame: Frame, error: str, cause: str) -> Step:
    """End a frame that can't go on: the root fails the run, a sub-run fails its call."""
    if frame.id == ROOT:
        return finish(state, frame, frame.best, status="failed", error=error, cause=cause)
    return end_child(state, frame, Outcome("error", error))


def end_child(state: RunState, frame: Frame, outcome: Outcome, *, is_vain: bool = False) -> Step:
    """Close a sub-run and give its parent's cell the outcome. `is_vain`: it never asked a model."""
    state, effects = deliver(drop(state, frame), CallId(frame.id), outcome, is_vain=is_vain)
    state, more = pump(state)
    return state, effects + more


def never_begun(state: RunState, frame: Frame, outcome: Outcome) -> Step:
    """Close a sub-run whose first turn wasn't made: it is no subcall."""
    state = unmade(state, frame_of(CallId(frame.id)))
    return end_child(state, frame, outcome, is_vain=True)


def retry(state: RunState, frame: Frame) -> Step:
    """Ask again what a call that failed asked: the same messages, a turn of a new name."""
    turns, lost = frame.turns + 1, frame.lost_turns + 1
    frame = evolve(frame, phase=Phase.ASKING, turns=turns, lost_turns=lost)
    call = _call(frame, state.options, "turn")
    beyond = breach(state, call)
    if beyond is not None:
        return put(state, frame), (Record(event=limit_reached(frame.id, beyond)),)
    spent = evolve(state.spent, steps=state.spent.steps - 1)
    return start(evolve(state, spent=spent), call, frame)


def run_effect(state: RunState, frame: Frame) -> RunCode | ResumeCode:
    """What the running cell of a frame waits for: to be run, or to be resumed."""
    cell = frame.cell
    assert cell is not None, "a running frame has a cell"
    if cell.outcomes is not None:
        return ResumeCode(frame=frame.id, call_id=cell.id, outcomes=cell.outcomes)
    name = state.options.auto_finalize_var
    watch = watched(state.options) if frame.stalled else (name,) if name else ()
    return RunCode(frame=frame.id, call_id=cell.id, code=cell.code, watch=watch)


def watched(options: Options) -> tuple[str, ...]:
    """The variables in which fallback code leaves its answer: the first one that has a value."""
    name = options.auto_finalize_var
    return (name, "answer") if name and name != "answer" else ("answer",)


def under_way(state: RunState) -> tuple[RunCode | ResumeCode | ReadVariable | CheckAnswer, ...]:
    """The cells, reads and checks that frames wait for."""
    found: list[RunCode | ResumeCode | ReadVariable | CheckAnswer] = []
    for name in sorted(state.frames):
        frame = state.frames[name]
        if frame.phase is Phase.RUNNING:
            found.append(run_effect(state, frame))
        elif frame.reading is not None:
            read = read_id(frame.id, frame.reads)
            found.append(ReadVariable(frame=frame.id, call_id=read, name=frame.reading))
        found += typed.under_way(frame)
    return tuple(found)


def with_budget(state: RunState, frame: Frame) -> Frame:
    """The frame whose next message also says what is left of the limits that matter."""
    line = budget_line.line(state) if state.options.tell_budget else ""
    return evolve(frame, news=f"{frame.news}\n\n{line}") if line else frame


def next_turn(frame: Frame, options: Options, purpose: Purpose) -> tuple[Frame, CallModel]:
    """The frame that has told its news, and the call of its next turn."""
    message = Message("user", frame.news)
    told = history.append(frame, message, news="", turns=frame.turns + 1)
    told = history.trimmed(told, options)
    return told, _call(told, options, purpose)


def _call(frame: Frame, options: Options, purpose: Purpose) -> CallModel:
    """The call of a frame's newest turn."""
    return CallModel(
        frame=frame.id,
        call_id=turn_id(frame.id, frame.turns),
        purpose=purpose,
        prompt=history.prompt(frame, options),
        max_tokens=frame.max_tokens or options.max_tokens,
        adapter=frame.adapter,
    )
