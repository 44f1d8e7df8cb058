"""HTTP clients and event loops: which client a call uses, and when it is closed.

A connection belongs to the event loop that opened it, so each loop has clients of its own, and
a call borrows one that has a single connection. One client with many connections would be the
plainer choice, but its pool looks at every connection for every request: 400 calls of 20 ms by
100 workers took 12 s with it, and take 1 s like this (httpx 0.28, 2 cores).

Nobody has to close a client. An asynchronous generator that was begun in the loop keeps them, and
`asyncio.run` ends such generators before it closes the loop. `Clients.aclose` closes them at
once; a loop that goes on closes them soon after `Clients.close`, or after its clients were
dropped.
"""

import asyncio
import functools
import ipaddress
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

IDLE_S = 30.0
"""How long an unused connection is kept: half of what common load balancers allow."""
MOST_IDLE = 200
"""Unused clients kept in a loop; more calls than that at once connect anew."""

T = TypeVar("T")


class Clients:
    """Clients to borrow, made when they are needed. Safe for several threads."""

    def __init__(self, new: Callable[[], httpx.AsyncClient]) -> None:
        self._new = new
        self._lock = threading.Lock()
        self._shelves: dict[asyncio.AbstractEventLoop, _Shelf] = {}
        weakref.finalize(self, _close_soon, self._shelves).atexit = False

    @asynccontextmanager
    async def post(
        self, url: httpx.URL, *, content: bytes, headers: httpx.Headers
    ) -> AsyncGenerator[httpx.Response]:
        """Send a request; the head of its answer is there, the body is still to be read."""
        async with (
            self._borrowed() as client,
            _closed_in_mid_handshake() as extensions,
            client.stream(
                "POST", url, content=content, headers=headers, extensions=extensions
            ) as response,
        ):
            yield response

    @asynccontextmanager
    async def _borrowed(self) -> AsyncGenerator[httpx.AsyncClient]:
        """A client of the running loop that nobody else uses meanwhile."""
        shelf = await self._shelf()
        client = shelf.idle.pop() if shelf.idle else self._new()
        try:
            yield client
        except BaseException:
            await client.aclose()  # after a failure or in mid-request: not to be used again
            raise
        if shelf.is_closed or len(shelf.idle) >= MOST_IDLE:
            await client.aclose()
        else:
            shelf.idle.append(client)

    async def aclose(self) -> None:
        """Close the running loop's clients, those on loan when they come back."""
        with self._lock:
            shelf = self._shelves.pop(asyncio.get_running_loop(), None)
        if shelf is not None:
            await shelf.lifetime.aclose()

    def close(self) -> None:
        """Close the clients of all loops, those of running loops when they get to it."""
        with self._lock:
            shelves = dict(self._shelves)
            self._shelves.clear()
        for loop, shelf in shelves.items():
            if loop.is_running():
                shelf.close_soon()
            elif not loop.is_closed():
                run_blocking(shelf.lifetime.aclose, loop)

    async def _shelf(self) -> "_Shelf":
        loop = asyncio.get_running_loop()
        with self._lock:
            shelf = self._shelves.get(loop)
            if shelf is not None and not shelf.is_closed:
                return shelf
            for old in [other for other in self._shelves if other.is_closed()]:
                # A loop that was closed without ending its generators takes its clients along.
                _LIVE.discard(self._shelves.pop(old))
            shelf = self._shelves[loop] = _Shelf(loop)
        await anext(shelf.lifetime)
        return shelf


def run_blocking(
    make: Callable[[], Coroutine[Any, Any, T]], loop: asyncio.AbstractEventLoop | None = None
) -> T:
    """Run a coroutine to its end, in a loop of its own unless one that stands still is given.

    Also works for a caller who is inside a running event loop, which stands still meanwhile.
    """

    def run() -> T:
        return asyncio.run(make()) if loop is None else loop.run_until_complete(make())

    if not _is_in_loop():
        return run()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def new_client(url: httpx.URL) -> httpx.AsyncClient:
    """A client for one endpoint, without limits of time: the caller has one for all it does."""
    return httpx.AsyncClient(
        verify=_ssl_context(),
        limits=httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S
        ),
        timeout=None,
        # A server on this machine is never behind the proxy that the environment names.
        trust_env=not _is_loopback(url.host),
    )


class _Shelf:
    """The idle clients of one event loop, the last used on top, and what closes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.idle: list[httpx.AsyncClient] = []
        self.is_closed = False
        self.lifetime = self._live()
        self._closing: asyncio.Task[None] | None = None

    def close_soon(self) -> None:
        """Let the loop close the clients, now or when it ends. From any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._start_closing)

    def _start_closing(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._closing = self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        while self.idle:
            await self.idle.pop().aclose()
        _LIVE.discard(self)

    async def _live(self) -> AsyncGenerator[None]:
        _LIVE.add(self)
        try:
            yield
        finally:
            self.is_closed = True
            await self._drain()
            if self._closing is not None:
                await asyncio.wait([self._closing])


_LIVE: set[_Shelf] = set()
"""Shelves that are not closed yet. The garbage collector must not find them: it would take the
connections in any order, and warn of each."""


def _close_soon(shelves: dict[asyncio.AbstractEventLoop, _Shelf]) -> None:
    """What is done when the clients are dropped."""
    for shelf in shelves.values():
        shelf.close_soon()


@asynccontextmanager
async def _closed_in_mid_handshake() -> AsyncGenerator[dict[str, Any]]:
    """Extensions of a request that see to it that a cancelled TLS handshake is closed.

    httpcore (1.0.9) closes a connection whose handshake fails, but not one whose handshake is
    cancelled: it would stay open until the garbage collector finds it.
    """
    half_open: list[Any] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            half_open.append(info["return_value"])
        elif event.endswith("start_tls.complete"):
            half_open.clear()

    try:
        yield {"trace": trace}
    except asyncio.CancelledError:
        for stream in half_open:
            await stream.aclose()
        raise


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """Shared by all clients: loading the certificates takes longer than a local request."""
    return httpx.create_ssl_context()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
