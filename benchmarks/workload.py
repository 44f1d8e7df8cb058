"""What is run, and running it with this project.

A workload is a first turn that warms up, some turns whose replies are all made from one cell, and
the answer. The model is an adapter of our own that keeps nothing, so the time is the runtime's; it
notes when it was asked, and the measured turns are what lies between two askings. So neither
the start of a run nor its end is in them. `peer_worker` runs the same workloads with the peer.
"""

import gc
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.exact import Alarm
from rlm_fsm import RLM, ModelResponse, Policy, SqliteLog, Usage

QUERY = "What does the text say?"
ANSWER = "done"
WARM_UP = "x = 0"
_MANY = 10**9


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A run of `turns` measured turns. Plain values only: it goes to the peer as JSON."""

    backend: str
    """``python`` or ``monty``."""
    turns: int
    """Turns besides the first one, which warms up, and the last one, which answers."""
    cell: str = "x = 1"
    """Code of every turn; ``$I`` stands for the turn's number, from 0."""
    context: str = "RLMs treat long prompts as environment state."
    subcalls: int = 0
    """Subcalls that the cells make in all: the run is refused when it made another number."""
    subcall_s: float = 0.0
    """Seconds that a subcall takes."""
    workers: int = 10
    """Subcalls in flight at once."""

    def reply(self, number: int) -> str:
        """What the model says when it is asked for the `number`-th time, from 0."""
        if number > self.turns:
            return f"FINAL: {ANSWER}"
        cell = self.cell.replace("$I", str(number - 1)) if number else WARM_UP
        return f"```python\n{cell}\n```"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a run took, in seconds."""

    whole_s: float
    """From calling `RLM.run` to its return."""
    turns_s: float
    """The measured turns."""

    @property
    def rest_s(self) -> float:
        """Start, warm-up, and end."""
        return self.whole_s - self.turns_s


class RootModel:
    """Answers at once."""

    def __init__(self, workload: Workload) -> None:
        self.asked: list[float] = []
        """When it was asked."""
        self._workload = workload

    def complete(self, messages: Any, **options: Any) -> ModelResponse:
        """The workload's next reply."""
        self.asked.append(time.perf_counter())
        return ModelResponse(self._workload.reply(len(self.asked) - 1), Usage(1, 1, 2))

    async def acomplete(self, messages: Any, **options: Any) -> ModelResponse:
        """The same, without a thread."""
        return self.complete(messages)


class SlowModel:
    """Answers a subcall after a fixed time."""

    def __init__(self, delay_s: float) -> None:
        self.calls = 0
        self._delay_s = delay_s
        self._alarm: Alarm | None = None

    def complete(self, messages: Any, **options: Any) -> ModelResponse:
        """Not used: there is `acomplete`."""
        raise NotImplementedError

    async def acomplete(self, messages: Any, **options: Any) -> ModelResponse:
        """An answer, after the delay."""
        self.calls += 1
        if self._delay_s:
            if self._alarm is None:
                self._alarm = Alarm()
            await self._alarm.sleep(self._delay_s)
        return ModelResponse("ok", Usage(1, 1, 2))


def run_own(workload: Workload, log: str) -> Timing:
    """Run a workload with this project. `log` is ``:memory:`` or a path.

    Raises `RuntimeError` when the run did something else than it should.
    """
    root, sub = RootModel(workload), SlowModel(workload.subcall_s)
    rlm = RLM(
        root,
        subcall_adapter=sub,
        policy=Policy(max_steps=_MANY, max_subcalls=_MANY, max_total_tokens=_MANY),
        repl_backend=workload.backend,
        max_concurrent_subcalls=workload.workers,
        loop_limit=None,  # the measured cell is the same in each turn
        log=log,
    )
    gc.collect()
    began = time.perf_counter()
    result = rlm.run(QUERY, workload.context)
    whole_s = time.perf_counter() - began
    did = (result.output, len(root.asked), sub.calls)
    if did != (ANSWER, workload.turns + 2, workload.subcalls):
        raise RuntimeError(f"the run did something else: answer, turns, subcalls = {did}")
    return Timing(whole_s=whole_s, turns_s=root.asked[-1] - root.asked[1])


def run_logged(workload: Workload, folder: Path) -> Timing:
    """`run_own` with a durable log that exists already and holds no run."""
    path = new_log(folder)
    try:
        return run_own(workload, str(path))
    finally:
        delete_log(path)


def new_log(folder: Path) -> Path:
    """An empty log. Making one is the cost of a machine's first run, not of each."""
    path = folder / "benchmark.sqlite"
    delete_log(path)
    SqliteLog(path).close()
    return path


def delete_log(path: Path) -> None:
    """Remove a log and the files beside it."""
    for file in path.parent.glob(path.name + "*"):
        file.unlink()


def varied_text(chars: int) -> str:
    """Words that hardly repeat, so that nothing is small because it was seen before."""
    chance = random.Random(7)
    letters = "etaoinshrdlcumwfgypb"
    words: list[str] = []
    length = 0
    while length < chars:
        word = "".join(chance.choices(letters, k=chance.randint(2, 9)))
        words.append(word)
        length += len(word) + 1
    return " ".join(words)[:chars]
