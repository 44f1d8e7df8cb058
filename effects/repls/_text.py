"""The context as model-written code sees it: a text, and the spans of its documents.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.

1. Offsets are characters (code points), half-open, and index the one text there is.
   Documents are spans over it, so nothing is held twice.
2. All is read-only, and every answer depends on text, spans and names alone.
   So none of these calls needs to be recorded.
3. Wrong arguments are a `TypeError` or `ValueError` that says what was expected: code that reads
   an empty list would take it for an answer.
4. A case-insensitive search runs on the text as it is. Searching a lower-cased copy would move
   offsets, since lower-casing can change a length (``"İ".lower()`` has two characters).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

METHODS: tuple[str, ...] = (
    "len_chars",
    "num_documents",
    "get_document",
    "document_lengths",
    "slice",
    "find",
    "chunk",
    "chunk_documents",
    "page",
    "metadata",
    "peek",
    "tail",
    "extract_after",
)
"""Names of the methods of `TextView` that code may call."""

_Slice = slice  # inside the class the name is its method's
_PAGE_START = re.compile(r"<!-- Page \d+")
_PAGE_CHARS = 64
"""What is looked at of a marker at first."""
_AROUND_WORDS = " \t\r\n.,;:!?\"'`*()[]{}<>|«»„“”‘’…。、，；：！？（）「」『』【】"
"""What is cut from both ends of a word; signs such as ``$ - + #`` belong to it and stay."""


class Long(Protocol):
    """A text that is no `str`, see `_mapped.MappedText`. It is asked like one."""

    def whole(self) -> str: ...
    def find(self, piece: str, start: int = 0, /) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> str: ...
    def __contains__(self, piece: str, /) -> bool: ...


