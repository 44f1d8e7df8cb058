"""What can go wrong with a model endpoint, as values. Nothing here sends or waits.

A `Failure` is one attempt that gave no reply: its kind (see `AdapterError`), whether another
attempt may help, how long the server asked to be left alone, and the provider's own words.

Provider's words are shown to people and stored in logs, so they are made safe first: secrets
are replaced before anything is cut (a cut must not hide half a key from the search), and
characters that could steer a terminal are dropped.
"""

import json
import math
import random
import re
from asyncio import sleep as async_sleep
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, cast
from urllib.parse import quote

RETRIED_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Statuses that another attempt may cure. 529 is Anthropic's "overloaded"."""

LONGEST_RETRY_AFTER_S = 300.0
"""Longest wait that a server may ask for when there is no deadline; quotas by the minute reset
within it, while a daily one is better reported than slept through."""

_SHOWN_CHARS = 500
_SHORT_SECRET = 8
"""Shorter ones ("none", "EMPTY": what local servers are given) are replaced as words only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One attempt that gave no reply."""

    kind: str
    """As in `AdapterError`."""
    what: str
    """What happened, in our words."""
    detail: str = ""
    """The provider's own words, not yet made safe to show."""
    status: int | None = None
    """HTTP status, if there was one."""
    retryable: bool = False
    """Whether another attempt may help."""
    retry_after_s: float | None = None
    """Seconds that the server asked to wait."""
    param: str | None = None
    """The parameter that the provider names, for a refused request."""
    code: str | None = None
    """The provider's code for the failure, such as ``unsupported_parameter``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait between attempts, and how to wait.

    The figures are those of OpenAI's own client. Tests give their own `rng` and `sleep`.
    """

    first_s: float = 0.5
    """Seconds before the second attempt; doubled for each one more."""
    longest_s: float = 8.0
    """Seconds that the doubling stops at."""
    rng: Callable[[], float] = random.random
    """A number from 0 to 1: spreads the retries of calls that failed together."""
    sleep: Callable[[float], Awaitable[None]] = async_sleep

    def wait_s(self, retry: int, retry_after_s: float | None) -> float:
        """Seconds before retry number `retry` (from 1), never less than the server asked for."""
        grown = self.first_s * 2.0 ** min(retry - 1, 30)
        spread = min(grown, self.longest_s) * (0.5 + self.rng())
        return max(spread, retry_after_s or 0.0)


class Redactor:
    """Replaces secrets in texts that people may see. Its `repr` doesn't show them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _spellings(secret)}
        # The longest first: a secret may be part of another one.
        patterns = [_secret_pattern(form) for form in sorted(forms, key=len, reverse=True)]
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None

    def __repr__(self) -> str:
        return "Redactor()"

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        return self._pattern.sub("[key]", text) if self._pattern else text

    def shown(self, text: str) -> str:
        """The text as one short printable line without the secrets."""
        # Secrets first: a cut through one would leave a half that nothing matches.
        line = " ".join(self(text)[: 20 * _SHOWN_CHARS].split())
        line = "".join(char if char.isprintable() else "?" for char in line)
        return line if len(line) <= _SHOWN_CHARS else line[:_SHOWN_CHARS] + "..."


def failure_of_status(
    status: int, headers: Mapping[str, str], body: bytes, *, now_s: float | None = None
) -> Failure:
    """The failure that a reply with an error status is. `headers` have lower-case names."""
    detail, param, code = _provider_words(body)
    location = headers.get("location")
    if 300 <= status < 400 and location:
        detail = f"it redirects to {_without_query(location)}"
    return Failure(
        kind=_kind_of(status),
        what=f"HTTP status {status}",
        detail=detail,
        status=status,
        retryable=status in RETRIED_STATUSES,
        retry_after_s=retry_after_s(headers, now_s=now_s),
        param=param,
        code=code,
    )


def error_of(data: Any) -> str | None:
    """The message of an error object that stands where a reply should, or None."""
    if not isinstance(data, dict):
        return None
    error = cast(dict[str, Any], data).get("error")
    return _words(error) if error else None


def retry_after_s(headers: Mapping[str, str], *, now_s: float | None = None) -> float | None:
    """Seconds that the server asks to wait, or None when it says nothing usable.

    `Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3). A date is measured from
    the server's own `Date`, so that clocks which disagree do no harm; `now_s` (seconds since
    1970) stands in for it. `retry-after-ms` is what OpenAI and Azure add.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None:
        return seconds
    if (until := _timestamp(value)) is None:
        return None
    if (now := _timestamp(headers.get("date"))) is None:
        now = time() if now_s is None else now_s
    return max(0.0, until - now)


def _number(text: str | None) -> float | None:
    """A number of 0 or more; infinity counts, it is a wait that nobody makes."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return None if math.isnan(value) else max(0.0, value)


def _timestamp(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None


def _kind_of(status: int) -> str:
    match status:
        case 401 | 403:
            return "auth"
        case 408:
            return "timeout"
        case 429:
            return "rate_limit"
        case 409:
            return "server"
        case _:
            return "server" if status >= 500 else "bad_request"


def _provider_words(body: bytes) -> tuple[str, str | None, str | None]:
    """Message, parameter and code of an error body; the head of the body when it isn't JSON."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace"), None, None
    if not isinstance(data, dict):
        return _words(data), None, None
    fields = cast(dict[str, Any], data)
    error: Any = fields.get("error") or fields
    param = code = None
    if isinstance(error, dict):
        error = cast(dict[str, Any], error)
        param, code = _text_or_none(error.get("param")), _text_or_none(error.get("code"))
    return _words(error), param, code


def _words(error: Any) -> str:
    """The message of an error in any of the shapes that are about, else its JSON."""
    if isinstance(error, str):
        return error
    if isinstance(error, dict):
        fields = cast(dict[str, Any], error)
        for name in ("message", "detail", "msg", "error"):
            value = fields.get(name)
            if isinstance(value, str) and value.strip():
                return value
    return json.dumps(error, ensure_ascii=False)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _without_query(url: str) -> str:
    """A redirect's target without what may hold secrets."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"//[^/@]*@", "//", bare)


def _spellings(secret: str) -> set[str]:
    """A secret as it may stand in a text: plain, in a URL, in JSON."""
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}


def _secret_pattern(form: str) -> str:
    escaped = re.escape(form)
    return escaped if len(form) >= _SHORT_SECRET else rf"(?<!\w){escaped}(?!\w)"
