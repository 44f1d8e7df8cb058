"""Everything that a model endpoint can do wrong, and what must come of it."""

import asyncio
import gc
import gzip
import json
import socket
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from adapter_driving import GOOD, KEY, PACKED, SILENCE, Waits, adapter_for, failing, until
from loopback import LoopbackServer, Respond, error

from effects.adapters import OpenAICompatAdapter
from effects.adapters.faults import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A way to fail and what must come of it."""

    name: str
    respond: Respond
    kind: str
    attempts: int
    status: int | None = None
    says: str = ""
    """A part of the message."""


RETRIES = 2
ONCE, AGAIN = 1, 1 + RETRIES
ECHO = f"You sent {KEY}, which is wrong"


def of_status(status: int, kind: str, attempts: int) -> Fault:
    return Fault(
        name=f"status {status}",
        respond=error(status, ECHO),
        kind=kind,
        attempts=attempts,
        status=status,
        says="You sent [key], which is wrong",
    )


def no_reply(name: str, body: Any, says: str) -> Fault:
    return Fault(
        name=name,
        respond=Respond(body=body),
        kind="bad_response",
        attempts=AGAIN,
        status=200,
        says=says,
    )


def connection(name: str, respond: Respond) -> Fault:
    return Fault(
        name=name, respond=respond, kind="connection", attempts=AGAIN, says="the connection failed"
    )


def choices(*items: Any) -> dict[str, Any]:
    return {"choices": list(items)}


FAULTS = [
    of_status(400, "bad_request", ONCE),
    of_status(401, "auth", ONCE),
    of_status(403, "auth", ONCE),
    of_status(404, "bad_request", ONCE),
    of_status(413, "bad_request", ONCE),
    of_status(422, "bad_request", ONCE),
    of_status(501, "server", ONCE),
    of_status(408, "timeout", AGAIN),
    of_status(409, "server", AGAIN),
    of_status(429, "rate_limit", AGAIN),
    of_status(500, "server", AGAIN),
    of_status(502, "server", AGAIN),
    of_status(503, "server", AGAIN),
    of_status(504, "server", AGAIN),
    of_status(529, "server", AGAIN),
    Fault(
        name="redirect",
        respond=Respond(status=308, headers={"Location": f"http://u:p@127.0.0.1/x?key={KEY}"}),
        kind="bad_request",
        attempts=ONCE,
        status=308,
        says="it redirects to http://127.0.0.1/x",
    ),
    Fault(
        name="error page that is no JSON",
        respond=Respond(status=502, body=f"<h1>Bad gateway</h1>\r\n\x1b[31m{KEY}"),
        kind="server",
        attempts=AGAIN,
        status=502,
        says="<h1>Bad gateway</h1> ?[31m[key]",
    ),
    Fault(
        name="error in a packed body",
        respond=Respond(
            status=401, body=gzip.compress(b'{"detail": "no such user"}'), headers=PACKED
        ),
        kind="auth",
        attempts=ONCE,
        status=401,
        says="no such user",
    ),
    Fault(
        name="error in a body packed in an unknown way",
        respond=Respond(status=429, body=b"\x00\x01", headers={"Content-Encoding": "br"}),
        kind="rate_limit",
        attempts=AGAIN,
        status=429,
    ),
    connection("hang-up before a byte", Respond(raw=b"", end="close")),
    connection("reset before a byte", Respond(raw=b"", end="reset")),
    connection("hang-up in the head", Respond(body=GOOD, cut=20, end="close")),
    connection("hang-up in the body", Respond(body=GOOD, cut=150, end="close")),
    connection("reset in the body", Respond(body=GOOD, cut=150, end="reset")),
    connection(
        "length too long", Respond(body=GOOD, headers={"Content-Length": "9999"}, end="close")
    ),
    connection("not HTTP", Respond(raw=b"220 mail.example ESMTP\r\n\r\n", end="close")),
    no_reply("HTML", f"<html><title>Sign in</title>{KEY}", "It begins: <html><title>Sign in"),
    no_reply("error object", {"error": {"message": ECHO}}, "You sent [key], which is wrong"),
    no_reply("error text", {"error": "model is loading"}, "model is loading"),
    no_reply("nothing", b"", "it is empty"),
    no_reply("broken JSON", b'{"choices": [', "the reply is no JSON"),
    no_reply("invalid UTF-8", b'{"choices": "\xff\xfe"}', "the reply is no JSON"),
    no_reply("deep JSON", b"[" * 200_000, "the reply is no JSON"),
    no_reply("a list", [1, 2], "the body is a list instead of an object"),
    no_reply("no choices", {"id": "x"}, 'it has no "choices"'),
    no_reply("empty choices", choices(), 'it has no "choices"'),
    no_reply("null choices", {"choices": None}, 'it has no "choices"'),
    no_reply("choice is null", choices(None), "choices[0] is null"),
    no_reply("no message", choices({"index": 0}), "choices[0].message is null"),
    no_reply("content is a number", choices({"message": {"content": 5}}), "content is a int"),
    no_reply("choice is an error", choices({"error": {"message": "overloaded"}}), "overloaded"),
    no_reply(
        "length too short",
        Respond(body=GOOD, headers={"Content-Length": "50"}),
        "the reply is no JSON",
    ),
    Fault(
        name="broken gzip",
        respond=Respond(body=b"no gzip", headers=PACKED),
        kind="bad_response",
        attempts=AGAIN,
        status=200,
        says="broken",
    ),
    Fault(
        name="gzip that ends early",
        respond=Respond(body=gzip.compress(json.dumps(GOOD).encode())[:-20], headers=PACKED),
        kind="bad_response",
        attempts=AGAIN,
        status=200,
        says="ends too early",
    ),
    Fault(
        name="gzip bomb",
        respond=Respond(body=gzip.compress(bytes(64 << 20), 1), headers=PACKED),
        kind="bad_response",
        attempts=ONCE,
        status=200,
        says="larger than 32 MiB",
    ),
    Fault(
        name="huge body",
        respond=Respond(body=bytes(33 << 20)),
        kind="bad_response",
        attempts=ONCE,
        status=200,
        says="larger than 32 MiB",
    ),
    Fault(
        name="unknown encoding",
        respond=Respond(body=b"x", headers={"Content-Encoding": "br"}),
        kind="bad_response",
        attempts=ONCE,
        status=200,
        says="'br'",
    ),
]
FAULTS = [
    replace(fault, respond=fault.respond.body) if isinstance(fault.respond.body, Respond) else fault
    for fault in FAULTS
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_ends_in_its_kind_after_its_attempts_without_the_key(fault: Fault) -> None:
    with LoopbackServer([fault.respond]) as server:
        failure = failing(adapter_for(server, max_retries=RETRIES))

    message = str(failure)
    assert (failure.kind, failure.status) == (fault.kind, fault.status)
    assert len(server.requests) == fault.attempts
    assert f"({fault.attempts} attempt" in message
    assert fault.says in message
    assert f"model 'loop-1' at {server.base_url}/chat/completions" in message
    assert KEY not in message + repr(failure)
    assert failure.__cause__ is failure.__context__ is None
    assert message.isprintable()
    assert len(message) < 1_000


SLOW = {
    "silence": SILENCE,
    "one byte of the head now and then": Respond(body=GOOD, drip_s=0.1, drips="head"),
    "one byte of the body now and then": Respond(body=GOOD, drip_s=0.1, drips="body"),
    "one byte of an error now and then": replace(error(500, "x"), drip_s=0.1),
}


@pytest.mark.parametrize("name", SLOW)
def test_the_timeout_ends_an_attempt_however_the_server_dawdles(name: str) -> None:
    with LoopbackServer([SLOW[name]]) as server:
        started = time.perf_counter()
        failure = failing(adapter_for(server, timeout=0.3, max_retries=1))
        elapsed = time.perf_counter() - started
    assert failure.kind == "timeout"
    assert "no complete answer within 0.3 s (2 attempts)" in str(failure)
    assert 0.6 <= elapsed < 3


def test_the_deadline_ends_all_attempts() -> None:
    with LoopbackServer([error(503, "busy"), SILENCE]) as server:
        started = time.perf_counter()
        failure = failing(adapter_for(server, timeout=60, deadline=0.4, backoff=Backoff(first_s=0)))
        elapsed = time.perf_counter() - started
    assert failure.kind == "timeout"
    assert "the deadline of 0.4 s passed before a complete answer (2 attempts)" in str(failure)
    assert 0.4 <= elapsed < 3


def test_no_attempt_is_waited_for_that_the_deadline_forbids() -> None:
    with LoopbackServer([error(503, "busy")]) as server:
        failure = failing(
            adapter_for(server, deadline=5, backoff=Backoff(first_s=60, longest_s=60))
        )
    assert (failure.kind, failure.status) == ("server", 503)
    assert "busy (1 attempt; no time for another attempt before the deadline of 5 s)" in str(
        failure
    )


def test_a_server_that_is_not_there_is_a_connection_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        waits = Waits()
        adapter = OpenAICompatAdapter("m", url, backoff=waits.backoff, max_retries=1)
        failure = failing(adapter)
    assert failure.kind == "connection"
    assert failure.status is None
    assert "(2 attempts). Check base_url and the network." in str(failure)
    assert len(waits) == 1


def test_a_name_that_no_server_has_is_a_connection_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    adapter = OpenAICompatAdapter("m", "http://no.such.host/v1", backoff=Waits().backoff)
    failure = failing(adapter)
    assert failure.kind == "connection"
    assert "Name or service not known (4 attempts)" in str(failure)


def test_tls_to_a_server_without_it_is_not_tried_again() -> None:
    waits = Waits()
    with LoopbackServer([Respond(raw=b"HTTP/1.1 400 no TLS here\r\n\r\n")]) as server:
        url = server.base_url.replace("http://", "https://")
        failure = failing(OpenAICompatAdapter("m", url, backoff=waits.backoff))
    assert failure.kind == "connection"
    assert "(1 attempt)" in str(failure)
    assert waits == []


def test_a_tls_handshake_that_hangs_is_ended_and_closed() -> None:
    with LoopbackServer([Respond(delay_s=60)]) as server:
        url = server.base_url.replace("http://", "https://")
        failure = failing(OpenAICompatAdapter("m", url, timeout=0.3, max_retries=0))
        asyncio.run(until(lambda: server.requests[0].hung_up))
    assert failure.kind == "timeout"
    assert [request.method for request in server.requests] == ["TLS"]
    gc.collect()  # a connection left open would warn now
