"""Retries, waits, connections, event loops and cancellation of adapters over HTTP."""

import asyncio
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from adapter_contract import MESSAGES, AdapterContract
from adapter_driving import KEY, SILENCE, Waits, adapter_for, failing, until
from loopback import ChatServer, LoopbackServer, Respond, chat, error

from effects.adapters import OpenAICompatAdapter
from effects.adapters.faults import Backoff, retry_after_s


class TestOpenAICompatAdapter(AdapterContract):
    @contextmanager
    def answering(self, *replies: str) -> Iterator[OpenAICompatAdapter]:
        with LoopbackServer([chat(reply) for reply in replies]) as server:
            yield adapter_for(server)


# Retries


def test_a_call_survives_faults_that_pass() -> None:
    script = [error(503, "busy"), Respond(raw=b"", end="reset"), Respond(body="<html>"), chat("ok")]
    waits = Waits()
    with LoopbackServer(script) as server:
        response = adapter_for(server, backoff=waits.backoff).complete(MESSAGES)
    assert response.text == "ok"
    assert waits == [0.25, 0.5, 1.0]
    assert {json.dumps(request.json) for request in server.requests} == {
        json.dumps(server.requests[0].json)
    }


def test_without_retries_there_is_one_attempt() -> None:
    with LoopbackServer([error(503, "busy")]) as server:
        failing(adapter_for(server, max_retries=0))
    assert len(server.requests) == 1


