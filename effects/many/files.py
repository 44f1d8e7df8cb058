"""Files that a batch's rows are written into, and whether they can be: asked before it starts.

1. A plain JSONL file is replaced as a whole, where its links lead, and keeps its permissions. What
   is no plain file (a pipe, a device) is opened and written.
2. Asking changes nothing: a file that wasn't there isn't there afterwards.
"""

import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from effects.log.files import MEMORY
from rlm_fsm.errors import UsageError

_BESIDE_A_LOG = ("-wal", "-shm", "-journal", "-heads", "-locks")
KEY = "run_id"
"""What rows of a table are known by."""


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file: as a whole, or not at all. In ASCII, so that any text can be held."""
    lines = (json.dumps(row) + "\n" for row in rows)
    if _is_written_in_place(Path(path)):
        with Path(path).open("w", encoding="ascii") as file:
            file.writelines(lines)
        return
    target = Path(os.path.realpath(path))
    temporary = _temporary(target)
    try:
        with temporary.open("w", encoding="ascii") as file:
            file.writelines(lines)
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: str | os.PathLike[str], rows: Sequence[dict[str, Any]], table: str) -> None:
    """Put rows into a table of a SQLite file; those with a key that is there are replaced."""
    from sqlite_utils import Database

    with closing(Database(os.fspath(path))) as database:
        database.table(table).upsert_all(rows, pk=KEY, alter=True)


def check_jsonl(path: str) -> None:
    """`UsageError` for a file that `write_jsonl` couldn't write."""
    try:
        if _is_written_in_place(Path(path)):
            mode = Path(path).stat().st_mode
            if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)) or not os.access(path, os.W_OK):
                raise UsageError(f"{path}: no file can be written there")
            return
        target = Path(os.path.realpath(path))
        if target.exists() and not os.access(target, os.W_OK):
            raise UsageError(f"{path}: no file can be written there: it is write-protected")
        temporary = _temporary(target)
        temporary.open("w").close()
        temporary.unlink()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no file can be written there: {reason(error)}") from error


def check_table(path: str, row: dict[str, Any], table: str) -> None:
    """`UsageError` for a SQLite file whose table rows like this one couldn't be put into."""
    was_there = os.path.lexists(path)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            found = database.execute(
                "SELECT type, sql FROM sqlite_master WHERE lower(name) = lower(?)", [table]
            ).fetchone()
            database.execute("ROLLBACK")
    except (OSError, sqlite3.Error, ValueError) as error:
        raise UsageError(f"{path}: no table can be written there: {reason(error)}") from error
    finally:
        if not was_there:
            Path(path).unlink(missing_ok=True)
    if found is not None:
        _check_like(path, str(found[0]), str(found[1]), row, table)


def check_apart(one: str, other: str, what: str) -> None:
    """`UsageError` when two paths lead to the same file; `what` the other one is."""
    try:
        is_same = os.path.samefile(one, other)
    except OSError:
        is_same = os.path.realpath(one) == os.path.realpath(other)
    if is_same:
        raise UsageError(f"{one} is {what}: give the results another file")


def check_apart_from_log(path: str, log: str) -> None:
    """`UsageError` for the file of a log, or one of those that lie beside it."""
    if log == MEMORY:
        return
    for base in (log, os.path.realpath(log)):
        check_apart(path, base, "the log of the runs")
        for suffix in _BESIDE_A_LOG:
            check_apart(path, base + suffix, f"a file of the log {log}")


def reason(error: Exception) -> str:
    """What went wrong with a file, without its name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _check_like(path: str, kind: str, sql: str, row: dict[str, Any], table: str) -> None:
    """Try a row on a copy of what the file has under the table's name."""
    from sqlite_utils import Database

    if kind != "table":
        raise UsageError(f"{path}: {table} is a {kind} there, not a table")
    with closing(Database(memory=True)) as copy:
        try:
            copy.conn.execute(sql)
            copy.table(table).upsert_all([row], pk=KEY, alter=True)
        except Exception as error:  # those of sqlite_utils have no class in common
            raise UsageError(
                f"{path}: the table {table} is there, and rows of a batch don't fit: {error}"
            ) from error


def _is_written_in_place(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}-{os.getpid()}")
