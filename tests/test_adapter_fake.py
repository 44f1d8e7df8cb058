"""The adapter without a model."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from adapter_contract import AdapterContract

from effects.adapters import AdapterError, FakeAdapter, FakeRule, ModelResponse, Usage
from rlm_fsm.errors import UsageError


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class TestFakeAdapter(AdapterContract):
    @contextmanager
    def answering(self, *replies: str) -> Iterator[FakeAdapter]:
        yield FakeAdapter(script=replies)


def test_the_seeds_quick_start_gets_its_answers() -> None:
    adapter = FakeAdapter(script=["answer = llm_query('x')", "FINAL_VAR: answer"])
    adapter.add_rule("You are a sub-LLM", "[fake] short summary")
    root = [{"role": "system", "content": "You answer a question."}, *user("Summarize this.")]
    leaf = [{"role": "system", "content": "You are a sub-LLM of a task."}, *user("x")]

    replies = [adapter.complete(messages).text for messages in (root, leaf, root)]

    assert replies == ["answer = llm_query('x')", "[fake] short summary", "FINAL_VAR: answer"]


def test_rules_come_before_the_script_and_in_their_order() -> None:
    adapter = FakeAdapter(
        ["from the script"], rules=[FakeRule("blue", "first"), FakeRule("blue sky", "second")]
    )
    assert adapter.complete(user("the blue sky")).text == "first"
    assert adapter.complete(user("the red sky")).text == "from the script"


def test_a_rule_that_is_meant_once_is_used_once() -> None:
    adapter = FakeAdapter(["later"])
    adapter.add_rule("sky", "now", once=True)
    assert [adapter.complete(user("sky")).text for _ in range(2)] == ["now", "later"]


def test_the_empty_pattern_matches_everything_even_no_messages() -> None:
    adapter = FakeAdapter()
    adapter.add_rule("", "yes")
    assert adapter.complete(user("anything")).text == "yes"
    assert adapter.complete([]).text == "yes"


def test_a_regular_expression_is_searched_for() -> None:
    adapter = FakeAdapter()
    adapter.add_rule(pattern=r"find.*key", response="key_term", regex=True)
    assert adapter.complete(user("please find the key")).text == "key_term"


@pytest.mark.parametrize("regex", [False, True])
def test_a_pattern_may_span_messages_since_they_are_joined_by_newlines(regex: bool) -> None:
    adapter = FakeAdapter()
    adapter.add_rule("end\nstart", "found", regex)
    assert adapter.complete([*user("the end"), *user("start again")]).text == "found"


def test_a_bad_regular_expression_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        FakeAdapter().add_rule("(", "x", regex=True)


def test_one_text_as_a_script_is_refused() -> None:
    with pytest.raises(UsageError, match="list of replies"):
        FakeAdapter("FINAL: 1")


def test_a_scripted_exception_is_raised_and_the_script_goes_on() -> None:
    adapter = FakeAdapter([AdapterError("busy", kind="rate_limit", status=429), "fine"])
    with pytest.raises(AdapterError, match="busy") as caught:
        adapter.complete(user("x"))
    assert (caught.value.kind, caught.value.status) == ("rate_limit", 429)
    assert adapter.complete(user("x")).text == "fine"


def test_a_rule_with_an_error_raises_it_each_time() -> None:
    adapter = FakeAdapter()
    adapter.add_rule("boom", "never", error=TimeoutError("too slow"))
    for _ in range(2):
        with pytest.raises(TimeoutError, match="too slow"):
            asyncio.run(adapter.acomplete(user("boom")))


def test_a_function_answers_from_the_messages() -> None:
    adapter = FakeAdapter([lambda messages: messages[-1]["content"].upper()])
    adapter.add_rule("fail", lambda _: ValueError("from a function"))
    with pytest.raises(ValueError, match="from a function"):
        adapter.complete(user("fail"))
    assert adapter.complete(user("shout")).text == "SHOUT"


def test_a_whole_response_is_returned_as_it_is() -> None:
    response = ModelResponse("x", Usage(1, 2, 3), "other", {"finish_reason": "length"})
    assert FakeAdapter([response]).complete(user("?")) is response


def test_something_else_as_a_response_is_refused() -> None:
    with pytest.raises(UsageError, match="given int as a response"):
        FakeAdapter([7]).complete(user("?"))


def test_usage_is_estimated_and_marked_unless_given() -> None:
    adapter = FakeAdapter(["y" * 40])
    adapter.add_rule("given", "x", usage=Usage(5, 6, 11, cached_tokens=2))
    assert adapter.complete(user("x" * 80)).usage == Usage(20, 10, 30, estimated=True)
    assert adapter.complete(user("given")).usage == Usage(5, 6, 11, cached_tokens=2)


def test_an_exhausted_adapter_shows_the_head_of_the_last_message() -> None:
    with pytest.raises(AdapterError, match="no matching rule and no script left") as caught:
        FakeAdapter().complete([*user("first"), *user("the last one " + "x" * 10_000)])
    assert "the last one" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_call_log_holds_copies() -> None:
    adapter = FakeAdapter(["a", "b", "c"])
    messages = user("one")
    adapter.complete(messages)
    messages.extend(user("two"))
    adapter.complete(messages)
    messages[0]["content"] = "changed"
    adapter.complete(messages)
    contents = [[message["content"] for message in call] for call in adapter.call_log]
    assert contents == [["one"], ["one", "two"], ["changed", "two"]]


def test_the_call_log_of_a_growing_conversation_shares_its_messages() -> None:
    adapter = FakeAdapter()
    adapter.add_rule("", "ok")
    messages = [*user("system"), *user("task")]
    for turn in range(50):
        adapter.complete([dict(message) for message in messages])
        adapter.complete([*user("subcall"), *user(f"prompt {turn}")])
        messages.extend(user(f"turn {turn}"))
    conversation = adapter.call_log[::2]
    kept = {id(message) for call in conversation for message in call}
    assert [len(call) for call in conversation] == list(range(2, 52))
    assert len(kept) == len(conversation[-1])


def test_delays_are_real_and_a_rules_own_wins() -> None:
    adapter = FakeAdapter(["slow"], delay_s=0.05)
    adapter.add_rule("quick", "x", delay_s=0.001)
    started = time.perf_counter()
    adapter.complete(user("quick"))
    between = time.perf_counter()
    asyncio.run(adapter.acomplete(user("?")))
    ended = time.perf_counter()
    assert between - started >= 0.001
    assert ended - between >= 0.05


def test_delayed_calls_of_one_loop_wait_together() -> None:
    adapter = FakeAdapter(delay_s=0.1)
    adapter.add_rule("", "x")

    async def many() -> None:
        await asyncio.gather(*(adapter.acomplete(user("?")) for _ in range(30)))

    started = time.perf_counter()
    asyncio.run(many())
    assert time.perf_counter() - started < 1.5  # one after the other would take 3 s


@pytest.mark.parametrize("delay_s", [-1.0, float("nan")])
def test_a_delay_that_is_no_time_is_refused(delay_s: float) -> None:
    with pytest.raises(UsageError, match="delay_s"):
        FakeAdapter(delay_s=delay_s)
    with pytest.raises(UsageError, match="delay_s"):
        FakeAdapter().add_rule("x", "y", delay_s=delay_s)


def test_threads_share_the_script_without_losing_or_repeating_items() -> None:
    adapter = FakeAdapter([str(n) for n in range(400)])
    texts: list[str] = []

    def work() -> None:
        texts.extend([adapter.complete(user("?")).text for _ in range(100)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts, key=int) == [str(n) for n in range(400)]
    assert len(adapter.call_log) == 400


def test_the_face_module_and_the_fake_load_no_http_client() -> None:
    code = (
        "import sys, rlm_fsm.adapters as face\n"
        "assert 'effects' not in sys.modules\n"
        "face.FakeAdapter(['x']).complete([]); face.AdapterError; face.ModelAdapter; face.Usage\n"
        "assert 'httpx' not in sys.modules\n"
        "assert face.OpenAICompatAdapter.__name__ == 'OpenAICompatAdapter'\n"
        "assert set(face.__all__) <= set(dir(face))\n"
        "try: face.Nothing\n"
        "except AttributeError as error: assert 'Nothing' in str(error)\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
