"""Ctrl-C in programs that wait for a run, also in the middle of an event loop of their own."""

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import pytest
from cli_driving import KEY, recorded, running, wait_until
from loopback import ChatServer, Respond

from effects import waiting
from rlm_fsm import FakeAdapter, ModelResponse, OpenAICompatAdapter, Usage, resume, run, runs
from rlm_fsm.event import Cancelled, RunFinished

CALLS = """
import asyncio, signal, sys
from rlm_fsm import OpenAICompatAdapter, run

def handled():
    return signal.getsignal(signal.SIGINT)

def ask():
    adapter = OpenAICompatAdapter("m", base_url=sys.argv[1])
    return run("What?", "text", adapter=adapter)
"""
UNDER_ASYNCIO = """
async def program():
    before = handled()
    assert before is not signal.default_int_handler, "it is asyncio's"
    try:
        ask()
    except KeyboardInterrupt:
        print("interrupted", handled() is before, flush=True)
        raise

asyncio.run(program())
"""
GOING_ON = """
async def program():
    before = handled()
    try:
        ask()
    except KeyboardInterrupt:
        assert handled() is before
    print("going on", flush=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

asyncio.run(program())
"""
OWN_HANDLER = """
import threading
from rlm_fsm import FakeAdapter

heard = threading.Event()

def hear(number, frame):
    heard.set()

def wait():
    print("waiting", flush=True)
    return heard.wait(30)

async def program():
    signal.signal(signal.SIGINT, hear)
    adapter = FakeAdapter(["```python\\nx = wait()\\n```", "FINAL_VAR: x"])
    print(run("What?", "text", adapter=adapter, tools=[wait]).output, handled() is hear)

asyncio.run(program())
"""
UNDISTURBED = """
async def program():
    before = handled()
    print(ask().output, handled() is before, flush=True)

asyncio.run(program())
"""

PLAIN = """
try:
    ask()
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one that comes later is the program's
    print("interrupted", flush=True)
"""


class Model(ChatServer):
    """Asks a subcall, which it doesn't answer before it may, and answers with it."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        super().__init__(self._said, key=KEY)

    def _said(self, messages: list[dict[str, str]]) -> str | Respond:
        if messages[0]["content"].startswith("You are a sub-LLM"):
            return "fine" if self.may_answer.is_set() else Respond(delay_s=60)
        if any(message["role"] == "assistant" for message in messages):
            return "FINAL_VAR: x"
        return "```python\nx = llm_query('a')\n```"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def start(
    program: str, server: ChatServer, log: Path
) -> AbstractContextManager["subprocess.Popen[str]"]:
    """A program that knows the server."""
    return running(CALLS + program, server.base_url, log=log)


def is_cancelled(log: Path) -> bool:
    (info,) = runs(log)
    kinds = [type(event) for event in recorded(log, info.run_id)]
    return info.status == "cancelled" and Cancelled in kinds


@pytest.mark.parametrize("times", [1, 2])
def test_the_first_ctrl_c_under_asyncio_run_cancels_the_run_that_is_waited_for(
    times: int, log: Path
) -> None:
    with Model() as server:
        with start(UNDER_ASYNCIO, server, log) as process:
            wait_until(lambda: len(server.requests) == 2)
            for _ in range(times):
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        wait_until(lambda: server.requests[1].hung_up)
    assert (out, process.returncode) == ("interrupted True\n", -signal.SIGINT), err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "never retrieved" not in err
    assert is_cancelled(log)


def test_a_run_that_was_interrupted_so_goes_on_later(log: Path) -> None:
    with Model() as server:
        with start(UNDER_ASYNCIO, server, log) as process:
            wait_until(lambda: len(server.requests) == 2)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        server.may_answer.set()
        adapter = OpenAICompatAdapter("m", base_url=server.base_url, api_key=KEY)
        assert resume(runs(log)[0].run_id, adapter=adapter, log=log).output == "fine"


def test_a_program_that_goes_on_after_it_is_cancelled_by_the_next_ctrl_c(log: Path) -> None:
    with Model() as server, start(GOING_ON, server, log) as process:
        wait_until(lambda: len(server.requests) == 2)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "going on\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("cancelled\n", -signal.SIGINT), err
    assert is_cancelled(log)


def test_a_handler_of_the_programs_own_is_left_to_hear_it(log: Path) -> None:
    with Model() as server, start(OWN_HANDLER, server, log) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("True True\n", 0), err


def test_a_run_that_nobody_interrupts_leaves_asyncios_handler_where_it_was(log: Path) -> None:
    with Model() as server:
        server.may_answer.set()
        with start(UNDISTURBED, server, log) as process:
            out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("fine True\n", 0), err


def test_an_interrupt_before_the_run_has_begun_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread and a loop take a moment; nobody has a task yet that could be cancelled."""
    heard = threading.Event()
    new_event_loop = asyncio.new_event_loop

    def interrupt(number: int, frame: object) -> None:
        heard.set()
        raise KeyboardInterrupt

    def interrupted() -> asyncio.AbstractEventLoop:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        assert heard.wait(30)
        return new_event_loop()

    async def program() -> None:
        monkeypatch.setattr(asyncio.events, "new_event_loop", interrupted)
        adapter = FakeAdapter(["FINAL: x"])
        with pytest.raises(KeyboardInterrupt):
            run("q", "text", adapter=adapter, log=":memory:")
        assert adapter.call_log == []

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        asyncio.run(program())
    finally:
        signal.signal(signal.SIGINT, before)


