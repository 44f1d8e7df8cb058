"""What a cache is: replies by key. It may lose any at any time, and never gives a wrong one.

Anything with `get` and `put` will do: a folder (`FileCache`), a table, a server that many share.
Both are called from worker threads, several at once. What they raise never ends a run, whatever it
is, nor does a reply with fields of other types: it is warned of once, and the model is asked.
"""

import math
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Protocol, cast, runtime_checkable

from rlm_fsm.values import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedReply:
    """What a cache holds of a reply: all that its next reader needs."""

    text: str
    model_id: str | None = None
    """The model as the provider named it."""
    finish_reason: str | None = None
    reasoning: str | None = None
    usage: Usage = field(default_factory=Usage)
    """What the call took when it was made; a hit takes nothing."""
    cost_usd: float | None = None
    """What it cost then, as far as it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRequest:
    """What decided a reply, without secrets: for people who read a cache."""

    adapter: dict[str, Any]
    """See `keys.identity_of`."""
    max_tokens: int
    temperature: float
    sample: int
    """See `CallModel.sample`."""
    prompt: str
    """The last message."""


@runtime_checkable
class Cache(Protocol):
    """Keeps replies. Safe to use from several threads and, where it has a place, processes."""

    def get(self, key: str) -> CachedReply | None:
        """The reply that was put under this key of 64 hex digits; None when there is none, or when
        what is there isn't whole."""
        ...

    def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        """Keep a reply, in place of what was there."""
        ...


_FIELDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("text", (str,), "str"),
    ("model_id", (str, NoneType), "str or None"),
    ("finish_reason", (str, NoneType), "str or None"),
    ("reasoning", (str, NoneType), "str or None"),
    ("usage", (Usage,), "Usage"),
    ("cost_usd", (int, float, NoneType), "a number or None"),
)
"""What the fields of a `CachedReply` may be."""


def sound(found: object) -> CachedReply:
    """What a cache gave, when it is a reply to the last field. Raises `TypeError` or `ValueError`
    that says what else it is."""
    if not isinstance(found, CachedReply):
        raise TypeError(f"get gave {type(found).__name__}; it must give a CachedReply or None")
    for name, kinds, wanted in _FIELDS:
        value = cast(object, getattr(found, name, ...))
        if not isinstance(value, kinds):
            kind = "missing" if value is ... else type(value).__name__
            raise TypeError(f"get gave a CachedReply whose {name} is {kind}, not {wanted}")
    for item in fields(found.usage):
        count = getattr(found.usage, item.name)
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"get gave a CachedReply whose usage has {item.name}={count!r}")
    cost = found.cost_usd
    if cost is not None and (isinstance(cost, bool) or not 0 <= cost < math.inf):
        raise ValueError(f"get gave a CachedReply whose cost_usd is {cost!r}")
    return found
