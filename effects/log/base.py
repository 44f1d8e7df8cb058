"""What an event log is to the interpreter: append-only streams of events, one per run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlm_fsm.event import Event, Status
from rlm_fsm.ids import RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run as a list shows it."""

    run_id: RunId
    query: str
    status: Status
    created_at: str
    """UTC, ISO 8601."""
    updated_at: str
    """When the last event was appended; UTC, ISO 8601."""
    events: int
    """Number of events; the sequence number of the last one."""
    output: str | None = None
    """The answer, once there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An event with its envelope: what the log adds to it."""

    seq: int
    """Position in its run, counted from 1."""
    at: str
    """When it was appended; UTC, ISO 8601. For people: the core never sees it."""
    event: Event


class EventLog(Protocol):
    """Append-only streams of events. Synchronous: an append is durable when it returns."""

    @property
    def path(self) -> str:
        """The file, or ``:memory:``; for messages to people."""
        ...

    def append(self, run_id: RunId, expected_seq: int, events: Sequence[Event]) -> int:
        """Append events to a run in one transaction and return the new last sequence number.

        `expected_seq` is the last sequence number that the caller knows (0 starts a run, whose
        first event must be `RunStarted`). Raises `LogConflict` when the log's is another.
        """
        ...

    def load(self, run_id: RunId, *, until: int | None = None) -> Iterator[Logged]:
        """The events of a run in order, checked against their hashes; up to `until`, included.

        Raises `RunNotFound` and `LogCorrupt`.
        """
        ...

    def runs(self) -> list[RunInfo]:
        """All runs, newest first."""
        ...

    def find(self, prefix: str) -> RunId:
        """The run whose id is or begins with `prefix`. `RunNotFound` if none or several are."""
        ...

    def put_blob(self, text: str) -> str:
        """Keep a text by content and return its hash; keeping it twice costs nothing more."""
        ...

    def blob(self, hash: str) -> str | None:
        """A kept text, or None."""
        ...

    def close(self) -> None:
        """Release the file. Safe to call twice."""
        ...
