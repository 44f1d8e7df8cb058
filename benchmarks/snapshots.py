"""How a `monty` session comes back: from a snapshot, and by running its cells again.

Three sessions: one that computes and holds little, one that holds a large text, and one that waits
in the middle of a loop of subcalls.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figures import Plan, Report, Samples, Table, milliseconds
from effects.context import Context
from effects.repls.base import Paused, ReplSettings
from effects.repls.monty import MontyRepl
from rlm_fsm.values import CodeResult, Outcome

_BUSY = "total = 0\nfor n in range(3_000_000):\n    total += n % 7"
_HELD = "import random\nheld = ' '.join([str(random.random()) for n in range(55_000)])[:1_000_000]"
_LOOP = "said = []\nfor n in range(300):\n    said.append(llm_query(f'question {n}'))"
_SESSIONS: dict[str, Sequence[str]] = {
    "computes, holds little": [_BUSY, _BUSY],
    "holds 1 MB": [_BUSY, _HELD],
    "waits in a loop, at call 300": [_BUSY, _LOOP],
}
_PAUSES = 300
_ANSWER = Outcome("text", "an answer")


@dataclass(frozen=True)
class Life:
    """One session, brought back in both ways."""

    bytes: int
    save_s: float
    restore_s: float
    """With the start of its process."""
    again_s: float
    """With the start of its process."""


def measure(plan: Plan) -> Report:
    """Measure snapshots."""
    lives: dict[str, list[Life]] = {name: [] for name in _SESSIONS}
    for number in range(plan.repetitions):
        plan.say(f"snapshots: repetition {number + 1} of {plan.repetitions}")
        for name, cells in _SESSIONS.items():
            lives[name].append(asyncio.run(_life(cells)))
    rows = [_row(name, found) for name, found in lives.items()]
    return Report(
        name="snapshots",
        tables=[
            Table(
                title="A monty session comes back, milliseconds",
                columns=("", "bytes", "write down", "from a snapshot", "from its cells"),
                rows=rows,
                note="Medians. Both ways back include the start of a process.",
            )
        ],
        raw={name: [vars(life) for life in found] for name, found in lives.items()},
    )


async def _life(cells: Sequence[str]) -> Life:
    first, step, _ = await _lived(cells)
    began = time.perf_counter()
    data = await first.snapshot()
    saved = time.perf_counter()
    await first.close()
    assert data is not None, "the session can be written down"
    second = _session()
    opened = time.perf_counter()
    back = await second.restore(data)
    restored = time.perf_counter()
    await second.close()
    assert back == (step if isinstance(step, Paused) else None), "it came back as it was"
    third, _, again_s = await _lived(cells)
    await third.close()
    return Life(len(data), saved - began, restored - opened, again_s)


async def _lived(cells: Sequence[str]) -> tuple[MontyRepl, Paused | CodeResult | None, float]:
    """A session after its cells, paused at the last of its pauses, and the seconds it took."""
    began = time.perf_counter()
    repl = _session()
    step: Paused | CodeResult | None = None
    for cell in cells:
        step = await repl.start(cell)
        for _ in range(_PAUSES - 1 if isinstance(step, Paused) else 0):
            step = await repl.resume((_ANSWER,))
    return repl, step, time.perf_counter() - began


def _session() -> MontyRepl:
    return MontyRepl(Context.from_text("some text"), ReplSettings())


def _row(name: str, lives: Sequence[Life]) -> list[str]:
    def median(field: str) -> float:
        return Samples(tuple(getattr(life, field) for life in lives)).median

    times = [milliseconds(median(field)) for field in ("save_s", "restore_s", "again_s")]
    return [name, f"{median('bytes'):,.0f}", *times]
