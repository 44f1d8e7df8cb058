"""`run_many`: many questions and contexts as one batch.

Everything is checked here, before anything is started: the options, the jobs, their contexts.
"""

import asyncio
import inspect
import logging
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any, cast

from effects.adapters.base import ModelAdapter
from effects.arguments import check_function, check_going_on, check_kind, check_objects
from effects.jobs import Parts
from effects.log.memory import MemoryLog
from effects.many.budget import SHARED, Budget, Ledger
from effects.many.driver import Batch, OnRow, Watcher
from effects.many.job import CheckedJob, Jobs, check_name, checked_jobs, fingerprint
from effects.many.rows import JobResult, ManyResult
from effects.models import describe
from effects.prices import check_cost_limit
from effects.rlm import RLM
from effects.sessions import OnChangedOutput
from effects.waiting import run_job
from rlm_fsm.errors import UsageError
from rlm_fsm.event import OnUncertain
from rlm_fsm.policy import Policy

MAX_RUNS = 4
"""Runs at the same time: each has a session in a process of its own."""
MAX_CALLS = 10
"""Model calls at the same time, as many as one run's subcalls."""

_logger = logging.getLogger("rlm_fsm")


def run_many(
    jobs: Jobs, *, adapter: ModelAdapter | None = None, progress: bool | None = None, **options: Any
) -> ManyResult:
    """Answer many questions over many contexts, with one limit and one budget for all.

        result = run_many([("Who wrote it?", text), ...], model="openai:gpt-5")
        for row in result:
            print(row.id, row.status, row.output)

    `jobs` is a list of `Job`, of pairs ``(query, context)``, of dicts with ``query``, ``context``
    or ``paths``, ``id`` and ``metadata``, or of questions when `context` is given; or the
    `pathlib.Path` of a JSONL file of such dicts, whose paths are relative to its folder;
    ``Path("-")`` is standard input.

    Killed and started again with the same jobs, it does only what is missing: a job's run has a
    name that follows from the batch's `name` and the job. Without a `name` the batch is known by
    its jobs, options and models. What goes wrong with a job is told in its row.

    Further options, by name:

    - ``name``: the batch's name in the log; needed when jobs are added later.
    - ``context``: for jobs without one.
    - ``budget``: a `Budget` for all runs together. A run that begins gets a share of what is left;
      when it is used up, the remaining jobs are not started.
    - ``max_runs`` (4), ``max_calls`` (10): runs, and model calls, at the same time.
    - ``max_failures``: stop when more jobs than that have failed; None for never.
    - ``on_row``: a function that is given each row as its job ends.
    - ``progress``: a progress bar on stderr; None: when that is a terminal.
    - ``on_uncertain``, ``on_changed_output``: as `resume` has them, for runs that go on.
    - ``rlm``: an `RLM`, in place of an adapter and the options of `RLM`; else all of those.

    Raises `UsageError` before anything is started, and `RunBusy` when another process works on the
    batch. Ctrl-C cancels the runs cleanly; they are in the log and go on next time.
    """
    return run_job(lambda: arun_many(jobs, adapter=adapter, progress=progress, **options))


async def arun_many(
    jobs: Jobs,
    *,
    name: str | None = None,
    context: object = None,
    budget: Budget | None = None,
    max_runs: int = MAX_RUNS,
    max_calls: int = MAX_CALLS,
    max_failures: int | None = None,
    on_row: OnRow | None = None,
    progress: bool | None = None,
    watcher: Watcher | None = None,
    on_uncertain: OnUncertain = "retry",
    on_changed_output: OnChangedOutput = "raise",
    rlm: RLM | None = None,
    adapter: ModelAdapter | None = None,
    **options: Any,
) -> ManyResult:
    """`run_many` for asynchronous programs. Cancelling it cancels the runs cleanly."""
    began_s = time.monotonic()
    _check_counts(max_runs=max_runs, max_calls=max_calls, max_failures=max_failures)
    check_kind("budget", budget, Budget, "a Budget, or None")
    check_kind("rlm", rlm, RLM, "an RLM, or None")
    check_kind("progress", progress, bool, "True, False or None")
    _check_on_row(on_row)
    _check_watcher(watcher)
    check_going_on(on_uncertain, on_changed_output)
    budget = budget or Budget()
    rlm, policy = _model(rlm, adapter, budget, options)
    checked = checked_jobs(jobs, context)
    name = _default_name(checked, rlm) if name is None else check_name(name)
    view = watcher if watcher is not None else _progress(progress)
    parts = _parts(rlm, max_calls, view)

    def emit(row: JobResult) -> None:
        if view is not None:
            view.ended(row)
        if on_row is not None:
            try:
                on_row(row)
            except (Exception, asyncio.CancelledError):  # nobody has cancelled a plain function
                _logger.exception("on_row failed for job %s; the batch goes on", row.id)

    batch = Batch(
        name=name,
        jobs=checked,
        parts=parts,
        options=rlm.options,
        ledger=Ledger(budget, policy),
        max_runs=max_runs,
        max_failures=max_failures,
        on_uncertain=on_uncertain,
        on_changed_output=on_changed_output,
        emit=emit,
    )
    parts.logger.info("batch %s: %d jobs", name, len(checked))
    if view is not None:
        view.begin(name, len(checked))
    try:
        rows = await batch.drive()
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(f"batch {name} was cancelled; start it again to go on")
        raise
    finally:
        if view is not None:
            view.close()
    return ManyResult(
        name=name,
        rows=tuple(rows),
        log=parts.log if isinstance(parts.log, str) else parts.log.path,
        seconds=time.monotonic() - began_s,
        stopped=batch.stopped,
    )


