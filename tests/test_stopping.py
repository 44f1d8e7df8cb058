"""Runs that are stopped: by a deadline, by a cancelled task, by Ctrl-C; and that go on."""

import asyncio
import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from loopback import ChatServer, Respond

from effects.adapters.openai_compat import OpenAICompatAdapter
from rlm_fsm import (
    RLM,
    FakeAdapter,
    MaxSecondsExceeded,
    ModelResponse,
    Policy,
    SqliteLog,
    Usage,
    arun,
    arun_many,
    fold,
    resume,
    run,
    runs,
)
from rlm_fsm.event import Cancelled, CodePaused, DeadlinePassed, ModelReplied

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
TEXT = "one two three"
FOREVER = Respond(body="", delay_s=60)
ASK = "```python\nx = llm_batch(['a', 'b', 'c'])\n```"
SPIN = "```python\nprint('begun')\nwhile True:\n    pass\n```"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def events_of(log: Path, run_id: str) -> list[Any]:
    with SqliteLog(log) as opened:
        return [logged.event for logged in opened.load(opened.find(run_id))]


class Stuck(ChatServer):
    """Takes the root's turns from a script and never answers a subcall, until it is healed."""

    def __init__(self, *turns: str | Respond) -> None:
        self.turns = turns
        self.is_healed = False
        super().__init__(self._said)

    def _said(self, messages: list[dict[str, str]]) -> str | Respond:
        if messages[0]["content"].startswith("You are a sub-LLM"):
            return messages[-1]["content"].upper() if self.is_healed else FOREVER
        return self.turns[sum(message["role"] == "assistant" for message in messages)]

    def adapter(self) -> OpenAICompatAdapter:
        return OpenAICompatAdapter("m", base_url=self.base_url, api_key="", max_retries=0)

    async def asked(self, count: int, run: "asyncio.Task[Any]") -> None:
        """Wait until so many requests have arrived of a run that goes on."""
        while len(self.requests) < count and not run.done():  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.005)
        assert not run.done(), run

    def wait_until_hung_up(self, *numbers: int) -> None:
        """The server sees the connections of these requests close."""
        end = time.monotonic() + 10
        while not all(self.requests[number].hung_up for number in numbers):
            assert time.monotonic() < end, "a request is still waited for"
            time.sleep(0.005)


