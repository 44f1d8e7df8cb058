"""What every model adapter owes its callers. Subclass `AdapterContract` once per adapter."""

import asyncio
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from effects.adapters import ModelAdapter, ModelResponse, Usage

MESSAGES = (
    MappingProxyType({"role": "system", "content": "Be brief."}),
    MappingProxyType({"role": "user", "content": "What is the capital of Peru?"}),
)
"""Read-only: an adapter that changes its messages raises."""


class AdapterContract:
    """The tests. A subclass says how an adapter with given replies is had."""

    def answering(self, *replies: str) -> AbstractContextManager[Any]:
        """An adapter that gives these replies, one per call."""
        raise NotImplementedError

    def test_it_is_a_model_adapter_that_names_its_model(self) -> None:
        with self.answering("Lima") as adapter:
            assert isinstance(adapter, ModelAdapter)
            assert isinstance(adapter.model, str)
            assert adapter.model

    def test_complete_returns_the_text_with_usage(self) -> None:
        with self.answering("Lima") as adapter:
            response = adapter.complete(MESSAGES)
        check(response, "Lima")

    def test_acomplete_returns_the_text_with_usage(self) -> None:
        with self.answering("Lima") as adapter:
            response = asyncio.run(adapter.acomplete(MESSAGES))
        check(response, "Lima")

    def test_both_ways_of_calling_give_the_same_response(self) -> None:
        with self.answering("Lima", "Lima") as adapter:
            assert adapter.complete(MESSAGES) == asyncio.run(adapter.acomplete(MESSAGES))

    def test_replies_come_in_order(self) -> None:
        with self.answering("one", "two", "three") as adapter:
            assert [adapter.complete(MESSAGES).text for _ in range(3)] == ["one", "two", "three"]

    def test_limits_are_keywords_in_any_order(self) -> None:
        with self.answering("a", "b", "c") as adapter:
            assert adapter.complete(MESSAGES, max_tokens=5, temperature=0.7).text == "a"
            assert adapter.complete(messages=MESSAGES, temperature=0.7, max_tokens=5).text == "b"
            call = adapter.acomplete(MESSAGES, temperature=0.0, max_tokens=1)
            assert asyncio.run(call).text == "c"

    def test_messages_are_left_as_they_were(self) -> None:
        messages = [{"role": "user", "content": "What?"}]
        with self.answering("a", "b") as adapter:
            adapter.complete(messages)
            asyncio.run(adapter.acomplete(messages))
        assert messages == [{"role": "user", "content": "What?"}]

    def test_texts_of_all_scripts_come_through_whole(self) -> None:
        text = 'Ω 漢字 🦀 e\u0301 "quoted" \\ \t line\nbreak \x00 end'
        with self.answering(text) as adapter:
            assert adapter.complete([{"role": "user", "content": text}]).text == text

    def test_a_lone_surrogate_in_a_prompt_does_no_harm(self) -> None:
        with self.answering("fine") as adapter:
            assert (
                adapter.complete([{"role": "user", "content": "half \ud83e pair"}]).text == "fine"
            )

    def test_an_empty_reply_is_a_reply(self) -> None:
        with self.answering("") as adapter:
            assert adapter.complete(MESSAGES).text == ""

    def test_it_works_in_one_event_loop_after_another(self) -> None:
        async def two(adapter: Any) -> list[str]:
            return [(await adapter.acomplete(MESSAGES)).text for _ in range(2)]

        with self.answering("a", "b", "c", "d", "e") as adapter:
            assert asyncio.run(two(adapter)) == ["a", "b"]
            assert asyncio.run(two(adapter)) == ["c", "d"]
            assert adapter.complete(MESSAGES).text == "e"

    def test_complete_also_works_inside_a_running_event_loop(self) -> None:
        async def call(adapter: Any) -> list[str]:
            return [(await adapter.acomplete(MESSAGES)).text, adapter.complete(MESSAGES).text]

        with self.answering("a", "b") as adapter:
            assert asyncio.run(call(adapter)) == ["a", "b"]

    def test_many_calls_may_run_at_once(self) -> None:
        async def many(adapter: Any) -> list[str]:
            calls = (adapter.acomplete(MESSAGES) for _ in range(20))
            return [response.text for response in await asyncio.gather(*calls)]

        replies = [f"reply {n}" for n in range(20)]
        with self.answering(*replies) as adapter:
            assert sorted(asyncio.run(many(adapter))) == sorted(replies)


def check(response: Any, text: str) -> None:
    """A response is well formed."""
    assert isinstance(response, ModelResponse)
    assert response.text == text
    usage = response.usage
    assert isinstance(usage, Usage)
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens >= usage.prompt_tokens + usage.completion_tokens
    assert response.model_id is None or response.model_id
    assert dict(response.meta or {}).get("finish_reason") == "stop"
