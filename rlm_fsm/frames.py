"""Frames: their turns, and how a recursive sub-run is opened and ends.

A sub-run is a frame like the root. It differs in three ways only: its turns wait in the queue
(`calls`), its turns are limited by `recursive_subcall_max_steps`, and its end is the outcome that
its parent's cell waits for.
"""

from collections.abc import Mapping
from typing import assert_never

from pyrsistent import pmap

from rlm_fsm import budget_line, compaction, history, tool_calls, toolspec, typed
from rlm_fsm.calls import (
    Step,
    deliver,
    drop,
    enqueue,
    limit_reached,
    pump,
    put,
    resume,
    start,
    unmade,
    wait,
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
from rlm_fsm.event import CodePaused, LimitReached, RunFinished, Status
from rlm_fsm.evolve import evolve
from rlm_fsm.forecast import forecasts
from rlm_fsm.ids import (
    ROOT,
    CallId,
    FrameId,
    child_frame,
    depth_of,
    frame_of,
    host_call_id,
    read_id,
    turn_id,
)
from rlm_fsm.needs import breach, takes_a_place
from rlm_fsm.options import Options
from rlm_fsm.policy import Breach, breach_by_subcalls
from rlm_fsm.state import Frame, Pause, Phase, RunState
from rlm_fsm.values import ContextInfo, HostCall, Message, Outcome, TextRef
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
    told, call = _turn(_with_budget(state, frame), state.options, "turn")
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
    told, call = _turn(closing, state.options, "closing")
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
    if frame.turns == 1 and len(frame.messages) <= history.HEAD:
        state = unmade(state, frame_of(CallId(frame.id)))
    return end_child(state, frame, Outcome("limit", f"the sub-run reached its limit {allowed}"))


def end_closing(state: RunState, frame: Frame, failure: str = "") -> Step:
    """End a sub-run whose last turn gave no answer: what it printed could be taken for one."""
    told = f"the sub-run reached its limit {frame.limit} and gave no answer"
    return end_child(state, frame, Outcome("error", failure) if failure else Outcome("limit", told))


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


def end_child(state: RunState, frame: Frame, outcome: Outcome) -> Step:
    """Close a sub-run and give its parent's cell the outcome."""
    state, effects = deliver(drop(state, frame), CallId(frame.id), outcome)
    state, more = pump(state)
    return state, effects + more


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


def pause(state: RunState, frame: Frame, event: CodePaused) -> Step:
    """Turn a cell's host calls into calls, sub-runs, and calls of tools.

    Equal calls of one pause are made once, unless the code said otherwise. A batch that
    `max_subcalls` doesn't allow as a whole is refused as a whole, so that nothing is paid for
    answers that the cell would then lose. What the state itself knows is answered at once.
    """
    asked, unique = _merge(frame, event.calls)
    known = _known(state, frame, unique, event.now_s)
    tools = {c: call for c, call in unique.items() if call.kind == "tool" and c not in known}
    unique = {c: call for c, call in unique.items() if c not in known and c not in tools}
    frame = evolve(frame, host_calls=frame.host_calls + len(asked))
    exceeded = breach_by_subcalls(state.options.policy, state.spent, len(unique))
    if exceeded is not None:
        these = "this call" if len(unique) == 1 else f"these {len(unique):,} calls"
        message = f"the limit {exceeded} leaves no room for {these}"
        known |= dict.fromkeys(unique, Outcome("limit", message))
        unique = {}
    if not unique and not tools:
        return resume(state, frame, tuple(known[call_id] for call_id in asked))
    frame = evolve(frame, subcalls=frame.subcalls + len(unique))
    spent = evolve(state.spent, subcalls=state.spent.subcalls + len(unique))
    state = evolve(state, spent=spent)
    calls: list[CallModel] = []
    shaped = typed.begun(unique, state.options.profile)
    samples = _samples(unique)
    for call_id, call in unique.items():
        if _recurses(frame, call, state.options):
            state, first = _open_child(state, child_frame(call_id), call)
            calls.append(first)
        else:
            prompt = shaped[call_id].prompt if call_id in shaped else call.prompt
            sample = samples[call_id]
            calls.append(_subcall(frame.id, call_id, call, prompt, state.options, sample))
    waiting = Pause(
        asked=tuple(asked),
        answers=pmap(known),
        missing=len(calls) + len(tools),
        backlog=() if event.parallel else tuple(calls[1:]),
        typed=shaped,
    )
    started = wait(state, frame, waiting, tuple(calls) if event.parallel else tuple(calls[:1]))
    if not tools:
        return started
    state, effects = started
    state, more = tool_calls.begin(state, frame, tools)
    return state, effects + more


def _known(
    state: RunState, frame: Frame, calls: Mapping[CallId, HostCall], now_s: float | None
) -> dict[CallId, Outcome]:
    """The outcomes of the calls that the state itself answers, or the pause."""
    found = forecasts(state, calls)
    for call_id, call in calls.items():
        match call.kind:
            case "subcall":
                if call.fault:
                    found[call_id] = Outcome("error", call.fault)
            case "budget":
                found[call_id] = Outcome("text", budget_line.report(state, frame))
            case "forecast":
                pass  # judged together
            case "tool":
                if tool_calls.spec_of(state.options, call.fn) is None:
                    found[call_id] = Outcome("error", f"there is no tool {call.fn!r}")
            case "clock":
                found[call_id] = _time_of_day(now_s)
            case _:
                assert_never(call.kind)
    return found


def _time_of_day(now_s: float | None) -> Outcome:
    if now_s is None:
        return Outcome("error", "nobody knows what time it is: the pause doesn't say")
    return Outcome("text", f"{now_s:.6f}")


def _with_budget(state: RunState, frame: Frame) -> Frame:
    """The frame whose next message also says what is left of the limits that matter."""
    line = budget_line.line(state, frame) if state.options.tell_budget else ""
    return evolve(frame, news=f"{frame.news}\n\n{line}") if line else frame


def _turn(frame: Frame, options: Options, purpose: Purpose) -> tuple[Frame, CallModel]:
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


def _merge(
    frame: Frame, calls: tuple[HostCall, ...]
) -> tuple[list[CallId], dict[CallId, HostCall]]:
    """The call that answers each position, and the calls to make."""
    asked: list[CallId] = []
    unique: dict[CallId, HostCall] = {}
    seen: dict[HostCall, CallId] = {}
    for number, call in enumerate(calls, frame.host_calls + 1):
        call_id = host_call_id(frame.id, number)
        made = seen.setdefault(call, call_id) if call.dedupe else call_id
        if made is call_id:
            unique[call_id] = call
        asked.append(made)
    return asked, unique


def _samples(calls: Mapping[CallId, HostCall]) -> dict[CallId, int]:
    """How many equal calls stand before each that is one of several attempts."""
    if not any(call.is_sample for call in calls.values()):
        return dict.fromkeys(calls, 0)
    seen: dict[HostCall, int] = {}
    found: dict[CallId, int] = {}
    for call_id, call in calls.items():
        found[call_id] = seen.get(call, 0)
        seen[call] = found[call_id] + call.is_sample
    return found


def _recurses(frame: Frame, call: HostCall, options: Options) -> bool:
    if call.schema is not None:
        return False
    wanted = options.recursive_subcalls if call.recursive is None else call.recursive
    return wanted and depth_of(frame.id) < options.depth_limit


def _open_child(state: RunState, frame_id: FrameId, call: HostCall) -> tuple[RunState, CallModel]:
    """Open a sub-run over what the call asks about; its first turn."""
    ref = TextRef.of(call.text)
    context = ContextInfo(
        kind="string", chars=ref.chars, documents=1, digest=ref.hash, source="subcall"
    )
    query = call.question or state.options.profile.child_query
    steps = state.options.recursive_subcall_max_steps
    frame = open_frame(frame_id, query, context, state.options, max_steps=steps)
    frame = evolve(frame, max_tokens=max(call.max_tokens or 0, state.options.max_tokens))
    if call.model and state.options.rules >= 2:
        frame = evolve(frame, adapter=call.model)
    told, first = _turn(_with_budget(state, frame), state.options, "turn")
    return put(state, told), first


def _subcall(
    frame_id: FrameId, call_id: CallId, call: HostCall, prompt: str, options: Options, sample: int
) -> CallModel:
    return CallModel(
        frame=frame_id,
        call_id=call_id,
        purpose="subcall",
        prompt=TextRef.of(prompt),
        max_tokens=call.max_tokens or options.subcall_max_tokens,
        adapter=call.model or "subcall",
        sample=sample,
    )
