"""Opening a log's file: made private, recognised, set up.

Prompts and answers stand in a log, so it is readable by its owner only: the file is made with mode
0600 before SQLite opens it (SQLite gives the files beside it the same), missing directories with
0700. An existing file is never opened here other than by SQLite: closing a second descriptor would
drop the locks that SQLite holds through the first.
"""

import os
import sqlite3
from typing import Final

from effects.log import schema
from effects.log.faults import BUSY_S, SQLITE_ERRORS, log_error
from effects.log.heads import HeadFile
from rlm_fsm.errors import LogCorrupt, LogError

MEMORY: Final = ":memory:"
_STRICT_TABLES = (3, 37, 0)

_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",  # A damaged schema can't call functions with side effects.
    "PRAGMA cell_size_check = ON",  # Finds some damaged pages when they are read.
    "PRAGMA mmap_size = 0",  # A mapped page would hide I/O errors and let stray writes through.
    # 1 MiB: the journal is soon written over instead of growing, and a commit that grows a file
    # costs the file system more (mean commit 542 to 381 us over 400 of them, November 2026).
    "PRAGMA wal_autocheckpoint = 250",
    "PRAGMA journal_size_limit = 4194304",  # 4 MiB: a burst doesn't leave a large file behind.
)


def heads_path(path: str) -> str | None:
    """Where the head file of a log is, see `heads`: beside the real file, as SQLite's own are."""
    return None if path == MEMORY else os.path.realpath(path) + "-heads"


def locks_path(path: str) -> str | None:
    """What the names of the lock files of a log begin with, see `locks`."""
    return None if path == MEMORY else os.path.realpath(path)


def connect(path: str, heads: HeadFile, *, synchronous: str) -> sqlite3.Connection:
    """A connection to the log at an absolute path, which is made or migrated when needed.

    Raises `LogForeign`, `LogNewer`, `LogCorrupt` and `LogError`.
    """
    if sqlite3.sqlite_version_info < _STRICT_TABLES:
        raise LogError(
            f"SQLite {sqlite3.sqlite_version} is too old: logs need 3.37 or newer. Use a Python "
            "that brings a newer one.",
            path=path,
        )
    is_new = path == MEMORY or _create(path)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    except SQLITE_ERRORS as error:
        raise log_error(error, path) from error
    try:
        _set_up(connection, path, heads, is_new=is_new)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except SQLITE_ERRORS as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise schema.foreign(path, "it is no SQLite database") from error
        raise log_error(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: str) -> bool:
    """Make an empty private file unless there is one; whether it was made."""
    if os.path.isdir(path):
        raise LogError(f"{path} is a directory: give the path of a file for the log", path=path)
    if os.path.exists(path):
        return False
    try:
        _make_directories(os.path.dirname(path))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if os.path.exists(path):
            return False  # Another process was faster.
        raise LogError(
            f"{path}: the log can't be made: {error.strerror}. Give a path that you can write.",
            path=path,
        ) from error
    return True


def _make_directories(path: str) -> None:
    """Missing directories, each private: `os.makedirs` gives its mode to the last one only."""
    if not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        os.makedirs(path, mode=0o700, exist_ok=True)


def _set_up(connection: sqlite3.Connection, path: str, heads: HeadFile, *, is_new: bool) -> None:
    if schema.version_of(connection, path) == schema.SCHEMA_VERSION:
        _use_wal(connection, path)
        return
    with heads.locked():
        # Again: another process may have made the log meanwhile, and begun runs.
        is_empty = schema.version_of(connection, path) == 0
        if is_empty and not is_new and (lost := heads.all()):
            raise LogCorrupt(
                f"{path}: the log is empty, but {heads.path} knows {len(lost)} runs of it. "
                "Restore the log from a copy, or delete both files to begin anew.",
                path=path,
            )
        _use_wal(connection, path)
        try:
            schema.migrate(connection, path)
        except sqlite3.OperationalError as error:
            if is_empty or not _is_read_only(error):
                raise
            return  # What an older log lacks, it lacks; its events can be read.
        # Into the main file, so that a lost write-ahead file can't take the tables with it.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    except sqlite3.OperationalError as error:
        if _is_read_only(error):
            return  # It can be read as it is; an append will say that it is read-only.
        raise
    if mode not in ("wal", "memory"):
        raise LogError(
            f"{path}: SQLite can't keep a write-ahead log here (it offers {mode!r}): put the log "
            "on a local disk.",
            path=path,
        )


def _is_read_only(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
