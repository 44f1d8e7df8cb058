"""What a benchmark finds: samples, tables of text, and checks against targets."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peer import Peer

BACKENDS = ("python", "monty")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the benchmarks are to be run."""

    repetitions: int
    """Of everything that is timed; subjects take turns within each."""
    peer: Peer | None
    """None: only this project is measured."""
    folder: Path
    """For logs, on a disk."""
    say: Callable[[str], None]
    """Tells a person how far it is."""


@dataclass(frozen=True)
class Samples:
    """Repeated measurements of one thing, in the order in which they were taken."""

    values: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The least disturbed one: what the program itself needs."""
        return min(self.values)

    @property
    def median(self) -> float:
        """What was usual on this machine in this hour."""
        return statistics.median(self.values)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A figure that has a target: at most `limit`."""

    what: str
    value: float
    limit: float

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text for a person."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one benchmark found."""

    name: str
    tables: Sequence[Table]
    checks: Sequence[Check] = ()
    raw: dict[str, Any] = field(default_factory=dict[str, Any])
    """Every sample, for other programs."""


def microseconds(seconds: float) -> str:
    """A duration in microseconds, whole."""
    return f"{seconds * 1e6:,.0f}"


def milliseconds(seconds: float) -> str:
    """A duration in milliseconds."""
    return f"{seconds * 1e3:,.1f}"


def ratio(value: float, base: float | None) -> str:
    """A quotient; a dash when there is nothing to compare with."""
    return f"{value / base:.2f}" if base else "-"
