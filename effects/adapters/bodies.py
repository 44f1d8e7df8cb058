"""Bodies of requests and replies: JSON out, bounded bytes in, JSON read with suspicion.

The size of a body is bounded before and after it is unpacked: a megabyte of gzip can hold a
gigabyte of zeros.
"""

import json
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from effects.adapters.faults import Failure, error_of
from rlm_fsm.errors import UsageError

MAX_BODY_BYTES = 32 << 20
"""Largest body of a reply, packed or not: some 50 times the longest answer of today's models."""

Payload = dict[str, Any]
"""A request, before it is JSON."""
T = TypeVar("T")


class BadReply(ValueError):
    """What a reader raises for a document that isn't a reply; the message says why."""


class BodyRefused(Exception):
    """The bytes of a body can't be had. `retryable`: another attempt may bring better ones."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


def encoded(payload: Payload) -> bytes:
    """The payload as JSON in UTF-8, or `UsageError` when it holds what JSON can't."""
    try:
        text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the request can't be written as JSON: {error}") from error
    # Lone surrogates are no Unicode text: no endpoint takes them, a question mark stands in.
    return text.encode("utf-8", "replace")


def unpacked(raw: bytes, encoding: str) -> bytes:
    """The body without its content encoding; only gzip was asked for. Raises `BodyRefused`."""
    _check_size(len(raw))
    match encoding.strip().lower():
        case "identity" | "":
            return raw
        case "gzip" | "x-gzip":
            return _unzipped(raw)
        case other:
            what = f"the body of the reply is encoded as {other[:20]!r}, which wasn't asked for"
            raise BodyRefused(what, retryable=False)


def read_reply(content: bytes, status: int, read: Callable[[Any], T]) -> T | Failure:
    """What `read` makes of the parsed body; a failure when it is no JSON or no reply."""

    def failure(what: str, detail: str) -> Failure:
        return Failure(kind="bad_response", what=what, detail=detail, status=status, retryable=True)

    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        text = content.decode("utf-8", "replace").strip()
        detail = f"{error}. It begins: {text}" if text else "it is empty"
        return failure("the reply is no JSON", detail)
    if (words := error_of(data)) is not None:
        return failure("an error came as a reply", words)
    try:
        return read(data)
    except BadReply as error:
        return failure("the reply is no chat completion", str(error))


def _unzipped(raw: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)  # 31: a gzip header is required
    try:
        content = unzip.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise BodyRefused(f"the body of the reply is broken: {error}", retryable=True) from None
    _check_size(len(content))
    if not unzip.eof:
        raise BodyRefused("the body of the reply is broken: it ends too early", retryable=True)
    return content


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        limit = f"{MAX_BODY_BYTES >> 20} MiB"
        raise BodyRefused(f"the body of the reply is larger than {limit}", retryable=False)
