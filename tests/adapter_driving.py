"""What the tests of adapters over HTTP share: an adapter that doesn't wait, and how it fails."""

import asyncio
from typing import Any

import pytest
from adapter_contract import MESSAGES
from loopback import LoopbackServer, Respond, completion

from effects.adapters import AdapterError, OpenAICompatAdapter
from effects.adapters.faults import Backoff

KEY = "sk-loopback-0123456789abcdef"


class Waits(list[float]):
    """Records waits in place of waiting."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)

    @property
    def backoff(self) -> Backoff:
        return Backoff(rng=lambda: 0.0, sleep=self.sleep)


def adapter_for(server: LoopbackServer, **options: Any) -> OpenAICompatAdapter:
    """An adapter that doesn't wait between attempts."""
    options.setdefault("backoff", Waits().backoff)
    return OpenAICompatAdapter("loop-1", server.base_url, KEY, **options)


def failing(adapter: OpenAICompatAdapter) -> AdapterError:
    """The error of a call that must fail."""
    with pytest.raises(AdapterError) as caught:
        adapter.complete(MESSAGES)
    return caught.value


GOOD = completion("hello")
PACKED = {"Content-Encoding": "gzip"}
SILENCE = Respond(body=GOOD, delay_s=60)


async def until(condition: Any) -> None:
    """Wait for something that the server does; 10 seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (it comes true in the server's thread)
            await asyncio.sleep(0.005)
