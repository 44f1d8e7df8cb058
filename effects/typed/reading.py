"""From a model's text to the values that it may mean, and what is said of those that don't fit.

1. The readings of a text, best first: the JSON that it is, less a fence around it; the Python
   literal that it is; the longest JSON object or array that stands in it; the text itself.
2. A value that code handed over goes before all readings of its text. A dict with one field may
   also stand for that field: ``SUBMIT(answer=7)`` is how some protocols say 7.
3. Which reading counts is the type's to say: the first that fits. When none does, the problems of
   the first are told.
"""

import ast
import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar, cast

from rlm_fsm.values import Checked, Problem

MOST_PROBLEMS = 5
"""More than these are counted only: a model mends a few at a time."""
FOUND_CHARS = 200
MESSAGE_CHARS = 300
PATH_CHARS = 200
_MOST_TRIES = 200
"""Brackets at which a value is looked for: a text of brackets alone would take for ever."""
_LITERAL_CHARS = 1_000_000
"""Longest text that is read as a Python literal: the parser takes some hundred times its size."""

T = TypeVar("T")
Judged = T | list[Problem]
"""What a type makes of a value: what it accepts, or the problems, none empty."""


def readings(text: str, data: str | None) -> Iterator[Any]:
    """The values that an answer may mean, best first; the last one is the text."""
    if data is not None:
        try:
            value = read_json(data)
        except ValueError:
            value = text
        yield value
        if isinstance(value, dict) and len(value := cast(dict[str, Any], value)) == 1:
            yield next(iter(value.values()))
    stripped = _unfenced(text.strip())
    for read in (read_json, _literal):
        try:
            yield read(stripped)
        except ValueError:
            continue
        break
    else:
        found = max(_values(text), key=lambda item: item[0], default=None)
        if found is not None:
            yield found[1]
    yield text


def read_json(text: str) -> Any:
    """The value of a JSON text; `ValueError` for anything else, NaN and too deep nesting too."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def first_fit(
    text: str, data: str | None, judge: Callable[[Any], T | list[Problem]]
) -> tuple[Any, T] | list[Problem]:
    """The first reading that fits and what the type makes of it; or the first one's problems."""
    problems: list[Problem] | None = None
    for value in readings(text, data):
        judged = judge(value)
        if not isinstance(judged, list):
            return value, judged
        problems = problems or cast(list[Problem], judged)
    return problems or [problem("", "there is no value", text)]


def refused(problems: list[Problem]) -> Checked:
    """What is told of problems: the first few, and how many more there are."""
    shown = tuple(problems[:MOST_PROBLEMS])
    return Checked(problems=shown, more_problems=len(problems) - len(shown))


def problem(path: str, message: str, found: object) -> Problem:
    """One problem, within bounds."""
    message = " ".join(message.split())
    shown = shown_value(found)
    return Problem(
        path=cut(path, PATH_CHARS), message=cut(message, MESSAGE_CHARS), found=cut(shown)
    )


def shown_value(value: object) -> str:
    """A value as JSON, or as Python prints it; a text first loses what won't be shown of it."""
    if isinstance(value, str):
        return json.dumps(value[: FOUND_CHARS + 1], ensure_ascii=False)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"


def path_of(parts: "tuple[str | int, ...]") -> str:
    """A path as code writes it: ``items[2].price``."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def cut(text: str, most: int = FOUND_CHARS) -> str:
    """A text of at most `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _unfenced(text: str) -> str:
    """The inside of the fenced block that a text is; else the text."""
    if not (text.startswith("```") and text.endswith("```") and "\n" in text):
        return text
    return text.partition("\n")[2].removesuffix("```").strip()


def _literal(text: str) -> Any:
    """The Python literal that a text is, as plain data."""
    if len(text) > _LITERAL_CHARS:
        raise ValueError("too long")
    try:
        return _plain(ast.literal_eval(text))
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("no literal") from error


def _plain(value: Any) -> Any:
    """Python's containers as JSON has them; `ValueError` for what it hasn't."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() if value - value == 0:
            return value
        case dict():
            items = cast(dict[object, Any], value)
            if not all(isinstance(key, str) for key in items):
                raise ValueError("keys must be texts")
            return {str(key): _plain(item) for key, item in items.items()}
        case list() | tuple() | set():
            return [_plain(item) for item in cast(list[Any], value)]
        case _:
            raise ValueError(f"{type(value).__name__} is no plain data")


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """The objects and arrays that stand in a text, none within another, with their lengths."""
    read = json.JSONDecoder(parse_constant=_refuse).raw_decode
    at = 0
    for _ in range(_MOST_TRIES):
        starts = [start for start in (text.find("{", at), text.find("[", at)) if start >= 0]
        if not starts:
            return
        start = min(starts)
        try:
            value, at = read(text, start)
        except (ValueError, RecursionError):
            at = start + 1
        else:
            yield at - start, value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
