"""Calls in flight, by what they ask: whoever asks the same waits for the answer of the first.

For all runs of the process, whatever thread and event loop they have.

1. Who comes first leads: it looks into the cache and, if need be, asks the model. The others wait.
2. A flight that lands with a reply gives it to all who wait. One that lands without (the call
   failed, was cancelled, or gave what isn't kept) sends them off to ask for themselves: its reason
   may be its own, such as a refused key.
3. Until it is closed, a flight that has landed gives its reply to latecomers. So whoever leads the
   next one finds the reply in the cache: the leader closes when it is there.
"""

import asyncio
import os
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from effects.caches.base import CachedReply

Place = tuple[str, str]
"""Which cache, and which key."""


@dataclass(eq=False)
class Flight:
    """One call and those who wait for it. Made by `Flights.join`."""

    place: Place
    waiting: "list[Future[CachedReply | None]]" = field(
        default_factory=list["Future[CachedReply | None]"]
    )
    landed: CachedReply | None = None
    """The reply, once there is one."""


class Flights:
    """The calls in flight of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Place, Flight] = {}

    def __len__(self) -> int:
        return len(self._open)

    def join(self, place: Place) -> "Flight | Future[CachedReply | None]":
        """A flight to lead, or what to wait for: the reply of the one that is under way, or None
        when it came to nothing."""
        with self._lock:
            flight = self._open.get(place)
            if flight is None:
                flight = self._open[place] = Flight(place)
                return flight
            waiting: Future[CachedReply | None] = Future()
            if flight.landed is None:
                flight.waiting.append(waiting)
            else:
                waiting.set_result(flight.landed)
            return waiting

    def land(self, flight: Flight, reply: CachedReply | None) -> None:
        """Tell those who wait how the flight ended. One without a reply is closed too."""
        with self._lock:
            waiting, flight.waiting = flight.waiting, []
            flight.landed = reply
            if reply is None:
                self._forget(flight)
        for each in waiting:
            with suppress(InvalidStateError):  # it was cancelled
                each.set_result(reply)

    def close(self, flight: Flight) -> None:
        """Let the next one who asks look into the cache."""
        with self._lock:
            self._forget(flight)

    def forget_all(self) -> None:
        """In the child of a fork: the calls are the parent's, and none will ever land here."""
        self._lock = threading.Lock()
        self._open = {}

    def _forget(self, flight: Flight) -> None:
        if self._open.get(flight.place) is flight:
            del self._open[flight.place]


async def arrival(waiting: "Future[CachedReply | None]") -> CachedReply | None:
    """Wait for a flight, in the running event loop."""
    return await asyncio.wrap_future(waiting)


FLIGHTS = Flights()
"""Those of this process."""
os.register_at_fork(after_in_child=FLIGHTS.forget_all)
