"""Model calls: the window of calls in flight, budgets, and the answers of a paused cell.

Rules:

1. A root turn starts at once. Every call below the root waits in one queue for the whole tree
   and starts when fewer than `max_concurrent_subcalls` are in flight. So concurrency is decided
   here, and replays the same way.
2. A budget is checked when a call is next to leave the queue: by the rules of `policy` and
   `needs` it starts, is refused, or waits for a bill, and those behind it wait too.
3. Which one is next is for `queue` to say: sub-runs end before others start.
4. A call that starts is announced: `Record(EffectStarted)`, then `CallModel`, in one commit with
   the event that let it out.
5. Answers go back in the order of the calls, whatever the order in which they came.
"""

from collections.abc import Iterable, Sequence

from pyrsistent import PDeque

from rlm_fsm.codec import effect_hash
from rlm_fsm.effect import CallModel, CallTool, Effect, Record, ResumeCode
from rlm_fsm.event import (
    UNKNOWN_MODEL,
    EffectStarted,
    HistoryCompacted,
    LimitReached,
    ModelFailed,
    ModelReplied,
)
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import ROOT, CallId, FrameId, first_of, frame_of
from rlm_fsm.needs import (
    breach,
    keeps_to_cost,
    learned,
    most,
    takes_a_place,
    untold_nusd,
    verdict,
)
from rlm_fsm.policy import Breach, Need, release, reserve, settle, uncounted
from rlm_fsm.queue import is_first_turn, next_call, queued
from rlm_fsm.state import Frame, Pause, Phase, RunState
from rlm_fsm.values import Outcome, Usage

Step = tuple[RunState, tuple[Effect, ...]]
"""What a transition gives: the new state and what the world must do."""

IDLE_PAUSES = 10_000
"""Pauses in a row of one cell that may begin nothing. Each is an event with all that it asks, and
takes no time that counts against the cell's: code that ignores refusals, or asks for the budget
again and again, would go on for hours and fill the log."""
IDLE_CHARS = 10_000
"""So many characters that are asked in one count for one pause more."""
_IN_VAIN = (
    "the cell asked again and again for what was refused, or what it knew already, and was stopped"
)


def put(state: RunState, frame: Frame) -> RunState:
    """The state with this frame in place of the one of the same name."""
    return evolve(state, frames=state.frames.set(frame.id, frame))


def start(
    state: RunState,
    call: CallModel,
    frame: Frame | None = None,
    queue: PDeque[CallModel] | None = None,
    takes: Need | None = None,
) -> Step:
    """Let a call out: reserve what it may take, announce it, make it. `frame` and `queue` are put
    in the same copy of the state. `takes`: its `most`, where that is known."""
    below = takes_a_place(call)
    spent = reserve(
        state.spent,
        call.call_id,
        takes or most(state, call),
        below_root=below,
        steps=call.purpose == "turn" and not below,
    )
    state = evolve(
        state,
        frames=state.frames if frame is None else state.frames.set(frame.id, frame),
        queue=state.queue if queue is None else queue,
        calls=state.calls.set(call.call_id, call),
        in_flight=state.in_flight + below,
        spent=spent,
    )
    return state, announced(call)


def announced(call: CallModel | CallTool) -> tuple[Effect, ...]:
    """A call with its intent before it."""
    return Record(event=_intent(call)), call


def lost(call: CallModel) -> ModelFailed:
    """The failure of a call that was in flight when the run stopped."""
    message = "the run stopped while this call was in flight; it may have been paid for"
    return ModelFailed(frame=call.frame, call_id=call.call_id, error="uncertain", message=message)


def enqueue(state: RunState, calls: Iterable[CallModel], *, first: bool = False) -> Step:
    """Queue calls, `first` before all that is new, and let out what may start."""
    return pump(evolve(state, queue=queued(state, calls, first=first)))


