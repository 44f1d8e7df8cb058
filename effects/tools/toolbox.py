"""Calling tools, and asking whether they may be called: the effects `CallTool` and `AskApproval`.

1. A tool is a function of the caller's own program: it runs in that program, on its event loop if
   it is ``async``, else in a thread, so that the run goes on meanwhile (see `apart`).
2. Whatever it does, one event comes of it: what it raises is data for the code that called it.
3. Each call has a thread or a task of its own. When it takes too long or its run is cancelled, a
   task is cancelled and has a moment to clean up; nobody waits for a thread, nor for a task that
   goes on all the same, and what it gives is dropped.
4. Whoever is asked for approval may say nothing, or fail: the call is then put off, not made.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from inspect import BoundArguments
from typing import Any, cast

from returns.pipeline import is_successful

from effects.repls._tools import as_json
from effects.tools.apart import is_async, made
from effects.tools.declared import Tool
from rlm_fsm.effect import AskApproval, CallTool
from rlm_fsm.event import ApprovalGiven, ApprovalPostponed, ToolFailed, ToolReturned
from rlm_fsm.ids import CallId, RunId

MESSAGE_CHARS = 10_000
"""Longest message of a failed call that code is given."""

_logger = logging.getLogger("rlm_fsm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """A call of a tool that a person has to agree to."""

    run_id: RunId
    call_id: CallId
    tool: str
    arguments: Mapping[str, Any]
    """By the names of the tool's parameters."""
    is_approved: bool | None = None
    """What was answered already; None: it waits."""


Verdict = bool | str | None
"""True: make the call. False, or a text that says why: don't. None: nobody can say now, and the
call waits."""
OnApproval = Callable[[ApprovalRequest], Verdict | Awaitable[Verdict]]
"""What a program answers at once; plain or ``async``."""

Times = Callable[[], tuple[float, float]]
"""Seconds since the effect was started, and since the run was."""


@dataclass(kw_only=True)
class Toolbox:
    """The tools of a run, by name."""

    tools: Mapping[str, Tool] = field(default_factory=dict[str, Tool])
    on_approval: OnApproval | None = None

    async def perform(
        self, effect: CallTool | AskApproval, arguments: str, run_id: RunId, times: Times
    ) -> ToolReturned | ToolFailed | ApprovalGiven | ApprovalPostponed:
        """Perform one effect: its one outcome."""
        if isinstance(effect, CallTool):
            return await self.call(effect, arguments, times)
        return await self.ask(effect, arguments, run_id, times)

    async def call(
        self, effect: CallTool, arguments: str, times: Times
    ) -> ToolReturned | ToolFailed:
        """Call a tool: its one outcome."""
        tool = self.tools.get(effect.tool)
        if tool is None:
            known = ", ".join(sorted(self.tools)) or "none"
            message = f"there is no tool {effect.tool!r}; there are: {known}"
            return _failed(effect, "missing", message, times)
        try:
            args, options = bound(tool, arguments)
        except (TypeError, ValueError, RecursionError) as error:
            return _failed(effect, "arguments", f"{type(error).__name__}: {error}", times)
        try:
            gave = await made(
                lambda: tool.fn(*args, **options),
                is_async=is_async(tool.fn),
                name=effect.tool,
                timeout_s=tool.timeout_s,
            )
        except TimeoutError:
            message = f"there was no answer within {tool.timeout_s:g} seconds"
            return _failed(effect, "timeout", message, times)
        if not is_successful(gave):
            return _failed(effect, "raised", _told(gave.failure()), times)
        try:
            text = as_json(gave.unwrap(), "the result", tool.max_chars)
        except (TypeError, ValueError) as error:
            return _failed(effect, "result", str(error), times)
        except Exception as error:  # the value's own code may raise anything
            return _failed(effect, "result", _told(error), times)
        elapsed_s, clock_s = times()
        return ToolReturned(
            frame=effect.frame,
            call_id=effect.call_id,
            value=text,
            elapsed_s=elapsed_s,
            clock_s=clock_s,
        )

    async def ask(
        self, effect: AskApproval, arguments: str, run_id: RunId, times: Times
    ) -> ApprovalGiven | ApprovalPostponed:
        """Ask whether a call may be made."""
        verdict: Verdict = None
        if self.on_approval is not None:
            request = ApprovalRequest(
                run_id=run_id,
                call_id=effect.call_id,
                tool=effect.tool,
                arguments=parsed(arguments),
            )
            verdict = await self._answer(self.on_approval, request)
        clock_s = times()[1]
        if verdict is None:
            return ApprovalPostponed(frame=effect.frame, call_id=effect.call_id, clock_s=clock_s)
        return ApprovalGiven(
            frame=effect.frame,
            call_id=effect.call_id,
            is_approved=verdict is True,
            reason=verdict if isinstance(verdict, str) else "",
            by="on_approval",
            clock_s=clock_s,
        )

    async def _answer(self, ask: OnApproval, request: ApprovalRequest) -> Verdict:
        gave = await made(lambda: ask(request), is_async=is_async(ask), name="on_approval")
        if not is_successful(gave):
            _logger.error(
                "on_approval failed for call %s of %s: it waits",
                request.call_id,
                request.tool,
                exc_info=gave.failure(),
            )
            return None
        verdict = gave.unwrap()
        if verdict is None or isinstance(verdict, bool | str):
            return verdict
        _logger.error(
            "on_approval gave %r for call %s of %s, which waits: give True, False, a text that "
            "says why not, or None",
            verdict,
            request.call_id,
            request.tool,
        )
        return None


def parsed(arguments: str) -> dict[str, Any]:
    """The arguments of a call; none for what no session of ours has sent."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def bound(tool: Tool, arguments: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call as its function takes them.

    They come from a sandbox, so nothing is taken for granted: `ValueError` and `TypeError` for what
    the function can't take.
    """
    if len(arguments) > tool.max_chars:
        raise ValueError(f"{len(arguments):,} characters, more than the {tool.max_chars:,} allowed")
    found = json.loads(arguments)
    if not isinstance(found, dict):
        raise TypeError("the arguments are no object")
    values = cast(dict[str, Any], found)
    given = BoundArguments(tool.signature, OrderedDict())
    for name, parameter in tool.signature.parameters.items():
        if name in values:
            value = values.pop(name)
            is_rest = parameter.kind is parameter.VAR_POSITIONAL
            given.arguments[name] = tuple(value) if is_rest else value
    if values:
        raise TypeError(f"there is no parameter {next(iter(values))!r}")
    tool.signature.bind(*given.args, **given.kwargs)
    return given.args, given.kwargs


def _told(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be had: str() of it failed)"
    if len(message) > MESSAGE_CHARS:
        message = f"{message[:MESSAGE_CHARS]}... ({len(message):,} characters)"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _failed(effect: CallTool, kind: str, message: str, times: Times) -> ToolFailed:
    elapsed_s, clock_s = times()
    return ToolFailed(
        frame=effect.frame,
        call_id=effect.call_id,
        error=kind,
        message=message,
        elapsed_s=elapsed_s,
        clock_s=clock_s,
    )
