"""Overhead per step: what the runtime adds to a turn, with a model that answers at once.

A step is one turn: a reply with the cell ``x = 1``, the cell, its result. T(n) is a whole run of n
steps and an answer, so T(1) is the start-up (and one step), and (T(n) - T(1)) / (n - 1) the cost of
a step. Ours is measured with the durable log in a file and in memory, the peer, which logs
nothing, as it is. The floor of a durable step is two bare commits on the same disk in the same
minute.
"""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.figures import (
    BACKENDS,
    Check,
    Plan,
    Report,
    Samples,
    Table,
    microseconds,
    milliseconds,
    ratio,
)
from benchmarks.workload import Workload, run_logged, run_own

COUNTS = (50, 200, 800)
MAX_STEP_S = 1e-3
MAX_DURABLE_RATIO = 4.0
MAX_MEMORY_RATIO = 1.5
MAX_GROWTH = 1.25
"""The issue says "flat": this is how far apart 800 and 50 steps may be and still be called so."""
COMMITS_PER_STEP = 2
_COMMITS = 200

DURABLE, MEMORY, PEER = "ours, durable log", "ours, :memory:", "peer"
Key = tuple[str, str, int]
"""Subject, backend, number of steps."""


def measure(plan: Plan) -> Report:
    """Measure steps."""
    subjects: dict[str, Callable[[Workload], float]] = {
        DURABLE: partial(run_logged, folder=plan.folder),
        MEMORY: partial(run_own, log=":memory:"),
    }
    if plan.peer is not None:
        subjects[PEER] = plan.peer.run
    seconds: dict[Key, list[float]] = {}
    commits: list[float] = []
    for number in range(plan.repetitions):
        plan.say(f"steps: repetition {number + 1} of {plan.repetitions}")
        commits.append(bare_commit_s(plan.folder))
        for count in (1, *COUNTS):
            for backend in BACKENDS:
                for name, run in subjects.items():
                    taken = run(Workload(backend=backend, turns=count))
                    seconds.setdefault((name, backend, count), []).append(taken)
    samples = {key: Samples(tuple(values)) for key, values in seconds.items()}
    commit = Samples(tuple(commits))
    return Report(
        name="steps",
        tables=(_table(samples, commit), _start_table(samples)),
        checks=_checks(samples, plan),
        raw={
            "seconds": {" / ".join(map(str, key)): s.values for key, s in samples.items()},
            "bare_commit_s": commit.values,
        },
    )


def bare_commit_s(folder: Path) -> float:
    """Seconds of one commit of SQLite alone, with a write-ahead log and ``synchronous=FULL``."""
    path = folder / "bare.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS t (data TEXT)")
        taken: list[float] = []
        for _ in range(_COMMITS):
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (?)", ("x" * 500,))
            connection.execute("COMMIT")
            taken.append(time.perf_counter() - began)
        return Samples(tuple(taken)).median
    finally:
        connection.close()
        for file in folder.glob("bare.sqlite*"):
            file.unlink()


def _step_s(samples: dict[Key, Samples], key: Key, kind: str) -> float:
    """Seconds of one step: by the minima or by the medians of whole runs."""
    name, backend, count = key
    whole, start = samples[key], samples[name, backend, 1]
    return (getattr(whole, kind) - getattr(start, kind)) / (count - 1)


def _table(samples: dict[Key, Samples], commit: Samples) -> Table:
    rows: list[list[str]] = []
    for name, backend in dict.fromkeys((name, backend) for name, backend, _ in samples):
        low = {n: _step_s(samples, (name, backend, n), "minimum") for n in COUNTS}
        usual = {n: _step_s(samples, (name, backend, n), "median") for n in COUNTS}
        last = COUNTS[-1]
        peer = (PEER, backend, last)
        base = _step_s(samples, peer, "minimum") if name != PEER and peer in samples else None
        rows.append(
            [
                backend,
                name,
                *(f"{microseconds(low[n])} ({microseconds(usual[n])})" for n in COUNTS),
                ratio(low[last], low[COUNTS[0]]),
                ratio(low[last], base),
            ]
        )
    rows.sort(key=lambda row: BACKENDS.index(row[0]))
    floor = (
        f"Minimum (median) of {len(commit.values)} interleaved repetitions. A bare SQLite commit "
        f"on this disk took {microseconds(commit.minimum)} ({microseconds(commit.median)}) us; "
        f"a durable step needs {COMMITS_PER_STEP}."
    )
    return Table(
        title="Overhead per step, microseconds",
        columns=(
            "backend",
            "",
            *(f"{n} steps" for n in COUNTS),
            f"{COUNTS[-1]} / {COUNTS[0]}",
            f"x peer at {COUNTS[-1]}",
        ),
        rows=rows,
        note=floor,
    )


def _start_table(samples: dict[Key, Samples]) -> Table:
    rows = [
        [backend, name, milliseconds(start.minimum), milliseconds(start.median)]
        for (name, backend, count), start in samples.items()
        if count == 1
    ]
    rows.sort(key=lambda row: BACKENDS.index(row[0]))
    return Table(
        title="A run of one step: start-up, milliseconds",
        columns=("backend", "", "minimum", "median"),
        rows=rows,
        note="Ours starts a process for the REPL, and waits for its end.",
    )


def _checks(samples: dict[Key, Samples], plan: Plan) -> list[Check]:
    checks: list[Check] = []
    first, last = COUNTS[0], COUNTS[-1]
    for backend in BACKENDS:
        for name, limit in ((DURABLE, MAX_DURABLE_RATIO), (MEMORY, MAX_MEMORY_RATIO)):
            steps = {n: _step_s(samples, (name, backend, n), "minimum") for n in COUNTS}
            who = f"{backend}, {name}"
            grown = Check(
                what=f"{who}: {last} / {first} steps",
                value=steps[last] / steps[first],
                limit=MAX_GROWTH,
            )
            if name == DURABLE:
                slowest = max(steps.values())
                checks.append(
                    Check(what=f"{who}: ms a step", value=slowest * 1e3, limit=MAX_STEP_S * 1e3)
                )
            checks.append(grown)
            if plan.peer is not None:
                # The worst of the three: the peer grows, so a later count alone would flatter.
                worst = max(
                    steps[n] / _step_s(samples, (PEER, backend, n), "minimum") for n in COUNTS
                )
                checks.append(Check(what=f"{who}: times the peer", value=worst, limit=limit))
    return checks
