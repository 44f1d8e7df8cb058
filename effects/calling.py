"""One model call, from messages to its outcome event. Never raises for a failure of the world.

What a reply cost is what its provider says; else what `cost_of` says, if anything; else unknown.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from types import NoneType
from typing import Any, cast

from effects.adapters.base import AdapterError, ModelAdapter
from rlm_fsm.effect import CallModel
from rlm_fsm.event import UNKNOWN_MODEL, ModelFailed, ModelReplied
from rlm_fsm.ids import CallId
from rlm_fsm.values import ModelResponse, Usage, estimate_tokens

TEMPERATURE = 0.0
"""All calls: the same question should give the same answer."""
_FIELDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("text", (str,), "str"),
    ("usage", (Usage, NoneType), "Usage or None"),
    ("model_id", (str, NoneType), "str or None"),
    ("meta", (Mapping, NoneType), "a mapping or None"),
)
"""What the fields of a `ModelResponse` may be."""
_TOKENS = 10**12
"""More than any call takes."""
CostOf = Callable[[str, ModelResponse], float | None]
"""From an adapter's name and its reply to USD; None where nobody knows."""


def no_cost(adapter: str, response: ModelResponse) -> None:
    """A `CostOf` that knows no prices."""
    del adapter, response


async def call_model(
    adapter: ModelAdapter,
    messages: list[dict[str, str]],
    effect: CallModel,
    *,
    threads: ThreadPoolExecutor | None,
    elapsed: Callable[[], tuple[float, float]],
    made: set[CallId],
    cost_of: CostOf = no_cost,
) -> ModelReplied | ModelFailed:
    """Make the call and classify how it ended. `elapsed` gives its seconds and the run's; the call
    is among those `made` from when it is begun."""
    try:
        response = await _complete(adapter, messages, effect, threads, made)
    except AdapterError as error:
        return _failed(effect, error.kind, str(error), error.status, elapsed())
    except TimeoutError as error:
        return _failed(effect, "timeout", str(error) or "timed out", None, elapsed())
    except asyncio.CancelledError:
        if cancellations():
            raise  # it is the run that is cancelled, and not something of the adapter's own
        message = "CancelledError: something that the adapter waited for was cancelled"
        return _failed(effect, "adapter", message, None, elapsed())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an adapter of the user's may raise anything
        return _failed(effect, "adapter", told(error), None, elapsed())
    checked = _checked(response)
    if isinstance(checked, str):
        message = f"{type(adapter).__name__} {checked}"
        return _failed(effect, "adapter", message, None, elapsed())
    reported = _cost((checked.meta or {}).get("cost_usd"))
    cost_usd = cost_of(effect.adapter, checked) if reported is None else reported
    return _replied(effect, checked, messages, elapsed(), cost_usd)


def cancellations() -> int:
    """How often the running task was asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def told(error: BaseException) -> str:
    """An exception of code that isn't ours: its type and, where it can be had, its message."""
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be had: str() of it failed)"
    return f"{type(error).__name__}: {message}"


def unknown_adapter(effect: CallModel, known: Iterable[str], clock_s: float) -> ModelFailed:
    """The outcome of a call that names none of the run's adapters."""
    there_are = ", ".join(sorted(known))
    message = f"there is no model named {effect.adapter!r}; there are: {there_are}"
    return _failed(effect, UNKNOWN_MODEL, message, None, (0.0, clock_s))


async def _complete(
    adapter: Any,
    messages: list[dict[str, str]],
    effect: CallModel,
    threads: ThreadPoolExecutor | None,
    made: set[CallId],
) -> object:
    """What the adapter returned: anything, should it be a user's."""
    made.add(effect.call_id)
    limits = {"max_tokens": effect.max_tokens, "temperature": TEMPERATURE}
    if hasattr(adapter, "acomplete"):
        return await adapter.acomplete(messages, **limits)
    assert threads is not None, "there are threads for an adapter that blocks"

    def work() -> object:
        try:
            return adapter.complete(messages, **limits)
        except StopIteration as error:  # a future can't hold it: its waiter would wait for ever
            raise RuntimeError(told(error)) from error

    job = threads.submit(work)
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        if job.cancel():
            made.discard(effect.call_id)  # it still waited for its thread
        elif cancellations() and job.done():
            return job.result()  # it was there, and about to be told
        raise


def _checked(response: object) -> ModelResponse | str:
    """The response, or what is wrong with it."""
    if not isinstance(response, ModelResponse):
        return f"returned {type(response).__name__}; it must return a ModelResponse"
    for name, kinds, wanted in _FIELDS:
        value = getattr(response, name)
        if not isinstance(value, kinds):
            return f"returned a ModelResponse whose {name} is {type(value).__name__}, not {wanted}"
    usage = cast(Usage | None, response.usage)
    if usage is None:
        return replace(response, usage=Usage())  # unknown, and so estimated
    for item in fields(usage):
        count = getattr(usage, item.name)
        if not isinstance(count, int) or not 0 <= count < _TOKENS:
            return f"returned a Usage whose {item.name} is {count!r}, not a whole number from 0 on"
    total = usage.prompt_tokens + usage.completion_tokens
    if total <= usage.total_tokens:
        return response
    return replace(response, usage=replace(usage, total_tokens=total))


def _replied(
    effect: CallModel,
    response: ModelResponse,
    messages: list[dict[str, str]],
    elapsed: tuple[float, float],
    cost_usd: float | None,
) -> ModelReplied:
    meta: Mapping[str, Any] = response.meta or {}
    return ModelReplied(
        frame=effect.frame,
        call_id=effect.call_id,
        text=response.text,
        usage=_usage(response, messages),
        model_id=response.model_id,
        finish_reason=_text(meta.get("finish_reason")),
        reasoning=_text(meta.get("reasoning")),
        cost_usd=cost_usd,
        request_id=_text(meta.get("request_id")),
        elapsed_s=elapsed[0],
        clock_s=elapsed[1],
    )


def _usage(response: ModelResponse, messages: list[dict[str, str]]) -> Usage:
    """The reported usage, or an estimate that says so."""
    if response.usage.total_tokens > 0:
        return response.usage
    prompt = estimate_tokens(sum(len(message["content"]) for message in messages))
    completion = estimate_tokens(len(response.text))
    return Usage(prompt, completion, prompt + completion, estimated=True)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _cost(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) and value >= 0 else None
    return None


def _failed(
    effect: CallModel,
    kind: str,
    message: str,
    status: int | None,
    elapsed: tuple[float, float],
) -> ModelFailed:
    return ModelFailed(
        frame=effect.frame,
        call_id=effect.call_id,
        error=kind,
        message=message,
        status=status,
        elapsed_s=elapsed[0],
        clock_s=elapsed[1],
    )
