"""Sentences from word lists: a random generator that always says the same for the same seed."""

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from effects.demo.words import SENTENCES, WORDS

_SLOT = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)-(\d+)")


class _Entry(NamedTuple):
    """A slot for an entry of a list of words."""

    name: str
    is_raised: bool


class _Range(NamedTuple):
    """A slot for a whole number."""

    low: int
    high: int


_Part = str | _Entry | _Range


class Speaker:
    """Says random sentences. One seed, one sequence."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._compiled: dict[str, tuple[_Part, ...]] = {}
        self._decks: dict[str, list[str]] = {}

    def one(self, items: Sequence[str]) -> str:
        """One of some texts, its slots filled."""
        return self.fill(items[int(self.rng.random() * len(items))])

    def fill(self, pattern: str) -> str:
        """A text with its slots filled."""
        parts = self._compiled.get(pattern)
        if parts is None:
            parts = self._compiled[pattern] = _compile(pattern)
        if len(parts) == 1 and isinstance(parts[0], str):
            return parts[0]
        return "".join([part if isinstance(part, str) else self._slot(part) for part in parts])

    def sentence(self, kind: str) -> str:
        """A sentence of a kind of paper, a key of `SENTENCES`.

        All forms are dealt like cards before one comes again, so that papers don't say the same
        thing twice in a row.
        """
        deck = self._decks.get(kind)
        if not deck:
            deck = self._decks[kind] = list(SENTENCES[kind])
            self.rng.shuffle(deck)
        return self.fill(deck.pop())

    def paragraph(self, kind: str, least: int, most: int) -> str:
        """From `least` to `most` sentences of a kind."""
        return " ".join([self.sentence(kind) for _ in range(self.rng.randint(least, most))])

    def _slot(self, slot: "_Entry | _Range") -> str:
        if isinstance(slot, _Range):
            return str(slot.low + int(self.rng.random() * (slot.high - slot.low + 1)))
        text = self.one(WORDS[slot.name])
        return text[:1].upper() + text[1:] if slot.is_raised else text


def _compile(pattern: str) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    for position, piece in enumerate(_SLOT.split(pattern)):
        if position % 2 == 0:
            if piece:
                parts.append(piece)
        elif numbers := _RANGE.fullmatch(piece):
            parts.append(_Range(int(numbers[1]), int(numbers[2])))
        else:
            parts.append(_Entry(piece.lower(), piece[0].isupper()))
    return tuple(parts)
