"""Tools in whole runs: real sessions, real functions, a scripted model."""

import asyncio
import json
import re
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from machine import code

from effects.log.sqlite import SqliteLog
from effects.tools import Tool
from effects.tools.named import own_names, tools_of
from effects.view.plain import PlainView
from rlm_fsm import RLM, FakeAdapter, Policy, UsageError, fold, fork, replay, resume, run, tool
from rlm_fsm.event import EffectStarted, ToolFailed, ToolReturned

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])


def weather(city: str, days: int = 3) -> dict[str, Any]:
    """The weather of a city."""
    if city == "Atlantis":
        raise KeyError(f"there is no {city}")
    return {"city": city, "days": days}


def model(*cells: str) -> FakeAdapter:
    """A model that runs these cells and then answers."""
    return FakeAdapter(script=[*map(code, cells), "FINAL: done"])


def printed(cell: str, *tools: Any, **options: Any) -> str:
    """What a cell printed that calls tools."""
    result = run("q", "text", adapter=model(cell), log=":memory:", tools=tools, **options)
    assert result.status == "finished", result
    (step,) = (step for step in result.trace if step.kind == "repl_exec")
    assert step.error is None, step.error
    return step.stdout or ""


def events(log: Path, run_id: str) -> list[Any]:
    with SqliteLog(str(log)) as opened:
        return [logged.event for logged in opened.load(run_id)]


# -- calls ----------------------------------------------------------------------------------------


@BACKENDS
def test_code_calls_a_function_of_the_program(backend: str):
    cell = "print(weather('Rome', days=2)['days'] + 1)"
    assert printed(cell, weather, repl_backend=backend) == "3\n"


@BACKENDS
def test_what_a_function_raises_is_an_error_that_names_it(backend: str):
    cell = "try:\n    weather('Atlantis')\nexcept ToolError as e:\n    print(e)"
    assert printed(cell, weather, repl_backend=backend) == (
        "weather failed: KeyError: 'there is no Atlantis'\n"
    )


def test_the_model_is_told_names_signatures_and_docstrings():
    adapter = model("pass")
    run("q", "text", adapter=adapter, log=":memory:", tools=[weather])
    system = adapter.call_log[0][0]["content"]
    assert "- weather(city: str, days: int = 3) -> dict[str, typing.Any]" in system
    assert "    The weather of a city." in system


def test_async_functions_run_side_by_side_on_the_loop_of_the_run():
    seen: list[threading.Thread] = []
    both = asyncio.Event()

    async def meet(name: str) -> str:
        seen.append(threading.current_thread())
        if len(seen) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 10)
        return name

    cell = "import asyncio\nprint(await asyncio.gather(meet('a'), meet('b')))"
    assert printed(cell, meet) == "['a', 'b']\n"
    assert seen == [threading.main_thread()] * 2


def test_plain_functions_run_side_by_side_in_threads():
    barrier = threading.Barrier(2, timeout=10)

    def meet(name: str) -> str:
        barrier.wait()
        assert threading.current_thread() is not threading.main_thread()
        return name

    cell = "import asyncio\nprint(await asyncio.gather(meet('a'), meet('b')))"
    assert printed(cell, meet) == "['a', 'b']\n"


def test_only_so_many_calls_run_at_once():
    running, most = 0, 0

    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    cell = "import asyncio\nawait asyncio.gather(*[count() for _ in range(9)])\nprint('ok')"
    assert printed(cell, count, max_concurrent_tools=3) == "ok\n"
    assert most == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_takes_too_long_fails_and_the_run_goes_on(is_async: bool):
    async def slow() -> None:
        await asyncio.sleep(60)

    release = threading.Event()
    fn = slow if is_async else lambda: release.wait(60)
    cell = "try:\n    slow()\nexcept ToolError as e:\n    print(e)"
    began = time.monotonic()
    out = printed(cell, tool(fn, name="slow", timeout_s=0.05))
    assert out == "slow failed: there was no answer within 0.05 seconds\n"
    assert time.monotonic() - began < 30
    release.set()


