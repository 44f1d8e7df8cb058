"""Frames between a session's process and its host: a length, then JSON.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

A frame is its payload's length in bytes (4 bytes, big endian), a mark (8 bytes) and the payload: a
JSON object in UTF-8 with ``surrogatepass``. So every Python text arrives as it was sent: escaped
surrogates (``ensure_ascii``) would be joined to one character where two lone ones stand side by
side.

The host puts a new random mark on each frame, and an answer must bear the mark of the frame that
it answers. So nothing that was written beforehand, or blindly, passes for an answer.

Whose turn it is, is always clear, and both sides keep to it:

| host sends | child answers |
|---|---|
| `init` | `ready` or `failed` |
| `run` | `pause` or `end` |
| `answers` | `pause` or `end` |
| `read` | `value` |

A request with ``"spin": true`` says that the one after it may follow quickly, see `_pace`.

A call of a `pause` is a row: the values of `CALL_FIELDS`, without their names, which are most of
what there is to write and to read.
"""

import json
from collections.abc import Callable
from json import encoder
from typing import Any

LENGTH_BYTES = 4
MARK_BYTES = 8
HEADER_BYTES = LENGTH_BYTES + MARK_BYTES
MAX_FRAME_BYTES = 64 << 20
"""Longest payload that the host takes from a child: it must hold a variable that is read."""

CALL_FIELDS = (
    "fn",
    "prompt",
    "question",
    "model",
    "max_tokens",
    "recursive",
    "dedupe",
    "kind",
    "schema",
    "is_sample",
)
"""What is told of a host call: fields of `HostCall`, in this order."""

_load = json.JSONDecoder().raw_decode  # `decode` would look for blanks around it, by `re`


def row(call: dict[str, Any]) -> list[Any]:
    """A call as it stands in a frame; None for what it doesn't say."""
    return [*map(call.get, CALL_FIELDS)]


def encode(message: dict[str, Any], mark: bytes) -> bytes:
    """A whole frame."""
    payload = _dumped(message).encode("utf-8", "surrogatepass")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + mark + payload


def decode(payload: bytes | bytearray) -> Any:
    """What a payload says. Raises ValueError or RecursionError for what isn't JSON."""
    text = payload.decode("utf-8", "surrogatepass")
    message, end = _load(text)
    if end != len(text):
        raise ValueError(f"a frame has {len(text) - end} characters after its JSON")
    return message


def _dumper() -> Callable[[dict[str, Any]], str]:
    """What makes JSON. `JSONEncoder.encode` would build its machinery for each frame anew, which
    takes longer than a small frame itself."""
    make, text_of = _accelerated("c_make_encoder"), _accelerated("c_encode_basestring")
    try:
        dump = make(None, None, text_of, None, ":", ",", False, False, True)
    except TypeError:  # a Python that has none of this kind
        return json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def dumped(message: dict[str, Any]) -> str:
        return "".join(dump(message, 0))

    return dumped


def _accelerated(name: str) -> Any:
    return getattr(encoder, name, None)


_dumped = _dumper()
