"""Transactions that end: committed, or undone with SQLite's errors raised as ours."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from effects.log.faults import SQLITE_ERRORS, log_error


@contextmanager
def writing(connection: sqlite3.Connection, path: str) -> Generator[None]:
    """A transaction that writes; committed at the end of the block, else undone."""
    with translated(connection, path):
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")


@contextmanager
def translated(connection: sqlite3.Connection, path: str) -> Generator[None]:
    """Undo a transaction that did not get to its end, and raise SQLite's errors as ours."""
    try:
        yield
    except SQLITE_ERRORS as error:
        _roll_back(connection)
        raise log_error(error, path) from error
    except BaseException:
        _roll_back(connection)
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