async def stream_many(jobs: Jobs, **options: Any) -> AsyncIterator[JobResult]:
    """The rows of `arun_many`, each as soon as its job has ended.

    Leaving the loop early cancels the runs that go on. Errors are raised as by `arun_many`.
    """
    rows: asyncio.Queue[JobResult | None] = asyncio.Queue()
    if "on_row" in options:
        raise UsageError("stream_many gives the rows itself: leave on_row out")
    task = asyncio.create_task(arun_many(jobs, on_row=rows.put_nowait, **options))
    task.add_done_callback(lambda _: rows.put_nowait(None))
    try:
        while (row := await rows.get()) is not None:
            yield row
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _model(
    rlm: RLM | None, adapter: ModelAdapter | None, budget: Budget, options: dict[str, Any]
) -> tuple[RLM, Policy]:
    """What runs are made with, and their own policy.

    The options are checked with the budget as limits: a budget that can't be kept is refused.
    """
    if rlm is not None:
        if adapter is not None or options:
            named = ", ".join(["adapter"] * (adapter is not None) + sorted(options))
            raise UsageError(f"pass rlm= or {named}, not both")
        _check_cost(rlm, budget)
        return rlm, rlm.options.policy
    given = options.pop("policy", None)
    check_objects(policy=given)
    policy = capped = Policy() if given is None else cast(Policy, given)
    for limit in SHARED:
        most, own = getattr(budget, limit), getattr(policy, limit)
        if most is not None and (own is None or own > most):
            capped = replace(capped, **{limit: most})
    return RLM(adapter, policy=capped, **options), policy


def _check_cost(rlm: RLM, budget: Budget) -> None:
    """Refuse a budget of cost for models whose cost nobody knows."""
    capped = replace(rlm.options.policy, max_cost_usd=budget.max_cost_usd)
    check_cost_limit(capped, rlm.parts.adapters, rlm.options.prices)


def _parts(rlm: RLM, max_calls: int, view: Watcher | None) -> Parts:
    log = MemoryLog() if rlm.parts.log == ":memory:" else rlm.parts.log
    listeners = rlm.parts.listeners if view is None else (*rlm.parts.listeners, view)
    gate = asyncio.Semaphore(max_calls)
    return replace(rlm.parts, log=log, listeners=listeners, gate=gate)


def _default_name(jobs: list[CheckedJob], rlm: RLM) -> str:
    """A name that follows from the jobs and from what decides their answers: neither limits
    nor prices do."""
    options = asdict(replace(rlm.options, policy=Policy(), prices=()))
    models = {name: describe(adapter) for name, adapter in rlm.parts.adapters.items()}
    return "many-" + fingerprint([sorted(job.key for job in jobs), options, models])


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is None and name == "max_failures":
            continue
        least = 0 if name == "max_failures" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name}={value!r}: give a whole number, {least} or more")


def _check_on_row(on_row: object) -> None:
    check_function("on_row", on_row)
    called = getattr(on_row, "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(on_row) or inspect.iscoroutinefunction(called):
        raise UsageError(
            f"on_row={on_row!r}: give a plain function; nobody would await an async one. "
            "stream_many gives rows to asynchronous programs"
        )


def _check_watcher(watcher: object) -> None:
    methods = ("begin", "handle", "ended", "close")
    if watcher is not None and not all(callable(getattr(watcher, name, None)) for name in methods):
        raise UsageError(f"watcher={watcher!r}: give a Watcher, or None")


def _progress(wanted: bool | None) -> Watcher | None:
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        return None
    from effects.view.blocks import TerminalConsole
    from effects.view.many import ManyBar

    return ManyBar(TerminalConsole(file=sys.stderr, markup=False, emoji=False, highlight=False))
