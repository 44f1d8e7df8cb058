"""The composition root: where a run's parts are chosen and put together.

`run`, `arun` and `RLM` are what programs call. Everything is checked here, before anything is
started: a bad argument costs nothing and leaves no trace.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, overload

from effects.adapters.base import ModelAdapter
from effects.arguments import (
    check_at,
    check_function,
    check_going_on,
    check_listener,
    check_logger,
    check_objects,
)
from effects.backends import ReplFactory
from effects.cache_choice import CacheLike, cache_choice
from effects.changes import changes_of
from effects.jobs import Edit, Parts, branch, go_on, open_log
from effects.listeners import Listener
from effects.log.base import EventLog, RunInfo
from effects.models import model_name, resolve_adapter
from effects.replaying import replayed, state_after
from effects.repls.base import ReplLimits
from effects.result import RunResult
from effects.rlm import RLM, LogLike, adapters_of, context_of, log_of, log_target
from effects.sessions import OnChangedOutput
from effects.settings import read_settings
from effects.tools import OnApproval, Toolbox
from effects.tools.extensions import Extensions, extensions_of
from effects.tools.named import ToolLike, listed, tools_of
from effects.typed import answer_type
from effects.waiting import run_job
from rlm_fsm.errors import UsageError
from rlm_fsm.event import Event, OnUncertain
from rlm_fsm.policy import Policy
from rlm_fsm.price import Price
from rlm_fsm.state import RunState

__all__ = ["RLM", "arun", "fork", "replay", "resume", "run", "runs"]


async def arun(
    query: str, context: object = None, *, adapter: ModelAdapter | None = None, **options: Any
) -> RunResult:
    """`run` for asynchronous programs."""
    return await RLM(adapter, **options).arun(query, context)


def run(
    query: str, context: object = None, *, adapter: ModelAdapter | None = None, **options: Any
) -> RunResult:
    """Answer `query` over `context`: `RLM(adapter, **options).run(query, context)`."""
    return RLM(adapter, **options).run(query, context)


def resume(
    run_id: str,
    *,
    log: LogLike = None,
    adapter: ModelAdapter | None = None,
    model: str | None = None,
    subcall_adapter: ModelAdapter | None = None,
    adapters: Mapping[str, ModelAdapter] | None = None,
    context: object = None,
    policy: Policy | None = None,
    output_type: Any = None,
    tools: Sequence[ToolLike] = (),
    on_approval: OnApproval | None = None,
    repl_extensions: Extensions | None = None,
    doc_tools: Mapping[str, Callable[..., Any]] | None = None,
    cache: CacheLike = None,
    repl_backend: ReplFactory | None = None,
    repl_limits: ReplLimits | None = None,
    prices: Mapping[str, Price] | None = None,
    on_uncertain: OnUncertain = "retry",
    on_changed_output: OnChangedOutput = "raise",
    event_listener: Listener | None = None,
    logger: logging.Logger | None = None,
) -> RunResult:
    """Go on with a run where it was: killed, cancelled, failed, or ended by a limit.

    `run_id` may be the beginning of an id. The log holds the run's options; what it can't hold is
    passed here, and `policy` when limits are to be larger. Calls whose outcome is in the log are
    not made again. Calls that were in flight are made again (``on_uncertain="retry"``) or count as
    failed (``"fail"``). A finished run gives its result and makes no call. A run whose answer has
    a type is given it again as `output_type`, and one that has tools its functions as `tools`. It
    has the cache that it had, where that can be had again, unless `cache` names another; ``"none"``
    is none.

    Raises `RunNotFound`, `RunBusy` when somebody else leads the run, `LogCorrupt`, `UsageError`
    for a context that is gone or has changed, `ReplayDiverged` when a cell of the session does
    something else when it is run again, and what `run` raises.
    """
    check_objects(policy=policy)
    check_going_on(on_uncertain, on_changed_output)
    parts = _parts(
        log=log,
        adapter=adapter,
        model=model,
        subcall_adapter=subcall_adapter,
        adapters=adapters,
        output_type=output_type,
        toolbox=_toolbox(tools, on_approval, repl_extensions, doc_tools, logger),
        cache=cache,
        repl_backend=repl_backend,
        repl_limits=repl_limits,
        prices=prices,
        event_listener=event_listener,
        logger=logger,
        run_id=run_id,
        must_ask=False,
    )
    return run_job(
        lambda: go_on(
            parts,
            run_id,
            context=context_of(context),
            policy=policy,
            on_uncertain=on_uncertain,
            on_changed_output=on_changed_output,
        )
    )


def fork(
    run_id: str,
    *,
    at: int,
    log: LogLike = None,
    adapter: ModelAdapter | None = None,
    model: str | None = None,
    subcall_adapter: ModelAdapter | None = None,
    adapters: Mapping[str, ModelAdapter] | None = None,
    context: object = None,
    edit: Event | Edit | None = None,
    output_type: Any = None,
    tools: Sequence[ToolLike] = (),
    on_approval: OnApproval | None = None,
    repl_extensions: Extensions | None = None,
    doc_tools: Mapping[str, Callable[..., Any]] | None = None,
    cache: CacheLike = None,
    repl_backend: str | ReplFactory | None = None,
    repl_limits: ReplLimits | None = None,
    prices: Mapping[str, Price] | None = None,
    on_changed_output: OnChangedOutput = "raise",
    event_listener: Listener | None = None,
    logger: logging.Logger | None = None,
    **changes: Any,
) -> RunResult:
    """A new run that shares another's events up to number `at` and then goes on by itself.

    Nothing shared is copied or paid again. `edit` is another form of event `at` (an event, or a
    function from the old to the new one), for a reply or a cell that is to be different; `changes`
    are options by name (``policy=``, ``max_tokens=`` ...), as `RLM` takes them, that hold from
    there on. To change a prompt, edit event 1.

    Raises what `resume` raises.
    """
    check_at(at)
    check_going_on(on_changed_output=on_changed_output)
    if isinstance(repl_backend, str):
        changes, repl_backend = {**changes, "repl_backend": repl_backend}, None
    parts = _parts(
        log=log,
        adapter=adapter,
        model=model,
        subcall_adapter=subcall_adapter,
        adapters=adapters,
        output_type=output_type,
        toolbox=_toolbox(tools, on_approval, repl_extensions, doc_tools, logger),
        cache=cache,
        repl_backend=repl_backend,
        repl_limits=repl_limits,
        prices=prices,
        event_listener=event_listener,
        logger=logger,
        run_id=run_id,
        must_ask=True,
    )
    changes = changes_of(changes, model_name(parts.adapters["root"]))
    return run_job(
        lambda: branch(
            parts,
            run_id,
            at,
            context=context_of(context),
            changes=changes,
            edit=edit,
            on_changed_output=on_changed_output,
        )
    )


@overload
def replay(
    run_id: str,
    *,
    log: LogLike = ...,
    at: None = ...,
    run_code: bool = ...,
    context: object = ...,
    output_type: Any = ...,
    repl_limits: ReplLimits | None = ...,
) -> RunResult: ...
@overload
def replay(run_id: str, *, log: LogLike = ..., at: int) -> RunState: ...
def replay(
    run_id: str,
    *,
    log: LogLike = None,
    at: int | None = None,
    run_code: bool = False,
    context: object = None,
    output_type: Any = None,
    repl_limits: ReplLimits | None = None,
) -> RunResult | RunState:
    """A run again from its log: no network, no cost, the identical result.

    Everything that the machine derives is compared with the log, intents with the hashes of their
    effects included; with `run_code`, cells are run again and what they ask and print is compared
    too. Any difference is a `ReplayDiverged` with run, event number, expected and found.
    With `output_type`, the result's value is of that type; else it is the plain JSON value.
    With `at`, the state after event number `at`. A run that hasn't ended gives what there is,
    with ``status="running"``.
    """
    check_objects(repl_limits=repl_limits)
    target = log_of(run_id, log)
    if at is not None:
        check_at(at)
        if run_code:
            raise UsageError("at= shows a state and run_code= runs the whole: give one of them")
        return state_after(target, run_id, at)
    limits = repl_limits or ReplLimits()
    opened = context_of(context)
    return replayed(
        target,
        run_id,
        run_code=run_code,
        context=opened,
        repl_limits=limits,
        answer_type=None if output_type is None else answer_type(output_type),
    )


def runs(log: LogLike = None) -> list[RunInfo]:
    """The runs of a log, newest first. A log that doesn't exist yet has none."""
    target = log_target(log)
    if isinstance(target, str) and target != ":memory:" and not Path(target).exists():
        return []
    with ExitStack() as stack:
        return open_log(target, stack).runs()


