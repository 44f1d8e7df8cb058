"""What a run asks of its cache: whether a subcall was answered before, or is being answered now.

1. Plain subcalls are looked for, and nothing else. A turn sees output, errors and what is left of
   the budget, so it hardly ever repeats; and who runs a question again wants another attempt.
2. The cache is asked when the call is performed: its intent is in the log, whatever answers it.
   So a call that was in flight when the process died asks the cache first.
3. A reply is kept before its event is appended (a folder), or by the event itself (the log): there
   is no moment in which a reply is in the log and not in the cache. But a run that is stopped
   while its reply is being kept doesn't wait for that: the reply is paid for, and belongs into the
   log.
4. A hit is an event like any other. Replay and resume read the log; they need no cache.
5. Empty replies, and those that a content filter stopped, aren't kept: to ask again may help.
6. What goes wrong with a cache is warned of once and never ends a run, whatever it raises or gives:
   a cache that fails is a miss, and so is a reply with fields of other types. One that hangs is
   waited for as long as its run has time; neither the end of the run nor that of the program is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from effects.caches.base import Cache, CachedReply, CacheRequest, sound
from effects.caches.files import FileCache
from effects.caches.flights import FLIGHTS, Flight, arrival
from effects.caches.keys import identity_of, key_of
from effects.caches.threads import Threads
from effects.calling import TEMPERATURE, told
from effects.log.base import EventLog
from rlm_fsm.effect import CallModel
from rlm_fsm.event import Event, ModelFailed, ModelReplied

_logger = logging.getLogger("rlm_fsm")

T = TypeVar("T")
Outcome = ModelReplied | ModelFailed
Call = Callable[[], Awaitable[Outcome]]
Messages = Sequence[Mapping[str, str]]


class Store(Protocol):
    """A cache as runs use it. None of its methods raises."""

    @property
    def place(self) -> str:
        """Names the cache within the process: those that share it share calls in flight."""
        ...

    @property
    def keeps_events(self) -> bool:
        """Whether a reply is kept by being appended to the log."""
        ...

    async def find(self, key: str) -> CachedReply | None:
        """The reply under a key."""
        ...

    async def keep(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        """Keep a reply."""
        ...


@dataclass(kw_only=True)
class CacheStore:
    """A `Cache` as a store: asked in worker threads, which each event loop has of its own."""

    cache: Cache
    keeps_events: bool = False
    _warned: set[str] = field(default_factory=set[str])
    _threads: WeakKeyDictionary[asyncio.AbstractEventLoop, Threads] = field(
        default_factory=WeakKeyDictionary[asyncio.AbstractEventLoop, Threads]
    )

    @property
    def place(self) -> str:
        if isinstance(self.cache, FileCache):
            return f"files {self.cache.root}"
        return f"object {id(self.cache)}"

    async def find(self, key: str) -> CachedReply | None:
        def get() -> CachedReply | None:
            found = cast(object, self.cache.get(key))
            return None if found is None else sound(found)

        return await self._try("read", get)

    async def keep(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        await self._try("written", lambda: self.cache.put(key, reply, request))

    async def _try(self, what: str, use: Callable[[], T]) -> T | None:
        """What a use of the cache gives; None, with a warning, when it fails.

        Whatever is raised is handed on as a value: a future takes some exceptions for its own,
        and would never end by others. So it is the run's when waiting is cancelled.
        """

        def work() -> Result[T, BaseException]:
            try:
                return Success(use())
            except BaseException as error:  # a user's cache may raise anything
                return Failure(error)

        try:
            loop = asyncio.get_running_loop()
            done = await self._threads.setdefault(loop, Threads()).do(work)
        except RuntimeError as error:  # there is no thread to be had
            done = Failure(error)
        if is_successful(done):
            return done.unwrap()
        self._warn(what, done.failure())
        return None

    def _warn(self, what: str, error: BaseException) -> None:
        if what not in self._warned:
            self._warned.add(what)
            name, why = _named(self.cache), told(error)
            _logger.warning("%s can't be %s, runs go on without: %s", name, what, why)


@dataclass(kw_only=True)
class LogStore:
    """The replies that a log holds, of whichever of its runs. For the thread that has the log."""

    log: EventLog
    keeps_events: bool = True
    _warned: bool = False

    @property
    def place(self) -> str:
        own = f" {id(self.log)}" if self.log.path == ":memory:" else ""
        return f"log {self.log.path}{own}"

    async def find(self, key: str) -> CachedReply | None:
        try:
            found = cast(object, self.log.answer(key))
            if found is not None and not isinstance(found, ModelReplied):
                raise TypeError(f"answer gave {type(found).__name__}, not a ModelReplied or None")
        except Exception as error:  # a user's log may raise anything
            if not self._warned:
                self._warned = True
                _logger.warning("earlier replies can't be read, the run goes on: %s", told(error))
            return None
        return None if found is None else _kept(found)

    async def keep(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        """Nothing to do: the event that is appended next is the entry."""


@dataclass(kw_only=True)
class Caching:
    """One run's use of a store, if it has any. For the event loop that drives it."""

    store: Store | None = None
    _led: set[Flight] = field(default_factory=set[Flight])
    """Flights whose call is under way."""
    _unsaved: dict[str, Flight] = field(default_factory=dict[str, Flight])
    """Flights with a reply that isn't in the log yet, by key."""
    _is_released: bool = False

    def applies_to(self, effect: CallModel) -> bool:
        """Whether a call may be answered from what is known."""
        return self.store is not None and effect.purpose == "subcall"

    async def ask(
        self,
        effect: CallModel,
        adapter: object,
        messages: Messages,
        call: Call,
        elapsed: Callable[[], tuple[float, float]],
    ) -> Outcome:
        """The outcome of a call: a hit, or that of `call`, which is made at most once."""
        store = self.store
        if store is None or not self.applies_to(effect):
            return await call()
        asked = _asked(effect, adapter, messages)
        if asked is None:
            return await call()
        key, request = asked
        joined = FLIGHTS.join((store.place, key))
        if isinstance(joined, Flight):
            reply, outcome = await self._lead(store, joined, request, call)
        elif (reply := await arrival(joined)) is not None:
            outcome = None
        else:
            reply, outcome = await _make(store, key, request, call)
        if outcome is not None:
            return outcome
        assert reply is not None, "there is an outcome or a reply"
        return _hit(effect, key, reply, elapsed())

    def committed(self, events: Sequence[Event]) -> None:
        """Events were appended: the replies among them can be found from now on."""
        for event in events if self._unsaved else ():
            if isinstance(event, ModelReplied) and event.cache_key in self._unsaved:
                FLIGHTS.close(self._unsaved.pop(event.cache_key))

    def release(self) -> None:
        """The run is driven no further: what it hasn't appended is lost, and nobody is to wait for
        a call of it that goes on although it was cancelled."""
        self._is_released = True
        for flight in self._led:
            FLIGHTS.land(flight, None)
        for flight in self._unsaved.values():
            FLIGHTS.close(flight)
        self._unsaved.clear()

    async def _lead(
        self, store: Store, flight: Flight, request: CacheRequest, call: Call
    ) -> tuple[CachedReply | None, Outcome | None]:
        """The reply that the store has; else the outcome of the call, and what was kept of it."""
        key = flight.place[1]
        reply: CachedReply | None = None
        is_saved = True
        self._led.add(flight)
        try:
            reply = await store.find(key)
            if reply is not None:
                return reply, None
            reply, outcome = await _make(store, key, request, call)
            is_saved = not store.keeps_events
            return reply, outcome
        finally:
            self._led.discard(flight)
            FLIGHTS.land(flight, reply)
            if is_saved or reply is None or self._is_released:
                FLIGHTS.close(flight)
            else:
                self._unsaved[key] = flight


