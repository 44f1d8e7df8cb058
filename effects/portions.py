"""How many outcomes one commit takes: what is lost to the disk against what is lost by waiting.

Calls that began together end together. The places of those in the first commit are taken again
while the others still wait, so the next wave comes in parts, and from then on a call waits for
little more than its own commit.

1. Say a commit takes ``c`` whatever is in it, and each outcome ``o`` besides. With ``n`` of ``w``
   calls in each commit, the first wave is in parts after ``w / n`` commits, which cost
   ``c * w / n``; after that, each of the ``calls / w`` rounds of a batch waits for the ``n``
   outcomes of its commit, ``n * o``. The sum is least for ``n = w * sqrt(c / (o * calls))``. So it
   is one outcome where a commit costs next to nothing or few calls are in flight, and many on a
   disk that takes its time: ``python -m benchmarks commits`` shows both.
2. Calls that are quicker than their commits, those that a cache answers say, never come in parts.
   When more outcomes than there are places were taken and some still wait, twice as many are
   taken, and so on; and half as many when none was left.
"""

from collections import deque
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

CALLS: Final = 1_000
"""Of a batch, as a guess: of fewer, whatever is lost is little."""
OUTCOME_S: Final = 60e-6
"""What an outcome takes, and the call that it lets out (November 2026, one core)."""
WRITTEN_S: Final = OUTCOME_S / 2
"""The part of it that is encoding and writing."""
_LAST: Final = 8
"""The quickest of so many commits tells what one takes: others also wrote down a long prompt, or
waited for a checkpoint."""


@dataclass(slots=True)
class Portions:
    """Sizes the commits of one run by what its commits took."""

    _fixed_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LAST))
    """What the last commits took besides their outcomes."""
    _haste: int = 1
    """How many times as many as rule 1 says, for rule 2."""
    _taken: int = 0
    """Outcomes that were taken since none was left, or since `_haste` was raised."""

    def took(self, seconds: float, outcomes: int) -> None:
        """A commit of so many outcomes took so long."""
        self._fixed_s.append(max(0.0, seconds - outcomes * WRITTEN_S))

    def size(self, waiting: int, in_flight: int) -> int:
        """How many of the outcomes that wait the next commit takes, with so many calls in flight,
        these included."""
        commit_s = min(self._fixed_s, default=0.0)
        most = self._haste * max(1, round(in_flight * sqrt(commit_s / (OUTCOME_S * CALLS))))
        if waiting <= most:
            self._haste, self._taken = max(1, self._haste // 2), 0
            return waiting
        self._taken += most
        if self._taken > in_flight:
            self._haste, self._taken = 2 * self._haste, 0
        return most