class TextView:
    """The `ctx` of model-written code: a text and the spans of its documents, read-only."""

    __slots__ = ("_kind", "_names", "_spans", "_text")

    def __init__(
        self,
        text: str | Long,
        spans: Sequence[tuple[int, int]] | None = None,
        kind: str = "string",
        names: Sequence[str] | None = None,
    ) -> None:
        """`spans` are half-open character offsets; without them the text is one document.

        `kind` is ``string`` or ``document_list``; `names` has one entry per document.
        """
        self._text = text
        self._spans = ((0, len(text)),) if spans is None else _checked(spans, len(text))
        self._kind = kind
        self._names = None if names is None else tuple(names)
        if self._names is not None and len(self._names) != len(self._spans):
            raise ValueError(f"{len(self._names)} names for {len(self._spans)} documents")

    @property
    def text(self) -> str:
        """The whole text, separators included: what code knows as `P`."""
        return self._text if isinstance(self._text, str) else self._text.whole()

    @property
    def is_lazy(self) -> bool:
        """Whether `text` must be made first, which takes time and memory."""
        return not isinstance(self._text, str)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where each document stands in the text."""
        return self._spans

    @property
    def kind(self) -> str:
        """``string`` or ``document_list``."""
        return self._kind

    @property
    def names(self) -> tuple[str, ...] | None:
        """A name per document, or None when they have none."""
        return self._names

    def len_chars(self) -> int:
        """Length of the whole text in characters."""
        return len(self._text)

    def num_documents(self) -> int:
        """Number of documents; 1 for a plain text."""
        return len(self._spans)

    def get_document(self, i: int) -> str | None:
        """The document with index `i`, counted from 0; None when there is none."""
        if not 0 <= _whole("i", i) < len(self._spans):
            return None
        start, end = self._spans[i]
        return self._text[start:end]

    def document_lengths(self) -> list[int]:
        """Characters of each document."""
        return [end - start for start, end in self._spans]

    def slice(self, start: int = 0, end: int | None = None) -> str:
        """The characters from `start` up to `end`, both brought into the text's bounds."""
        end = len(self._text) if end is None else _whole("end", end)
        return self._text[max(0, _whole("start", start)) : max(0, end)]

    def find(
        self,
        pattern: str | re.Pattern[str],
        regex: bool = False,
        *,
        max_matches: int | None = 20,
        case_sensitive: bool = True,
        flags: int | None = None,
    ) -> list[tuple[int, int, str]]:
        """The first matches that don't overlap, in order, as (start, end, text found).

        The pattern is a literal text, or a regular expression with ``regex=True`` or with
        `flags` (those of `re`); or one that is compiled, to whose own flags these are added.
        `max_matches` None means all. An empty pattern finds nothing.
        """
        if max_matches is not None and _whole("max_matches", max_matches) <= 0:
            return []
        wanted = (flags or 0) | (0 if case_sensitive else re.IGNORECASE)
        if isinstance(pattern, re.Pattern):
            if wanted:
                pattern = _compiled(pattern.pattern, pattern.flags | wanted)
            return _matches(pattern, self.text, max_matches)
        if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"pattern must be a text (str), not {type(pattern).__name__}")
        if not pattern:
            return []
        if not regex and flags is None and case_sensitive:
            return _occurrences(pattern, self._text, max_matches)
        as_regex = regex or flags is not None
        compiled = _compiled(pattern if as_regex else re.escape(pattern), wanted)
        return _matches(compiled, self.text, max_matches)

    def chunk(self, size: int, overlap: int = 0) -> list[tuple[int, int, str]]:
        """The whole text in pieces of `size` characters as (start, end, piece).

        Each piece begins `overlap` characters before the end of the one before it.
        """
        if _whole("size", size) < 1:
            raise ValueError(f"size must be 1 or more, not {size}")
        if not 0 <= _whole("overlap", overlap) < size:
            raise ValueError(f"overlap must be 0 or more and below size ({size}), not {overlap}")
        text, pieces = self._text, list[tuple[int, int, str]]()
        for start in range(0, max(len(text) - overlap, min(len(text), 1)), size - overlap):
            end = min(start + size, len(text))
            pieces.append((start, end, text[start:end]))
        return pieces

    def chunk_documents(self, docs_per_chunk: int = 10) -> list[tuple[int, int, list[str]]]:
        """The documents in groups as (first index, index after the last, texts)."""
        if _whole("docs_per_chunk", docs_per_chunk) < 1:
            raise ValueError(f"docs_per_chunk must be 1 or more, not {docs_per_chunk}")
        groups = list[tuple[int, int, list[str]]]()
        for i in range(0, len(self._spans), docs_per_chunk):
            spans = self._spans[i : i + docs_per_chunk]
            groups.append((i, i + len(spans), [self._text[start:end] for start, end in spans]))
        return groups

    def page(self, n: int) -> str | None:
        """The text between the marker ``<!-- Page n -->`` and the next marker or the end.

        None when no such marker is there.
        """
        marker = f"<!-- Page {_whole('n', n)} -->"
        at = self._text.find(marker)
        if at < 0:
            return None
        start = at + len(marker)
        return self._text[start : _next_page(self._text, start)]

    def metadata(self) -> dict[str, Any]:
        """The shape of the context: ``context_type``, ``total_length``, ``num_documents``.

        For lists of documents also ``document_names``, where they have names, and
        ``document_lengths``.
        """
        facts: dict[str, Any] = {
            "context_type": self._kind,
            "total_length": len(self._text),
            "num_documents": len(self._spans),
        }
        if self._names is not None:
            facts["document_names"] = list(self._names)
        if self._kind == "document_list":
            facts["document_lengths"] = self.document_lengths()
        return facts

    def peek(self, n: int = 2000) -> str:
        """The first `n` characters."""
        return peek(self._text, n)

    def tail(self, n: int = 2000) -> str:
        """The last `n` characters."""
        return tail(self._text, n)

    def extract_after(self, marker: str, max_len: int = 128, until: str = "token") -> str | None:
        """See the function of the same name."""
        return extract_after(self._text, marker, max_len, until)

    def __len__(self) -> int:
        return len(self._text)

    def __iter__(self) -> Iterator[str]:
        """The documents, one after the other."""
        return (self._text[start:end] for start, end in self._spans)

    def __getitem__(self, key: _Slice) -> str:
        """``ctx[a:b]``: a piece of the text."""
        if not isinstance(key, _Slice):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                "ctx[...] takes a slice such as ctx[0:100]; "
                "ctx.get_document(i) gives a document, P[i] a character"
            )
        return self._text[key]

    def __contains__(self, piece: object) -> bool:
        return isinstance(piece, str) and piece in self._text

    def __repr__(self) -> str:
        """A summary, never the text."""
        count = len(self._spans)
        documents = "1 document" if count == 1 else f"{count:,} documents"
        return f"<ctx: {len(self._text):,} characters in {documents}>"


