"""Paused cells: what becomes of their host calls. Calls of models and tools, sub-runs, or answers
at once."""

from collections.abc import Mapping
from typing import assert_never

from pyrsistent import pmap

from rlm_fsm import budget_line, tool_calls, typed
from rlm_fsm.calls import IDLE_CHARS, Step, put, resume, then_pump, wait
from rlm_fsm.effect import CallModel
from rlm_fsm.event import CodePaused
from rlm_fsm.evolve import evolve
from rlm_fsm.forecast import forecasts
from rlm_fsm.frames import next_turn, open_frame, with_budget
from rlm_fsm.ids import CallId, FrameId, child_frame, depth_of, host_call_id
from rlm_fsm.options import Options
from rlm_fsm.policy import breach_by_subcalls
from rlm_fsm.state import Frame, Pause, RunState
from rlm_fsm.values import ContextInfo, HostCall, Outcome, TextRef


def pause(state: RunState, frame: Frame, event: CodePaused) -> Step:
    """Turn a cell's host calls into calls, sub-runs, and calls of tools.

    Equal calls of one pause are made once, unless the code said otherwise. A batch that
    `max_subcalls` doesn't allow as a whole is refused as a whole, so that nothing is paid for
    answers that the cell would then lose. What the state itself knows is answered at once.
    """
    asked, unique = _merge(frame, event.calls)
    weight = 1 + sum(len(call.prompt) for call in unique.values()) // IDLE_CHARS
    known = _known(state, frame, unique, event.now_s)
    tools = {c: call for c, call in unique.items() if call.kind == "tool" and c not in known}
    unique = {c: call for c, call in unique.items() if c not in known and c not in tools}
    frame = evolve(frame, host_calls=frame.host_calls + len(asked))
    exceeded = breach_by_subcalls(state.options.policy, state.spent, len(unique))
    if exceeded is not None:
        these = "this call" if len(unique) == 1 else f"these {len(unique):,} calls"
        message = f"the limit {exceeded} leaves no room for {these}"
        known |= dict.fromkeys(unique, Outcome("limit", message, exceeded.limit))
        unique = {}
    if not unique and not tools:
        return resume(state, frame, tuple(known[call_id] for call_id in asked), idle=weight)
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
        weight=weight,
        backlog=() if event.parallel else tuple(calls[1:]),
        typed=shaped,
    )
    started = wait(state, frame, waiting, tuple(calls) if event.parallel else tuple(calls[:1]))
    if not tools:
        return started
    state, effects = started
    state, more = tool_calls.begin(state, frame, tools)
    # A frame that waits for people lets others begin.
    return then_pump((state, effects + more))


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
    told, first = next_turn(with_budget(state, frame), state.options, "turn")
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
