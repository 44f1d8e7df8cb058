"""The fan-out: 1,000 subcalls of 20 ms from one cell, with 10 and with 100 workers.

The ideal is arithmetic: calls x seconds / workers. No program reaches it, since timers are late
and tasks take turns on one core; so a bare program that only sleeps is measured beside it, on
asyncio as ours does and on threads as the peer does.

The batch is what is compared: a run with the batch, less the same run without it (`start-up`).
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from benchmarks.figures import BACKENDS, Check, Plan, Report, Samples, Table, ratio
from benchmarks.workload import Workload, run_logged

CALLS = 1_000
CALL_S = 0.020
LIMITS = {10: 1.05, 100: 1.25}
"""Workers, and how many times the ideal the batch may take."""
OURS, PEER = "ours, durable log", "peer"
_CELL = f"answers = llm_batch([f'What is in part {{i}}?' for i in range({CALLS})])"
Key = tuple[str, int]
"""Subject, workers."""


def measure(plan: Plan) -> Report:
    """Measure the fan-out."""
    runs: dict[str, tuple[str, Callable[[Workload], float]]] = {}
    for backend in BACKENDS:
        runs[f"{OURS}, {backend}"] = (backend, partial(run_logged, folder=plan.folder))
        if plan.peer is not None:
            runs[f"{PEER}, {backend}"] = (backend, plan.peer.run)
    batch: dict[Key, list[float]] = {}
    start: dict[Key, list[float]] = {}
    for number in range(plan.repetitions):
        plan.say(f"fan-out: repetition {number + 1} of {plan.repetitions}")
        for workers in LIMITS:
            for name, bare in (("bare asyncio", bare_tasks_s), ("bare threads", bare_threads_s)):
                batch.setdefault((name, workers), []).append(bare(workers))
            for name, (backend, run) in runs.items():
                work = Workload(
                    backend=backend,
                    turns=1,
                    cell=_CELL,
                    subcalls=CALLS,
                    subcall_s=CALL_S,
                    workers=workers,
                )
                idle = run(replace(work, cell="answers = []", subcalls=0))
                start.setdefault((name, workers), []).append(idle)
                batch.setdefault((name, workers), []).append(run(work))
    return Report(
        name="fanout",
        tables=[_table(batch, start, workers) for workers in LIMITS],
        checks=[
            Check(
                what=f"{name}: {workers} workers, times the ideal",
                value=_batch_s(batch, start, (name, workers), "minimum") / ideal_s(workers),
                limit=limit,
            )
            for workers, limit in LIMITS.items()
            for name in runs
            if name.startswith(OURS)
        ],
        raw={
            "whole_s": {" / ".join(map(str, key)): values for key, values in batch.items()},
            "start_s": {" / ".join(map(str, key)): values for key, values in start.items()},
        },
    )


def ideal_s(workers: int) -> float:
    """Seconds of the batch if nothing but the calls took time."""
    return CALLS * CALL_S / workers


def bare_tasks_s(workers: int) -> float:
    """The same sleeps on an event loop, behind a semaphore, and nothing else."""

    async def everything() -> None:
        gate = asyncio.Semaphore(workers)

        async def one() -> None:
            async with gate:
                await asyncio.sleep(CALL_S)

        await asyncio.gather(*(one() for _ in range(CALLS)))

    began = time.perf_counter()
    asyncio.run(everything())
    return time.perf_counter() - began


def bare_threads_s(workers: int) -> float:
    """The same sleeps in a pool of threads, and nothing else."""
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(time.sleep, [CALL_S] * CALLS):
            pass
    return time.perf_counter() - began


def _batch_s(
    batch: dict[Key, list[float]], start: dict[Key, list[float]], key: Key, kind: str
) -> float:
    """Seconds of the batch alone, by the minima or the medians of whole runs."""
    whole: float = getattr(Samples(tuple(batch[key])), kind)
    return whole - (getattr(Samples(tuple(start[key])), kind) if key in start else 0.0)


def _table(batch: dict[Key, list[float]], start: dict[Key, list[float]], workers: int) -> Table:
    rows: list[list[str]] = []
    ideal = ideal_s(workers)
    for name, among in batch:
        if among != workers:
            continue
        key = (name, workers)
        low = _batch_s(batch, start, key, "minimum")
        usual = _batch_s(batch, start, key, "median")
        floor = min(batch["bare threads" if name.startswith(PEER) else "bare asyncio", workers])
        rows.append(
            [
                name,
                f"{min(batch[key]):.3f}",
                f"{min(start[key]):.3f}" if key in start else "-",
                f"{low:.3f} ({usual:.3f})",
                ratio(low, ideal),
                ratio(low, floor) if key in start else "-",
            ]
        )
    return Table(
        title=f"{CALLS} subcalls of {CALL_S * 1e3:.0f} ms, {workers} workers: ideal {ideal:.3f} s",
        columns=("", "whole run", "start-up", "batch", "x ideal", "x its bare program"),
        rows=rows,
        note="Seconds; minimum (median) of interleaved repetitions. The peer's cache is on, as "
        "always, and empty.",
    )
