"""`RLM`: an adapter and the options of its runs, and what its run functions share."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from effects.adapters.base import ModelAdapter
from effects.arguments import (
    check_code,
    check_function,
    check_going_on,
    check_listener,
    check_log,
    check_logger,
    check_names,
    check_objects,
    check_query,
    check_run_id,
    check_whole,
    patterns_of,
)
from effects.backends import ReplFactory, repl_factory
from effects.cache_choice import CacheLike, cache_choice
from effects.context import Context
from effects.jobs import Parts, begin, go_on
from effects.kept import STORE_CONTEXT_CHARS
from effects.listeners import Appended, Listener
from effects.log.base import EventLog
from effects.models import check_adapter, describe, model_name, resolve_adapter
from effects.prices import check_cost_limit, prices_of
from effects.repls.base import ReplLimits
from effects.result import RunResult
from effects.sessions import OnChangedOutput
from effects.settings import read_settings
from effects.tools import OnApproval, Toolbox
from effects.tools.extensions import Extensions, extensions_of
from effects.tools.named import ToolLike, listed, own_names, tools_of
from effects.typed import answer_type
from effects.waiting import Job, run_job
from effects.windows import compacting, share_of
from rlm_fsm.errors import RunNotFound, UsageError
from rlm_fsm.event import OnUncertain
from rlm_fsm.options import Options, check_guards
from rlm_fsm.policy import Policy
from rlm_fsm.price import Price
from rlm_fsm.profile import Profile
from rlm_fsm.profiles import profile_of

LogLike = str | os.PathLike[str] | EventLog | None


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
        profile: str | Profile = "pyrlm",
        repl_backend: str | ReplFactory = "python",
        repl_limits: ReplLimits | None = None,
        log: LogLike = None,
        cache: CacheLike = None,
        store_context_chars: int = STORE_CONTEXT_CHARS,
        conversation_history: bool = True,
        max_history_tokens: int = 0,
        compaction: float | bool = False,
        compaction_limit: int = 10,
        compaction_max_tokens: int = 800,
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
        loop_limit: int | None = 5,
        fallback_code: str | None = None,
        auto_finalize_var: str | None = None,
        auto_finalize_min_length: int = 0,
        auto_finalize_reject_patterns: Sequence[str] | None = None,
        auto_finalize_reject_limit: int | None = 3,
        auto_finalize_reject_feedback: str | None = None,
        subcall_guard_steps: int | None = None,
        fallback_guard_steps: int | None = None,
        tell_budget: bool = True,
        output_type: Any = None,
        output_retries: int = 3,
        tools: Sequence[ToolLike] = (),
        on_approval: OnApproval | None = None,
        max_concurrent_tools: int = 10,
        repl_extensions: Extensions | None = None,
        doc_tools: Mapping[str, Callable[..., Any]] | None = None,
        prices: Mapping[str, Price] | None = None,
        event_listener: Listener | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """See the reference page of the options for what each means."""
        check_objects(policy=policy, repl_limits=repl_limits, profile=profile, prices=prices)
        check_listener(event_listener)
        check_logger(logger)
        check_function("on_approval", on_approval)
        check_code("fallback_code", fallback_code)
        check_whole("store_context_chars", store_context_chars, "a number of characters", least=0)
        settings = read_settings(os.environ)
        root = resolve_adapter(adapter, model, settings)
        kind = None if output_type is None else answer_type(output_type)
        known = adapters_of(root, subcall_adapter, adapters)
        self.parts = Parts(
            adapters=known,
            cache=cache_choice(cache, known),
            prices=dict(prices or {}),
            log=log_target(log),
            repl_backend=repl_backend,
            repl_limits=repl_limits or ReplLimits(),
            listeners=() if event_listener is None else (event_listener,),
            logger=logger or logging.getLogger("rlm_fsm"),
            store_context_chars=store_context_chars,
            answer_type=kind,
            toolbox=Toolbox(tools=tools_of(listed(tools)), on_approval=on_approval),
        )
        options = Options(
            policy=policy or Policy(),
            profile=profile_of(profile, model_name(root)),
            max_tokens=max_tokens,
            subcall_max_tokens=subcall_max_tokens,
            system_prompt=system_prompt,
            subcall_system_prompt=subcall_system_prompt,
            recursive_subcall_system_prompt=recursive_subcall_system_prompt,
            system_prompt_supplement=system_prompt_supplement,
            conversation_history=conversation_history,
            max_history_tokens=max_history_tokens,
            compaction_limit=compaction_limit,
            compaction_max_tokens=compaction_max_tokens,
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
            loop_limit=loop_limit,
            fallback_code=fallback_code,
            auto_finalize_var=auto_finalize_var,
            auto_finalize_min_length=auto_finalize_min_length,
            auto_finalize_reject_patterns=patterns_of(auto_finalize_reject_patterns),
            auto_finalize_reject_limit=auto_finalize_reject_limit,
            auto_finalize_reject_feedback=auto_finalize_reject_feedback,
            subcall_guard_steps=subcall_guard_steps,
            fallback_guard_steps=fallback_guard_steps,
            tell_budget=tell_budget,
            answer_schema=None if kind is None else kind.schema,
            output_retries=output_retries,
            tools=tuple(item.spec for item in self.parts.toolbox.tools.values()),
            max_concurrent_tools=max_concurrent_tools,
            prices=prices_of(self.parts.adapters, prices),
        )
        self.options = compacting(options, share_of(compaction), known)
        check_guards(self.options, own_names())
        check_cost_limit(self.options.policy, self.parts.adapters, self.options.prices)
        repl_factory(repl_backend, self.parts.repl_limits, self.options)
        # Last, since `repl_extensions` is given this object, and may look at all of it.
        self._extend(repl_extensions, doc_tools)

    def __repr__(self) -> str:
        return (
            f"RLM({describe(self.parts.adapters['root'])}, profile={self.options.profile.name!r})"
        )

    @property
    def adapter(self) -> ModelAdapter:
        """What asks the model of the root's turns."""
        return self.parts.adapters["root"]

    @property
    def subcall_adapter(self) -> ModelAdapter:
        """What asks the model of subcalls: the root's, unless another was given."""
        return self.parts.adapters["subcall"]

    def run(self, query: str, context: object = None) -> RunResult:
        """Answer `query` over `context` and return the result.

        `context` is a `Context`, a text, a list of texts, or paths. Inside a running event loop
        the run has a thread and a loop of its own; `arun` is the better choice there.
        Raises `UsageError` or `TypeError` before anything is started, and a `RunError` that
        carries `run_id` when the run can't go on.
        """
        return run_job(self._job(query, context))

    async def arun(self, query: str, context: object = None) -> RunResult:
        """`run` for asynchronous programs. Cancelling it cancels the run cleanly."""
        return await self._job(query, context)()

    async def stream(self, query: str, context: object = None) -> AsyncIterator[Appended]:
        """The events of a run as they become durable; ends when the run does.

        Leaving the loop early cancels the run. Errors are raised as by `arun`.
        """
        feed = _Feed()
        task = asyncio.create_task(self._job(query, context, feed)())
        task.add_done_callback(lambda _: feed.end())
        try:
            while (item := await feed.queue.get()) is not None:
                yield item
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def resume(
        self,
        run_id: str,
        *,
        context: object = None,
        policy: Policy | None = None,
        on_uncertain: OnUncertain = "retry",
        on_changed_output: OnChangedOutput = "raise",
    ) -> RunResult:
        """`rlm_fsm.resume` with this object's adapters, log and listener."""
        check_objects(policy=policy)
        check_going_on(on_uncertain, on_changed_output)
        log_of(run_id, cast(LogLike, self.parts.log))
        return run_job(
            lambda: go_on(
                self.parts,
                run_id,
                context=context_of(context),
                policy=policy,
                on_uncertain=on_uncertain,
                on_changed_output=on_changed_output,
            )
        )

    def _job(self, query: str, context: object, *listeners: Listener) -> Job[RunResult]:
        """A run that has been checked and not started."""
        check_query(query)
        opened = context_of(context)
        if opened is None:
            raise UsageError(
                "there is no context: pass a text, a list of texts, a path or a Context"
            )
        parts = replace(self.parts, listeners=(*self.parts.listeners, *listeners))
        return lambda: begin(parts, query, opened, self.options)

    def _extend(
        self,
        repl_extensions: Extensions | None,
        doc_tools: Mapping[str, Callable[..., Any]] | None,
    ) -> None:
        """Offer these functions too."""
        toolbox, logger = self.parts.toolbox, self.parts.logger
        bound = extensions_of(repl_extensions, doc_tools, rlm=self, logger=logger)
        if bound:
            tools = tools_of([*toolbox.tools.values(), *bound])
            self.parts = replace(self.parts, toolbox=replace(toolbox, tools=tools))
            self.options = replace(self.options, tools=tuple(t.spec for t in tools.values()))


