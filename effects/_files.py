"""Files read as texts: what `Context.from_files` and `Context.from_dir` do with paths.

1. Files are read as bytes and decoded without touching line ends, so that offsets are those of
   the file's own characters. Only a UTF-8 byte order mark is dropped.
2. All that is wrong with any of the files is told in one `UsageError`.
3. A file that the caller named must hold text. In a folder, files that don't are passed over and
   listed; a file or folder there that can't be read is wrong all the same, since what it holds
   may have been meant.
4. The order depends on names alone. Hidden entries of folders are left out, links to folders
   aren't followed (they can form circles), and a file that is met twice is read once.
"""

import codecs
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISDIR

from rlm_fsm.errors import UsageError

_SAMPLE_BYTES = 8192
"""How far a file is searched for the NUL byte that tells binary files (git looks at 8,000)."""


@dataclass(slots=True)
class Reading:
    """Texts of files with their names, and what became of the other files."""

    encoding: str
    """As Python names it; `UsageError` for an unknown one."""
    names: list[str] = field(default_factory=list[str])
    texts: list[str] = field(default_factory=list[str])
    """One for each name."""
    paths: list[str] = field(default_factory=list[str])
    """Where each was read, absolute: how it is found again."""
    problems: list[str] = field(default_factory=list[str])
    """What `check` raises, as ``path: reason``."""
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Files of folders that hold no text, as (name, reason)."""
    _seen: set[str] = field(default_factory=set[str])
    _badly_encoded: bool = False

    def __post_init__(self) -> None:
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError):
            raise UsageError(
                f"encoding={self.encoding!r} is no text encoding of Python; "
                'try "utf-8" or "latin-1"'
            ) from None

    def read_files(self, pattern: str | Path) -> None:
        """Read a file, or those that a glob matches, sorted. An existing name is no glob."""
        name = os.fspath(pattern)
        if os.path.lexists(name) or not glob.has_magic(name):
            self._read(Path(name), Path(name).as_posix())
            return
        found = sorted(Path(match) for match in glob.glob(name, recursive=True))
        files = [path for path in found if not os.path.isdir(path)]
        if not files:
            self.problems.append(f"{name}: no file matches this pattern")
        for path in files:
            self._read(path, path.as_posix())

    def read_folder(self, folder: Path, pattern: str, prefix: str = "") -> None:
        """Read the files of a folder whose path within it matches `pattern`."""
        wanted = tuple(part for part in pattern.split("/") if part not in ("", "."))
        for path in _walk(folder, self.problems):
            inside = path.relative_to(folder)
            if _matches(inside.parts, wanted):
                self._read(path, prefix + inside.as_posix(), lenient=True)

    def check(self) -> None:
        """Raise one `UsageError` for all that is wrong, or if nothing was read."""
        if self.problems:
            raise UsageError(self._complaint())
        if not self.texts:
            raise UsageError(self._nothing())

    def _read(self, path: Path, name: str, *, lenient: bool = False) -> None:
        """Read a file once. A lenient reading passes over what holds no text."""
        try:
            real = os.path.realpath(path)
            if real in self._seen:
                return
            self._seen.add(real)
            # Opening a pipe would wait for a writer; a pipe that the caller named is meant.
            if lenient and not path.is_file():
                self.skipped.append((name, "not a regular file"))
                return
            self.texts.append(_decoded(path.read_bytes(), self.encoding))
            self.names.append(name)
            self.paths.append(os.path.abspath(path))
        except (_NoText, UnicodeError) as error:
            self._badly_encoded |= isinstance(error, UnicodeError)
            self._no_text(name, _reason(error, self.encoding), lenient)
        except FileNotFoundError:
            self.problems.append(f"{name}: not found")
        except IsADirectoryError:
            self.problems.append(f"{name}: a folder; Context.from_dir reads folders")
        except (OSError, ValueError) as error:
            self.problems.append(f"{name}: {_os_reason(error)}")

    def _no_text(self, name: str, reason: str, lenient: bool) -> None:
        if lenient:
            self.skipped.append((name, reason))
        else:
            self.problems.append(f"{name}: {reason}")

    def _complaint(self) -> str:
        count = len(self.problems)
        head = "1 path can't be read" if count == 1 else f"{count} paths can't be read"
        return "\n".join([f"{head} as a context:", *_indented(self.problems)]) + self._hint()

    def _nothing(self) -> str:
        if not self.skipped:
            return "no files to read: nothing matches, hidden files and folders left out"
        lines = _indented([f"{name}: {reason}" for name, reason in self.skipped[:20]])
        if len(self.skipped) > len(lines):
            lines.append(f"  ... and {len(self.skipped) - len(lines)} more")
        return "\n".join(["no file with text to read; passed over:", *lines]) + self._hint()

    def _hint(self) -> str:
        if not self._badly_encoded:
            return ""
        return (
            '\nFor files in another encoding pass it, such as encoding="latin-1", "cp1252" or '
            '"utf-16", to Context.from_files or Context.from_dir.'
        )


class _NoText(Exception):
    """The bytes of a file are no text; says why."""


def _decoded(data: bytes, encoding: str) -> str:
    # In encodings such as UTF-16 NUL bytes are ordinary.
    if b"\0" in data[:_SAMPLE_BYTES] and b"\0" not in "a".encode(encoding):
        raise _NoText("a binary file (it has NUL bytes)")
    start = len(codecs.BOM_UTF8) if _is_utf8(encoding) and data.startswith(codecs.BOM_UTF8) else 0
    return str(memoryview(data)[start:], encoding)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _reason(error: Exception, encoding: str) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not {encoding} (byte {error.start}: {error.reason})"
    return str(error)


def _os_reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _walk(folder: Path, problems: list[str]) -> Iterator[Path]:
    """The files below a folder, sorted by path, hidden ones left out."""
    try:
        if not S_ISDIR(folder.stat().st_mode):
            problems.append(f"{folder}: not a folder; Context.from_files reads files")
            return
    except (OSError, ValueError) as error:
        problems.append(f"{folder}: {_os_reason(error)}")
        return
    found = list[Path]()
    # `os.walk` passes unreadable folders over in silence unless it is given `onerror`.
    for parent, folders, files in os.walk(
        folder, onerror=lambda error: problems.append(f"{error.filename}: {_os_reason(error)}")
    ):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    yield from sorted(found)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
