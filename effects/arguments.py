"""What `RLM` and its relatives refuse of their arguments before anything is started.

Options that a log records are checked by `rlm_fsm.options`; here are the objects that it can't
hold, and code that can't be run.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any, cast

from effects.repls.base import ReplLimits
from rlm_fsm.errors import UsageError
from rlm_fsm.policy import Policy
from rlm_fsm.profile import Profile

_OBJECTS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "policy": (Policy, "a Policy"),
    "repl_limits": (ReplLimits, "ReplLimits"),
    "profile": ((str, Profile), "the name of a profile, such as 'pyrlm', or a Profile"),
    "adapters": (Mapping, "adapters by name, as a dict"),
    "prices": (Mapping, "prices by the names of models, as {'gpt-5': Price(...)}"),
}
_LOG_METHODS = ("append", "load", "runs", "lead")
_LOGGER_METHODS = ("debug", "info", "warning", "error")


def check_objects(**given: Any) -> None:
    """`UsageError` for a value that isn't of its argument's class; None is left to defaults."""
    for name, value in given.items():
        check_kind(name, value, *_OBJECTS[name])


def check_kind(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """`UsageError` for a value that is neither of the class nor None."""
    if value is not None and not isinstance(value, kind):
        raise UsageError(f"{name}={value!r}: give {wanted}")


def check_choice(name: str, value: object, *known: str) -> None:
    """`UsageError` for a value that is none of those that are known."""
    if value not in known:
        raise UsageError(f"{name}={value!r}: choose {' or '.join(map(repr, known))}")


def check_going_on(on_uncertain: object = "retry", on_changed_output: object = "raise") -> None:
    """`UsageError` for what a run that goes on can't be told to do."""
    check_choice("on_uncertain", on_uncertain, "retry", "fail")
    check_choice("on_changed_output", on_changed_output, "raise", "accept")


def check_log(log: object) -> None:
    """`UsageError` for what is no log."""
    if not all(callable(getattr(log, name, None)) for name in _LOG_METHODS):
        raise UsageError(f"log={log!r}: give the path of a file, ':memory:', an EventLog or None")


def check_listener(listener: object) -> None:
    """`UsageError` for what can't listen; None is no listener."""
    if listener is not None and not callable(getattr(listener, "handle", None)):
        raise UsageError(
            f"event_listener={listener!r}: give an object with a method handle(event), or None"
        )


def check_logger(logger: object) -> None:
    """`UsageError` for what can't be told anything; None is the package's own."""
    if logger is not None and not all(
        callable(getattr(logger, name, None)) for name in _LOGGER_METHODS
    ):
        raise UsageError(f"logger={logger!r}: give a logging.Logger, or None")


def check_whole(name: str, value: object, wanted: str, least: int | None = None) -> None:
    """`UsageError` for what is no whole number, or one below the least."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (least is not None and cast(int, value) < least):
        raise UsageError(f"{name}={value!r}: give {wanted}")


def check_at(at: object) -> None:
    """`UsageError` for what can't be the number of an event; which of them there are, the log
    says."""
    check_whole("at", at, "the number of an event, which is a whole number from 1 on")


def check_query(query: object) -> None:
    """`UsageError` for what is no question."""
    if not isinstance(query, str):
        raise UsageError(f"query={query!r}: give the question as a text (str)")
    if not query.strip():
        raise UsageError("the query is empty: pass the question as text")


def check_names(adapters: Mapping[Any, object]) -> None:
    """`UsageError` for adapters under what is no name that code could give."""
    for name in adapters:
        if not isinstance(name, str) or not name:
            raise UsageError(
                f"adapters={{{name!r}: ...}}: the name is no text: give one such as 'big'"
            )


def patterns_of(given: object) -> tuple[str, ...]:
    """Patterns as `Options` has them; a lone text is an error, not a pattern for each letter."""
    if given is None:
        return ()
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise UsageError(f"auto_finalize_reject_patterns={given!r}: give a list of patterns")
    return tuple(cast(Iterable[str], given))


def check_function(name: str, value: object) -> None:
    """`UsageError` for what can't be called; None is no function."""
    if value is not None and not callable(value):
        raise UsageError(f"{name}={value!r}: give a function, or None")


def check_code(name: str, code: object) -> None:
    """`UsageError` for code that no session could run; None is no code."""
    if code is None or not isinstance(code, str):
        return  # `Options` says what it must be
    try:
        ast.parse(code)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{name} is no Python: {error}") from None


def check_run_id(run_id: object) -> None:
    """`UsageError` for what is no run's name."""
    if not isinstance(run_id, str) or not run_id:
        raise UsageError(f"run_id={run_id!r}: give the id of a run, as `runs()` lists them")
