"""The chat completions format: what is sent, and what is made of the answer. No I/O.

Written against OpenAI's reference of ``/v1/chat/completions`` and what its imitators really
return: contents as blocks or null, reasoning beside the text, errors in place of choices, usage
that is missing, null, zero or nonsense. A count that can't be right isn't believed: it is
estimated and marked, since budgets rest on it.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

from effects.adapters.bodies import BadReply, Payload
from effects.adapters.faults import Failure
from rlm_fsm.values import Messages, ModelResponse, Usage, estimate_tokens

_MOST_TOKENS = 10**9
"""Larger counts are nonsense: a thousand times the longest context of today's models."""
_NOT_TAKEN = (
    "unsupported",
    "not support",
    "unrecognized",
    "unknown",
    "unexpected",
    "not permitted",
)
"""Words by which servers say that they don't take a parameter at all, or not this value."""


def payload_of(
    model: str,
    messages: Messages,
    *,
    max_tokens: int,
    temperature: float,
    extra: Mapping[str, Any],
) -> Payload:
    """The request. `extra` wins over our fields, and its None leaves a field out."""
    payload: Payload = {
        "model": model,
        "messages": [dict(message) for message in messages],
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    if "max_completion_tokens" in extra:
        del payload["max_tokens"]
    payload.update(extra)
    return {name: value for name, value in payload.items() if value is not None}


def adapted(payload: Payload, failure: Failure) -> Payload | None:
    """The payload without the parameter that the model refuses, or None.

    Reasoning models want ``max_completion_tokens`` for ``max_tokens``, and no ``temperature``
    but their own. A value that is only too large is not a refusal of the parameter.
    """
    if failure.status not in (400, 422):
        return None
    if _refuses(failure, "max_tokens") and "max_tokens" in payload:
        renamed = dict(payload)
        renamed["max_completion_tokens"] = renamed.pop("max_tokens")
        return renamed
    if _refuses(failure, "temperature") and "temperature" in payload:
        return {name: value for name, value in payload.items() if name != "temperature"}
    return None


def response_of(data: Any, messages: Messages, model: str) -> ModelResponse:
    """The reply that a parsed body holds. Raises `BadReply` when it holds none."""
    body = _object(data, "the body")
    choice = _object(_first(body.get("choices")), "choices[0]")
    if choice.get("error"):
        raise BadReply(f"the choice is an error: {choice['error']}")
    message = _object(choice.get("message"), "choices[0].message")
    text, thought = _contents(message.get("content"))
    refusal = message.get("refusal")
    if not text and isinstance(refusal, str):
        text = refusal
    reasoning = _reasoning(message) or thought
    usage_data = body.get("usage")
    meta = {
        "finish_reason": _text(choice.get("finish_reason")),
        "request_id": _text(body.get("id")),
        "reasoning": reasoning,
        "cost_usd": _cost(usage_data),
    }
    return ModelResponse(
        text=text,
        usage=usage_of(usage_data) or _estimate(messages, text + (reasoning or "")),
        model_id=_text(body.get("model")) or model,
        meta={name: value for name, value in meta.items() if value is not None},
    )


def usage_of(data: Any) -> Usage | None:
    """The usage that a provider reports, or None when it can't be believed."""
    if not isinstance(data, dict):
        return None
    fields = cast(dict[str, Any], data)
    prompt, total = _count(fields.get("prompt_tokens")), _count(fields.get("total_tokens"))
    completion = _count(fields.get("completion_tokens"))
    if prompt is None:
        return None
    if completion is None:
        if total is None or total < prompt:
            return None
        completion = total - prompt
    if prompt + completion == 0:
        return None
    reasoning = _detail(fields, "completion_tokens_details", "reasoning_tokens")
    if total is not None and reasoning and total == prompt + completion + reasoning:
        # Some providers (xAI) report reasoning beside the completion, and bill both.
        completion += reasoning
    cached = _detail(fields, "prompt_tokens_details", "cached_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=max(total or 0, prompt + completion),
        cached_tokens=min(cached or _count(fields.get("prompt_cache_hit_tokens")) or 0, prompt),
        reasoning_tokens=min(reasoning, completion),
    )


def _refuses(failure: Failure, param: str) -> bool:
    said = failure.detail.lower()
    if failure.param != param and param not in said:
        return False
    if param == "max_tokens" and "max_completion_tokens" in said:
        return True
    code = (failure.code or "").lower()
    return code.startswith("unsupported") or any(words in said for words in _NOT_TAKEN)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadReply(f"{name} is {_kind(value)} instead of an object")
    return cast(dict[str, Any], value)


def _first(choices: Any) -> Any:
    if not _is_list(choices) or not choices:
        raise BadReply('it has no "choices"')
    return choices[0]


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _contents(content: Any) -> tuple[str, str | None]:
    """Text and reasoning of a content: a string, a list of blocks, or null."""
    if content is None:
        return "", None
    if isinstance(content, str):
        return content, None
    if not _is_list(content):
        raise BadReply(f"choices[0].message.content is {_kind(content)} instead of a text")
    texts: list[str] = []
    thoughts: list[str] = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict):
            fields = cast(dict[str, Any], block)
            if isinstance(fields.get("text"), str):
                texts.append(fields["text"])
            elif "thinking" in fields:
                thoughts.append(_contents(fields["thinking"])[0])
    return "\n".join(texts), "\n".join(thoughts) or None


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """DeepSeek, vLLM and SGLang say ``reasoning_content``, OpenRouter and Groq ``reasoning``."""
    return _text(message.get("reasoning_content")) or _text(message.get("reasoning"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _cost(usage: Any) -> float | None:
    """What the call cost in USD, where the provider says so (OpenRouter)."""
    if not isinstance(usage, dict):
        return None
    cost = cast(dict[str, Any], usage).get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        return None
    return float(cost) if 0 <= cost < math.inf else None


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int:
    details = usage.get(group)
    if not isinstance(details, dict):
        return 0
    return _count(cast(dict[str, Any], details).get(name)) or 0


def _count(value: Any) -> int | None:
    """A number of tokens; None for what can't be one (NaN, negative, text, true)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= _MOST_TOKENS and value == int(value) else None


def _estimate(messages: Messages, completion: str) -> Usage:
    chars = sum(len(message.get("content") or "") for message in messages)
    prompt, generated = estimate_tokens(chars), estimate_tokens(len(completion))
    return Usage(prompt, generated, prompt + generated, estimated=True)
