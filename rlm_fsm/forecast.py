"""What many subcalls would take, before the first one: a host call of kind ``forecast``.

Code names the calls that it is about to make by number and size; the state knows prices, limits and
what was spent. The estimate is what the calls are expected to take (`bills`), all of them together;
one of them may take more. What doesn't fit into what is left is a ``limit``, so that nothing is
paid for half of the answers. Forecasts of one pause are judged one after the
other, each beside those before it that fit: code that is told of them asks for all of them. They
are judged beside what other frames have asked for, too.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from rlm_fsm.bills import Size, expected_prompts, expected_reply
from rlm_fsm.ids import CallId
from rlm_fsm.needs import bills_of, known_nusd, room, under_way
from rlm_fsm.numbers import counted, usd
from rlm_fsm.policy import NOTHING, Need, breach_by_call, breach_by_subcalls
from rlm_fsm.price import NANO_USD
from rlm_fsm.state import RunState
from rlm_fsm.values import HostCall, Outcome, utf8_bytes


def forecasts(state: RunState, calls: Mapping[CallId, HostCall]) -> dict[CallId, Outcome]:
    """The outcomes of the forecasts among the calls of one pause: JSON with subcalls, tokens and
    cost_usd (None where unknown).

    The prompt of each is JSON too: ``calls``, ``chars`` (of their prompts, as far as they are
    known), ``replies`` (how many replies of earlier calls later prompts hold), and ``bytes`` (of
    the prompts in UTF-8; when it isn't told, one for each character).
    """
    found: dict[CallId, Outcome] = {}
    if not any(call.kind == "forecast" for call in calls.values()):
        return found
    count, beside = 0, under_way(state)
    for call_id, call in calls.items():
        if call.kind == "forecast":
            found[call_id], more, takes = _judged(state, call, count, beside)
            count, beside = count + more, beside.plus(takes)
    return found


def _judged(
    state: RunState, call: HostCall, before: int, beside: Need
) -> tuple[Outcome, int, Need]:
    """The outcome of a forecast beside so many subcalls that are about to be made and what they
    take; and the subcalls that it adds to these, which are none if they don't fit."""
    asked = _asked(call.prompt)
    if asked is None:
        told = "a forecast is asked with whole numbers: calls, chars, replies"
        return Outcome("error", told), 0, NOTHING
    count, asked_bytes, replies = asked
    options = state.options
    adapter = call.model or "subcall"
    bills = bills_of(state, adapter)
    reply = expected_reply(bills, call.max_tokens or options.subcall_max_tokens)
    size = asked_bytes + count * utf8_bytes(options.subcall_system)
    prompt = expected_prompts(bills, size, count) + replies * reply
    tokens = prompt + count * reply
    nusd = known_nusd(state, adapter, Size(-(-prompt // max(1, count)), reply))
    nusd = None if nusd is None else count * nusd
    takes = Need(tokens, nusd or 0)
    exceeded = breach_by_subcalls(options.policy, state.spent, before + count) or breach_by_call(
        options.policy,
        state.spent,
        beside.plus(takes),
        below_root=True,
        room=room(state),
    )
    if exceeded is not None:
        cost = "" if nusd is None else f", {usd(nusd / NANO_USD)}"
        take = "takes" if count == 1 else "take"
        all_of = f"{counted(count, 'subcall')} {take} about {counted(tokens, 'token')}{cost}"
        more = f", {counted(before, 'other')} about to be asked" if before else ""
        no_room = f"{all_of}{more}, and the limit {exceeded} leaves no room for them"
        return Outcome("limit", no_room, exceeded.limit), 0, NOTHING
    cost_usd = None if nusd is None else round(nusd / NANO_USD, 9)
    data = {"subcalls": count, "tokens": tokens, "cost_usd": cost_usd}
    return Outcome("text", json.dumps(data)), count, takes


def _asked(prompt: str) -> tuple[int, int, int] | None:
    """Calls, bytes and replies; None for what model-written code may have made up."""
    try:
        data = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    given = cast(dict[str, Any], data)
    values = [given.get(name) for name in ("calls", "chars", "replies")]
    values.append(given.get("bytes", values[1]))
    whole = [value for value in values if type(value) is int and 0 <= value < 1 << 53]
    return (whole[0], whole[3], whole[2]) if len(whole) == len(values) else None
