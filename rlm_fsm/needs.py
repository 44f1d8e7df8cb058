"""What calls need of a run's limits: what they take in the state that it is in, and the last one.

1. How many tokens a call takes is for `bills` to say, and what they cost, where its adapter has no
   price that is recorded with the run.
2. Whatever starts, room is kept for one more call of the root: the last one, for the answer, its
   conversation longer by what a turn has added so far, or by what the running cell may show. So a
   batch that is beyond a limit leaves its replies to a model that can still speak, and
   ``on_limit="finalize"`` has its last call. The root's first turn keeps no room, for there is
   nothing yet to be answered from, nor do its turns with ``on_limit="raise"``.
3. A call below the root starts where it fits beside those in flight, whatever all of them take.
   Else it waits for their bills, and when it would go alone it is judged by what it is expected to
   take (`verdict`).
"""

from collections.abc import Mapping
from itertools import chain
from math import ceil

from rlm_fsm import history
from rlm_fsm.bills import NO_BILLS, Bills, Size, at_most, expected
from rlm_fsm.effect import CallModel
from rlm_fsm.event import ModelReplied
from rlm_fsm.ids import ROOT
from rlm_fsm.policy import NOTHING, Breach, Need, breach_by_call, fits_beside, reached
from rlm_fsm.price import NANO_USD
from rlm_fsm.state import RunState
from rlm_fsm.values import Usage, utf8_bytes


def takes_a_place(call: CallModel) -> bool:
    """Whether a call counts against the window: all but the root's own turns do."""
    return call.frame != ROOT or call.purpose == "subcall"


def need(state: RunState, call: CallModel) -> Need:
    """What a call is expected to take."""
    return _expected(state, call.adapter, _bytes(state, call), call.max_tokens)


def most(state: RunState, call: CallModel) -> Need:
    """The most that a call may take, which is set aside for it."""
    bills = bills_of(state, call.adapter)
    size = at_most(bills, _bytes(state, call), call.max_tokens)
    if not keeps_to_cost(state):
        return Need(size.tokens)
    priced = state.options.price_of(call.adapter)
    if priced is not None:
        return Need(size.tokens, size.nusd(priced.price, bills.dearer))
    nusd = bills.most_nusd(size)
    return Need(size.tokens, _unknown_nusd(state, call.adapter, size) if nusd is None else nusd)


def room(state: RunState, call: CallModel | None = None) -> Need:
    """What is to be left for the root's last call by a call of its own; without one, by all calls
    below it."""
    root, options = state.root, state.options
    if options.policy.max_total_tokens is None and options.policy.max_cost_usd is None:
        return NOTHING
    grown, profile = history.growth(root), options.profile
    if call is None:
        size = root.bytes if options.conversation_history else history.prompt(root, options).bytes
        grown = max(grown, profile.output_head + profile.output_tail)
    elif (
        call.purpose == "closing"
        or len(root.messages) <= history.HEAD
        or options.policy.on_limit == "raise"
    ):
        return NOTHING
    else:
        size = call.prompt.bytes
    size += (grown if options.conversation_history or call is None else 0) + len(profile.closing)
    return _expected(state, root.adapter, size, options.max_tokens)


def under_way(state: RunState) -> Need:
    """What the calls below the root are expected to take that are in flight or wait for a place."""
    backlogs = [frame.pause.backlog for frame in state.frames.values() if frame.pause is not None]
    takes = NOTHING
    for call in chain(state.calls.values(), state.queue, *backlogs):
        if takes_a_place(call):
            takes = takes.plus(need(state, call))
    return takes


def breach(state: RunState, call: CallModel, takes: Need | None = None) -> Breach | None:
    """The limit that the call would exceed, or None. `takes`: another estimate than its `need`."""
    below = takes_a_place(call)
    return breach_by_call(
        state.options.policy,
        state.spent,
        takes or need(state, call),
        below_root=below,
        room=room(state, None if below else call),
    )


def verdict(state: RunState, call: CallModel) -> Need | Breach | None:
    """On a call below the root that could start: what to set aside for it, or the limit that
    forbids it; None while it is to wait for the bills of those in flight."""
    takes, policy, spent = most(state, call), state.options.policy, state.spent
    if fits_beside(policy, spent, takes, room(state)):
        return reached(policy, spent) or takes
    if state.in_flight:
        return None
    return breach(state, call) or takes


def known_nusd(state: RunState, adapter: str, size: Size) -> int | None:
    """What tokens of an adapter are expected to cost, in nano-dollars: by its price, or else by its
    bills. None when neither is known."""
    priced = state.options.price_of(adapter)
    if priced is None:
        return bills_of(state, adapter).expected_nusd(size)
    return size.nusd(priced.price)


def untold_nusd(state: RunState, call: CallModel, usage: Usage) -> int:
    """What a reply is expected to have cost that nobody has told the cost of, in nano-dollars: for
    the tokens that it is said or estimated to have had, or else for all that were expected."""
    if not usage.total_tokens:
        return need(state, call).nusd
    size = Size(usage.prompt_tokens, usage.total_tokens - usage.prompt_tokens)
    return _expected_nusd(state, call.adapter, size)


def keeps_to_cost(state: RunState) -> bool:
    """Whether cost is set aside for calls."""
    return state.options.policy.max_cost_usd is not None and state.options.rules >= 2


def bills_of(state: RunState, adapter: str) -> Bills:
    """What the bills of an adapter have shown."""
    known = state.spent.bills
    found = known.get(adapter)
    return NO_BILLS.as_odd_as(known.values()) if found is None else found


def learned(state: RunState, call: CallModel, replied: ModelReplied) -> Mapping[str, Bills]:
    """What bills have shown, with that of a call."""
    known = state.spent.bills
    priced = state.options.price_of(call.adapter)
    bills = known.get(call.adapter, NO_BILLS).with_one(
        _bytes(state, call),
        call.max_tokens,
        replied.usage,
        replied.cost_usd,
        None if priced is None else priced.price,
    )
    return {**known, call.adapter: bills}


def _expected(state: RunState, adapter: str, prompt_bytes: int, max_tokens: int) -> Need:
    size = expected(bills_of(state, adapter), prompt_bytes, max_tokens)
    return Need(size.tokens, _expected_nusd(state, adapter, size) if keeps_to_cost(state) else 0)


def _expected_nusd(state: RunState, adapter: str, size: Size) -> int:
    """What tokens of an adapter are expected to cost: where nothing is known of it, as much as
    those of the cheapest of the others; 0 without any idea."""
    known = known_nusd(state, adapter, size)
    if known is not None:
        return known
    costs = [bills.expected_nusd(size) for bills in state.spent.bills.values()]
    return min((nusd for nusd in costs if nusd is not None), default=0)


def _bytes(state: RunState, call: CallModel) -> int:
    if call.purpose == "subcall":
        return call.prompt.bytes + utf8_bytes(state.options.subcall_system)
    return call.prompt.bytes


def _unknown_nusd(state: RunState, adapter: str, size: Size) -> int:
    """What tokens of an adapter may cost that hasn't told any cost: as much as those of the dearest
    of the others, or all that is allowed. When its bills have told none, they won't: 0."""
    others = [bills.dearest_usd for bills in state.spent.bills.values() if bills.dearest_usd]
    if others:
        return size.nusd_at(max(others))
    allowed = state.options.policy.max_cost_usd or 0.0
    return 0 if adapter in state.spent.bills else ceil(allowed * NANO_USD)
