"""The benchmarks can be run. What they measure is nobody's business here."""

import asyncio
from pathlib import Path

import pytest

from benchmarks import fanout
from benchmarks.exact import Alarm
from benchmarks.figures import BACKENDS
from benchmarks.workload import Workload, run_logged, run_own


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_does_what_the_workload_says(backend: str, tmp_path: Path):
    work = Workload(backend=backend, turns=2)
    assert run_own(work, ":memory:").turns_s > 0
    assert run_logged(work, tmp_path).rest_s > 0
    assert not list(tmp_path.iterdir())


def test_a_run_that_does_something_else_is_refused():
    with pytest.raises(RuntimeError, match="something else"):
        run_own(Workload(backend="python", turns=1, subcalls=3), ":memory:")


def test_a_fan_out_makes_its_calls(tmp_path: Path):
    cell = "answers = llm_batch([f'part {i}' for i in range(20)])"
    work = Workload(backend="python", turns=1, cell=cell, subcalls=20, subcall_s=0.001, workers=10)
    assert run_logged(work, tmp_path).turns_s >= 20 * 0.001 / 10


def test_an_alarm_wakes_each_sleeper_in_the_order_of_their_asking():
    async def sleep_all() -> list[int]:
        alarm, woken = Alarm(), list[int]()

        async def one(number: int) -> None:
            await alarm.sleep(0.002)
            woken.append(number)

        await asyncio.gather(*(one(number) for number in range(50)))
        alarm.close()
        return woken

    assert asyncio.run(sleep_all()) == list(range(50))


def test_the_ideal_is_arithmetic():
    assert fanout.ideal_s(10) == pytest.approx(2.0)
