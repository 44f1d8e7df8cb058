"""``rlm-fsm many JOBS.jsonl [PATH...]``: many questions, each over a context, as one batch."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effects.commands.choices import (
    GUARD_OPTIONS,
    LIMIT_OPTIONS,
    MODEL_OPTIONS,
    WORK_OPTIONS,
    cache_given,
    how_a_batch_goes_on,
    limits_given,
    make_adapters,
    options_given,
    policy_given,
    prices_given,
)
from effects.commands.conclude import ANSWERED, CANCELLED, FAILED, PARTIAL
from effects.commands.interrupts import apart, terminated_like_interrupted
from effects.commands.options import JSON, LOG, NO_COLOR, QUIET, Option, amount, whole
from effects.commands.run import read_context, silent_logger
from effects.commands.terminal import OutputLost, Terminal
from effects.commands.tools import TOOLS, tools_given
from rlm_fsm.errors import RLMError, UsageError
from rlm_fsm.ids import RunId
from rlm_fsm.numbers import counted
from rlm_fsm.policy import Policy

if TYPE_CHECKING:
    from effects.many.driver import Watcher
    from effects.many.rows import JobResult, ManyResult
    from effects.view.many import ManyBar, ManyLines

STDIO = "-"
"""In place of a file: standard input of jobs, standard output of results."""

BATCH_OPTIONS = (
    Option(
        name="batch",
        metavar="NAME",
        help="the batch's name in the log: with it the batch is gone on with, also when jobs were "
        "added (default: made of the jobs, the options and the models)",
    ),
    Option(name="runs-at-once", metavar="N", convert=whole(1), help="runs (default 4)"),
    Option(
        name="calls-at-once",
        metavar="N",
        convert=whole(1),
        help="model calls of all runs together (default 10)",
    ),
    Option(
        name="max-failures",
        metavar="N",
        convert=whole(0),
        help="begin no more runs when more jobs than that have failed (default: never stop)",
    ),
    Option(
        name="budget-cost",
        metavar="USD",
        convert=amount,
        help="cost of all runs together; every model needs a price that is known",
    ),
    Option(name="budget-tokens", metavar="N", convert=whole(0), help="tokens of all runs together"),
    Option(name="budget-seconds", metavar="S", convert=amount, help="seconds for the whole batch"),
)
RESULT_OPTIONS = (
    Option(
        name="output",
        metavar="FILE",
        help="write the results there, a JSON line for each job in their order; else they go to "
        "stdout, as with -, each as its job ends",
    ),
    Option(
        name="sqlite",
        metavar="FILE",
        help="also put the results into the table results of this SQLite file",
    ),
    LOG,
    JSON,
    QUIET,
    NO_COLOR,
)
GROUPS = {
    "batch": BATCH_OPTIONS,
    "model": MODEL_OPTIONS,
    "limits of each run": LIMIT_OPTIONS,
    "work": (*WORK_OPTIONS, TOOLS),
    "guards": GUARD_OPTIONS,
    "output": RESULT_OPTIONS,
}


def add_arguments(parser: ArgumentParser) -> None:
    """What stands on the command line besides options."""
    parser.add_argument(
        "jobs",
        metavar="JOBS",
        nargs="?",
        help='a JSONL file, or - for stdin; a line is an object with "query", "context" (a '
        'text or a list of texts) or "paths", and "id" and "metadata" where wanted',
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="files, folders or globs: the context of jobs that have none",
    )


def many(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Run a batch; the exit code. Raises `UsageError` before anything is started."""
    from effects.many.budget import Budget
    from effects.many.run import run_many
    from effects.rlm import log_target

    terminal = Terminal(arguments)
    if not arguments.jobs:
        raise UsageError("there are no jobs: rlm-fsm many JOBS.jsonl [PATH...]")
    if arguments.jobs == STDIO and STDIO in arguments.paths:
        raise UsageError("-: standard input is read once, for the jobs or for the context")
    log = log_target(arguments.log)
    _check_targets(arguments, str(log))
    shown = _view(terminal)
    rows = _Rows(terminal, arguments, shown)
    counts = {
        "max_runs": arguments.runs_at_once,
        "max_calls": arguments.calls_at_once,
        "max_failures": arguments.max_failures,
    }
    view = _Told(shown)
    try:
        with terminated_like_interrupted():
            result = apart(run_many)(
                Path(arguments.jobs),
                name=arguments.batch,
                context=read_context(arguments.paths) if arguments.paths else None,
                budget=Budget(
                    max_cost_usd=arguments.budget_cost,
                    max_total_tokens=arguments.budget_tokens,
                    max_seconds=arguments.budget_seconds,
                ),
                watcher=view,
                on_row=rows.write,
                policy=policy_given(arguments, Policy()),
                prices=prices_given(arguments),
                log=log,
                logger=silent_logger(),
                **{name: value for name, value in counts.items() if value is not None},
                **make_adapters(arguments, environment),
                **options_given(arguments),
                **limits_given(arguments),
                **tools_given(arguments),
                **cache_given(arguments),
            )
    except KeyboardInterrupt:
        if not view.name:
            raise
        terminal.tell(
            f"cancelled: {view.ended_jobs:,} of {counted(view.jobs, 'job')} of batch {view.name} "
            "ended. The same command goes on."
        )
        return CANCELLED
    code = _report(terminal, arguments, result)
    rows.check()
    return code


