"""What code may pass to the functions that ask sub-models, in every form that it has it in.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.

A wrong argument is a `TypeError` or `ValueError` that says what was expected.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

DEFAULT_CHUNK_CHARS = 50_000
"""Characters per piece where the code names no size.

About 12,000 tokens of English, some 50,000 of Chinese: fits the windows of small models too.
200 subcalls, the default limit of a run, cover 10 million characters.
"""


def in_order(question: object, chunks: object) -> tuple[str, object]:
    """A question and chunks, `put_right`; the question is a text."""
    question, chunks = put_right(question, chunks)
    return checked_question(question), chunks


def put_right(question: object, chunks: object) -> tuple[object, object]:
    """Take (chunks, question) for (question, chunks) where the types leave no doubt."""
    if isinstance(chunks, str) and question is not None and not isinstance(question, str):
        return chunks, question
    return question, chunks


def checked_question(question: object) -> str:
    """The question, if it is a text."""
    if not isinstance(question, str):
        raise TypeError(f"question, the first argument, must be a str, not {kind_of(question)}")
    return question


def pieces_of(chunks: object, chunk_size: object, overlap: object) -> list[str]:
    """The texts to ask about. ctx and a text are always cut, a list only with `chunk_size`."""
    shared = whole_number("overlap", overlap)
    whole = chunks if isinstance(chunks, str) else getattr(chunks, "text", None)
    texts = [whole] if isinstance(whole, str) else texts_of("chunks", chunks)
    if chunk_size is not None:
        size = whole_number("chunk_size", chunk_size)
    elif isinstance(whole, str):
        size = DEFAULT_CHUNK_CHARS
    elif shared:
        raise ValueError("overlap is for texts that are cut: give chunk_size too")
    else:
        return texts
    if not 0 <= shared < size:
        raise ValueError(
            f"chunk_size must be 1 or more and overlap from 0 to below it, not {size} and {shared}"
        )
    starts = [range(0, max(len(t) - shared, min(len(t), 1)), size - shared) for t in texts]
    return [t[i : i + size] for t, of_text in zip(texts, starts, strict=True) for i in of_text]


def texts_of(name: str, items: object) -> list[str]:
    """The texts of a list."""
    return [text_of(f"{name}[{i}]", item) for i, item in enumerate(items_of(name, items))]


def items_of(name: str, items: object) -> Iterable[object]:
    """The items of what should be a list."""
    kind = kind_of(items)
    if isinstance(items, Iterable) and not isinstance(items, str | bytes | Mapping):
        return cast(Iterable[object], items)
    raise TypeError(f"{name} must be a list of texts (str), not {kind}")


def text_of(name: str, item: object) -> str:
    """A text in the forms that code has it in: a str, ctx, (start, end, text) or (i, j, texts)."""
    if type(item) is str:
        return item
    kind, text = kind_of(item), getattr(item, "text", item)
    if isinstance(text, str):
        return text
    if isinstance(item, list | tuple):
        parts = cast(Sequence[object], item)
        if len(parts) == 3 and isinstance(parts[0], int) and isinstance(parts[1], int):
            return text_of(name, parts[2])
        if parts and all(isinstance(part, str) for part in parts):
            return "\n\n".join(map(str, parts))
    raise TypeError(f"{name} must be a text (str) or what ctx.chunk returns, not {kind}")


def kind_of(value: object) -> str:
    """The name of a value's type."""
    return type(value).__name__


def whole_number(name: str, value: object) -> int:
    """A whole number; True and False are none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be a whole number (int), not {kind_of(value)}")


def flag(name: str, value: object, default: bool) -> bool:
    """True, False, or the default for None."""
    if value is None or isinstance(value, bool):
        return default if value is None else value
    raise TypeError(f"{name} must be True, False or None, not {kind_of(value)}")
