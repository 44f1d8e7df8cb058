"""``rlm-fsm``, the command line: which command was meant, and what becomes of errors.

1. Nothing but what was asked for goes to stdout: the answer, a list, or a JSON document.
   Progress and messages go to stderr.
2. An expected failure is one message and an exit code, never a traceback.
3. The commands are modules of `effects.commands`, imported when they are needed, so that
   ``--help`` is quick.
"""

import atexit
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from effects.commands import approve as approve_command
from effects.commands import demo as demo_command
from effects.commands import doctor as doctor_command
from effects.commands import events as events_command
from effects.commands import going_on as going_on_command
from effects.commands import many as many_command
from effects.commands import replay as replay_command
from effects.commands import run as run_command
from effects.commands import runs as runs_command
from effects.commands.interrupts import (
    hear_no_interrupts,
    ignore_interrupts,
    interrupts_restored,
)
from effects.commands.options import Option, add_options, fill_in, in_options
from effects.commands.terminal import Terminal, open_streams
from rlm_fsm._version import __version__
from rlm_fsm.errors import LogCorrupt, LogError, RLMError, UsageError

_FAILED, _MISUSE, _CANCELLED = 1, 2, 130
_MARK = "\0"
"""Stands before arguments behind ``--`` while they are parsed."""

_ABOUT = """\
Ask about texts that are too long for a model: it reads them by writing code.
Every run is recorded, event by event, in a log that `show` reads."""

_MORE = """\
examples:
  rlm-fsm demo
  rlm-fsm run "Which invoices are overdue?" invoices/ --model openai:gpt-5
  cat book.txt | rlm-fsm run "Who is the narrator?" --model ollama:llama3
  rlm-fsm show last
  rlm-fsm resume last

The answer goes to stdout, everything else to stderr.
exit codes: 0 answered, 1 failed, 2 misuse (nothing was started), 3 partial (a
limit was reached, the answer is the best so far), 4 waiting for approvals,
130 cancelled.
Every option has an environment variable, named in the help of its command;
the command line wins. rlm-fsm COMMAND --help tells more."""


class _Parser(ArgumentParser):
    """Raises what argparse would print and exit for."""

    def error(self, message: str) -> NoReturn:
        message = message.replace(_MARK, "")
        raise UsageError(f"{message}\nTry: {self.prog} --help")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """A command: how it is called and what it does."""

    help: str
    groups: Mapping[str, Sequence[Option]]
    """Its options, by the title under which the help shows them."""
    add_arguments: Callable[[ArgumentParser], None]
    perform: Callable[..., int]
    more: str = ""
    """Stands at the end of its help."""

    @property
    def options(self) -> list[Option]:
        """All its options."""
        return [option for group in self.groups.values() for option in group]


