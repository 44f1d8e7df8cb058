"""Tools and approvals that don't do as they are told: they end their own call, and nothing else."""

import asyncio
import contextvars
import gc
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cli_driving import recorded, running
from machine import code

from effects.tools import apart
from rlm_fsm import FakeAdapter, Policy, arun, run, runs, tool
from rlm_fsm.event import Cancelled, ToolFailed, ToolReturned

TRY = "try:\n    print(call())\nexcept ToolError as e:\n    print(e)"
Fn = Callable[[], Awaitable[Any]]


class Quitting(BaseException):
    """Of nobody's tree."""


@pytest.fixture(autouse=True)
def _nobody_is_told_of_tasks(caplog: pytest.LogCaptureFixture) -> Any:
    """Neither of exceptions that nobody retrieved nor of tasks that were destroyed."""
    yield
    gc.collect()
    assert not [each.getMessage() for each in caplog.records if each.name == "asyncio"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def model(cell: str = TRY) -> FakeAdapter:
    return FakeAdapter([code(cell), "FINAL: done"])


def printed(fn: Any, cell: str = TRY, **options: Any) -> str:
    """What a cell printed that calls a tool."""
    tools = [tool(fn, name="call", **options)]
    result = run("q", "text", adapter=model(cell), log=":memory:", tools=tools)
    assert result.status == "finished", result
    (step,) = (step for step in result.trace if step.kind == "repl_exec")
    return step.stdout or step.error or ""


def stubborn(begun: Callable[[], None] = lambda: None) -> Fn:
    """A tool that hears of no cancellation, whoever waits for it."""

    async def call() -> None:
        begun()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    return call


def content(begun: Callable[[], None] = lambda: None) -> Fn:
    """A tool that takes its cancellation for an answer."""

    async def call() -> str:
        begun()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "not cancelled"

    return call


SWALLOWING = pytest.mark.parametrize("swallowing", [stubborn, content])


# -- what is raised


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError("no more"),
        SystemExit(3),
        GeneratorExit("no more"),
        Quitting("no more"),
        TimeoutError("no more"),
        StopAsyncIteration("no more"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["async", "plain", "awaitable"])
def test_whatever_a_tool_raises_fails_its_call(error: BaseException, kind: str):
    async def asynchronous() -> None:
        await asyncio.sleep(0)
        raise error

    def plain() -> None:
        raise error

    def awaitable() -> Any:
        return asynchronous()

    fn = {"async": asynchronous, "plain": plain, "awaitable": awaitable}[kind]
    told = f"call failed: {type(error).__name__}: {error}\n"
    assert printed(fn) == told
    assert printed(fn, timeout_s=30) == told


def test_a_tool_that_cancels_its_own_task_fails_its_call():
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    assert printed(cancel) == "call failed: CancelledError\n"


def test_a_tool_that_is_cancelled_with_all_tasks_but_its_run_fails_its_call():
    async def one() -> None:
        me = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not me and task.get_name() == "rlm-tool":
                task.cancel()

    cell = (
        "import asyncio\nfound = await asyncio.gather(call(), call(), return_exceptions=True)\n"
        "print(found)"
    )
    assert "CancelledError" in printed(one, cell)


@pytest.mark.parametrize("is_lone", [True, False])
def test_ctrl_c_in_the_middle_of_a_tool_cancels_the_run(is_lone: bool, log: Path):
    async def call() -> None:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    policy = Policy(max_seconds=None if is_lone else 60.0)
    with pytest.raises(KeyboardInterrupt):
        run("q", "text", adapter=model(), log=log, tools=[call], policy=policy)
    (info,) = runs(log)
    assert info.status == "cancelled"


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), SystemExit(3), GeneratorExit(), Quitting()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_async", [True, False])
def test_whatever_on_approval_raises_leaves_its_call_waiting(
    error: BaseException, is_async: bool, caplog: pytest.LogCaptureFixture
):
    async def ask(_: Any) -> bool:
        raise error

    def plain(_: Any) -> bool:
        raise error

    result = run(
        "q",
        "text",
        adapter=model(),
        log=":memory:",
        tools=[tool(lambda: 1, name="call", needs_approval=True)],
        on_approval=ask if is_async else plain,
    )
    assert result.status == "waiting"
    (told,) = (each for each in caplog.records if each.name == "rlm_fsm")
    assert told.getMessage() == "on_approval failed for call 0.1 of call: it waits"
    assert told.exc_info is not None
    assert told.exc_info[0] is type(error)


# -- what doesn't end


