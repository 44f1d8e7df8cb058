"""How numbers and failures are told to code.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.
"""

from collections.abc import Sequence

MOST_REASONS = 4
"""Different failures that are told of one batch; of the others only their number."""
MOST_REASON_CHARS = 300
"""Of each: what a service says of an error may be a page."""

_LEAST_USD = 0.0001


def counted(count: int, thing: str, things: str = "") -> str:
    """``1 subcall``, ``2 subcalls``."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def usd(cost: float) -> str:
    """A cost; one that is small isn't told as none."""
    return f"under ${_LEAST_USD}" if 0 < cost < _LEAST_USD else f"${cost:,.4f}" if cost else "$0"


def number(value: float) -> str:
    """A number without digits that say nothing, and without an exponent."""
    digits = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6f}".rstrip("0")
    return f"{value:g}" if digits.endswith(".") else digits


def seconds(value: float) -> str:
    """``1 second``, ``0.3 seconds``."""
    return f"{number(value)} second{'' if value == 1 else 's'}"


def failed(answers: Sequence[tuple[str, str]]) -> str:
    """How many of some calls failed, and with what: the beginning of a sentence, in one line.

    `answers` are those to all of them, as `_functions.Answer`.
    """
    texts = [text for kind, text in answers if kind != "text"]
    return f"{len(texts):,} of {counted(len(answers), 'subcall')} failed{reasons(answers)}"


def reasons(answers: Sequence[tuple[str, str]]) -> str:
    """What the calls that failed ended with, each failure with how many did; empty for none.

    The commonest first, and of equally many the one that came first.
    """
    counts: dict[str, int] = {}
    for kind, text in answers:
        if kind != "text":
            reason = _reason(text)
            counts[reason] = counts.get(reason, 0) + 1
    if len(counts) < 2:
        is_one = sum(counts.values()) == 1
        return "".join(f"{'' if is_one else ', each with'}: {reason}" for reason in counts)
    order = sorted(counts, key=lambda reason: -counts[reason])
    told = [f"{counts[reason]:,} with: {reason}" for reason in order[:MOST_REASONS]]
    others = order[MOST_REASONS:]
    if others:
        calls = sum(counts[reason] for reason in others)
        told.append(f"{calls:,} with {counted(len(others), 'other error')}")
    return f": {'; '.join(told)}"


def _reason(text: str) -> str:
    words = " ".join(text.split()).rstrip(".") or "no reason was given"
    return words if len(words) <= MOST_REASON_CHARS else words[:MOST_REASON_CHARS] + "..."
