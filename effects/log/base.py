"""What an event log is to the interpreter: append-only streams of events, one per run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from rlm_fsm.event import Event, ModelReplied, Status
from rlm_fsm.ids import FrameId, RunId

KEPT_SNAPSHOTS = 2
"""Snapshots that a log keeps of one frame: a second one for when the newest is damaged, or newer
than what a fork shares."""


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
    parent: RunId | None = None
    """A fork: the run that it shares its beginning with."""
    parent_seq: int | None = None
    """The last event that a fork shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An event with its envelope: what the log adds to it."""

    seq: int
    """Position in its run, counted from 1."""
    at: str
    """When it was appended; UTC, ISO 8601. For people: the core never sees it."""
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a REPL session was, as its backend has written it."""

    seq: int
    """The event of the run after which the session was so."""
    data: bytes
    """For the backend that wrote it, see `effects.repls.base.SavesSessions`."""


class Lease:
    """One leader's hold on a run, from `EventLog.lead`. A context manager: leaving it releases."""

    __slots__ = ("_release", "generation", "run_id")

    def __init__(self, run_id: RunId, generation: int, release: Callable[[RunId], None]) -> None:
        self.run_id = run_id
        self.generation = generation
        """How many leaders the run has had, this one included. Whoever led it before can't append
        to it any more."""
        self._release: Callable[[RunId], None] | None = release

    def release(self) -> None:
        """Let another lead the run. Safe to call twice."""
        release, self._release = self._release, None
        if release is not None:
            release(self.run_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class EventLog(Protocol):
    """Append-only streams of events. Synchronous: an append is durable when it returns."""

    @property
    def path(self) -> str:
        """The file, or ``:memory:``; for messages to people."""
        ...

    def append(self, run_id: RunId, expected_seq: int, events: Sequence[Event]) -> int:
        """Append events to a run in one transaction and return the new last sequence number.

        `expected_seq` is the last sequence number that the caller knows (0 starts a run, whose
        first event must be `RunStarted`). Raises `LogConflict` when the log's is another, and
        `RunBusy` when this log leads the run and another has taken it over since.
        """
        ...

    def lead(self, run_id: RunId) -> Lease:
        """Become the one that works on a run, which may yet have to begin.

        To be had before anything is spent, and kept while appending. It ends with `Lease.release`,
        `close`, or the process. Raises `RunBusy` at once when somebody else leads the run; nothing
        was changed then. An append needs no lease: without one it is only checked that nothing was
        appended meanwhile, which protects the history but not the purse.
        """
        ...

    def fork(
        self, run_id: RunId, parent_run_id: RunId, at: int, events: Sequence[Event] = ()
    ) -> int:
        """Begin a run that shares the events of another up to number `at`, included, and append
        its first own `events`, all in one transaction. The fork's last sequence number.

        Nothing is copied. `load` gives the shared events, then the run's own, and `append`
        continues from there; with ``at=0`` nothing is shared, and the run begins with its own
        `RunStarted`. Raises `RunNotFound` for an unknown parent, `UsageError` when it has no event
        `at`, `LogConflict` when there is a run of that name, and `LogCorrupt`.
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

    def answer(self, key: str) -> ModelReplied | None:
        """The newest reply of any run whose `cache_key` this is; None when there is none that is
        whole. Found by an index, however long the log is.
        """
        ...

    def save_snapshot(self, run_id: RunId, frame: FrameId, seq: int, data: bytes) -> None:
        """Keep what a frame's session is after event `seq`, in place of older snapshots of it.

        Snapshots are a cache: losing them costs a resume time, and never an event. Raises
        `UsageError` when the run has not appended such an event itself, and `RunBusy` as `append`.
        """
        ...

    def snapshot(
        self, run_id: RunId, frame: FrameId, *, until: int | None = None
    ) -> Snapshot | None:
        """The newest snapshot of a frame that is sound and not after event `until`; a fork's
        parents are looked at too, as far as it shares their events. None when there is none.

        Damage is logged and never raised.
        """
        ...

    def drop_snapshots(self, run_id: RunId, frame: FrameId) -> None:
        """Forget the snapshots of a frame; one that has none is no error."""
        ...

    def close(self) -> None:
        """Release the file. Safe to call twice."""
        ...