@SWALLOWING
def test_a_tool_that_swallows_its_timeout_fails_all_the_same(
    swallowing: Callable[[], Fn], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(apart, "GRACE_S", 0.05)
    out = printed(swallowing(), timeout_s=0.05)
    assert out == "call failed: there was no answer within 0.05 seconds\n"


@SWALLOWING
@pytest.mark.parametrize("is_lone", [True, False])
@pytest.mark.parametrize("is_approval", [True, False])
def test_a_tool_or_an_approval_that_swallows_the_runs_cancellation_swallows_its_own(
    swallowing: Callable[..., Fn],
    is_lone: bool,
    is_approval: bool,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(apart, "GRACE_S", 0.05)

    async def program() -> None:
        begun = asyncio.Event()
        waits = swallowing(begun.set)

        async def ask(_: Any) -> Any:
            return await waits()

        task = asyncio.create_task(
            arun(
                "q",
                "text",
                adapter=model(),
                log=log,
                tools=[tool(waits, name="call", needs_approval=is_approval)],
                on_approval=ask,
                policy=Policy(max_seconds=None if is_lone else 60.0),
            )
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(program())
    (info,) = runs(log)
    assert info.status == "cancelled"
    events = recorded(log, info.run_id)
    assert any(isinstance(event, Cancelled) for event in events)
    assert not any(isinstance(event, ToolFailed) for event in events)


@SWALLOWING
def test_the_end_of_a_runs_time_ends_it_whatever_a_tool_makes_of_it(
    swallowing: Callable[[], Fn], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(apart, "GRACE_S", 0.05)
    policy = Policy(max_seconds=1.0)
    tools = [tool(swallowing(), name="call")]
    result = run("q", "text", adapter=model(), log=":memory:", tools=tools, policy=policy)
    assert (result.status, result.limit) == ("partial", "max_seconds")


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_tool_that_is_cancelled_has_time_to_clean_up(how: str):
    async def program() -> list[str]:
        begun, done = asyncio.Event(), list[str]()

        async def call() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                done.append("cleaned")

        limited = tool(call, timeout_s=0.05 if how == "timeout" else None)
        asking = arun("q", "text", adapter=model(), log=":memory:", tools=[limited])
        task = asyncio.create_task(asking)
        await begun.wait()
        if how == "cancel":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return done

    assert asyncio.run(program()) == ["cleaned"]


def test_what_nobody_waits_for_goes_on_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """As long as its event loop does; what it gives or raises is dropped."""
    monkeypatch.setattr(apart, "GRACE_S", 0.01)
    caplog.set_level(logging.WARNING, "rlm_fsm")

    async def program() -> list[str]:
        go, done, ended = asyncio.Event(), list[str](), asyncio.Event()

        async def call() -> None:
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue
            done.append("went on")
            ended.set()
            raise ValueError("nobody hears of it")

        limited = tool(call, timeout_s=0.01)
        result = await arun("q", "text", adapter=model(), log=":memory:", tools=[limited])
        assert result.status == "finished"
        gc.collect()
        go.set()
        await ended.wait()
        return done

    assert asyncio.run(program()) == ["went on"]
    assert "call goes on" in caplog.text


def test_a_tool_sees_the_variables_of_its_run():
    variable = contextvars.ContextVar[str]("variable", default="unset")

    async def call() -> str:
        return variable.get()

    def plain() -> Any:
        value = variable.get()

        async def later() -> str:
            return value + variable.get()

        return later()

    variable.set("set")
    assert printed(call) == "set\n"
    assert printed(plain) == "setset\n"


def test_a_result_that_is_there_when_the_run_is_cancelled_is_kept(log: Path):
    """A tool's last deed is to cancel its run."""

    async def program() -> None:
        async def call() -> str:
            task.cancel()
            return "kept"

        policy = Policy(max_seconds=60.0)
        asking = arun("q", "text", adapter=model(), log=log, tools=[call], policy=policy)
        task = asyncio.create_task(asking)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    (info,) = runs(log)
    events = recorded(log, info.run_id)
    assert [event.value for event in events if isinstance(event, ToolReturned)] == ['"kept"']


def test_a_plain_function_that_gives_something_to_wait_for_too_late_leaves_no_warning():
    release = threading.Event()

    async def later() -> None: ...

    def call() -> Any:
        release.wait(30)
        return later()

    async def program() -> None:
        limited = tool(call, timeout_s=0.05)
        await arun("q", "text", adapter=model(), log=":memory:", tools=[limited])
        release.set()
        for thread in threading.enumerate():
            if thread.name == "rlm-tool":
                await asyncio.to_thread(thread.join, 30)
        await asyncio.sleep(0)  # what the thread has sent

    asyncio.run(program())


# -- a whole program

PROGRAM = """
import asyncio, sys
from rlm_fsm import FakeAdapter, arun, run, tool

async def call():
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue

how = sys.argv[1]
limited = tool(call, timeout_s=0.05 if how == "timeout" else None)
cell = "```python\\ntry:\\n    call()\\nexcept ToolError as e:\\n    seen = str(e)\\n```"
options = dict(adapter=FakeAdapter([cell, "FINAL_VAR: seen"]), tools=[limited])
if len(sys.argv) > 2:
    result = asyncio.run(arun("q", "text", **options))
else:
    result = run("q", "text", **options)
print(result.output)
"""


@pytest.mark.parametrize("how", ["timeout", "ctrl-c"])
@pytest.mark.parametrize("more", [(), ("arun",)])
def test_a_program_whose_tool_does_not_end_ends(how: str, more: tuple[str, ...], log: Path):
    with running(PROGRAM, how, *more, log=log) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        if how == "ctrl-c":
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    (info,) = runs(log)
    if how == "ctrl-c":
        assert (process.returncode, info.status) == (-signal.SIGINT, "cancelled"), err
    else:
        assert (process.returncode, info.status) == (0, "finished"), err
        assert out == "call failed: there was no answer within 0.05 seconds\n"
    assert "Task" not in err
