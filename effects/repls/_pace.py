"""When the two processes of a session wait for each other awake, and when asleep.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

Waking a sleeping process takes tens of microseconds, on virtual machines a hundred and more, and
a small cell needs it twice. A process that looks for the next frame for a moment before it sleeps
("spins") need not be woken.

1. Each side spins for a limited time, then sleeps.
2. The child spins when the host's last request followed an answer quickly; the request says so.
   The host spins when the child does. So neither spins while a run waits for a model.
3. A spin in vain is not soon tried again, so cells that compute cost next to nothing, nor does a
   machine that has no processor to spare.
4. Nobody spins with a single processor, or while another session of this program waits for its
   child.
5. A host that doesn't spin waits asleep, but beside its event loop, as long as it would spin: the
   processor is the child's, and a turn of the loop is saved. In vain as in 3; not at all while
   another session waits, or after a pause.
6. An answer found in one of these ways leaves the event loop no turn; now and then it must have
   one.
"""

HOST_SPIN_S = 150e-6
"""A small cell takes 30 to 100 microseconds. The event loop stands still for as long."""
CHILD_SPIN_S = 1e-3
"""What a run does between two cells takes about 200 microseconds with an instant model and no disk,
700 with a durable log."""
TURN_S = 5e-3
"""How long the requests of one session may keep the event loop from turning."""
MOST_SKIPPED = 12
"""Requests between two spins in vain, at most. One costs a few hundred microseconds where all
processors are busy. Where both processes share one though another is free, only trying again makes
the system move one of them."""


class Pace:
    """How quickly the requests and answers of one session follow each other.

    Times are seconds of one clock that never goes back.
    """

    __slots__ = (
        "_answered_s",
        "_block_skip",
        "_blocks_in_vain",
        "_child_spins",
        "_in_vain",
        "_may_spin",
        "_skip",
        "_soon",
        "_turned_s",
    )

    def __init__(self, processors: int) -> None:
        self._may_spin = processors > 1
        self._child_spins = False
        """It was told to, after its last answer."""
        self._skip = 0
        """Requests to go without spinning."""
        self._in_vain = 0
        """What the last spin in vain set `_skip` to; 0 after one that was not."""
        self._soon = False
        """The last request followed an answer quickly."""
        self._block_skip = self._blocks_in_vain = 0
        """The same for waiting beside the event loop."""
        self._answered_s = self._turned_s = float("-inf")

    def asks(self, now_s: float) -> tuple[bool, bool]:
        """A request goes out. Whether to spin for its answer, and whether to tell the child to
        spin after it."""
        self._soon = soon = now_s - self._answered_s < CHILD_SPIN_S
        spins = self._child_spins and soon and not self._skip and not _asleep
        # The child is told one request ahead: it must be awake when spinning is tried again.
        self._child_spins = self._may_spin and soon and self._skip <= 1 and not _asleep
        self._skip -= self._skip > 0
        return spins, self._child_spins

    def spun(self, *, in_vain: bool) -> None:
        """The host has spun for the answer, and found it or not."""
        self._in_vain = min(2 * self._in_vain + 1, MOST_SKIPPED) if in_vain else 0
        self._skip = self._in_vain

    def blocks(self) -> bool:
        """Whether the host, which doesn't spin, waits for this answer beside the event loop."""
        if not self._soon or _asleep or self._block_skip:
            self._block_skip -= self._block_skip > 0
            return False
        return True

    def blocked(self, *, in_vain: bool) -> None:
        """The host has waited so, and got the answer or not."""
        self._blocks_in_vain = min(2 * self._blocks_in_vain + 1, MOST_SKIPPED) if in_vain else 0
        self._block_skip = self._blocks_in_vain

    def sleeps(self) -> None:
        """The answer is waited for on the event loop. `wakes` must follow."""
        _asleep.add(self)

    def wakes(self, now_s: float) -> None:
        """The waiting on the event loop is over, with an answer or without."""
        _asleep.discard(self)
        self._turned_s = now_s

    def answered(self, now_s: float) -> bool:
        """The answer is there. Whether the event loop must be given a turn now."""
        self._answered_s = now_s
        if now_s - self._turned_s < TURN_S:
            return False
        self._turned_s = now_s
        return True


_asleep = set[Pace]()
"""Sessions that wait on an event loop, of any thread: adding and discarding are atomic."""
