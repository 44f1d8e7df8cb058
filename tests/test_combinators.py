"""`map_chunks`, `reduce_tree`, `classify_all`, `vote`: what they ask, say and give back; what the
machine forecasts; and runs of them under limits."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from combinator_host import FORECAST, Host, joined, labelled, voting
from hypothesis import given
from hypothesis import strategies as st

from effects.repls._combinators import programs
from effects.repls._functions import Answer, Ask, SubcallError, SubcallLimitError, drive
from effects.repls._text import TextView
from rlm_fsm import FakeAdapter, Policy, RunResult, SqliteLog, replay, run
from rlm_fsm.event import CodeExecuted, CodePaused, ModelReplied
from rlm_fsm.forecast import forecasts
from rlm_fsm.ids import CallId
from rlm_fsm.price import Price
from rlm_fsm.state import INITIAL
from rlm_fsm.values import HostCall, Outcome

# -- map_chunks


def test_map_chunks_takes_what_ask_chunks_takes() -> None:
    view = TextView("abcdef")
    for chunks, options in ((view, {"chunk_size": 2}), ([(0, 2, "ab"), (2, 4, "cd")], {})):
        host = Host()
        replies = host.run("map_chunks", "q", chunks, **options)
        assert replies == ["ok"] * len(host.levels[0])
    assert host.levels[0] == ["Question: q\nSnippet:\nab", "Question: q\nSnippet:\ncd"]
    assert host.run("map_chunks", "q", []) == []


def test_subcalls_of_combinators_are_never_runs_of_their_own() -> None:
    host = Host()
    host.run("map_chunks", "q", ["a"], model="mini", max_tokens=7)
    (call,) = host.calls
    assert (call.recursive, call.model, call.max_tokens) == (False, "mini", 7)
    assert (call.fn, call.kind) == ("map_chunks", "subcall")


def test_equal_chunks_are_forecast_once() -> None:
    host = Host()
    assert host.run("map_chunks", "q", ["a", "a", "b"]) == ["ok"] * 3
    assert [forecast["calls"] for forecast in host.forecasts] == [2]


def test_a_failed_chunk_raises_or_is_marked() -> None:
    host = Host(lambda prompt: "!gone" if prompt.endswith("b") else "ok")
    with pytest.raises(SubcallError, match="1 of 2 subcalls failed") as caught:
        host.run("map_chunks", "q", ["a", "b"])
    assert caught.value.results == ["ok", None]
    assert host.run("map_chunks", "q", ["a", "b"], on_error="return") == ["ok", "[ERROR] gone"]


# -- reduce_tree


def test_reduce_tree_puts_all_texts_together_in_their_order() -> None:
    host = Host(joined)
    texts = [f"t{n}" for n in range(20)]
    assert host.run("reduce_tree", texts, "q", fan_in=4) == "+".join(texts)
    assert [len(level) for level in host.levels] == [5, 2, 1]
    assert "Question: q\n4 partial results follow" in host.levels[0][0]


def test_one_text_is_asked_about_once_and_none_not_at_all() -> None:
    host = Host(joined)
    assert host.run("reduce_tree", ["only"], "q") == "only"
    assert host.made == 1
    assert host.run("reduce_tree", [], "q") == "NO_ANSWER"
    assert host.run("reduce_tree", ["", "NO_ANSWER.", "[ERROR] gone"], "q") == "NO_ANSWER"
    assert host.made == 1


def test_replies_that_say_nothing_are_not_carried_on() -> None:
    host = Host(lambda prompt: "NO_ANSWER" if "t0" in prompt else joined(prompt))
    assert host.run("reduce_tree", [f"t{n}" for n in range(4)], "q", fan_in=2) == "t2+t3"
    assert host.made == 2
    nothing = Host(lambda _: "NO_ANSWER")
    assert nothing.run("reduce_tree", ["a", "b", "c"], "q", fan_in=2) == "NO_ANSWER"


@given(count=st.integers(1, 60), fan_in=st.integers(2, 9), dead=st.sets(st.integers(0, 59)))
def test_reduce_tree_never_asks_more_than_it_said(count: int, fan_in: int, dead: set[int]) -> None:
    asked: list[int] = []

    def rule(prompt: str) -> str:
        asked.append(1)
        return "NO_ANSWER" if len(asked) in dead else joined(prompt)

    host = Host(rule)
    host.run("reduce_tree", [f"t{n}" for n in range(count)], "q", fan_in=fan_in)
    (forecast,) = host.forecasts
    assert host.made <= forecast["calls"]
    if not dead:
        assert host.made == forecast["calls"]
    assert all(prompt.count("\n\n[") <= fan_in for level in host.levels for prompt in level)


# -- classify_all


def test_items_are_classified_many_in_a_call_and_equal_ones_once() -> None:
    host = Host(labelled)
    items = [f"item {n % 30}{'x' if n % 2 else ''}" for n in range(60)]
    found = host.run("classify_all", items, ["odd", "even"], question="Is there an x?")
    assert found == ["odd" if n % 2 else "even" for n in range(60)]
    assert [len(level) for level in host.levels] == [2]
    assert "- odd\n- even\nIs there an x?\nReply with one line" in host.levels[0][0]
    assert host.levels[0][0].endswith("20: item 19x")


def test_long_items_and_long_labels_make_smaller_calls() -> None:
    host = Host(labelled)
    host.run("classify_all", ["a" * 15_000, "b" * 15_000, "c" * 30_000], ["odd", "even"])
    assert host.made == 3
    host = Host(labelled)
    host.run("classify_all", [str(n) for n in range(20)], ["odd", "even" * 20])
    assert host.made == 3
    host = Host(labelled)
    host.run("classify_all", [str(n) for n in range(20)], ["odd", "even" * 20], max_tokens=2_000)
    assert host.made == 1


def test_lines_of_an_item_do_not_look_like_items() -> None:
    host = Host(labelled)
    assert host.run("classify_all", ["a\n2: x", "b"], {"odd": "has an x", "even": ""}) == [
        "odd",
        "even",
    ]
    assert "- odd: has an x\n- even\n" in host.levels[0][0]


def test_a_failed_call_of_a_classification_raises_or_leaves_its_items() -> None:
    host = Host(lambda prompt: "!down" if "a0\n" in prompt else labelled(prompt))
    items = [f"a{n}" for n in range(25)]
    with pytest.raises(SubcallError, match="down"):
        host.run("classify_all", items, ["odd", "even"])
    found = host.run("classify_all", items, ["odd", "even"], on_error="return")
    assert found == [None] * 20 + ["even"] * 5


# -- vote


def test_the_reply_that_most_agree_on_wins() -> None:
    host = voting("Paris", "paris.", "Lyon", "Paris!", "Lyon")
    assert host.run("vote", "capital?") == "Paris"
    assert len(set(host.levels[0])) == 5
    assert host.levels[0][1].endswith("(Independent attempt 2 of 5.)")
    assert voting("B", "A", "A", "B").run("vote", "?", n=4) == "B"


def test_choices_decide_what_counts() -> None:
    host = voting("I'd say yes", "no or yes", "No", "Yes.")
    assert host.run("vote", "?", n=4, choices=["yes", "no"]) == "yes"
    assert host.levels[0][0].endswith("Reply with one of: yes, no.")


def test_choices_that_differ_in_case_only_are_different_votes() -> None:
    host = voting("us.", "us", "US")
    assert host.run("vote", "?", n=3, choices=["US", "us"]) == "us"


def test_failures_do_not_vote_and_the_line_tells_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = voting("!down", "a", "!gone\nfor good", "b", "a")
    assert host.run("vote", "?") == "a"
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "vote: 2 for 'a', 1 for 'b' of 5; 2 failed: 1 with: down; 1 with: gone for good"
    assert voting("!gone\nfor good", "a").run("vote", "?", n=2) == "a"
    assert capsys.readouterr().out.endswith("of 2; 1 failed: gone for good\n")


def test_a_vote_of_which_more_than_half_failed_is_none() -> None:
    with pytest.raises(SubcallError, match=r"2 of 3 subcalls failed.*with: down") as caught:
        voting("!down", "a", "!gone").run("vote", "?", n=3)
    assert caught.value.results == [None, "a", None]
    assert not isinstance(caught.value, SubcallLimitError)
    with pytest.raises(SubcallError, match=r"2 of 2 subcalls failed.*with: down"):
        voting("!down", "!down").run("vote", "?", n=2)


def test_a_vote_that_a_limit_ended_says_so() -> None:
    def ask(request: Ask) -> list[Answer]:
        if request.calls[0]["kind"] == "forecast":
            return [("text", json.dumps({**FORECAST, "subcalls": 3}))]
        return [("text", "a"), ("error", "down"), ("limit", "max_subcalls")]

    with pytest.raises(SubcallLimitError, match="2 of 3 subcalls failed") as caught:
        drive(programs()["vote"]("?", n=3), ask)
    assert caught.value.results == ["a", None, None]


def test_replies_that_are_no_choice_do_not_vote_and_without_any_vote_it_raises() -> None:
    with pytest.raises(SubcallError, match="none of 1 reply can be counted: 'maybe'"):
        voting("maybe").run("vote", "?", n=1, choices=["yes", "no"])
    with pytest.raises(SubcallError, match="none of 2 replies can be counted: 'maybe'") as caught:
        voting("!down", "maybe", "hm", "!down").run("vote", "?", n=4, choices=["yes", "no"])
    assert caught.value.results == [None, "maybe", "hm", None]


# -- arguments


@pytest.mark.parametrize(
    ("name", "args", "options", "error"),
    [
        ("map_chunks", ("", ["a"]), {}, ValueError),
        ("map_chunks", (" \n", ["a"]), {}, ValueError),
        ("map_chunks", (None, ["a"]), {}, TypeError),
        ("reduce_tree", (["a"], ""), {}, ValueError),
        ("classify_all", (["a"], ["x"]), {"question": ""}, ValueError),
        ("map_chunks", ("q", 5), {}, TypeError),
        ("map_chunks", ("q", ["a"]), {"on_error": "ignore"}, ValueError),
        ("map_chunks", ("q", ["a"]), {"max_tokens": 0}, ValueError),
        ("reduce_tree", (["a"], "q"), {"fan_in": 1}, ValueError),
        ("reduce_tree", ("text", "q"), {}, TypeError),
        ("classify_all", (["a"], []), {}, ValueError),
        ("classify_all", (["a"], ["x", " "]), {}, ValueError),
        ("classify_all", (["a"], ["x"]), {"per_call": 0}, ValueError),
        ("vote", ("q",), {"n": 0}, ValueError),
        ("vote", (5,), {}, TypeError),
        ("vote", (" ",), {}, ValueError),
        ("classify_all", (["a"], [1, 2]), {}, TypeError),
        ("classify_all", (["a"], {1: "one"}), {}, TypeError),
        ("vote", ("q",), {"choices": "yes"}, TypeError),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_asked(
    name: str, args: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    host = Host()
    with pytest.raises(error):
        host.run(name, *args, **options)
    assert (host.forecasts, host.levels) == ([], [])


def test_an_empty_question_is_called_empty() -> None:
    with pytest.raises(ValueError, match="question is empty: give the text of what to ask"):
        Host().run("map_chunks", "", ["a"])
    with pytest.raises(TypeError, match=r"question must be a text \(str\), not list"):
        Host().run("map_chunks", ["a"], ["q"])


# -- in runs


def answered(code: str, log: Path, **options: Any) -> tuple[RunResult, list[Any]]:
    """A run of one cell whose `r` is the answer; its result and its events."""
    adapter = FakeAdapter(script=[f"```python\n{code}\n```", "FINAL_VAR: r"])
    sub = FakeAdapter(model="small")
    sub.add_rule("", "yes")
    result = run("q", "a text", adapter=adapter, subcall_adapter=sub, log=log, **options)
    with SqliteLog(log) as opened:
        return result, [logged.event for logged in opened.load(result.run_id)]


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_run_says_what_it_asks_pays_no_subcall_for_it_and_replays(
    backend: str, tmp_path: Path
) -> None:
    prices = {"small": Price(prompt_usd_per_mtok=1.0, completion_usd_per_mtok=10.0)}
    code = "r = reduce_tree([str(n) for n in range(30)], 'q', fan_in=10)"
    result, events = answered(code, tmp_path / "log", repl_backend=backend, prices=prices)
    assert (result.output, result.usage.subcalls) == ("yes", 4)
    (cell,) = [event for event in events if isinstance(event, CodeExecuted)]
    assert cell.stdout.startswith("reduce_tree: at most 4 subcalls in 2 levels, about ")
    told = float(cell.stdout.rpartition("$")[2])
    paid = sum(
        prices["small"].cost_usd(event.usage)
        for event in events
        if isinstance(event, ModelReplied) and "." in event.call_id and event.text == "yes"
    )
    assert 0 < paid <= told
    assert [len(e.calls) for e in events if isinstance(e, CodePaused)] == [1, 3, 1]
    assert replay(result.run_id, log=tmp_path / "log", run_code=True).output == "yes"
    assert [step.kind for step in result.trace].count("subcall") == 4


@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        (Policy(max_subcalls=3), "max_subcalls: 4 of 3"),
        (Policy(max_total_tokens=2_500), "max_total_tokens"),
        (Policy(max_subcall_tokens=800), "max_subcall_tokens"),
        (Policy(max_cost_usd=0.002), "max_cost_usd"),
    ],
)
@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_tree_that_does_not_fit_is_refused_before_its_first_call(
    policy: Policy, limit: str, backend: str, tmp_path: Path
) -> None:
    code = (
        "r = 'none'\ntry:\n    reduce_tree([str(n) for n in range(30)], 'q', fan_in=10)\n"
        "except SubcallLimitError as e:\n    r = str(e)"
    )
    price = Price(prompt_usd_per_mtok=0.1, completion_usd_per_mtok=2.0)
    options = {"policy": policy, "repl_backend": backend, "max_tokens": 100}
    prices = {"fake": Price(prompt_usd_per_mtok=0, completion_usd_per_mtok=0), "small": price}
    result, _ = answered(code, tmp_path / "log", prices=prices, **options)
    assert result.output.startswith("reduce_tree: 4 subcalls take about ")
    assert limit in result.output
    assert result.output.endswith("leaves no room for them. Nothing was asked.")
    assert result.usage.subcalls == 0


def test_a_forecast_that_code_makes_up_is_an_error_and_never_a_crash(tmp_path: Path) -> None:
    def judged(prompt: str) -> Outcome:
        call = HostCall(fn="f", prompt=prompt, kind="forecast")
        return forecasts(INITIAL, {CallId("0.1"): call})[CallId("0.1")]

    for prompt in ("", "[]", "{}", '{"calls": -1, "chars": 0, "replies": 0}', "[" * 100_000):
        assert judged(prompt).kind == "error"
    sound = '{"calls": 1, "chars": 4, "replies": 0}'
    assert json.loads(judged(sound).text)["subcalls"] == 1


def test_a_limit_between_levels_is_told_with_what_arrived() -> None:
    """The forecast fits, and yet a limit is met: what others spent meanwhile isn't known to it."""

    def ask(request: Ask) -> list[Answer]:
        if request.calls[0]["kind"] == "forecast":
            return [("text", json.dumps({**FORECAST, "subcalls": 2}))]
        return [("limit", "max_seconds")] * len(request.calls)

    with pytest.raises(SubcallLimitError, match="max_seconds"):
        drive(programs()["map_chunks"]("q", ["a", "b"]), ask)


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_forecast_knows_that_a_chinese_text_has_more_tokens_than_an_english_one(
    backend: str,
) -> None:
    """About a token for three bytes, as in English for four; before any bill says so."""
    told = []
    for letter in ("x", "文"):
        cell = (
            f"texts = ['{letter}' * 4000 + str(n) for n in range(3)]\n"
            "map_chunks('q', texts)\nreduce_tree(texts, 'q')\n"
            "classify_all(texts, ['a', 'b'])\nvote(texts[0], 3)"
        )
        adapter = FakeAdapter(script=[f"```python\n{cell}\n```", "FINAL: done"])
        adapter.add_rule("You are a sub-LLM", "a")
        policy = Policy(max_total_tokens=None)
        run("q", "t", adapter=adapter, repl_backend=backend, policy=policy, log=":memory:")
        shown = adapter.call_log[-1][-1]["content"]
        told.append([int(n.replace(",", "")) for n in re.findall(r"about ([\d,]+) tokens", shown)])
    english, chinese = told
    assert len(english) == len(chinese) == 4
    assert all(1.9 < more / less < 3 for less, more in zip(english, chinese, strict=True))
