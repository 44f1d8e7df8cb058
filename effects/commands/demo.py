"""``rlm-fsm demo``: a whole run without a key or a server, see `effects.demo`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from effects.commands.interrupts import apart
from effects.commands.options import JSON, LOG, NO_COLOR, QUIET, REPL, Option, amount, whole
from effects.commands.terminal import Terminal
from rlm_fsm.errors import UsageError
from rlm_fsm.numbers import number

_LARGEST_MB = 200

OPTIONS = (
    Option(
        name="seed",
        metavar="N",
        convert=whole(0),
        help="which archive: another seed has another answer (default 1)",
    ),
    Option(name="size", metavar="MB", convert=amount, help="millions of characters (default 3)"),
    Option(name="fast", help="no pauses for the eye"),
    REPL,
    LOG,
    JSON,
    QUIET,
    NO_COLOR,
)
GROUPS = {"options": OPTIONS}


def add_arguments(parser: ArgumentParser) -> None:
    """It takes options only."""


def demo(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Show a run; the exit code is 1 when its answer isn't the planted one."""
    from effects.commands.conclude import FAILED, perform, report
    from effects.commands.run import silent_logger
    from effects.context import Context
    from effects.demo import is_right, make_haystack, root_model, sub_model
    from effects.rlm import RLM, log_target
    from effects.settings import read_settings

    terminal = Terminal(arguments)
    size = 3.0 if arguments.size is None else arguments.size
    if size > _LARGEST_MB:
        raise UsageError(f"--size {number(size)}: give {_LARGEST_MB} or less")
    log = log_target(arguments.log)
    view = terminal.view()
    is_fast = bool(arguments.fast)
    rlm = RLM(
        root_model(is_fast=is_fast),
        subcall_adapter=sub_model(is_fast=is_fast),
        repl_backend=arguments.repl or "python",
        log=log,
        event_listener=view,
        logger=silent_logger(),
    )
    seed = 1 if arguments.seed is None else arguments.seed
    if not terminal.is_quiet:
        terminal.progress(f"archive {seed}: {number(size)} million characters are being written")
    haystack = make_haystack(seed, chars=int(size * 1_000_000))
    context = Context.from_documents(haystack.documents, names=haystack.names)
    end = perform(apart(lambda: rlm.run(haystack.question, context)), view, str(log))
    code = report(end, terminal, default_log=read_settings(environment).log)
    if end.state.status != "finished":
        return code
    right = is_right(end.state.output, haystack)
    if not terminal.is_quiet or not right:
        verdict = "right" if right else "WRONG"
        terminal.tell(f"the planted truth is {haystack.truth} crates: the answer is {verdict}")
    return code if right else FAILED