def pump(state: RunState) -> Step:
    """Let calls out of the queue while there is a place. A call beyond a limit is answered; where
    it might only get beyond one, with those in flight, it waits."""
    window = state.options.max_concurrent_subcalls
    if not state.queue or state.in_flight >= window:
        return state, ()
    started: list[Effect] = []
    while state.queue and state.in_flight < window:
        found = next_call(state)
        if found is None:
            break
        call, rest = found
        judged = verdict(state, call)
        if judged is None:
            break
        if isinstance(judged, Need):
            frame = None
            if is_first_turn(call):
                frame = evolve(state.frames[call.frame], is_begun=True)
            state, effects = start(state, call, frame, rest, judged)
        elif call.purpose == "subcall":
            state = evolve(state, queue=rest)
            is_vain = first_of(call.call_id) == call.call_id
            if is_vain:
                state = unmade(state, call.frame)
            outcome = limit_outcome(judged)
            state, effects = _delivered(state, call.call_id, outcome, is_vain=is_vain)
        else:
            state = evolve(state, queue=rest)
            effects = (Record(event=_forbidden(call, judged)),)
        started.extend(effects)
    return state, tuple(started)


def unmade(state: RunState, frame_id: FrameId) -> RunState:
    """The state without a subcall of this frame, since it wasn't made."""
    frame = state.frames[frame_id]
    state = put(state, evolve(frame, subcalls=frame.subcalls - 1))
    return evolve(state, spent=evolve(state.spent, subcalls=state.spent.subcalls - 1))


def then_pump(taken: Step) -> Step:
    """Let out the calls for which an outcome has made room."""
    state, effects = taken
    state, more = pump(state)
    return state, effects + more if more else effects


def at(state: RunState, clock_s: float) -> RunState:
    """The state at a time of the run's own clock, which never goes back."""
    if clock_s <= state.spent.seconds:
        return state
    return evolve(state, spent=evolve(state.spent, seconds=clock_s))


def ended(state: RunState, event: ModelReplied | ModelFailed) -> tuple[RunState, CallModel]:
    """Take a call's outcome: settle its bill and free its place."""
    call = state.calls[event.call_id]
    replied = event if isinstance(event, ModelReplied) else None
    is_made = not isinstance(event, ModelFailed) or event.error != UNKNOWN_MODEL
    takes = takes_a_place(call)
    bill = None if replied is None or replied.cache_hit else replied
    is_unknown = bill is not None and bill.cost_usd is None
    spent = settle(
        state.spent,
        call.call_id,
        below_root=takes,
        usage=replied.usage if replied else Usage(),
        cost_usd=replied.cost_usd if replied else None,
        seconds=event.clock_s,
        unpriced=is_unknown,
        cache_hit=replied is not None and replied.cache_hit,
        is_made=is_made,
        bills=None if bill is None else learned(state, call, bill),
    )
    if bill is not None and is_unknown and keeps_to_cost(state):
        untold = untold_nusd(state, call, bill.usage)
        spent = evolve(spent, unknown_nusd=spent.unknown_nusd + untold)
    calls = state.calls.remove(event.call_id)
    return evolve(state, calls=calls, in_flight=state.in_flight - takes, spent=spent), call


def made_again(state: RunState, again: Sequence[CallModel], *, is_judged: bool) -> Step:
    """Make these calls of a run that stopped once more: before all that waits, and where they are
    judged, as far as its limits allow it now."""
    effects: list[Effect] = []
    below: list[CallModel] = []
    for call in again:
        state = _taken_back(state, call)
        if is_judged and takes_a_place(call):
            below.append(call)
        elif is_judged and (beyond := breach(state, call)) is not None:
            effects.append(Record(event=_forbidden(call, beyond)))
        else:
            state, more = start(state, call)
            effects += more
    state = evolve(state, queue=state.queue.extendleft(reversed(below)))
    return then_pump((state, tuple(effects)))


def _taken_back(state: RunState, call: CallModel) -> RunState:
    """The state in which a call in flight hasn't started yet."""
    takes = takes_a_place(call)
    spent = release(state.spent, call.call_id, below_root=takes)
    is_turn = call.purpose == "turn" and not takes
    return evolve(
        state,
        calls=state.calls.remove(call.call_id),
        in_flight=state.in_flight - takes,
        spent=evolve(spent, steps=spent.steps - is_turn),
    )


def wait(state: RunState, frame: Frame, pause: Pause, calls: tuple[CallModel, ...]) -> Step:
    """Put a frame to wait for calls that its cell asked for."""
    waiting = put(state, evolve(frame, phase=Phase.WAITING, pause=pause))
    return enqueue(waiting, calls, first=frame.id != ROOT)


