"""A context in a file in memory, for the processes of sessions to map.

1. The file holds the text in the layout of `_mapped`, then documents and names as JSON. So what
   is sent to a session says how long both are, and doesn't grow with them.
2. It is sealed: nobody can write to it, nor change its length, and the descriptor that is handed
   over is for reading only. Sessions that share it can't reach each other through it.
3. Sessions over the same text share one file, however many they are. It lives as long as one of
   them does.
"""

import asyncio
import fcntl
import json
import os
import weakref
from collections.abc import Sequence
from threading import Lock
from typing import Protocol

from effects.repls._mapped import CODECS, LAZY_CHARS

_PIECE_CHARS = 1 << 20
"""What is encoded at once: some tenths of a millisecond, in which no other thread runs."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class ContextSource(Protocol):
    """What is needed of a context: `effects.context.Context` and `TextView` have it."""

    @property
    def text(self) -> str: ...
    @property
    def spans(self) -> Sequence[tuple[int, int]]: ...
    @property
    def kind(self) -> str: ...
    @property
    def names(self) -> Sequence[str] | None: ...


class Sealed:
    """A file that holds a context. It is closed when nobody refers to this object any more."""

    def __init__(self, context: ContextSource) -> None:
        """Write the file. Raises OSError when there is no memory for it."""
        self.text, self.kind = context.text, context.kind
        self.spans, self.names = context.spans, context.names
        fd = os.memfd_create("context", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            self.width = _written(fd, self.text)
            shape = {"kind": self.kind, "names": self.names, "spans": self.spans}
            told = json.dumps(shape, separators=(",", ":"), ensure_ascii=False)
            data = told.encode("utf-8", "surrogatepass")
            self.shape_bytes = len(data)
            _write(fd, data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            self.fd = _for_reading(fd)
        except BaseException:
            os.close(fd)
            raise
        weakref.finalize(self, os.close, self.fd)

    def layout(self) -> dict[str, int]:
        """What a session must be told to read the file."""
        return {"chars": len(self.text), "width": self.width, "shape_bytes": self.shape_bytes}

    def holds(self, context: ContextSource) -> bool:
        """Whether it is the file of this context too."""
        return (
            self.text is context.text
            and self.kind == context.kind
            and self.names == context.names
            and self.spans == context.spans
        )


_known: "weakref.WeakValueDictionary[int, Sealed]" = weakref.WeakValueDictionary()
"""Files in use, by the ids of their texts, which they keep alive."""
_lock = Lock()
"""Held while a file is written, so that it is written once."""


async def sealed(context: ContextSource) -> Sealed:
    """The file of a context, shared where the text is long. Raises OSError."""
    if len(context.text) < LAZY_CHARS:
        return Sealed(context)
    return await asyncio.to_thread(_shared, context)


def _shared(context: ContextSource) -> Sealed:
    with _lock:
        found = _known.get(id(context.text))
        if found is None or not found.holds(context):
            found = _known[id(context.text)] = Sealed(context)
        return found


def _written(fd: int, text: str) -> int:
    """Write a text in the narrowest layout; the bytes that a character takes."""
    for width, codec in CODECS.items():
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        if _fits(fd, text, width, codec):
            return width
    raise AssertionError("UTF-32 holds every text")


def _fits(fd: int, text: str, width: int, codec: str) -> bool:
    # Two surrogates side by side would be read as one character of UTF-16: UTF-32 keeps them.
    errors = "surrogatepass" if width == 4 else "strict"
    for start in range(0, len(text), _PIECE_CHARS):
        piece = text[start : start + _PIECE_CHARS]
        try:
            data = piece.encode(codec, errors)
        except UnicodeEncodeError:
            return False
        if len(data) != len(piece) * width:
            return False
        _write(fd, data)
    return True


def _write(fd: int, data: bytes) -> None:
    with memoryview(data) as view:
        sent = 0
        while sent < len(data):
            sent += os.write(fd, view[sent:])


def _for_reading(fd: int) -> int:
    """The same file for reading only; where there is no /proc, as it is: it is sealed."""
    try:
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return fd
    os.close(fd)
    return reading
