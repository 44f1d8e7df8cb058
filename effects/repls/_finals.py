"""Final answers that code gives, and the names that it gives them by.

Standard library only, and nothing of this project: the sandboxed child process loads this file by
itself.

1. ``SUBMIT(...)``, ``FINAL(...)``, ``FINAL_VAR(...)`` and ``done(...)`` end the cell at once, by a
   `Signal` that ``except Exception`` doesn't catch. The first one of a cell counts. A bare
   ``except`` that swallows it changes nothing: the answer was given.
2. ``FINAL_VAR`` takes the name of a variable, or the value itself: protocols differ. A text that
   could be a name and is neither a variable's nor what a variable holds is a `NameError`.
3. ``answer`` is a dict with ``content`` and ``ready``; once ``ready`` is true its content is the
   final answer. Code may replace it by a dict of that form. Bound to anything else it is the
   code's own variable. An answer that was given is taken: ``ready`` is false again, so that it
   isn't given a second time by a cell that says nothing of it.
4. `SOFT` names stay what code makes them; all others are put back after each cell.
"""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, cast

SOFT = frozenset({"answer", "budget", "done", "map_chunks", "reduce_tree", "classify_all", "vote"})
"""Names that code may take for itself: they are common names of variables, or of functions that
models like to write of their own."""
CALLS = ("SUBMIT", "FINAL", "FINAL_VAR", "done")
"""Functions that give a final answer."""

NO_VALUES = ("function", "builtin_function_or_method", "method", "type", "module", "_rlm_module")
"""Names of the types of what no answer can be, those of either backend."""


class Signal(BaseException):
    """Ends a cell that has given its final answer."""

    def __init__(self, form: str, value: object, has_fields: bool = False) -> None:
        super().__init__(f"{form} was called")
        self.form = form
        self.value = value
        self.has_fields = has_fields
        """Whether the value is the dict of the fields that ``SUBMIT`` was given by name."""


def submitted(args: tuple[Any, ...], fields: dict[str, Any]) -> tuple[Any, bool]:
    """What ``SUBMIT`` was given, and whether it has named fields. A single field is its value."""
    if args and fields:
        raise TypeError("SUBMIT takes values or named fields, not both")
    if fields:
        return fields, True
    return _only("SUBMIT", args), False


def one_value(form: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What the other functions were given. Several values are one tuple."""
    if options:
        raise TypeError(f"{form} takes the answer, no named arguments")
    return _only(form, args)


def _only(form: str, args: tuple[Any, ...]) -> Any:
    if not args:
        raise TypeError(f"{form} takes the answer: {form}(...)")
    return args[0] if len(args) == 1 else args


def named(value: object) -> str | None:
    """The name that the argument of ``FINAL_VAR`` may be; None when it is a value."""
    if type(value) is not str:
        return None
    name = value.strip()
    return name if name.isidentifier() else None


def no_variable(name: str, names: Iterable[str]) -> NameError:
    """The error of ``FINAL_VAR`` with the name of nothing."""
    known = ", ".join(names)
    told = f"your variables: {known}" if known else "you have set no variables yet"
    return NameError(f"FINAL_VAR: there is no variable {name!r}; {told}")


def fresh_answer() -> dict[str, Any]:
    """What ``answer`` is at first."""
    return {"content": "", "ready": False}


def is_unset(value: object) -> bool:
    """Whether a watched variable has no value yet: code often begins with an empty container, and
    may give the name to a function, a class or a module."""
    if type(value) in (list, dict, tuple, set, frozenset):
        return not value
    return value is None or type(value).__name__ in NO_VALUES


def is_protocol(value: object) -> bool:
    """Whether a value of ``answer`` is a dict of the protocol's form."""
    return isinstance(value, dict) and "content" in value and "ready" in value


def take_answer(value: Any) -> tuple[bool, Any]:
    """Whether ``answer`` is ready, and its content. What is ready is taken (rule 3)."""
    if not isinstance(value, dict):
        return False, None
    answer = cast(dict[str, Any], value)
    if not answer.get("ready"):
        return False, None
    answer["ready"] = False
    return True, answer.get("content", "")


def may_be_ready(value: Any) -> bool:
    """False where `take_answer` would find nothing, without running any of the code's own."""
    if type(value) is not dict:
        return isinstance(value, dict)
    answer = cast(dict[object, object], value)
    return set(map(type, answer)) != {str} or answer.get("ready") is not False


def told(
    form: str, value: Any, *, fields: bool, most: int, text_of: Callable[[object], str] = str
) -> dict[str, Any]:
    """A final answer as plain data: ``form text kind data``.

    With `fields`, `value` is a dict of named fields, whose text is that of its only one. Raises
    what printing the value raises, and `ValueError` for one of more than `most` characters.
    """
    only = next(iter(value.values())) if fields and len(value) == 1 else value
    text = text_of(only)
    if len(text) > most:
        raise ValueError(
            f"the answer has {len(text)} characters, more than the {most} that can be handed "
            "over: make it shorter"
        )
    data = None if type(value) is str else _json(_as_dicts(value))
    if data is not None and len(data) > most:
        data = None
    return {"form": form, "text": text, "kind": type(value).__name__, "data": data}


def _as_dicts(value: Any) -> Any:
    """A dataclass's instance as a dict of its fields; anything else as it is."""
    module = sys.modules.get("dataclasses")  # loaded where there are any
    if module is None or isinstance(value, type) or not hasattr(value, "__dataclass_fields__"):
        return value
    return module.asdict(value)


def _json(value: object) -> str | None:
    """Canonical JSON, or None. Keys must be texts: JSON would turn others into texts."""
    try:
        if not _is_plain(value, 40):
            return None
        return json.dumps(
            value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except (TypeError, ValueError, RecursionError):
        return None


def _is_plain(value: Any, depth: int) -> bool:
    kind = cast(Any, type)(value)
    if value is None or kind is str or kind is int or kind is float or kind is bool:
        return True
    if not depth:
        return False
    if kind is dict:
        return all(type(key) is str and _is_plain(item, depth - 1) for key, item in value.items())
    if kind is list or kind is tuple:
        return all(_is_plain(item, depth - 1) for item in value)
    return False
