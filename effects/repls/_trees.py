"""Trees of subcalls: which texts are put together by which of them.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself. For `_combinators`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING or __package__:
    from effects.repls import _functions, _labels, _planned, _sizes
else:
    import _functions
    import _labels
    import _planned
    import _sizes

_COMBINE = (
    "Question: {question}\n{count} partial results follow, each under its number. Put them "
    "together into one result that answers the question: keep every fact that it needs, once. "
    "If none of them helps, reply NO_ANSWER."
)
_MARK = "\n\n[{}]\n"

_Item = TypeVar("_Item")


class Level:
    """One level of subcalls.

    Its items are texts, each with whether it is a reply. A text that is in a group by itself is
    passed on, unless it is the only one.
    """

    def __init__(self, items: Sequence[tuple[str, bool]], fan_in: int) -> None:
        self._groups = groups(items, fan_in)

    def prompts(self, question: str) -> list[str]:
        """What it asks."""
        return [combined(group, question) for group in self._groups if self._is_asked(group)]

    def merged(self, replies: Sequence[str]) -> list[tuple[str, bool]]:
        """The items of the next level."""
        left = iter(replies)
        return [(next(left), True) if self._is_asked(group) else group[0] for group in self._groups]

    def unfinished(self, error: "_functions.SubcallError") -> "_functions.SubcallError":
        """The error of subcalls that failed, with all that is still to be put together."""
        results, left = iter(error.results), list[str]()
        for group in self._groups:
            reply = next(results) if self._is_asked(group) else None
            left += [text for text, _ in group] if reply is None else [reply]
        told = ".results holds what is left to put together: reduce_tree can go on with it."
        return type(error)(f"{error} {told}", left)

    def _is_asked(self, group: Sequence[tuple[str, bool]]) -> bool:
        return len(group) > 1 or len(self._groups) == 1


def groups(items: Sequence[_Item], fan_in: int) -> list[Sequence[_Item]]:
    """As few groups of at most `fan_in` as will do, of sizes as equal as can be.

    A subcall is made for each; but a text alone is passed on, unless it is the only one.
    """
    if not items:
        return []
    count = -(-len(items) // fan_in)
    size, larger = divmod(len(items), count)
    starts = [size * i + min(i, larger) for i in range(count)]
    return [items[start : start + size + (i < larger)] for i, start in enumerate(starts)]


def planned(texts: Sequence[str], fan_in: int, question: str) -> "_planned.Plan":
    """All levels, if every reply says something."""
    head = len(combined([], question)) - len("0")
    left: list[str | None] = list(texts)  # None: a reply
    calls = chars = wider = replies = levels = built = 0
    while left and (len(left) > 1 or not levels):
        merged: list[str | None] = []
        parts, seen = groups(left, fan_in), set[tuple[str | None, ...]]()
        for group in parts:
            if len(group) == 1 < len(parts):
                merged.append(group[0])
                continue
            merged.append(None)
            size = _planned.chars(head, _MARK, [0 if text is None else len(text) for text in group])
            built += size
            if None in group or tuple(group) not in seen:
                seen.add(tuple(group))
                calls, chars, replies = calls + 1, chars + size, replies + group.count(None)
                wider += _sizes.wider(question + "".join(filter(None, group)))
        left, levels = merged, levels + 1
    return _planned.Plan(calls, chars, wider, replies, levels, built)


def combined(items: Sequence[tuple[str, bool]], question: str) -> str:
    """The prompt that puts texts together."""
    parts = [_COMBINE.format(question=question, count=len(items))]
    return "".join([*parts, *(_MARK.format(n) + text for n, (text, _) in enumerate(items, 1))])


def says(text: str) -> bool:
    """Whether a text says anything."""
    bare = text.strip()
    return bool(bare) and not (
        bare.strip(_labels.EDGES).upper() == _functions.NO_ANSWER or _planned.failed(bare)
    )


def nothing(texts: Sequence[str]) -> str:
    """The result where none of the texts says anything: the first failure if all are failures."""
    said = [text for text in texts if text.strip()]
    return said[0] if said and all(map(_planned.failed, said)) else _functions.NO_ANSWER
