"""The name of a reply: a hash over everything that decides it, and over nothing else.

1. The adapter: its kind, endpoint and model, and every parameter of its own. Never a key or
   another secret: who asks doesn't change the answer.
2. The messages, whole: system prompt, question, text and the words of a schema are all in them.
3. The limits and parameters of the call.
4. Which of several equal calls it is, where code asked for a reply to each.
5. `VERSION`: when any of this changes, old entries are under other names and never met again.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

VERSION = 1
"""Version of the key. Raise it when what goes in changes."""


def identity_of(adapter: object) -> dict[str, Any] | None:
    """What an adapter is, as far as its answers depend on it. None when nobody can tell.

    An adapter's own `identity` (a mapping that JSON can hold) says it; else its class, its `model`
    and its `url` do. One that has neither `identity` nor `model` might be anything.
    """
    kind = f"{type(adapter).__module__}.{type(adapter).__qualname__}"
    own = getattr(adapter, "identity", None)
    if isinstance(own, Mapping):
        return {"kind": kind, **cast(Mapping[str, Any], own)}
    model, url = getattr(adapter, "model", None), getattr(adapter, "url", None)
    if not isinstance(model, str) or not model:
        return None
    return {"kind": kind, "model": model, **({"url": url} if isinstance(url, str) else {})}


def key_of(
    identity: Mapping[str, Any],
    messages: Sequence[Mapping[str, str]],
    *,
    max_tokens: int,
    temperature: float,
    sample: int = 0,
) -> str:
    """The key of a call, as 64 hex digits. Raises `TypeError` or `ValueError` for an identity that
    JSON can't hold."""
    parts = {
        "version": VERSION,
        "adapter": identity,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": float(temperature),
        "sample": sample,
    }
    # In ASCII: a lone surrogate, which UTF-8 lacks, has an escape of its own there.
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode("ascii")).hexdigest()
