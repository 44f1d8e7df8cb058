"""How much one function may ask for, counted before any prompt is made.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.

In one of the backends prompts are made in the host's process, where no limit of a session holds:
a line of code must not fill its memory.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.repls import _arguments
else:
    import _arguments

MAX_CALLS = 100_000
"""Most calls of one function: 500 times the subcalls that a run has by default."""
MAX_CHARS = 1 << 28
"""Most characters of their prompts together: a GiB where each takes four bytes."""
MOST = (1 << 53) - 1
"""The largest number that a forecast is asked with; larger ones are as good as this."""


def check(fn: str, calls: int, chars: int) -> None:
    """Raise `ValueError` for more than one function may ask for."""
    for count, most, what in ((calls, MAX_CALLS, "calls"), (chars, MAX_CHARS, "characters")):
        if count > most:
            raise ValueError(
                f"{fn}: {min(count, MOST):,} {what} are more than the {most:,} that may be asked "
                "at once: ask in smaller batches. Nothing was asked."
            )


def prompts(fn: str, form: str, texts: Sequence[str]) -> list[str]:
    """A prompt for each text, after the same words."""
    check(fn, len(texts), sum(map(len, texts)) + len(texts) * len(form))
    return [form + text for text in texts]


def pieces_of(fn: str, chunks: object, chunk_size: object, overlap: object) -> list[str]:
    """As in `_arguments`, unless it would be too many pieces."""
    text = chunks if isinstance(chunks, str) else getattr(chunks, "text", None)
    is_one = isinstance(text, str)
    texts = [text] if isinstance(text, str) else _arguments.texts_of("chunks", chunks)
    size = _arguments.DEFAULT_CHUNK_CHARS if is_one and chunk_size is None else chunk_size
    if isinstance(size, int) and isinstance(overlap, int) and 0 <= overlap < size:
        counts = [-(-max(len(one) - overlap, 1) // (size - overlap)) for one in texts]
        check(fn, sum(counts), sum(map(len, texts)) + overlap * (sum(counts) - len(counts)))
    return _arguments.pieces_of(text if is_one else texts, chunk_size, overlap)


def wider(text: str) -> int:
    """How many more bytes than characters a text has in UTF-8: tokens go by bytes."""
    return 0 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - len(text)


def digits(n: int) -> int:
    """How many digits the numbers from 1 to `n` have together."""
    return sum(n - 10**places + 1 for places in range(len(str(n))))