COMMANDS: dict[str, _Command] = {
    "run": _Command(
        help="answer a question over files, folders or standard input",
        groups=run_command.GROUPS,
        add_arguments=run_command.add_arguments,
        perform=run_command.run,
        more='examples:\n  rlm-fsm run "What was decided?" minutes/*.txt --model openai:gpt-5\n'
        "  rlm-fsm run --json --max-cost 0.50 QUERY notes/ | jq -r .output",
    ),
    "many": _Command(
        help="answer many questions, each over a context, as one batch",
        groups=many_command.GROUPS,
        add_arguments=many_command.add_arguments,
        perform=many_command.many,
        more="Killed and started again, it does only what is missing: jobs whose run has ended\n"
        "are told from the log, runs that were stopped go on.\n\nexamples:\n"
        "  rlm-fsm many questions.jsonl reports/ --model openai:gpt-5 > answers.jsonl\n"
        "  rlm-fsm many jobs.jsonl --budget-cost 5 --output answers.jsonl",
    ),
    "runs": _Command(
        help="list the runs of a log, newest first",
        groups=runs_command.RUNS_GROUPS,
        add_arguments=runs_command.add_runs_arguments,
        perform=runs_command.list_runs,
    ),
    "show": _Command(
        help="show the steps of a run",
        groups=runs_command.SHOW_GROUPS,
        add_arguments=runs_command.add_show_arguments,
        perform=runs_command.show,
    ),
    "resume": _Command(
        help="go on with a run that was killed, cancelled, failed, or ended by a limit",
        groups=going_on_command.RESUME_GROUPS,
        add_arguments=going_on_command.add_arguments,
        perform=going_on_command.resume,
        more="Calls whose outcome is in the log are not made again.\n\nexamples:\n"
        "  rlm-fsm resume last\n  rlm-fsm resume 20261122-1 --max-steps 80",
    ),
    "approve": _Command(
        help="answer for calls of tools that a run waits with; resume then goes on",
        groups=approve_command.GROUPS,
        add_arguments=approve_command.add_arguments,
        perform=approve_command.approve,
        more="The answer is recorded and nothing else is done: no model and no tool is called.\n\n"
        "examples:\n  rlm-fsm approve last\n"
        '  rlm-fsm approve 20261122-1 0.3 --deny --reason "wrong address"',
    ),
    "fork": _Command(
        help="begin a run that shares another one's events up to event N",
        groups=going_on_command.FORK_GROUPS,
        add_arguments=going_on_command.add_arguments,
        perform=going_on_command.fork,
        more="Nothing shared is copied or paid again.\n\nexamples:\n"
        "  rlm-fsm fork last --at 7 --model another\n"
        "  rlm-fsm fork last --at 1 --edit question.txt",
    ),
    "replay": _Command(
        help="verify a run against its log, without any call, and print its answer",
        groups=replay_command.GROUPS,
        add_arguments=replay_command.add_arguments,
        perform=replay_command.replay,
        more="exit codes: 0 verified, however the run ended; 1 it diverges or is damaged.",
    ),
    "events": _Command(
        help="list the events of a run",
        groups=events_command.EVENTS_GROUPS,
        add_arguments=events_command.add_events_arguments,
        perform=events_command.list_events,
    ),
    "diff": _Command(
        help="compare two runs event by event",
        groups=events_command.DIFF_GROUPS,
        add_arguments=events_command.add_diff_arguments,
        perform=events_command.diff,
        more="Not compared are times and the provider's names of requests; and, after the\n"
        "common beginning, what only says that a call begins or that a run goes on.\n"
        "The exit code is 0 whether they differ or not.",
    ),
    "verify": _Command(
        help="check a run, or all runs of a log, for damage",
        groups=events_command.VERIFY_GROUPS,
        add_arguments=events_command.add_verify_arguments,
        perform=events_command.verify,
    ),
    "demo": _Command(
        help="watch a run that needs no model: a scripted one searches a haystack",
        groups=demo_command.GROUPS,
        add_arguments=demo_command.add_arguments,
        perform=demo_command.demo,
    ),
    "doctor": _Command(
        help="say what this machine offers: versions, layers of the sandbox, settings",
        groups=doctor_command.GROUPS,
        add_arguments=doctor_command.add_arguments,
        perform=doctor_command.doctor,
        more="exit codes: 0; with --strict 1 when a layer of the sandbox is missing.",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. `argv` is ``sys.argv[1:]`` unless given."""
    open_streams()
    if argv is not None:
        with interrupts_restored():
            return _main(argv)
    # Of a program that is about to end nobody wants to hear more.
    atexit.register(ignore_interrupts)
    return _main(sys.argv[1:])


def _main(argv: Sequence[str]) -> int:
    terminal = Terminal()
    try:
        try:
            return _perform(argv)
        except SystemExit as end:  # argparse ends --help and --version so
            return end.code if isinstance(end.code, int) else _FAILED
        finally:
            terminal.flush()
    except KeyboardInterrupt:
        hear_no_interrupts()
        terminal.tell("cancelled; nothing was started")
        return _CANCELLED
    except RLMError as error:
        terminal.tell(in_options(str(error)))
        return _exit_code(error)


def _perform(argv: Sequence[str]) -> int:
    command = COMMANDS.get(argv[0]) if argv else None
    if command is None:
        make_parser().parse_args(argv)  # ends with help, the version, or what is wrong
        make_parser().print_help(sys.stderr)
        return _MISUSE
    # Its own parser, since argparse lets options stand among the paths only without subparsers.
    arguments = _parsed(make_command_parser(argv[0]), argv[1:])
    fill_in(arguments, command.options, os.environ)
    return command.perform(arguments, os.environ)


def _parsed(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """The arguments. What stands behind ``--`` is no option, whatever it begins with.

    argparse forgets that when it looks at the others for a second time, as it does to let options
    stand among them. So these have a mark in front meanwhile, which no real argument can have.
    """
    end = argv.index("--") + 1 if "--" in argv else len(argv)
    marked = [f"{_MARK}{argument}" for argument in argv[end:]]
    arguments = parser.parse_intermixed_args([*argv[:end], *marked])
    for name, value in vars(arguments).items():
        if isinstance(value, str):
            setattr(arguments, name, value.removeprefix(_MARK))
        elif isinstance(value, list):
            parts = cast(list[object], value)
            plain = [part.removeprefix(_MARK) if isinstance(part, str) else part for part in parts]
            setattr(arguments, name, plain)
    return arguments


def make_parser() -> ArgumentParser:
    """The parser of what stands before a command: its help lists the commands."""
    parser = _Parser(
        prog="rlm-fsm",
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rlm-fsm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    return parser


def make_command_parser(name: str) -> ArgumentParser:
    """The parser of what stands behind a command's name."""
    command = COMMANDS[name]
    parser = _Parser(
        prog=f"rlm-fsm {name}",
        description=command.help[:1].upper() + command.help[1:] + ".",
        epilog=command.more or None,
        formatter_class=RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    for title, options in command.groups.items():
        add_options(parser, title, options)
    return parser


def _exit_code(error: RLMError) -> int:
    """Misuse when the caller can mend it; a damaged log or a broken machine is a failure."""
    if isinstance(error, LogCorrupt):
        return _FAILED
    return _MISUSE if isinstance(error, UsageError | LogError) else _FAILED
