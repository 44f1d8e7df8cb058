"""``rlm-fsm resume RUN`` and ``rlm-fsm fork RUN --at N``: going on with runs that exist."""

import re
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from effects.commands.choices import (
    GUARD_OPTIONS,
    LIMIT_OPTIONS,
    LIMITS,
    MODEL_OPTIONS,
    WORK_OPTIONS,
    as_recorded,
    cache_given,
    limits_given,
    make_adapters,
    options_given,
    policy_given,
    prices_given,
)
from effects.commands.interrupts import apart
from effects.commands.options import (
    ACCEPT_CHANGED_OUTPUT,
    CONTEXT,
    ISOLATION,
    JSON,
    LOG,
    NO_COLOR,
    QUIET,
    Option,
    choice,
    whole,
)
from effects.commands.records import Record, add_run_argument, earlier_events, opened, read_record
from effects.commands.run import read_context, silent_logger
from effects.commands.terminal import Terminal
from effects.commands.tools import TOOLS, tools_given
from effects.commands.words import in_our_words
from effects.view.marks import in_flight
from effects.view.plain import totals
from rlm_fsm.errors import UsageError
from rlm_fsm.event import CodeExecuted, Event, ModelReplied, OnUncertain, RunStarted
from rlm_fsm.numbers import number
from rlm_fsm.policy import Policy
from rlm_fsm.state import RunState

_MODEL = tuple(option for option in MODEL_OPTIONS if option.name in ("model", "subcall-model"))
_URL = tuple(option for option in MODEL_OPTIONS if option.name == "base-url")
_REST = tuple(option for option in MODEL_OPTIONS if option not in (*_MODEL, *_URL))
_CACHE = as_recorded([option for option in WORK_OPTIONS if option.name == "cache"])
_OUTPUT = (LOG, JSON, QUIET, NO_COLOR)
_MODELS_TITLE = "model (the names as in the log, unless given)"
_LIMITS_TITLE = "limits (as in the log, unless given)"

RESUME_GROUPS: dict[str, tuple[Option, ...]] = {
    _MODELS_TITLE: (*_MODEL, *_URL),
    _LIMITS_TITLE: as_recorded(LIMIT_OPTIONS),
    "going on": (
        CONTEXT,
        TOOLS,
        ISOLATION,
        *_CACHE,
        Option(
            name="on-uncertain",
            metavar="WHAT",
            convert=choice("retry", "fail"),
            help="calls that were in flight when the run stopped: retry, make them again (default; "
            "they may be paid twice), or fail, let them count as failed",
        ),
        ACCEPT_CHANGED_OUTPUT,
    ),
    "output": _OUTPUT,
}
FORK_GROUPS: dict[str, tuple[Option, ...]] = {
    "fork": (
        Option(
            name="at", metavar="N", convert=whole(1), help="the event up to which all is shared"
        ),
        Option(
            name="edit",
            metavar="FILE",
            help="a file, or - for standard input, with another text for event N: the reply of a "
            "ModelReplied, what a CodeExecuted printed, the question of event 1",
        ),
        CONTEXT,
        TOOLS,
        ACCEPT_CHANGED_OUTPUT,
    ),
    _MODELS_TITLE: (*_MODEL, *_URL, *as_recorded(_REST)),
    _LIMITS_TITLE: as_recorded(LIMIT_OPTIONS),
    "work (as in the log, unless given)": as_recorded(WORK_OPTIONS),
    "guards (as in the log, unless given)": as_recorded(GUARD_OPTIONS),
    "output": _OUTPUT,
}

add_arguments = add_run_argument


