"""What calls are taken for: by their size, their language, and the bills so far."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import Machine, code

from rlm_fsm.bills import (
    EXTRA_TOKENS,
    LONG,
    NO_BILLS,
    USUAL_REPLY,
    Bills,
    Size,
    at_most,
    expected,
    expected_prompts,
)
from rlm_fsm.codec import effect_hash
from rlm_fsm.effect import CallModel, CallTool
from rlm_fsm.history import sent
from rlm_fsm.needs import need
from rlm_fsm.policy import Policy
from rlm_fsm.price import Price
from rlm_fsm.values import TextRef, Usage, text_hash, utf8_bytes

ENGLISH, CHINESE, RUSSIAN = 0.25, 0.9, 0.45
"""Tokens for each character."""


def billed(*bills: tuple[int, int, int], max_tokens: int = 100) -> Bills:
    """Bills of calls with (bytes, prompt tokens, tokens of the reply)."""
    found = NO_BILLS
    for size, prompt, reply in bills:
        found = found.with_one(size, max_tokens, Usage(prompt, reply, prompt + reply), None)
    return found


def begun(policy: Policy, **options: Any) -> Machine:
    """A run whose first cell is running."""
    small = {"max_tokens": 1, "subcall_max_tokens": 100, "system_prompt": "system"}
    machine = Machine()
    machine.start(policy=policy, **{**small, "subcall_system_prompt": "", **options})
    machine.reply(code("x"))
    return machine


# -- sizes ----------------------------------------------------------------------------------------


@given(st.text(max_size=50))
def test_a_text_has_the_bytes_of_its_utf8(text: str):
    ref = TextRef.of(text)
    assert ref.bytes == utf8_bytes(text) == len(text.encode("utf-8", "surrogatepass"))
    assert ref == TextRef(text_hash(text), len(text)), "bytes are no part of a text's name"


def test_bytes_change_no_hash_that_a_log_may_hold():
    """Logs were written before texts had bytes."""
    told, untold = TextRef.of("文字"), TextRef(text_hash("文字"), 2)
    assert (told.bytes, untold.bytes) == (6, 2)
    for make in (
        lambda ref: CallTool(frame="0", call_id="0.1", tool="t", arguments=ref),
        lambda ref: CallModel(
            frame="0", call_id="0.1", purpose="subcall", prompt=ref, max_tokens=1, adapter="root"
        ),
    ):
        assert effect_hash(make(told)) == effect_hash(make(untold))


def test_a_conversation_has_the_bytes_of_its_messages():
    machine = begun(Policy())
    machine.ran("文字" * 100)
    frame = machine.frame()
    assert machine.call().prompt.bytes == frame.bytes
    assert frame.bytes == sum(utf8_bytes(message.content) for message in sent(frame))
    assert frame.bytes > frame.chars + 300


def test_the_room_of_a_conversation_is_counted_in_bytes():
    """Room for 2,000 tokens: some 8,000 characters of English or 2,600 of Chinese."""
    machine = begun(Policy(max_total_tokens=None), max_history_tokens=2_000, tell_budget=False)
    for number in range(6):
        machine.ran(f"{number}" + "文" * 500)
        machine.reply(code(f"y = {number}"))
    assert machine.frame().skipped > 0
    assert sum(utf8_bytes(m.content) for m in sent(machine.frame())) < 2_000 * 4


# -- languages ------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 12))
def test_languages_that_take_turns_overshoot_by_no_more_than_one_estimates_error(
    data: st.DataObject, window: int
):
    """Chinese after English, in flight at once: it has nearly four times the tokens a character."""
    limit = 20_000
    machine = begun(Policy(max_total_tokens=limit), max_concurrent_subcalls=window)
    kinds = st.sampled_from([("x", ENGLISH), ("文", CHINESE), ("ж", RUSSIAN)])
    asked = data.draw(st.lists(st.tuples(kinds, st.integers(300, 3_000)), min_size=1, max_size=40))
    prompts = [letter * size for (letter, _), size in asked]
    machine.pause(*(f"{number:03}{prompt}" for number, prompt in enumerate(prompts)))
    error = 0
    while machine.state.calls:
        call = machine.call(data.draw(st.sampled_from(sorted(machine.state.calls))))
        (_, density), size = asked[int(call.call_id.removeprefix("0.")) - 1]
        tokens = int(size * density) + 20
        error = max(error, tokens - call.prompt.bytes // 4)
        machine.reply("A", call.call_id, tokens=tokens)
    assert machine.state.spent.usage.total_tokens <= limit + error


def test_a_chinese_text_is_expected_to_have_more_tokens_than_an_english_one_before_any_bill():
    machine = begun(Policy(), max_concurrent_subcalls=2)
    machine.pause("x" * 1_200, "文" * 1_200)
    english, chinese = (need(machine.state, machine.call(name)).tokens for name in ("0.1", "0.2"))
    assert (english, chinese) == (300 + 100, 900 + 100)


# -- odd bills ------------------------------------------------------------------------------------


def test_what_a_provider_adds_to_short_prompts_makes_no_long_one_dense():
    bills = billed((50, 900, 10), *[(4_000, 1_100, 10)] * 3)
    assert at_most(bills, 40_000, 100).prompt == 40_000 // 4 * 1.25 + 850
    assert expected(bills, 40_000, 100).prompt < 40_000 // 4 * 1.02


def test_a_long_prompt_is_not_taken_for_as_dense_as_a_short_one():
    bills = billed(*[(500, 400, 10)] * 5, (4_000, 1_100, 10))
    assert expected(bills, 40_000, 100).prompt == 10_000
    assert at_most(bills, 40_000, 100).prompt == 10_000 * 1.25 + EXTRA_TOKENS
    assert at_most(bills, LONG - 1, 100).prompt == round(999 * 0.6 * 1.25 + 0.5) + EXTRA_TOKENS


def test_many_short_prompts_with_much_added_leave_room_for_a_long_one():
    """50 questions of 20 characters each, 300 tokens more by the provider, and then a long text."""
    machine = begun(Policy())
    machine.pause(*(f"question {number:010}" for number in range(50)))
    while machine.state.calls:
        machine.reply("A", sorted(machine.state.calls)[0], usage=Usage(305, 10, 315))
    machine.ran("clue")
    machine.reply(code("y"))
    machine.pause("x" * 600_000)
    assert machine.call().prompt.chars == 600_000


def test_what_all_replies_and_prompts_had_beyond_is_expected_of_the_next_one():
    """Of a model that thinks beyond its limit, the last call of all had no room."""
    bills = billed((50, 3_200, 3_100), (50, 3_300, 4_000), (50, 3_250, 3_050), max_tokens=100)
    size = expected(bills, 50, 100)
    assert size == (12 + 3_050, 100 + 2_950)
    assert expected(bills.with_one(50, 100, Usage(20, 90, 110), None), 50, 100) == (12, 100)


@pytest.mark.parametrize("limit", [20_000, 50_000])
def test_a_model_that_thinks_beyond_its_limit_has_its_last_call(limit: int):
    machine = Machine()
    machine.start(policy=Policy(max_total_tokens=limit), max_tokens=100, tell_budget=False)
    turn = 0
    while machine.call().purpose == "turn":
        turn += 1
        machine.reply(code(f"x = {turn}"), usage=Usage(500, 3_100, 3_600))
        machine.ran("clue")
    machine.reply("the answer", usage=Usage(500, 3_100, 3_600))
    assert machine.state.output == "the answer"
    assert machine.state.spent.usage.total_tokens <= limit


def test_an_adapter_that_charged_nothing_yet_is_taken_to_be_as_odd_as_the_others():
    """Mostly it is the same one. Ten calls in flight overshot by ten times what the first had."""
    machine = Machine()
    machine.start(policy=Policy(max_total_tokens=200_000), max_tokens=100, subcall_max_tokens=100)
    machine.reply(code("x"), usage=Usage(1_500, 20_100, 21_600))
    machine.pause(*(f"p{number}" for number in range(20)))
    while machine.state.calls:
        machine.reply("A", sorted(machine.state.calls)[0], usage=Usage(60, 20_100, 20_160))
    assert machine.state.spent.usage.total_tokens <= 200_000 + 20_100


def test_a_call_that_cost_nothing_says_nothing_of_the_next_one():
    machine = Machine()
    policy = Policy(max_cost_usd=1, max_total_tokens=None)
    machine.start(policy=policy, max_tokens=100, subcall_max_tokens=100)
    machine.reply(code("x"), cost_usd=0.015, usage=Usage(1_400, 100, 1_500))
    machine.pause("free")
    machine.reply("A", cost_usd=0.0, usage=Usage(60, 10, 70))
    machine.pause(*(letter * 20_000 for letter in "abcdefghijkl"))
    assert len(machine.state.calls) < 10, "0.00001 USD a token, as the root's"


def test_one_reply_beyond_what_was_allowed_makes_others_longer_by_so_much_and_not_times_as_long():
    bills = billed((4_000, 1_100, 700), max_tokens=100)
    assert at_most(bills, 4_000, 10_000).completion == 10_600


def test_a_reply_is_expected_to_be_no_longer_than_twice_the_longest():
    """With `max_tokens` far beyond what replies have, a run would end after the second one."""
    assert expected(NO_BILLS, 0, 100_000).completion == 100_000
    assert expected(billed((400, 100, 20)), 0, 100_000).completion == USUAL_REPLY
    assert expected(billed((400, 100, 20), (400, 100, 3_000)), 0, 100_000).completion == 6_000
    assert expected(billed((400, 100, 20)), 0, 50).completion == 50
    assert at_most(billed((400, 100, 20)), 0, 100_000).completion == 100_000


def test_a_run_with_much_room_for_replies_goes_on_by_what_they_have():
    machine = begun(Policy(max_total_tokens=200_000), max_tokens=100_000, tell_budget=False)
    for number in range(10):
        machine.ran("clue")
        machine.reply(code(f"y = {number}"), tokens=2_000)
    assert machine.state.status == "running"
    assert machine.frame().limit is None


def test_what_is_added_to_each_prompt_is_expected_of_each_of_many():
    bills = billed((50, 650, 10), (60, 660, 10))
    assert expected_prompts(bills, 500, 10) == 125 + 10 * 500
    assert expected_prompts(bills, 0, 0) == 0


BILLS = st.lists(
    st.tuples(st.integers(0, 5_000), st.integers(0, 6_000), st.integers(0, 300)), max_size=5
)


@given(BILLS)
def test_the_order_of_bills_makes_no_difference(bills: list[tuple[int, int, int]]):
    assert len({billed(*order) for order in permutations(bills)}) <= 1


@given(BILLS, st.integers(0, 100_000), st.integers(1, 5_000))
def test_what_a_call_is_expected_to_take_is_within_the_most(
    bills: list[tuple[int, int, int]], size: int, max_tokens: int
):
    some = billed(*bills)
    least, most = expected(some, size, max_tokens), at_most(some, size, max_tokens)
    assert least.prompt <= most.prompt
    assert least.completion <= most.completion


# -- cost -----------------------------------------------------------------------------------------


def test_calls_that_cost_more_than_by_their_price_are_set_aside_for_as_many_times_more():
    price = Price(prompt_usd_per_mtok=1, completion_usd_per_mtok=2)
    bills = NO_BILLS.with_one(4_000, 100, Usage(1_000, 100, 1_100), 0.0036, price)
    assert bills.dearer == pytest.approx(3)
    cheap = bills.with_one(4_000, 100, Usage(1_000, 100, 1_100), 0.0001, price)
    assert cheap.dearer == bills.dearer, "the dearest counts"
    assert NO_BILLS.with_one(0, 100, Usage(0, 0, 0), 1.0, price).dearer == 1
    assert NO_BILLS.as_odd_as([cheap]).dearer == bills.dearer


def test_without_a_price_what_a_prompt_costs_is_not_known_before_enough_were_billed():
    size = Size(1_000, 100)
    few = NO_BILLS.with_one(100, 100, Usage(25, 75, 100), 0.001)
    assert few.expected_nusd(size) == 1_000_000, "of 100 tokens at 0.00001 USD"
    enough = few.with_one(4_000, 100, Usage(1_000, 100, 1_100), 0.011)
    assert enough.expected_nusd(size) == 11_000_000
