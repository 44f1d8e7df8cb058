"""A line about each variable that a cell made or changed: type, size, a short preview.

Standard library only, and nothing of this project: the sandboxed child process loads this file by
itself.

`SOURCE` is run as it stands by both backends, also by one that speaks a part of Python only, so
that they say the same.

1. Work and length are bounded, however large a value is: no `repr` of anything but short texts
   and numbers. Methods of the code's own classes are never called.
2. A variable has changed when its summary has. So a change that the preview doesn't reach, such as
   another item in the middle of a list, isn't told.
"""

from collections.abc import Iterable, Mapping
from typing import Any

MAX_VARIABLES = 20
"""Variables that are told of one cell."""
MAX_NAMES = 100
"""Names that are told where only names are."""
MAX_NAME_CHARS = 60
SIMPLE = frozenset({"str", "int", "float", "bool", "list", "dict", "tuple"})
"""Types of the variables whose names are listed."""

SOURCE = """
def _rlm_brief(item):
    kind = type(item)
    if kind is str:
        return f"{item[:20]!r}" + ("..." if len(item) > 20 else "")
    if item is None or kind is bool or kind is float:
        return f"{item!r}"
    if kind is int:
        return f"{item}" if -(10**18) < item < 10**18 else "a large int"
    if kind is list or kind is tuple or kind is set or kind is frozenset or kind is dict:
        return f"a {kind.__name__} of {len(item):,}"
    return f"a {kind.__name__[:40]}"


def _rlm_summary(value):
    kind = type(value)
    name = kind.__name__[:40]
    if kind is str:
        if len(value) <= 60:
            return f"str {value!r}"
        return f"str of {len(value):,} characters: {value[:60]!r}..."
    if value is None:
        return "None"
    if kind is bool or kind is float or kind is int:
        return f"{name} " + _rlm_brief(value)
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        shown = []
        for item in value:
            if len(shown) == 3:
                shown.append("...")
                break
            shown.append(_rlm_brief(item))
        return f"{name} of {len(value):,}: " + ", ".join(shown) if shown else f"{name}, empty"
    if kind is dict:
        shown = []
        for key in value:
            if len(shown) == 3:
                shown.append("...")
                break
            shown.append(_rlm_brief(key) + ": " + _rlm_brief(value[key]))
        return f"{name} of {len(value):,}: " + ", ".join(shown) if shown else f"{name}, empty"
    return name
"""

_made: dict[str, Any] = {}
exec(compile(SOURCE, __file__, "exec"), _made)


def summary(value: object) -> str:
    """A value in a line."""
    text: str = _made["_rlm_summary"](value)
    return text


class Tracker:
    """Remembers how variables looked, and tells what a cell changed.

    `mode` is a profile's: ``changed``, ``names`` or ``none``.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.seen: dict[str, str] = {}
        """The summaries of the last cell, by name."""

    def told(self, summaries: Mapping[str, str]) -> tuple[list[list[Any]], int]:
        """[name, summary, is it new] of what is new or has changed, and how many more there are."""
        changed = [
            [_short(name), text, name not in self.seen]
            for name, text in summaries.items()
            if self.seen.get(name) != text
        ]
        self.seen = dict(summaries)
        return changed[:MAX_VARIABLES], max(0, len(changed) - MAX_VARIABLES)

    def named(self, names: Iterable[str]) -> tuple[list[list[Any]], int]:
        """The same for a list of names only."""
        every = [[_short(name), "", False] for name in names]
        return every[:MAX_NAMES], max(0, len(every) - MAX_NAMES)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARS else name[:MAX_NAME_CHARS] + "..."
