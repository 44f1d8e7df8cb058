"""Options of the command line, as data: each is a flag of argparse and an environment variable.

An option given on the command line wins over its variable ``RLM_FSM_<OPTION>``, and both over the
default. An empty variable counts as unset.
"""

import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rlm_fsm.errors import UsageError
from rlm_fsm.price import Price

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_ARGUMENTS = (
    (r"^max_cost_usd=(\S+) can't be kept", r"a limit of \1 USD can't be kept"),
    (
        r"Pass prices=\{'(.+)': Price\(.*?\)\}",
        r'Give --price "\1=SENT,GENERATED", in USD for a million tokens',
    ),
    (r"^name=('.*'): give 1 to", r"--batch \1: give 1 to"),
    (
        r"give max_history_tokens=\.\.\., or an adapter with a context_window",
        "give --max-history-tokens N",
    ),
)
"""What the library says of its arguments -> the options that stand for them."""


class NoLimit:
    """The value of a limit that was given as ``none``; an option that wasn't given is None."""


NO_LIMIT: Final = NoLimit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of one command."""

    name: str
    """Without its dashes: ``max-steps``."""
    help: str
    metavar: str = ""
    """Name of its value; empty for a flag, which takes none."""
    convert: Callable[[str], Any] = str
    """From text to value; raises `ArgumentTypeError`."""
    is_list: bool = False
    """Whether it takes one value or more, and several times; in the environment, the separator is
    that of PATH."""

    @property
    def dest(self) -> str:
        """Its attribute of the parsed arguments."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"RLM_FSM_{self.dest.upper()}"


def in_options(message: str) -> str:
    """What the library says is wrong before a run begins, with the names that people type."""
    for theirs, ours in _ARGUMENTS:
        message = re.sub(theirs, ours, message)
    return message


def add_options(parser: ArgumentParser, title: str, options: Sequence[Option]) -> None:
    """Let a parser take options, as a group of its help; ``options`` is argparse's own group."""
    group = parser if title == "options" else parser.add_argument_group(title)
    for option in options:
        explained = f"{option.help} [{option.variable}]".replace("%", "%%")
        name, dest = f"--{option.name}", option.dest
        if option.metavar:
            group.add_argument(
                name,
                dest=dest,
                type=option.convert,
                metavar=option.metavar,
                default=None,
                help=explained,
                nargs="+" if option.is_list else None,
                action="extend" if option.is_list else "store",
            )
        else:
            group.add_argument(name, dest=dest, action="store_true", default=None, help=explained)


def fill_in(
    arguments: Namespace, options: Sequence[Option], environment: Mapping[str, str]
) -> None:
    """Give the options that the command line left out their values from the environment."""
    for option in options:
        text = environment.get(option.variable, "").strip()
        if text and getattr(arguments, option.dest) is None:
            try:
                setattr(arguments, option.dest, _from_environment(option, text))
            except ArgumentTypeError as error:
                raise UsageError(f"{option.variable}: {error}") from None


def _from_environment(option: Option, text: str) -> Any:
    if option.is_list:
        return [option.convert(part) for part in text.split(os.pathsep)]
    return option.convert(text) if option.metavar else _truth(text)


def whole(least: int) -> Callable[[str], int]:
    """A converter to whole numbers, `least` or more."""

    def convert(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            value = least - 1
        if value < least:
            raise ArgumentTypeError(f"give a whole number, {least} or more, not {text!r}")
        return value

    return convert


def limit(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter that takes ``none`` as well, for no limit."""

    def converted(text: str) -> Any:
        if text.lower() == "none":
            return NO_LIMIT
        try:
            return convert(text)
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"{error}; none is no limit") from None

    return converted


def amount(text: str) -> float:
    """A number, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"give a number, 0 or more, not {text!r}")
    return value


def seconds(text: str) -> float:
    """A number above 0."""
    value = amount(text)
    if not value:
        raise ArgumentTypeError("give a number of seconds above 0")
    return value


def share(text: str) -> float:
    """A share of something: from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"give a share from 0 to 1, such as 0.8, not {text!r}")
    return value


def prices(text: str) -> dict[str, Price]:
    """Prices by model, from ``MODEL=IN,OUT`` with blanks between models."""
    found: dict[str, Price] = {}
    for part in text.split():
        model, _, numbers = part.rpartition("=")
        try:
            prompt, completion = (float(number) for number in numbers.split(","))
            found[model] = Price(prompt_usd_per_mtok=prompt, completion_usd_per_mtok=completion)
        except (ValueError, UsageError):
            model = ""
        if not model:
            raise ArgumentTypeError(f"give MODEL=IN,OUT in USD per million tokens, not {part!r}")
    return found


def choice(*allowed: str) -> Callable[[str], str]:
    """A converter that takes some words only."""

    def convert(text: str) -> str:
        if text not in allowed:
            raise ArgumentTypeError(f"choose {' or '.join(allowed)}, not {text!r}")
        return text

    return convert


def _truth(text: str) -> bool:
    """Whether a flag's variable switches it on."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ArgumentTypeError(f"give 1 or 0, not {text!r}")


LOG = Option(
    name="log",
    metavar="FILE",
    help="log of the runs (default: log.sqlite in the user's data directory)",
)
JSON = Option(name="json", help="print one JSON document on stdout")
QUIET = Option(name="quiet", help="no progress on stderr, errors only")
NO_COLOR = Option(name="no-color", help="no colours; NO_COLOR does the same")
REPL = Option(
    name="repl",
    metavar="BACKEND",
    convert=choice("python", "monty"),
    help="where code runs: python, a process of its own (default), or monty, a sandboxed "
    "interpreter of a part of Python",
)
ISOLATION = Option(
    name="isolation",
    metavar="HOW",
    convert=choice("best-effort", "strict"),
    help="strict: run nothing when files or network can't be closed to code (see rlm-fsm doctor); "
    "best-effort, the default: close what this machine can, and record what is open",
)
CONTEXT = Option(
    name="context",
    metavar="PATH",
    is_list=True,
    help="the files, folders or globs that the run began with, when the log can't give its "
    "context back; - for standard input",
)
ACCEPT_CHANGED_OUTPUT = Option(
    name="accept-changed-output",
    help="go on although a cell prints something else when it is run again (a clock, chance)",
)
