"""What a cell prints: stdout and stderr in one bounded text, in their order.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

The head of the output is kept and the rest is counted, so that an endless loop of prints takes
no memory. The streams stay the same objects for the whole session: code that keeps a reference
(logging does) goes on printing into whatever cell runs.
"""

import io
from _thread import RLock
from typing import Any


class Sink:
    """Keeps the first `limit` characters that were written since the last `take`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = io.StringIO()
        self._kept_chars = 0
        self._chars = 0
        # Re-entrant: a signal handler may print while its thread is in here.
        self._lock = RLock()

    def write(self, text: str) -> None:
        """Add a text; safe from several threads."""
        with self._lock:
            self._chars += len(text)
            room = self._limit - self._kept_chars
            if room > 0:
                self._kept_chars += self._kept.write(text if len(text) <= room else text[:room])

    def take(self) -> tuple[str, int]:
        """The kept text and the number of characters written in all; starts anew."""
        with self._lock:
            if not self._chars:
                return "", 0
            # A time limit may have struck between two lines of `write`.
            text = self._kept.getvalue()[: self._limit]
            chars = max(self._chars, len(text))
            self._kept, self._kept_chars, self._chars = io.StringIO(), 0, 0
            return text, chars


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of model-written code."""

    encoding = "utf-8"
    errors = "backslashreplace"
    mode = "w"

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self.name = name
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str, /) -> int:
        """Add to the cell's output."""
        given: Any = text
        if not isinstance(given, str):
            raise TypeError(f"write() argument must be str, not {type(given).__name__}")
        self._sink.write(text)
        return len(text)

    def close(self) -> None:
        """Stays open: the next cell prints too."""


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes, shown as the UTF-8 that they most likely are."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        self._stream.write(content.decode("utf-8", "backslashreplace"))
        return len(content)

    def close(self) -> None:
        """Stays open, as its stream does."""
