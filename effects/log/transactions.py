"""Transactions that end: committed, or undone with SQLite's errors raised as ours.

Plain classes: generators as context managers took a tenth of a small append.
"""

import sqlite3
from types import TracebackType

from effects.log.faults import SQLITE_ERRORS, log_error


class translated:
    """Undo a transaction that did not get to its end, and raise SQLite's errors as ours."""

    __slots__ = ("connection", "path")

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self.connection = connection
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        _roll_back(self.connection)
        if isinstance(error, SQLITE_ERRORS):
            raise log_error(error, self.path) from error


class writing(translated):
    """A transaction that writes; committed at the end of the block, else undone."""

    __slots__ = ()

    def __enter__(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._execute("COMMIT")
        else:
            super().__exit__(kind, error, trace)

    def _execute(self, statement: str) -> None:
        try:
            self.connection.execute(statement)
        except BaseException as error:
            super().__exit__(type(error), error, None)
            raise


def tidy(connection: sqlite3.Connection) -> None:
    """Move everything into the main file before the connection is closed, if that can be done."""
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except SQLITE_ERRORS:
        pass  # Another reader, or a full disk: the write-ahead file stays, and is as good.


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except SQLITE_ERRORS:
        pass  # The first error is the one to report; an open transaction is never committed.
