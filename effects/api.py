"""The composition root: where a run's parts are chosen and put together.

`run`, `arun` and `RLM` are what programs call. Everything is checked here, before anything is
started: a bad argument costs nothing and leaves no trace.
"""

import asyncio
import logging
import os
import platform
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from effects.adapters.base import ModelAdapter
from effects.context import Context
from effects.interpreter import Appended, Interpreter, Listener
from effects.log.base import EventLog, RunInfo
from effects.models import check_adapter, describe, resolve_adapter
from effects.repls.base import Repl, ReplLimits, ReplSettings
from effects.result import RunResult, result_of
from effects.settings import read_settings
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
from rlm_fsm.event import Event, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.prompts import PROFILES
from rlm_fsm.state import RunState

LogLike = str | os.PathLike[str] | EventLog | None
ReplFactory = Callable[[Context], Repl]


class RLM:
    """A recursive language model: an adapter and the options of its runs.

    Reusable, and safe to use from several threads: a run's state is the run's own.
    Raises `UsageError` for options that can't work.
    """

    def __init__(
        self,
        adapter: ModelAdapter | None = None,
        *,
        model: str | None = None,
        policy: Policy | None = None,
        max_tokens: int = 512,
        subcall_max_tokens: int = 256,
        system_prompt: str | None = None,
        subcall_system_prompt: str | None = None,
        recursive_subcall_system_prompt: str | None = None,
        system_prompt_supplement: str = "",
        profile: str = "pyrlm",
        repl_backend: str | ReplFactory = "python",
        repl_limits: ReplLimits | None = None,
        log: LogLike = None,
        conversation_history: bool = True,
        max_history_tokens: int = 0,
        subcall_adapter: ModelAdapter | None = None,
        adapters: Mapping[str, ModelAdapter] | None = None,
        recursive_subcalls: bool = False,
        max_recursion_depth: int = 2,
        recursive_subcall_max_steps: int = 3,
        parallel_subcalls: bool = False,
        max_concurrent_subcalls: int = 10,
        require_repl_before_final: bool = False,
        require_subcall_before_final: bool = False,
        min_steps: int = 0,
        invalid_response_limit: int | None = None,
        repl_error_limit: int | None = None,
        auto_finalize_var: str | None = None,
        auto_finalize_min_length: int = 0,
        event_listener: Listener | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """See the reference page of the options for what each means."""
        settings = read_settings(os.environ)
        root = resolve_adapter(adapter, model, settings)
        self.adapters: Mapping[str, ModelAdapter] = {
            **{name: check_adapter(other) for name, other in (adapters or {}).items()},
            "root": root,
            "subcall": root if subcall_adapter is None else check_adapter(subcall_adapter),
        }
        self.repl_limits = repl_limits or ReplLimits()
        self.log: str | EventLog = log_target(log)
        self.event_listener = event_listener
        self.logger = logger or logging.getLogger("rlm_fsm")
        if profile not in PROFILES:
            raise UsageError(f"profile={profile!r}: choose one of {', '.join(PROFILES)}")
        words = PROFILES[profile]
        self.options = Options(
            policy=policy or Policy(),
            profile=profile,
            max_tokens=max_tokens,
            subcall_max_tokens=subcall_max_tokens,
            system_prompt=words.system if system_prompt is None else system_prompt,
            subcall_system_prompt=(
                words.subcall_system if subcall_system_prompt is None else subcall_system_prompt
            ),
            recursive_subcall_system_prompt=(
                words.recursive_system
                if recursive_subcall_system_prompt is None
                else recursive_subcall_system_prompt
            ),
            system_prompt_supplement=system_prompt_supplement,
            conversation_history=conversation_history,
            max_history_tokens=max_history_tokens,
            repl_backend=repl_backend if isinstance(repl_backend, str) else "custom",
            recursive_subcalls=recursive_subcalls,
            max_recursion_depth=max_recursion_depth,
            recursive_subcall_max_steps=recursive_subcall_max_steps,
            parallel_subcalls=parallel_subcalls,
            max_concurrent_subcalls=max_concurrent_subcalls,
            require_repl_before_final=require_repl_before_final,
            require_subcall_before_final=require_subcall_before_final,
            min_steps=min_steps,
            invalid_response_limit=invalid_response_limit,
            repl_error_limit=repl_error_limit,
            auto_finalize_var=auto_finalize_var,
            auto_finalize_min_length=auto_finalize_min_length,
        )
        self._open_repl = _repl_factory(repl_backend, self.repl_limits, self.options)

    def __repr__(self) -> str:
        return f"RLM({describe(self.adapters['root'])}, profile={self.options.profile!r})"

    def run(self, query: str, context: object = None) -> RunResult:
        """Answer `query` over `context` and return the result.

        `context` is a `Context`, a text, a list of texts, or paths. Inside a running event loop
        the run has a thread and a loop of its own; `arun` is the better choice there.
        Raises `UsageError` or `TypeError` before anything is started, and a `RunError` that
        carries `run_id` when the run can't go on.
        """
        job = self._job(query, context)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(job.perform())
        return _in_thread(job)

    async def arun(self, query: str, context: object = None) -> RunResult:
        """`run` for asynchronous programs. Cancelling it cancels the run cleanly."""
        return await self._job(query, context).perform()

    async def stream(self, query: str, context: object = None) -> AsyncIterator[Appended]:
        """The events of a run as they become durable; ends when the run does.

        Leaving the loop early cancels the run. Errors are raised as by `arun`.
        """
        feed = _Feed()
        job = self._job(query, context, feed)
        task = asyncio.create_task(job.perform())
        task.add_done_callback(lambda _: feed.end())
        try:
            while (item := await feed.queue.get()) is not None:
                yield item
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _job(self, query: str, context: object, *listeners: Listener) -> "_Job":
        """A run that has been checked and not started."""
        if not isinstance(cast(object, query), str) or not query.strip():
            raise UsageError("the query is empty: pass the question as text")
        if context is None:
            raise UsageError(
                "there is no context: pass a text, a list of texts, a path or a Context"
            )
        own = () if self.event_listener is None else (self.event_listener,)
        return _Job(
            rlm=self, query=query, context=Context.of(context), listeners=(*own, *listeners)
        )


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


def runs(log: LogLike = None) -> list[RunInfo]:
    """The runs of a log, newest first. A log that doesn't exist yet has none."""
    target = log_target(log)
    if isinstance(target, str) and target != ":memory:" and not Path(target).exists():
        return []
    with ExitStack() as stack:
        return open_log(target, stack).runs()


def log_target(log: LogLike) -> str | EventLog:
    """The log that a `log=` argument means: an object as it is, else the path of a file."""
    if log is None:
        return read_settings(os.environ).log
    if isinstance(log, str | os.PathLike):
        path = os.fspath(log)
        if not path:
            raise UsageError("log='' is no path: pass a file, ':memory:' or None")
        return path if path == ":memory:" else str(Path(path).expanduser())
    return log


def open_log(target: str | EventLog, stack: ExitStack) -> EventLog:
    """The log itself; one that is opened here is closed with the stack."""
    if not isinstance(target, str):
        return target
    from effects.log.sqlite import SqliteLog

    log = SqliteLog(target)
    stack.callback(log.close)
    return log


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One run: checked, named when it starts."""

    rlm: RLM
    query: str
    context: Context
    listeners: tuple[Listener, ...]

    async def perform(self) -> RunResult:
        """Run to the end; the result, or the error of a run that can't go on."""
        rlm, run_id = self.rlm, new_run_id()
        with ExitStack() as stack:
            log = open_log(rlm.log, stack)
            in_memory = isinstance(rlm.log, str) and log.path == ":memory:"
            kept: list[Event] | None = [] if in_memory else None
            interpreter = Interpreter(
                run_id=run_id,
                log=log,
                adapters=rlm.adapters,
                context=self.context,
                open_repl=rlm._open_repl,  # pyright: ignore[reportPrivateUsage]
                listeners=self.listeners,
                events=kept,
            )
            rlm.logger.info("run %s started, log %s", run_id, log.path)
            try:
                state = await interpreter.drive(self._first())
            except asyncio.CancelledError as cancelled:
                cancelled.add_note(f"run {run_id} was cancelled; it is in the log {log.path}")
                rlm.logger.warning("run %s cancelled, log %s", run_id, log.path)
                raise
        rlm.logger.info("run %s %s", run_id, state.status)
        target = rlm.log

        def events() -> list[Event]:
            return kept if kept is not None else read_events(target, run_id)

        return _result_or_error(result_of(run_id, state, events), state, log.path)

    def _first(self) -> RunStarted:
        rlm = self.rlm
        return RunStarted(
            query=self.query,
            context=self.context.info(),
            options=rlm.options,
            environment={
                "rlm_fsm": __version__,
                "python": platform.python_version(),
                "system": f"{platform.system()} {platform.machine()}",
                "repl": rlm.options.repl_backend,
                **{f"adapter.{name}": describe(a) for name, a in sorted(rlm.adapters.items())},
            },
        )


def read_events(target: str | EventLog, run_id: RunId) -> list[Event]:
    """The events of a run, from a log."""
    with ExitStack() as stack:
        return [logged.event for logged in open_log(target, stack).load(run_id)]


def new_run_id() -> RunId:
    """A name for a run: when it began, and 40 random bits. Names sort by time."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    tail = "".join(secrets.choice(alphabet) for _ in range(8))
    return RunId(f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{tail}")


def _result_or_error(result: RunResult, state: RunState, path: str) -> RunResult:
    """The result of a run that answered or gave up; an error for one that can't go on."""
    if state.status != "failed" or state.cause == "guard":
        return result
    why = (state.error or "it failed").rstrip(".")
    message = f"{why}. The run {result.run_id} is in the log {path}."
    error = _error_type(state)(
        message, run_id=result.run_id, trace=result.trace, output=result.output
    )
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


def _repl_factory(
    backend: str | ReplFactory, limits: ReplLimits, options: Options
) -> Callable[[Context], Repl]:
    settings = ReplSettings(limits=limits, parallel_subcalls=options.parallel_subcalls)
    if not isinstance(backend, str):
        if not callable(backend):
            raise UsageError(
                f"repl_backend={backend!r}: pass 'python', 'monty', or a function from a Context "
                "to a Repl"
            )
        return backend
    match backend:
        case "python":
            from effects.repls.python import PythonRepl

            return lambda context: PythonRepl(context, settings)
        case "monty":
            from effects.repls.monty import MontyRepl

            return lambda context: MontyRepl(context, settings)
        case _:
            raise UsageError(f"repl_backend={backend!r}: choose 'python' or 'monty'")


def _in_thread(job: _Job) -> RunResult:
    """Run in a thread with a loop of its own: the caller's loop is running already."""
    results: list[RunResult] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(asyncio.run(job.perform()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="rlm-fsm-run")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _Feed:
    """A listener that hands events to `RLM.stream`."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Appended | None] = asyncio.Queue()

    def handle(self, event: Appended) -> None:
        self.queue.put_nowait(event)

    def end(self) -> None:
        self.queue.put_nowait(None)
