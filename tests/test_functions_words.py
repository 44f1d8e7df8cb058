"""How numbers and failures are told to code."""

import pytest

from effects.repls import _words
from effects.repls._functions import Answer, SubcallError, SubcallLimitError, drive, programs
from effects.repls._text import TextView

LIMIT: Answer = ("limit", "the limit max_subcalls leaves no room for this call")


def batch_of(*answers: Answer) -> str:
    """What the error of a batch with these answers says."""
    made = programs(TextView("text"), parallel_subcalls=False)
    prompts = [f"q{place}" for place in range(len(answers))]
    with pytest.raises(SubcallError) as caught:
        drive(made["llm_batch"](prompts), lambda _: list(answers))
    is_limit = any(kind == "limit" for kind, _ in answers)
    assert isinstance(caught.value, SubcallLimitError) is is_limit
    return str(caught.value)


def test_a_batch_tells_each_reason_and_how_often_it_was() -> None:
    said = batch_of(("error", "HTTP 500."), LIMIT, ("text", "fine"), LIMIT, LIMIT)
    assert said.startswith(f"4 of 5 subcalls failed: 3 with: {LIMIT[1]}; 1 with: HTTP 500. The")
    assert batch_of(LIMIT, ("text", "a"), LIMIT).startswith(
        f"2 of 3 subcalls failed, each with: {LIMIT[1]}. The"
    )
    assert batch_of(("text", "a"), ("error", "gone")).startswith("1 of 2 subcalls failed: gone. ")


def test_what_a_batch_says_of_its_failures_is_bounded_and_one_line() -> None:
    many: list[Answer] = [("error", f"down {place}\n" * 500) for place in range(1_000)]
    said = batch_of(*many)
    assert said.startswith("1,000 of 1,000 subcalls failed: 1 with: down 0 down 0")
    assert "; 996 with 996 other errors. " in said
    assert len(said) < 1_700
    assert "\n" not in said


def test_a_batch_points_to_the_answers_that_arrived_only_where_some_did() -> None:
    assert ".results" in batch_of(("text", "a"), ("error", "gone"))
    alone = batch_of(("error", ""))
    assert alone.startswith("1 of 1 subcall failed: no reason was given. ")
    assert ".results" not in alone
    assert 'on_error="return"' in alone


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "$0"), (1e-9, "under $0.0001"), (0.0001, "$0.0001"), (1234.5, "$1,234.5000")],
)
def test_a_small_cost_is_not_none(value: float, told: str) -> None:
    assert _words.usd(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.3, "0.3"), (1, "1"), (30.0, "30"), (1e6, "1,000,000"), (2.25, "2.25"), (1e-9, "1e-09")],
)
def test_numbers_are_written_out(value: float, told: str) -> None:
    assert _words.number(value) == told
