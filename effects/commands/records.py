"""Reading recorded runs for the command line: which run is meant, and what its log has of it."""

from argparse import ArgumentParser
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from effects.log.base import EventLog, Logged, RunInfo
from rlm_fsm.errors import IllegalEvent, LogCorrupt, ReplayDiverged, RunNotFound
from rlm_fsm.event import Event, RunResumed, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.state import INITIAL, RunState

_NEWEST = ("last", "-1")

RUN_HELP = "the run's id, its beginning, or last for the newest run"


@dataclass(slots=True)
class Record:
    """What could be read of a run."""

    run_id: RunId
    info: RunInfo | None = None
    """Its line in the list of runs."""
    logged: list[Logged] = field(default_factory=list[Logged])
    state: RunState = INITIAL
    """After them."""
    damage: str | None = None
    """What is wrong with the event after them."""

    @property
    def events(self) -> list[Event]:
        """Its events, without their envelopes."""
        return [logged.event for logged in self.logged]

    @property
    def environment(self) -> dict[str, str]:
        """What ran it last, models included."""
        found: dict[str, str] = {}
        for logged in self.logged:
            if isinstance(logged.event, RunStarted | RunResumed):
                found = dict(logged.event.environment)
        return found

    @property
    def origin(self) -> str:
        """Where a fork comes from, in words; empty for another run."""
        if self.info is None or self.info.parent is None:
            return ""
        return f"fork of {self.info.parent}, which it shares up to event {self.info.parent_seq:,}"

    def check(self) -> None:
        """Refuse a damaged run with `LogCorrupt`."""
        if self.damage is not None:
            raise LogCorrupt(self.damage, run_id=self.run_id, last_good_seq=self.state.seq)


def add_run_argument(parser: ArgumentParser) -> None:
    """Which run."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)


def read_record(log: str, name: str) -> Record:
    """The run that a name means, up to its end or its first damage."""
    from rlm_fsm.reducer import step

    with opened(log, name) as log_:
        run_id = find_run(log_, name)
        info = next((info for info in log_.runs() if info.run_id == run_id), None)
        record = Record(run_id, info)
        try:
            for logged in log_.load(run_id):
                state, _ = step(record.state, logged.event)
                record.logged.append(logged)
                record.state = state
        except (LogCorrupt, ReplayDiverged, IllegalEvent) as error:
            record.damage = f"the run is damaged after event {record.state.seq}: {error}"
    return record


@contextmanager
def opened(log: str, name: str) -> Generator[EventLog]:
    """A log that exists. `RunNotFound` for one that doesn't: none is made by looking for a run."""
    from effects.jobs import open_log

    if log != ":memory:" and not Path(log).exists():
        told = f", and so no run {name!r}" if name else ""
        raise RunNotFound(f"{log}: there is no such log{told}", path=log)
    with ExitStack() as stack:
        yield open_log(log, stack)


def find_run(log: EventLog, name: str) -> RunId:
    """The id that a name means: an id, its beginning, or ``last``."""
    if name not in _NEWEST:
        return log.find(name)
    found = log.runs()
    if not found:
        raise RunNotFound(f"{log.path}: there is no run yet", path=log.path)
    return found[0].run_id


def earlier_events(log: str, run_id: RunId, until: int) -> Iterable[Event]:
    """The events of a run up to one, for a view that joins late."""
    with opened(log, run_id) as log_:
        return [logged.event for logged in log_.load(run_id, until=until)]