def _parts(
    *,
    log: LogLike,
    adapter: ModelAdapter | None,
    model: str | None,
    subcall_adapter: ModelAdapter | None,
    adapters: Mapping[str, ModelAdapter] | None,
    output_type: Any,
    toolbox: Toolbox,
    cache: CacheLike,
    repl_backend: ReplFactory | None,
    repl_limits: ReplLimits | None,
    prices: Mapping[str, Price] | None,
    event_listener: Listener | None,
    logger: logging.Logger | None,
    run_id: str,
    must_ask: bool,
) -> Parts:
    """The parts of a run that exists. Unless it `must_ask`, it needs no adapter once it has
    finished."""
    check_objects(repl_limits=repl_limits, prices=prices)
    check_listener(event_listener)
    check_logger(logger)
    target = log_of(run_id, log)
    none_needed = adapter is None and model is None and not must_ask
    if none_needed and _is_finished(target, run_id):
        known: Mapping[str, ModelAdapter] = {}
    else:
        root = resolve_adapter(adapter, model, read_settings(os.environ))
        known = adapters_of(root, subcall_adapter, adapters)
    return Parts(
        adapters=known,
        log=target,
        cache=cache_choice(cache, known),
        repl_backend=repl_backend,
        repl_limits=repl_limits or ReplLimits(),
        prices=dict(prices or {}),
        listeners=() if event_listener is None else (event_listener,),
        logger=logger or logging.getLogger("rlm_fsm"),
        answer_type=None if output_type is None else answer_type(output_type),
        toolbox=toolbox,
    )


def _toolbox(
    tools: Sequence[ToolLike],
    on_approval: OnApproval | None,
    repl_extensions: Extensions | None,
    doc_tools: Mapping[str, Callable[..., Any]] | None,
    logger: logging.Logger | None,
) -> Toolbox:
    check_function("on_approval", on_approval)
    check_logger(logger)
    told = logger or logging.getLogger("rlm_fsm")
    bound = extensions_of(repl_extensions, doc_tools, rlm=None, logger=told)
    return Toolbox(tools=tools_of([*listed(tools), *bound]), on_approval=on_approval)


def _is_finished(target: str | EventLog, run_id: str) -> bool:
    with ExitStack() as stack:
        log = open_log(target, stack)
        name = log.find(run_id)
        return any(info.run_id == name and info.status == "finished" for info in log.runs())
