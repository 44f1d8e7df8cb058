"""``rlm-fsm run QUERY [PATH...]``: one question over files, folders, globs or stdin."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effects.commands.choices import (
    GUARD_OPTIONS,
    LIMIT_OPTIONS,
    MODEL_OPTIONS,
    WORK_OPTIONS,
    cache_given,
    limits_given,
    make_adapters,
    options_given,
    policy_given,
    prices_given,
)
from effects.commands.interrupts import apart
from effects.commands.options import JSON, LOG, NO_COLOR, QUIET
from effects.commands.terminal import Terminal
from effects.commands.tools import TOOLS, tools_given
from rlm_fsm.errors import UsageError
from rlm_fsm.policy import Policy

OUTPUT_OPTIONS = (LOG, JSON, QUIET, NO_COLOR)
GROUPS = {
    "model": MODEL_OPTIONS,
    "limits": LIMIT_OPTIONS,
    "work": (*WORK_OPTIONS, TOOLS),
    "guards": GUARD_OPTIONS,
    "output": OUTPUT_OPTIONS,
}


def add_arguments(parser: ArgumentParser) -> None:
    """What stands on the command line besides options."""
    # Optional for argparse, which else names PATH as missing too.
    parser.add_argument("query", metavar="QUERY", nargs="?", help="the question")
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="files, folders or globs that make up the context; - or nothing: standard input",
    )


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Answer a question; the exit code. Raises `UsageError` before anything is started."""
    from effects.commands.conclude import perform, report
    from effects.rlm import RLM, log_target
    from effects.settings import read_settings

    terminal = Terminal(arguments)
    if not (arguments.query or "").strip():
        raise UsageError('there is no question: rlm-fsm run "QUESTION" PATH...')
    log = log_target(arguments.log)
    view = terminal.view()
    rlm = RLM(
        policy=policy_given(arguments, Policy()),
        prices=prices_given(arguments),
        log=log,
        event_listener=view,
        logger=silent_logger(),
        **make_adapters(arguments, environment),
        **options_given(arguments),
        **limits_given(arguments),
        **tools_given(arguments),
        **cache_given(arguments),
    )
    context = read_context(arguments.paths)
    for name, reason in context.skipped if not terminal.is_quiet else ():
        terminal.tell(f"{name}: passed over, {reason}")
    end = perform(apart(lambda: rlm.run(arguments.query, context)), view, str(log))
    return report(end, terminal, default_log=read_settings(environment).log)


def read_context(paths: Sequence[str]) -> Any:
    """One context of all paths; standard input comes first. A `Context`."""
    from effects.context import Context

    files = [Path(path) for path in paths if path != "-"]
    if len(files) == len(paths) and files:
        return Context.of(files)
    if not paths and sys.stdin.isatty():
        raise UsageError("there is no context: give files, folders or globs, or pipe a text in")
    text = _standard_input()
    if not files:
        return Context.from_text(text)
    rest = Context.of(files)
    documents = [rest.get_document(i) or "" for i in range(rest.num_documents())]
    return Context.from_documents([text, *documents], names=["-", *(rest.names or ())])


def silent_logger() -> logging.Logger:
    """A logger that says nothing: what it would say is what the command line tells itself."""
    logger = logging.getLogger("rlm_fsm.cli")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _standard_input() -> str:
    try:
        text = str(sys.stdin.buffer.read(), "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 (byte {error.start}: {error.reason})"
        ) from None
    if not text.strip():
        raise UsageError("standard input is empty: there is no context")
    return text