def _asked(
    effect: CallModel, adapter: object, messages: Messages
) -> tuple[str, CacheRequest] | None:
    """The key of a call and what it asks; None when nobody can tell what the adapter is."""
    how: dict[str, Any] = {
        "max_tokens": effect.max_tokens,
        "temperature": TEMPERATURE,
        "sample": effect.sample,
    }
    try:
        identity = identity_of(adapter)
        if identity is None:
            return None
        key = key_of(identity, messages, **how)
    except Exception as error:  # a user's adapter may say anything of itself
        _logger.debug("%s can't be told apart from others: %s", type(adapter).__name__, error)
        return None
    return key, CacheRequest(adapter=identity, prompt=messages[-1]["content"], **how)


async def _make(
    store: Store, key: str, request: CacheRequest, call: Call
) -> tuple[CachedReply | None, Outcome]:
    """Make the call and keep its reply: what was kept, and the outcome. A cancellation while it is
    being kept is left to whoever runs the task: the outcome is given all the same."""
    outcome = await call()
    reply = _kept(outcome) if isinstance(outcome, ModelReplied) else None
    if reply is None or isinstance(outcome, ModelFailed):
        return None, outcome
    with suppress(asyncio.CancelledError):
        await store.keep(key, reply, request)
    return reply, replace(outcome, cache_key=key)


def _named(cache: Cache) -> str:
    """A cache as it says what it is, or else its type."""
    try:
        return repr(cache)
    except Exception:
        return type(cache).__name__


def _kept(event: ModelReplied) -> CachedReply | None:
    """What a cache holds of a reply; None for one that isn't worth it."""
    if not event.text.strip() or event.finish_reason == "content_filter":
        return None
    return CachedReply(
        text=event.text,
        model_id=event.model_id,
        finish_reason=event.finish_reason,
        reasoning=event.reasoning,
        usage=event.usage,
        cost_usd=event.cost_usd,
    )


def _hit(
    effect: CallModel, key: str, reply: CachedReply, elapsed: tuple[float, float]
) -> ModelReplied:
    return ModelReplied(
        frame=effect.frame,
        call_id=effect.call_id,
        text=reply.text,
        model_id=reply.model_id,
        finish_reason=reply.finish_reason,
        reasoning=reply.reasoning,
        cache_hit=True,
        cache_key=key,
        elapsed_s=elapsed[0],
        clock_s=elapsed[1],
    )
