"""The list of runs as a table."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from effects.view.cut import head
from rlm_fsm.event import Status

if TYPE_CHECKING:
    from effects.log.base import RunInfo

_STYLES: dict[Status, str] = {
    "finished": "green",
    "partial": "yellow",
    "failed": "red",
    "cancelled": "red",
    "running": "cyan",
}
_HEAD_CHARS = 200
"""Characters of a query or answer given to the table, which cuts them to its columns."""


def runs_table(runs: Sequence["RunInfo"], now: datetime) -> Table:
    """A line for each run. `now` is UTC."""
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="bold")
    table.add_column("run", no_wrap=True, style="cyan")
    table.add_column("when", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("events", no_wrap=True, justify="right")
    table.add_column("query", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("answer", no_wrap=True, overflow="ellipsis", ratio=1)
    has_forks = any(run.parent is not None for run in runs)
    if has_forks:
        table.add_column("fork of", no_wrap=True, style="dim")
    for run in runs:
        origin = [] if run.parent is None else [Text(f"{run.parent} at {run.parent_seq or 0:,}")]
        table.add_row(
            Text(run.run_id),
            Text(ago(run.created_at, now), style="dim"),
            Text(run.status, style=_STYLES.get(run.status, "")),
            Text(f"{run.events:,}"),
            Text(head(run.query, _HEAD_CHARS)),
            Text(head(run.output or "", _HEAD_CHARS)),
            *origin,
        )
    return table


def ago(at: str, now: datetime) -> str:
    """How long ago a time is, in one unit: ``5 s``, ``3 min``, ``2 h``, ``4 d``; then its date."""
    try:
        passed_s = (now - datetime.fromisoformat(at)).total_seconds()
    except (ValueError, TypeError):
        return at[:10]
    if passed_s < 0 or passed_s >= 30 * 86_400:
        return at[:10]
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if passed_s >= size_s:
            return f"{int(passed_s // size_s)} {unit} ago"
    return f"{int(passed_s)} s ago"