def log_target(log: LogLike) -> str | EventLog:
    """The log that a `log=` argument means: an object as it is, else the path of a file."""
    if log is None:
        return read_settings(os.environ).log
    if isinstance(log, str | os.PathLike):
        path = os.fspath(log)
        if not path:
            raise UsageError("log='' is no path: pass a file, ':memory:' or None")
        return path if path == ":memory:" else str(Path(path).expanduser())
    check_log(log)
    return log


def log_of(run_id: str, log: LogLike) -> str | EventLog:
    """`log_target` for a run that exists: a file that isn't there is not made."""
    check_run_id(run_id)
    target = log_target(log)
    if isinstance(target, str) and target != ":memory:" and not Path(target).exists():
        raise RunNotFound(
            f"{target}: there is no such log, and so no run {run_id!r}. Pass the log of the run as "
            "log=, or set RLM_FSM_LOG.",
            path=target,
        )
    return target


def adapters_of(
    root: ModelAdapter,
    subcall_adapter: ModelAdapter | None,
    adapters: Mapping[str, ModelAdapter] | None,
) -> Mapping[str, ModelAdapter]:
    check_objects(adapters=adapters)
    named = adapters or {}
    check_names(named)
    for name, argument in (("root", "adapter"), ("subcall", "subcall_adapter")):
        if name in named:
            raise UsageError(f"adapters={{{name!r}: ...}}: this one is given as {argument}=")
    return {
        **{name: check_adapter(other) for name, other in named.items()},
        "root": root,
        "subcall": root if subcall_adapter is None else check_adapter(subcall_adapter),
    }


def context_of(value: object) -> Context | None:
    return None if value is None else Context.of(value)


class _Feed:
    """A listener that hands events to `RLM.stream`."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Appended | None] = asyncio.Queue()

    def handle(self, event: Appended) -> None:
        self.queue.put_nowait(event)

    def end(self) -> None:
        self.queue.put_nowait(None)
