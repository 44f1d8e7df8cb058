"""Contexts: the long texts that runs are asked about.

1. A context is immutable: one text in memory, and documents as spans over it.
   Its methods are those of `TextView`, which the REPLs know as `ctx`.
2. `digest` names a context by content: the log holds the digest, never the text.
3. How files become texts, and what is told of those that can't, is in `effects._files`.
"""

import os
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

from effects._files import Reading
from effects.repls._text import TextView
from rlm_fsm.errors import UsageError
from rlm_fsm.values import ContextInfo

SEPARATOR = "\n\n---\n\n"
"""Stands between documents."""

_DIGEST_STEP_CHARS = 1 << 20
"""Characters encoded at a time: a digest needs no second copy of the text."""
_ACCEPTED = (
    "a context is a Context, a str (the text itself), a list of str (documents), "
    "a pathlib.Path (a file or folder) or a list of them"
)


class Files(NamedTuple):
    """Where the documents of a context were read."""

    paths: tuple[str, ...]
    """Absolute, one for each document."""
    encoding: str


class Context:
    """A text or a list of documents. Make one with `from_text`, `from_documents`, `from_files`,
    `from_dir` or `of`."""

    __slots__ = ("_digest", "_files", "_skipped", "_source", "_view")

    def __init__(
        self,
        view: TextView,
        *,
        source: str = "text",
        skipped: Sequence[tuple[str, str]] = (),
        files: "Files | None" = None,
    ) -> None:
        """`source` is ``text`` or ``files``; `files` says where those were read."""
        self._view = view
        self._source = source
        self._skipped = tuple(skipped)
        self._digest = ""
        self._files = files

    @classmethod
    def from_text(cls, text: str) -> "Context":
        """One plain text. It isn't copied."""
        return cls(TextView(_a_str("Context.from_text", text)))

    @classmethod
    def from_documents(
        cls,
        docs: Sequence[str],
        *,
        separator: str = SEPARATOR,
        names: Sequence[str] | None = None,
    ) -> "Context":
        """Documents, put into one text with `separator` between them; `names` has one for each.

        Wrong types are a `TypeError`, another number of names a `UsageError`.
        """
        named = None if names is None else _all_str("names", names)
        texts = _all_str("docs", docs)
        if named is not None and len(named) != len(texts):
            raise UsageError(f"{len(named)} names for {len(texts)} documents: give one for each")
        return cls(_joined(texts, _a_str("separator", separator), named))

    @classmethod
    def from_files(
        cls,
        paths_or_globs: str | Path | Iterable[str | Path],
        *,
        encoding: str = "utf-8",
    ) -> "Context":
        """A document per file, named by its path as given.

        Files come in the order given, those of a glob (``docs/**/*.md``) sorted, each file once.
        A name that exists is a file, also when it looks like a glob. `UsageError` names every
        file that is missing, unreadable, a folder, binary or in another encoding.
        """
        reading = Reading(encoding)
        for pattern in _listed_paths(paths_or_globs):
            reading.read_files(pattern)
        return cls._of_reading(reading)

    @classmethod
    def from_dir(
        cls, path: str | Path, *, glob: str = "**/*", encoding: str = "utf-8"
    ) -> "Context":
        """A document per file of a folder, sorted by path, named by the path within the folder.

        `glob` chooses among the files; ``**`` stands for any number of folders. Hidden files and
        folders are left out, links to folders aren't followed. What holds no text in `encoding`
        is passed over, see `skipped`. `UsageError` when nothing is left, or for what can't be read.
        """
        reading = Reading(encoding)
        reading.read_folder(Path(path), glob)
        return cls._of_reading(reading)

    @classmethod
    def of(cls, value: object) -> "Context":
        """The context that a value stands for; `TypeError` for what isn't accepted.

        A `Context` itself, a str (always the text, never a path), a list of str (documents),
        a `pathlib.Path` (a file or a folder), or a list of them.
        """
        if isinstance(value, Context):
            return value
        if isinstance(value, str):
            return cls.from_text(value)
        if isinstance(value, Path):
            return cls.from_dir(value) if os.path.isdir(value) else cls.from_files(value)
        if not isinstance(value, list | tuple):
            raise TypeError(f"{_ACCEPTED}, not {_kind(value)}")
        items = cast(Sequence[object], value)
        if not items:
            raise UsageError("the list of documents or paths is empty: there is nothing to read")
        texts = [item for item in items if isinstance(item, str)]
        if len(texts) == len(items):
            return cls.from_documents(texts)
        paths = [item for item in items if isinstance(item, Path)]
        if len(paths) == len(items):
            return cls._of_paths(paths)
        kinds = ", ".join(sorted({_kind(item) for item in items}))
        raise TypeError(f"{_ACCEPTED}; this list holds {kinds}")

    @classmethod
    def _of_paths(cls, paths: Sequence[Path]) -> "Context":
        reading = Reading("utf-8")
        for path in paths:
            if os.path.isdir(path):
                reading.read_folder(path, "**/*", prefix=path.as_posix() + "/")
            else:
                reading.read_files(path)
        return cls._of_reading(reading)

    @classmethod
    def _of_reading(cls, reading: Reading) -> "Context":
        reading.check()
        view = _joined(reading.texts, SEPARATOR, reading.names)
        files = Files(tuple(reading.paths), reading.encoding)
        return cls(view, source="files", skipped=reading.skipped, files=files)

    @classmethod
    def reopened(cls, files: "Files", names: Sequence[str]) -> "Context":
        """A context of files read again, under the names that they had.

        `UsageError` names what is missing or unreadable. Whether the texts are what they were is
        for the caller to see, by `digest`.
        """
        reading = Reading(files.encoding)
        for path in files.paths:
            reading.read_files(Path(path))
        reading.check()
        view = _joined(reading.texts, SEPARATOR, names)
        return cls(view, source="files", files=files)

    @property
    def view(self) -> TextView:
        """What model-written code knows as `ctx`."""
        return self._view

    @property
    def text(self) -> str:
        """The whole text, separators included."""
        return self._view.text

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where each document stands in the text: half-open character offsets."""
        return self._view.spans

    @property
    def kind(self) -> str:
        """``string`` or ``document_list``."""
        return self._view.kind

    @property
    def names(self) -> tuple[str, ...] | None:
        """A name per document (of files: their paths), or None."""
        return self._view.names

    @property
    def files(self) -> "Files | None":
        """Where its documents were read, for a context of files."""
        return self._files

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Files of folders that were passed over, as (path, reason)."""
        return self._skipped

    def len_chars(self) -> int:
        """Length of the whole text in characters."""
        return self._view.len_chars()

    def num_documents(self) -> int:
        """Number of documents; 1 for a plain text."""
        return self._view.num_documents()

    def get_document(self, i: int) -> str | None:
        """The document with index `i`, counted from 0; None when there is none."""
        return self._view.get_document(i)

    def document_lengths(self) -> list[int]:
        """Characters of each document."""
        return self._view.document_lengths()

    def slice(self, start: int = 0, end: int | None = None) -> str:
        """The characters from `start` up to `end`, both brought into the text's bounds."""
        return self._view.slice(start, end)

    def find(
        self,
        pattern: str | re.Pattern[str],
        regex: bool = False,
        *,
        max_matches: int | None = 20,
        case_sensitive: bool = True,
        flags: int | None = None,
    ) -> list[tuple[int, int, str]]:
        """The first matches, in order, as (start, end, text found); see `TextView.find`."""
        return self._view.find(
            pattern, regex, max_matches=max_matches, case_sensitive=case_sensitive, flags=flags
        )

    def chunk(self, size: int, overlap: int = 0) -> list[tuple[int, int, str]]:
        """The whole text in pieces of `size` characters as (start, end, piece)."""
        return self._view.chunk(size, overlap)

    def chunk_documents(self, docs_per_chunk: int = 10) -> list[tuple[int, int, list[str]]]:
        """The documents in groups as (first index, index after the last, texts)."""
        return self._view.chunk_documents(docs_per_chunk)

    def page(self, n: int) -> str | None:
        """The text between the marker ``<!-- Page n -->`` and the next one, or None."""
        return self._view.page(n)

    def metadata(self) -> dict[str, Any]:
        """The shape of the context as plain data, see `TextView.metadata`."""
        return self._view.metadata()

    def digest(self) -> str:
        """SHA-256, 64 hex digits, over text, document boundaries and names; computed once."""
        if not self._digest:
            self._digest = _digest(self._view)
        return self._digest

    def info(self) -> ContextInfo:
        """What the core is told of this context."""
        spans = self.spans
        shown = spans if len(spans) <= 10 else spans[:5] + spans[-5:]
        return ContextInfo(
            kind=self.kind,
            chars=self.len_chars(),
            documents=len(spans),
            lengths=tuple([end - start for start, end in shown]),
            digest=self.digest(),
            source=self._source,
        )

    def __repr__(self) -> str:
        return repr(self._view).replace("<ctx", "<Context", 1)


