"""A long text that is mapped into memory rather than held as a `str`.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

1. Each character takes the same number of bytes, the fewest that do for all: 1 (Latin-1),
   2 (UTF-16, no surrogates) or 4 (UTF-32). So an offset in characters is one in bytes, times
   that number, and no index is needed.
2. The pages are the host's, shared by all sessions over one context. What a session looks at, it
   pays for: a slice is decoded, a search goes through the text window by window.
3. `whole` makes the `str`, once: for `P`, and for what needs all of it at once (patterns).
"""

from collections.abc import Callable

CODECS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
"""The codec for each number of bytes that a character takes."""
LAZY_CHARS = 1 << 20
"""From this length on a text is mapped. Shorter ones are a `str` at once: that takes no time."""
WINDOW_CHARS = 1 << 20
"""What is decoded at once to be searched: it stays in the processor's cache."""
_SPARE_BYTES = 1 << 20
_PEAK = {1: 1, 2: 3, 4: 6}
"""Bytes per character while a `str` is made: Python widens it as wider characters come."""


def decoded(data: "memoryview | bytes", width: int) -> str:
    """Bytes of the layout above as a text."""
    return str(data, CODECS[width], "surrogatepass")


def room_bytes(chars: int, width: int) -> int:
    """Address space that making a `str` of a mapped text takes, at most."""
    return chars * _PEAK[width] + _SPARE_BYTES if chars >= LAZY_CHARS else 0


def _made(make: Callable[[], str]) -> str:
    return make()


class MappedText:
    """What `_text.TextView` needs of a text, without holding it. Offsets are characters."""

    def __init__(
        self,
        data: memoryview,
        width: int,
        with_room: Callable[[Callable[[], str]], str] = _made,
    ) -> None:
        """`data` has `width` bytes for each character. `with_room` calls what makes the whole
        text, and may see to it that there is memory for it."""
        self._data = data
        self._width = width
        self._chars = len(data) // width
        self._with_room = with_room
        self._whole: str | None = None
        self._window = (0, 0, 0, "")
        """The last one that was searched: where it begins, its step, how far it goes beyond."""

    @property
    def is_made(self) -> bool:
        """Whether the whole text was made already."""
        return self._whole is not None

    def whole(self) -> str:
        """The text as a `str`, made the first time that it is asked for."""
        if self._whole is None:
            self._whole = self._with_room(lambda: decoded(self._data, self._width))
            self._window = (0, 0, 0, "")
        return self._whole

    def find(self, piece: str, start: int = 0, /) -> int:
        """Where `piece` stands first, from `start` on, which isn't negative; -1 for nowhere."""
        if self._whole is not None:
            return self._whole.find(piece, start)
        if not piece:
            return start if start <= self._chars else -1
        step, beyond = max(WINDOW_CHARS, len(piece)), len(piece) - 1
        while start < self._chars:
            begin = start - start % step
            at = self._searched(begin, step, beyond).find(piece, start - begin)
            if at >= 0:
                return begin + at
            start = begin + step
        return -1

    def __len__(self) -> int:
        return self._chars

    def __getitem__(self, key: slice, /) -> str:
        start, stop, step = key.indices(self._chars)
        if step < 0:
            return self._cut(stop + 1, start + 1)[::step]
        piece = self._cut(start, stop)
        return piece if step == 1 else piece[::step]

    def __contains__(self, piece: str, /) -> bool:
        return self.find(piece) >= 0

    def _cut(self, start: int, stop: int) -> str:
        if self._whole is not None:
            return self._whole[start : max(start, stop)]
        with self._data[start * self._width : max(start, stop) * self._width] as data:
            return decoded(data, self._width)

    def _searched(self, begin: int, step: int, beyond: int) -> str:
        if self._window[:3] != (begin, step, beyond):
            self._window = (begin, step, beyond, self._cut(begin, begin + step + beyond))
        return self._window[3]