class _Told:
    """A watcher that remembers how far the batch came."""

    def __init__(self, view: "Watcher | None") -> None:
        self.name, self.jobs, self.ended_jobs = "", 0, 0
        self._view = view

    def begin(self, name: str, jobs: int) -> None:
        self.name, self.jobs = name, jobs
        if self._view is not None:
            self._view.begin(name, jobs)

    def handle(self, event: Any) -> None:
        if self._view is not None:
            self._view.handle(event)

    def ended(self, row: "JobResult") -> None:
        self.ended_jobs += 1
        if self._view is not None:
            self._view.ended(row)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()


def _view(terminal: Terminal) -> "ManyBar | ManyLines | None":
    from effects.view.many import ManyBar, ManyLines

    if terminal.is_quiet:
        return None
    if terminal.has_live_view:
        return ManyBar(terminal.console(sys.stderr))
    return ManyLines(terminal.progress)


class _Rows:
    """Writes each row to stdout as its job ends, unless the results go elsewhere.

    What can't be written doesn't end the batch: it is told when all is done. On a terminal that
    shows a bar too, rows scroll by above it.
    """

    def __init__(
        self, terminal: Terminal, arguments: Namespace, view: "ManyBar | ManyLines | None"
    ) -> None:
        self._terminal = terminal
        self._is_wanted = arguments.output in (None, STDIO) and not terminal.wants_json
        self._lost: OutputLost | None = None
        has_bar = terminal.has_live_view and sys.stdout.isatty()
        self._above = getattr(view, "above", None) if has_bar else None

    def write(self, row: "JobResult") -> None:
        if not self._is_wanted or self._lost is not None:
            return
        try:
            if self._above is not None:
                self._above(json.dumps(row.to_dict()))
            else:
                self._terminal.json_line(row.to_dict())
        except OutputLost as lost:
            self._lost = lost

    def check(self) -> None:
        """Raise `OutputLost` when rows were lost."""
        if self._lost is not None:
            raise self._lost


def _report(terminal: Terminal, arguments: Namespace, result: "ManyResult") -> int:
    from effects.view.cut import dollars, seconds

    unwritten = _write_files(arguments, result)
    counts = result.counts()
    if terminal.wants_json:
        terminal.json(
            {
                "batch": result.name,
                "log": result.log,
                "counts": counts,
                "stopped": result.stopped,
                "total_tokens": result.total_tokens,
                "cost_usd": result.cost_usd,
                "seconds": round(result.seconds, 3),
                "rows": [row.to_dict() for row in result],
            }
        )
    if not terminal.is_quiet:
        told = [
            f"{count:,} {status.replace('_', ' ')}" for status, count in counts.items() if count
        ]
        told.append(counted(result.total_tokens, "token"))
        if result.cost_usd is not None:
            told.append(dollars(result.cost_usd))
        terminal.tell(f"batch {result.name}: {', '.join([*told, seconds(result.seconds)])}")
    if result.stopped is not None:
        more = how_a_batch_goes_on(result.stopped)
        terminal.tell(f"stopped: {result.stopped.rstrip('.')}. {more}")
    if unwritten:
        raise RLMError(
            "\n".join([*unwritten, "The results are in the log: the same command goes on."])
        )
    if counts["failed"]:
        return FAILED
    return PARTIAL if counts["partial"] or counts["not_started"] else ANSWERED


def _write_files(arguments: Namespace, result: "ManyResult") -> list[str]:
    """Write the files of results; what is wrong with those that can't be written."""
    from effects.many.files import reason

    wrong: list[str] = []
    for path, write in ((arguments.output, result.to_jsonl), (arguments.sqlite, result.to_sqlite)):
        if path is None or (path == STDIO and path == arguments.output):
            continue
        try:
            write(path)
        except Exception as error:  # those of sqlite_utils have no class in common
            wrong.append(f"{path}: the results can't be written: {reason(error)}")
    return wrong


def _check_targets(arguments: Namespace, log: str) -> None:
    """Refuse files for results that can't be written: that must not turn out at the end."""
    from effects.many.files import check_apart, check_apart_from_log, check_jsonl, check_table
    from effects.many.rows import TABLE, JobResult, table_row

    output, table, jobs = arguments.output, arguments.sqlite, arguments.jobs
    if output == STDIO:
        if arguments.json:
            raise UsageError("--output - and --json: both write to stdout, give one of them")
        output = None
    for path in filter(None, (output, table)):
        check_apart_from_log(path, log)
        for file in arguments.paths:
            if file != STDIO:
                check_apart(path, file, "a file of the context")
        if jobs != STDIO:
            check_apart(path, jobs, "the file of the jobs")
    if output is not None:
        if table is not None:
            check_apart(output, table, "the file of --sqlite")
        check_jsonl(output)
    if table is not None:
        some = JobResult(id="", query="", status="failed", origin="none", run_id=RunId("some"))
        check_table(table, table_row("", some), TABLE)