def _joined(texts: Sequence[str], separator: str, names: Sequence[str] | None) -> TextView:
    spans, start = list[tuple[int, int]](), 0
    for text in texts:
        spans.append((start, start + len(text)))
        start += len(text) + len(separator)
    return TextView(separator.join(texts), spans, "document_list", names)


def _digest(view: TextView) -> str:
    # Each part is preceded by its length, so that different parts can't run together.
    names = "-" if view.names is None else "".join(f"{len(name)}:{name}" for name in view.names)
    spans = ",".join([f"{start}-{end}" for start, end in view.spans])
    hashed = sha256(b"rlm-fsm context 1\n")
    for part in (view.kind, spans, names, view.text):
        hashed.update(f"{len(part)}:".encode())
        for at in range(0, len(part), _DIGEST_STEP_CHARS):
            piece = part[at : at + _DIGEST_STEP_CHARS]
            hashed.update(piece.encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()


def _listed_paths(paths: str | Path | Iterable[str | Path]) -> list[str | Path]:
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    for path in listed:
        if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Context.from_files takes paths (str or Path), not {_kind(path)}")
    if not listed:
        raise UsageError("Context.from_files was given no paths")
    return listed


def _a_str(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} takes a text (str), not {_kind(value)}")
    return value


def _all_str(name: str, values: object) -> list[str]:
    kind = _kind(values)
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of texts (str), not {kind}")
    texts = list(cast(Iterable[object], values))
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}] must be a text (str), not {_kind(text)}")
    return cast(list[str], texts)


def _kind(value: object) -> str:
    return type(value).__name__