def test_a_timeout_that_a_function_raises_itself_is_its_own():
    def call() -> None:
        raise TimeoutError("the service is slow")

    cell = "try:\n    call()\nexcept ToolError as e:\n    print(e)"
    assert (
        printed(cell, tool(call, timeout_s=30))
        == "call failed: TimeoutError: the service is slow\n"
    )


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(1)])
def test_whatever_a_function_raises_does_not_end_the_run(error: BaseException):
    def leave() -> None:
        raise error

    cell = "try:\n    leave()\nexcept ToolError as e:\n    print(e)"
    assert type(error).__name__ in printed(cell, leave)


def test_an_async_function_that_cancels_itself_fails_alone():
    async def give_up() -> None:
        raise asyncio.CancelledError("no more")

    cell = "try:\n    give_up()\nexcept ToolError as e:\n    print(e)"
    assert "CancelledError: no more" in printed(cell, give_up)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1}, "the result is of type set"),
        ({"a": [object()]}, "the result['a'][0] is of type object"),
        ({1: 2}, "the result has a key of type int"),
        (float("inf"), "the result is inf"),
        ("x" * 3_000, "the result has 3,002 characters as JSON, more than the 2,000 allowed"),
    ],
    ids=["set", "object", "key", "inf", "long"],
)
def test_a_result_that_cannot_be_handed_over_is_an_error_that_says_why(value: Any, message: str):
    cell = "try:\n    get()\nexcept ToolError as e:\n    print(e)"
    out = printed(cell, tool(lambda: value, name="get", max_chars=2_000))
    assert message in out


def test_a_result_that_holds_itself_is_an_error():
    ring: list[Any] = []
    ring.append(ring)
    cell = "try:\n    get()\nexcept ToolError as e:\n    print(e)"
    assert "holds itself" in printed(cell, tool(lambda: ring, name="get"))


def test_tools_are_offered_in_sub_runs_too():
    adapter = FakeAdapter(
        script=[
            code("print(rlm_query('dig'))"),
            code("print(weather('Rome'))"),
            "FINAL: Rome it is",
            "FINAL: done",
        ]
    )
    result = run(
        "q",
        "text",
        adapter=adapter,
        log=":memory:",
        tools=[weather],
        recursive_subcalls=True,
    )
    (step,) = (step for step in result.trace if step.kind == "tool")
    assert (step.frame, step.depth) == ("0.1", 2)
    assert result.usage.tool_calls == 1


def test_a_cancelled_run_waits_for_no_tool():
    begun = threading.Event()
    release = threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(60)

    async def main() -> None:
        rlm = RLM(model("hang()"), log=":memory:", tools=[hang])
        task = asyncio.create_task(rlm.arun("q", "text"))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 30
    release.set()


@pytest.mark.parametrize("is_async", [False, True])
def test_the_end_of_a_runs_time_ends_it_while_a_tool_hangs(is_async: bool):
    release = threading.Event()

    async def hang() -> None:
        await asyncio.sleep(60)

    fn = hang if is_async else lambda: release.wait(60)
    began = time.monotonic()
    result = run(
        "q",
        "text",
        adapter=model("hang()"),
        log=":memory:",
        tools=[tool(fn, name="hang")],
        policy=Policy(max_seconds=1.0),
    )
    assert (result.status, result.limit) == ("partial", "max_seconds")
    assert time.monotonic() - began < 30
    release.set()


# -- the log --------------------------------------------------------------------------------------


@BACKENDS
def test_a_replay_calls_no_function(backend: str, tmp_path: Path):
    log = tmp_path / "log.db"
    calls: list[str] = []

    def note(text: str) -> int:
        calls.append(text)
        return len(calls)

    cell = "print(note('a'), note('b'))"
    first = run("q", "text", adapter=model(cell), log=log, tools=[note], repl_backend=backend)
    again = replay(first.run_id, log=log, run_code=True)
    assert (again.status, again.output) == ("finished", "done")
    assert again.trace == first.trace
    assert calls == ["a", "b"]


