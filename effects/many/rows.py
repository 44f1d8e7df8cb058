"""What a batch gives: a row for each job, for programs, JSONL files and SQLite tables."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from effects.many.files import check_apart_from_log, write_jsonl, write_table
from effects.many.job import CheckedJob
from effects.result import RunResult, RunUsage
from rlm_fsm.ids import RunId
from rlm_fsm.trace import Trace

RowStatus = Literal["finished", "partial", "failed", "not_started"]
Origin = Literal["new", "resumed", "log", "none"]
TABLE = "results"
"""The table of a SQLite file that rows go into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How one job of a batch ended."""

    id: str
    """The job's id, or the hash of its content."""
    query: str
    status: RowStatus
    """``finished``, ``partial`` (a limit was reached, the best answer so far), ``failed``, or
    ``not_started`` (nor gone on with); `error` says why."""
    origin: Origin
    """``new``: run now. ``resumed``: begun by an earlier process, ended now. ``log``: an earlier
    process had ended it. ``none``: there is no run."""
    run_id: RunId
    """The job's run; of a job that wasn't started, what it would be called."""
    output: str = ""
    limit: str | None = None
    """The limit that ended it."""
    error: str | None = None
    """Why it has no answer, or only a partial one; of a finished one, that the batch's budget
    refused its code subcalls."""
    usage: RunUsage | None = None
    """What the run used, by whatever process; None when there is no run."""
    cost_usd: float | None = None
    """Sum of the known costs; None when none is known."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The job's own."""
    result: RunResult | None = field(default=None, repr=False)
    """The whole result; None when there is no run."""

    @property
    def trace(self) -> Trace | None:
        """The steps of the run, read from its log when first asked for."""
        return None if self.result is None else self.result.trace

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data, one level deep but for `metadata`."""
        used = self.usage
        return {
            "id": self.id,
            "query": self.query,
            "status": self.status,
            "output": self.output,
            "limit": self.limit,
            "error": self.error,
            "run_id": self.run_id,
            "origin": self.origin,
            "steps": used.steps if used else 0,
            "subcalls": used.subcalls if used else 0,
            "model_calls": used.model_calls if used else 0,
            "cache_hits": used.cache_hits if used else 0,
            "prompt_tokens": used.prompt_tokens if used else 0,
            "completion_tokens": used.completion_tokens if used else 0,
            "total_tokens": used.total_tokens if used else 0,
            "uncertain_calls": used.uncertain_calls if used else 0,
            "seconds": round(used.seconds, 3) if used else 0.0,
            "cost_usd": self.cost_usd,
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, kw_only=True)
class ManyResult(Sequence[JobResult]):
    """The rows of a batch, in the order of its jobs."""

    name: str
    """The batch's name: with it, and with the same jobs, the batch can be gone on with."""
    rows: tuple[JobResult, ...]
    log: str
    """Where the runs are: a file, or ``:memory:``."""
    seconds: float
    """How long this process took."""
    stopped: str | None = None
    """Why jobs were not started, or left unfinished for the batch's budget; None when neither."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> JobResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[JobResult]: ...
    def __getitem__(self, index: int | slice) -> JobResult | Sequence[JobResult]:
        return self.rows[index]

    def __iter__(self) -> Iterator[JobResult]:
        return iter(self.rows)

    def by_id(self, id: str) -> JobResult:
        """The row of a job. `KeyError` when there is none."""
        for row in self.rows:
            if row.id == id:
                return row
        raise KeyError(id)

    def having(self, *statuses: RowStatus) -> list[JobResult]:
        """The rows with one of these statuses."""
        return [row for row in self.rows if row.status in statuses]

    @property
    def total_tokens(self) -> int:
        """Tokens of all runs, those of earlier processes included."""
        return sum(row.usage.total_tokens for row in self.rows if row.usage)

    @property
    def cost_usd(self) -> float | None:
        """Sum of the known costs of all runs; None when none is known."""
        known = [row.cost_usd for row in self.rows if row.cost_usd is not None]
        return sum(known) if known else None

    def counts(self) -> dict[RowStatus, int]:
        """How many rows have each status; all four are there."""
        found: dict[RowStatus, int] = dict.fromkeys(
            ("finished", "partial", "failed", "not_started"), 0
        )
        for row in self.rows:
            found[row.status] += 1
        return found

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write a line for each row. A file is replaced as a whole, or not at all; a pipe or a
        device is written. `UsageError` for the log of the runs."""
        check_apart_from_log(os.fspath(path), self.log)
        write_jsonl(path, (row.to_dict() for row in self.rows))

    def to_sqlite(self, path: str | os.PathLike[str], table: str = TABLE) -> None:
        """Write the rows into a table of a SQLite file, for Datasette and others.

        The key is `run_id`: a batch that is gone on with replaces its own rows. Columns: those of
        `JobResult.to_dict`, and `batch`. `UsageError` for the log of the runs.
        """
        check_apart_from_log(os.fspath(path), self.log)
        write_table(path, [table_row(self.name, row) for row in self.rows], table)


def row_of(
    job: CheckedJob,
    run_id: RunId,
    result: RunResult | None,
    *,
    origin: Origin,
    error: str | None = None,
) -> JobResult:
    """The row of a job that has a run, or could have none (`result` is None)."""
    if result is None:
        return JobResult(
            id=job.id,
            query=job.query,
            status="failed",
            origin="none",
            run_id=run_id,
            error=error,
            metadata=job.metadata,
        )
    status: RowStatus = "failed"
    if result.status in ("finished", "partial") and error is None:
        status = "finished" if result.status == "finished" else "partial"
    why = error or result.error
    if why is None and status == "partial":
        why = f"the limit {result.limit} is reached"
    if why is None and result.status == "waiting":
        why = "it waits for approvals: answer with `rlm-fsm approve`, and start the batch again"
    return JobResult(
        id=job.id,
        query=job.query,
        status=status,
        origin=origin,
        run_id=run_id,
        output=result.output,
        limit=result.limit,
        error=why,
        usage=result.usage,
        cost_usd=result.cost_usd,
        metadata=job.metadata,
        result=result,
    )


def table_row(batch: str, row: JobResult) -> dict[str, Any]:
    """A row as it stands in a table."""
    return {"batch": batch, **_storable(row.to_dict())}


def _storable(row: dict[str, Any]) -> dict[str, Any]:
    """A row as SQLite can hold it: metadata as JSON, and lone surrogates, which UTF-8 lacks, as
    question marks, wherever they stand."""
    texts = {**row, "metadata": json.dumps(row["metadata"], ensure_ascii=False)}
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in texts.items()
    }
