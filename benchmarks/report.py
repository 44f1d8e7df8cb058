"""Showing what the benchmarks found: tables for people, JSON for programs."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.disk import filesystem
from benchmarks.figures import Check, Plan, Report, Table
from rlm_fsm import __version__

WIDTH = 110


def machine(plan: Plan) -> dict[str, Any]:
    """What the figures were measured on, and with."""
    peer = plan.peer
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rlm_fsm": __version__,
        "python": platform.python_version(),
        "peer": f"pyrlm-runtime {peer.version}" if peer else None,
        "peer_python": peer.python if peer else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "log_filesystem": filesystem(plan.folder),
        "load_before": os.getloadavg()[0],
    }


def show_machine(to: Console, facts: dict[str, Any]) -> None:
    """A few lines before the tables."""
    to.print(
        f"rlm-fsm {facts['rlm_fsm']} on Python {facts['python']}; {facts['system']}, "
        f"{facts['cores']} cores; SQLite {facts['sqlite']} on {facts['log_filesystem']}"
    )
    if facts["peer"]:
        to.print(f"peer: {facts['peer']} on Python {facts['peer_python']}")
    if facts["load_before"] > 0.5 * (facts["cores"] or 1):
        to.print(
            f"[yellow]The machine is busy (load {facts['load_before']:.1f}): trust minima only, "
            "and commits least.[/]"
        )
    if facts["log_filesystem"] in ("tmpfs", "ramfs"):
        to.print("[yellow]The logs are in memory: durable figures say nothing.[/]")


def show(to: Console, report: Report) -> None:
    """A benchmark's tables and checks."""
    for table in report.tables:
        to.print()
        to.print(_rendered(table))
    if report.checks:
        to.print()
        to.print(_verdicts(report.checks))


def as_json(facts: dict[str, Any], reports: Sequence[Report]) -> dict[str, Any]:
    """Everything, samples included."""
    return {
        "machine": facts,
        "benchmarks": {
            report.name: {
                "checks": [{**vars(check), "is_met": check.is_met} for check in report.checks],
                **report.raw,
            }
            for report in reports
        },
    }


def console() -> Console:
    """A terminal as wide as it is; a file or a pipe as wide as the tables need."""
    shown = Console()
    return shown if shown.is_terminal else Console(width=WIDTH)


def _rendered(table: Table) -> RichTable:
    shown = RichTable(title=table.title, caption=table.note or None, title_justify="left")
    for number, column in enumerate(table.columns):
        is_text = all(not row[number][:1].isdigit() and row[number] != "-" for row in table.rows)
        shown.add_column(column, justify="left" if is_text else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _verdicts(checks: Sequence[Check]) -> RichTable:
    shown = RichTable(title="Targets, by the minima", title_justify="left")
    for column in ("", "measured", "at most"):
        shown.add_column(column, justify="left" if not column else "right")
    shown.add_column("")
    for check in checks:
        verdict = "[green]met[/]" if check.is_met else "[red]missed[/]"
        shown.add_row(check.what, f"{check.value:.2f}", f"{check.limit:.2f}", verdict)
    return shown
