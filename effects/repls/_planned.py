"""Calls in a known number: what they would take is asked and told before the first one.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself, with `_functions`, whose rules hold here too. For `_combinators`.
"""

# The parts of `_functions` that make calls are shared with this file too.
# pyright: reportPrivateUsage=false

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING or __package__:
    from effects.repls import _functions, _sizes, _words
else:
    import _functions
    import _sizes
    import _words


def asks(
    fn: str, model: object, max_tokens: object, on_error: object
) -> Callable[[list[str], str], Generator["_functions.Ask", "list[_functions.Answer]", list[str]]]:
    """What asks one level of prompts, and prints a line before; wrong arguments raise at once."""
    _functions._raises(on_error)
    _functions._calls(fn, None, [], model, max_tokens)

    def ask(
        prompts: list[str], line: str
    ) -> Generator["_functions.Ask", "list[_functions.Answer]", list[str]]:
        calls = _functions._calls(fn, None, prompts, model, max_tokens, False)
        if line:
            yield _functions.Ask([], False, line)
        return (yield from _functions._many(calls, True, on_error))

    return ask


class Plan(NamedTuple):
    """What a function is about to ask."""

    calls: int
    """Equal ones of a level once."""
    chars: int
    """Of their prompts, but for the replies of earlier calls."""
    wider: int = 0
    """How many more bytes these have."""
    replies: int = 0
    """How many replies of earlier calls are in prompts."""
    levels: int = 1
    built: int = 0
    """Characters with equal prompts as often as they are made, where that is more than `chars`."""


def forecast(
    fn: str, plan: Plan, model: str | None, max_tokens: int | None
) -> Generator["_functions.Ask", "list[_functions.Answer]", str]:
    """The line that tells what is about to be asked. Raises `SubcallLimitError` for too much, and
    `ValueError` for more than anybody may ask."""
    if not plan.calls:
        return ""
    request = {"calls": plan.calls, "chars": min(plan.chars, _sizes.MOST), "replies": plan.replies}
    if plan.wider:
        request["bytes"] = min(plan.chars + plan.wider, _sizes.MOST)
    (call,) = _functions._calls(fn, None, [json.dumps(request)], model, max_tokens, False)
    [(kind, text)] = yield _functions.Ask([{**call, "kind": "forecast"}], False)
    if kind == "limit":
        raise _functions.SubcallLimitError(f"{fn}: {text}. Nothing was asked.")
    if kind != "text":
        raise _functions.SubcallError(f"{fn}: {text}")
    _sizes.check(fn, plan.calls, max(plan.chars, plan.built))
    told = json.loads(text)
    cost = "" if told["cost_usd"] is None else f", {_words.usd(told['cost_usd'])}"
    is_tree = plan.levels > 1
    at_most, plural = ("at most ", f" in {plan.levels} levels") if is_tree else ("", "")
    calls, tokens = _words.counted(plan.calls, "subcall"), _words.counted(told["tokens"], "token")
    return f"{fn}: {at_most}{calls}{plural}, about {tokens}{cost}"


def chars(head: int, mark: str, sizes: Iterable[int]) -> int:
    """Characters of a prompt: `head` of them and the number of its items, then items of these
    sizes, each after a mark with its place."""
    counted = list(sizes)
    marks = len(counted) * (len(mark) - len("{}")) + _sizes.digits(len(counted))
    return head + len(str(len(counted))) + marks + sum(counted)


def failed(reply: str) -> bool:
    return reply.startswith(_functions.ERROR_MARK.strip())


def tell_failures(
    fn: str, replies: Sequence[str]
) -> Generator["_functions.Ask", "list[_functions.Answer]", None]:
    """Print how many of the replies are failures, if any."""
    mark = _functions.ERROR_MARK
    answers = [("error", r[len(mark) :]) if failed(r) else ("text", r) for r in replies]
    if any(kind == "error" for kind, _ in answers):
        yield _functions.Ask([], False, f"{fn}: {_words.failed(answers)}")
