"""Model adapters: ``from rlm_fsm.adapters import OpenAICompatAdapter``.

A face of the shell: names are loaded when they are first used, and importing this module loads
neither the shell nor an HTTP client.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effects.adapters import (
        AdapterError,
        FakeAdapter,
        FakeRule,
        ModelAdapter,
        ModelResponse,
        OpenAICompatAdapter,
        Usage,
    )

__all__ = [
    "AdapterError",
    "FakeAdapter",
    "FakeRule",
    "ModelAdapter",
    "ModelResponse",
    "OpenAICompatAdapter",
    "Usage",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from effects import adapters

    value = getattr(adapters, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
