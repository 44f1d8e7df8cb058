"""Caches that fail, or give what no reply is: a miss, or a reply that isn't kept. Never more."""

import asyncio
import concurrent.futures
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from caching_model import BATCH, ONE, adapter, server, subcalls

from effects.caches.base import CachedReply, CacheRequest
from effects.caches.flights import FLIGHTS
from effects.log.memory import MemoryLog
from rlm_fsm import RLM, Policy, Usage, arun, run, runs

ANSWER = "['ONE TEXT', 'TWO TEXT', 'THREE TEXT']"
LIMITED = Policy(max_seconds=60.0)
"""So that a run that would wait for ever is a failure."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


class Quitting(BaseException):
    """Of nobody's tree."""


FAILURES = [
    ConnectionError("no route"),
    asyncio.CancelledError(),
    concurrent.futures.CancelledError(),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    Quitting("enough"),
    Unspeakable(),
]
FAILING = pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)


class Cache:
    """Fails in one of its methods, or gives one thing for every key."""

    def __init__(self, *, get: object = None, put: BaseException | None = None) -> None:
        self.given, self.refusal = get, put

    def get(self, key: str) -> Any:
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given

    def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture(autouse=True)
def _nothing_stays_in_flight() -> Any:
    yield
    assert len(FLIGHTS) == 0


@FAILING
@pytest.mark.parametrize("what", ["get", "put"])
def test_whatever_a_cache_raises_is_warned_of_once_and_never_ends_a_run(
    what: str, failure: BaseException, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "rlm_fsm")
    given: dict[str, Any] = {what: failure}
    with server(BATCH) as model:
        rlm = RLM(adapter(model), log=":memory:", cache=Cache(**given), policy=LIMITED)
        done = [rlm.run("q", "text") for _ in range(2)]
        assert set(subcalls(model).values()) == {2}
    assert [(result.status, result.output) for result in done] == [("finished", ANSWER)] * 2
    (told,) = (record.getMessage() for record in caplog.records)
    assert f"can't be {'read' if what == 'get' else 'written'}" in told
    assert type(failure).__name__ in told


SOUND: dict[str, Any] = {"text": "kept", "usage": Usage(1, 1, 2), "cost_usd": 0.5}


@pytest.mark.parametrize(
    "odd",
    [
        {"text": None},
        {"text": b"kept"},
        {"text": 5},
        {"model_id": 5},
        {"finish_reason": ["stop"]},
        {"reasoning": {"steps": 1}},
        {"usage": None},
        {"usage": {"prompt_tokens": 1}},
        {"usage": Usage("many", 1, 2)},  # type: ignore[arg-type]
        {"usage": Usage(-1, 1, 0)},
        {"cost_usd": "0.5"},
        {"cost_usd": float("nan")},
        {"cost_usd": -1.0},
        {"cost_usd": True},
    ],
    ids=str,
)
def test_a_reply_with_odd_fields_is_a_miss(odd: dict[str, Any], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "rlm_fsm")
    cache = Cache(get=CachedReply(**{**SOUND, **odd}))
    with server(ONE) as model:
        result = run("q", "text", adapter=adapter(model), log=":memory:", cache=cache)
    assert (result.status, result.output) == ("finished", "ONE TEXT")
    assert result.usage.cache_hits == 0
    (name,) = odd
    (told,) = (record.getMessage() for record in caplog.records)
    assert f"whose {name}" in told


def test_a_reply_with_sound_fields_is_a_hit():
    with server(ONE) as model:
        cache = Cache(get=CachedReply(**SOUND))
        result = run("q", "text", adapter=adapter(model), log=":memory:", cache=cache)
    assert (result.output, result.usage.cache_hits) == ("kept", 1)


def test_a_reply_whose_fields_are_missing_is_a_miss():
    """As one that another version has pickled."""
    hollow = object.__new__(CachedReply)
    with server(ONE) as model:
        result = run("q", "text", adapter=adapter(model), log=":memory:", cache=Cache(get=hollow))
    assert (result.output, result.usage.cache_hits) == ("ONE TEXT", 0)


def test_a_cache_that_cannot_say_what_it_is_is_named_by_its_type(caplog: pytest.LogCaptureFixture):
    class Shy(Cache):
        def __repr__(self) -> str:
            raise ValueError("no name")

    with server(ONE) as model:
        cache = Shy(get=OSError("gone"))
        result = run("q", "text", adapter=adapter(model), log=":memory:", cache=cache)
    assert result.output == "ONE TEXT"
    assert "Shy can't be read, runs go on without: OSError: gone" in caplog.text


@pytest.mark.parametrize("what", ["get", "put"])
def test_a_run_that_is_cancelled_while_its_cache_is_asked_is_cancelled(what: str, tmp_path: Path):
    asked, release = threading.Event(), threading.Event()

    class Slow(Cache):
        def wait(self) -> None:
            asked.set()
            release.wait(30)
            raise asyncio.CancelledError

        def get(self, key: str) -> Any:
            return self.wait() if what == "get" else None

        def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
            self.wait()

    log = tmp_path / "log.sqlite"

    async def program() -> None:
        asking = arun("q", "text", adapter=adapter(model), log=log, cache=Slow())
        task = asyncio.create_task(asking)
        await asyncio.to_thread(asked.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    with server(ONE) as model:
        asyncio.run(program())
    assert runs(log)[0].status == "cancelled"


@pytest.mark.parametrize("given", [ValueError("torn"), "a reply", 5], ids=str)
def test_a_log_of_ones_own_that_fails_as_a_cache_is_a_miss(
    given: object, caplog: pytest.LogCaptureFixture
):
    class Torn(MemoryLog):
        def answer(self, key: str) -> Any:
            if isinstance(given, Exception):
                raise given
            return given

    with server(ONE) as model:
        result = run("q", "text", adapter=adapter(model), log=Torn(), cache="log")
    assert (result.output, result.usage.cache_hits) == ("ONE TEXT", 0)
    assert caplog.text.count("can't be read") == 1
