"""Recorded cells of real models, run in both backends."""

import asyncio
import json

from repl_driving import context_of
from trajectories import DIFFERENCES, EXPECTED, SETTINGS, Recorded, outcome, ran, recorded

from effects.repls.monty import MontyRepl
from effects.repls.python import PythonRepl

SAMPLE = 12
"""Every so many runs are run by CPython again: all of them take a minute on a busy machine."""


def test_the_python_backend_reproduces_every_recorded_output() -> None:
    async def check(run: Recorded) -> int:
        results = await ran(PythonRepl(context_of(run.context), SETTINGS), run)
        for i, result in enumerate(results):
            error = result.error
            told = f"\n{error.kind}: {error.message}" if error else ""
            assert (result.stdout, told) == (run.stdouts[i], run.stderrs[i]), (run.id, i)
        return len(results)

    async def main() -> int:
        return sum([await check(run) for run in recorded() if run.stdouts])

    assert asyncio.run(main()) == 70


def test_what_is_noted_of_the_cells_is_what_cpython_makes_of_them() -> None:
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    skipped = {(run, cell) for run, cell, why in _differences() if "random" in why}

    async def main() -> None:
        for run in recorded()[::SAMPLE]:
            results = await ran(PythonRepl(context_of(run.context), SETTINGS), run)
            for i, result in enumerate(results):
                if (run.id, i) not in skipped:
                    assert outcome(result) == expected[str(run.id)][i], (run.id, i)

    asyncio.run(main())


def test_monty_differs_only_where_it_is_known_to() -> None:
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))

    async def main() -> tuple[int, list[list[int]]]:
        cells, differing = 0, list[list[int]]()
        for run in recorded():
            results = await ran(MontyRepl(context_of(run.context), SETTINGS), run)
            cells += len(results)
            for i, result in enumerate(results):
                if outcome(result) != expected[str(run.id)][i]:
                    differing.append([run.id, i])
        return cells, differing

    cells, differing = asyncio.run(main())
    known = json.loads(DIFFERENCES.read_text(encoding="utf-8"))
    assert differing == [[run, cell] for run, cell, _ in known["differences"]]
    assert cells == known["cells"]


def _differences() -> list[list[object]]:
    return json.loads(DIFFERENCES.read_text(encoding="utf-8"))["differences"]
