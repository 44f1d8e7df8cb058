"""Who leads a run, as the operating system knows it: a lock that dies with its process.

Rules:

1. One byte of the file ``<log>-locks`` is locked per run, at a place that a hash of the run's id
   gives, far behind the file's end. The locks are Linux's open-file-description locks: they belong
   to this object, not to the process, so two logs of one process exclude each other too, and
   closing another descriptor of the file drops nothing. The kernel frees them when the last
   descriptor is gone: at once after ``kill -9``.
2. The file is never deleted while logs are in use, so there is no moment in which two processes
   lock two different files. Nothing is left behind per run. Never the database itself: closing a
   second descriptor of it would drop the locks that SQLite holds.
3. Children don't keep a run: the descriptor is closed on exec, and in a forked child at once.
4. Where these locks are missing (macOS, some emulated kernels), each led run has a small file
   ``<log>-lock-<hash>`` with an `flock` on it, and the same rules but one: it is deleted when the
   run is released. Whoever gets a lock checks that its file is still the one in the directory.
5. The file also names the processes, for messages only: a line per run that may be overwritten.
"""

import errno
import fcntl
import os
import struct
from hashlib import sha256
from typing import Final, Protocol
from weakref import WeakSet

from effects.log.heads import RUN_ID_CHARS

_OFD_SETLK: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
_FLOCK: Final = "hhqqi0q"
"""``struct flock``: type, whence, start, length, pid. The last must be 0 for these locks."""
_FIRST_BYTE: Final = 1 << 40
"""Where the locked bytes begin: behind any line."""
_LINE_BYTES: Final = RUN_ID_CHARS + 1 + 10 + 1
_LINES: Final = 64
"""Room for names of processes: a file of 5 kB at most. Two runs that share a line only lose it."""
_BUSY = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_open: "WeakSet[RunLocks]" = WeakSet()


class _Way(Protocol):
    """How locks are taken."""

    def take(self, run_id: str) -> bool: ...

    def drop(self, run_id: str) -> None: ...

    def holder(self, run_id: str) -> int | None: ...

    def close(self) -> None: ...


class RunLocks:
    """The runs that one log object leads. `None` as path: a log in memory, which nobody shares."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._held: set[str] = set()
        self._way: _Way | None = None
        _open.add(self)

    def take(self, run_id: str) -> str | None:
        """Lock a run. None when that worked, else in words who has it. Never waits.

        Raises `OSError` when the file can't be made.
        """
        if run_id in self._held:
            return "this very log object"
        if self._path is not None and not self._take(self._path, run_id):
            assert self._way is not None
            holder = self._way.holder(run_id)
            self._tidy()
            if holder == os.getpid():
                return "another log object of this process"
            return "another process" if holder is None else f"process {holder}"
        self._held.add(run_id)
        return None

    def drop(self, run_id: str) -> None:
        """Free a run. Safe to call twice."""
        if run_id in self._held:
            self._held.remove(run_id)
            if self._way is not None:
                self._way.drop(run_id)
            self._tidy()

    def close(self) -> None:
        """Free all runs. Safe to call twice."""
        for run_id in self._held:
            if self._way is not None:
                self._way.drop(run_id)
        self.forget()

    def forget(self) -> None:
        """Close the files, without freeing what a parent process still leads through them."""
        self._held.clear()
        if self._way is not None:
            self._way.close()
            self._way = None

    def __del__(self) -> None:
        self.forget()  # A log that nobody closed keeps no run.

    def _tidy(self) -> None:
        if not self._held:
            self.forget()

    def _take(self, path: str, run_id: str) -> bool:
        if self._way is None:
            self._way = _FilePerRun(path) if _OFD_SETLK is None else _BytePerRun(path, _OFD_SETLK)
        try:
            return self._way.take(run_id)
        except OSError as error:
            is_unsupported = error.errno in _UNSUPPORTED and isinstance(self._way, _BytePerRun)
            self._tidy()
            if not is_unsupported:
                raise
        self._way = _FilePerRun(path)
        return self._way.take(run_id)


class _BytePerRun:
    """Rule 1."""

    def __init__(self, path: str, set_lock: int) -> None:
        self._set_lock = set_lock
        self._file = os.open(path + "-locks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, run_id: str) -> bool:
        try:
            self._set(fcntl.F_WRLCK, run_id)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        self._name(run_id, _line(run_id, str(os.getpid())))
        return True

    def drop(self, run_id: str) -> None:
        self._name(run_id, _line("", ""))
        self._set(fcntl.F_UNLCK, run_id)

    def holder(self, run_id: str) -> int | None:
        return _pid(os.pread(self._file, _LINE_BYTES, _place(run_id)), run_id)

    def close(self) -> None:
        os.close(self._file)

    def _set(self, kind: int, run_id: str) -> None:
        start = _FIRST_BYTE + int(_digest(run_id)[:14], 16)
        fcntl.fcntl(self._file, self._set_lock, struct.pack(_FLOCK, kind, os.SEEK_SET, start, 1, 0))

    def _name(self, run_id: str, line: bytes) -> None:
        try:
            os.pwrite(self._file, line, _place(run_id))
        except OSError:
            pass  # A full disk, say: the lock holds all the same.


class _FilePerRun:
    """Rule 4."""

    def __init__(self, path: str) -> None:
        self._prefix = path + "-lock-"
        self._files: dict[str, int] = {}

    def take(self, run_id: str) -> bool:
        path = self._path(run_id)
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_file_at(file, path):
                    os.ftruncate(file, 0)
                    os.pwrite(file, _line(run_id, str(os.getpid())), 0)
                    self._files[run_id] = file
                    return True
                os.close(file)
            except BlockingIOError:
                os.close(file)
                return False
            except BaseException:
                os.close(file)
                raise

    def drop(self, run_id: str) -> None:
        path, file = self._path(run_id), self._files.pop(run_id)
        if _is_file_at(file, path):
            os.unlink(path)
        os.close(file)

    def holder(self, run_id: str) -> int | None:
        try:
            with open(self._path(run_id), "rb") as file:
                return _pid(file.read(), run_id)
        except OSError:
            return None

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _path(self, run_id: str) -> str:
        return self._prefix + _digest(run_id)[:16]


def _digest(run_id: str) -> str:
    return sha256(run_id.encode()).hexdigest()


def _place(run_id: str) -> int:
    return int(_digest(run_id)[-8:], 16) % _LINES * _LINE_BYTES


def _line(run_id: str, pid: str) -> bytes:
    return f"{run_id:<{RUN_ID_CHARS}} {pid:>10}\n".encode()


def _pid(line: bytes, run_id: str) -> int | None:
    match line.split():
        case [name, pid] if name == run_id.encode() and pid.isdigit():
            return int(pid)
        case _:
            return None


def _is_file_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _forget_all() -> None:
    for locks in list(_open):
        locks.forget()


os.register_at_fork(after_in_child=_forget_all)
