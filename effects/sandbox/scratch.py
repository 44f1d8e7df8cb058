"""The folder of a session on the host: where it lies, and that it goes away.

Where the sandbox has a root of its own, that root is mounted over this folder, in a namespace that
nobody else sees; the folder itself stays empty. Elsewhere it is the one place where code may write.

1. A folder is locked for as long as its host lives. The lock goes with the process, however that
   ends, also in another container that shares the disk.
2. The first session of a program deletes the folders of hosts that were killed: those of the same
   user that nobody has locked. The youngest are left alone: they may be about to be locked.
"""

import fcntl
import os
import secrets
import tempfile
import time
from pathlib import Path

PREFIX = "rlm-fsm-session-"
MIN_AGE_S = 60.0
"""A folder is locked a moment after it was made."""
_swept = set[str]()


class Scratch:
    """A new folder. Raises OSError when none can be made."""

    def __init__(self) -> None:
        base = tempfile.gettempdir()
        if base not in _swept:
            _swept.add(base)
            sweep(base)
        self.path = tempfile.mkdtemp(prefix=PREFIX, dir=base)
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def delete(self) -> None:
        """Delete it with all that is in it. Safe to call twice."""
        if self._lock >= 0:
            delete(self.path)
            os.close(self._lock)
            self._lock = -1


def sweep(base: str) -> int:
    """Delete the folders under `base` that killed hosts left behind; how many."""
    found = 0
    for path in Path(base).glob(f"{PREFIX}*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            status = os.fstat(lock)
            old = time.time() - status.st_mtime > MIN_AGE_S
            # Folders of root's sessions belong to the users that these ran as.
            ours = status.st_uid == os.geteuid() or os.geteuid() == 0
            if old and ours:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                delete(str(path))
                found += 1
        except OSError:
            pass  # in use
        finally:
            os.close(lock)
    return found


def delete(folder: str) -> None:
    """Delete a folder, however deep what code made in it is, and however locked."""
    try:
        while _flattened(folder):
            pass
        os.rmdir(folder)
    except OSError:
        pass  # what can't be deleted now is left to a later sweep


def _flattened(folder: str) -> bool:
    """Delete a folder's files and bring up what is in its folders; whether it had any.

    Nothing recurses, and no path gets longer than the system takes.
    """
    with os.scandir(folder) as listed:
        entries = list(listed)
    folders = list[str]()
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        else:
            os.unlink(entry.path)
    for path in folders:
        os.chmod(path, 0o700)
        with os.scandir(path) as listed:
            for entry in list(listed):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)  # else it could not be moved
                os.rename(entry.path, os.path.join(folder, secrets.token_hex(16)))
        os.rmdir(path)
    return bool(folders)