def resume(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Go on with a run; the exit code. Raises before anything is appended."""
    from effects import api
    from effects.commands.conclude import perform, report
    from effects.rlm import log_target
    from effects.settings import read_settings

    terminal = Terminal(arguments)
    log = str(log_target(arguments.log))
    record = read_record(log, arguments.run)
    record.check()
    state = record.state
    policy = _policy(arguments, state)
    given: dict[str, Any] = {}
    if state.status != "finished":
        _check_limit(state, policy or state.options.policy)
        given = _models(arguments, environment, record)
    view = terminal.view(partial(earlier_events, log))
    on_uncertain: OnUncertain = arguments.on_uncertain or "retry"
    with in_our_words():
        act = partial(
            api.resume,
            record.run_id,
            log=log,
            context=_context(arguments),
            policy=policy,
            on_uncertain=on_uncertain,
            on_changed_output="accept" if arguments.accept_changed_output else "raise",
            prices=prices_given(arguments),
            event_listener=view,
            logger=silent_logger(),
            **given,
            **limits_given(arguments),
            **tools_given(arguments),
            **cache_given(arguments),
        )
        with opened(log, record.run_id) as log_, log_.lead(record.run_id):
            pass  # Raises `RunBusy`: nothing is said of a run that somebody works on.
        if not terminal.is_quiet:
            terminal.tell(_standing(record, on_uncertain, policy))
        end = perform(apart(act), view, log)
    return report(end, terminal, default_log=read_settings(environment).log)


def fork(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Begin a run that shares another's events; the exit code."""
    from effects import api
    from effects.commands.conclude import perform, report
    from effects.rlm import log_target
    from effects.settings import read_settings

    terminal = Terminal(arguments)
    if arguments.at is None:
        raise UsageError("--at N is missing: rlm-fsm fork RUN --at N; rlm-fsm events RUN counts")
    log = str(log_target(arguments.log))
    record = read_record(log, arguments.run)
    at: int = arguments.at
    events = record.events
    if at > len(events):
        record.check()
        raise UsageError(f"--at {at}: the run {record.run_id} has events 1 to {len(events)}")
    edit = None if arguments.edit is None else _edit(events[at - 1], at, arguments.edit)
    with in_our_words():
        state = api.replay(record.run_id, log=log, at=at)
        changes = options_given(arguments)
        if (policy := _policy(arguments, state)) is not None:
            changes["policy"] = policy
        # A cell whose output was edited can't print it when it is run again.
        accepts = arguments.accept_changed_output or isinstance(edit, CodeExecuted)
        view = terminal.view(partial(earlier_events, log))
        act = partial(
            api.fork,
            record.run_id,
            at=at,
            log=log,
            context=_context(arguments),
            edit=edit,
            on_changed_output="accept" if accepts else "raise",
            prices=prices_given(arguments),
            event_listener=view,
            logger=silent_logger(),
            **_models(arguments, environment, record),
            **changes,
            **limits_given(arguments),
            **tools_given(arguments),
            **cache_given(arguments),
        )
        if not terminal.is_quiet:
            what = f"another text in event {at:,}" if edit is not None else f"event {at:,}"
            terminal.tell(f"a fork of {record.run_id} begins with {what}")
        end = perform(apart(act), view, log)
    return report(end, terminal, default_log=read_settings(environment).log)


def _policy(arguments: Namespace, state: RunState) -> Policy | None:
    """The run's limits with those that were given; None when nothing changes."""
    before = state.options.policy
    policy = policy_given(arguments, before)
    return None if policy == before else policy


def _check_limit(state: RunState, policy: Policy) -> None:
    """Refuse to go on under the limit that ended the run, with the option that raises it."""
    option = next((ours for ours, name in LIMITS.items() if name == state.limit), None)
    if option is None or not state.is_over:
        return
    allowed, now = (getattr(p, LIMITS[option]) for p in (state.options.policy, policy))
    if allowed is not None and now is not None and now <= allowed:
        name = option.replace("_", "-")
        raise UsageError(
            f"the run ended at its limit {state.limit}={number(allowed)}: "
            f"give a larger --{name} to go on"
        )


def _models(arguments: Namespace, environment: Mapping[str, str], record: Record) -> dict[str, Any]:
    """The models that were given; else those that the log names, where a name is enough."""
    from effects.settings import read_settings

    if arguments.model is None and read_settings(environment).model is None:
        named = record.environment
        root, sub = named.get("adapter.root", ""), named.get("adapter.subcall", "")
        arguments.model = _name(root)
        if arguments.subcall_model is None and sub != root:
            arguments.subcall_model = _name(sub)
    return make_adapters(arguments, environment)


def _name(adapter: str) -> str | None:
    """``gpt-5`` of ``OpenAICompatAdapter(gpt-5)``; None for other adapters."""
    found = re.fullmatch(r"OpenAICompatAdapter\((.+)\)", adapter)
    return found[1] if found else None


def _context(arguments: Namespace) -> Any:
    return None if arguments.context is None else read_context(arguments.context)


def _standing(record: Record, on_uncertain: str, policy: Policy | None) -> str:
    """How far a run is and what becomes of its calls in flight."""
    state = record.state
    if state.status == "finished":
        return f"run {record.run_id} has finished: no call is made"
    how = "stopped" if state.status == "running" else f"ended ({state.status})"
    told = [f"run {record.run_id} {how} after event {state.seq:,}: {totals(state)}"]
    if state.under_way:
        fate = (
            "made again, and perhaps paid twice" if on_uncertain == "retry" else "counted as failed"
        )
        told.append(f"{in_flight(state)} uncertain: {fate}")
    else:
        told.append("no call is uncertain")
    if policy is not None:
        before = state.options.policy
        told += [
            f"{name}: {_limit(getattr(before, name))} -> {_limit(getattr(policy, name))}"
            for name in LIMITS.values()
            if getattr(before, name) != getattr(policy, name)
        ]
    return "; ".join(told)


def _limit(value: float | None) -> str:
    return "none" if value is None else number(value)


def _edit(event: Event, at: int, file: str) -> Event:
    """Event `at` with the text of a file."""
    kind = type(event).__name__
    if not isinstance(event, ModelReplied | CodeExecuted | RunStarted):
        raise UsageError(
            f"--edit: event {at} is {kind}, which has no text to edit. A reply (ModelReplied), "
            "the output of a cell (CodeExecuted) and the question (event 1) can be edited."
        )
    text = _read(file)
    match event:
        case CodeExecuted():
            return replace(event, stdout=text, stdout_chars=len(text))
        case ModelReplied():
            return replace(event, text=text.removesuffix("\n"))
        case RunStarted():
            if not text.strip():
                raise UsageError(f"--edit {file}: the question is empty")
            return replace(event, query=text.strip())


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"--edit {file}: {reason}") from None
