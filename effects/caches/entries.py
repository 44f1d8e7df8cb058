"""An entry of a cache as a file holds it: JSON for people, and a hash that tells damage.

What isn't exactly what was written is no entry: not JSON, a part of it, another program's file, an
entry under another's name, one whose text was changed.
"""

import json
from dataclasses import asdict
from hashlib import sha256
from typing import Any, cast

from effects.caches.base import CachedReply, CacheRequest, sound
from rlm_fsm.values import Usage

FORMAT = "rlm-fsm cached reply"
VERSION = 1
"""Version of the file's fields."""
_PROMPT_CHARS = 400
"""How much of a prompt is shown: enough to tell whose reply it is."""
_TOLD = ("text", "model_id", "finish_reason", "reasoning", "cost_usd")
"""Fields of a reply that are written as they are."""


def written(key: str, reply: CachedReply, request: CacheRequest) -> bytes:
    """An entry's bytes: JSON in ASCII, since any text can be held so."""
    asked = asdict(request)
    prompt = asked.pop("prompt")
    shown = {**asked, "prompt": prompt[:_PROMPT_CHARS], "prompt_chars": len(prompt)}
    told = {**asdict(reply), "usage": reply.usage.to_dict()}
    entry = {"format": FORMAT, "version": VERSION, "key": key, "request": shown, "reply": told}
    whole = {**entry, "digest": _digest(entry)}
    return (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode("ascii")


def read(key: str, data: bytes) -> CachedReply | None:
    """The reply of an entry; None when these bytes aren't what was written under this key."""
    try:
        entry: Any = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    found = cast(dict[str, Any], entry)
    digest = found.pop("digest", None)
    try:
        is_sound = digest == _digest(found)
    except (TypeError, ValueError, RecursionError):
        return None
    if not is_sound or found.get("format") != FORMAT or found.get("version") != VERSION:
        return None
    return None if found.get("key") != key else _reply(found.get("reply"))


def _reply(data: Any) -> CachedReply | None:
    """The reply, when its fields are what they should be. A sound hash says only that somebody has
    written them so."""
    if not isinstance(data, dict):
        return None
    fields = cast(dict[str, Any], data)
    usage = fields.get("usage")
    if not isinstance(usage, dict):
        return None
    told: dict[str, Any] = {name: fields.get(name) for name in _TOLD}
    counts = Usage.from_dict(cast(dict[str, Any], usage))
    try:
        return sound(CachedReply(**told, usage=counts))
    except (TypeError, ValueError):
        return None


def _digest(entry: dict[str, Any]) -> str:
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode("ascii")).hexdigest()
