"""Runs that are stopped while their cache is asked or written: nothing is paid for twice, and a
cache that hangs holds nobody."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from caching_model import BATCH, ONE, adapter, events_of, server, subcalls
from cli_driving import ROOT_DIR, environment

from effects.caches import threads
from effects.caches.base import CachedReply, CacheRequest
from effects.caches.flights import FLIGHTS
from effects.caches.threads import Threads
from rlm_fsm import Policy, arun, fold, replay, resume, run, runs

FINAL = "['ONE TEXT', 'TWO TEXT', 'THREE TEXT']"


class Slow:
    """A cache of which one method waits until it is let go."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.asked, self.let_go = threading.Semaphore(0), threading.Event()
        self.kept: dict[str, CachedReply] = {}

    def get(self, key: str) -> CachedReply | None:
        self._wait("get")
        return self.kept.get(key)

    def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        self._wait("put")
        self.kept[key] = reply

    def _wait(self, what: str) -> None:
        if what == self.what:
            self.asked.release()
            self.let_go.wait(60)

    async def was_asked(self, times: int = 1) -> None:
        for _ in range(times):
            await asyncio.to_thread(self.asked.acquire, timeout=30)


@pytest.fixture(autouse=True)
def _nothing_stays_in_flight() -> Any:
    yield
    assert len(FLIGHTS) == 0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize(
    ("cell", "count", "output"), [(ONE, 1, "ONE TEXT"), (BATCH, 3, FINAL)], ids=["one", "batch"]
)
def test_a_reply_that_came_is_in_the_log_when_the_run_stops_while_it_is_kept(
    how: str, cell: str, count: int, output: str, log: Path
):
    cache = Slow("put")

    async def program() -> None:
        policy = Policy(max_seconds=1.5 if how == "deadline" else None)
        asking = arun("q", "text", adapter=adapter(model), log=log, cache=cache, policy=policy)
        task = asyncio.create_task(asking)
        await cache.was_asked(count)
        if how == "deadline":
            assert (await task).limit == "max_seconds"
            return
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    with server(cell) as model:
        asyncio.run(program())
        (info,) = runs(log)
        assert info.status == ("cancelled" if how == "cancel" else "partial")
        assert fold(events_of(log, info.run_id)).under_way == ()
        replay(info.run_id, log=log)
        cache.let_go.set()
        more = Policy(max_seconds=600)
        again = resume(info.run_id, log=log, adapter=adapter(model), cache="none", policy=more)
        assert (again.output, again.usage.uncertain_calls) == (output, 0)
        assert set(subcalls(model).values()) == {1}


def test_those_who_wait_for_a_reply_have_it_when_its_run_is_cancelled_while_it_is_kept(log: Path):
    cache = Slow("put")

    async def program() -> None:
        options: dict[str, Any] = {"log": log, "cache": cache}
        first = asyncio.create_task(arun("q", "text", adapter=adapter(model), **options))
        await cache.was_asked()
        second = asyncio.create_task(arun("q", "text", adapter=adapter(model), **options))
        (flight,) = FLIGHTS._open.values()
        while not flight.waiting:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.001)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        result = await asyncio.wait_for(second, 30)
        assert (result.output, result.usage.cache_hits) == ("ONE TEXT", 1)
        cache.let_go.set()

    with server(ONE) as model:
        asyncio.run(program())
        assert set(subcalls(model).values()) == {1}


@pytest.mark.parametrize("what", ["get", "put"])
def test_a_cache_that_hangs_holds_neither_a_run_beyond_its_deadline_nor_its_loop(
    what: str, log: Path
):
    cache = Slow(what)
    with server(ONE) as model:
        began = time.monotonic()
        policy = Policy(max_seconds=1.0)
        first = run("q", "text", adapter=adapter(model), log=log, cache=cache, policy=policy)
        assert (first.status, first.limit) == ("partial", "max_seconds")
        assert time.monotonic() - began < 20
    cache.let_go.set()


PROGRAM = """
import sys, threading
from rlm_fsm import FakeAdapter, Policy, run

class Hanging:
    def get(self, key):
        return None if sys.argv[1] == "put" else threading.Event().wait()

    def put(self, key, reply, request):
        threading.Event().wait()

class Model(FakeAdapter):
    model = "m"

model = Model(["```python\\nfound = llm_query('a')\\n```"])
model.add_rule("sub-LLM", "A")
result = run("q", "text", adapter=model, cache=Hanging(), policy=Policy(max_seconds=1.0))
print(result.status)
"""


@pytest.mark.parametrize("what", ["get", "put"])
def test_a_program_whose_cache_hangs_ends(what: str, log: Path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT_DIR,
        env=environment(log),
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "partial\n"), done.stderr


# -- its threads


def cache_threads() -> int:
    return sum(thread.name == "rlm-cache" for thread in threading.enumerate())


def test_threads_serve_again_and_jobs_at_once_have_one_each():
    async def program() -> None:
        own = Threads()
        one = {await own.do(threading.get_ident) for _ in range(10)}
        assert len(one) < 10, "one that has just given its answer may not be idle yet"
        together = threading.Barrier(3)

        def meet() -> int:
            together.wait(30)
            return threading.get_ident()

        assert len(set(await asyncio.gather(*(own.do(meet) for _ in range(3))))) == 3

    asyncio.run(program())


def test_there_are_no_more_threads_than_may_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "MOST", 2)

    async def program() -> list[int]:
        own = Threads()
        return await asyncio.gather(*(own.do(threading.get_ident) for _ in range(50)))

    done = asyncio.run(program())
    assert len(done) == 50
    assert len(set(done)) <= 2


def test_threads_that_have_nothing_to_do_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "IDLE_S", 0.01)

    async def program() -> None:
        own = Threads()
        for _ in range(3):
            before = cache_threads()
            await own.do(lambda: None)
            while cache_threads() > before:  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(program(), 30))


def test_a_cache_that_can_have_no_thread_is_a_miss(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "rlm_fsm")
    start = threading.Thread.start

    def refused(self: threading.Thread) -> None:
        if self.name == "rlm-cache":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with server(ONE) as model:
        cache = Slow("neither")
        result = run("q", "text", adapter=adapter(model), log=":memory:", cache=cache)
    assert result.output == "ONE TEXT"
    assert caplog.text.count("can't start new thread") == 2, "once for each way of using it"


def test_a_job_sees_the_variables_of_its_run():
    name = ContextVar("name", default="")

    async def program() -> str:
        name.set("mine")
        return await Threads().do(name.get)

    assert asyncio.run(program()) == "mine"
