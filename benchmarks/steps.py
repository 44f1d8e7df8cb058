"""Overhead per step: what the runtime adds to a turn, with a model that answers at once.

A step is one turn: a reply with the cell ``x = 1``, the cell, its result, the next asking. Ours is
measured with the durable log in a file and in memory; the peer, which logs nothing, as it is. What
a run costs besides (the REPL's start, the log's opening and closing) is shown apart. The floor
of a durable step is two bare commits on the same disk in the same minute.
"""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

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
from benchmarks.workload import Timing, Workload, run_logged, run_own

COUNTS = (50, 200, 800)
FEWEST, MOST = COUNTS[0], COUNTS[-1]
MAX_STEP_S = 1e-3
MAX_DURABLE_RATIO = 4.0
MAX_MEMORY_RATIO = 1.5
MAX_GROWTH = 1.25
"""What is wanted is "flat": so far apart may the most and the fewest steps be to be called so."""
COMMITS_PER_STEP = 2
_COMMITS = 200

DURABLE, MEMORY, PEER = "ours, durable", "ours, in memory", "peer"
Key = tuple[str, str, int]
"""Backend, subject, number of steps."""
Timings = dict[Key, list[Timing]]
Kind = Literal["minimum", "median"]


def measure(plan: Plan) -> Report:
    """Measure steps."""
    subjects: dict[str, Callable[[Workload], Timing]] = {
        DURABLE: partial(run_logged, folder=plan.folder),
        MEMORY: partial(run_own, log=":memory:"),
    }
    if plan.peer is not None:
        subjects[PEER] = plan.peer.run
    timings: Timings = {(b, name, n): [] for b in BACKENDS for name in subjects for n in COUNTS}
    commits: list[float] = []
    for number in range(plan.repetitions):
        plan.say(f"steps: repetition {number + 1} of {plan.repetitions}")
        for count in COUNTS:
            commits.append(bare_commit_s(plan.folder))
            for backend in BACKENDS:
                for name, run in subjects.items():
                    taken = run(Workload(backend=backend, turns=count))
                    timings[backend, name, count].append(taken)
    return Report(
        name="steps",
        tables=(_step_table(timings, Samples(tuple(commits))), _rest_table(timings)),
        checks=_checks(timings),
        raw={
            "timings": {
                " / ".join(map(str, key)): [vars(timing) for timing in taken]
                for key, taken in timings.items()
            },
            "bare_commit_s": commits,
        },
    )


def bare_commit_s(folder: Path) -> float:
    """Seconds of one commit of SQLite alone, with a write-ahead log and ``synchronous=FULL``."""
    path = folder / "bare.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE t (data TEXT)")
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


def step_s(timings: Timings, key: Key, kind: Kind = "minimum") -> float:
    """Seconds of one step, by the quickest or by the median run."""
    samples = Samples(tuple(timing.turns_s for timing in timings[key]))
    whole_s = samples.minimum if kind == "minimum" else samples.median
    return whole_s / key[2]


def _step_table(timings: Timings, commit: Samples) -> Table:
    rows: list[list[str]] = []
    for backend, name in _subjects(timings):
        cells: list[str] = []
        for count in COUNTS:
            key, peer = (backend, name, count), (backend, PEER, count)
            low, usual = step_s(timings, key), step_s(timings, key, "median")
            compared = name != PEER and peer in timings
            times = f"  {low / step_s(timings, peer):.2f}x" if compared else ""
            cells.append(f"{microseconds(low)} ({microseconds(usual)}){times}")
        grown = ratio(
            step_s(timings, (backend, name, MOST)), step_s(timings, (backend, name, FEWEST))
        )
        rows.append([backend, name, *cells, grown])
    return Table(
        title="Overhead per step, microseconds",
        columns=("backend", "", *(f"{n} steps" for n in COUNTS), f"{MOST} / {FEWEST}"),
        rows=rows,
        note=f"Quickest (median) run of each, and times the peer. A bare SQLite commit on this "
        f"disk took {microseconds(commit.minimum)} ({microseconds(commit.median)}) us; a durable "
        f"step needs {COMMITS_PER_STEP}.",
    )


def _rest_table(timings: Timings) -> Table:
    rows: list[list[str]] = []
    for backend, name in _subjects(timings):
        cells: list[str] = []
        for count in COUNTS:
            rest = Samples(tuple(timing.rest_s for timing in timings[backend, name, count]))
            cells.append(f"{milliseconds(rest.minimum)} ({milliseconds(rest.median)})")
        rows.append([backend, name, *cells])
    return Table(
        title="The rest of a run: start, first step and end, milliseconds",
        columns=("backend", "", *(f"{n} steps" for n in COUNTS)),
        rows=rows,
        note="Ours starts a process for the REPL while the model thinks, and waits for its end.",
    )


def _checks(timings: Timings) -> list[Check]:
    checks: list[Check] = []
    for backend, name in _subjects(timings):
        if name == PEER:
            continue
        steps = {count: step_s(timings, (backend, name, count)) for count in COUNTS}
        who = f"{backend}, {name}"
        if name == DURABLE:
            slowest_ms = max(steps.values()) * 1e3
            checks.append(Check(what=f"{who}: ms a step", value=slowest_ms, limit=MAX_STEP_S * 1e3))
        growth = steps[MOST] / steps[FEWEST]
        checks.append(Check(what=f"{who}: {MOST} / {FEWEST} steps", value=growth, limit=MAX_GROWTH))
        if (backend, PEER, MOST) in timings:
            # At each count: the peer gets slower with the steps, so the most alone would flatter.
            limit = MAX_DURABLE_RATIO if name == DURABLE else MAX_MEMORY_RATIO
            checks += [
                Check(
                    what=f"{who}: times the peer, {count} steps",
                    value=own / step_s(timings, (backend, PEER, count)),
                    limit=limit,
                )
                for count, own in steps.items()
            ]
    return checks


def _subjects(timings: Timings) -> list[tuple[str, str]]:
    return list(dict.fromkeys((backend, name) for backend, name, _ in timings))
