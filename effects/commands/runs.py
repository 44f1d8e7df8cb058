"""``rlm-fsm runs`` and ``rlm-fsm show RUN``: what a log holds."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effects.commands.options import JSON, LOG, NO_COLOR, Option, whole
from effects.commands.terminal import Terminal
from effects.log.base import RunInfo
from rlm_fsm.errors import IllegalEvent, LogCorrupt, ReplayDiverged, RunNotFound
from rlm_fsm.event import Event
from rlm_fsm.ids import RunId
from rlm_fsm.state import INITIAL, RunState

_NEWEST = ("last", "-1")

RUNS_OPTIONS = (
    Option(name="limit", metavar="N", convert=whole(0), help="how many runs (default 20; 0: all)"),
    LOG,
    JSON,
    NO_COLOR,
)
SHOW_OPTIONS = (
    Option(name="full", help="all of every code, output and reply, not their heads and tails"),
    LOG,
    JSON,
    NO_COLOR,
)
RUNS_GROUPS = {"options": RUNS_OPTIONS}
SHOW_GROUPS = {"options": SHOW_OPTIONS}


def add_runs_arguments(parser: ArgumentParser) -> None:
    """It takes options only."""


def add_show_arguments(parser: ArgumentParser) -> None:
    """Which run."""
    parser.add_argument(
        "run", metavar="RUN", help="the run's id, its beginning, or last for the newest run"
    )


def list_runs(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Print the runs of a log, newest first; the exit code."""
    from effects.api import runs
    from effects.rlm import log_target

    terminal = Terminal(arguments)
    found = runs(arguments.log)
    limit = 20 if arguments.limit is None else arguments.limit
    shown = found[:limit] if limit else found
    if terminal.wants_json:
        terminal.json([asdict(info) for info in shown])
        return 0
    if not found:
        terminal.tell(f"no runs yet in {log_target(arguments.log)}; rlm-fsm demo makes one")
        return 0
    from effects.view.table import runs_table

    terminal.console(sys.stdout).print(runs_table(shown, datetime.now(UTC)))
    if len(shown) < len(found):
        terminal.tell(f"{len(shown)} of {len(found):,} runs; --limit 0 shows all")
    return 0


def show(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Print the steps of a run; the exit code is 1 for a damaged one."""
    from effects.result import usage_of
    from effects.rlm import log_target
    from rlm_fsm.trace import trace

    terminal = Terminal(arguments)
    log = str(log_target(arguments.log))
    record = _read(log, arguments.run)
    state = record.state
    steps = trace(record.events, run_id=record.run_id)
    if terminal.wants_json:
        document: dict[str, Any] = {
            "run_id": record.run_id,
            "status": state.status,
            "query": state.query,
            "output": state.output,
            "limit": state.limit,
            "error": state.error,
            "usage": asdict(usage_of(state)),
            "cost_usd": state.spent.cost_usd,
            "log": log,
            "damage": record.damage,
            "steps": [asdict(step) for step in steps],
        }
        terminal.json(document)
    else:
        from effects.view.show import show_run

        full = bool(arguments.full)
        show_run(terminal.console(sys.stdout), record.run_id, state, steps, full=full)
    if record.damage is not None:
        terminal.tell(record.damage)
        return 1
    return 0


@dataclass(slots=True)
class _Record:
    """What could be read of a run."""

    run_id: RunId
    events: list[Event] = field(default_factory=list[Event])
    state: RunState = INITIAL
    """After them."""
    damage: str | None = None


def _read(log: str, name: str) -> _Record:
    """The run that a name means, up to its end or its first damage."""
    from effects.jobs import open_log
    from rlm_fsm.reducer import step

    if log != ":memory:" and not Path(log).exists():
        raise RunNotFound(f"{log}: there is no such log, and so no run {name!r}", path=log)
    with ExitStack() as stack:
        opened = open_log(log, stack)
        record = _Record(_newest(opened.runs(), log) if name in _NEWEST else opened.find(name))
        try:
            for logged in opened.load(record.run_id):
                record.events.append(logged.event)
                record.state, _ = step(record.state, logged.event)
        except (LogCorrupt, ReplayDiverged, IllegalEvent) as error:
            record.damage = f"the run is damaged after event {record.state.seq}: {error}"
    return record


def _newest(found: Sequence[RunInfo], log: str) -> RunId:
    if not found:
        raise RunNotFound(f"{log}: there is no run yet", path=log)
    return found[0].run_id