def children() -> set[int]:
    """The processes that this one has started and not waited for."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for told in lists for pid in told.read_text().split()}


# -- a deadline -----------------------------------------------------------------------------------


@BACKENDS
def test_a_deadline_hangs_up_on_calls_in_flight_and_the_run_goes_on_with_more(
    backend: str, log: Path
) -> None:
    with Stuck(ASK, "FINAL_VAR: x") as server:
        began = time.monotonic()
        first = run(
            "q",
            TEXT,
            adapter=server.adapter(),
            policy=Policy(max_seconds=1),
            repl_backend=backend,
            log=log,
        )
        assert time.monotonic() - began < 10
        assert (first.status, first.limit) == ("partial", "max_seconds")
        server.wait_until_hung_up(1, 2, 3)
        server.is_healed = True
        result = resume(
            first.run_id, adapter=server.adapter(), policy=Policy(max_seconds=120), log=log
        )
    assert (result.status, result.output) == ("finished", "['A', 'B', 'C']")
    assert result.usage.uncertain_calls == 3
    assert result.usage.seconds >= 1, "the time of the first part counts"


@BACKENDS
def test_a_deadline_stops_a_cell(backend: str, log: Path) -> None:
    adapter = FakeAdapter([SPIN])
    began = time.monotonic()
    policy = Policy(max_seconds=0.7)
    result = run("q", TEXT, adapter=adapter, policy=policy, repl_backend=backend, log=log)
    assert (result.status, result.limit) == ("partial", "max_seconds")
    assert time.monotonic() - began < 10, "not the limit of a cell, which is 30 s"
    assert result.trace.steps[-1].prompt_summary == "max_seconds"


def test_a_deadline_may_raise_and_carries_the_best_answer(log: Path) -> None:
    adapter = FakeAdapter(["print('clue')"])
    adapter.add_rule("clue", "late", delay_s=60)
    policy = Policy(max_seconds=0.7, on_limit="raise")
    with pytest.raises(MaxSecondsExceeded) as caught:
        run("q", TEXT, adapter=adapter, policy=policy, log=log)
    assert (caught.value.limit, caught.value.output) == ("max_seconds", "clue")


def test_a_deadline_that_is_not_reached_changes_nothing(log: Path) -> None:
    adapter = FakeAdapter(["x = llm_query('a')", "FINAL_VAR: x"])
    adapter.add_rule("You are a sub-LLM", "yes")
    result = run("q", TEXT, adapter=adapter, policy=Policy(max_seconds=60), log=log)
    assert result.output == "yes"
    assert not [e for e in events_of(log, result.run_id) if isinstance(e, DeadlinePassed)]


def test_a_run_whose_time_is_over_when_it_is_resumed_ends_at_once(log: Path) -> None:
    with Stuck(ASK) as server:
        policy = Policy(max_seconds=0.7)
        first = run("q", TEXT, adapter=server.adapter(), policy=policy, log=log)
        a_bit = Policy(max_seconds=first.usage.seconds + 0.001)
        again = resume(first.run_id, adapter=server.adapter(), policy=a_bit, log=log)
    assert (again.status, again.limit) == ("partial", "max_seconds")


# -- cancellation ---------------------------------------------------------------------------------


@BACKENDS
def test_a_cancelled_task_hangs_up_on_calls_in_flight_and_the_run_goes_on(
    backend: str, log: Path
) -> None:
    with Stuck(ASK, "FINAL_VAR: x") as server:

        async def program() -> None:
            rlm = RLM(server.adapter(), repl_backend=backend, log=log)
            task = asyncio.create_task(rlm.arun("q", TEXT))
            await server.asked(4, task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(program())
        server.wait_until_hung_up(1, 2, 3)
        (info,) = runs(log)
        assert info.status == "cancelled"
        events = events_of(log, info.run_id)
        assert isinstance(events[-2], Cancelled)
        assert fold(events).spent.seconds == events[-2].clock_s > 0
        server.is_healed = True
        result = resume(info.run_id, adapter=server.adapter(), log=log)
    assert (result.status, result.output) == ("finished", "['A', 'B', 'C']")


class Held:
    """Answers no subcall before `let_go` is set."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.asked: list[str] = []

    async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
        if messages[0]["role"] == "system" and messages[0]["content"].startswith("You are a sub"):
            self.asked.append(messages[-1]["content"])
            await self.let_go.wait()
            return ModelResponse(messages[-1]["content"].upper(), Usage())
        return ModelResponse("```python\nx = llm_batch(['a', 'b', 'c', 'd', 'e'])\n```", Usage())


@BACKENDS
def test_replies_that_are_there_when_a_run_is_cancelled_are_kept_and_no_call_is_uncertain(
    backend: str, log: Path
) -> None:
    async def program() -> None:
        model = Held()
        task = asyncio.create_task(
            arun(
                "q",
                TEXT,
                adapter=model,
                max_concurrent_subcalls=2,
                repl_backend=backend,
                log=log,
            )
        )
        while len(model.asked) < 2:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.001)
        model.let_go.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.asked == ["a", "b"]

    asyncio.run(program())
    (info,) = runs(log)
    events = events_of(log, info.run_id)
    assert [e.text for e in events if isinstance(e, ModelReplied)][1:] == ["A", "B"]
    (cancelled,) = [e for e in events if isinstance(e, Cancelled)]
    assert cancelled.not_made == ("0.3", "0.4")
    healed = FakeAdapter(["FINAL_VAR: x"])
    healed.add_rule("sub-LLM", lambda messages: messages[-1]["content"].upper())
    result = resume(info.run_id, log=log, adapter=healed, on_uncertain="fail")
    assert result.output == "['A', 'B', 'C', 'D', 'E']"
    assert result.usage.uncertain_calls == 0
    assert len(healed.call_log) == 4, "c, d, e and the last turn"


