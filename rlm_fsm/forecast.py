"""What many subcalls would take, before the first one: a host call of kind ``forecast``.

Code names the calls that it is about to make by number and size; the state knows prices, limits and
what was spent. The estimate is what the calls are expected to take (`bills`), all of them together:
every reply as long as it may be. What doesn't fit into what is left is a ``limit``, so
that nothing is paid for half of the answers.
"""

import json
from typing import Any, cast

from rlm_fsm.bills import Size, expected
from rlm_fsm.needs import bills_of, known_nusd, room
from rlm_fsm.policy import Need, breach_by_call, breach_by_subcalls
from rlm_fsm.price import NANO_USD
from rlm_fsm.state import RunState
from rlm_fsm.values import HostCall, Outcome


def forecast(state: RunState, call: HostCall) -> Outcome:
    """The outcome of a forecast: JSON with subcalls, tokens and cost_usd (None where unknown).

    The call's prompt is JSON too: ``calls``, ``chars`` (of their prompts, as far as they are
    known) and ``replies`` (how many replies of earlier calls later prompts hold).
    """
    asked = _asked(call.prompt)
    if asked is None:
        return Outcome("error", "a forecast is asked with whole numbers: calls, chars, replies")
    count, chars, replies = asked
    options = state.options
    most = call.max_tokens or options.subcall_max_tokens
    adapter = call.model or "subcall"
    told = expected(
        bills_of(state, adapter), chars + count * len(options.subcall_system), count * most
    )
    size = Size(told.prompt + replies * most, told.completion)
    tokens, nusd = size.tokens, known_nusd(state, adapter, size)
    exceeded = breach_by_subcalls(options.policy, state.spent, count) or breach_by_call(
        options.policy,
        state.spent,
        Need(tokens, nusd or 0),
        below_root=True,
        room=room(state),
    )
    if exceeded is not None:
        cost = "" if nusd is None else f", ${nusd / NANO_USD:.4f}"
        takes = f"{count:,} subcalls take at most about {tokens:,} tokens{cost}"
        return Outcome("limit", f"{takes}, and the limit {exceeded} leaves no room for them")
    cost_usd = None if nusd is None else round(nusd / NANO_USD, 6)
    return Outcome("text", json.dumps({"subcalls": count, "tokens": tokens, "cost_usd": cost_usd}))


def _asked(prompt: str) -> tuple[int, int, int] | None:
    """Calls, characters and replies; None for what model-written code may have made up."""
    try:
        data = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    given = cast(dict[str, Any], data)
    values = [given.get(name) for name in ("calls", "chars", "replies")]
    whole = [value for value in values if type(value) is int and 0 <= value < 1 << 53]
    return (whole[0], whole[1], whole[2]) if len(whole) == len(values) else None
