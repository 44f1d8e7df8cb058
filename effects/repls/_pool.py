"""Processes that were started before a session needs them.

A process for code takes tens of milliseconds to start; most of that needs nothing of the session.
So while a program drives runs, some spare processes are kept. A spare one is in its namespaces
and waits for its first frame: it has no context, no secret, and nothing of any run.

1. A process serves one session and dies with it. Spare ones are replaced, never used again.
2. How many there are follows from use: none for the first session, one more for each that comes
   after it, `MOST_SPARES` at most. When none was taken for `IDLE_S`, all of them end.
3. They live no longer than the runs: with the last use of the pool, all are ended. A host that is
   killed takes them with it, like every process of a session.
4. A process dies with the thread that started it (that is how the system's death signal works),
   so one thread starts them all, and lives until the last run has ended.
5. Nothing here belongs to an event loop, and all of it may be called from any thread.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from effects.repls._spawning import Started

IDLE_S = 30.0
"""How long spare processes wait for a session."""
MOST_SPARES = min(4, os.cpu_count() or 1)
"""More would only take turns at starting."""


class Process(Protocol):
    """What the pool keeps: `effects.repls._spawning.Started`."""

    def is_alive(self) -> bool:
        """Whether it can still be given to a session."""
        ...

    def end(self) -> None:
        """End it, and wait until it is gone."""
        ...


P = TypeVar("P", bound=Process)


class Keeper(Generic[P]):
    """Spare processes of one kind, and the thread that starts and ends them."""

    def __init__(self, make: Callable[[], P], *, most: int, idle_s: float = IDLE_S) -> None:
        """`make` starts a process; it may raise OSError, which ends the keeping of spares."""
        self._make = make
        self._most = most
        self._idle_s = idle_s
        self._spares: list[P] = []
        self._wanted = 0
        self._taken_s = time.monotonic()
        self._is_over = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="rlm-pool", daemon=True)
        self._thread.start()

    @property
    def spares(self) -> int:
        """How many there are now."""
        with self._change:
            return len(self._spares)

    def take(self) -> P | None:
        """A spare process, from now on the caller's; None when there is none."""
        with self._change:
            self._wanted = min(self._wanted + 1, self._most)
            self._taken_s = time.monotonic()
            taken = self._spares.pop(0) if self._spares else None
            self._change.notify()
        if taken is not None and not taken.is_alive():
            taken.end()
            return None
        return taken

    def stop(self) -> None:
        """End the spares and then the thread, soon. `join` waits for it."""
        with self._change:
            self._is_over = True
            self._change.notify()

    def join(self) -> None:
        """Wait until all spares are gone."""
        self._thread.join()

    def _serve(self) -> None:
        while self._waits():
            try:
                made = self._make()
            except OSError:
                with self._change:
                    self._wanted = 0
                continue
            with self._change:
                self._spares.append(made)
        self._end_all()

    def _waits(self) -> bool:
        """Wait until a process must be started; False when the end has come."""
        while True:
            with self._change:
                if self._is_over:
                    return False
                left_s = self._taken_s + self._idle_s - time.monotonic()
                if left_s > 0 and len(self._spares) < self._wanted:
                    return True
                if left_s > 0 or not self._spares:
                    self._change.wait(left_s if self._spares else None)
                    continue
                self._wanted = 0
            self._end_all()

    def _end_all(self) -> None:
        with self._change:
            spares, self._spares = self._spares, []
        for spare in spares:
            spare.end()


class Pool(Generic[P]):
    """The keepers of a program, one for each kind of process. Kinds are texts."""

    def __init__(self, most: int = MOST_SPARES) -> None:
        self._most = most
        self._uses = 0
        self._keepers: dict[str, Keeper[P] | None] = {}
        """None after the first session of its kind."""
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    @asynccontextmanager
    async def in_use(self) -> AsyncGenerator[None]:
        """Keep spare processes while this lasts. May be nested, and overlap."""
        with self._lock:
            self._uses += 1
        try:
            yield
        finally:
            with self._lock:
                self._uses -= 1
                ended = [] if self._uses else [k for k in self._keepers.values() if k is not None]
                if not self._uses:
                    self._keepers = {}
            for keeper in ended:
                keeper.stop()
            for keeper in ended:
                await asyncio.to_thread(keeper.join)

    def take(self, kind: str, make: Callable[[], P]) -> P | None:
        """A spare process of a kind, from now on the caller's; None when there is none.

        `make` is how more of them are started, in another thread.
        """
        with self._lock:
            if not self._uses:
                return None
            if kind not in self._keepers:
                self._keepers[kind] = None
                return None
            keeper = self._keepers[kind]
            if keeper is None:
                keeper = self._keepers[kind] = Keeper(make, most=self._most)
        return keeper.take()

    def _forget(self) -> None:
        """In a forked copy of the program, which has neither the thread nor the processes."""
        self._lock = threading.Lock()
        self._uses = 0
        _of_parent.append(self._keepers)
        self._keepers = {}


POOL: "Pool[Started]" = Pool()
"""Processes for the sessions of the `python` backend in this program."""
_of_parent: list[object] = []
"""Kept, so that a forked copy doesn't ask the system about processes that aren't its own."""
