"""What every cache owes the runs that ask it. Subclass `CacheContract` once per cache."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from effects.caches.base import Cache, CachedReply, CacheRequest
from rlm_fsm.values import Usage

KEY, OTHER = "0a" * 32, "0b" * 32
REQUEST = CacheRequest(
    adapter={"kind": "k", "model": "m"}, max_tokens=9, temperature=0.0, sample=0, prompt="why?"
)
REPLY = CachedReply(
    text="because \N{SNOWMAN} \ud800 \0 \N{GRINNING FACE}",
    model_id="m-1",
    finish_reason="stop",
    reasoning="hm",
    usage=Usage(11, 7, 18, cached_tokens=3, reasoning_tokens=2, estimated=True),
    cost_usd=0.25,
)
LONG = CachedReply(text="long " * 200_000)


class CacheContract:
    """The tests. A subclass says how an empty cache is had."""

    def make(self) -> Cache:
        """An empty cache."""
        raise NotImplementedError

    @pytest.fixture
    def cache(self) -> Cache:
        return self.make()

    def test_what_was_put_is_given_again_to_the_last_field(self, cache: Cache) -> None:
        for reply in (REPLY, LONG, CachedReply(text="bare")):
            cache.put(KEY, reply, REQUEST)
            assert cache.get(KEY) == reply

    def test_what_was_never_put_is_a_miss(self, cache: Cache) -> None:
        assert cache.get(KEY) is None
        cache.put(KEY, REPLY, REQUEST)
        assert cache.get(OTHER) is None

    def test_a_later_reply_takes_the_place_of_the_first(self, cache: Cache) -> None:
        cache.put(KEY, REPLY, REQUEST)
        cache.put(KEY, replace(REPLY, text="later"), REQUEST)
        found = cache.get(KEY)
        assert found is not None
        assert found.text == "later"

    def test_threads_see_whole_replies_only(self, cache: Cache) -> None:
        replies = [replace(LONG, text=letter * 50_000) for letter in "abcd"]

        def work(number: int) -> bool:
            cache.put(KEY, replies[number % 4], REQUEST)
            return cache.get(KEY) in replies

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(40)))
