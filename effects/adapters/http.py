"""Asking a model endpoint by HTTP: one JSON document out, one back.

Rules:

1. `timeout` ends an attempt for good: it runs from connecting to the last byte, so that a
   server which sends one byte a second doesn't hold a call for hours. `deadline` does the same
   for all attempts and the waits between them.
2. A reply is a reply only when its reader says so. A page of HTML, an error object with status
   200, broken JSON: failures like any other, never taken for an answer.
3. Whatever fails is an `AdapterError` with a kind. Its message holds the provider's own words,
   the model, the URL without query and user, the number of attempts, and never a secret.
   It has no `__cause__`: the HTTP client's exceptions hold the request with its key.
4. `complete` runs `acomplete` in an event loop of its own: limits of time are only reliable
   where a read can be interrupted.

What can fail is classified in `faults`; bodies are bounded and read in `bodies`; connections
and event loops are the matter of `clients`.
"""

import functools
import math
import ssl
from abc import ABC, abstractmethod
from asyncio import get_running_loop
from asyncio import timeout as async_timeout
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, Self, TypeVar

import httpx

from effects.adapters.base import AdapterError
from effects.adapters.bodies import (
    MAX_BODY_BYTES,
    BodyRefused,
    Payload,
    encoded,
    read_reply,
    unpacked,
)
from effects.adapters.clients import Clients, new_client, run_blocking
from effects.adapters.faults import (
    LONGEST_RETRY_AFTER_S,
    Backoff,
    Failure,
    Redactor,
    failure_of_status,
)
from rlm_fsm._version import __version__
from rlm_fsm.errors import UsageError
from rlm_fsm.values import Messages, ModelResponse

