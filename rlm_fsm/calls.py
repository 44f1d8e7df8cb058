"""Model calls: the window of calls in flight, budgets, and the answers of a paused cell.

Rules:

1. A root turn starts at once. Every call below the root waits in one queue for the whole tree
   and starts when fewer than `max_concurrent_subcalls` are in flight. So concurrency is decided
   here, and replays the same way.
2. A budget is checked when a call is next to leave the queue: by the rules of `policy` it starts,
   is refused, or waits for a bill, and those behind it wait too.
3. A turn of an open sub-run goes before calls that would begin something new: sub-runs end
   before others start.
4. A call that starts is announced: `Record(EffectStarted)`, then `CallModel`, in one commit with
   the event that let it out.
5. Answers go back in the order of the calls, whatever the order in which they came.
"""

from collections.abc import Iterable
from math import ceil

from pyrsistent import PDeque

from rlm_fsm.bills import NO_BILLS, Bills, Size, at_most, expected
from rlm_fsm.codec import effect_hash
from rlm_fsm.effect import CallModel, CallTool, Effect, Record, ResumeCode
from rlm_fsm.event import (
    EffectStarted,
    HistoryCompacted,
    LimitReached,
    ModelFailed,
    ModelReplied,
)
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import ROOT, CallId, FrameId, first_of, frame_of
from rlm_fsm.policy import (
    Breach,
    Need,
    Spent,
    breach_by_call,
    fits_beside,
    release,
    reserve,
    settle,
    uncounted,
)
from rlm_fsm.price import NANO_USD
from rlm_fsm.state import Frame, Pause, Phase, RunState
from rlm_fsm.values import Outcome, Usage

Step = tuple[RunState, tuple[Effect, ...]]
"""What a transition gives: the new state and what the world must do."""


def put(state: RunState, frame: Frame) -> RunState:
    """The state with this frame in place of the one of the same name."""
    return evolve(state, frames=state.frames.set(frame.id, frame))


def takes_a_place(call: CallModel) -> bool:
    """Whether a call counts against the window: all but the root's own turns do."""
    return call.frame != ROOT or call.purpose == "subcall"


def need(state: RunState, call: CallModel) -> Need:
    """What a call is expected to take."""
    size = expected(bills_of(state, call.adapter), _chars(state, call), call.max_tokens)
    keeps = _keeps_to_cost(state)
    return Need(size.tokens, (known_nusd(state, call.adapter, size) or 0) if keeps else 0)


def most(state: RunState, call: CallModel) -> Need:
    """The most that a call may take, which is set aside for it."""
    size = at_most(bills_of(state, call.adapter), _chars(state, call), call.max_tokens)
    if not _keeps_to_cost(state):
        return Need(size.tokens)
    nusd = known_nusd(state, call.adapter, size)
    return Need(size.tokens, _unknown_nusd(state, call.adapter, size) if nusd is None else nusd)


def known_nusd(state: RunState, adapter: str, size: Size) -> int | None:
    """What tokens of an adapter cost, in nano-dollars: by its price, or else by the dearest token
    that it has charged so far. None when neither is known."""
    priced, usd = state.options.price_of(adapter), bills_of(state, adapter).dearest_usd
    if priced is None and usd is None:
        return None
    return size.nusd(priced.price if priced else None, usd or 0.0)


def bills_of(state: RunState, adapter: str) -> Bills:
    """What the bills of an adapter have shown."""
    return state.spent.bills.get(adapter, NO_BILLS)


def breach(state: RunState, call: CallModel, takes: Need | None = None) -> Breach | None:
    """The limit that the call would exceed, or None. `takes`: another estimate than its `need`."""
    return breach_by_call(
        state.options.policy,
        state.spent,
        takes or need(state, call),
        below_root=takes_a_place(call),
    )


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
    """Queue calls, in front for the next turn of an open sub-run, and let out what may start."""
    queue = state.queue.extendleft(calls) if first else state.queue.extend(calls)
    return pump(evolve(state, queue=queue))


def pump(state: RunState) -> Step:
    """Let calls out of the queue while there is a place. A call beyond a limit is answered; where
    it might only get beyond one, with those in flight, it waits."""
    window = state.options.max_concurrent_subcalls
    if not state.queue or state.in_flight >= window:
        return state, ()
    started: list[Effect] = []
    while state.queue and state.in_flight < window:
        call, rest = state.queue.left, state.queue.popleft()
        takes = most(state, call)
        if state.in_flight and not fits_beside(state.options.policy, state.spent, takes):
            break
        exceeded = breach(state, call)
        if exceeded is None:
            state, effects = start(state, call, queue=rest, takes=takes)
        elif call.purpose == "subcall":
            state = evolve(state, queue=rest)
            state, effects = _delivered(state, call.call_id, limit_outcome(exceeded))
        elif call.purpose == "compaction":
            state = evolve(state, queue=rest)
            effects = (Record(event=no_summary(call, no_room(exceeded))),)
        else:
            state = evolve(state, queue=rest)
            effects = (Record(event=limit_reached(call.frame, exceeded)),)
        started.extend(effects)
    return state, tuple(started)


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
    takes = takes_a_place(call)
    is_unknown = replied is not None and replied.cost_usd is None and not replied.cache_hit
    spent = settle(
        state.spent,
        call.call_id,
        below_root=takes,
        usage=replied.usage if replied else Usage(),
        cost_usd=replied.cost_usd if replied else None,
        seconds=event.clock_s,
        unpriced=is_unknown,
        cache_hit=replied is not None and replied.cache_hit,
    )
    if is_unknown and _keeps_to_cost(state):
        spent = evolve(spent, unknown_nusd=spent.unknown_nusd + need(state, call).nusd)
    if replied is not None and not replied.cache_hit:
        spent = _learned(state, spent, call, replied)
    calls = state.calls.remove(event.call_id)
    return evolve(state, calls=calls, in_flight=state.in_flight - takes, spent=spent), call


