"""Schedules of concurrent work, drawn from a seed; and two processes that want one run.

Everything that takes time in a run (a model call, a cell, a read) waits in `Turnstile`, which
lets one through after the other, in an order that chance chooses. Chance has a seed and the
event loop does nothing else, so a seed gives one schedule, to the last byte of the log.
"""

import asyncio
import os
import random
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from effects.interpreter import Interpreter
from effects.log.memory import MemoryLog
from effects.repls.base import Paused
from rlm_fsm import Context, ModelResponse, Usage
from rlm_fsm.codec import encode
from rlm_fsm.event import Event, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options
from rlm_fsm.state import RunState
from rlm_fsm.values import CodeResult, HostCall, ReadResult
from tests.crash_child import EXIT_BUSY
from tests.crash_cycle import Harness, Kill, Plan, comparable

SEEDS = range(50)
ROOT_CODE, SUB_CODE = "ask the words", "ask the letters"
ANSWER = "['<a>', '<p>', '<p>'] | ['<f>', '<i>', '<g>'] | ['<y>', '<e>', '<w>']"


class Turnstile:
    """Lets those who wait through, one at a time, in an order drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._waiting: list[asyncio.Future[None]] = []
        self._is_open = False

    async def passed(self) -> None:
        """Return when it is one's turn."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        if not self._is_open:
            self._is_open = True
            self._later()
        await future

    def _later(self) -> None:
        """After some turns of the loop, so that several wait, and outcomes arrive together."""
        loop, turns = asyncio.get_running_loop(), self._chance.randrange(6)

        def count(left: int) -> None:
            if left:
                loop.call_soon(count, left - 1)
            else:
                self._let_through()

        count(turns)

    def _let_through(self) -> None:
        index = self._chance.randrange(len(self._waiting))
        self._waiting.pop(index).set_result(None)
        self._is_open = bool(self._waiting)
        if self._is_open:
            self._later()


class Model:
    """A model that is a function of its messages, and takes its time."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile

    async def acomplete(self, messages, *, max_tokens, temperature):
        await self._turnstile.passed()
        system, last = messages[0]["content"], messages[-1]["content"]
        if system.startswith("You are a sub-LLM of"):
            return ModelResponse(f"<{last[-1]}>", Usage(3, 2, 5))
        if messages[-1]["content"].startswith("Output"):
            return ModelResponse("FINAL_VAR: found", Usage(30, 2, 32))
        code = SUB_CODE if system.startswith("You are a sub-LLM that") else ROOT_CODE
        return ModelResponse(f"```python\n{code}\n```", Usage(20, 9, 29))


class Session:
    """A REPL that knows two cells: each asks a batch and keeps the answers."""

    def __init__(self, context: Context, turnstile: Turnstile) -> None:
        self._text = context.text
        self._turnstile = turnstile
        self._found = ""

    async def open(self) -> None:
        pass

    def remember(self, messages) -> None:
        pass

    async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused:
        await self._turnstile.passed()
        asked = self._text.split() if code == ROOT_CODE else list(self._text[:3])
        calls = (HostCall(fn="llm_query", prompt=text, dedupe=False) for text in asked)
        return Paused(calls=tuple(calls))

    async def resume(self, answers) -> CodeResult:
        await self._turnstile.passed()
        texts = [answer.text for answer in answers]
        self._found = " | ".join(texts) if len(self._text) > 6 else str(texts)
        return CodeResult(stdout=self._found, stdout_chars=len(self._found))

    async def read(self, name: str) -> ReadResult:
        await self._turnstile.passed()
        return ReadResult(text=self._found)

    async def close(self) -> None:
        pass


def scheduled(seed: int, *, window: int = 4) -> tuple[RunState, list[Event]]:
    """A run with sub-runs under the schedule of a seed: its last state and its events."""
    turnstile = Turnstile(seed)
    options = Options(
        recursive_subcalls=True, max_recursion_depth=1, max_concurrent_subcalls=window
    )
    log, run_id, model = MemoryLog(), RunId("run"), Model(turnstile)
    interpreter = Interpreter(
        run_id=run_id,
        log=log,
        adapters={"root": model, "subcall": model},
        context=Context.from_text("apple fig yew"),
        open_repl=lambda context: Session(context, turnstile),
        clock=lambda: 0.0,
    )
    started = RunStarted(query="q", context=interpreter.context.info(), options=options)
    state = asyncio.run(interpreter.drive(started))
    return state, [logged.event for logged in log.load(run_id)]


def digest(events: list[Event]) -> str:
    """Names a sequence of events as the log would write it."""
    return sha256("\n".join(map(repr, map(encode, events))).encode()).hexdigest()


def test_a_seed_gives_one_schedule_to_the_last_byte():
    for seed in SEEDS:
        assert digest(scheduled(seed)[1]) == digest(scheduled(seed)[1]), seed


def test_all_schedules_end_with_the_same_answer_and_state():
    first, _ = scheduled(SEEDS[0])
    assert (first.status, first.output) == ("finished", ANSWER)
    schedules = set[str]()
    for seed in SEEDS:
        state, events = scheduled(seed)
        assert comparable(state) == comparable(first), seed
        schedules.add(digest(events))
    assert len(schedules) > len(SEEDS) * 0.9, "the schedules are different ones"


@pytest.mark.parametrize("window", [1, 2, 100])
def test_the_window_changes_the_schedule_but_not_the_answer(window: int):
    assert {scheduled(seed, window=window)[0].output for seed in SEEDS[:10]} == {ANSWER}


def test_another_process_reproduces_a_schedule_whatever_its_hash_seed():
    program = (
        "from tests.test_schedules import *\n"
        "print(digest([event for seed in range(8) for event in scheduled(seed)[1]]))"
    )
    root = Path(__file__).resolve().parents[1]
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {digest([e for seed in range(8) for e in scheduled(seed)[1]]) + "\n"}


def test_of_two_processes_that_resume_one_run_one_works_and_the_other_spends_nothing(
    tmp_path: Path,
):
    async def check() -> None:
        async with Harness(tmp_path) as harness:
            whole = await harness.ending("loop", "python")
            plan = Plan(scenario="loop", backend="python", kills=(Kill(point="append:5:after"),))
            run = harness.new_run(plan)
            await (await run.spawn(None)).communicate()
            run_id, _ = run.snapshot()
            before = len(run.starts)
            run.gate.clear()  # whoever works now waits for the model
            both = [await run.spawn(run_id), await run.spawn(run_id)]
            ends = [asyncio.create_task(process.communicate()) for process in both]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            run.gate.set()
            await asyncio.gather(*ends)
            codes = [process.returncode for process in both]
            assert sorted(codes) == [0, EXIT_BUSY]
            worked = codes.index(0) + 1
            assert {generation for generation, _ in run.starts[before:]} == {worked}
            out = await ends[worked - 1]
            assert whole.output in out[0].decode()
            errors = run.folder / f"errors-{2 - codes.index(0)}.txt"
            assert str(run_id) in errors.read_text(encoding="utf-8")

    asyncio.run(check())
