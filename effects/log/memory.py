"""A log that lives in memory: for runs of which only the result counts.

It keeps the events themselves. Nothing is encoded, hashed or written, and nothing outlives the
process. All else is as in a file: order, expected sequence numbers, leases, forks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from effects.log.base import KEPT_SNAPSHOTS, Lease, Logged, RunInfo, Snapshot
from effects.log.writing import check_id, standing
from rlm_fsm.errors import LogConflict, RunBusy, RunNotFound, UsageError
from rlm_fsm.event import Event, ModelReplied, RunStarted
from rlm_fsm.ids import FrameId, RunId
from rlm_fsm.values import text_hash

PATH = ":memory:"


@dataclass(slots=True)
class _Run:
    """One run: its events, those that it shares included, and when each was appended."""

    events: list[Event] = field(default_factory=list[Event])
    at: list[datetime] = field(default_factory=list[datetime])
    parent: RunId | None = None
    parent_seq: int | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    generation: int = 0
    snapshots: dict[FrameId, list[Snapshot]] = field(default_factory=dict[FrameId, list[Snapshot]])
    """By frame, oldest first."""


class MemoryLog:
    """An `EventLog` without a file. For one thread at a time."""

    def __init__(self) -> None:
        self._runs: dict[RunId, _Run] = {}
        self._texts: dict[str, str] = {}
        self._led: dict[RunId, int] = {}
        self._answers: dict[str, ModelReplied] = {}
        """The newest reply by its `cache_key`."""

    @property
    def path(self) -> str:
        """``:memory:``."""
        return PATH

    def append(self, run_id: RunId, expected_seq: int, events: Sequence[Event]) -> int:
        """Append events to a run and return its last sequence number; see `EventLog.append`."""
        run = self._runs.get(run_id)
        seq = len(run.events) if run else 0
        if seq != expected_seq:
            raise LogConflict(
                f"{PATH}: run {run_id} has {seq} events, {expected_seq} were expected. "
                "Load it again.",
                path=PATH,
            )
        _check_order(seq, events)
        if run is None:
            check_id(run_id)
            run = self._runs[run_id] = _Run(generation=self._led.get(run_id, 0))
        return self._extend(run, events)

    def lead(self, run_id: RunId) -> Lease:
        """Become the one that works on a run; see `EventLog.lead`."""
        check_id(run_id)
        if run_id in self._led:
            raise RunBusy(f"{PATH}: run {run_id} is being worked on. Nothing was spent.", path=PATH)
        run = self._runs.get(run_id)
        generation = 1 if run is None else run.generation + 1
        if run is not None:
            run.generation = generation
        self._led[run_id] = generation
        return Lease(run_id, generation, self._release)

    def fork(
        self, run_id: RunId, parent_run_id: RunId, at: int, events: Sequence[Event] = ()
    ) -> int:
        """Begin a run that shares the events of another; see `EventLog.fork`."""
        check_id(run_id)
        parent = self._run(parent_run_id)
        if not 0 <= at <= len(parent.events):
            raise UsageError(
                f"at={at}: run {parent_run_id} has the events 1 to {len(parent.events)}"
            )
        if run_id in self._runs:
            raise LogConflict(f"{PATH}: there is a run {run_id} already", path=PATH)
        _check_order(at, events)
        run = self._runs[run_id] = _Run(
            events=parent.events[:at],
            at=parent.at[:at],
            parent=parent_run_id,
            parent_seq=at,
            generation=self._led.get(run_id, 0),
        )
        return self._extend(run, events)

    def load(self, run_id: RunId, *, until: int | None = None) -> Iterator[Logged]:
        """The events of a run, in order; see `EventLog.load`."""
        run = self._run(run_id)
        end = len(run.events) if until is None else until
        pairs = zip(run.events[:end], run.at[:end], strict=True)
        return (
            Logged(seq=seq, at=_iso(at), event=event)
            for seq, (event, at) in enumerate(islice(pairs, end), 1)
        )

    def runs(self) -> list[RunInfo]:
        """All runs, newest first."""
        return [_info(run_id, run) for run_id, run in reversed(self._runs.items())]

    def find(self, prefix: str) -> RunId:
        """The run whose id is or begins with `prefix`; see `EventLog.find`."""
        ids = [run_id for run_id in self._runs if run_id.startswith(prefix)]
        if prefix in self._runs:
            return RunId(prefix)
        if len(ids) == 1:
            return ids[0]
        if ids:
            some = ", ".join(ids[:3])
            raise RunNotFound(
                f"{PATH}: several runs begin with {prefix!r}: {some}. Give more of the id.",
                path=PATH,
            )
        raise RunNotFound(f"{PATH}: the log holds no run {prefix!r}", path=PATH)

    def put_blob(self, text: str) -> str:
        """Keep a text by content and return its hash."""
        digest = text_hash(text)
        self._texts[digest] = text
        return digest

    def blob(self, hash: str) -> str | None:
        """A kept text, or None."""
        return self._texts.get(hash)

    def answer(self, key: str) -> ModelReplied | None:
        """The newest reply with this key; see `EventLog.answer`."""
        return self._answers.get(key)

    def save_snapshot(self, run_id: RunId, frame: FrameId, seq: int, data: bytes) -> None:
        """Keep what a frame's session is; see `EventLog.save_snapshot`."""
        run = self._runs.get(run_id)
        if run is None or not (run.parent_seq or 0) < seq <= len(run.events):
            raise UsageError(f"run {run_id} has appended no event {seq} to be saved")
        older = [saved for saved in run.snapshots.get(frame, []) if saved.seq != seq]
        saved = sorted([*older, Snapshot(seq=seq, data=data)], key=lambda each: each.seq)
        run.snapshots[frame] = saved[-KEPT_SNAPSHOTS:]

    def snapshot(
        self, run_id: RunId, frame: FrameId, *, until: int | None = None
    ) -> Snapshot | None:
        """The newest snapshot of a frame; see `EventLog.snapshot`."""
        run = self._runs.get(run_id)
        while run is not None:
            last = len(run.events) if until is None else until
            known = [saved for saved in run.snapshots.get(frame, []) if saved.seq <= last]
            if known:
                return known[-1]
            until = min(last, run.parent_seq or 0)
            run = None if run.parent is None else self._runs[run.parent]
        return None

    def drop_snapshots(self, run_id: RunId, frame: FrameId) -> None:
        """Forget the snapshots of a frame."""
        if run_id in self._runs:
            self._runs[run_id].snapshots.pop(frame, None)

    def close(self) -> None:
        """Nothing is to be released."""

    def _extend(self, run: _Run, events: Sequence[Event]) -> int:
        run.events += events
        run.at += [datetime.now(UTC)] * len(events)
        for event in events:
            if isinstance(event, ModelReplied) and event.cache_key:
                self._answers[event.cache_key] = event
        return len(run.events)

    def _run(self, run_id: RunId) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            raise RunNotFound(f"{PATH}: the log holds no run {run_id!r}", path=PATH)
        return run

    def _release(self, run_id: RunId) -> None:
        self._led.pop(run_id, None)


def _check_order(seq: int, events: Sequence[Event]) -> None:
    for number, event in enumerate(events, seq):
        if isinstance(event, RunStarted) != (number == 0):
            raise UsageError("RunStarted is a run's first event, and only its first")


def _info(run_id: RunId, run: _Run) -> RunInfo:
    first = run.events[0] if run.events else None
    status, output = standing(run.events[-1]) if run.events else ("running", None)
    return RunInfo(
        run_id=run_id,
        query=first.query if isinstance(first, RunStarted) else "",
        status=status,
        created_at=_iso(run.created_at),
        updated_at=_iso(run.at[-1] if run.at else run.created_at),
        events=len(run.events),
        output=output,
        parent=run.parent,
        parent_seq=run.parent_seq,
    )


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
