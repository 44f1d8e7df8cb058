"""The loop around the machine: event in, append, step, perform, feed back.

It knows how to perform effects and nothing else: what is done next is the reducer's to say.

1. Events that arrive together are stepped one by one, each followed by what it derives, and
   appended in ONE transaction, as many of them as `portions` says. Only then do the effects start,
   in the order of `step`.
2. Each effect ends in exactly one event. Failures of the world are events; an exception that
   leaves `drive` is a fault of the log or of ours.
3. A lone effect, with nothing else in flight, is awaited in place: an ordinary cell needs no task.
   A call of a model has one, so that the run can end without it (`leaving`).
4. Sessions follow the state, and are no effects (`keeping`).
5. When the loop is cancelled, calls in flight are cancelled, and cells are stopped. What had
   arrived is appended, replies that came all the same, and `Cancelled` after it, with the calls
   that were announced and not made. Then the cancellation goes on to the caller.
6. Under `Policy.max_seconds` a timer runs. When it ends, `DeadlinePassed` ends the run, as in 5.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import assert_never

from effects import leaving
from effects.adapters.base import ModelAdapter
from effects.caching import Caching
from effects.calling import CostOf, call_model, cancellations, no_cost, unknown_adapter
from effects.context import Context
from effects.keeping import Keeper
from effects.listeners import Listener, tell
from effects.log.base import EventLog
from effects.outcomes import executed, paused, variable_read
from effects.portions import Portions
from effects.repls.base import Paused, Repl, ReplUnavailable, SnapshotRule
from effects.saving import Saver
from effects.sessions import OnChangedOutput
from effects.texts import Texts
from effects.tools import Toolbox
from effects.typed import AnswerType, checked
from rlm_fsm.effect import (
    AskApproval,
    CallModel,
    CallTool,
    CheckAnswer,
    Effect,
    ReadVariable,
    Record,
    ResumeCode,
    RunCode,
)
from rlm_fsm.event import (
    Cancelled,
    DeadlinePassed,
    Event,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunStarted,
    ToolReturned,
)
from rlm_fsm.fold import advance, pending
from rlm_fsm.ids import ROOT, CallId, FrameId, RunId
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, RunState
from rlm_fsm.values import CodeResult


def _no_sessions(_: Context) -> Repl:
    raise ReplUnavailable("no REPL backend was chosen")


@dataclass(kw_only=True)
class Interpreter:
    """Performs one run."""

    run_id: RunId
    log: EventLog
    adapters: Mapping[str, ModelAdapter]
    """By name; ``root`` and ``subcall`` are always there."""
    context: Context = field(default_factory=lambda: Context.from_text(""))
    """What the root works on; set before `drive`."""
    open_repl: Callable[[Context], Repl] = field(default=_no_sessions)
    """What opens a session over a context; set before `drive`."""
    listeners: Sequence[Listener] = ()
    clock: Callable[[], float] = time.monotonic
    """Seconds that only ever rise."""
    time_of_day: Callable[[], float] = time.time
    """See `CodePaused.now_s`."""
    on_changed_output: OnChangedOutput = "raise"
    """See `sessions`."""
    gate: AbstractAsyncContextManager[object] = field(default_factory=nullcontext[None])
    """Held during each model call: what lets only so many through that several runs make. A call
    that waits for it has its intent in the log already."""
    cost_of: CostOf = no_cost
    """What a reply cost that its provider doesn't tell."""
    caching: Caching = field(default_factory=Caching)
    """What subcalls may be answered from."""
    snapshots: SnapshotRule = field(default_factory=SnapshotRule)
    """When sessions are written down, see `saving`."""
    answer_type: AnswerType | None = None
    """What the answer must be, when the run's options have a schema."""
    toolbox: Toolbox = field(default_factory=Toolbox)
    """The functions that code may call, and who is asked for their calls."""
    portions: Portions = field(default_factory=Portions)
    """How many outcomes one commit takes."""

    seed: str = ""
    """That of the run's first event, once it was restored."""
    state: RunState = INITIAL
    _began: float = 0.0
    _cancelled_before: int = 0
    """How often the task that drives the run had been cancelled before."""
    _inbox: deque[Event] = field(default_factory=deque[Event])
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _sessions: Keeper = field(init=False)
    _texts: Texts = field(default_factory=Texts)
    _threads: ThreadPoolExecutor | None = None
    _timer: asyncio.TimerHandle | None = None
    """Ends with the run's time, where that is limited."""
    _is_ending: bool = False
    """Whether the run is stopped: nothing more is begun."""
    _made: set[CallId] = field(default_factory=set[CallId])
    """Calls of models and tools that were made."""
    _crash: BaseException | None = None

    def __post_init__(self) -> None:
        saver = Saver(run_id=self.run_id, log=self.log, rule=self.snapshots, clock=self.clock)
        self._sessions = Keeper(
            run_id=self.run_id,
            log=self.log,
            saver=saver,
            on_changed_output=self.on_changed_output,
            new=self._new_repl,
        )

    def restore(self, logged: Iterable[Event]) -> None:
        """Fold what the log holds of the run, before `drive`."""
        for event in logged:
            if isinstance(event, RunStarted):
                self.seed = event.seed
            self.state, effects = step(self.state, event)
            self._sessions.take(self.state, event, effects)
            self._texts.remember(event)
        self._made.update(self.state.under_way)

    async def drive(self, *first: Event) -> RunState:
        """Append `first` and go on until the run is over; the last state.

        Without an event to append, the effects that the state owes are performed.
        """
        self._began = self.clock() - self.state.spent.seconds
        self._cancelled_before = cancellations()
        try:
            effects = self._commit(first) if first else pending(self.state)
            if not self.state.is_over:
                self._sessions.warm_up()
            self._watch_time()
            while not self.state.is_over:
                effects = self._commit(await self._perform_all(effects))
        except asyncio.CancelledError:
            await self._cancelled()
            raise
        finally:
            await self._release()
        if cancellations() > self._cancelled_before:
            raise asyncio.CancelledError  # it came while things were being closed
        return self.state

    # -- events ------------------------------------------------------------------------------

    def _commit(self, arrived: Sequence[Event]) -> Sequence[Effect]:
        """Append events with all that they derive; the effects to start now."""
        seq = self.state.seq
        state, events, effects = advance(self.state, arrived)
        began = self.clock()
        self.log.append(self.run_id, seq, events)
        self.portions.took(self.clock() - began, len(arrived))
        had_others = len(self.state.frames) > 1
        self.state = state
        self.caching.committed(events)
        self._sessions.committed(seq, events)
        for event in events:
            self._texts.remember(event)
        if had_others:
            self._forget()
        self.publish(seq, events)
        self._sessions.save(effects)
        return effects

    def publish(self, seq: int, batch: Sequence[Event]) -> None:
        """Tell the listeners of events that were appended after event number `seq`."""
        tell(self.listeners, self.run_id, seq, batch)

    def _forget(self) -> None:
        """Drop what belongs to frames that are gone."""
        open_frames = self.state.frames
        self._texts.forget(open_frames)
        self._sessions.retire(open_frames)

    # -- effects -----------------------------------------------------------------------------

    async def _perform_all(self, effects: Sequence[Effect]) -> Sequence[Event]:
        """Start the effects and wait for at least one outcome."""
        if cancellations() > self._cancelled_before:
            raise asyncio.CancelledError  # nothing more is begun
        alone = len(effects) == 1 and not self._tasks and not self._inbox and self._timer is None
        if alone and not isinstance(effects[0], CallModel):
            outcome = await self._perform(effects[0])
            if cancellations() > self._cancelled_before:
                self._inbox.append(outcome)
                raise asyncio.CancelledError  # a session of the user's swallowed it
            return (outcome,)
        start = leaving.begun if alone else asyncio.create_task
        started = [start(self._feed(effect)) for effect in effects]
        self._tasks.update(task for task in started if not task.done())
        if self._inbox and not alone:
            await asyncio.sleep(0)  # what was just started goes first
        while not self._inbox and not self._is_ending and self._crash is None:
            assert self._tasks, "nothing is in flight, and yet the run isn't over"
            self._arrived.clear()
            await self._arrived.wait()
        if self._crash is not None:
            raise self._crash
        if self._is_ending:
            await self._wind_up()
            return self._and_last(DeadlinePassed(clock_s=self._clock_s()))
        count = self.portions.size(len(self._inbox), self.state.in_flight)
        return [self._inbox.popleft() for _ in range(count)]

    async def _feed(self, effect: Effect) -> None:
        """Perform an effect; its outcome goes into the inbox."""
        try:
            if self._is_ending:
                return
            outcome = await self._perform(effect)
            is_stopped = self._is_ending and cancellations() > 0
            if not is_stopped or isinstance(outcome, ModelReplied | ToolReturned):
                self._inbox.append(outcome)  # how a stopped call fails says nothing of it
        except Exception as fault:
            self._crash = fault
        finally:  # in a callback it would be one more turn of the event loop a call
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
            self._arrived.set()

    async def _perform(self, effect: Effect) -> Event:
        """Perform one effect: its one outcome."""
        began = self.clock()
        match effect:
            case CallModel():
                return await self._call_model(effect)
            case RunCode():
                return await self._run_code(effect, began, lambda repl: self._start(repl, effect))
            case ResumeCode():
                return await self._run_code(effect, began, lambda r: r.resume(effect.outcomes))
            case ReadVariable():
                return await self._read(effect)
            case CheckAnswer():
                return checked(effect, self.answer_type)
            case CallTool() | AskApproval():
                arguments = self._texts.prompt(effect.arguments.hash)
                if isinstance(effect, CallTool):
                    self._made.add(effect.call_id)
                return await self.toolbox.perform(
                    effect, arguments, self.run_id, lambda: (self.clock() - began, self._clock_s())
                )
            case Record():
                raise AssertionError("recorded events are appended, not performed")
            case _:
                assert_never(effect)

    async def _call_model(self, effect: CallModel) -> Event:
        adapter = self.adapters.get(effect.adapter)
        if adapter is None:
            return unknown_adapter(effect, self.adapters, self._clock_s())
        if self._threads is None and not hasattr(adapter, "acomplete"):
            self._threads = ThreadPoolExecutor(
                self.state.options.max_concurrent_subcalls + 1, thread_name_prefix="rlm-adapter"
            )
        messages = self._texts.messages(self.state, effect)

        async def call() -> ModelReplied | ModelFailed:
            async with self.gate:
                return await call_model(
                    adapter,
                    messages,
                    effect,
                    threads=self._threads,
                    elapsed=self._stopwatch(),
                    made=self._made,
                    cost_of=self.cost_of,
                )

        if not self.caching.applies_to(effect):
            return await call()
        return await self.caching.ask(effect, adapter, messages, call, self._stopwatch())

    def _start(self, repl: Repl, effect: RunCode) -> Awaitable[Paused | CodeResult]:
        repl.remember(self.state.frames[effect.frame].messages)
        return repl.start(effect.code, effect.watch)

    async def _run_code(
        self,
        effect: RunCode | ResumeCode,
        began: float,
        go: Callable[[Repl], Awaitable[Paused | CodeResult]],
    ) -> Event:
        try:
            result = await go(await self._sessions.of(effect.frame))
        except ReplUnavailable as error:
            return ReplFailed(frame=effect.frame, call_id=effect.call_id, message=str(error))
        elapsed_s = self.clock() - began
        if isinstance(result, Paused):
            now_s = self.time_of_day() if result.asks_time else None
            return paused(effect, result, now_s, elapsed_s, self._clock_s())
        is_open = effect.frame in self.state.frames
        rebuilt = result.repl_lost and is_open and await self._sessions.rebuild(effect.frame)
        clock_s = self._clock_s()
        return executed(effect, result, rebuilt=rebuilt, elapsed_s=elapsed_s, clock_s=clock_s)

    async def _read(self, effect: ReadVariable) -> Event:
        try:
            read = await (await self._sessions.of(effect.frame)).read(effect.name)
        except ReplUnavailable as error:
            return ReplFailed(frame=effect.frame, call_id=effect.call_id, message=str(error))
        return variable_read(effect, read)

    # -- resources ---------------------------------------------------------------------------

    def _new_repl(self, frame_id: FrameId) -> Repl:
        context, frame = self.context, self.state.frames[frame_id]
        if frame_id != ROOT and frame.context is not None:
            context = Context.from_text(self._texts.prompt(frame.context.digest))
        return self.open_repl(context)

    async def _cancelled(self) -> None:
        await self._wind_up()
        if self.state.seq and not self.state.is_over:
            cancelled = Cancelled(reason="cancelled by the caller", clock_s=self._clock_s())
            self._commit(self._and_last(cancelled))

    async def _wind_up(self) -> None:
        """Stop what is in flight. What is there already goes into the inbox, and replies that come
        meanwhile: they are paid for."""
        self._is_ending = True
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        await leaving.stop(self._tasks, whose=f"run {self.run_id}")
        self._tasks.clear()

    def _and_last(self, end: Cancelled | DeadlinePassed) -> Sequence[Event]:
        """All that has arrived, and what ends the run, with the calls that were not made."""
        arrived = [*self._inbox]
        self._inbox.clear()
        after = advance(self.state, arrived).state
        not_made = tuple(name for name in after.under_way if name not in self._made)
        return [*arrived, replace(end, not_made=not_made)]

    async def _release(self) -> None:
        """Stop what is in flight and end every session, also while being cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        await self._wind_up()
        self.caching.release()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        await self._sessions.stop()

    def _watch_time(self) -> None:
        """Set the timer for what is left of the run's seconds."""
        limit_s = self.state.options.policy.max_seconds
        if limit_s is not None and not self.state.is_over:
            left_s = max(0.0, limit_s - self._clock_s())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left_s, self._on_time, limit_s)

    def _on_time(self, limit_s: float) -> None:
        if self._clock_s() < limit_s:
            self._watch_time()  # the loop's clock and the run's may differ by a little
            return
        self._is_ending = True
        self._arrived.set()

    def _stopwatch(self) -> Callable[[], tuple[float, float]]:
        """What tells the seconds since now, and the run's."""
        began = self.clock()
        return lambda: (self.clock() - began, self._clock_s())

    def _clock_s(self) -> float:
        return self.clock() - self._began