def test_calls_and_results_are_events_with_an_intent_each(tmp_path: Path):
    log = tmp_path / "log.db"
    cell = "weather('Rome')\ntry:\n    weather('Atlantis')\nexcept ToolError:\n    pass"
    result = run("q", "text", adapter=model(cell), log=log, tools=[weather])
    found = events(log, result.run_id)
    intents = [e for e in found if isinstance(e, EffectStarted) and e.effect == "CallTool"]
    assert [e.call_id for e in intents] == ["0.1", "0.2"]
    (returned,) = (e for e in found if isinstance(e, ToolReturned))
    assert json.loads(returned.value) == {"city": "Rome", "days": 3}
    (broken,) = (e for e in found if isinstance(e, ToolFailed))
    assert (broken.error, broken.message) == ("raised", "KeyError: 'there is no Atlantis'")
    steps = [step for step in result.trace if step.kind == "tool"]
    assert steps[0].prompt_summary == 'weather({"city": "Rome"})'
    assert steps[1].error == "KeyError: 'there is no Atlantis'"


def cut_short(log: Path, tools: list[Any]) -> str:
    """A run whose second model call failed."""
    adapter = FakeAdapter(script=[code("print(weather('Rome'))")])
    with pytest.raises(Exception, match="can be resumed") as failure:
        run("q", "text", adapter=adapter, log=log, tools=tools)
    return failure.value.run_id


def test_going_on_needs_the_functions_again(tmp_path: Path):
    log = tmp_path / "log.db"
    run_id = cut_short(log, [weather])
    adapter = model()
    with pytest.raises(UsageError, match=r"the tool weather, which the log can't hold.*tools="):
        resume(run_id, log=log, adapter=adapter)
    with pytest.raises(UsageError, match="the tool weather"):
        fork(run_id, at=4, log=log, adapter=adapter)
    assert adapter.call_log == []
    result = resume(run_id, log=log, adapter=adapter, tools=[weather, tool(print, name="other")])
    assert result.status == "finished"
    with SqliteLog(str(log)) as opened:
        state = fold(logged.event for logged in opened.load(run_id))
    assert [spec.name for spec in state.options.tools] == ["weather"]


def test_going_on_refuses_a_function_with_other_parameters(tmp_path: Path):
    log = tmp_path / "log.db"
    run_id = cut_short(log, [weather])

    def other(town: str) -> str:
        return town

    with pytest.raises(UsageError, match=r"weather takes \(town: str\) -> str, and run .* \(city"):
        resume(run_id, log=log, adapter=model(), tools=[tool(other, name="weather")])


def test_going_on_takes_what_else_has_changed_of_a_tool(tmp_path: Path):
    log = tmp_path / "log.db"
    run_id = cut_short(log, [weather])
    changed = tool(weather, needs_approval=True, description="Better words.")
    assert resume(run_id, log=log, adapter=model(), tools=[changed]).status == "finished"
    with SqliteLog(str(log)) as opened:
        (spec,) = fold(logged.event for logged in opened.load(run_id)).options.tools
    assert (spec.needs_approval, spec.doc) == (True, "Better words.")


def test_a_fork_calls_tools_of_its_own(tmp_path: Path):
    log = tmp_path / "log.db"
    first = run("q", "text", adapter=model("print(weather('Rome'))"), log=log, tools=[weather])
    other = fork(first.run_id, at=2, log=log, adapter=model("weather('Oslo')"), tools=[weather])
    (step,) = (step for step in other.trace if step.kind == "tool")
    assert step.prompt_summary == 'weather({"city": "Oslo"})'


