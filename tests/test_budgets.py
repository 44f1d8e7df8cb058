"""Budgets in the machine: cost, time, what is left; and that no order of outcomes matters."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import TEXT, Machine, code, kinds, names, replied

from rlm_fsm import fold
from rlm_fsm.budget_line import left
from rlm_fsm.effect import ResumeCode
from rlm_fsm.errors import IllegalEvent, UsageError
from rlm_fsm.event import CodePaused, DeadlinePassed, ModelFailed, RunResumed, RunStarted
from rlm_fsm.needs import need, room
from rlm_fsm.numbers import number as told_as
from rlm_fsm.options import Options
from rlm_fsm.policy import FREE_HITS, Policy
from rlm_fsm.price import AdapterPrice, Price, PriceTier
from rlm_fsm.state import Phase, RunState
from rlm_fsm.values import HostCall, Usage


def priced(prompt: float, completion: float, *adapters: str) -> tuple[AdapterPrice, ...]:
    """Prices of these adapters, in USD per million tokens."""
    price = Price(prompt_usd_per_mtok=prompt, completion_usd_per_mtok=completion)
    return tuple(
        AdapterPrice(adapter=name, model="m", price=price, source="given")
        for name in adapters or ("root", "subcall")
    )


def begun(policy: Policy | None = None, **options: Any) -> Machine:
    """A run whose first cell is running, its first turn paid with 10 tokens and no cost."""
    machine = Machine()
    small = {"max_tokens": 1, "subcall_max_tokens": 100, "system_prompt": "system"}
    machine.start(policy=policy, **{**small, **options})
    machine.reply(code("x"), cost_usd=0.0)
    return machine


# -- cost -----------------------------------------------------------------------------------------


def test_cost_is_set_aside_for_calls_in_flight_and_replaced_by_the_bill():
    machine = begun(Policy(max_cost_usd=1), prices=priced(0, 1_000))
    machine.pause("a", "b")
    assert machine.state.spent.reserved_nusd == 200_000_000, "two calls of 0.1 USD each"
    machine.reply("A", "0.1", cost_usd=0.03)
    assert machine.state.spent.reserved_nusd == 100_000_000
    assert machine.state.spent.cost_usd == 0.03
    machine.fail("0.2")
    assert machine.state.spent.reserved_nusd == 0


def test_parallel_calls_that_a_cost_limit_has_no_room_for_are_answered_with_the_limit():
    policy = Policy(max_cost_usd=0.25)
    machine = begun(policy, prices=priced(0, 1_000))
    machine.pause("a", "b", "c")
    assert sorted(machine.state.calls) == ["0.1", "0.2"]
    machine.reply("A", "0.1", cost_usd=0.1)
    (resumed,) = machine.reply("B", "0.2", cost_usd=0.1)
    assert [outcome.kind for outcome in resumed.outcomes] == ["text", "text", "limit"]
    assert "max_cost_usd" in resumed.outcomes[2].text


def test_a_cost_limit_leaves_no_room_for_a_turn_after_which_nothing_could_be_said():
    policy = Policy(max_cost_usd=0.35)
    machine = begun(policy, prices=priced(0, 1_000), max_tokens=200)
    machine.pause("a")
    machine.reply("A", cost_usd=0.1)
    machine.ran("clue")
    assert machine.frame().phase is Phase.CLOSING, "0.1 + 0.2 USD, and not 0.2 once more"
    machine.reply("the answer", cost_usd=0.1)
    assert (machine.state.status, machine.state.limit) == ("partial", "max_cost_usd")
    assert (machine.state.output, machine.state.spent.cost_usd) == ("the answer", 0.2)


def test_a_cost_limit_that_has_no_room_for_the_last_call_either_ends_the_run():
    machine = Machine()
    machine.start(policy=Policy(max_cost_usd=0.25), prices=priced(0, 1_000), max_tokens=200)
    machine.reply(code("x"), cost_usd=0.1)
    machine.ran("clue")
    assert (machine.state.status, machine.state.output) == ("partial", "clue")


def test_subcalls_leave_room_for_the_answer():
    """Also where they go alone; and the limit says so."""
    policy = Policy(max_total_tokens=3_000)
    machine = begun(policy, max_tokens=500, subcall_system_prompt="", tell_budget=False)
    machine.pause(*(letter * 1_000 for letter in "abcdefghij"))
    while machine.state.calls:
        resumed = machine.reply("A", sorted(machine.state.calls)[0], tokens=350)
    kinds_of = [outcome.kind for outcome in resumed[0].outcomes]
    assert kinds_of == ["text"] * 4 + ["limit"] * 6
    assert "max_total_tokens: 3," in resumed[0].outcomes[-1].text
    machine.ran("x" * 4_000)
    assert machine.call().purpose == "closing"
    assert need(machine.state, machine.call()).tokens + 1_410 <= 3_000


@pytest.mark.parametrize("recursive", [False, True])
def test_what_a_limit_kept_from_being_made_does_not_count_as_a_subcall(recursive: bool):
    machine = begun(
        Policy(max_subcalls=3, max_subcall_tokens=10),
        subcall_system_prompt="",
        recursive_subcall_system_prompt="",
        recursive_subcalls=recursive,
    )
    (resumed,) = machine.pause("a" * 4_000, "b" * 4_000, "c" * 4_000)
    assert [outcome.kind for outcome in resumed.outcomes] == ["limit"] * 3
    assert (machine.state.spent.subcalls, machine.frame().subcalls) == (0, 0)
    assert left(machine.state, machine.frame())["subcalls"] == 3


def test_a_run_that_raises_at_its_limits_keeps_no_room_for_a_last_call():
    policy = Policy(max_cost_usd=0.35, on_limit="raise")
    machine = begun(policy, prices=priced(0, 1_000), max_tokens=200)
    machine.ran("clue")
    machine.reply(code("y"), cost_usd=0.1)
    machine.ran("clue")
    assert machine.call().purpose == "turn"


def test_the_first_turn_needs_no_room_for_an_answer():
    machine = Machine()
    machine.start(policy=Policy(max_total_tokens=800), max_tokens=500, system_prompt="system")
    assert machine.call().purpose == "turn"


def test_an_adapter_without_a_price_is_judged_by_the_dearest_token_that_it_charged():
    policy = Policy(max_cost_usd=0.5, max_total_tokens=None)
    machine = begun(policy, subcall_max_tokens=10, subcall_system_prompt="", max_tokens=1)
    machine.pause("a" * 2_000, "b" * 2_000)
    assert machine.state.spent.reserved_nusd == 500_000_000, "nothing is known of it yet: all"
    assert sorted(machine.state.calls) == ["0.1"]
    machine.reply("A", "0.1", cost_usd=0.06, tokens=600)
    assert machine.state.spent.reserved_nusd == 73_500_000, "2000 / 4 * 1.25 + 100 + 10 tokens"
    machine.reply("B", "0.2", cost_usd=0.06, tokens=600)
    machine.pause(*(letter * 2_000 for letter in "cdefghi"))
    assert len(machine.state.calls) == 5, "of the dearest token: 0.0001 USD"


def test_a_long_prompt_is_not_refused_by_what_a_long_reply_has_cost():
    """15 USD a million for what is generated, 3 for what is sent."""
    policy = Policy(max_cost_usd=0.2, max_total_tokens=None)
    machine = begun(policy, subcall_max_tokens=256, max_tokens=1)
    machine.pause("Write a poem.", max_tokens=1_000)
    machine.reply("poem", cost_usd=0.0151, tokens=1_020)
    machine.pause("a" * 40_000, "b" * 40_000)
    assert sorted(machine.state.calls) == ["0.2"], "alone: it might cost 0.6"
    machine.reply("A", cost_usd=0.0303, tokens=10_100)
    assert need(machine.state, machine.call("0.3")).nusd < 40_000_000


def test_an_adapter_that_has_charged_nothing_yet_is_judged_by_what_the_others_charged():
    policy = Policy(max_cost_usd=0.78, max_total_tokens=None)
    machine = Machine()
    small = {"max_tokens": 1, "subcall_max_tokens": 10, "system_prompt": "s" * 4_000}
    machine.start(policy=policy, subcall_system_prompt="", **small)
    machine.reply(code("x"), cost_usd=0.1, tokens=1_000)
    machine.pause(*(letter * 890 for letter in "abcdefghi"))
    assert len(machine.state.calls) == 4, "1,000 tokens each at most, 0.0001 USD a token"


def test_a_reply_of_unknown_cost_counts_with_its_estimate_and_is_told_as_no_cost():
    policy = Policy(max_cost_usd=0.25)
    machine = begun(policy, prices=priced(0, 1_000))
    machine.pause("a")
    machine.reply("A", usage=Usage())
    spent = machine.state.spent
    assert (spent.cost_usd, spent.unpriced_calls, spent.unknown_nusd) == (0.0, 1, 100_000_000)
    assert spent.reserved_nusd == 0
    assert left(machine.state, machine.frame())["cost_usd"] == 0.149, "0.001 are for the answer"


def test_a_reply_of_unknown_cost_counts_with_the_tokens_that_it_is_thought_to_have():
    """As of a server that reports no usage, and a model whose price was given."""
    machine = begun(Policy(max_cost_usd=0.25), prices=priced(0, 1_000))
    machine.pause("a")
    machine.reply("A", usage=Usage(10, 3, 13, estimated=True))
    spent = machine.state.spent
    assert (spent.cost_usd, spent.unpriced_calls, spent.unknown_nusd) == (0.0, 1, 3_000_000)


def test_an_adapter_that_tells_no_cost_counts_with_what_the_others_charge():
    """It said that it would (`reports_cost`), and there is nothing else to go by."""
    machine = Machine()
    machine.start(policy=Policy(max_cost_usd=1), max_tokens=1, subcall_system_prompt="")
    machine.reply(code("x"), cost_usd=0.01, usage=Usage(900, 100, 1_000))
    machine.pause("a")
    machine.reply("A", usage=Usage(10, 100, 110))
    assert machine.state.spent.unknown_nusd == 1_100_000, "0.00001 USD a token"


def test_without_a_cost_limit_nothing_is_set_aside():
    machine = begun(prices=priced(1, 1))
    machine.pause("a", "b")
    assert machine.state.spent.reserved_nusd == 0


def test_a_run_of_the_old_rules_stops_when_its_cost_limit_is_reached_and_not_before():
    machine = begun(Policy(max_cost_usd=0.1), prices=priced(0, 10**6), rules=1, tell_budget=False)
    machine.pause("a", "b")
    assert len(machine.state.calls) == 2
    machine.reply("A", "0.1", cost_usd=0.2)
    machine.reply("B", "0.2", cost_usd=0.2)
    machine.ran("clue")
    assert machine.state.limit == "max_cost_usd"


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), 10**400, True, "1"])
def test_a_price_that_means_nothing_is_refused(bad: Any):
    with pytest.raises(UsageError, match="prompt_usd_per_mtok"):
        Price(prompt_usd_per_mtok=bad, completion_usd_per_mtok=1)


def test_a_price_charges_less_for_what_was_cached():
    price = Price(prompt_usd_per_mtok=2, completion_usd_per_mtok=8, cached_usd_per_mtok=0.5)
    assert price.cost_usd(Usage(1_000_000, 0, 1_000_000, cached_tokens=500_000)) == 1.25
    assert price.cost_usd(Usage(0, 500_000, 500_000)) == 4


def test_a_long_prompt_has_the_price_of_its_tier():
    """As of models that charge twice as much for a call with more than 200,000 tokens."""
    tier = PriceTier(above_tokens=1_000, prompt_usd_per_mtok=4, completion_usd_per_mtok=10)
    price = Price(prompt_usd_per_mtok=2, completion_usd_per_mtok=8, tiers=(tier,))
    assert price.cost_usd(Usage(1_000, 0, 1_000)) == 0.002
    assert price.cost_usd(Usage(1_001, 100, 1_101, cached_tokens=1)) == pytest.approx(0.005004)
    assert price.estimate_nusd(1_000, 100) == 2_800_000
    assert price.estimate_nusd(2_000, 100) == 9_000_000


def test_calls_of_a_tier_are_set_aside_with_its_price_and_forecast_one_by_one():
    tier = PriceTier(above_tokens=1_000, prompt_usd_per_mtok=4_000, completion_usd_per_mtok=0)
    price = Price(prompt_usd_per_mtok=1_000, completion_usd_per_mtok=0, tiers=(tier,))
    prices = tuple(
        AdapterPrice(adapter=name, model="m", price=price, source="given")
        for name in ("root", "subcall")
    )
    machine = begun(Policy(max_cost_usd=100), prices=prices, subcall_system_prompt="")
    asked = json.dumps({"calls": 10, "chars": 10 * 2_000, "replies": 0})
    (resumed,) = machine.pause(asked, kind="forecast")
    assert json.loads(resumed.outcomes[0].text)["cost_usd"] == 5.0, "500 tokens each"
    machine.pause("x" * 8_000)
    assert machine.state.spent.reserved_nusd == 4_000 * 1_000 * 8_100, "they may have 8,100"
    assert need(machine.state, machine.call()).nusd == 4_000 * 1_000 * 2_000


def test_a_provider_that_charges_more_than_by_the_price_is_believed():
    """Ten calls in flight overshot a limit by all that they cost more than was recorded."""
    policy = Policy(max_cost_usd=1.0, max_total_tokens=None)
    machine = begun(policy, prices=priced(0, 1_000), max_concurrent_subcalls=10)
    machine.pause("a")
    machine.reply("A", cost_usd=0.03, usage=Usage(10, 10, 20))
    machine.pause(*(f"p{number}" for number in range(10)))
    while machine.state.calls:
        machine.reply("A", sorted(machine.state.calls)[0], cost_usd=0.3, usage=Usage(10, 100, 110))
    assert (machine.state.spent.cost_usd or 0) <= 1.0 + 0.2


@pytest.mark.parametrize(
    "tiers",
    [
        [PriceTier(above_tokens=1, prompt_usd_per_mtok=1, completion_usd_per_mtok=1)],
        (PriceTier(above_tokens=1, prompt_usd_per_mtok=1, completion_usd_per_mtok=1),) * 2,
        (1,),
    ],
)
def test_tiers_that_mean_nothing_are_refused(tiers: Any):
    with pytest.raises(UsageError, match="tiers"):
        Price(prompt_usd_per_mtok=1, completion_usd_per_mtok=1, tiers=tiers)
    with pytest.raises(UsageError, match="above_tokens"):
        PriceTier(above_tokens=0, prompt_usd_per_mtok=1, completion_usd_per_mtok=1)


def test_going_on_with_longer_prompts_reserves_for_them_and_leaves_nothing_behind():
    machine = begun(subcall_system_prompt="short")
    machine.pause("a", "b")
    longer = replace(machine.state.options, subcall_system_prompt="long " * 400)
    before = machine.state.spent.reserved_subcall_tokens
    machine.send(RunResumed(options=longer))
    assert machine.state.spent.reserved_subcall_tokens > before + 900
    machine.reply("A", "0.1")
    machine.reply("B", "0.2")
    spent = machine.state.spent
    assert (spent.reserved_tokens, spent.reserved_subcall_tokens) == (0, 0)


# -- what caches answer ---------------------------------------------------------------------------


def test_a_hit_gives_back_all_that_was_reserved_for_it():
    policy = Policy(max_cost_usd=1, max_total_tokens=10_000, max_subcall_tokens=5_000)
    machine = begun(policy, prices=priced(0, 1_000))
    before = machine.state.spent
    machine.pause("a", "b")
    machine.reply("A", "0.1", tokens=0, cache_hit=True)
    machine.reply("B", "0.2", tokens=0, cache_hit=True)
    after = machine.state.spent
    assert after == replace(before, cache_hits=2), "nothing else has changed"
    assert machine.frame().subcalls == 2, "guards that want a subcall have one"


def test_a_hit_makes_room_for_calls_that_a_cost_limit_held_back():
    policy = Policy(max_cost_usd=0.25)
    machine = begun(policy, prices=priced(0, 1_000), max_concurrent_subcalls=2)
    machine.pause("a", "b", "c", "d")
    machine.reply("A", "0.1", tokens=0, cache_hit=True)
    machine.reply("B", "0.2", tokens=0, cache_hit=True)
    assert sorted(machine.state.calls) == ["0.3", "0.4"]


def test_code_that_asks_what_is_cached_for_ever_comes_to_an_end():
    machine = begun(Policy(max_subcalls=2))
    hits = 0
    while machine.pause("again")[0].__class__ is not ResumeCode:
        machine.reply("A", tokens=0, cache_hit=True)
        hits += 1
    assert hits == FREE_HITS * 2 + 2


@given(st.data(), st.integers(1, 5))
def test_no_order_of_hits_and_bills_loses_or_invents_anything(data: st.DataObject, window: int):
    policy = Policy(max_subcalls=20, max_cost_usd=5, max_total_tokens=10**6)
    options = {"prices": priced(0, 1_000), "max_concurrent_subcalls": window}
    machine = begun(policy, **options)
    hits = paid = 0
    for turn in range(3):
        before = machine.state.spent.subcalls
        machine.pause(*(f"{turn} {n}" for n in range(data.draw(st.integers(1, 5)))))
        while machine.state.calls:
            call = data.draw(st.sampled_from(sorted(machine.state.calls)))
            is_hit = data.draw(st.booleans())
            cost = {} if is_hit else {"cost_usd": 0.01}
            machine.reply("x", call, tokens=0 if is_hit else 7, cache_hit=is_hit, **cost)
            hits, paid = hits + is_hit, paid + (not is_hit)
        assert machine.state.spent.subcalls - before >= 0
    spent = machine.state.spent
    assert (spent.subcalls, spent.cache_hits, spent.model_calls) == (paid, hits, paid + 1)
    assert (spent.reserved_tokens, spent.reserved_nusd) == (0, 0)
    assert spent.usage.total_tokens == 10 + 7 * paid
    assert spent.cost_usd == pytest.approx(0.01 * paid)
    assert spent.unpriced_calls == 0


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["ASKING", "RUNNING", "WAITING", "READING"])
def test_a_deadline_ends_a_run_where_it_is_and_more_time_lets_it_go_on(phase: str):
    machine = begun(Policy(max_seconds=10))
    if phase == "ASKING":
        machine.ran("clue")
    elif phase == "WAITING":
        machine.pause("a")
    elif phase == "READING":
        machine.ran("clue")
        machine.reply("FINAL_VAR: x")
    assert machine.send(DeadlinePassed(clock_s=10.5)) == ()
    state = machine.state
    assert (state.status, state.limit, machine.frame().phase.name) == (
        "partial",
        "max_seconds",
        phase,
    )
    assert state.spent.seconds == 10.5
    assert names(machine.commits[-1]) == ["DeadlinePassed", "RunFinished"]
    more = replace(state.options, policy=Policy(max_seconds=20))
    effects = machine.send(RunResumed(options=more))
    assert len(effects) == 1, "what was under way is begun again"
    assert machine.state.status == "running"
    assert fold(machine.log) == machine.state


def test_a_closing_turn_is_ended_by_the_deadline_with_the_best_answer():
    machine = begun(Policy(max_seconds=10, max_steps=1))
    machine.ran("clue")
    assert machine.frame().phase is Phase.CLOSING
    machine.send(DeadlinePassed(clock_s=11))
    assert (machine.state.status, machine.state.output) == ("partial", "clue")


def test_a_deadline_fails_the_run_when_the_policy_says_raise():
    machine = begun(Policy(max_seconds=10, on_limit="raise"))
    machine.send(DeadlinePassed(clock_s=10))
    assert (machine.state.status, machine.state.cause) == ("failed", "limit")
    assert "max_seconds (10)" in (machine.state.error or "")


@pytest.mark.parametrize("limit_s", [None, 60.0])
def test_a_deadline_that_has_not_passed_is_refused(limit_s: float | None):
    machine = begun(Policy(max_seconds=limit_s))
    with pytest.raises(IllegalEvent):
        machine.send(DeadlinePassed(clock_s=10))


def test_the_time_until_a_cancellation_counts():
    from rlm_fsm.event import Cancelled

    machine = begun()
    machine.send(Cancelled(reason="enough", clock_s=7.5))
    assert machine.state.spent.seconds == 7.5


# -- what is left ---------------------------------------------------------------------------------


def ask_budget(machine: Machine, *prompts: str, frame: str = "0") -> tuple:
    """The cell of a frame asks what is left, and perhaps more in the same pause."""
    calls = [HostCall(fn="llm_batch", prompt=prompt) for prompt in prompts]
    calls.insert(1, HostCall(fn="budget", prompt="", kind="budget"))
    cell = machine.frame(frame).cell
    assert cell is not None
    return machine.send(CodePaused(frame=frame, call_id=cell.id, calls=tuple(calls), clock_s=2.5))


def test_budget_is_answered_at_once_and_costs_nothing():
    policy = Policy(max_steps=9, max_subcalls=7, max_total_tokens=5_000, max_seconds=60)
    machine = begun(policy)
    kept = room(machine.state).tokens
    assert kept > 1_000
    (resumed,) = ask_budget(machine)
    assert json.loads(resumed.outcomes[0].text) == {
        "steps": 8,
        "subcalls": 7,
        "tokens": 4_990 - kept,
        "subcall_tokens": None,
        "cost_usd": None,
        "seconds": 57.5,
    }
    assert machine.state.spent.subcalls == 0
    assert names(machine.commits[-1]) == ["CodePaused"]


def test_budget_within_a_batch_comes_back_in_its_place():
    machine = begun(Policy(max_subcalls=3))
    ask_budget(machine, "a", "b")
    machine.reply("B", "0.3")
    (resumed,) = machine.reply("A", "0.1")
    assert [outcome.text[:1] for outcome in resumed.outcomes] == ["A", "{", "B"]


def test_budget_is_answered_where_a_limit_refuses_the_batch():
    machine = begun(Policy(max_subcalls=1))
    (resumed,) = ask_budget(machine, "a", "b")
    assert [outcome.kind for outcome in resumed.outcomes] == ["limit", "text", "limit"]


def test_what_siblings_have_in_flight_is_gone_as_far_as_it_is_expected():
    """They may take 32,000 tokens each, and replies so far had 50: 96,000 are not gone for that."""
    machine = begun(
        Policy(max_total_tokens=200_000),
        subcall_max_tokens=32_000,
        recursive_subcalls=True,
        max_recursion_depth=1,
    )
    machine.pause("first", recursive=False)
    machine.reply("A", usage=Usage(50, 50, 100))
    machine.pause("a", "b")
    for name in ("0.2", "0.3"):
        machine.reply(code("x"), f"{name}.m1")
    machine.pause("p", "q", "r", frame="0.2")
    (resumed,) = ask_budget(machine, frame="0.3")
    left_tokens = json.loads(resumed.outcomes[0].text)["tokens"]
    assert machine.state.spent.reserved_tokens > 96_000
    below = replace(machine.state.options, policy=Policy(max_subcall_tokens=200_000))
    report = left(replace(machine.state, options=below), machine.frame("0.3"))
    assert 190_000 < (report["subcall_tokens"] or 0) < 200_000 - 3 * 1_024
    assert 180_000 < left_tokens < 200_000 - 3 * 1_024


def told(machine: Machine) -> str:
    """The newest message to the model."""
    return machine.frame().messages[-1].content


def test_the_model_is_told_of_limits_that_matter_and_of_no_others():
    machine = begun(Policy(max_cost_usd=0.5, max_seconds=60, max_subcalls=5), prices=priced(0, 0))
    machine.pause("a")
    machine.reply("A", cost_usd=0.125)
    machine.ran("clue")
    assert told(machine).endswith(
        "(Left of the budget: 4 of 5 subcalls, $0.3750 of $0.5000, 60 of 60 seconds.)"
    )
    machine = begun()
    machine.ran("clue")
    assert "budget" not in told(machine)


def test_tokens_of_subcalls_are_told_whenever_they_are_limited():
    machine = begun(Policy(max_subcall_tokens=1_000_000))
    machine.ran("clue")
    assert "1,000,000 of 1,000,000 tokens of subcalls" in told(machine)


def test_a_forecast_counts_the_replies_that_later_prompts_hold():
    machine = begun(subcall_system_prompt="", subcall_max_tokens=100)
    tokens = []
    for replies in (0, 5):
        asked = json.dumps({"calls": 3, "chars": 300, "replies": replies})
        (resumed,) = machine.pause(asked, kind="forecast")
        tokens.append(json.loads(resumed.outcomes[0].text)["tokens"])
    assert tokens == [3 * 25 + 300, 3 * 25 + 300 + 5 * 100]


def test_what_was_charged_in_all_stops_calls_that_are_expected_to_cost_nothing():
    """As of an adapter that tells no cost, under a limit that others have reached."""
    machine = begun(Policy(max_cost_usd=0.1), prices=priced(0, 0))
    machine.pause("a")
    machine.reply("A", cost_usd=0.2)
    (resumed,) = machine.pause("b")
    assert [outcome.kind for outcome in resumed.outcomes] == ["limit"]


def test_tokens_and_subcalls_are_told_once_half_of_them_is_gone():
    machine = begun(Policy(max_subcalls=40, max_total_tokens=20_000))
    machine.pause(*(f"p{n}" for n in range(20)))
    for call in sorted(machine.state.calls) + [f"0.{n}" for n in range(11, 21)]:
        machine.reply("A", call, tokens=500)
    machine.ran("clue")
    assert "20 of 40 subcalls, 9,990 of 20,000 tokens" in told(machine)


def test_a_run_that_was_told_nothing_of_its_budget_is_told_nothing():
    machine = begun(Policy(max_subcalls=5, max_seconds=9), tell_budget=False)
    machine.ran("clue")
    assert "budget" not in told(machine)


# -- sub-runs -------------------------------------------------------------------------------------


def recursing(**options: Any) -> Machine:
    machine = begun(recursive_subcalls=True, max_recursion_depth=3, **options)
    machine.pause("a", model="wise")
    return machine


def test_a_sub_run_takes_its_turns_with_the_model_that_was_named_for_it():
    machine = recursing()
    assert machine.call("0.1.m1").adapter == "wise"
    machine.reply(code("y"))
    machine.pause("b", frame="0.1")
    assert machine.call().adapter == "subcall", "its own sub-runs have the usual one"


def test_a_sub_run_of_the_old_rules_has_the_usual_model():
    assert recursing(rules=1).call("0.1.m1").adapter == "subcall"


# -- schedules ------------------------------------------------------------------------------------


def outcome_of(machine: Machine, call: str) -> Any:
    """What a call always ends in: by its name alone."""
    effect = machine.call(call)
    if effect.purpose != "subcall":
        turn = machine.frame(effect.frame).turns
        return replied(effect, code("y") if turn == 1 else f"FINAL: {call}", cost_usd=0.25)
    if call.endswith("3"):
        return ModelFailed(
            frame=effect.frame, call_id=effect.call_id, error="server", message="down"
        )
    return replied(effect, f"<{call}>", tokens=len(call) * 7, cost_usd=0.125)


def ended(order: Any, *, recursive: bool, window: int) -> tuple[RunState, list]:
    """A batch, of sub-runs that ask a batch of their own or of plain calls, in some order."""
    machine = begun(
        Policy(max_cost_usd=100, max_total_tokens=None),
        prices=priced(1, 1),
        recursive_subcalls=recursive,
        max_recursion_depth=1,
        max_concurrent_subcalls=window,
        tell_budget=False,
    )
    machine.pause("a", "b", "c", "d")
    while machine.frame().phase is Phase.WAITING:
        paused = [
            name
            for name in sorted(machine.state.frames)
            if machine.frame(name).phase is Phase.RUNNING
        ]
        choices = [*sorted(machine.state.calls), *paused]
        chosen = order(choices)
        if chosen not in paused:
            machine.send(outcome_of(machine, chosen))
        elif machine.frame(chosen).host_calls == 0:
            machine.pause("x", "y", frame=chosen)
        else:
            machine.ran("clue", frame=chosen)
    return machine.state, [*machine.effects]


@given(st.data(), st.booleans(), st.integers(1, 4))
def test_no_order_of_outcomes_changes_the_state_that_they_lead_to(
    data: st.DataObject, recursive: bool, window: int
):
    first, effects = ended(lambda choices: choices[0], recursive=recursive, window=window)
    any_order = lambda choices: data.draw(st.sampled_from(choices))  # noqa: E731
    state, others = ended(any_order, recursive=recursive, window=window)
    assert state == first
    assert others == effects
    assert kinds(tuple(effects)) == ["ResumeCode 0.c1"]


@given(st.data(), st.integers(0, 30))
def test_no_order_of_bills_overshoots_a_cost_limit_or_changes_what_is_refused(
    data: st.DataObject, count: int
):
    """Bills up to what their calls may cost at most: the limit holds to the cent."""
    machine = begun(
        Policy(max_cost_usd=0.5, max_total_tokens=None),
        prices=priced(0, 1_000),
        max_concurrent_subcalls=5,
    )
    machine.pause(*(f"p{number}" for number in range(count)))
    bills = data.draw(st.lists(st.sampled_from([0.0625, 0.03125, 0.1]), min_size=count))
    answered: list[str] = []
    while machine.state.calls:
        call = data.draw(st.sampled_from(sorted(machine.state.calls)))
        answered.append(call)
        machine.reply("A", call, cost_usd=bills[int(call.removeprefix("0.")) - 1])
    assert (machine.state.spent.cost_usd or 0) <= 0.5
    assert len(answered) == fitting(bills[:count], 0.499, 0.1), "0.001 are for the last call"


def fitting(bills: list[float], limit: float, expected: float) -> int:
    """How many of these calls a limit has room for, one after the other."""
    spent = 0.0
    for number, bill in enumerate(bills):
        if spent + expected > limit:
            return number
        spent += bill
    return len(bills)


@given(st.data(), st.integers(1, 40), st.integers(1, 12), st.floats(0.05, 0.79))
def test_texts_of_any_density_overshoot_by_no_more_than_one_estimates_error(
    data: st.DataObject, count: int, window: int, density: float
):
    """From English, a token for four characters, to Chinese, nearly one for each."""
    machine = begun(
        Policy(max_total_tokens=20_000, max_subcalls=100), max_concurrent_subcalls=window
    )
    sizes = data.draw(st.lists(st.integers(200, 6_000), min_size=count, max_size=count))
    machine.pause(*(f"{number:03}{'x' * size}" for number, size in enumerate(sizes)))
    error = 0
    while machine.state.calls:
        call = machine.call(data.draw(st.sampled_from(sorted(machine.state.calls))))
        chars = call.prompt.chars + len(machine.state.options.subcall_system)
        varied = density * data.draw(st.sampled_from([1.0, 1.1, 1.25]))
        tokens = int(chars * varied)
        error = max(error, tokens - chars // 4 - 100)
        machine.reply("A", call.call_id, tokens=tokens)
    assert machine.state.spent.usage.total_tokens <= 20_000 + error


def test_a_call_that_might_not_fit_waits_for_a_bill_and_is_not_refused():
    machine = begun(Policy(max_total_tokens=2_150), subcall_system_prompt="")
    machine.pause("x" * 400, "y" * 400, "z" * 400)
    assert sorted(machine.state.calls) == ["0.1"], "600 of 1,020 may be gone"
    machine.reply("A", "0.1", tokens=120)
    assert sorted(machine.state.calls) == ["0.2"]
    machine.reply("B", "0.2", tokens=120)
    (resumed,) = machine.reply("C", "0.3", tokens=120)
    assert [outcome.kind for outcome in resumed.outcomes] == ["text"] * 3


def test_options_of_a_run_are_those_of_its_first_event():
    options = Options(prices=priced(1, 2))
    machine = Machine()
    machine.send(RunStarted(query="q", context=TEXT, options=options))
    assert machine.state.options.price_of("subcall") == options.prices[1]
    assert machine.state.options.price_of("other") is None


def test_a_forecast_is_judged_beside_what_other_frames_have_asked_for():
    """Two sub-runs at once: each would find room for its calls, and both have none."""
    machine = begun(
        Policy(max_subcall_tokens=1_500),
        subcall_system_prompt="",
        recursive_subcall_system_prompt="",
        recursive_subcalls=True,
        max_recursion_depth=1,
        tell_budget=False,
    )
    machine.pause("a", "b")
    for name in ("0.1", "0.2"):
        machine.reply(code("x"), f"{name}.m1")
    asked = json.dumps({"calls": 7, "chars": 700, "replies": 0})
    (alone,) = machine.pause(asked, kind="forecast", frame="0.1")
    assert alone.outcomes[0].kind == "text"
    machine.pause(*(str(number) * 100 for number in range(7)), frame="0.1")
    (beside,) = machine.pause(asked, kind="forecast", frame="0.2")
    assert beside.outcomes[0].kind == "limit"


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("inf"), 10**400, 2.0**60])
def test_a_limit_beyond_all_numbers_is_refused_and_no_limit_named(bad: Any):
    with pytest.raises(UsageError, match=r"Policy\(max_cost_usd=.*None means no limit"):
        Policy(max_cost_usd=bad)
    with pytest.raises(UsageError, match=r"Policy\(max_total_tokens="):
        Policy(max_total_tokens=bad)
    with pytest.raises(UsageError, match="max_tokens"):
        Options(max_tokens=bad)


def test_what_is_left_of_little_is_told_as_little():
    machine = begun(Policy(max_cost_usd=0.00005, max_seconds=0.4), tell_budget=True)
    machine.ran("clue")
    machine.cancel()
    line = machine.frame().messages[-1].content
    assert "under $0.0001 of under $0.0001, 0.4 of 0.4 seconds" in line


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (1_000_000.0, "1,000,000"),
        (1234567.5, "1,234,567.5"),
        (0.4, "0.4"),
        (12.34567, "12.35"),
        (0.00005, "0.00005"),
    ],
)
def test_numbers_have_no_exponents(value: float, told: str):
    assert told_as(value) == told
