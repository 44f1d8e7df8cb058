"""Frames between a session's process and its host: a length, then JSON.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

A frame is its payload's length in bytes (4 bytes, big endian) and the payload: a JSON object in
UTF-8 with ``surrogatepass``. So every Python text arrives as it was sent: escaped surrogates
(``ensure_ascii``) would be joined to one character where two lone ones stand side by side.

Whose turn it is, is always clear, and both sides keep to it:

| host sends | child answers |
|---|---|
| `init` | `ready` or `failed` |
| `run` | `pause` or `end` |
| `answers` | `pause` or `end` |
| `read` | `value` |
"""

import json
from typing import Any

HEADER_BYTES = 4
MAX_FRAME_BYTES = 64 << 20
"""Longest payload that the host takes from a child: it must hold a variable that is read."""

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_load = json.JSONDecoder().decode


def encode(message: dict[str, Any]) -> bytes:
    """A whole frame."""
    payload = _dump(message).encode("utf-8", "surrogatepass")
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


def decode(payload: bytes | bytearray) -> Any:
    """What a payload says. Raises ValueError or RecursionError for what isn't JSON."""
    return _load(payload.decode("utf-8", "surrogatepass"))
