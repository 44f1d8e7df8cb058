"""``rlm-fsm approve RUN [CALL...]``: answers for calls of tools that a run waits with."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from effects.commands.options import JSON, LOG, NO_COLOR, QUIET, Option
from effects.commands.records import RUN_HELP, read_record
from effects.commands.terminal import Terminal
from effects.tools.toolbox import ApprovalRequest
from effects.view.cut import clean, head
from rlm_fsm.errors import UsageError

_ARGUMENTS_CHARS = 300

GROUPS: dict[str, tuple[Option, ...]] = {
    "answer": (
        Option(name="all", help="answer for all calls that wait"),
        Option(name="deny", help="deny the calls: their code is told, and they are not made"),
        Option(
            name="reason",
            metavar="TEXT",
            help="why, for the log; the code is told a refusal's",
        ),
        Option(name="by", metavar="NAME", help="who answers (default: the user's name)"),
    ),
    "output": (LOG, JSON, QUIET, NO_COLOR),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Which run, and which of its calls."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "calls",
        metavar="CALL",
        nargs="*",
        default=[],  # else it would be said to be required
        help="ids of calls, such as 0.1; needed when several wait, unless --all is given",
    )


def approve(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Record the answers; the exit code. Nothing is resumed."""
    from effects import approvals
    from effects.commands.conclude import resume_command
    from effects.rlm import log_target
    from effects.settings import read_settings
    from effects.tools.requests import requests

    terminal = Terminal(arguments)
    log = str(log_target(arguments.log))
    record = read_record(log, arguments.run)
    record.check()
    waiting = [item for item in requests(record.run_id, record.events) if item.is_approved is None]
    if len(waiting) > 1 and not arguments.calls and not arguments.all:
        raise UsageError(
            f"run {record.run_id} waits with {len(waiting)} calls: name one or more, or give "
            "--all\n" + "\n".join(lines(waiting))
        )
    found = approvals.approve(
        record.run_id,
        None if arguments.all or not arguments.calls else arguments.calls,
        deny=bool(arguments.deny),
        reason=arguments.reason or "",
        by=arguments.by,
        log=log,
    )
    if terminal.wants_json:
        terminal.json({"run_id": record.run_id, "approvals": [asdict(item) for item in found]})
        return 0
    for line in lines(found):
        terminal.tell(line)
    if not terminal.is_quiet:
        default = read_settings(environment).log
        go_on = resume_command(record.run_id, read_record(log, record.run_id).state, log, default)
        terminal.tell(f"Go on: {go_on}")
    return 0


def lines(found: Iterable[ApprovalRequest]) -> list[str]:
    """A line for each request: its id, the call, and how it stands."""
    told = {None: "waits", True: "approved", False: "denied"}
    return [
        f"{item.call_id}  {told[item.is_approved]}  {item.tool}"
        f"({head(clean(json.dumps(item.arguments)), _ARGUMENTS_CHARS)})"
        for item in found
    ]
