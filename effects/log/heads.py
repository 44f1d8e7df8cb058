"""The head file: how long each run was, kept beside the database.

A lost tail of a log (a damaged write-ahead file, an older copy put back) looks like a shorter log:
nothing in the database says that there was more. So after each commit the run's last sequence
number and hash are written here too, in a file that shares no fate with the database's.

Rules:

1. It is written after the commit and never synced, so it may be behind the log: by a commit when
   the process was killed in between, by more after a power cut. It is never ahead of what was
   committed; a head that is ahead of the log means that the log has lost events.
2. A missing file, or a damaged line (each has a checksum), says nothing: a log is then judged by
   its hash chain alone. So a log may be copied without it.
3. One line per run, of a fixed length, at the place that the run's slot in the database gives.
   A new run gets a place that no line has, so that a line of a lost run stays.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_UN, flock
from typing import Final
from zlib import crc32

RUN_ID_CHARS: Final = 64
"""Longest run id that fits into a line."""
_LINE_BYTES: Final = RUN_ID_CHARS + 1 + 12 + 1 + 64 + 1 + 8 + 1


@dataclass(frozen=True, slots=True)
class Head:
    """How far a run got."""

    run_id: str
    seq: int
    hash: str


class HeadFile:
    """The head file of one log. `None` as path: a log in memory, which has none."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._file: int | None = None

    def write(self, slot: int, head: Head) -> None:
        """Note a run's head."""
        file = self._open(create=True)
        if file is not None:
            try:
                os.pwrite(file, _line(head), (slot - 1) * _LINE_BYTES)
            except OSError:
                pass  # A full disk, say. The events are committed; the head is only behind.

    def find(self, run_id: str) -> Head | None:
        """The head of a run, if it is known."""
        return next((head for head in self.beginning(run_id) if head.run_id == run_id), None)

    def beginning(self, prefix: str) -> list[Head]:
        """The readable lines of runs whose id begins with `prefix`.

        Only these are parsed: a log of many runs is asked about one of them again and again.
        """
        if not prefix.isascii():
            return []
        content, wanted = self._read(), prefix.encode()
        found: list[Head] = []
        at = content.find(wanted)
        while 0 <= at < len(content):
            head = None if at % _LINE_BYTES else _parse(content[at : at + _LINE_BYTES])
            if head is not None and head.run_id.startswith(prefix):
                found.append(head)
            at = content.find(wanted, at + 1)
        return found

    def all(self) -> list[Head]:
        """Every readable line."""
        content = self._read()
        lines = (content[i : i + _LINE_BYTES] for i in range(0, len(content), _LINE_BYTES))
        return [head for head in map(_parse, lines) if head is not None]

    def slots(self) -> int:
        """Number of lines, gaps included: a slot above it is free."""
        file = self._open(create=False)
        return 0 if file is None else -(-os.fstat(file).st_size // _LINE_BYTES)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes from setting up the same database at the same time."""
        file = self._open(create=True)
        if file is None:
            yield
            return
        flock(file, LOCK_EX)
        try:
            yield
        finally:
            flock(file, LOCK_UN)

    def close(self) -> None:
        """Release the file. Safe to call twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read(self) -> bytes:
        file = self._open(create=False)
        return b"" if file is None else os.pread(file, os.fstat(file).st_size, 0)

    def _open(self, *, create: bool) -> int | None:
        """The open file; None when there is none, or it can't be had."""
        if self._file is None and self.path is not None:
            access = os.O_RDWR if os.access(self.path, os.W_OK) or create else os.O_RDONLY
            flags = access | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            try:
                self._file = os.open(self.path, flags, 0o600)
            except OSError:
                return None
        return self._file


def _line(head: Head) -> bytes:
    text = f"{head.run_id:<{RUN_ID_CHARS}} {head.seq:>12} {head.hash} "
    return f"{text}{crc32(text.encode()):08x}\n".encode()


def _parse(line: bytes) -> Head | None:
    text, checksum = line[:-9], line[-9:]
    if len(line) != _LINE_BYTES or checksum != b"%08x\n" % crc32(text):
        return None
    run_id, seq, digest = text.decode().split()
    return Head(run_id, int(seq), digest)
