"""How many outcomes one commit should take: computed, so the same on any machine.

The real interpreter runs a batch on an event loop whose clock is moved by hand. A call takes
`CALL_S`; a commit stops the loop for what the disk takes and `OUTCOME_S` for each outcome in it.

Small commits let the first of a wave go on while the others are written, large ones share the
disk's time. `effects.portions` must do well for few and many workers, on any disk: it is shown
beside fixed sizes.
"""

import asyncio
import selectors
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import Plan, Report, Table
from effects.context import Context
from effects.interpreter import Interpreter
from effects.log.memory import MemoryLog
from effects.portions import OUTCOME_S, Portions
from effects.repls.base import Paused
from rlm_fsm import ModelResponse, Policy, Usage
from rlm_fsm.event import Event, ModelReplied, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options
from rlm_fsm.values import CodeResult, HostCall, Outcome, ReadResult

CALLS = 1_000
CALL_S = 0.020
DISKS_S = (20e-6, 150e-6, 1e-3, 5e-3)
"""A commit in memory, on a solid-state disk, on a distant one, and on one that turns."""
WORKERS = (4, 10, 32, 100)
SIZES: dict[str, int | None] = {
    "all there are": CALLS,
    **{f"at most {size}": size for size in (32, 16, 8, 4, 2, 1)},
    "portions": None,
}
"""Outcomes a commit may take; None for what `Portions` says."""


def measure(plan: Plan) -> Report:
    """Compute the table; nothing is repeated, since nothing is left to chance."""
    plan.say("commits: on a clock moved by hand")
    found = {
        (disk_s, name, workers): times_ideal(disk_s, size, workers)
        for disk_s in DISKS_S
        for name, size in SIZES.items()
        for workers in WORKERS
    }
    return Report(
        name="commits",
        tables=[_table(found, disk_s) for disk_s in DISKS_S],
        raw={" / ".join(map(str, key)): value for key, value in found.items()},
    )


def times_ideal(disk_s: float, size: int | None, workers: int) -> float:
    """How many times the ideal a batch takes with commits of at most `size` outcomes."""
    clock = _Clock()
    loop = _Loop(clock)
    portions = Portions() if size is None else _Fixed(size)
    batch = _Batch(clock)
    try:
        loop.run_until_complete(_run(batch, _SlowLog(clock, disk_s), portions, workers))
    finally:
        loop.close()
    return batch.seconds * workers / (CALLS * CALL_S)


async def _run(batch: "_Batch", log: "_SlowLog", portions: Portions, workers: int) -> None:
    policy = Policy(max_subcalls=CALLS, max_total_tokens=None)
    context = Context.from_text("text")
    run = Interpreter(
        run_id=RunId("batch"),
        log=log,
        adapters={"root": _Root(), "subcall": _Sub()},
        context=context,
        open_repl=lambda _: batch,
        clock=log.clock,
        portions=portions,
    )
    options = Options(policy=policy, max_concurrent_subcalls=workers)
    await run.drive(RunStarted(query="?", context=context.info(), options=options))


class _Fixed(Portions):
    """Commits of one size."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def size(self, waiting: int, in_flight: int) -> int:
        return min(waiting, self._most)


class _Clock(selectors.SelectSelector):
    """A selector that waits for timers by moving the clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        super().__init__(clock)

    def time(self) -> float:
        return self._clock.now_s


class _SlowLog(MemoryLog):
    """A log whose appends take time on the clock."""

    def __init__(self, clock: _Clock, disk_s: float) -> None:
        super().__init__()
        self._clock, self._disk_s = clock, disk_s

    def clock(self) -> float:
        return self._clock.now_s

    def append(self, run_id: RunId, expected_seq: int, events: Sequence[Event]) -> int:
        outcomes = sum(isinstance(event, ModelReplied) for event in events)
        self._clock.now_s += self._disk_s + outcomes * OUTCOME_S
        return super().append(run_id, expected_seq, events)


class _Batch:
    """A session whose only cell asks the batch, and notes how long it waited."""

    def __init__(self, clock: _Clock) -> None:
        self.seconds = 0.0
        self._clock = clock

    async def open(self) -> None: ...

    def remember(self, messages: Sequence[Any]) -> None: ...

    async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused:
        self.seconds -= self._clock.now_s
        calls = [HostCall(fn="llm_batch", prompt=f"What is in part {i}?") for i in range(CALLS)]
        return Paused(calls=tuple(calls))

    async def resume(self, answers: tuple[Outcome, ...]) -> CodeResult:
        self.seconds += self._clock.now_s
        return CodeResult()

    async def read(self, name: str) -> ReadResult:
        return ReadResult()

    async def close(self) -> None: ...


class _Root:
    """Asks for the batch, then answers."""

    def __init__(self) -> None:
        self._replies = iter(["```python\nask\n```", "FINAL: done"])

    def complete(self, messages: Any, **options: Any) -> ModelResponse:
        return ModelResponse(next(self._replies), Usage(1, 1, 2))

    async def acomplete(self, messages: Any, **options: Any) -> ModelResponse:
        return self.complete(messages)


class _Sub:
    """Takes its time."""

    def complete(self, messages: Any, **options: Any) -> ModelResponse:
        return ModelResponse("ok", Usage(1, 1, 2))

    async def acomplete(self, messages: Any, **options: Any) -> ModelResponse:
        await asyncio.sleep(CALL_S)
        return self.complete(messages)


def _table(found: dict[tuple[float, str, int], float], disk_s: float) -> Table:
    return Table(
        title=f"A commit takes {disk_s * 1e3:g} ms and {OUTCOME_S * 1e6:g} us an outcome: "
        "times the ideal",
        columns=("outcomes a commit", *(f"{n} workers" for n in WORKERS)),
        rows=[
            [name, *(f"{found[disk_s, name, workers]:.2f}" for workers in WORKERS)]
            for name in SIZES
        ],
        note=f"{CALLS:,} calls of {CALL_S * 1e3:g} ms. Computed, not timed.",
    )
