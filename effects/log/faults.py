"""What SQLite reports, as errors of ours: the one place where it is translated."""

import sqlite3

from rlm_fsm.errors import LogCorrupt, LogError

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What the `sqlite3` module raises for the database's sake. The second, when the message of an
error quotes a damaged schema that is no text any more."""

SqliteError = sqlite3.Error | UnicodeDecodeError

BUSY_S = 30.0
"""Seconds to wait for another process's transaction. Ours take milliseconds; a copy or a viewer
may take longer."""

_KEPT = "What was committed before is intact."
_HINTS = {
    sqlite3.SQLITE_BUSY: f"another process has been writing for {BUSY_S:.0f} s. Try again.",
    sqlite3.SQLITE_LOCKED: "another connection is writing. Try again.",
    sqlite3.SQLITE_FULL: f"the disk is full. {_KEPT} Free some space and resume the run.",
    sqlite3.SQLITE_READONLY: f"the log is read-only. {_KEPT} Check the permissions of the file, "
    "of those beside it (-wal, -shm) and of the directory, or copy the log elsewhere.",
    sqlite3.SQLITE_IOERR: f"the disk reports an error. {_KEPT} Check the disk, its quota and the "
    "limit on the size of files (ulimit -f), and resume the run.",
    sqlite3.SQLITE_CANTOPEN: "the log can't be opened. Check that its directory exists and can be "
    "written: SQLite keeps two files beside a log while it is in use.",
    sqlite3.SQLITE_PERM: "access is denied. Check the permissions of the file.",
    sqlite3.SQLITE_TOOBIG: f"a text is too long for SQLite (about 1 GB). {_KEPT}",
    sqlite3.SQLITE_MISUSE: "the log is closed, or is used by a thread that didn't open it.",
}


def log_error(
    error: SqliteError, path: str, *, run_id: str | None = None, last_good_seq: int = 0
) -> LogError:
    """The error to raise instead, `from` the original.

    What isn't the world's fault or the caller's is damage: a page that makes no sense, a text that
    is no text, a constraint or a column that can't fail in a sound log.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, sqlite3.ProgrammingError) and code is None:
        code = sqlite3.SQLITE_MISUSE
    hint = None if code is None else _HINTS.get(code & 0xFF)
    if hint is not None:
        return LogError(f"{path}: {hint} (SQLite: {error})", path=path)
    return LogCorrupt(
        f"{path}: the log is damaged (SQLite: {error}). Restore it from a copy"
        + (f"; run {run_id} is good up to event {last_good_seq}." if run_id else "."),
        path=path,
        run_id=run_id,
        last_good_seq=last_good_seq,
    )