def test_waits_double_up_to_a_limit_and_are_spread() -> None:
    middle = Backoff(rng=lambda: 0.5)
    assert [middle.wait_s(n, None) for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert Backoff(rng=lambda: 0.0).wait_s(1, None) == 0.25
    assert Backoff(rng=lambda: 1.0).wait_s(1, None) == 0.75
    assert middle.wait_s(10_000, None) == 8


DATE = {"Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
RETRY_AFTER = [
    ({"Retry-After": "7"}, 7.0),
    ({"Retry-After": "1.5"}, 1.5),
    ({"Retry-After": "Wed, 21 Oct 2026 07:28:09 GMT", **DATE}, 9.0),
    ({"Retry-After": "7", "retry-after-ms": "1250"}, 1.25),
    ({"Retry-After": "0"}, 0.25),
    ({"Retry-After": "-5"}, 0.25),
    ({"Retry-After": "Wed, 21 Oct 2020 07:28:09 GMT", **DATE}, 0.25),
    ({"Retry-After": "soon"}, 0.25),
    ({"Retry-After": "nan"}, 0.25),
    ({"Retry-After": "Wed, 99 Oct 99999 07:28:09 GMT"}, 0.25),
    ({}, 0.25),
]


@pytest.mark.parametrize(("headers", "wait_s"), RETRY_AFTER)
def test_retry_after_is_waited_for(headers: dict[str, str], wait_s: float) -> None:
    waits = Waits()
    with LoopbackServer([error(429, "slow down", headers=headers), chat("ok")]) as server:
        assert adapter_for(server, backoff=waits.backoff).complete(MESSAGES).text == "ok"
    assert waits == [wait_s]


def test_a_retry_after_date_without_the_servers_own_is_measured_by_our_clock() -> None:
    headers = {"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}
    assert retry_after_s(headers, now_s=45.0) == 15.0


@pytest.mark.parametrize("seconds", ["301", "86400", "1e12", "inf"])
def test_an_absurd_retry_after_fails_at_once_and_says_so(seconds: str) -> None:
    waits = Waits()
    refusal = error(429, "slow down", headers={"Retry-After": seconds})
    with LoopbackServer([refusal]) as server:
        failure = failing(adapter_for(server, backoff=waits.backoff))
    assert failure.kind == "rate_limit"
    assert "(1 attempt; the server asks to wait" in str(failure)
    assert "at most 300 s" in str(failure)
    assert waits == []


def test_a_retry_after_beyond_the_deadline_fails_at_once_and_says_so() -> None:
    waits = Waits()
    with LoopbackServer([error(429, "slow", headers={"Retry-After": "60"})]) as server:
        failure = failing(adapter_for(server, deadline=30, backoff=waits.backoff))
    says = "the server asks to wait 60 s, which would pass the deadline of 30 s"
    assert says in str(failure)
    assert waits == []


def test_a_long_retry_after_within_the_deadline_is_waited_for() -> None:
    waits = Waits()
    script = [error(429, "slow", headers={"Retry-After": "400"}), chat("ok")]
    with LoopbackServer(script) as server:
        adapter_for(server, deadline=1000, backoff=waits.backoff).complete(MESSAGES)
    assert waits == [400.0]


# Connections, loops, cancellation


def test_twenty_calls_run_at_once_and_get_their_own_answers() -> None:
    async def many(adapter: OpenAICompatAdapter) -> list[str]:
        calls = (adapter.acomplete([{"role": "user", "content": str(n)}]) for n in range(20))
        return [response.text for response in await asyncio.gather(*calls)]

    with ChatServer(lambda messages: messages[-1]["content"], key=KEY, delay_s=0.5) as server:
        texts = asyncio.run(many(adapter_for(server)))
    assert texts == [str(n) for n in range(20)]
    assert server.most_at_once == 20


def test_calls_one_after_another_use_one_connection() -> None:
    async def calls(adapter: OpenAICompatAdapter) -> None:
        for _ in range(5):
            await adapter.acomplete(MESSAGES)

    with LoopbackServer([chat("x")]) as server:
        asyncio.run(calls(adapter_for(server)))
    assert {request.connection for request in server.requests} == {1}


def test_a_kept_connection_that_the_server_dropped_is_replaced() -> None:
    async def calls(adapter: OpenAICompatAdapter) -> list[str]:
        first = await adapter.acomplete(MESSAGES)
        second = await adapter.acomplete(MESSAGES)
        return [first.text, second.text]

    with LoopbackServer([replace(chat("a"), end="close"), chat("b")]) as server:
        assert asyncio.run(calls(adapter_for(server))) == ["a", "b"]


def test_cancelling_hangs_up_and_the_adapter_goes_on() -> None:
    async def scenario(server: LoopbackServer, adapter: OpenAICompatAdapter) -> str:
        call = asyncio.create_task(adapter.acomplete(MESSAGES))
        await until(lambda: bool(server.requests))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: server.requests[0].hung_up)
        return (await adapter.acomplete(MESSAGES)).text

    with LoopbackServer([SILENCE, chat("next")]) as server:
        assert asyncio.run(scenario(server, adapter_for(server))) == "next"
    assert len(server.requests) == 2


def test_aclose_closes_connections_and_the_adapter_can_still_be_used() -> None:
    async def scenario(adapter: OpenAICompatAdapter) -> None:
        async with adapter:
            await adapter.acomplete(MESSAGES)
        await adapter.aclose()
        await adapter.acomplete(MESSAGES)

    with LoopbackServer([chat("x")]) as server:
        asyncio.run(scenario(adapter_for(server)))
    assert [request.connection for request in server.requests] == [1, 2]


def test_close_in_a_running_loop_closes_its_connections() -> None:
    async def scenario(server: LoopbackServer) -> None:
        with adapter_for(server) as adapter:
            await adapter.acomplete(MESSAGES)
            assert server.open_connections == 1
        await until(lambda: server.open_connections == 0)

    with LoopbackServer([chat("x")]) as server:
        asyncio.run(scenario(server))


def test_an_adapter_that_is_dropped_in_a_running_loop_closes_its_connections() -> None:
    async def scenario(server: LoopbackServer) -> None:
        await adapter_for(server).acomplete(MESSAGES)
        await until(lambda: server.open_connections == 0)

    with LoopbackServer([chat("x")]) as server:
        asyncio.run(scenario(server))


def test_close_closes_the_connections_of_a_loop_that_stands_still() -> None:
    with LoopbackServer([chat("x")]) as server:
        adapter = adapter_for(server)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(adapter.acomplete(MESSAGES))
        adapter.close()
        adapter.close()
        loop.close()
    gc.collect()


def test_nobody_has_to_close_an_adapter() -> None:
    async def scenario(adapter: OpenAICompatAdapter) -> None:
        await asyncio.gather(*(adapter.acomplete(MESSAGES) for _ in range(20)))

    with LoopbackServer([chat("x", delay_s=0.05)]) as server:
        adapter = adapter_for(server)
        asyncio.run(scenario(adapter))
        asyncio.run(scenario(adapter))
        asyncio.run(scenario(adapter_for(server)))  # forgotten just before its loop ends
        del adapter
        gc.collect()  # what was left open would warn now


def test_calls_leave_no_event_loop_behind() -> None:
    def loops() -> int:
        gc.collect()
        return sum(isinstance(thing, asyncio.AbstractEventLoop) for thing in gc.get_objects())

    with LoopbackServer([chat("x")]) as server:
        adapter = adapter_for(server)
        adapter.complete(MESSAGES)
        before = loops()
        for _ in range(5):
            adapter.complete(MESSAGES)
            asyncio.run(adapter.acomplete(MESSAGES))
        # The last of the loops that were run without `aclose` is found by the next call.
        assert loops() <= before + 1


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with LoopbackServer([chat("direct")]) as server:
        assert adapter_for(server).complete(MESSAGES).text == "direct"