def reserved_anew(state: RunState) -> RunState:
    """The state with the reservations of its calls in flight under the options that now hold."""
    spent = state.spent
    for name in sorted(state.calls):
        call = state.calls[name]
        below = takes_a_place(call)
        takes = most(evolve(state, spent=spent), call)
        spent = reserve(release(spent, name, below_root=below), name, takes, below_root=below)
    return state if spent is state.spent else evolve(state, spent=spent)


def wait(state: RunState, frame: Frame, pause: Pause, calls: tuple[CallModel, ...]) -> Step:
    """Put a frame to wait for calls that its cell asked for."""
    return enqueue(put(state, evolve(frame, phase=Phase.WAITING, pause=pause)), calls)


def deliver(state: RunState, call_id: CallId, outcome: Outcome, *, free: bool = False) -> Step:
    """Give one host call its answer; resume the cell with the last one. `free`: only caches have
    answered, and it doesn't count as a subcall."""
    if free:
        state = evolve(state, spent=uncounted(state.options.policy, state.spent))
    after, effects = _delivered(state, call_id, outcome)
    return (after, effects) if after.queue is state.queue else then_pump((after, effects))


def _delivered(state: RunState, call_id: CallId, outcome: Outcome) -> Step:
    """`deliver`, but for letting out the call that waited for this one: it is queued. (`pump`
    refuses long rows of them, and must not call itself for each.)"""
    frame = state.frames[frame_of(call_id)]
    pause = frame.pause
    assert pause is not None, "only a waiting frame has calls to be answered"
    call_id = first_of(call_id)
    answers = pause.answers.set(call_id, outcome)
    if pause.missing == 1:
        outcomes = tuple(answers[asked] for asked in pause.asked)
        return resume(state, frame, outcomes)
    waiting = evolve(pause, answers=answers, missing=pause.missing - 1, backlog=pause.backlog[1:])
    if pause.typed and call_id in pause.typed:
        waiting = evolve(waiting, typed=pause.typed.remove(call_id))
    state = put(state, evolve(frame, pause=waiting))
    if pause.backlog:
        state = evolve(state, queue=state.queue.extend(pause.backlog[:1]))
    return state, ()


def resume(state: RunState, frame: Frame, outcomes: tuple[Outcome, ...]) -> Step:
    """Go on with the paused cell."""
    assert frame.cell is not None, "a waiting frame has a cell"
    cell = evolve(frame.cell, outcomes=outcomes)
    state = put(state, evolve(frame, phase=Phase.RUNNING, pause=None, cell=cell))
    return state, (ResumeCode(frame=frame.id, call_id=cell.id, outcomes=outcomes),)


def drop(state: RunState, frame: Frame) -> RunState:
    """Forget a sub-run that has ended: it has no call in flight or queued."""
    return evolve(state, frames=state.frames.remove(frame.id))


def limit_outcome(exceeded: Breach) -> Outcome:
    """What code learns of a call that a limit forbids."""
    return Outcome("limit", f"the limit {exceeded} leaves no room for this call")


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


def _intent(call: CallModel | CallTool) -> EffectStarted:
    return EffectStarted(
        frame=call.frame,
        call_id=call.call_id,
        effect=type(call).__name__,
        effect_hash=effect_hash(call),
    )


def _chars(state: RunState, call: CallModel) -> int:
    if call.purpose == "subcall":
        return call.prompt.chars + len(state.options.subcall_system)
    return call.prompt.chars


def _keeps_to_cost(state: RunState) -> bool:
    return state.options.policy.max_cost_usd is not None and state.options.rules >= 2


def _learned(state: RunState, spent: Spent, call: CallModel, replied: ModelReplied) -> Spent:
    """What was spent, with what the bill of a call has shown."""
    bills = bills_of(state, call.adapter).with_one(
        _chars(state, call), call.max_tokens, replied.usage, replied.cost_usd
    )
    return evolve(spent, bills=spent.bills.set(call.adapter, bills))


def _unknown_nusd(state: RunState, adapter: str, size: Size) -> int:
    """What tokens of an adapter may cost that hasn't told any cost: as much as those of the dearest
    of the others, or all that is allowed. When its bills have told none, they won't: 0."""
    others = [bills.dearest_usd for bills in state.spent.bills.values() if bills.dearest_usd]
    if others:
        return size.nusd(None, max(others))
    allowed = state.options.policy.max_cost_usd or 0.0
    return 0 if adapter in state.spent.bills else ceil(allowed * NANO_USD)
