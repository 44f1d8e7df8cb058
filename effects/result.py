"""What a run gives back."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from effects.typed import AnswerType
from rlm_fsm.event import Event, Status
from rlm_fsm.ids import RunId
from rlm_fsm.state import RunState
from rlm_fsm.trace import Trace, trace

if TYPE_CHECKING:
    from effects.tools import ApprovalRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUsage:
    """What a whole run used."""

    steps: int
    """Turns of the root."""
    subcalls: int
    """Subcalls of the whole tree, sub-runs included; not those that a cache answered."""
    model_calls: int
    """Model calls of the whole tree that ended."""
    cache_hits: int = 0
    """Calls that a cache answered, for nothing."""
    compactions: int = 0
    """Summaries of conversations, of the whole tree, that were used; they are among the calls."""
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated: bool
    """True when a provider did not report the usage of some call."""
    seconds: float
    """Seconds of work on the run."""
    unpriced_calls: int
    """Replies whose cost isn't known; with 0, `RunResult.cost_usd` is the whole cost."""
    tool_calls: int = 0
    """Calls of tools that ended, with a result or without."""
    uncertain_calls: int
    """Calls that were in flight when the run stopped: each may have been paid for twice."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The end of a run. Unpacks into two: ``output, trace = result``."""

    run_id: RunId
    output: str
    """The answer."""
    status: Status
    """``finished``, ``partial`` (a limit was reached, the best answer so far), ``failed``, or
    ``waiting``: calls of tools wait for a person, see `approvals`."""
    limit: str | None
    """The limit, for ``partial``."""
    error: str | None
    """Why, for ``failed``."""
    usage: RunUsage
    cost_usd: float | None
    """Sum of the known costs; None when none is known. Of how many calls the cost is unknown says
    `RunUsage.unpriced_calls`."""
    value: Any = None
    """The answer as an object of the type that was asked for (`output_type`); the plain JSON value
    where the type wasn't given again, as by `replay` without it. None without a type, and when no
    answer fitted."""
    _events: Callable[[], list[Event]] = field(repr=False, compare=False)

    @cached_property
    def trace(self) -> Trace:
        """The steps of the run, read from its log when first asked for."""
        return trace(self._events(), run_id=self.run_id)

    @cached_property
    def approvals(self) -> "tuple[ApprovalRequest, ...]":
        """The calls of tools for which a run that waits asks a person."""
        from effects.tools.requests import requests

        return requests(self.run_id, self._events()) if self.status == "waiting" else ()

    def __iter__(self) -> Iterator[Any]:
        yield self.output
        yield self.trace


def usage_of(state: RunState) -> RunUsage:
    """The totals of a run so far."""
    spent, usage = state.spent, state.spent.usage
    return RunUsage(
        steps=spent.steps,
        subcalls=spent.subcalls,
        model_calls=spent.model_calls,
        cache_hits=spent.cache_hits,
        compactions=state.compactions,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
        seconds=spent.seconds,
        unpriced_calls=spent.unpriced_calls,
        tool_calls=spent.tool_calls,
        uncertain_calls=state.uncertain,
    )


def result_of(
    run_id: RunId,
    state: RunState,
    events: Callable[[], list[Event]],
    answer_type: AnswerType | None = None,
) -> RunResult:
    """The result of a run that is over. Raises `UsageError` for a type that its answer isn't of."""
    return RunResult(
        run_id=run_id,
        output=state.output,
        status=state.status,
        limit=state.limit,
        error=state.error,
        usage=usage_of(state),
        cost_usd=state.spent.cost_usd,
        value=_value(state.value, answer_type),
        _events=events,
    )


def _value(kept: str | None, answer_type: AnswerType | None) -> Any:
    if kept is None:
        return None
    return json.loads(kept) if answer_type is None else answer_type.value_of(kept)
