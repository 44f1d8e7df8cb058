"""When the two processes of a session wait for each other awake, and when asleep.

Waking a sleeping process takes tens of microseconds, on virtual machines a hundred and more, and
a small cell needs it twice. A process that looks for the next frame for a moment before it sleeps
("spins") need not be woken.

1. Each side spins for a limited time, then sleeps.
2. It spins only where that is likely to pay: this side when the last answer was quick, the child
   when the last request followed an answer quickly, which the request tells it. So neither spins
   around cells that compute, or while a run waits for a model.
3. It spins only where that disturbs nobody: not with a single processor, and not while another
   session of this program waits for its child.
4. An answer found awake leaves the event loop no turn; now and then it must have one.
"""

HOST_SPIN_S = 150e-6
"""A small cell takes 30 to 60 microseconds, waking the child for it about 100. The event loop
stands still for as long."""
CHILD_SPIN_S = 400e-6
"""What a run does between two cells takes about 200, with an instant model and no disk."""
TURN_S = 5e-3
"""How long one session may keep the event loop from turning."""
MOST_SKIPPED = 64
"""A spin in vain costs no more than a few microseconds a request, spread over so many."""


class Pace:
    """How quickly the requests and answers of one session follow each other.

    Times are seconds of one clock that never goes back.
    """

    __slots__ = ("_answered_s", "_in_vain", "_may_spin", "_skip", "_spins", "_turned_s")

    def __init__(self, processors: int) -> None:
        self._may_spin = processors > 1
        self._spins = False
        self._skip = 1  # the first request waits for the start of the child
        self._in_vain = 0
        self._turned_s = 0.0
        self._answered_s = float("-inf")

    def asks(self, now_s: float) -> tuple[bool, bool]:
        """A request goes out. Whether to spin for its answer, and whether the child is to spin
        for the request after it."""
        self._spins = False
        if not self._may_spin or _asleep:
            return False, False
        self._spins = not self._skip
        # The child is told one request ahead, so that it is awake for the next attempt.
        child_spins = self._skip <= 1 and now_s - self._answered_s < CHILD_SPIN_S
        self._skip -= not self._spins
        return self._spins, child_spins

    def sleeps(self) -> None:
        """The answer is waited for on the event loop. `wakes` must follow."""
        if self._spins:
            self._in_vain = min(2 * self._in_vain + 1, MOST_SKIPPED)
            self._skip = self._in_vain
        _asleep.add(self)

    def wakes(self, now_s: float) -> None:
        """The waiting on the event loop is over, with an answer or without."""
        _asleep.discard(self)
        self._spins = False
        self._turned_s = now_s

    def answered(self, now_s: float) -> bool:
        """The answer is there. Whether the event loop must be given a turn now."""
        self._answered_s = now_s
        if self._spins:
            self._in_vain = 0
        if now_s - self._turned_s < TURN_S:
            return False
        self._turned_s = now_s
        return True


_asleep = set[Pace]()
"""Sessions that wait on an event loop, of any thread: adding and discarding are atomic."""
