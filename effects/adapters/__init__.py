"""Model adapters: what answers chat messages.

Names are loaded when they are first used, so that a program which only runs a `FakeAdapter`
doesn't pay for an HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from effects.adapters.base import AdapterError, ModelAdapter
from rlm_fsm.values import ModelResponse, Usage

if TYPE_CHECKING:
    from effects.adapters.fake import FakeAdapter, FakeRule
    from effects.adapters.openai_compat import OpenAICompatAdapter

__all__ = [
    "AdapterError",
    "FakeAdapter",
    "FakeRule",
    "ModelAdapter",
    "ModelResponse",
    "OpenAICompatAdapter",
    "Usage",
]

_HOMES = {
    "FakeAdapter": "effects.adapters.fake",
    "FakeRule": "effects.adapters.fake",
    "OpenAICompatAdapter": "effects.adapters.openai_compat",
}
"""Where each lazy name lives."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
