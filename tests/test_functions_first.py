"""The first good answer: `ask_chunks_first` and `pick_first_answer`."""

from typing import Any

import pytest
from test_functions import Host, about, failing

from effects.repls._functions import SubcallError, SubcallLimitError, pick_first_answer


def test_ask_chunks_first_stops_at_the_first_acceptable_answer() -> None:
    replies = {"a": "NO_ANSWER", "b": "line\nline", "c": " Paris \n", "d": "Rome"}
    host = Host(lambda prompt: ("text", replies[prompt[-1]]))
    assert host.run("ask_chunks_first", "q", list("abcd"), parallel_subcalls=True) == "Paris"
    assert host.prompts == [about("q", text) for text in "abc"]
    assert all(len(ask.calls) == 1 and not ask.parallel for ask in host.asks)


def test_ask_chunks_first_without_an_answer_is_none() -> None:
    host = Host(lambda _: ("text", "no_answer."))
    assert host.run("ask_chunks_first", "q", ["a", "b", "a"]) is None
    assert len(host.prompts) == 2, "the same piece is asked about once"


def test_ask_chunks_first_raises_or_passes_over_a_failure() -> None:
    host = failing(about("q", "a"))
    with pytest.raises(SubcallError) as caught:
        host.run("ask_chunks_first", "q", ["a", "b"])
    assert caught.value.results == [None]
    host = Host(lambda prompt: ("error", "x") if prompt[-1] == "a" else ("text", "b"))
    assert host.run("ask_chunks_first", "q", ["a", "b"], on_error="return") == "b"


def test_a_limit_ends_ask_chunks_first_in_any_case() -> None:
    host = Host(lambda prompt: ("limit", "max") if prompt[-1] == "b" else ("text", "NO_ANSWER"))
    with pytest.raises(SubcallLimitError) as caught:
        host.run("ask_chunks_first", "q", list("abc"), on_error="return")
    assert caught.value.results == ["NO_ANSWER", None]
    assert len(host.prompts) == 2


@pytest.mark.parametrize(
    ("answers", "picked"),
    [
        ([" yes "], "yes"),
        (["", "  ", "NO_ANSWER", "no_answer", "NO_ANSWER.", "**NO_ANSWER**", "ok"], "ok"),
        (
            ["two\nlines", "x" * 81, "```x```", "```\nx\n```", "[ERROR] gone", None, "x" * 80],
            "x" * 80,
        ),
        (["NO_ANSWER in this text"], "NO_ANSWER in this text"),
        ([], None),
        ([""], None),
        (("a", "b"), "a"),
    ],
)
def test_pick_first_answer_takes_the_first_acceptable(answers: Any, picked: str | None) -> None:
    assert pick_first_answer(answers) == picked
