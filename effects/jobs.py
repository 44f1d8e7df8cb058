"""One run from its parts to its result: begin it, go on with it, branch off from it.

`api` checks arguments and chooses parts; here a log is opened, the run is led, the interpreter
drives it, and its end becomes a result or an error.
"""

import asyncio
import logging
import math
import platform
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeGuard

from effects import kept, sandboxes
from effects.adapters.base import ModelAdapter
from effects.backends import ReplFactory, repl_factory
from effects.cache_choice import CacheChoice, again, caching_of, noting, recorded_as
from effects.changes import options_now, tools_now
from effects.context import Context
from effects.interpreter import Interpreter
from effects.listeners import Listener
from effects.log.base import EventLog
from effects.models import describe
from effects.prices import costs
from effects.refusals import check_begun, check_limit, check_type, no_such_event
from effects.repls._pool import POOL
from effects.repls.base import ReplLimits, SnapshotRule
from effects.result import RunResult, result_of
from effects.sessions import OnChangedOutput
from effects.tools import Toolbox
from effects.typed import AnswerType
from rlm_fsm._version import __version__
from rlm_fsm.errors import (
    LIMIT_ERRORS,
    ModelAuthError,
    ModelError,
    ModelTimeoutError,
    PolicyError,
    ReplError,
    RunError,
    UsageError,
)
from rlm_fsm.event import DERIVED, CallOutcome, Event, OnUncertain, RunResumed, RunStarted
from rlm_fsm.fold import advance, branching
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.price import Price
from rlm_fsm.state import RunState

_NEVER = SnapshotRule(after_s=math.inf)
"""For logs that nobody can resume from: they are gone with the run."""

Edit = Callable[[Event], Event]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run needs and a log can't hold."""

    adapters: Mapping[str, ModelAdapter]
    log: str | EventLog
    repl_backend: str | ReplFactory | None = None
    """None: the backend that the run's options name."""
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    """What models charge, by their names or the adapters', where the caller says so."""
    cache: CacheChoice = None
    """What subcalls may be answered from. None: a run that goes on has the cache that it had."""
    repl_limits: ReplLimits = ReplLimits()
    listeners: tuple[Listener, ...] = ()
    logger: logging.Logger
    store_context_chars: int = kept.STORE_CONTEXT_CHARS
    gate: AbstractAsyncContextManager[object] = field(default_factory=nullcontext[None])
    """See `Interpreter.gate`."""
    answer_type: AnswerType | None = None
    """What answers must be; made from `output_type`."""
    toolbox: Toolbox = field(default_factory=Toolbox)
    """The functions that code may call, and who is asked for their calls."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Recorded with the environment: what the run belongs to."""

    def backend(self, options: Options) -> str | ReplFactory:
        """The backend of a run with these options."""
        return self.repl_backend or options.repl_backend

    def environment(self) -> dict[str, str]:
        """What runs the run, for people who read the log. Nothing secret."""
        backend = self.repl_backend if isinstance(self.repl_backend, str) else "custom"
        return {
            "rlm_fsm": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            **({"repl": backend} if self.repl_backend is not None else {}),
            **{f"adapter.{name}": describe(a) for name, a in sorted(self.adapters.items())},
            **recorded_as(self.cache),
            **self.labels,
        }


async def begin(
    parts: Parts, query: str, context: Context, options: Options, run_id: RunId | None = None
) -> RunResult:
    """A new run, from the question to the answer; under a new name unless one is given."""
    run_id = run_id or new_run_id()
    sandbox = await sandboxes.checked(parts.backend(options), parts.repl_limits)
    with ExitStack() as stack:
        log = open_log(parts.log, stack)
        stack.enter_context(log.lead(run_id))
        in_memory = log.path == ":memory:"
        manifest = "" if in_memory else kept.keep(log, context, parts.store_context_chars)
        interpreter = _interpreter(parts, log, run_id)
        interpreter.context = context
        interpreter.open_repl = _sessions(parts, options, run_id)
        interpreter.cost_of = costs(parts.adapters, options.prices)
        first = RunStarted(
            query=query,
            context=replace(context.info(), manifest=manifest),
            options=options,
            environment={**parts.environment(), **sandbox},
            seed=run_id,
        )
        return await _drive(parts, interpreter, first)