_MAX_ADAPTATIONS = 4
"""Payloads sent for one call after the provider named what it refuses."""
_SECRET_NAMES = ("key", "token", "secret", "password", "sig", "code", "auth", "cookie")
"""Parts of the names of headers and query parameters whose values are secrets."""
_ADVICE = {
    "auth": "Check the API key and what it may be used for.",
    "rate_limit": "Wait, or make fewer calls at once (max_concurrent_subcalls).",
    "timeout": "Give a larger timeout, or ask for less.",
    "connection": "Check base_url and the network.",
    "bad_request": "Check the model's name, base_url and the size of the request.",
    "bad_response": "Check that base_url is the address of a chat endpoint.",
    "server": "The service has trouble: try again later.",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sent(Generic[T]):
    """A reply and the payload that got it."""

    reply: T
    payload: Payload


class Endpoint:
    """One URL that takes JSON by POST, with its limits and retries."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        headers: Mapping[str, str],
        secrets: Iterable[str] = (),
        timeout: float = 60.0,
        deadline: float | None = None,
        max_retries: int = 3,
        backoff: Backoff | None = None,
    ) -> None:
        """`timeout` and `deadline` in seconds; `secrets` never show up in a message."""
        _check_limits(timeout, deadline, max_retries)
        self._url = _parsed(url)
        self._headers = _checked_headers(headers)
        self._model = model
        self._timeout_s = timeout
        self._deadline_s = deadline
        self._max_retries = max_retries
        self._backoff = backoff or Backoff()
        self._asks = _asked_of(self._url, headers)
        self._redact = Redactor([*secrets, *_secrets_in(self._url, headers)])
        self._clients = Clients(functools.partial(new_client, self._url))

    @property
    def shown_url(self) -> str:
        """The URL without query and user."""
        return self._redact(str(self._url.copy_with(query=None, fragment=None, userinfo=b"")))

    @property
    def identity(self) -> dict[str, str]:
        """What its answers depend on, for caches: the URL, and a hash of what else is sent with
        every request. Who asks isn't in it: keys may be changed."""
        return {"url": self.shown_url, **({"sent": self._asks} if self._asks else {})}

    def __repr__(self) -> str:
        return f"Endpoint({self.shown_url!r})"

    async def post(
        self,
        payload: Payload,
        read: Callable[[Any], T],
        adapt: Callable[[Payload, Failure], Payload | None] | None = None,
    ) -> Sent[T]:
        """Send until there is a reply, or raise `AdapterError`.

        `read` makes the reply from the parsed body, or raises `BadReply`. `adapt` may answer a
        refused request with another payload, which is sent at once and isn't a retry.
        """
        clock = get_running_loop().time
        started_s = clock()
        sent = retries = adaptations = 0
        while True:
            left_s = self._left_s(clock() - started_s)
            sent += 1
            result = await self._attempt(encoded(payload), read, left_s)
            if not isinstance(result, Failure):
                return Sent(result, payload)
            adapted = adapt(payload, result) if adapt else None
            if adapted is not None and adaptations < _MAX_ADAPTATIONS:
                payload, adaptations = adapted, adaptations + 1
                continue
            retries += 1
            wait_s = self._backoff.wait_s(retries, result.retry_after_s)
            why_not = self._why_not_again(result, retries, wait_s, clock() - started_s)
            if why_not is not None:
                raise self._error(result, sent, why_not)
            await self._backoff.sleep(wait_s)

    async def aclose(self) -> None:
        """Close this event loop's connections. The endpoint can still be used."""
        await self._clients.aclose()

    def close(self) -> None:
        """Close all connections, those of running event loops soon."""
        self._clients.close()

    async def _attempt(self, body: bytes, read: Callable[[Any], T], left_s: float) -> T | Failure:
        """One request from connecting to the last byte."""
        try:
            async with async_timeout(min(self._timeout_s, left_s)):
                got = await self._exchange(body)
        except TimeoutError:
            return self._timed_out(left_s)
        except (httpx.HTTPError, OSError) as error:
            return _failure_of_transport(error)
        encoding = got.headers.get("content-encoding", "identity")
        try:
            content = unpacked(got.raw, encoding)
        except BodyRefused as refusal:
            if not got.is_success:
                return failure_of_status(got.status, got.headers, b"")
            return Failure(
                kind="bad_response",
                what=str(refusal),
                status=got.status,
                retryable=refusal.retryable,
            )
        if not got.is_success:
            return failure_of_status(got.status, got.headers, content)
        return read_reply(content, got.status, read)

    async def _exchange(self, body: bytes) -> "_Received":
        raw = bytearray()
        async with self._clients.post(self._url, content=body, headers=self._headers) as response:
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > MAX_BODY_BYTES:
                    break  # refused when it is unpacked
            return _Received(response.status_code, response.headers, bytes(raw))

    def _left_s(self, elapsed_s: float) -> float:
        return math.inf if self._deadline_s is None else max(0.0, self._deadline_s - elapsed_s)

    def _timed_out(self, left_s: float) -> Failure:
        if left_s <= self._timeout_s:
            what = f"the deadline of {self._deadline_s:g} s passed before a complete answer"
            return Failure(kind="timeout", what=what)
        what = f"no complete answer within {self._timeout_s:g} s"
        return Failure(kind="timeout", what=what, retryable=True)

    def _why_not_again(
        self, failure: Failure, retries: int, wait_s: float, elapsed_s: float
    ) -> str | None:
        """None when another attempt is worth it; else words for the message, perhaps empty."""
        if not failure.retryable or retries > self._max_retries:
            return ""
        asked_s = failure.retry_after_s or 0.0
        asks = f"the server asks to wait {asked_s:g} s"
        if self._deadline_s is None:
            if asked_s > LONGEST_RETRY_AFTER_S:
                return (
                    f"{asks}, and without a deadline at most {LONGEST_RETRY_AFTER_S:g} s are waited"
                )
            return None
        if wait_s <= self._left_s(elapsed_s):
            return None
        if asked_s == wait_s:
            return f"{asks}, which would pass the deadline of {self._deadline_s:g} s"
        return f"no time for another attempt before the deadline of {self._deadline_s:g} s"

    def _error(self, failure: Failure, sent: int, why_not: str) -> AdapterError:
        what = f"model {self._model!r} at {self.shown_url}: {failure.what}"
        if detail := self._redact.shown(failure.detail):
            what += f": {detail}"
        attempts = "1 attempt" if sent == 1 else f"{sent} attempts"
        if why_not:
            attempts += f"; {why_not}"
        message = self._redact(f"{what} ({attempts}). {_ADVICE[failure.kind]}")
        return AdapterError(message, kind=failure.kind, status=failure.status)


class HttpAdapter(ABC):
    """What all adapters over HTTP share. `acomplete` is the call; the rest follows from it."""

    def __init__(self, model: str, endpoint: Endpoint) -> None:
        self.model = model
        self._endpoint = endpoint

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, url={self._endpoint.shown_url!r})"

    @property
    def url(self) -> str:
        """Where it asks, without query and user: price lists tell providers apart by it."""
        return self._endpoint.shown_url

    @property
    def identity(self) -> Mapping[str, str]:
        """What its answers depend on besides a call's own arguments, without secrets: caches tell
        adapters apart by it. A subclass with parameters of its own adds them."""
        return {"model": self.model, **self._endpoint.identity}

    @abstractmethod
    async def acomplete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        """Answer the messages, or raise `AdapterError`. Cancelling ends the request."""

    def complete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        """As `acomplete`, blocking. For many calls at once use `acomplete`: it keeps connections,
        while each blocking call makes its own."""

        async def call() -> ModelResponse:
            try:
                return await self.acomplete(
                    messages, max_tokens=max_tokens, temperature=temperature
                )
            finally:
                await self.aclose()

        return run_blocking(call)

    async def aclose(self) -> None:
        """Close this event loop's connections. The adapter can still be used."""
        await self._endpoint.aclose()

    def close(self) -> None:
        """Close all connections, those of running event loops soon. The adapter can still be
        used."""
        self._endpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True)
