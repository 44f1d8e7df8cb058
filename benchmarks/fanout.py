"""The fan-out: 1,000 subcalls of 20 ms from one cell, with 10 and with 100 workers.

The ideal is arithmetic: calls x seconds / workers. No program reaches it, since timers are late
and tasks take turns; so a bare program that only sleeps is measured beside it, on an event loop
as ours does and on threads as the peer does.

The batch is what is compared: from the reply that asks for it to the next asking. The REPL's start
is not in it, the step around it is.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from benchmarks.exact import Alarm
from benchmarks.figures import BACKENDS, Check, Plan, Report, Samples, Table, ratio
from benchmarks.workload import Timing, Workload, run_logged

CALLS = 1_000
CALL_S = 0.020
LIMITS = {10: 1.05, 100: 1.25}
"""Workers, and how many times the ideal the batch may take."""
_CELL = f"answers = llm_batch([f'What is in part {{i}}?' for i in range({CALLS})])"


class Subject(NamedTuple):
    """One way of making the calls."""

    run: Callable[[int], float]
    """Seconds of the batch with so many workers."""
    bare: str | None
    """The bare program to compare it with."""
    is_ours: bool


def measure(plan: Plan) -> Report:
    """Measure the fan-out."""
    subjects = {
        "bare event loop": Subject(bare_tasks_s, None, False),
        "bare threads": Subject(bare_threads_s, None, False),
    }
    for backend in BACKENDS:
        ours = partial(run_logged, folder=plan.folder)
        subjects[f"ours, durable, {backend}"] = Subject(
            partial(_batch_s, ours, backend), "bare event loop", True
        )
        if plan.peer is not None:
            subjects[f"peer, {backend}"] = Subject(
                partial(_batch_s, plan.peer.run, backend), "bare threads", False
            )
    taken: dict[str, dict[int, list[float]]] = {
        name: {workers: [] for workers in LIMITS} for name in subjects
    }
    for number in range(plan.repetitions):
        plan.say(f"fan-out: repetition {number + 1} of {plan.repetitions}")
        for workers in LIMITS:
            for name, subject in subjects.items():
                taken[name][workers].append(subject.run(workers))
    return Report(
        name="fanout",
        tables=[_table(subjects, taken, workers) for workers in LIMITS],
        checks=[
            Check(
                what=f"{name}: {workers} workers, times the ideal",
                value=min(taken[name][workers]) / ideal_s(workers),
                limit=limit,
            )
            for workers, limit in LIMITS.items()
            for name, subject in subjects.items()
            if subject.is_ours
        ],
        raw={"calls": CALLS, "call_s": CALL_S, "batch_s": taken},
    )


def ideal_s(workers: int) -> float:
    """Seconds of the batch if nothing but the calls took time."""
    return CALLS * CALL_S / workers


def bare_tasks_s(workers: int) -> float:
    """The same sleeps on an event loop, behind a semaphore, and nothing else."""

    async def everything() -> float:
        gate, alarm = asyncio.Semaphore(workers), Alarm()

        async def one() -> None:
            async with gate:
                await alarm.sleep(CALL_S)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(CALLS)))
        taken_s = time.perf_counter() - began
        alarm.close()
        return taken_s

    return asyncio.run(everything())


def bare_threads_s(workers: int) -> float:
    """The same sleeps in a pool of threads, and nothing else."""
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(time.sleep, [CALL_S] * CALLS):
            pass
    return time.perf_counter() - began


def _batch_s(run: Callable[[Workload], Timing], backend: str, workers: int) -> float:
    work = Workload(
        backend=backend,
        turns=1,
        cell=_CELL,
        subcalls=CALLS,
        subcall_s=CALL_S,
        workers=workers,
    )
    return run(work).turns_s


def _table(
    subjects: dict[str, Subject], taken: dict[str, dict[int, list[float]]], workers: int
) -> Table:
    rows: list[list[str]] = []
    for name, subject in subjects.items():
        found = Samples(tuple(taken[name][workers]))
        floor = None if subject.bare is None else min(taken[subject.bare][workers])
        rows.append(
            [
                name,
                f"{found.minimum:.3f}",
                f"{found.median:.3f}",
                ratio(found.minimum, ideal_s(workers)),
                ratio(found.minimum, floor),
            ]
        )
    return Table(
        title=f"{CALLS:,} subcalls of {CALL_S * 1e3:.0f} ms, {workers} workers, seconds: "
        f"ideal {ideal_s(workers):.3f}",
        columns=("", "quickest", "median", "x ideal", "x its bare program"),
        rows=rows,
        note="The peer's cache is on, as always, and empty.",
    )