def peek(text: str | Long, n: int = 2000) -> str:
    """The first `n` characters of a text; nothing for 0 and below."""
    return text[: max(0, _whole("n", n))]


def tail(text: str | Long, n: int = 2000) -> str:
    """The last `n` characters of a text; nothing for 0 and below."""
    return text[max(0, len(text) - _whole("n", n)) :] if _whole("n", n) > 0 else ""


def extract_after(
    text: str | Long, marker: str, max_len: int = 128, until: str = "token"
) -> str | None:
    """What stands within `max_len` characters after the first occurrence of `marker`.

    ``until="token"``: the first word, without the punctuation around it.
    ``until="line"``: the rest of the line, without the blanks around it.
    None when the marker isn't in the text or nothing stands there.
    """
    if not isinstance(marker, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"marker must be a text (str), not {type(marker).__name__}")
    if until not in ("token", "line"):
        raise ValueError(f"until must be 'token' or 'line', not {until!r}")
    length = max(0, _whole("max_len", max_len))
    at = text.find(marker) if marker else -1
    if at < 0:
        return None
    start = at + len(marker)
    following = text[start : start + length]
    if until == "line":
        return following.partition("\n")[0].strip() or None
    words = [word for token in following.split() if (word := token.strip(_AROUND_WORDS))]
    # A lone sign such as "->" or "=" is passed over when a word follows it.
    return next((word for word in words if any(map(str.isalnum, word))), None) or next(
        iter(words), None
    )


def _next_page(text: str | Long, start: int) -> int:
    """Where the next page marker begins, or the text's end."""
    while (at := text.find("<!-- Page ", start)) >= 0:
        if _is_page_marker(text, at):
            return at
        start = at + 1
    return len(text)


def _is_page_marker(text: str | Long, at: int) -> bool:
    size = _PAGE_CHARS
    while found := _PAGE_START.match(piece := text[at : at + size]):
        if found.end() + len(" -->") <= len(piece) or len(piece) < size:
            return piece.startswith(" -->", found.end())
        size *= 4
    return False


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number (int), not {type(value).__name__}")
    return value


def _checked(spans: Sequence[tuple[int, int]], length: int) -> tuple[tuple[int, int], ...]:
    checked = tuple([(start, end) for start, end in spans])
    for start, end in checked:
        if not 0 <= start <= end <= length:
            raise ValueError(f"span ({start}, {end}) doesn't lie in a text of {length} characters")
    return checked


def _occurrences(pattern: str, text: str | Long, most: int | None) -> list[tuple[int, int, str]]:
    found, end = list[tuple[int, int, str]](), 0
    while most is None or len(found) < most:
        at = text.find(pattern, end)
        if at < 0:
            break
        end = at + len(pattern)
        found.append((at, end, pattern))
    return found


def _matches(pattern: re.Pattern[str], text: str, most: int | None) -> list[tuple[int, int, str]]:
    found = list[tuple[int, int, str]]()
    for match in pattern.finditer(text):
        found.append((match.start(), match.end(), match.group()))
        if most is not None and len(found) >= most:
            break
    return found


def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ValueError(
            f"pattern is no regular expression: {error}; regex=False searches for it as it is"
        ) from None
