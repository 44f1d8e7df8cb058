"""Which cache a run uses: the argument `cache`, checked; and how it is recorded for a resume.

What a run used stands in the environment of its first event, so that whoever goes on with it uses
the same, unless told otherwise. A cache of the caller's own can't be recorded; a folder that is
gone, or can't be written any more, is done without.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from effects.caches.base import Cache
from effects.caches.files import FileCache
from effects.caches.keys import identity_of, key_of
from effects.caching import CacheStore, Caching, LogStore
from effects.calling import TEMPERATURE
from effects.log.base import EventLog
from rlm_fsm.errors import UsageError
from rlm_fsm.event import Event, RunResumed, RunStarted

_logger = logging.getLogger("rlm_fsm")

CacheLike = Cache | Literal["log", "none"] | None
"""What callers pass as `cache`."""
CacheChoice = CacheStore | Literal["log", "none"] | None
"""A checked one. None: nothing was said; a run that goes on uses what it used before."""


def cache_choice(given: CacheLike, adapters: Mapping[str, object]) -> CacheChoice:
    """Check a `cache` argument, and that the run's adapters can be told apart.

    Raises `UsageError` for what is no cache, and for adapters of which nobody can tell what they
    are.
    """
    match given:
        case None | "none":
            return given
        case "log":
            choice: CacheChoice = "log"
        case Cache() if not isinstance(given, type):
            choice = CacheStore(cache=given)
        case _:
            raise UsageError(
                f"cache={given!r}: give FileCache(FOLDER), 'log' for replies of earlier runs in "
                "the same log, or an object with get(key) and put(key, reply, request)"
            )
    _check_identities(adapters)
    return choice


def caching_of(choice: CacheChoice, log: EventLog) -> Caching:
    """What a run asks, if anything. `UsageError` for a log that can't be asked."""
    match choice:
        case None | "none":
            return Caching()
        case "log":
            if not hasattr(log, "answer"):
                raise UsageError(
                    f"cache='log': {type(log).__name__} can't find replies, it has no method "
                    "answer(key); give FileCache(FOLDER)"
                )
            return Caching(store=LogStore(log=log))
        case CacheStore():
            return Caching(store=choice)


def recorded_as(choice: CacheChoice) -> dict[str, str]:
    """A choice as the run's environment records it."""
    match choice:
        case None | "none":
            return {}
        case "log":
            return {"cache": "log"}
        case CacheStore(cache=FileCache() as files):
            most = "none" if files.max_bytes is None else str(files.max_bytes)
            return {"cache": "files", "cache.root": str(files.root), "cache.max_bytes": most}
        case CacheStore(cache=other):
            return {"cache": f"object {type(other).__name__}"}


def noting(events: Iterable[Event], found: dict[str, str]) -> Iterator[Event]:
    """The events; `found` becomes the environment of the newest that has one."""
    for event in events:
        if isinstance(event, RunStarted | RunResumed):
            found.clear()
            found.update(event.environment)
        yield event


def again(environment: Mapping[str, str]) -> CacheChoice:
    """The cache that a run used, where a record is enough to have it; else None, with a warning."""
    name, most = environment.get("cache"), environment.get("cache.max_bytes", "")
    if name is None or name == "log":
        return "log" if name else None
    try:
        if name == "files":
            limit = int(most) if most.isdecimal() else None
            root = environment.get("cache.root", "")
            return CacheStore(cache=FileCache(root, max_bytes=limit))
    except UsageError as error:
        _logger.warning("the run goes on without its cache: %s", error)
        return None
    _logger.warning("the run had a cache (%s): pass it as cache= to use it again", name)
    return None


def _check_identities(adapters: Mapping[str, Any]) -> None:
    """The root's takes part only where it answers subcalls too."""
    for name, adapter in adapters.items():
        if name == "root" and adapter is not adapters.get("subcall"):
            continue
        kind = type(adapter).__name__
        identity = identity_of(adapter)
        if identity is None:
            raise UsageError(
                f"cache: replies of {kind} ({name}) can't be kept, since nobody can tell which "
                "model it asks. Give it an attribute model, or identity: a mapping of all that "
                "its answers depend on, without secrets"
            )
        try:
            key_of(identity, (), max_tokens=1, temperature=TEMPERATURE)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"cache: {kind}.identity can't be written as JSON: {error}") from None
