"""What is left of a run's limits: as data for code that asks, and as a line for the model.

The line is told with a turn, and only of limits that matter: those that a caller has to set to
have them (cost, seconds, tokens of subcalls), and the others once half of them is gone or little
was allowed. Turns are told by the profile's own messages.

To code, what calls are expected to take that are in flight or wait for a place counts as gone, and
what is kept for the root's last call (`needs`): its own calls can't have that. The line, which is
told with every turn, goes by what is set aside for those in flight.
"""

import json

from rlm_fsm.needs import room, under_way
from rlm_fsm.numbers import number, seconds, usd
from rlm_fsm.price import NANO_USD
from rlm_fsm.state import Frame, RunState

LINE = "(Left of the budget: {}.)"
"""The line; the parts are joined by commas."""
SUBCALLS, TOKENS, SUBCALL_TOKENS, COST, SECONDS = (
    "{left} of {allowed} subcalls",
    "{left} of {allowed} tokens",
    "{left} of {allowed} tokens of subcalls",
    "{left} of {allowed}",
    "{left} of {allowed} seconds",
)
"""Its parts."""
FEW_SUBCALLS = 20
"""So many or fewer in all, and they are told from the first turn on."""


def left(state: RunState, frame: Frame) -> dict[str, float | None]:
    """What is left to a frame: steps, subcalls, tokens, subcall_tokens, cost_usd, seconds.

    None where there is no limit. Steps are the frame's own; all else is the tree's.
    """
    policy, spent, due = state.options.policy, state.spent, under_way(state)
    kept = due.plus(room(state))
    cost_usd = spent.charged_usd + kept.nusd / NANO_USD
    return {
        "steps": max(0, frame.turns_left),
        "subcalls": _left(policy.max_subcalls, spent.subcalls),
        "tokens": _left(policy.max_total_tokens, spent.usage.total_tokens + kept.tokens),
        "subcall_tokens": _left(policy.max_subcall_tokens, spent.subcall_tokens + due.tokens),
        "cost_usd": _left(policy.max_cost_usd, cost_usd),
        "seconds": _left(policy.max_seconds, spent.seconds),
    }


def report(state: RunState, frame: Frame) -> str:
    """`left` as JSON: the outcome of a host call of kind ``budget``."""
    return json.dumps(left(state, frame))


def line(state: RunState) -> str:
    """The line for the next turn of a frame; empty when no limit matters."""
    policy, spent = state.options.policy, state.spent
    told: list[str] = []
    few = policy.max_subcalls <= FEW_SUBCALLS
    for words, told_as, allowed, used, always in (
        (SUBCALLS, number, policy.max_subcalls, spent.subcalls, few),
        (TOKENS, number, policy.max_total_tokens, spent.taken_tokens, False),
        (SUBCALL_TOKENS, number, policy.max_subcall_tokens, spent.taken_subcall_tokens, True),
        (COST, usd, policy.max_cost_usd, spent.taken_usd, True),
        (SECONDS, seconds, policy.max_seconds, spent.seconds, True),
    ):
        rest = _left(allowed, used)
        if allowed is not None and rest is not None and (always or rest * 2 <= allowed):
            told.append(words.format(left=told_as(rest), allowed=told_as(allowed)))
    return LINE.format(", ".join(told)) if told else ""


def _left(allowed: float | None, used: float) -> float | None:
    """Rounded, so that sums of floats don't show their last digits."""
    return None if allowed is None else max(0, round(allowed - used, 6))
