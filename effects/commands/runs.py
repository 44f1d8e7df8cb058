"""``rlm-fsm runs`` and ``rlm-fsm show RUN``: what a log holds."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any

from effects.commands.options import JSON, LOG, NO_COLOR, Option, whole
from effects.commands.records import Record, add_run_argument, read_record
from effects.commands.terminal import Terminal
from effects.log.base import RunInfo

_WRAPPED = 76
"""Columns of a list of layers: the narrowest terminals show it whole."""

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

add_show_arguments = add_run_argument


def add_runs_arguments(parser: ArgumentParser) -> None:
    """It takes options only."""


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
    for info in shown:
        for line in _waiting(info, arguments.log):
            terminal.tell(line)
    if len(shown) < len(found):
        terminal.tell(f"{len(shown)} of {len(found):,} runs; --limit 0 shows all")
    return 0


def show(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Print the steps of a run; the exit code is 1 for a damaged one."""
    from effects.result import usage_of
    from effects.rlm import log_target
    from effects.settings import read_settings
    from effects.tools.requests import requests
    from rlm_fsm.trace import trace

    terminal = Terminal(arguments)
    log = str(log_target(arguments.log))
    record = read_record(log, arguments.run)
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
            "environment": record.environment,
            "parent": record.info.parent if record.info else None,
            "parent_seq": record.info.parent_seq if record.info else None,
            "in_flight": [*state.under_way],
            "approvals": [asdict(item) for item in requests(record.run_id, record.events)],
            "damage": record.damage,
            "steps": [asdict(step) for step in steps],
        }
        terminal.json(document)
    else:
        from effects.view.marks import marks
        from effects.view.show import show_run

        show_run(
            terminal.console(sys.stdout),
            record.run_id,
            state,
            steps,
            full=bool(arguments.full),
            origin=record.origin,
            marks=marks(record.events),
            advice=_advice(record, log, read_settings(environment).log),
            sandbox=_sandbox(record.environment, full=bool(arguments.full)),
        )
    if record.damage is not None:
        terminal.tell(record.damage)
        return 1
    return 0


def _advice(record: Record, log: str, default_log: str) -> str:
    """How to go on with a run; nothing for one that has finished or is damaged."""
    from effects.commands.conclude import log_option, resume_command
    from effects.tools.requests import requests

    if record.state.status == "finished" or record.damage is not None:
        return ""
    command = resume_command(record.run_id, record.state, log, default_log)
    if record.state.status == "waiting":
        from effects.commands.approve import lines

        found = lines(requests(record.run_id, record.events))
        answer = f"rlm-fsm approve {record.run_id}{log_option(log, default_log)}"
        return "\n".join([*found, f"answer with: {answer}", f"then it goes on with: {command}"])
    if record.state.status == "running":
        return f"it is being worked on, or was killed; then it goes on with: {command}"
    return f"it goes on with: {command}"


def _waiting(info: RunInfo, log: str | None) -> list[str]:
    """The calls for which a run waits."""
    if info.status != "waiting":
        return []
    from effects.approvals import approvals
    from effects.commands.approve import lines

    return [f"{info.run_id} {line}" for line in lines(approvals(info.run_id, log=log))]


def _sandbox(environment: Mapping[str, str], *, full: bool) -> list[str]:
    """The sandbox as a run recorded it: what it closed, and with `full` each of its layers."""
    lines = [f"sandbox: {environment['sandbox']}"] if "sandbox" in environment else []
    for name in ("sandbox.active", "sandbox.missing") if full else ():
        if text := environment.get(name):
            lines += wrap(f"{name}: {text}", _WRAPPED, subsequent_indent="  ")
    return lines