def test_calls_that_wait_for_a_place_among_several_runs_are_not_uncertain(log: Path) -> None:
    async def program() -> None:
        model = Held()
        batch = asyncio.create_task(
            arun_many(["q"], context=TEXT, adapter=model, max_calls=1, log=log)
        )
        while not model.asked:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.001)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch

    asyncio.run(program())
    (info,) = runs(log)
    state = fold(events_of(log, info.run_id))
    assert (len(state.calls), state.under_way) == (5, ("0.1",))


def test_an_adapter_that_swallows_a_cancellation_ends_the_run_all_the_same(log: Path) -> None:
    class Stubborn:
        asked = asyncio.Event()

        async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
            self.asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return ModelResponse("```python\nprint(1)\n```", Usage())

    async def program() -> None:
        model = Stubborn()
        task = asyncio.create_task(arun("q", TEXT, adapter=model, log=log))
        await model.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    (info,) = runs(log)
    assert info.status == "cancelled"
    kept = [event for event in events_of(log, info.run_id) if isinstance(event, ModelReplied)]
    assert len(kept) == 1, "what it replied is paid for"
    result = resume(info.run_id, log=log, adapter=FakeAdapter(["FINAL: done"]))
    assert (result.output, result.usage.uncertain_calls) == ("done", 0)


def test_a_late_reply_does_not_refuse_the_calls_that_wait(log: Path) -> None:
    """They are made when there is more time."""

    class Late:
        async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
            if messages[0]["content"].startswith("You are a sub-LLM"):
                time.sleep(0.4)  # noqa: ASYNC251 - the timer can't fire meanwhile
                return ModelResponse("R", Usage(1, 1, 2))
            done = len(messages) > 2
            cell = "```python\nx = len(llm_batch(['a', 'b', 'c', 'd']))\n```"
            return ModelResponse("FINAL_VAR: x" if done else cell, Usage(1, 1, 2))

    policy = Policy(max_seconds=0.3)
    first = run("q", TEXT, adapter=Late(), log=log, policy=policy, max_concurrent_subcalls=1)
    assert (first.status, first.limit) == ("partial", "max_seconds")
    again = resume(first.run_id, log=log, adapter=Late(), policy=Policy(max_seconds=100))
    assert (again.status, again.output) == ("finished", "4")


def test_a_run_of_a_task_that_is_being_cancelled_goes_to_its_end() -> None:
    """What a program does when it is cancelled may be a run."""

    async def program() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            result = await arun("q", TEXT, adapter=FakeAdapter(["FINAL: done"]), log=":memory:")
            return result.output
        return ""

    async def main() -> str:
        task = asyncio.create_task(program())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "done"


def test_a_deadline_of_the_callers_own_cancels_cleanly(log: Path) -> None:
    with Stuck(ASK) as server:

        async def program() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await arun("q", TEXT, adapter=server.adapter(), log=log)

        asyncio.run(program())
        server.wait_until_hung_up(1, 2, 3)
    assert runs(log)[0].status == "cancelled"


def test_a_cancelled_run_leaves_no_process_behind(log: Path) -> None:
    before, meanwhile = children(), set[int]()
    with Stuck(ASK) as server:

        async def program() -> None:
            task = asyncio.create_task(arun("q", TEXT, adapter=server.adapter(), log=log))
            await server.asked(2, task)
            meanwhile.update(children() - before)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(program())
        assert meanwhile
        assert not meanwhile & children()


def test_ctrl_c_in_a_program_with_a_loop_of_its_own_stops_the_run_in_its_thread(log: Path) -> None:
    with Stuck(ASK) as server:

        class Interrupt:
            """Presses Ctrl-C once the batch has been asked."""

            def handle(self, appended: Any) -> None:
                if isinstance(appended.event, CodePaused):
                    main = threading.main_thread().ident
                    assert main is not None
                    signal.pthread_kill(main, signal.SIGINT)

        def blocking() -> None:
            """In the loop's own thread, as a notebook's cell is."""
            run("q", TEXT, adapter=server.adapter(), event_listener=Interrupt(), log=log)

        async def program() -> None:
            # Without asyncio's own handler, as under a notebook's loop.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            blocking()

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(program())
    assert runs(log)[0].status == "cancelled"
    assert "rlm-fsm-run" not in {thread.name for thread in threading.enumerate()}
