"""What is in flight when a run is stopped: it has a little time, and nobody waits for it longer."""

import asyncio
import gc
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_driving import recorded, running
from machine import Machine, code

from effects import leaving
from effects.caches.flights import FLIGHTS
from effects.calling import call_model
from effects.interpreter import Interpreter
from effects.log.memory import MemoryLog
from effects.tools import apart
from rlm_fsm import (
    Context,
    FakeAdapter,
    FileCache,
    ModelResponse,
    Policy,
    Usage,
    arun,
    fold,
    resume,
    runs,
)
from rlm_fsm.effect import CallModel
from rlm_fsm.event import Cancelled, DeadlinePassed, ModelFailed, ModelReplied, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options
from rlm_fsm.values import CodeResult, ReadResult

BATCH = code("found = llm_batch(['a', 'b', 'c', 'd'])")
HOW = pytest.mark.parametrize("how", ["cancel", "deadline"])
DEADLINE = Policy(max_seconds=1.5)


@pytest.fixture(autouse=True)
def _nothing_is_told_or_stays_in_flight(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.WARNING, "rlm_fsm")
    yield
    gc.collect()
    assert not [each.getMessage() for each in caplog.records if each.name == "asyncio"]
    assert len(FLIGHTS) == 0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "GRACE_S", 0.1)