# -- several of them ------------------------------------------------------------------------------


def press() -> None:
    """Press Ctrl-C, from whatever thread."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


class Pressing:
    """A model that presses Ctrl-C when it is asked, and again while its call is cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
        press()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled += 1
            press()
            await asyncio.sleep(0.01)
            raise
        raise AssertionError("nobody has cancelled it")


def plainly(act: Callable[[], object]) -> None:
    act()


def under_asyncio(act: Callable[[], object]) -> None:
    async def program() -> None:
        act()

    asyncio.run(program())


def under_a_handler_that_raises(act: Callable[[], object]) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        under_asyncio(act)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("program", [plainly, under_asyncio, under_a_handler_that_raises])
def test_a_second_ctrl_c_does_not_disturb_the_end_of_a_run(
    program: Callable[[Callable[[], object]], None], log: Path
) -> None:
    adapter = Pressing()
    with pytest.raises(KeyboardInterrupt):
        program(lambda: run("q", "text", adapter=cast(Any, adapter), log=log))
    assert is_cancelled(log)
    assert adapter.cancelled == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "rlm-fsm-run" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("pause_s", [0, 0.001, 0.003, 0.01, 0.03])
def test_two_ctrl_c_close_together_cancel_a_plain_program_s_run_once(
    pause_s: float, log: Path
) -> None:
    with Model() as server, start(PLAIN, server, log) as process:
        wait_until(lambda: len(server.requests) == 2)
        process.send_signal(signal.SIGINT)
        time.sleep(pause_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert "Traceback" not in err or err.rstrip().endswith("KeyboardInterrupt"), "it came late"
    assert is_cancelled(log)


@pytest.mark.parametrize("program", [plainly, under_asyncio])
def test_a_ctrl_c_that_comes_late_is_raised_at_once(
    program: Callable[[Callable[[], object]], None], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.05)
    may_end, ended = threading.Event(), threading.Event()

    class Stuck:
        """Holds up its loop, and presses Ctrl-C until somebody loses patience."""

        async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
            try:
                while not may_end.is_set():
                    press()
                    time.sleep(0.01)  # noqa: ASYNC251
            finally:
                ended.set()
            return ModelResponse("FINAL: x", Usage(1, 1, 2))

    with pytest.raises(KeyboardInterrupt):
        program(lambda: run("q", "text", adapter=cast(Any, Stuck()), log=log))
    may_end.set()
    assert ended.wait(30)
    wait_until(lambda: "rlm-fsm-run" not in {thread.name for thread in threading.enumerate()})
    assert resume(runs(log)[0].run_id, adapter=FakeAdapter(["FINAL: y"]), log=log).output in "xy"


@pytest.mark.parametrize("program", [plainly, under_asyncio])
def test_a_ctrl_c_that_another_thread_was_given_is_heard(
    program: Callable[[Callable[[], object]], None], log: Path
) -> None:
    """The system gives a signal to a thread that is just starting a process, say."""
    is_over, was_heard = threading.Event(), list[bool]()

    class Busy:
        """A synchronous adapter: it has a thread."""

        def complete(self, messages: Any, **_: Any) -> ModelResponse:
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            was_heard.append(is_over.wait(10))
            return ModelResponse("FINAL: x", Usage(1, 1, 2))

    with pytest.raises(KeyboardInterrupt):
        program(lambda: run("q", "text", adapter=Busy(), log=log))
    is_over.set()
    wait_until(lambda: was_heard == [True])
    assert is_cancelled(log)


def test_a_ctrl_c_that_comes_when_the_run_has_ended_is_not_lost(log: Path) -> None:
    class Last:
        def handle(self, appended: Any) -> None:
            if isinstance(appended.event, RunFinished):
                press()

    with pytest.raises(KeyboardInterrupt):
        run("q", "text", adapter=FakeAdapter(["FINAL: x"]), event_listener=Last(), log=log)
    assert runs(log)[0].output == "x"


def test_a_run_within_a_run_leaves_the_outer_one_its_ctrl_c(log: Path, tmp_path: Path) -> None:
    inner: list[str] = []

    class Nested:
        async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
            other = run("q", "text", adapter=FakeAdapter(["FINAL: x"]), log=tmp_path / "inner")
            inner.append(other.output)
            press()
            await asyncio.sleep(30)
            raise AssertionError("nobody has cancelled it")

    with pytest.raises(KeyboardInterrupt):
        run("q", "text", adapter=cast(Any, Nested()), log=log)
    assert inner == ["x"]
    assert is_cancelled(log)


@pytest.mark.parametrize("program", [plainly, under_asyncio])
def test_adapters_see_the_context_variables_of_whoever_called_run(
    program: Callable[[Callable[[], object]], None],
) -> None:
    who, seen = ContextVar("who", default="nobody"), list[str]()

    class Seeing:
        async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
            seen.append(who.get())
            return ModelResponse("FINAL: x", Usage(1, 1, 2))

    token = who.set("Ann")
    try:
        program(lambda: run("q", "text", adapter=cast(Any, Seeing()), log=":memory:"))
    finally:
        who.reset(token)
    assert seen == ["Ann"]