class _Received:
    """An answer of any status, its body as it came."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


def _check_limits(timeout: float, deadline: float | None, max_retries: int) -> None:
    if not _is_number(timeout) or not 0 < timeout < math.inf:
        raise UsageError(f"timeout={timeout!r}: give seconds above 0")
    if deadline is not None and (not _is_number(deadline) or not 0 < deadline < math.inf):
        raise UsageError(f"deadline={deadline!r}: give seconds above 0, or None")
    if not _is_number(max_retries) or max_retries < 0:
        raise UsageError(f"max_retries={max_retries!r}: give 0 or more")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parsed(url: str) -> httpx.URL:
    # The URL isn't shown before it can be taken apart: it may hold a secret.
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"base_url can't be read as a URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError("base_url must begin with http:// or https:// and name a host")
    if parsed.port is not None and not 1 <= parsed.port <= 65_535:
        raise UsageError("base_url: a port is a number from 1 to 65535")
    return parsed


def _checked_headers(headers: Mapping[str, str]) -> httpx.Headers:
    """Ours and the caller's, whose win whatever the case of their names."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise UsageError(
                f"the value of the header {name!r} has characters that no header may have "
                "(a line break, or a letter outside ASCII); an API key may have been mis-copied"
            )
    merged = httpx.Headers(
        {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"rlm-fsm/{__version__}",
        }
    )
    merged.update(headers)
    return merged


def _secrets_in(url: httpx.URL, headers: Mapping[str, str]) -> list[str]:
    """What must not be shown, among what a URL and headers hold."""
    named = [*url.params.multi_items(), *headers.items()]
    found = [value for name, value in named if any(part in name.lower() for part in _SECRET_NAMES)]
    # "Bearer abc": the secret is what follows the scheme.
    return [url.password or url.username, *(value.rpartition(" ")[2] for value in found)]


def _asked_of(url: httpx.URL, headers: Mapping[str, str]) -> str:
    """A hash of a URL's query and of headers, secrets left out; empty when there is nothing else.

    A version of an API, or a provider behind a gateway, may be chosen there.
    """
    named = [("?" + name, value) for name, value in url.params.multi_items()]
    named += [(name.lower(), value) for name, value in headers.items()]
    shown = [p for p in named if not any(part in p[0].lower() for part in _SECRET_NAMES)]
    return sha256(ascii(sorted(shown)).encode()).hexdigest()[:16] if shown else ""


def _failure_of_transport(error: Exception) -> Failure:
    """Broken connections. Certificates and plain-text servers don't mend themselves."""
    kind = "timeout" if isinstance(error, httpx.TimeoutException) else "connection"
    what = "the connection failed" if kind == "connection" else "the connection timed out"
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    final = isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol)
    return Failure(
        kind=kind, what=what, detail=detail, retryable=not (final or _is_tls_refusal(error))
    )


def _is_tls_refusal(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        error = error.__cause__ or error.__context__
    return False
