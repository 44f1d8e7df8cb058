"""The adapter for OpenAI and every server that speaks its chat completions.

Ollama, LM Studio, vLLM, llama.cpp, OpenRouter and most hosted models do. What differs between
them is met where it shows: a model that refuses ``max_tokens`` or ``temperature`` is asked again
without it, and this adapter remembers.
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from effects.adapters.bodies import encoded
from effects.adapters.chat_completions import adapted, payload_of, response_of
from effects.adapters.faults import Backoff
from effects.adapters.http import Endpoint, HttpAdapter
from rlm_fsm.errors import UsageError
from rlm_fsm.values import Messages, ModelResponse

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_PATH = "/chat/completions"


class OpenAICompatAdapter(HttpAdapter):
    """Chat completions of one model at one address. Safe for many calls at once."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        deadline: float | None = None,
        max_retries: int = 3,
        extra: Mapping[str, Any] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """The environment is read here, once, for what isn't given.

        `base_url`: up to and including ``/v1``; else LLM_BASE_URL, OPENAI_BASE_URL, OpenAI.
        `api_key`: else LLM_API_KEY, OPENAI_API_KEY; "" sends none. `timeout`: seconds for one
        attempt, from connecting to the last byte. `deadline`: seconds over all attempts.
        `extra`: fields added to every request; a value None leaves out one of ours.
        Raises `UsageError` for bad arguments, and when OpenAI itself would be asked without a key.
        """
        if not model or not model.strip():
            raise UsageError("OpenAICompatAdapter(model=...) needs the name of a model")
        self._extra = _checked_extra(extra)
        custom_url = base_url or _environment("LLM_BASE_URL", "OPENAI_BASE_URL")
        if api_key is None:
            api_key = _environment("LLM_API_KEY", "OPENAI_API_KEY")
        key = (api_key or "").strip()
        if not key and not custom_url and not headers:
            raise UsageError(
                f"no API key for {DEFAULT_BASE_URL}: set LLM_API_KEY or OPENAI_API_KEY, or pass "
                "api_key=. For a server that needs no key, set LLM_BASE_URL or pass base_url= "
                "(Ollama: http://localhost:11434/v1)"
            )
        endpoint = Endpoint(
            _with_path(custom_url or DEFAULT_BASE_URL),
            model=model,
            headers=_with_key(headers or {}, key),
            secrets=[key],
            timeout=timeout,
            deadline=deadline,
            max_retries=max_retries,
            backoff=backoff,
        )
        super().__init__(model, endpoint)
        self._renames_max_tokens = False
        self._omits_temperature = False

    @property
    def identity(self) -> Mapping[str, str]:
        """As `HttpAdapter.identity`, with a hash of `extra`: it may hold what is nobody's
        business."""
        if not self._extra:
            return super().identity
        extra = sha256(encoded(self._extra)).hexdigest()[:16]
        return {**super().identity, "extra": extra}

    async def acomplete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        """Answer the messages, or raise `AdapterError`. Cancelling ends the request."""
        payload = payload_of(
            self.model,
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            extra=self._extra,
        )
        if self._renames_max_tokens and "max_tokens" in payload:
            payload["max_completion_tokens"] = payload.pop("max_tokens")
        if self._omits_temperature:
            payload.pop("temperature", None)
        sent = await self._endpoint.post(
            payload, lambda data: response_of(data, messages, self.model), adapted
        )
        # Learnt from success only: what also failed without the parameter had another reason.
        if sent.payload is not payload:
            self._renames_max_tokens |= "max_tokens" in payload and "max_tokens" not in sent.payload
            self._omits_temperature |= "temperature" in payload and (
                "temperature" not in sent.payload
            )
        return sent.reply


def _environment(*names: str) -> str | None:
    """The first of the variables that is set to more than spaces."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def _with_path(base_url: str) -> str:
    """The address of the chat completions under a base URL, whose query is kept."""
    base, mark, query = base_url.strip().partition("?")
    base = base.rstrip("/")
    return (base if base.endswith(_PATH) else base + _PATH) + mark + query


def _with_key(headers: Mapping[str, str], key: str) -> Mapping[str, str]:
    """The headers and the key, unless they hold an authorization of their own."""
    if not key or any(name.lower() == "authorization" for name in headers):
        return headers
    return {"Authorization": f"Bearer {key}", **headers}


def _checked_extra(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    fields = dict(extra or {})
    if "messages" in fields:
        raise UsageError("extra can't hold 'messages': they are given with each call")
    if fields.get("stream"):
        raise UsageError("extra can't ask for 'stream': replies are read as one document")
    return fields
