"""Labels: those that code gives, and those that replies name.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.

1. A reply need not be a label and nothing else: the only one that stands in it counts.
2. A label is told, and read, in one line; code gets it as it gave it.
3. Models write labels in any case. Only of labels that differ in nothing else, the one that is
   written so is meant; written otherwise, it is none of them.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING or __package__:
    from effects.repls import _arguments
else:
    import _arguments

EDGES = " \t\r\n.!,;:*`'\"()[]"
"""What may stand around a label."""

_NUMBERED = re.compile(r"[\W_]*(\d{1,9})(?![^\W_]|[.,]\d)(.*)")
"""A line about an item: its number, not one with a fraction, and all that follows."""
_SEPARATED = re.compile(r"[*_`]*\s*(?:->|=>|(?!-\d)[:.)\]|=\-–—→])?(.*)")
"""What may stand between number and label, but no sign: ``1 -1`` is item 1, label -1."""
_NO_SIGN = r"(?<![\w.])(?<!\d,)(?<!(?<!\w)[-−+<>≤≥~])"
"""What isn't before a number that stands by itself; the dash of ``1-2`` is no sign."""
_MARKUP = " \t\r|*_`"


class Label(NamedTuple):
    """A label as code gave it."""

    given: str
    meaning: str
    """In one line; it may be empty."""


def labels_of(labels: object, name: str = "labels") -> dict[str, Label]:
    """The labels by what they are in one line; of several that are the same there, the first."""
    if isinstance(labels, Mapping):
        pairs = list(cast(Mapping[object, object], labels).items())
    else:
        pairs = [(label, "") for label in _arguments.items_of(name, labels)]
    known: dict[str, Label] = {}
    for label, meaning in pairs:
        if not isinstance(label, str):
            kind = _arguments.kind_of(label)
            raise TypeError(f"{name} must be texts (str), such as {str(label)[:80]!r}, not {kind}")
        known.setdefault(_in_a_line(label), Label(label, _in_a_line(str(meaning))))
    if not known or "" in known:
        raise ValueError(f"{name} must be a list of texts that aren't empty, not {labels!r:.200}")
    return known


def _in_a_line(text: str) -> str:
    return " ".join(text.split())


def labels_read(reply: str, items: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """The labels that a reply gives to items; the first one of each counts."""
    if len(items) == 1 and any(bare(label) == bare(reply) for label in labels):
        label = label_in(reply, labels)
        return {} if label is None else {items[0]: label}
    found: dict[str, str] = {}
    numbers = set[int]()
    lines = [*reply.splitlines(), ""]
    for line, following in pairwise(lines):
        if (numbered := _NUMBERED.fullmatch(line)) is None:
            continue
        number = int(numbered[1])
        numbers.add(number)
        label = _label_after(numbered[2], following, labels)
        if label is not None and 1 <= number <= len(items):
            found.setdefault(items[number - 1], label)
    if len(items) == 1 and 1 not in numbers and (label := label_in(reply, labels)) is not None:
        found[items[0]] = label
    return found


def _label_after(rest: str, following: str, labels: Sequence[str]) -> str | None:
    """The label after an item's number: as it is written, else as `label_in` reads it.

    It stands on the following line if the number stands alone, and that line has none.
    """
    separated = _SEPARATED.fullmatch(rest)
    after = separated[1] if separated else rest
    plain = after.strip(_MARKUP)
    for written in (rest.strip(), after.strip(), plain):
        if written in labels:
            return written
    if bare(plain):
        return label_in(plain, labels)
    return None if _NUMBERED.fullmatch(following) else label_in(following, labels)


def label_in(text: str, labels: Sequence[str]) -> str | None:
    """The label that a text is, or the only one that it names.

    In any case; of labels that differ in nothing else, the one that is written so.
    """
    if text.strip() in labels:
        return text.strip()
    plain = bare(text)
    fitting = [label for label in labels if bare(label) == plain] or _named(plain, labels)
    if len({bare(label) for label in fitting}) == 1 < len(fitting):
        written = " ".join(text.split())
        fitting = [label for label in fitting if _stands_in(written, " ".join(label.split()))]
    return fitting[0] if len(fitting) == 1 else None


def bare(text: str) -> str:
    """A text in lower case, without what may stand around a label, unless it is nothing else."""
    words = " ".join(text.casefold().split())
    return words.strip(EDGES) or words


def _named(plain: str, labels: Sequence[str]) -> list[str]:
    """The labels that stand in a text."""
    named = [label for label in labels if _stands_in(plain, bare(label))]
    # "not spam" names "spam" too: of labels that hold one another, the longest is meant.
    return [label for label in named if not any(_holds(other, label) for other in named)]


def _stands_in(text: str, words: str) -> bool:
    """Whether words stand in a text by themselves; 1 stands neither in -1 nor in <1 nor in 1.5."""
    before = _NO_SIGN if words[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w|[.,]\d)" if words[-1:].isdigit() else r"(?!\w)"
    return bool(words) and re.search(before + re.escape(words) + after, text) is not None


def _holds(other: str, label: str) -> bool:
    return bare(other) != bare(label) and bare(label) in bare(other)
