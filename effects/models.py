"""From a model's name to an adapter: ``openai:gpt-5``, ``ollama:llama3``, or a bare name."""

from typing import cast

from effects.adapters.base import ModelAdapter
from effects.settings import Settings
from rlm_fsm.errors import UsageError

OLLAMA_URL = "http://localhost:11434/v1"
"""Where Ollama serves the OpenAI API unless it was told otherwise."""

WAYS = """no model is configured. Any of these will do:
  - pass adapter=OpenAICompatAdapter(model="...", base_url="...", api_key="...")
  - pass model="openai:NAME" with LLM_API_KEY or OPENAI_API_KEY set, or model="ollama:NAME"
  - set RLM_FSM_MODEL, and LLM_API_KEY or LLM_BASE_URL for any OpenAI-compatible endpoint"""


def resolve_adapter(adapter: object, model: str | None, settings: Settings) -> ModelAdapter:
    """The adapter that was passed, or one built from a name and the environment.

    Raises `UsageError` for an adapter without `complete`, and when there is neither.
    """
    if adapter is not None:
        if model is not None:
            raise UsageError("pass adapter= or model=, not both")
        return check_adapter(adapter)
    if model is not None and not isinstance(cast(object, model), str):
        raise UsageError(f"model={model!r}: give the name of a model, such as 'openai:gpt-5'")
    name = model or settings.model
    if name is None or not (settings.has_endpoint or name.startswith("ollama:")):
        raise UsageError(WAYS)
    return _build(name)


def check_adapter(adapter: object) -> ModelAdapter:
    """The adapter, if it has what an adapter needs."""
    if isinstance(adapter, type):
        raise UsageError(
            f"{adapter.__name__} is a class: pass an instance, {adapter.__name__}(...)"
        )
    if not callable(getattr(adapter, "complete", None)) and not callable(
        getattr(adapter, "acomplete", None)
    ):
        raise UsageError(
            f"{type(adapter).__name__} is no model adapter: it needs a method "
            "complete(messages, *, max_tokens, temperature) -> ModelResponse"
        )
    return cast(ModelAdapter, adapter)


def describe(adapter: object) -> str:
    """An adapter for the log: its class and model, never a key."""
    model, name = model_name(adapter), type(adapter).__name__
    return name if model is None else f"{name}({model})"


def model_name(adapter: object) -> str | None:
    """The model's name, where the adapter has one."""
    model = getattr(adapter, "model", None)
    return model if isinstance(model, str) else None


def _build(name: str) -> ModelAdapter:
    from effects.adapters.openai_compat import OpenAICompatAdapter

    provider, colon, rest = name.partition(":")
    if not colon:
        return OpenAICompatAdapter(name)
    match provider:
        case "openai":
            return OpenAICompatAdapter(rest)
        case "ollama":
            return OpenAICompatAdapter(rest, base_url=OLLAMA_URL)
        case "anthropic" | "azure" | "gemini" | "vertex":
            raise UsageError(
                f"model={name!r}: there is no adapter for {provider} yet; use an OpenAI-compatible "
                "endpoint (LLM_BASE_URL) or pass an adapter of your own"
            )
        case _:
            return OpenAICompatAdapter(name)  # a tag, such as llama3:8b
