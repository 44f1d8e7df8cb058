"""How much functions may ask for: counted, forecast and refused before any prompt is made."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effects.repls import _combinators, _functions, _functions_json
from effects.repls._functions import Answer, Ask, Program, SubcallLimitError, drive
from effects.repls._text import TextView
from rlm_fsm import FakeAdapter, Policy, run
from rlm_fsm.forecast import forecasts
from rlm_fsm.ids import CallId
from rlm_fsm.state import INITIAL
from rlm_fsm.values import HostCall

PROGRAMS: dict[str, Callable[..., Program]] = {
    **_functions.programs(TextView(""), parallel_subcalls=True),
    **_functions_json.programs(),
    **_combinators.programs(),
}
BILLION = 10**9


class Host:
    """Answers forecasts as told, and every prompt alike; counts."""

    def __init__(self, forecast: str = "text", reply: str = "1: a") -> None:
        self.forecast = forecast
        self.reply = reply
        self.requests: list[dict[str, int]] = []
        self.prompts: list[str] = []

    def __call__(self, ask: Ask) -> list[Answer]:
        if ask.calls[0]["kind"] == "forecast":
            self.requests.append(json.loads(ask.calls[0]["prompt"]))
            return [(self.forecast, json.dumps({"tokens": 1, "cost_usd": None}))]
        self.prompts += dict.fromkeys(call["prompt"] for call in ask.calls)
        return [("text", f"{self.reply}{len(self.prompts)}{i}") for i in range(len(ask.calls))]

    def run(self, name: str, *args: Any, **options: Any) -> Any:
        return drive(PROGRAMS[name](*args, **options), self)


TOO_MUCH: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("vote", ("x", BILLION), {}),
    ("vote", ("x", 10**5_000), {}),
    ("vote", ("x" * 10**6, 50_000), {}),
    ("map_chunks", ("q" * 10**5, "ab" * 30_000), {"chunk_size": 1, "overlap": 0}),
    ("reduce_tree", (["x" * 10**6] * 2_000, "q"), {}),
    ("reduce_tree", (["a", "b"] * 60_000, "q" * 10**5), {"fan_in": 2}),
    ("classify_all", ([str(n) for n in range(20_000)], ["l" * 20_000, "a"]), {}),
    ("ask_chunks", ("q", "ab" * 10**6), {"chunk_size": 1}),
    ("ask_chunks", ("q", "ab" * 10**6), {"chunk_size": 10_000, "overlap": 9_950}),
    ("ask_chunks", ("q", "ab" * 10**6), {"overlap": 49_999}),
    ("ask_chunks", ("q" * 10**5, ["a"] * 10**4), {}),
    ("ask_chunks_first", ("q", "ab" * 10**6), {"chunk_size": 1}),
    ("llm_query_batch", (["a"] * 10**4,), {"question": "q" * 10**5}),
    ("llm_batch", (["a"] * 100_001,), {}),
    ("llm_batch_json", (["a" * 10**6] * 300,), {}),
]


@pytest.mark.parametrize(("name", "args", "options"), TOO_MUCH)
def test_what_would_fill_the_hosts_memory_is_refused_before_it_is_made(
    name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    host = Host()
    with pytest.raises(ValueError, match=r"are more than the .* that may be asked at once"):
        host.run(name, *args, **options)
    assert host.prompts == []


@pytest.mark.parametrize(
    ("name", "args", "options"), [case for case in TOO_MUCH if case[0] in _combinators.programs()]
)
def test_what_does_not_fit_is_a_limit_before_it_is_made(
    name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(SubcallLimitError, match="Nothing was asked"):
        Host("limit").run(name, *args, **options)


@given(
    texts=st.lists(st.text("ab é", min_size=0, max_size=12), max_size=40),
    fan_in=st.integers(2, 5),
    question=st.text("q?", min_size=1),
)
def test_what_is_forecast_is_what_is_asked(texts: list[str], fan_in: int, question: str) -> None:
    for name, args, options in (
        ("map_chunks", (question, texts), {}),
        ("map_chunks", (question, "".join(texts)), {"chunk_size": 4, "overlap": 1}),
        ("classify_all", (texts, ["a", "b"]), {"per_call": fan_in, "on_error": "return"}),
        ("vote", (question, 3 * len(texts) + 1, ["1: a", "b"]), {}),
        ("reduce_tree", (texts, question, fan_in), {}),
    ):
        host = Host()
        host.reply = "" if name in ("reduce_tree", "map_chunks") else "1: a "
        host.run(name, *args, **options)
        calls, chars = len(host.prompts), sum(map(len, host.prompts))
        replies = chars - sum(request["chars"] for request in host.requests)
        assert calls == sum(request["calls"] for request in host.requests)
        held = sum(request["replies"] for request in host.requests)
        assert (replies >= held) if held else replies == 0


def test_a_text_that_is_passed_on_alone_counts_by_its_length_and_the_question_each_time() -> None:
    host = Host(reply="r")
    host.run("reduce_tree", [f"{n}" * 100_000 for n in range(3)], "q" * 1_000, fan_in=2)
    (request,) = host.requests
    assert (request["calls"], request["replies"]) == (2, 1)
    assert 302_000 < request["chars"] < 303_000


# -- what is said of failures


def failing(*places: int, reply: str = "fine") -> Callable[[Ask], list[Answer]]:
    """Answers forecasts, and prompts in their order; those at these places fail."""
    asked: list[int] = []

    def ask(request: Ask) -> list[Answer]:
        if request.calls[0]["kind"] == "forecast":
            return [("text", json.dumps({"tokens": 1, "cost_usd": None}))]
        found: list[Answer] = []
        for _ in request.calls:
            asked.append(1)
            is_down = len(asked) in places
            found.append(("error", f"down {len(asked)}") if is_down else ("text", reply))
        return found

    return ask


@pytest.mark.parametrize(
    ("host", "texts", "result", "told"),
    [
        (
            failing(1, 2),
            "abcd",
            "[ERROR] down 1",
            "2 of 2 subcalls failed: 1 with: down 1; 1 with: down 2",
        ),
        (failing(1), "abcd", "fine", "1 of 2 subcalls failed: down 1"),
        (failing(3), "abcd", "[ERROR] down 3", "1 of 3 subcalls failed: down 3"),
        (failing(1), "ab", "[ERROR] down 1", "1 of 1 subcall failed: down 1"),
        (failing(1, reply="NO_ANSWER"), "abcd", "NO_ANSWER", "1 of 2 subcalls failed: down 1"),
        (failing(reply="NO_ANSWER"), "abcd", "NO_ANSWER", "about 1 token"),
        (failing(), ["[ERROR] gone", " ", "[ERROR] down"], "[ERROR] gone", None),
        (failing(), ["[ERROR] gone", "no_answer."], "NO_ANSWER", None),
    ],
)
def test_a_tree_of_failures_is_a_failure_and_is_told(
    host: Callable[[Ask], list[Answer]],
    texts: str | list[str],
    result: str,
    told: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = PROGRAMS["reduce_tree"](list(texts), "q", 2, on_error="return")
    assert drive(tree, host) == result
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(told) if told else lines == []


def test_items_whose_call_failed_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"per_call": 1, "on_error": "return"}
    program = PROGRAMS["classify_all"](["a", "b", "c"], ["fine", "bad"], **options)
    assert drive(program, failing(2, 3)) == ["fine", None, None]
    assert capsys.readouterr().out.splitlines()[1:] == [
        "classify_all: 2 of 3 subcalls failed: 1 with: down 2; 1 with: down 3",
        "classify_all: 2 of 3 items got no label (None)",
    ]


# -- what is asked at the same time


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_functions_that_are_awaited_together_fit_together_or_the_later_is_refused(
    backend: str, tmp_path: Path
) -> None:
    code = (
        "import asyncio\n"
        "async def f(k, n):\n"
        "    try:\n"
        "        return len(await map_chunks('q', [k + str(i) for i in range(n)]))\n"
        "    except SubcallLimitError as e:\n"
        "        return str(e)\n"
        "r = str(await asyncio.gather(f('a', 6), f('b', 5), f('c', 4)))"
    )
    adapter = FakeAdapter(script=[f"```python\n{code}\n```", "FINAL_VAR: r"])
    sub = FakeAdapter(model="small")
    sub.add_rule("", "yes")
    result = run(
        "q",
        "a text",
        adapter=adapter,
        subcall_adapter=sub,
        log=tmp_path / "log",
        repl_backend=backend,
        policy=Policy(max_subcalls=10),
    )
    assert result.output.startswith("[6, 'map_chunks: 5 subcalls take about ")
    assert "6 others about to be asked, and the limit max_subcalls: 11 of 10" in result.output
    assert result.output.endswith(" Nothing was asked.', 4]")
    assert result.usage.subcalls == 10


def test_forecasts_of_one_pause_are_judged_beside_those_that_fit() -> None:
    def asks(calls: int, chars: int) -> HostCall:
        request = {"calls": calls, "chars": chars, "replies": 0}
        return HostCall(fn="f", prompt=json.dumps(request), kind="forecast", max_tokens=10)

    options = replace(INITIAL.options, policy=Policy(max_total_tokens=30_000))
    state = replace(INITIAL, options=options)
    sizes = {"a": 40_000, "b": 90_000, "c": 1_000, "made up": -1, "d": 80_000}
    found = forecasts(state, {CallId(name): asks(1, size) for name, size in sizes.items()})
    assert [found[CallId(name)].kind for name in sizes] == [
        "text",
        "limit",
        "text",
        "error",
        "limit",
    ]
    assert forecasts(state, {CallId("d"): asks(1, 80_000)})[CallId("d")].kind == "text"
