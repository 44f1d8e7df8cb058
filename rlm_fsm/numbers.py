"""Numbers in words: what errors, refusals and the line on the budget say."""

LARGEST = 1 << 53
"""Of any limit: up to here every whole number is a float too."""
_LEAST_USD = 0.0001


def counted(count: int, thing: str) -> str:
    """``1 call``, ``2 calls``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """A number without an exponent and without digits that say nothing."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.9f}".rstrip("0")
    return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.1f}"


def usd(cost: float) -> str:
    """A cost; one that is small isn't told as none."""
    return f"under ${_LEAST_USD}" if 0 < cost < _LEAST_USD else f"${cost:,.4f}" if cost else "$0"


def seconds(value: float) -> str:
    """So many seconds, without the unit; of few with a tenth."""
    return f"{value:,.1f}" if value < 10 and not float(value).is_integer() else f"{value:,.0f}"