async def go_on(
    parts: Parts,
    run_id: str,
    *,
    context: Context | None = None,
    policy: Policy | None = None,
    on_uncertain: OnUncertain = "retry",
    on_changed_output: OnChangedOutput = "raise",
) -> RunResult:
    """A run that was killed, cancelled, failed, or ended by a limit, from where it was.

    A run that has finished gives its result and makes no call.
    """
    with ExitStack() as stack:
        log = open_log(parts.log, stack)
        name = log.find(run_id)
        stack.enter_context(log.lead(name))
        check_begun(log, name)
        had: dict[str, str] = {}
        interpreter = _interpreter(parts, log, name, on_changed_output)
        interpreter.restore(noting((logged.event for logged in log.load(name)), had))
        state = interpreter.state
        if state.status == "finished":
            return _ended(parts, interpreter)
        check_limit(state, policy)
        check_type(name, parts.answer_type, state.options.answer_schema)
        changes: dict[str, Any] = {} if policy is None else {"policy": policy}
        changes |= tools_now(name, state.options, parts.toolbox)
        parts = _with_cache(parts, had)
        options = options_now(state.options, changes, parts.adapters, parts.prices)
        _settle(interpreter, parts, context, options)
        sandbox = await sandboxes.checked(parts.backend(options), parts.repl_limits)
        resumed = RunResumed(
            options=None if options == state.options else options,
            on_uncertain=on_uncertain,
            environment={**parts.environment(), **sandbox},
        )
        return await _drive(parts, interpreter, resumed)


async def branch(
    parts: Parts,
    run_id: str,
    at: int,
    *,
    context: Context | None = None,
    changes: Mapping[str, Any],
    edit: Event | Edit | None = None,
    on_changed_output: OnChangedOutput = "raise",
) -> RunResult:
    """A new run that shares the events of another up to `at`, and goes on by itself.

    Shared are whole commits. When `at` lies within one, or is edited, the commit's outcome is the
    fork's own, so that what follows from it is derived under the options that now hold.
    """
    with ExitStack() as stack:
        log = open_log(parts.log, stack)
        parent, fork = log.find(run_id), new_run_id()
        events = [logged.event for logged in log.load(parent, until=at)]
        if not 1 <= at == len(events):
            raise no_such_event(log, parent, at)
        interpreter = _interpreter(parts, log, fork, on_changed_output)
        boundary, tail = branching(events)
        if edit is not None:
            boundary, tail = at - 1, (_edited(events[-1], edit, at),)
        had: dict[str, str] = {}
        interpreter.restore(noting(events[:boundary], had))
        parts = _with_cache(parts, had)
        before = interpreter.state
        if before.status == "finished":
            raise UsageError(f"at={at}: the run has finished there; fork at an earlier event")
        begun = next((event.options for event in tail if _starts(event)), before.options)
        if parts.answer_type is not None:
            changes = {**changes, "answer_schema": parts.answer_type.schema}
        else:
            check_type(parent, None, begun.answer_schema)
        changes = {**changes, **tools_now(parent, begun, parts.toolbox)}
        options = options_now(begun, changes, parts.adapters, parts.prices)
        sandbox = await sandboxes.checked(parts.backend(options), parts.repl_limits)
        environment = {**parts.environment(), **sandbox}
        own = advance(before, _own_start(options, environment, before, tail)).events
        interpreter.restore(own)
        _settle(interpreter, parts, context, interpreter.state.options)
        stack.enter_context(log.lead(fork))
        log.fork(fork, parent, boundary, own)
        interpreter.publish(before.seq, own)
        return await _drive(parts, interpreter)


def _own_start(
    options: Options, environment: Mapping[str, str], before: RunState, tail: Sequence[Event]
) -> list[Event]:
    """What a fork appends first: that it goes on, under which options, and its own outcome."""
    if before.seq == 0:
        return [replace(e, options=options, environment=environment) for e in tail if _starts(e)]
    resumed = RunResumed(
        options=None if options == before.options else options,
        is_fork=True,
        answered=tuple(event.call_id for event in tail if isinstance(event, CallOutcome)),
        environment=environment,
    )
    return [resumed, *tail]


def _with_cache(parts: Parts, had: Mapping[str, str]) -> Parts:
    """The parts of a run that goes on: with the cache that it had, unless one was chosen."""
    return parts if parts.cache is not None else replace(parts, cache=again(had))


def _starts(event: Event) -> TypeGuard[RunStarted]:
    return isinstance(event, RunStarted)


