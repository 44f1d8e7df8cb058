"""A batch of runs on a terminal: a progress bar; elsewhere a line for each job that has ended.

Tokens and cost are those of the whole batch, with what runs have used that still go on.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from effects.view.cut import clean, dollars, head, seconds, tokens
from rlm_fsm.event import ModelReplied, RunFinished, RunResumed, RunStarted
from rlm_fsm.numbers import counted
from rlm_fsm.values import Usage

if TYPE_CHECKING:
    from effects.listeners import Appended

_ID_CHARS = 40
_ERROR_CHARS = 160


class Row(Protocol):
    """What is shown of a job's result."""

    @property
    def id(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def error(self) -> str | None: ...
    @property
    def cost_usd(self) -> float | None: ...
    def to_dict(self) -> dict[str, object]: ...


class Totals:
    """What a batch has used, and how its jobs have ended."""

    def __init__(self) -> None:
        self.name = ""
        self.jobs = 0
        self.ended = 0
        self.failed = 0
        self.going_on: set[str] = set()
        """Runs that have begun and not ended."""
        self._done_tokens = 0
        self._done_cost: float | None = None
        self._live: dict[str, tuple[Usage, float | None]] = {}
        self.cache_hits = 0
        """Calls that a cache answered now; what earlier processes had isn't counted."""

    def begin(self, name: str, jobs: int) -> None:
        """Take the batch's size."""
        self.name, self.jobs = name, jobs

    def handle(self, event: "Appended") -> None:
        """Count what a run's event says."""
        match event.event:
            case RunStarted() | RunResumed():
                self.going_on.add(event.run_id)
            case RunFinished():
                self.going_on.discard(event.run_id)
            case ModelReplied(cache_hit=True):
                self.cache_hits += 1
            case ModelReplied(usage=usage, cost_usd=cost):
                before, paid = self._live.get(event.run_id, (Usage(), None))
                self._live[event.run_id] = (before + usage, _sum(paid, cost))
            case _:
                pass

    def take(self, row: Row) -> None:
        """Count a row; what its run has used is known for good now."""
        self.ended += 1
        self.failed += row.status == "failed"
        self.going_on.discard(row.run_id)
        self._live.pop(row.run_id, None)
        self._done_tokens += int(str(row.to_dict()["total_tokens"]))
        self._done_cost = _sum(self._done_cost, row.cost_usd)

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        live = sum(usage.total_tokens for usage, _ in list(self._live.values()))
        return self._done_tokens + live

    @property
    def cost_usd(self) -> float | None:
        """The known cost so far; None when none is known."""
        cost = self._done_cost
        for _, paid in list(self._live.values()):
            cost = _sum(cost, paid)
        return cost

    def facts(self) -> str:
        """Tokens and cost, in words."""
        told = [counted(self.tokens, "token")]
        if self.cost_usd is not None:
            told.append(dollars(self.cost_usd))
        if self.cache_hits:
            told.append(counted(self.cache_hits, "cache hit"))
        return " · ".join(told)


class ManyBar:
    """A batch as a progress bar. Failures scroll by above it; they stay when the bar is gone."""

    def __init__(self, console: Console, *, auto_refresh: bool = True) -> None:
        self.totals = Totals()
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _Facts(self.totals),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            auto_refresh=auto_refresh,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._task = self._progress.add_task("", start=False)

    def begin(self, name: str, jobs: int) -> None:
        """Show the bar."""
        self.totals.begin(name, jobs)
        self._progress.update(self._task, total=jobs, description=name)
        self._progress.start_task(self._task)
        self._progress.start()

    def handle(self, event: "Appended") -> None:
        """Count what a run's event says."""
        self.totals.handle(event)

    def ended(self, row: Row) -> None:
        """Move the bar; tell of a job that has no answer."""
        self.totals.take(row)
        if row.origin == "log":
            # Not `advance`: what an earlier process did says nothing of this one's speed.
            self._progress.update(self._task, completed=self.totals.ended)
            self._progress.reset(self._task, completed=self.totals.ended, total=self.totals.jobs)
        else:
            self._progress.advance(self._task)
        if row.status in ("failed", "partial"):
            self._console.print(Text(line(row, self.totals), style="red"), soft_wrap=False)

    def above(self, line: str) -> None:
        """Write a line, as long as it may be, above the bar."""
        self._console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class ManyLines:
    """A batch as plain lines: one for each job that has ended."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """`write` is given one line at a time, without its newline."""
        self.totals = Totals()
        self._write = write

    def begin(self, name: str, jobs: int) -> None:
        """Tell the batch's name, by which it can be started again."""
        self.totals.begin(name, jobs)
        self._write(f"batch {name}: {counted(jobs, 'job')}")

    def handle(self, event: "Appended") -> None:
        """Count what a run's event says."""
        self.totals.handle(event)

    def ended(self, row: Row) -> None:
        """Tell how a job ended; those that an earlier process had ended are only counted."""
        self.totals.take(row)
        if row.origin != "log" and row.status != "not_started":
            self._write(line(row, self.totals))

    def close(self) -> None:
        """Nothing to put back: lines stay."""


def line(row: Row, totals: Totals) -> str:
    """A job that has ended, as a line."""
    told = row.to_dict()
    facts = [f"{row.status}"]
    hits = int(str(told["cache_hits"]))
    if told["model_calls"] or hits:
        facts.append(tokens(Usage(total_tokens=int(str(told["total_tokens"])))))
        if row.cost_usd is not None:
            facts.append(dollars(row.cost_usd))
        if hits:
            facts.append(counted(hits, "cache hit"))
        facts.append(seconds(float(str(told["seconds"]))))
    why = f": {head(row.error, _ERROR_CHARS)}" if row.error and row.status != "finished" else ""
    place = f"{totals.ended:,}/{totals.jobs:,}"
    return clean(f"{place} {head(row.id, _ID_CHARS)}: {', '.join(facts)}{why}")


class _Facts(ProgressColumn):
    """Tokens and cost, runs that go on, and failures."""

    def __init__(self, totals: Totals) -> None:
        super().__init__()
        self._totals = totals

    def render(self, task: Task) -> Text:
        del task
        totals = self._totals
        parts = [totals.facts(), f"{len(totals.going_on):,} running"]
        if totals.failed:
            parts.append(f"{totals.failed:,} failed")
        return Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")


def _sum(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other
