"""`FileCache`: replies in a folder, a JSON file each, shared by any number of processes.

1. An entry appears whole or not at all: it is written beside its place and renamed. Of two
   writers of one entry the later wins; a reader sees the one or the other.
2. Nothing is flushed to the disk for an entry: a power cut may damage the newest ones, and a
   damaged entry is a miss (see `entries`), which the next reply replaces.
3. The folder stays within `max_bytes`, or little above: when it is full, the entries that were
   read or written the longest ago are deleted. Each process looks when it begins to write, and
   again whenever it has written a sixteenth of what is allowed.
4. Any file may be deleted at any time, by anybody.
"""

import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from effects.caches import entries
from effects.caches.base import CachedReply, CacheRequest
from rlm_fsm.errors import UsageError

MAX_BYTES = 1 << 30
"""A gibibyte: some half a million short replies."""
_LARGEST_BYTES = 64 << 20
"""Larger files are no entries: no reply of a model comes near."""
_LOOK_AGAIN = 16
"""The part of `max_bytes` that is written between two looks at the folder."""
_KEPT = 0.9
"""The part of `max_bytes` that stays when the folder is full, so that it isn't full again soon."""
_STALE_S = 3_600.0
"""Age of a file that a writer left behind when it was killed; a living one takes milliseconds."""
_SUFFIX, _TEMPORARY = ".json", ".tmp"


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size_bytes: int
    used_at: float
    """When it was last read or written, in seconds since 1970."""


class FileCache:
    """A `Cache` in a folder: ``FileCache("cache")``.

    The folder is made when it is missing, for its owner only. Raises `UsageError` when nothing can
    be written there. `max_bytes` bounds what it holds; None: no bound.
    """

    def __init__(self, root: str | os.PathLike[str], *, max_bytes: int | None = MAX_BYTES) -> None:
        given = os.fspath(root)
        if not given:
            raise UsageError("FileCache(root=''): give a folder")
        is_number = isinstance(max_bytes, int) and not isinstance(max_bytes, bool)
        if max_bytes is not None and (not is_number or max_bytes < 1):
            raise UsageError(f"FileCache(max_bytes={max_bytes!r}): give 1 or more, or None")
        self.max_bytes = max_bytes
        self.root = Path(os.path.abspath(os.path.expanduser(given)))
        self._lock = threading.Lock()
        self._unlooked_bytes: int | None = None
        """Written since the folder was last looked at; None: it never was."""
        self._check_writable()

    def __repr__(self) -> str:
        return f"FileCache({os.fspath(self.root)!r}, max_bytes={self.max_bytes})"

    def get(self, key: str) -> CachedReply | None:
        """The reply under a key; see `Cache.get`. Using an entry keeps it from being pruned."""
        path = self._path(key)
        data = _read(path)
        reply = None if data is None else entries.read(key, data)
        if reply is not None:
            with suppress(OSError):
                os.utime(path)
        return reply

    def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        """Keep a reply; see `Cache.put`. Raises `OSError` when the disk is full, say."""
        path, data = self._path(key), entries.written(key, reply, request)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, data)
        self._wrote(len(data))

    def prune(self, *, max_bytes: int | None = None, max_age_s: float | None = None) -> int:
        """Delete entries until no more than `max_bytes` are left, the longest unused first, and
        those not used for `max_age_s` seconds. Returns how many were deleted."""
        found = sorted(self._files(), key=lambda file: file.used_at)
        total = sum(file.size_bytes for file in found)
        oldest = None if max_age_s is None else time.time() - max_age_s
        deleted = 0
        for file in found:
            is_old = oldest is not None and file.used_at < oldest
            if is_old or (max_bytes is not None and total > max_bytes):
                with suppress(OSError):
                    os.unlink(file.path)
                    deleted += 1
                total -= file.size_bytes
        return deleted

    def clear(self) -> int:
        """Delete all entries. Returns how many there were."""
        return self.prune(max_bytes=0)

    def __len__(self) -> int:
        """How many entries there are; the folder is counted."""
        return sum(1 for _ in self._files())

    def size_bytes(self) -> int:
        """Bytes of all entries; the folder is counted."""
        return sum(file.size_bytes for file in self._files())

    def _path(self, key: str) -> Path:
        """Where an entry is. In 256 folders: large ones are slow on some systems."""
        if len(key) != 64 or not key.isalnum():
            raise UsageError(f"{key!r} is no key: 64 hex digits are")
        return self.root / key[:2] / f"{key}{_SUFFIX}"

    def _check_writable(self) -> None:
        probe = self.root / f".{_unique()}"
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"FileCache: nothing can be written to {self.root}: {error.strerror or error}. "
                "Give a folder of your own, or leave the cache out."
            ) from error

    def _wrote(self, size_bytes: int) -> None:
        """Count what was written; look at the folder when it is time."""
        most = self.max_bytes
        if most is None:
            return
        with self._lock:
            if self._unlooked_bytes is not None:
                self._unlooked_bytes += size_bytes
                if self._unlooked_bytes * _LOOK_AGAIN < most:
                    return
            self._unlooked_bytes = 0
        if self.size_bytes() > most:
            self.prune(max_bytes=int(most * _KEPT))

    def _files(self) -> Iterator[_File]:
        """The entries, in no order. What writers left behind is deleted."""
        for folder in _folders(self.root):
            for item in _scan(folder):
                try:
                    found = item.stat(follow_symlinks=False)
                except OSError:
                    continue  # deleted meanwhile
                if item.name.endswith(_SUFFIX) and stat.S_ISREG(found.st_mode):
                    yield _File(item.path, found.st_size, found.st_mtime)
                elif item.name.endswith(_TEMPORARY) and found.st_mtime < time.time() - _STALE_S:
                    with suppress(OSError):
                        os.unlink(item.path)


def _folders(root: Path) -> list[str]:
    """The folders that entries are in: two hex digits, and nothing else is looked at."""
    return [
        item.path
        for item in _scan(os.fspath(root))
        if len(item.name) == 2 and item.name.isalnum() and item.is_dir(follow_symlinks=False)
    ]


def _scan(folder: str) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _read(path: Path) -> bytes | None:
    """The bytes of a file; None when there is none, or when it can't be an entry.

    Without waiting: opening a pipe would wait for its writer.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_BYTES:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(_LARGEST_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    """Put a file in its place as a whole."""
    temporary = path.with_name(f".{_unique()}{_TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _unique() -> str:
    return f"{os.getpid()}-{threading.get_ident()}-{secrets.token_hex(4)}"