def deliver(
    state: RunState,
    call_id: CallId,
    outcome: Outcome,
    *,
    free: bool = False,
    is_vain: bool = False,
) -> Step:
    """Give one host call its answer; resume the cell with the last one. `free`: only caches have
    answered, and it doesn't count as a subcall. `is_vain`: it wasn't made at all."""
    if free:
        state = evolve(state, spent=uncounted(state.options.policy, state.spent))
    after, effects = _delivered(state, call_id, outcome, is_vain=is_vain)
    return (after, effects) if after.queue is state.queue else then_pump((after, effects))


def _delivered(state: RunState, call_id: CallId, outcome: Outcome, *, is_vain: bool) -> Step:
    """`deliver`, but for letting out the call that waited for this one: it is queued. (`pump`
    refuses long rows of them, and must not call itself for each.)"""
    frame = state.frames[frame_of(call_id)]
    pause = frame.pause
    assert pause is not None, "only a waiting frame has calls to be answered"
    call_id = first_of(call_id)
    answers = pause.answers.set(call_id, outcome)
    is_vain = is_vain and pause.is_vain
    if pause.missing == 1:
        outcomes = tuple(answers[asked] for asked in pause.asked)
        return resume(state, frame, outcomes, idle=pause.weight if is_vain else 0)
    waiting = evolve(
        pause,
        answers=answers,
        missing=pause.missing - 1,
        is_vain=is_vain,
        backlog=pause.backlog[1:],
    )
    if pause.typed and call_id in pause.typed:
        waiting = evolve(waiting, typed=pause.typed.remove(call_id))
    state = put(state, evolve(frame, pause=waiting))
    if pause.backlog:
        queue = queued(state, pause.backlog[:1], first=frame.id != ROOT)
        state = evolve(state, queue=queue)
    return state, ()


def resume(state: RunState, frame: Frame, outcomes: tuple[Outcome, ...], *, idle: int = 0) -> Step:
    """Go on with the paused cell; stop it where it asks in vain for ever. `idle`: the weight of the
    pause, where it began nothing."""
    assert frame.cell is not None, "a waiting frame has a cell"
    if idle and frame.cell.idle >= IDLE_PAUSES:
        outcomes = (Outcome("stop", _IN_VAIN),) * len(outcomes)
    cell = evolve(frame.cell, outcomes=outcomes, idle=frame.cell.idle + idle if idle else 0)
    state = put(state, evolve(frame, phase=Phase.RUNNING, pause=None, cell=cell))
    return state, (ResumeCode(frame=frame.id, call_id=cell.id, outcomes=outcomes),)


def drop(state: RunState, frame: Frame) -> RunState:
    """Forget a sub-run that has ended: it has no call in flight or queued."""
    return evolve(state, frames=state.frames.remove(frame.id))


def limit_outcome(exceeded: Breach) -> Outcome:
    """What code learns of a call that a limit forbids."""
    told = f"the limit {exceeded} leaves no room for this call"
    return Outcome("limit", told, exceeded.limit)


def no_room(exceeded: Breach) -> str:
    """Why a limit forbids a summary."""
    return f"the limit {exceeded} leaves no room for it"


def no_summary(call: CallModel, why: str) -> HistoryCompacted:
    """The event of a summary that can't be had."""
    return HistoryCompacted(frame=call.frame, call_id=call.call_id, failure=why)


def limit_reached(frame: FrameId, exceeded: Breach) -> LimitReached:
    """The event of a turn that a limit forbids."""
    return LimitReached(
        frame=frame,
        limit=exceeded.limit,
        allowed=exceeded.allowed,
        used=exceeded.used,
    )


def _forbidden(call: CallModel, exceeded: Breach) -> HistoryCompacted | LimitReached:
    """The event of a summary or a turn that a limit forbids."""
    if call.purpose == "compaction":
        return no_summary(call, no_room(exceeded))
    return limit_reached(call.frame, exceeded)


def _intent(call: CallModel | CallTool) -> EffectStarted:
    return EffectStarted(
        frame=call.frame,
        call_id=call.call_id,
        effect=type(call).__name__,
        effect_hash=effect_hash(call),
    )
