"""A log's files as other programs and accidents treat them: helpers for tests."""

import sqlite3
from pathlib import Path


def sql(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Run one statement as another program would."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def rewrite(path: Path, statement: str, *values: object) -> None:
    """Change rows that can't be changed: the triggers are put away for it."""
    triggers = [row[0] for row in sql(path, "SELECT name FROM sqlite_master WHERE type='trigger'")]
    for name in triggers:
        sql(path, f"DROP TRIGGER {name}")
    sql(path, statement, *values)


def heads_of(path: Path) -> Path:
    """The head file of a log."""
    return path.with_name(path.name + "-heads")