# -- what can be a tool ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("llm_query", "the runtime's own"),
        ("ctx", "the runtime's own"),
        ("ToolError", "the runtime's own"),
        ("map_chunks", "the runtime's own"),
        ("print", "Python's own"),
        ("class", "no name that code can use"),
        ("two words", "no name that code can use"),
        ("<lambda>", "no name that code can use"),
        ("_hidden", "begins with an underscore"),
    ],
)
def test_a_name_that_code_could_not_use_is_refused(name: str, why: str):
    with pytest.raises(UsageError, match=why):
        RLM(model(), log=":memory:", tools=[tool(weather, name=name)])


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ([weather, weather], "two tools are named weather"),
        (weather, "give a list of functions"),
        ("weather", "give a list of functions"),
        ({"weather": weather}, "give a list of functions"),
        ([3], "is no tool"),
        ([lambda: 1], "<lambda>"),
        ([max], "its parameters aren't known"),
    ],
)
def test_what_is_no_tool_is_refused_before_anything_starts(tools: Any, why: str):
    with pytest.raises(UsageError, match=why):
        RLM(model(), log=":memory:", tools=tools)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"timeout_s": 0}, "give seconds above 0, or None"),
        ({"timeout_s": "5"}, "give seconds above 0, or None"),
        ({"timeout_s": True}, "give seconds above 0, or None"),
        ({"timeout_s": float("nan")}, "give seconds above 0, or None"),
        ({"max_chars": 1}, "give a whole number, 2 or more"),
        ({"max_chars": 2.5}, "give a whole number, 2 or more"),
        ({"max_chars": None}, "give a whole number, 2 or more"),
        ({"idempotent": "yes"}, "give True, False or None"),
        ({"idempotent": 1}, "give True, False or None"),
        ({"needs_approval": "no"}, "give True or False"),
        ({"needs_approval": None}, "give True or False"),
        ({"name": 5}, "give a text, or None"),
        ({"description": 5}, "give a text, or None"),
    ],
)
def test_a_bad_option_of_a_tool_is_refused(options: dict[str, Any], wanted: str):
    ((name, value),) = options.items()
    told = re.escape(f"{name}={value!r}: {wanted}")
    with pytest.raises(UsageError, match=told):
        tool(weather, **options)
    with pytest.raises(UsageError, match=told):
        tool(**options)


@BACKENDS
def test_every_name_of_a_session_is_refused_for_tools(backend: str):
    names = printed("for name in list(globals()):\n    print(name)", repl_backend=backend).split()
    public = {name for name in names if not name.startswith("_")} - {"name"}
    assert {"ctx", "llm_query", "ToolDenied", "vote"} <= public
    assert public <= own_names()


def test_a_decorated_function_is_a_tool_and_still_a_function():
    @tool(timeout_s=5, idempotent=True)
    def double(n: int) -> int:
        """Twice as much."""
        return 2 * n

    assert isinstance(double, Tool)
    assert double(4) == 8
    assert (double.spec.name, double.spec.doc, double.spec.idempotent) == (
        "double",
        "Twice as much.",
        True,
    )


def test_methods_partials_and_objects_can_be_tools():
    class Shop:
        def __init__(self, price: int) -> None:
            self.price = price

        def cost(self, count: int) -> int:
            """What it costs."""
            return self.price * count

        async def __call__(self, count: int) -> int:
            return -self.price * count

    shop = Shop(3)
    tools = [
        shop.cost,
        tool(partial(weather, days=1), name="tomorrow"),
        tool(shop, name="refund"),
    ]
    assert tools_of(tools)["cost"].spec.signature == "(count: int) -> int"
    cell = "print(cost(2), tomorrow('Rome')['days'], refund(1))"
    assert printed(cell, *tools) == "6 1 -3\n"


# -- functions by name ----------------------------------------------------------------------------


def test_extensions_and_document_tools_are_called_by_their_names():
    seen: dict[str, Any] = {}

    def extend(**parts: Any) -> dict[str, Any]:
        seen.update(parts)
        return {"shout": lambda text: text.upper()}

    cell = "print(shout('a'), search_in_pdf('b', page=2))"
    out = printed(
        cell,
        repl_extensions=extend,
        doc_tools={"search_in_pdf": lambda words, page=1: f"{words} on {page}"},
    )
    assert out == "A b on 2\n"
    assert seen.keys() == {"rlm", "repl", "retriever", "log_diag"}
    assert isinstance(seen["rlm"], RLM)


