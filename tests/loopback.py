"""A real HTTP server on 127.0.0.1 that misbehaves as it is told, for tests of what talks HTTP.

`LoopbackServer` answers each request with a scripted `Respond`: delays, single bytes now and
then, lies about lengths, disconnects, bytes that are no HTTP at all. `ChatServer` is an
OpenAI-compatible endpoint driven by a function from messages to text.

    with LoopbackServer([Respond(status=503), chat("hello")]) as server: ...
    with ChatServer(lambda messages: "hello") as server: ... server.base_url ...

It runs in a thread of its own with its own event loop, so a test may block or use asyncio.
Delays end as soon as the server is closed or the client hangs up.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from rlm_fsm.values import Usage

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
"""What `chat` reports unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """How to answer one request."""

    status: int = 200
    body: bytes | str | Any = b""
    """Bytes, a text, or anything else as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Added; a ``Content-Length`` here may be a lie."""
    delay_s: float = 0.0
    """Seconds before the first byte."""
    drip_s: float = 0.0
    """Seconds after each single byte of what drips."""
    drips: Literal["head", "body"] = "body"
    raw: bytes | None = None
    """Sent as it is, in place of status, headers and body."""
    cut: int | None = None
    """Bytes of head and body after which nothing more is sent."""
    end: Literal["keep", "close", "reset"] = "keep"
    """What happens to the connection afterwards."""


@dataclass(slots=True, kw_only=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    connection: int
    """Which connection it came on, counted from 1."""
    hung_up: bool = False
    """Whether the client went away before it was answered."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Iterable[Respond] | Callable[[Request], Respond]


class LoopbackServer:
    """Answers by a script (its last item goes on for ever) or by a function of the request.

    The function runs in the server's loop, one call at a time: it needs no lock, and must be
    quick (`Respond.delay_s` is for waiting).
    """

    def __init__(self, script: Script) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        """Largest number of requests that were being answered at the same time."""
        self.failures: list[BaseException] = []
        """What went wrong in the server itself; raised when it is closed."""
        self._answer = script if callable(script) else _in_order(script)
        self._open = 0
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the loopback server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the loopback server did not stop"
        if self.failures:
            raise self.failures[0]

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._tasks)

    @property
    def url(self) -> str:
        """The server's root, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI-compatible client is given."""
        return f"{self.url}/v1"

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(
            lambda: asyncio.StreamReaderProtocol(_Reader(), self._connected),
            "127.0.0.1",
            0,
            backlog=1000,
        )
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: "_Reader", writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        task = asyncio.create_task(self._serve(reader, writer, self._connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: "_Reader", writer: asyncio.StreamWriter, connection: int
    ) -> None:
        # A client that goes away is part of many tests, not a failure of the server.
        try:
            while (request := await _read_request(reader, connection)) is not None:
                self.requests.append(request)
                if not await self._reply(request, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _reply(
        self, request: Request, reader: "_Reader", writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether the connection lives on."""
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            respond = self._answer(request)
            if not await _send_or_hang_up(respond, reader, writer):
                request.hung_up = True
                return False
            if respond.end == "reset":
                writer.transport.abort()
            return respond.end == "keep"
        finally:
            self._open -= 1


class ChatServer(LoopbackServer):
    """An OpenAI-compatible endpoint: `reply` makes a text, or a whole `Respond`, of the messages.

    With `key`, requests that don't bring it get 401. `delay_s` is every answer's latency.
    """

    def __init__(
        self,
        reply: Callable[[list[dict[str, str]]], str | Respond],
        *,
        key: str | None = None,
        delay_s: float = 0.0,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        self._reply_of = reply
        self._key = key
        self._delay_s = delay_s
        self._usage = usage
        super().__init__(self._respond)

    @property
    def conversations(self) -> list[list[dict[str, str]]]:
        """The messages of every request, in the order of arrival."""
        return [request.json["messages"] for request in self.requests]

    def _respond(self, request: Request) -> Respond:
        if request.method != "POST" or request.path != "/v1/chat/completions":
            return error(404, f"no such path: {request.path}")
        if self._key is not None and request.headers.get("authorization") != f"Bearer {self._key}":
            return error(401, "Incorrect API key provided.", code="invalid_api_key")
        made = self._reply_of(request.json["messages"])
        if isinstance(made, Respond):
            return made
        return chat(
            made, usage=self._usage, model=request.json.get("model", ""), delay_s=self._delay_s
        )


def completion(
    text: str | None, *, usage: Any = None, model: str = "loopback", **message: Any
) -> dict[str, Any]:
    """A chat completion as a document. `message` adds fields to the message."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE if usage is None else usage,
    }


def chat(
    text: str,
    *,
    usage: Usage | Mapping[str, Any] | None = None,
    model: str = "loopback",
    delay_s: float = 0.0,
) -> Respond:
    """A reply with this text."""
    document = completion(
        text, usage=usage.to_dict() if isinstance(usage, Usage) else usage, model=model
    )
    return Respond(body=document, delay_s=delay_s)


def error(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Respond:
    """An error as OpenAI words it. `more` adds fields such as ``param`` and ``code``."""
    body = {"error": {"message": message, "type": "error", **more}}
    return Respond(status=status, body=body, headers=headers or {})


class _Reader(asyncio.StreamReader):
    """A reader that tells when the other side has gone, without reading."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.ended.set()


def _in_order(script: Iterable[Respond]) -> Callable[[Request], Respond]:
    items = list(script)
    assert items, "an empty script answers nothing"

    def answer(_: Request) -> Respond:
        return items.pop(0) if len(items) > 1 else items[0]

    return answer


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request | None:
    """The next request of a connection, or None at its end.

    A client that wants to speak TLS is a request with the method ``TLS``: what is answered is
    what a server without TLS says to it.
    """
    try:
        head = await reader.readexactly(1)
        if head == b"\x16":
            return Request(method="TLS", path="", headers={}, body=b"", connection=connection)
        head += await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        named = (line.split(":", 1) for line in lines)
        headers = {name.strip().lower(): value.strip() for name, value in named}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        return None  # gone, or no HTTP
    method, path, _ = first.split(" ")
    return Request(
        method=method,
        path=path,
        headers=headers,
        body=body,
        connection=connection,
    )


async def _send_or_hang_up(
    respond: Respond, reader: "_Reader", writer: asyncio.StreamWriter
) -> bool:
    """Send the answer, or stop when the client hangs up; whether it was sent."""
    if not (respond.delay_s or respond.drip_s):
        await _send(respond, writer)
        return True
    sending = asyncio.create_task(_send(respond, writer))
    leaving = asyncio.create_task(reader.ended.wait())
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        sent = sending.done() and sending.exception() is None
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
    return sent


async def _send(respond: Respond, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(respond.delay_s)
    head, body = _parts(respond)
    if respond.cut is not None:
        head, body = head[: respond.cut], body[: max(0, respond.cut - len(head))]
    for part, drips in ((head, respond.drips == "head"), (body, respond.drips == "body")):
        step = 1 if drips and respond.drip_s else max(1, len(part))
        for start in range(0, len(part), step):
            writer.write(part[start : start + step])
            await writer.drain()
            if step == 1:
                await asyncio.sleep(respond.drip_s)


def _parts(respond: Respond) -> tuple[bytes, bytes]:
    if respond.raw is not None:
        return b"", respond.raw
    match respond.body:
        case bytes() as body:
            pass
        case str() as text:
            body = text.encode()
        case document:
            body = json.dumps(document).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    headers.update(respond.headers)
    lines = [f"HTTP/1.1 {respond.status} Status", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body
