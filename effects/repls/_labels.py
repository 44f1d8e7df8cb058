"""Labels: those that code gives, and those that replies name.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.

1. A reply need not be a label and nothing else: the only one that stands in it counts.
2. Models write labels in any case. Only of labels that differ in nothing else, the one that is
   written so is meant; written otherwise, it is none of them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING or __package__:
    from effects.repls import _arguments
else:
    import _arguments

EDGES = " \t\r\n.!,;:*`'\"()[]"
"""What may stand around a label."""

_NUMBERED = re.compile(r"^\W*(\d+)\W+(.*)$", re.MULTILINE)


def labels_of(labels: object, name: str = "labels") -> dict[str, str]:
    """The labels with what they mean, which may be nothing."""
    if isinstance(labels, Mapping):
        pairs = cast(Mapping[object, object], labels)
        known = {str(label).strip(): str(meaning).strip() for label, meaning in pairs.items()}
    else:
        known = {text.strip(): "" for text in _arguments.texts_of(name, labels)}
    if not known or "" in known:
        raise ValueError(f"{name} must be a list of texts that aren't empty, not {labels!r:.200}")
    return known


def labels_read(reply: str, items: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """The labels that a reply gives to items; the first one of each counts."""
    found: dict[str, str] = {}
    for number, rest in _NUMBERED.findall(reply):
        label = label_in(rest, labels)
        if label is not None and 1 <= int(number) <= len(items):
            found.setdefault(items[int(number) - 1], label)
    if not found and len(items) == 1 and (label := label_in(reply, labels)) is not None:
        found[items[0]] = label
    return found


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
    """A text in lower case, without what may stand around a label."""
    return " ".join(text.casefold().split()).strip(EDGES)


def _named(plain: str, labels: Sequence[str]) -> list[str]:
    """The labels that stand in a text."""
    named = [label for label in labels if _stands_in(plain, bare(label))]
    # "not spam" names "spam" too: of labels that hold one another, the longest is meant.
    return [label for label in named if not any(_holds(other, label) for other in named)]


def _stands_in(text: str, words: str) -> bool:
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _holds(other: str, label: str) -> bool:
    return bare(other) != bare(label) and bare(label) in bare(other)
