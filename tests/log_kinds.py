"""The kinds of logs that there are, to be mixed into the classes of a contract suite."""

from pathlib import Path

import pytest

from effects.log import SqliteLog
from effects.log.memory import MemoryLog


class InMemory:
    """A database without a file."""

    def make(self) -> SqliteLog:
        return SqliteLog(":memory:")


class Plain:
    """A log without a database."""

    def make(self) -> MemoryLog:
        return MemoryLog()


class InAFile:
    """What runs have, and what survives a crash of the machine."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> SqliteLog:
        return SqliteLog(self.directory / "log.db")


class InAQuickFile(InAFile):
    """What survives a crash of the process only."""

    def make(self) -> SqliteLog:
        return SqliteLog(self.directory / "log.db", durability="process")
