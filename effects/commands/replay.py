"""``rlm-fsm replay RUN``: a run again from its log, without a network and at no cost."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict

from effects.commands.options import CONTEXT, JSON, LOG, QUIET, Option, whole
from effects.commands.records import add_run_argument, find_run, opened
from effects.commands.terminal import Terminal
from effects.commands.words import in_our_words
from rlm_fsm.errors import ReplayDiverged, UsageError
from rlm_fsm.numbers import counted
from rlm_fsm.state import RunState

GROUPS = {
    "options": (
        Option(
            name="at",
            metavar="N",
            convert=whole(1),
            help="show how the run stood after event N",
        ),
        Option(
            name="run-code",
            help="run the cells again too, and compare what they ask and print",
        ),
        CONTEXT,
        LOG,
        JSON,
        QUIET,
    )
}

add_arguments = add_run_argument


def replay(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Verify a run and print its answer, or a state of it; 1 when it diverges."""
    from effects.commands.conclude import FAILED, difference
    from effects.rlm import log_target

    terminal = Terminal(arguments)
    log = str(log_target(arguments.log))
    with opened(log, arguments.run) as log_:
        run_id = find_run(log_, arguments.run)
    if arguments.at is not None and arguments.run_code:
        raise UsageError("--at shows a state and --run-code runs the whole: give one of them")
    try:
        return _replay(terminal, arguments, log, run_id)
    except ReplayDiverged as diverged:
        terminal.tell(difference(diverged))
        return FAILED


def _replay(terminal: Terminal, arguments: Namespace, log: str, run_id: str) -> int:
    from effects.api import replay
    from effects.commands.run import read_context

    context = None if arguments.context is None else read_context(arguments.context)
    with in_our_words():
        if arguments.at is not None:
            at: int = arguments.at
            state = replay(run_id, log=log, at=at)
            return _show_state(terminal, run_id, state)
        result = replay(run_id, log=log, run_code=bool(arguments.run_code), context=context)
    with opened(log, run_id) as log_:
        events = sum(1 for _ in log_.load(find_run(log_, run_id)))
    if terminal.wants_json:
        document = {
            "run_id": run_id,
            "status": result.status,
            "output": result.output,
            "limit": result.limit,
            "error": result.error,
            "usage": asdict(result.usage),
            "cost_usd": result.cost_usd,
            "log": log,
            "events": events,
            "ran_code": bool(arguments.run_code),
        }
        terminal.json(document)
    elif result.output:
        terminal.answer(result.output)
    if not terminal.is_quiet:
        cells = ", cells run again" if arguments.run_code else ""
        told = f"replayed {counted(events, 'event')}{cells}, no call made"
        terminal.tell(f"{result.status}: {told}")
    return 0


def _show_state(terminal: Terminal, run_id: str, state: RunState) -> int:
    from effects.view.stand import state_document, state_lines

    if terminal.wants_json:
        terminal.json(state_document(run_id, state))
    else:
        terminal.answer("\n".join(state_lines(run_id, state)))
    return 0