def open_log(target: str | EventLog, stack: ExitStack) -> EventLog:
    """The log itself; one that is opened here is closed with the stack."""
    if not isinstance(target, str):
        return target
    if target == ":memory:":
        from effects.log.memory import MemoryLog

        return MemoryLog()
    from effects.log.sqlite import SqliteLog

    log = SqliteLog(target)
    stack.callback(log.close)
    return log


def read_events(target: str | EventLog, run_id: RunId) -> list[Event]:
    """The events of a run, from a log."""
    with ExitStack() as stack:
        return [logged.event for logged in open_log(target, stack).load(run_id)]


def new_run_id() -> RunId:
    """A name for a run: when it began, and 40 random bits. Names sort by time."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    tail = "".join(secrets.choice(alphabet) for _ in range(8))
    return RunId(f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{tail}")


def _interpreter(
    parts: Parts, log: EventLog, run_id: RunId, on_changed_output: OnChangedOutput = "raise"
) -> Interpreter:
    return Interpreter(
        run_id=run_id,
        log=log,
        adapters=parts.adapters,
        listeners=parts.listeners,
        on_changed_output=on_changed_output,
        snapshots=_NEVER if parts.log == ":memory:" else parts.repl_limits.snapshots,
        gate=parts.gate,
        caching=caching_of(parts.cache, log),
        answer_type=parts.answer_type,
        toolbox=parts.toolbox,
    )


def _sessions(parts: Parts, options: Options, seed: str) -> ReplFactory:
    return repl_factory(parts.backend(options), parts.repl_limits, options, seed)


def _settle(
    interpreter: Interpreter, parts: Parts, context: Context | None, options: Options
) -> None:
    """Give an interpreter that was restored what its run needs of the world."""
    state = interpreter.state
    assert state.context is not None, "a run that has started has a context"
    if context is None:
        interpreter.context = kept.reopen(interpreter.log, state.context)
    else:
        interpreter.context = kept.checked(context, state.context, "other texts were passed")
    interpreter.caching = caching_of(parts.cache, interpreter.log)
    interpreter.open_repl = _sessions(parts, options, interpreter.seed)
    interpreter.cost_of = costs(parts.adapters, options.prices)


def _edited(event: Event, edit: Event | Edit, at: int) -> Event:
    """Event `at` in its edited form: of the same kind, and an outcome of the world."""
    if isinstance(event, DERIVED):
        raise UsageError(
            f"at={at}: {type(event).__name__} is derived by the machine and can't be edited; "
            "edit the reply, the cell or the start that caused it"
        )
    edited = edit(event) if callable(edit) else edit
    if type(edited) is not type(event):
        raise UsageError(
            f"at={at}: edit gave {type(edited).__name__}, event {at} is {type(event).__name__}"
        )
    return edited


async def _drive(parts: Parts, interpreter: Interpreter, *first: Event) -> RunResult:
    run_id, path = interpreter.run_id, interpreter.log.path
    parts.logger.info("run %s started, log %s", run_id, path)
    try:
        async with POOL.in_use():
            await interpreter.drive(*first)
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(f"run {run_id} was cancelled; it is in the log {path}")
        parts.logger.warning("run %s cancelled, log %s", run_id, path)
        raise
    parts.logger.info("run %s %s", run_id, interpreter.state.status)
    return _ended(parts, interpreter)


def _ended(parts: Parts, interpreter: Interpreter) -> RunResult:
    """The result of a run that answered or gave up; an error for one that can't go on."""
    state, log, run_id = interpreter.state, interpreter.log, interpreter.run_id
    source = log if parts.log == ":memory:" else parts.log

    def read() -> list[Event]:
        return read_events(source, run_id)

    result = result_of(run_id, state, read, parts.answer_type)
    if state.status != "failed" or state.cause == "guard":
        return result
    why = (state.error or "it failed").rstrip(".")
    where = f"The run {run_id} is in the log {log.path}; it can be resumed."
    if parts.log == ":memory:":
        where = f"The run {run_id} had its log in memory, which is gone: it can't be resumed."
    message = f"{why}. {where}"
    error = _error_type(state)(message, run_id=run_id, trace=result.trace, output=result.output)
    if isinstance(error, PolicyError):
        error.limit = state.limit or ""
        error.value = float(getattr(state.options.policy, error.limit, 0) or 0)
    raise error


def _error_type(state: RunState) -> type[RunError]:
    match state.cause:
        case "limit":
            return LIMIT_ERRORS[state.limit or "max_steps"]
        case "repl":
            return ReplError
        case "auth":
            return ModelAuthError
        case "timeout":
            return ModelTimeoutError
        case _:
            return ModelError
