"""``rlm-fsm events``, ``verify`` and ``diff``: what a log holds, whether it is whole, and how two
runs differ."""

import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from effects.commands.options import JSON, LOG, Option, whole
from effects.commands.records import RUN_HELP, add_run_argument, find_run, opened, read_record
from effects.commands.terminal import Terminal
from effects.view.cut import clean, head
from rlm_fsm.errors import RunNotFound, UsageError
from rlm_fsm.event import EffectStarted, Event, RunResumed
from rlm_fsm.numbers import counted

if TYPE_CHECKING:
    from effects.log.checking import RunCheck

_PIPE_WIDTH = 160
"""Columns of a line that isn't shown on a terminal."""
_VALUE_CHARS = 120

EVENTS_GROUPS = {"options": (LOG, JSON)}
VERIFY_GROUPS = {"options": (LOG, JSON)}
DIFF_GROUPS = {
    "options": (
        Option(
            name="pairs",
            metavar="N",
            convert=whole(0),
            help="how many differences to show (default 3; 0: all)",
        ),
        LOG,
        JSON,
    )
}

add_events_arguments = add_run_argument


def add_verify_arguments(parser: ArgumentParser) -> None:
    """Which run, or all."""
    parser.add_argument("run", metavar="RUN", nargs="?", help=f"{RUN_HELP}; nothing: all runs")


def add_diff_arguments(parser: ArgumentParser) -> None:
    """Which runs."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    parser.add_argument("other", metavar="OTHER", help="the run to compare it with")


class _Pair(NamedTuple):
    """Two events that stand at the same place of two runs, each with its number."""

    first: tuple[int, Event] | None
    second: tuple[int, Event] | None


def list_events(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Print the events of a run; 1 for a damaged one."""
    from effects.rlm import log_target
    from effects.view.events import event_line

    terminal = Terminal(arguments)
    record = read_record(str(log_target(arguments.log)), arguments.run)
    if terminal.wants_json:
        events = [
            {
                "seq": logged.seq,
                "at": logged.at,
                "kind": type(logged.event).__name__,
                **asdict(logged.event),
            }
            for logged in record.logged
        ]
        terminal.json(events)
    else:
        width = _width()
        lines = [event_line(item.seq, item.at, item.event, width) for item in record.logged]
        terminal.answer("\n".join(lines))
    if record.damage is not None:
        terminal.tell(record.damage)
        return 1
    return 0


def verify(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Read and check runs, a line each; 1 when one is damaged."""
    from effects.rlm import log_target

    terminal = Terminal(arguments)
    checks = _checks(str(log_target(arguments.log)), arguments.run)
    damaged = sum(check.problem is not None for check in checks)
    if terminal.wants_json:
        terminal.json([asdict(check) for check in checks])
        return 1 if damaged else 0
    for check in checks:
        events = counted(check.events, "event")
        if check.problem is None:
            terminal.answer(f"ok       {check.run_id}  {events}")
        else:
            good = f"good up to event {check.events:,}"
            terminal.answer(clean(f"DAMAGED  {check.run_id}  {good}: {check.problem}"))
    if damaged:
        terminal.tell(f"{damaged:,} of {counted(len(checks), 'run')} damaged")
        return 1
    return 0


def diff(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Compare two runs event by event; 0, whether they differ or not."""
    from effects.rlm import log_target
    from effects.view.events import differing

    terminal = Terminal(arguments)
    log = str(log_target(arguments.log))
    first, second = (read_record(log, name) for name in (arguments.run, arguments.other))
    for record in (first, second):
        record.check()
    if first.run_id == second.run_id:
        raise UsageError(f"both names mean the run {first.run_id}")
    lengths = (len(first.events), len(second.events))
    both = zip(first.events, second.events, strict=False)
    unlike = (number for number, pair in enumerate(both) if differing(*pair))
    shared = next(unlike, min(lengths))
    rests = (_facts(record.events, shared) for record in (first, second))
    pairs = [
        _Pair(ours, theirs)
        for ours, theirs in zip_longest(*rests)
        if ours is None or theirs is None or differing(ours[1], theirs[1])
    ]
    if terminal.wants_json:
        terminal.json(
            {
                "runs": [first.run_id, second.run_id],
                "events": list(lengths),
                "shared": shared,
                "differing": [_pair_document(pair) for pair in pairs],
            }
        )
        return 0
    limit = 3 if arguments.pairs is None else arguments.pairs
    shown = pairs[:limit] if limit else pairs
    terminal.answer(
        f"- {first.run_id}: {counted(lengths[0], 'event')}\n"
        f"+ {second.run_id}: {counted(lengths[1], 'event')}\n"
        f"{counted(shared, 'event')} alike, then {counted(len(pairs), 'difference')}"
    )
    for pair in shown:
        terminal.answer("\n".join(_pair_lines(pair)))
    if len(shown) < len(pairs):
        terminal.tell(f"{len(shown):,} of {counted(len(pairs), 'difference')}; --pairs 0 shows all")
    return 0


def _checks(log: str, name: str | None) -> "Sequence[RunCheck]":
    from effects.log.sqlite import SqliteLog

    with opened(log, name or "") as log_:
        assert isinstance(log_, SqliteLog), "a log in a file"
        if name is None:
            return log_.verify()
        try:
            return log_.verify(find_run(log_, name))
        except RunNotFound:
            # A run that the log has lost is still known to its heads.
            lost = [check for check in log_.verify() if check.run_id.startswith(name)]
            if not lost:
                raise
            return lost


def _facts(events: Sequence[Event], after: int) -> list[tuple[int, Event]]:
    """The events after one, but those that only say that something begins or begins again: a run
    that was resumed, and a fork, have more of them."""
    return [
        (number, event)
        for number, event in enumerate(events[after:], after + 1)
        if not isinstance(event, EffectStarted | RunResumed)
    ]


def _pair_lines(pair: _Pair) -> list[str]:
    from effects.view.events import about, differing, from_difference, says

    first, second = pair
    if first is not None and second is not None and type(first[1]) is type(second[1]):
        lines = [f"{type(first[1]).__name__} {about(first[1])}"]
        for name, ours, theirs in differing(first[1], second[1]):
            texts = from_difference(_text(ours), _text(theirs), _VALUE_CHARS)
            for sign, item, text in zip("-+", (first, second), texts, strict=True):
                lines.append(f"{sign} event {item[0]:,}, {name}: {text}")
        return lines
    lines = [""]
    for sign, stands in (("-", first), ("+", second)):
        if stands is None:
            lines.append(f"{sign} (no more events)")
        else:
            number, event = stands
            said = head(says(event), _VALUE_CHARS)
            lines.append(f"{sign} event {number:,}: {type(event).__name__} {about(event)}: {said}")
    return lines


def _pair_document(pair: _Pair) -> dict[str, Any]:
    from effects.view.events import differing

    first, second = pair
    alike = first is not None and second is not None and type(first[1]) is type(second[1])
    fields = differing(first[1], second[1]) if alike and first and second else []
    return {
        "seqs": [item and item[0] for item in pair],
        "kinds": [item and type(item[1]).__name__ for item in pair],
        "fields": {name: [_text(ours), _text(theirs)] for name, ours, theirs in fields},
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _width() -> int:
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns
    return _PIPE_WIDTH