def test_extensions_may_look_at_the_whole_rlm():
    seen: list[Any] = []
    adapter, cheap = model(), FakeAdapter()

    def extend(*, rlm: RLM, **_: Any) -> dict[str, Any]:
        seen.extend([rlm.adapter, rlm.subcall_adapter, rlm.options.max_tokens, rlm.parts.log])
        return {"room": lambda: rlm.options.max_tokens}

    rlm = RLM(
        adapter,
        subcall_adapter=cheap,
        max_tokens=77,
        log=":memory:",
        tools=[weather],
        repl_extensions=extend,
    )
    assert seen == [adapter, cheap, 77, ":memory:"]
    assert [tool.name for tool in rlm.options.tools] == ["weather", "room"]
    assert printed("print(room())", repl_extensions=extend, max_tokens=99) == "99\n"


def test_an_rlm_without_a_subcall_adapter_asks_its_only_one():
    adapter = model()
    rlm = RLM(adapter, log=":memory:")
    assert (rlm.adapter, rlm.subcall_adapter) == (adapter, adapter)


def test_extensions_note_what_they_like_and_may_add_nothing(caplog: pytest.LogCaptureFixture):
    def extend(*, log_diag: Any, **_: Any) -> None:
        log_diag("only words: 100%")
        log_diag("search", {"found": 3})
        log_diag("sizes", [1, 2], "more")

    with caplog.at_level("DEBUG", logger="rlm_fsm"):
        rlm = RLM(model(), log=":memory:", repl_extensions=extend)
    assert rlm.options.tools == ()
    assert [record.getMessage() for record in caplog.records] == [
        "only words: 100%",
        "search {'found': 3}",
        "sizes [1, 2] more",
    ]


def test_extensions_of_a_run_that_goes_on_have_the_rlm_that_goes_on_with_it(tmp_path: Path):
    seen: list[Any] = []

    def extend(*, rlm: RLM | None, **_: Any) -> dict[str, Any]:
        seen.append(rlm)
        return {"shout": lambda text: text.upper()}

    log, few = tmp_path / "log.sqlite", Policy(max_steps=1)
    options: dict[str, Any] = {"log": log, "repl_extensions": extend}
    run_id = RLM(FakeAdapter(["x = 1"]), policy=few, **options).run("q", "text").run_id
    more = Policy(max_steps=9)
    rlm = RLM(FakeAdapter(["FINAL_VAR: x"]), **options)
    assert rlm.resume(run_id, policy=more).output == "1"
    fork(run_id, at=1, adapter=FakeAdapter(["FINAL: 2"]), policy=more, **options)
    assert seen[1:] == [rlm, None]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"repl_extensions": 3}, "give a function"),
        ({"repl_extensions": lambda **_: [weather]}, "functions by name"),
        ({"doc_tools": {"limit": 20}}, "'limit' is int, no function"),
        ({"doc_tools": {"print": weather}}, "Python's own"),
        ({"doc_tools": {"weather": weather}, "tools": [weather]}, "two tools"),
    ],
)
def test_extensions_that_cannot_be_called_are_refused(options: dict[str, Any], why: str):
    with pytest.raises(UsageError, match=why):
        RLM(model(), log=":memory:", **options)


# -- views ----------------------------------------------------------------------------------------


def test_the_views_tell_of_calls_of_tools_and_of_approvals():
    lines: list[str] = []
    cell = (
        "import asyncio\n"
        "await asyncio.gather(weather('Rome'), llm_query('q'))\n"
        "try:\n    weather('Atlantis')\nexcept ToolError:\n    pass\n"
        "send('Ann')"
    )
    adapter = model(cell)
    adapter.add_rule("You are a sub-LLM", "A")
    run(
        "q",
        "text",
        adapter=adapter,
        log=":memory:",
        tools=[weather, tool(lambda to: to, name="send", needs_approval=True)],
        on_approval=lambda _: True,
        event_listener=PlainView(lines.append),
    )
    text = "\n".join(lines)
    assert "weather, llm_query: 2 calls\n" in text
    assert "\nweather: 1 tool call\n1 tool call answered in" in text
    assert ", 1 failed\n" in text
    assert '\napproval: send({"to": "Ann"}) waits\napproval: approved by on_approval\n' in text
    assert "3 tool calls" in lines[-1]
