"""An adapter without a model: replies come from rules and a script. For tests and demonstrations.

How a reply is chosen:

1. Rules first, in the order in which they were added. A rule matches when its pattern occurs in
   the contents of all messages, joined by newlines. The empty pattern matches everything.
2. Then the script: each call takes the next item.
3. Then an `AdapterError` that shows the head of the last message.

A rule's response and a script's item may be a text, a `ModelResponse`, an exception (it is
raised: a scripted failure), or a function of the messages that returns any of these.
Choosing is atomic, so any number of threads and tasks may call the same adapter; delays and
functions run outside the lock.
"""

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from effects.adapters.base import AdapterError
from rlm_fsm.errors import UsageError
from rlm_fsm.values import Messages, ModelResponse, Usage, estimate_tokens

_HEAD_CHARS = 200
"""How much of the last message an error shows."""

FakeReply = str | ModelResponse | BaseException
"""What a call can end in; an exception is raised."""
FakeResponse = FakeReply | Callable[[Messages], FakeReply]
"""What a rule or a script may hold."""


@dataclass(frozen=True, slots=True)
class FakeRule:
    """What to answer when a pattern occurs in the messages."""

    pattern: str
    """A part of the text, or a regular expression; "" matches everything."""
    response: FakeResponse
    regex: bool = False
    """Whether `pattern` is a regular expression (`re.search`)."""
    once: bool = False
    """Whether the rule is used up by its first match."""
    usage: Usage | None = None
    """Usage to report; None for an estimate."""
    error: BaseException | None = None
    """Raised instead of giving the response."""
    delay_s: float = 0.0
    """Seconds before the answer; 0 for the adapter's own delay."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """The response chosen for one call."""

    response: FakeResponse
    usage: Usage | None
    delay_s: float


class FakeAdapter:
    """Answers from rules and a script; see the module's docstring for the order.

    `call_log` holds the messages of every call, copied, in the order of the calls. Entries that
    begin with the same conversation share their copies, so that a long run stays cheap.
    """

    def __init__(
        self,
        script: Iterable[FakeResponse] | None = None,
        *,
        rules: Iterable[FakeRule] | None = None,
        model: str = "fake",
        delay_s: float = 0.0,
    ) -> None:
        """`delay_s` is how long every call takes, in seconds, unless its rule says otherwise."""
        if isinstance(script, str):
            raise UsageError("FakeAdapter(script=...) takes a list of replies, not one text")
        self.model = model
        self.delay_s = _checked_delay(delay_s)
        self.rules: list[FakeRule] = []
        self.script: deque[FakeResponse] = deque(() if script is None else script)
        """The items that are left."""
        self.call_log: list[list[dict[str, str]]] = []
        self._conversations: dict[tuple[str, ...], list[dict[str, str]]] = {}
        self._lock = threading.Lock()
        for rule in rules or ():
            self._add(rule)

    def __repr__(self) -> str:
        return (
            f"FakeAdapter(model={self.model!r}, rules={len(self.rules)}, script={len(self.script)})"
        )

    def add_rule(
        self,
        pattern: str,
        response: FakeResponse,
        regex: bool = False,
        once: bool = False,
        *,
        error: BaseException | None = None,
        delay_s: float = 0.0,
        usage: Usage | None = None,
    ) -> None:
        """Add a rule after the others; the arguments are the fields of `FakeRule`."""
        self._add(FakeRule(pattern, response, regex, once, usage, error, delay_s))

    def complete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        """Answer, after really sleeping for the delay. The limits are not looked at."""
        choice = self._choose(messages)
        if choice.delay_s:
            time.sleep(choice.delay_s)
        return self._answer(choice, messages)

    async def acomplete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        """Answer, after sleeping for the delay without blocking the event loop."""
        choice = self._choose(messages)
        if choice.delay_s:
            await asyncio.sleep(choice.delay_s)
        return self._answer(choice, messages)

    def _add(self, rule: FakeRule) -> None:
        _checked_delay(rule.delay_s)
        if rule.regex:
            try:
                re.compile(rule.pattern)
            except re.error as error:
                raise UsageError(f"{rule.pattern!r} is no regular expression: {error}") from error
        with self._lock:
            self.rules.append(rule)

    def _choose(self, messages: Messages) -> _Choice:
        """Record the call and take what answers it."""
        with self._lock:
            self._record(messages)
            for index, rule in enumerate(self.rules):
                if _matches(rule, messages):
                    if rule.once:
                        del self.rules[index]
                    response = rule.response if rule.error is None else rule.error
                    return _Choice(response, rule.usage, rule.delay_s or self.delay_s)
            if self.script:
                return _Choice(self.script.popleft(), None, self.delay_s)
        last = _content(messages[-1]) if messages else ""
        raise AdapterError(
            "FakeAdapter has no matching rule and no script left. Add a rule or a longer script. "
            f"The last message begins: {last[:_HEAD_CHARS]!r}"
        )

    def _record(self, messages: Messages) -> None:
        """Append a copy of the messages to the log.

        A conversation grows at its end, so only what is new since the last call that began
        with the same two messages is copied; a run of n turns then keeps n messages, not n^2.
        """
        now = list(messages)
        key = tuple(_content(message) for message in now[:2])
        known = self._conversations.get(key, [])
        if now[: len(known)] != known:
            known = []
        copied = known + [dict(message) for message in now[len(known) :]]
        self._conversations[key] = copied
        self.call_log.append(copied)

    def _answer(self, choice: _Choice, messages: Messages) -> ModelResponse:
        response = choice.response
        if callable(response):
            response = response(messages)
        match response:
            case BaseException():
                # One instance may be raised many times: drop the traceback of the time before.
                raise response.with_traceback(None)
            case ModelResponse():
                return response
            case str():
                usage = choice.usage or _estimate(messages, response)
                return ModelResponse(response, usage, self.model, {"finish_reason": "stop"})
            case _:
                raise UsageError(
                    f"FakeAdapter was given {type(response).__name__} as a response; give a text, "
                    "a ModelResponse, an exception or a function that returns one of these"
                )


def _checked_delay(delay_s: float) -> float:
    if not delay_s >= 0:
        raise UsageError(f"delay_s={delay_s!r}: give seconds, 0 or more")
    return delay_s


def _content(message: Mapping[str, str]) -> str:
    return message.get("content") or ""


def _matches(rule: FakeRule, messages: Messages) -> bool:
    if rule.pattern == "":
        return True
    if rule.regex:
        return re.search(rule.pattern, _joined(messages)) is not None
    if "\n" in rule.pattern:
        return rule.pattern in _joined(messages)
    # A part without a newline can't span two contents, so nothing needs to be joined.
    return any(rule.pattern in _content(message) for message in messages)


def _joined(messages: Messages) -> str:
    return "\n".join(_content(message) for message in messages)


def _estimate(messages: Messages, reply: str) -> Usage:
    prompt = estimate_tokens(sum(len(_content(message)) for message in messages))
    completion = estimate_tokens(len(reply))
    return Usage(prompt, completion, prompt + completion, estimated=True)
