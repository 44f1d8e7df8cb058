"""Long contexts, and many sessions side by side: what grows with the text, and what doesn't.

A session is opened over a text of 100 MB and of 1 GB, and asked what code asks of a context. A
second one is opened beside it: in `python` they share the text. The floor is what Python itself
takes to copy the text in memory, which a backend without sharing would do for each session.
"""

import asyncio
import time
from collections.abc import Callable

from benchmarks.figures import BACKENDS, Check, Plan, Report, Samples, Table, milliseconds
from effects.context import Context
from effects.repls.base import Paused, Repl, ReplLimits, ReplSettings
from effects.repls.monty import MontyRepl
from effects.repls.python import PythonRepl

SIZES = {"100 MB": 100_000_000, "1 GB": 1_000_000_000}
TIMES = 3
"""How often each is measured at most: one of them takes seconds."""
TRIVIAL = 50
"""Trivial cells of a session, of which the quickest counts."""
BESIDE = 100
"""Sessions at once."""
NEEDLE = "The needle is here."
_LINE = "Hay, straw and more hay in a stack beside the old mill.\n"
_SETTINGS = ReplSettings(limits=ReplLimits(cell_timeout_s=300.0))
_OPEN: dict[str, Callable[[Context], Repl]] = {
    "python": lambda context: PythonRepl(context, _SETTINGS),
    "monty": lambda context: MontyRepl(context, _SETTINGS),
}
CELLS = {
    "first peek": "print(peek(20))",
    "ctx.find to the end": f"print(ctx.find({NEEDLE!r})[0][0] > 0)",
    "a trivial cell": "x = 1",
    "P in code, first": "print(len(P))",
    "a trivial cell after P": "x = 2",
}
Taken = dict[str, dict[str, list[float]]]
"""What was done -> backend and size -> seconds."""


def measure(plan: Plan) -> Report:
    """Measure long contexts and many sessions."""
    taken: Taken = {}
    beside: dict[str, list[float]] = {}
    for size, chars in SIZES.items():
        context = Context.from_text(_LINE * (chars // len(_LINE)) + NEEDLE)
        for number in range(min(plan.repetitions, TIMES)):
            plan.say(f"contexts: {size}, repetition {number + 1}")
            began = time.perf_counter()
            context.text.encode("latin-1")
            _add(taken, "a copy of the text in memory", size, time.perf_counter() - began)
            for backend in BACKENDS:
                asyncio.run(_life(backend, context, taken, f"{backend}, {size}"))
    for number in range(min(plan.repetitions, TIMES)):
        for backend in BACKENDS:
            plan.say(f"contexts: {BESIDE} sessions of {backend}, repetition {number + 1}")
            beside.setdefault(backend, []).append(asyncio.run(_many(backend)))
    return Report(
        name="contexts",
        tables=(_table(taken), _beside_table(beside)),
        checks=_checks(taken),
        raw={"contexts_s": taken, "beside_s": beside},
    )


async def _life(backend: str, context: Context, taken: Taken, where: str) -> None:
    """One session over a long text, and a second one that is opened while it lives."""
    first, second = _OPEN[backend](context), _OPEN[backend](context)
    try:
        for what, repl in (("open", first), ("open a second session", second)):
            began = time.perf_counter()
            await repl.open()
            _add(taken, what, where, time.perf_counter() - began)
        await second.close()
        for what, code in CELLS.items():
            for _ in range(TRIVIAL if what.startswith("a trivial") else 1):
                began = time.perf_counter()
                await _run(first, code)
                _add(taken, what, where, time.perf_counter() - began)
    finally:
        await second.close()
        await first.close()


async def _many(backend: str) -> float:
    """Seconds that many sessions over one text take together, from open to closed."""
    context = Context.from_text(_LINE * 100)

    async def live() -> None:
        repl = _OPEN[backend](context)
        try:
            await _run(repl, CELLS["first peek"])
        finally:
            await repl.close()

    began = time.perf_counter()
    await asyncio.gather(*[live() for _ in range(BESIDE)])
    return time.perf_counter() - began


async def _run(repl: Repl, code: str) -> None:
    step = await repl.start(code)
    if isinstance(step, Paused) or step.error is not None:
        raise RuntimeError(f"the cell did something else: {step}")


def _add(taken: Taken, what: str, where: str, seconds: float) -> None:
    taken.setdefault(what, {}).setdefault(where, []).append(seconds)


def _table(taken: Taken) -> Table:
    places = [f"{backend}, {size}" for backend in BACKENDS for size in SIZES]
    rows: list[list[str]] = []
    for what, found in taken.items():
        # The copy is no backend's: it is named by the size alone.
        times = [found.get(place) or found[place.split(", ")[1]] for place in places]
        rows.append([what, *[milliseconds(min(values)) for values in times]])
    return Table(
        title="A long context, milliseconds, minima",
        columns=("", *places),
        rows=rows,
        note="Plain text in ASCII; the needle is at its end.",
    )


def _beside_table(beside: dict[str, list[float]]) -> Table:
    rows = [
        [
            backend,
            milliseconds(min(values)),
            milliseconds(Samples(tuple(values)).median),
            milliseconds(min(values) / BESIDE),
        ]
        for backend, values in beside.items()
    ]
    return Table(
        title=f"{BESIDE} sessions side by side: open, a cell, close; milliseconds",
        columns=("", "minimum", "median", "a session's share"),
        rows=rows,
    )


def _checks(taken: Taken) -> tuple[Check, ...]:
    """Cells and further sessions must not cost more over a longer text."""
    small, large = (f"python, {size}" for size in SIZES)
    return tuple(
        Check(
            what=f"python: {what}, 1 GB against 100 MB",
            value=min(taken[what][large]) / min(taken[what][small]),
            limit=limit,
        )
        for what, limit in (("open a second session", 1.5), ("a trivial cell after P", 2.0))
    )
