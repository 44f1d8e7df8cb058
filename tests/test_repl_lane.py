"""The thread that does blocking jobs for an event loop."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from effects.repls import _lane
from effects.repls._lane import Lane


class Stoppable:
    """A job that lasts until it is interrupted, and the lane that does it."""

    def __init__(self) -> None:
        self.lane = Lane(self.interrupt)
        self.began = threading.Event()
        self.interrupted = threading.Event()

    def work(self) -> str:
        self.began.set()
        assert self.interrupted.wait(60)
        return "interrupted"

    def interrupt(self) -> None:
        self.interrupted.set()

    async def until_it_began(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.began.wait)


def run(work: Callable[[Stoppable], Awaitable[object]]) -> object:
    async def within() -> object:
        job = Stoppable()
        try:
            return await work(job)
        finally:
            job.interrupted.set()
            await job.lane.close(lambda: None)

    return asyncio.run(within())


def test_jobs_are_done_one_after_the_other_in_one_other_thread():
    async def work(job: Stoppable) -> list[int]:
        return [await job.lane.do(threading.get_ident) for _ in range(20)]

    threads = run(work)
    assert isinstance(threads, list)
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize("quick_s", [0.0, 5.0])
def test_a_job_gives_its_value_or_its_error_waited_for_or_not(
    quick_s: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_lane, "QUICK_S", quick_s)

    async def work(job: Stoppable) -> list[object]:
        said: list[object] = []
        for number in range(20):
            said.append(await job.lane.do(lambda number=number: 10 // (number - 7) or number))
            if number == 6:
                break
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await job.lane.do(lambda: 1 // 0)
        said.append(await job.lane.do(lambda: "goes on"))
        return said

    assert run(work) == [-2, -2, -2, -3, -4, -5, -10, "goes on"]


def test_whoever_gives_up_waiting_interrupts_the_job():
    async def work(job: Stoppable) -> bool:
        waiting = asyncio.create_task(job.lane.do(job.work))
        await job.until_it_began()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return job.interrupted.is_set()

    assert run(work) is True


def test_a_job_that_was_given_up_before_it_began_is_not_done():
    done: list[str] = []

    async def work(job: Stoppable) -> list[str]:
        first = asyncio.create_task(job.lane.do(job.work))
        await job.until_it_began()
        second = asyncio.create_task(job.lane.do(lambda: done.append("second")))
        await asyncio.sleep(0)
        second.cancel()  # which interrupts the first one, too: it is one session
        await asyncio.gather(first, second, return_exceptions=True)
        await job.lane.do(lambda: done.append("third"))
        return done

    assert run(work) == ["third"]


def test_closing_interrupts_the_job_that_runs_and_does_a_last_one():
    done: list[str] = []

    async def work(job: Stoppable) -> object:
        waiting = asyncio.create_task(job.lane.do(job.work))
        await job.until_it_began()
        await job.lane.close(lambda: done.append("last"))
        return await waiting

    assert run(work) == "interrupted"
    assert done == ["last"]


def test_a_job_that_lasts_leaves_the_event_loop_its_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lane, "QUICK_S", 0.0)

    async def work(job: Stoppable) -> str:
        for _ in range(5):  # so that it might be waited for
            await job.lane.do(lambda: None)
        waiting = asyncio.create_task(job.lane.do(job.work))
        await job.until_it_began()
        for _ in range(5):
            await asyncio.sleep(0)
        job.interrupt()
        return await waiting

    assert run(work) == "interrupted"


def test_the_thread_ends_when_nobody_can_wait_for_it():
    done = threading.Event()

    async def work(job: Stoppable) -> threading.Thread:
        thread = await job.lane.do(threading.current_thread)
        job.lane.retire(done.set)
        return thread

    async def within() -> threading.Thread:
        return await work(Stoppable())

    thread = asyncio.run(within())
    thread.join(60)
    assert done.is_set()
    assert not thread.is_alive()