async def for_ever() -> str:
    """Swallows every cancellation; ends when its loop is gone."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def reply() -> str:
    """Replies when it is cancelled."""
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.001)
    return "R"


async def fail() -> str:
    """Fails of its cancellation, as clients do that tell of a lost connection."""
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError as error:
        raise ConnectionError("hung up") from error
    return ""


class Model:
    """Answers turns from a list, and subcalls (or turns, by number) as it is told."""

    model = "m"

    def __init__(self, *turns: str, **ways: Callable[[], Awaitable[str]]) -> None:
        self._turns, self._ways = turns, ways
        self._asked: list[str] = []
        self._news = asyncio.Event()

    async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
        is_sub = messages[0]["content"].startswith("You are a sub-LLM")
        turn = sum(message["role"] == "assistant" for message in messages)
        name = messages[-1]["content"] if is_sub else f"turn{turn}"
        self._asked.append(name)
        self._news.set()
        way = self._ways.get(name)
        text = await way() if way is not None else name.upper() if is_sub else self._turns[turn]
        return ModelResponse(text, Usage(1, 1, 2))

    async def has_asked(self, *names: str) -> None:
        while not set(names) <= set(self._asked):
            self._news.clear()
            await self._news.wait()


async def stopped(how: str, model: Model, *until: str, **options: Any) -> None:
    """A run that is stopped once the model was asked these."""
    policy = DEADLINE if how == "deadline" else Policy()
    task = asyncio.create_task(arun("q", "text", adapter=model, policy=policy, **options))
    asked = asyncio.create_task(model.has_asked(*until))
    await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
    assert asked.done(), "the run has ended before it asked"
    if how == "deadline":
        result = await task
        assert (result.status, result.limit) == ("partial", "max_seconds")
        return
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@HOW
@pytest.mark.usefixtures("grace")
def test_calls_of_a_batch_that_swallow_their_cancellation_do_not_hold_the_run(
    how: str, log: Path, caplog: pytest.LogCaptureFixture
):
    model = Model(BATCH, a=reply, b=for_ever, c=reply)
    began = time.monotonic()
    asyncio.run(stopped(how, model, "a", "b", "c", log=log, max_concurrent_subcalls=3))
    assert time.monotonic() - began < 20
    (info,) = runs(log)
    events = recorded(log, info.run_id)
    assert [e.text for e in events if isinstance(e, ModelReplied)][1:] == ["R", "R"]
    (end,) = (e for e in events if isinstance(e, Cancelled | DeadlinePassed))
    assert end.not_made == ("0.4",)
    assert fold(events).under_way == ("0.2",)
    assert "1 of its calls go on although they were cancelled" in caplog.text
    healed = FakeAdapter(["FINAL_VAR: found"])
    healed.add_rule("sub-LLM", lambda messages: messages[-1]["content"].upper())
    result = resume(info.run_id, log=log, adapter=healed, policy=Policy(max_seconds=600))
    assert (result.output, result.usage.uncertain_calls) == ("['R', 'B', 'R', 'D']", 1)


@HOW
@pytest.mark.usefixtures("grace")
def test_a_turn_that_swallows_its_cancellation_does_not_hold_the_run(how: str, log: Path):
    began = time.monotonic()
    asyncio.run(stopped(how, Model(turn0=for_ever), "turn0", log=log))
    assert time.monotonic() - began < 20
    (info,) = runs(log)
    assert fold(recorded(log, info.run_id)).under_way == ("0.m1",)


@HOW
def test_how_a_stopped_call_fails_is_not_recorded(how: str, log: Path):
    """It would be the outcome of a call that may well have been paid for."""
    model = Model(BATCH, a=fail, b=fail, c=reply, d=fail)
    asyncio.run(stopped(how, model, "a", "b", "c", "d", log=log))
    (info,) = runs(log)
    events = recorded(log, info.run_id)
    assert not [event for event in events if isinstance(event, ModelFailed)]
    assert fold(events).under_way == ("0.1", "0.2", "0.4")


def test_a_run_whose_calls_end_at_once_is_not_held(monkeypatch: pytest.MonkeyPatch, log: Path):
    monkeypatch.setattr(leaving, "GRACE_S", 600.0)

    async def wait() -> str:
        return await asyncio.sleep(3600, "")

    model = Model(BATCH, a=wait, b=reply, c=fail, d=wait)
    began = time.monotonic()
    asyncio.run(stopped("cancel", model, "a", "b", "c", "d", log=log))
    assert time.monotonic() - began < 60


def test_a_second_cancellation_loses_no_reply(log: Path):
    async def program() -> None:
        stopping, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                stopping.set()
                await go_on.wait()
            return "R"

        model = Model(BATCH, a=slow, b=reply, c=reply, d=reply)
        task = asyncio.create_task(arun("q", "text", adapter=model, log=log))
        await model.has_asked("a", "b", "c", "d")
        task.cancel()
        await stopping.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    (info,) = runs(log)
    assert info.status == "cancelled"
    assert fold(recorded(log, info.run_id)).under_way == ()


def test_calls_that_wait_for_a_thread_were_not_made(log: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "effects.interpreter.ThreadPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1)
    )
    asked, let_go = threading.Event(), threading.Event()

    class Blocking:
        def complete(self, messages: Any, **_: Any) -> ModelResponse:
            if messages[0]["content"].startswith("You are a sub-LLM"):
                asked.set()
                let_go.wait(60)
            return ModelResponse(BATCH, Usage(1, 1, 2))

    async def program() -> None:
        task = asyncio.create_task(arun("q", "text", adapter=Blocking(), log=log))
        await asyncio.to_thread(asked.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        let_go.set()

    asyncio.run(program())
    (info,) = runs(log)
    assert fold(recorded(log, info.run_id)).under_way == ("0.1",)


def test_a_reply_that_a_thread_has_is_kept_though_nobody_was_told_of_it_yet():
    begun, let_go = threading.Event(), threading.Event()

    class Blocking:
        def complete(self, messages: Any, **_: Any) -> ModelResponse:
            begun.set()
            let_go.wait(60)
            return ModelResponse("R", Usage(1, 1, 2))

    async def program() -> Any:
        effect = Machine().start()[-1]
        assert isinstance(effect, CallModel)
        with ThreadPoolExecutor(1) as threads:
            call = call_model(
                Blocking(), [], effect, threads=threads, elapsed=lambda: (0.0, 0.0), made=set()
            )
            task = asyncio.create_task(call)
            await asyncio.to_thread(begun.wait, 30)
            let_go.set()
            threads.submit(int).result()  # its thread is free, and the loop has stood still
            task.cancel()
            return await task

    outcome = asyncio.run(program())
    assert (type(outcome), outcome.text) == (ModelReplied, "R")


@pytest.mark.usefixtures("grace")
def test_nobody_waits_for_the_answer_of_a_call_whose_run_has_left_it(log: Path, tmp_path: Path):
    """Another run asks the same, and asks for itself when the first one has ended."""

    async def program() -> None:
        stuck, well = Model(BATCH, a=for_ever), Model(BATCH, "FINAL_VAR: found")
        shared: dict[str, Any] = {"log": log, "cache": FileCache(tmp_path / "replies")}
        first = asyncio.create_task(arun("q", "text", adapter=stuck, **shared))
        await stuck.has_asked("a")
        second = asyncio.create_task(arun("q", "text", adapter=well, **shared))
        await well.has_asked("turn0")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        result = await asyncio.wait_for(second, 30)
        assert result.output == "['A', 'B', 'C', 'D']"

    asyncio.run(program())


def test_a_tool_has_ended_before_its_call_is_left():
    assert leaving.GRACE_S > apart.GRACE_S


def test_a_cancellation_while_a_run_closes_its_sessions_reaches_the_caller():
    class Session:
        """A REPL whose end is the moment at which somebody cancels the run."""

        async def open(self) -> None: ...

        def remember(self, messages: Any) -> None: ...

        async def start(self, code: str, watch: tuple[str, ...] = ()) -> CodeResult:
            return CodeResult()

        async def resume(self, answers: Any) -> CodeResult:
            return CodeResult()

        async def read(self, name: str) -> ReadResult:
            return ReadResult()

        async def close(self) -> None:
            driving[0].cancel()
            await asyncio.sleep(0)

    driving: list[asyncio.Task[Any]] = []
    model = Model("FINAL: done")
    interpreter = Interpreter(
        run_id=RunId("run"),
        log=MemoryLog(),
        adapters={"root": model, "subcall": model},
        context=Context.from_text("text"),
        open_repl=lambda _: Session(),
    )
    started = RunStarted(query="q", context=interpreter.context.info(), options=Options())

    async def program() -> None:
        driving.append(asyncio.create_task(interpreter.drive(started)))
        with pytest.raises(asyncio.CancelledError):
            await driving[0]

    asyncio.run(program())
    assert interpreter.state.output == "done"


PROGRAM = """
import asyncio, sys
from rlm_fsm import ModelResponse, Policy, Usage, arun, run

class Stubborn:
    async def acomplete(self, messages, **_):
        if not messages[0]["content"].startswith("You are a sub-LLM"):
            return ModelResponse("```python\\nfound = llm_batch(['a', 'b'])\\n```", Usage())
        print("asked", flush=True)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

policy = Policy(max_seconds=1.0 if sys.argv[1] == "deadline" else None)
options = dict(adapter=Stubborn(), policy=policy)
if sys.argv[2] == "arun":
    result = asyncio.run(arun("q", "text", **options))
else:
    result = run("q", "text", **options)
print(result.status)
"""


@pytest.mark.parametrize("how", ["deadline", "ctrl-c"])
@pytest.mark.parametrize("call", ["run", "arun"])
def test_a_program_whose_calls_do_not_end_ends(how: str, call: str, log: Path):
    with running(PROGRAM, how, call, log=log) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        assert process.stdout.readline() == "asked\n"
        if how == "ctrl-c":
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    (info,) = runs(log)
    if how == "ctrl-c":
        assert (process.returncode, info.status) == (-signal.SIGINT, "cancelled"), err
    else:
        assert (process.returncode, out) == (0, "partial\n"), err
    assert "Task" not in err
    assert "ignored" not in err
