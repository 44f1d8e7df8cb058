"""Numbers as people read them: one of a thing, small costs, large limits."""

from typing import Any

import pytest

from effects.commands.conclude import resume_command
from effects.many.budget import Budget, Ledger, Used
from effects.view.cut import cut, dollars, seconds, tokens
from effects.view.events import says
from rlm_fsm import FakeAdapter, Policy, run_many
from rlm_fsm.errors import UsageError
from rlm_fsm.event import LimitReached
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import ROOT, RunId
from rlm_fsm.options import Options
from rlm_fsm.state import INITIAL
from rlm_fsm.values import Usage


def test_durations_read_well() -> None:
    assert [seconds(n) for n in (0.04, 99.9, 99.96, 125)] == [
        "0.0 s",
        "99.9 s",
        "1 min 40 s",
        "2 min 05 s",
    ]


def test_a_small_cost_is_not_told_as_none() -> None:
    told = [dollars(n) for n in (0, 0.00001, 0.00123, 1_234.5)]
    assert told == ["$0", "under $0.0001", "$0.0012", "$1,234.50"]


def test_one_of_a_thing_is_not_told_as_many() -> None:
    assert [tokens(Usage(total_tokens=n)) for n in (1, 1_000)] == ["1 token", "1,000 tokens"]
    assert "… 1 more character …" in cut("x" * 501, first=1, last=0)
    with pytest.raises(UsageError, match="1 of 1 job can't be run"):
        run_many([("", "text")], adapter=FakeAdapter(["FINAL: x"]), log=":memory:")


@pytest.mark.parametrize(
    ("limit", "used", "allowed", "told"),
    [
        ("max_total_tokens", 1_000_001, 1_000_000, "1,000,001 of 1,000,000"),
        ("max_seconds", 2.5, 2, "2.5 of 2"),
    ],
)
def test_a_limit_is_told_without_an_exponent(
    limit: str, used: float, allowed: float, told: str
) -> None:
    reached = LimitReached(frame=ROOT, limit=limit, used=used, allowed=allowed)
    assert says(reached) == f"{limit}: {told}"


@pytest.mark.parametrize(
    ("limit", "allowed", "typed"),
    [
        ("max_cost_usd", 0.5, "--max-cost 1"),
        ("max_cost_usd", 0.00000125, "--max-cost 0.0000025"),
        ("max_seconds", 1_000_000.0, "--max-seconds 2000000"),
        ("max_total_tokens", 1_000_000, "--max-total-tokens 2000000"),
    ],
)
def test_a_larger_limit_is_told_as_it_is_typed(limit: str, allowed: float, typed: str) -> None:
    limits: dict[str, Any] = {limit: allowed}
    options = Options(policy=Policy(**limits))
    state = evolve(INITIAL, options=options, limit=limit, status="partial")
    assert resume_command("r", state, "log", "log") == f"rlm-fsm resume r {typed}"


@pytest.mark.parametrize(
    ("budget", "used", "first", "told"),
    [
        (
            Budget(max_cost_usd=0.5),
            Used(cost_usd=0.49999),
            Used(cost_usd=0.0123456),
            "max_cost_usd=0.5, under $0.0001 left, a first call takes $0.0123",
        ),
        (
            Budget(max_total_tokens=2_000_000),
            Used(tokens=1_000_000),
            Used(tokens=1_500_000),
            "max_total_tokens=2,000,000, 1,000,000 left, a first call takes 1,500,000",
        ),
    ],
)
def test_a_budget_that_is_used_up_is_told_in_plain_numbers(
    budget: Budget, used: Used, first: Used, told: str
) -> None:
    ledger = Ledger(budget, Policy())
    ledger.note(RunId("a"), used)
    assert ledger.refusal(first) == f"the budget is used up: {told}"
    over = Ledger(Budget(max_seconds=1_000_000.0), Policy()).shortage("max_seconds")
    assert over == "the budget's time is over: max_seconds=1,000,000"
