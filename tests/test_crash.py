"""Real processes, killed: the crash harness in the small. `tests/crash.py` is the same by hand."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rlm_fsm import FakeAdapter, SqliteLog, UsageError, resume, run
from rlm_fsm.event import EffectStarted, ModelReplied
from rlm_fsm.ids import RunId
from tests.crash import BACKENDS, crash, planned, points_of
from tests.crash_checks import judged
from tests.crash_cycle import Harness, Kill, Plan

CYCLES = 200 if os.environ.get("CI") else 40
SEED = 1


def test_killed_runs_lose_nothing_and_pay_for_nothing_twice(capsys: pytest.CaptureFixture[str]):
    report = asyncio.run(crash(cycles=CYCLES, seed=SEED))
    with capsys.disabled():
        print(f"\n{report}")
    assert report.failures == []
    assert report.total("divergences") == 0
    assert report.total("lost_events") == 0
    assert report.total("repeated_committed") == 0
    assert report.total("unannounced") == 0
    assert report.total("orphans") == 0
    assert report.total("repeated") <= report.total("uncertain")
    assert report.total("from_snapshots") > CYCLES / 20, "sessions of monty were written down"
    assert report.total("from_cells") > CYCLES / 10
    assert report.total("refused") > 0
    assert report.total("kills") > CYCLES / 2, "some runs end before the time of their kill"
    assert report.points > CYCLES / 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_main_process_that_dies_alone_takes_its_sandbox_with_it(backend: str, tmp_path: Path):
    async def check() -> None:
        async with Harness(tmp_path) as harness:
            whole = await harness.ending("turns", backend)
            plan = Plan(
                scenario="turns", backend=backend, kills=(Kill(point="cell:4", how="main"),)
            )
            killed = harness.new_run(plan)
            await killed.to_the_end()
            assert len(killed.started) >= 1, "a sandbox ran when its host was killed"
            found = await judged(killed, whole)
            assert (found.details, found.kills, found.uncertain) == ([], 1, 0)

    asyncio.run(check())


def test_the_calls_in_flight_at_a_kill_are_made_again_and_counted(tmp_path: Path):
    async def check() -> None:
        async with Harness(tmp_path) as harness:
            whole = await harness.ending("batch", "python")
            plan = Plan(scenario="batch", backend="python", kills=(Kill(point="call:17"),))
            killed = harness.new_run(plan)
            await killed.to_the_end()
            found = await judged(killed, whole)
            (snapshot,) = killed.snapshots
            done = sum(isinstance(event, ModelReplied) for event in snapshot)
            begun = sum(isinstance(event, EffectStarted) for event in snapshot)
            assert found.details == []
            assert 1 <= found.repeated <= found.uncertain == begun - done <= 5
            assert len(killed.starts) == whole.calls + found.repeated

    asyncio.run(check())


@pytest.mark.parametrize("point", ["save:2:before", "save:2:after", "save:3:after", "call:5"])
def test_a_sandbox_that_was_killed_in_mid_cell_comes_back_from_a_snapshot(
    point: str, tmp_path: Path
):
    """In another process: the loop of `loop` pauses at each of its questions."""

    async def check() -> None:
        async with Harness(tmp_path) as harness:
            whole = await harness.ending("loop", "monty")
            plan = Plan(
                scenario="loop", backend="monty", kills=(Kill(point=point),), snapshots=True
            )
            killed = harness.new_run(plan)
            await killed.to_the_end()
            found = await judged(killed, whole)
            assert (found.details, found.kills, found.divergences) == ([], 1, 0)
            assert (found.from_snapshots, found.from_cells) == (1, 0)

    asyncio.run(check())


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_in_flight_at_a_kill_are_not_made_again_when_that_is_forbidden(
    backend: str, tmp_path: Path
):
    async def check() -> None:
        async with Harness(tmp_path) as harness:
            whole = await harness.ending("batch", backend)
            plan = Plan(
                scenario="batch",
                backend=backend,
                kills=(Kill(point="call:17"),),
                on_uncertain="fail",
            )
            killed = harness.new_run(plan)
            await killed.to_the_end()
            found = await judged(killed, whole)
            assert (found.details, found.repeated, found.repeated_committed) == ([], 0, 0)
            assert 1 <= found.refused == found.uncertain <= 5
            killed.starts.append(killed.starts[-1])
            assert (await judged(killed, whole)).details != [], "a call too many is noticed"

    asyncio.run(check())


def test_a_turn_whose_refusal_ended_the_run_is_asked_again_by_the_next_resume(tmp_path: Path):
    async def check() -> None:
        async with Harness(tmp_path) as harness:
            whole = await harness.ending("turns", "python")
            kills = (Kill(point="call:2"), Kill(point="append:9:after"))
            plan = Plan(scenario="turns", backend="python", kills=kills, on_uncertain="fail")
            killed = harness.new_run(plan)
            await killed.to_the_end()
            found = await judged(killed, whole)
            assert (found.details, found.refused, found.repeated) == ([], 1, 1)
            assert killed.struck == ["call:2", "append:1:after"], "it died with the failure"

    asyncio.run(check())


def test_the_harness_notices_what_must_not_be(tmp_path: Path):
    """The checks themselves: a record with a call too many, a log with another event."""

    async def check() -> None:
        async with Harness(tmp_path) as harness:
            whole = await harness.ending("loop", "python")
            plan = Plan(scenario="loop", backend="python", kills=(Kill(point="append:6:after"),))
            killed = harness.new_run(plan)
            await killed.to_the_end()
            assert (await judged(killed, whole)).details == []
            done = next(e.request_id for e in killed.snapshots[0] if isinstance(e, ModelReplied))
            killed.starts.append((1, done or ""))
            found = await judged(killed, whole)
            assert (found.repeated_committed, len(found.details)) == (1, 2)
            killed.starts.pop()
            begun = killed.snapshots[0].pop(1)
            assert isinstance(begun, EffectStarted)
            found = await judged(killed, whole)
            assert (found.unannounced, found.lost_events) == (1, len(killed.snapshots[0]) - 1)
            killed.snapshots[0].insert(1, begun)
            found = await judged(killed, replace(whole, output="another answer"))
            assert found.divergences == 1

    asyncio.run(check())


@pytest.mark.parametrize("shared", [0, 2])
def test_a_fork_that_died_before_its_first_commit_is_not_taken_for_its_parent(
    shared: int, tmp_path: Path
):
    path = tmp_path / "log.sqlite"
    first = run("q", "text", adapter=FakeAdapter(script=["x = 1", "FINAL_VAR: x"]), log=path)
    with SqliteLog(path) as log:
        log.fork(RunId("fork"), first.run_id, shared)
    adapter = FakeAdapter(script=["x = 1", "FINAL_VAR: x"])
    with pytest.raises(UsageError, match=f"fork {first.run_id} again"):
        resume("fork", log=path, adapter=adapter)
    assert not adapter.call_log


def test_plans_depend_on_nothing_but_the_seed_and_their_number(tmp_path: Path):
    async def check() -> None:
        async with Harness(tmp_path) as harness:
            key = ("variable", "monty")
            whole = {key: await harness.ending(*key)}
            points = [(key, point) for point in points_of(whole[key], "monty")]
            plans = planned(50, 3, whole, points, "points")
            assert planned(20, 3, whole, points, "points") == plans[:20]
            assert planned(20, 4, whole, points, "points") != plans[:20]
            assert len({plan.kills[0].point for plan in plans}) == min(50, len(points))

    asyncio.run(check())
