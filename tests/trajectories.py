"""Recorded cells of real models, and running them in a backend.

``data/trajectories/cells.jsonl.gz`` holds the code that models wrote in recorded runs of six
projects; its README says whose it is. The runs had names of their own at hand: what stands for
them here is the same in each backend, so that the backends can be compared.

    python tests/trajectories.py --rewrite     # note anew what CPython makes of the cells
"""

import asyncio
import gzip
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repl_driving import answer_all, context_of, settings_of

from effects.repls.base import Repl
from effects.repls.python import PythonRepl
from rlm_fsm.values import CodeResult

FOLDER = Path(__file__).parent / "data" / "trajectories"
EXPECTED = FOLDER / "expected.json"
"""What the cells come to in the `python` backend, as `outcome` has it, by the run's id."""
DIFFERENCES = FOLDER / "differences.json"
"""The cells that come to something else in the `monty` backend: run, cell, reason."""
SETTINGS = settings_of(cell_timeout_s=20)

STAND_IN = "".join(
    f"Line {i}: user{i % 7}@example.org scored {i * 37 % 101} points in round {i % 12}.\n"
    for i in range(400)
)
"""The context of runs whose own wasn't recorded."""

PRELUDE = """
completion_context = P
class _Context:
    def info(self):
        return {"key": "context", "chars": len(P), "lines": self.line_count()}
    def line_count(self):
        return len(P.splitlines())
    def lines(self, start=0, end=None):
        return P.splitlines()[start:end]
    def read(self, start=0, end=None):
        return P[start:end]
    def grep(self, pattern, *args, **options):
        return [line for line in P.splitlines() if pattern in line]
CONTEXT = _Context()
"""
"""Binds the names that the recorded protocols have and this runtime's sessions don't."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded run."""

    id: int
    codes: tuple[str, ...]
    stdouts: tuple[str, ...]
    """What the cells printed; empty where that wasn't recorded."""
    stderrs: tuple[str, ...]
    context: str
    source: str


def recorded() -> list[Recorded]:
    """All recorded runs."""
    with gzip.open(FOLDER / "cells.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [_run(json.loads(line)) for line in lines]


async def ran(repl: Repl, run: Recorded) -> list[CodeResult]:
    """What the cells of a run come to, one after the other in one session, which is closed."""
    try:
        start = await answer_all(repl, PRELUDE)
        assert start.error is None, start.error
        return [await answer_all(repl, silent(code), reply) for code in run.codes]
    finally:
        await repl.close()


def outcome(result: CodeResult) -> str:
    """What a cell printed, raised and answered, in short. Messages of errors may be worded
    otherwise."""
    told = _digest(result.stdout)
    if result.error is not None:
        told += f" {result.error.kind}"
    if result.final is not None:
        told += f" {result.final.form} {_digest(result.final.text)}"
    return told


def silent(code: str) -> str:
    """A cell without its echo, which the recorded protocols don't have."""
    return f"{code}\nNone"


def reply(prompt: str) -> str:
    """What stands for a sub-model."""
    return f"({len(prompt)} characters) {prompt[:60].upper()}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _run(fields: dict[str, Any]) -> Recorded:
    cells = fields["cells"]
    has_output = "context" in fields
    return Recorded(
        id=fields["id"],
        codes=tuple(cell["code"] for cell in cells),
        stdouts=tuple(cell["stdout"] for cell in cells) if has_output else (),
        stderrs=tuple(cell["stderr"] for cell in cells) if has_output else (),
        context=fields.get("context", STAND_IN),
        source=fields["source"],
    )


async def _rewrite() -> None:
    found = {
        run.id: [
            outcome(result)
            for result in await ran(PythonRepl(context_of(run.context), SETTINGS), run)
        ]
        for run in recorded()
    }
    lines = ",\n".join(f'"{name}": {json.dumps(cells)}' for name, cells in found.items())
    EXPECTED.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--rewrite"]:
        sys.exit(__doc__)
    asyncio.run(_rewrite())
