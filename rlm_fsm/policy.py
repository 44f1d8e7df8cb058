"""Limits of a run and the arithmetic of budgets.

`Policy` is what may be spent, `Spent` what was spent and what is set aside for calls in flight.
Both are immutable; a policy serves any number of runs.

Rules:

1. Limits hold for the whole tree of frames. Every call is reserved before it starts, with the most
   that it may take, and settled when it ends, with its bill: sequential, parallel and recursive
   alike. What a call will take, and at most, is for `bills` to say.
2. A call starts beside others only where it exceeds no limit whatever all of them take. Else it
   waits for their bills, until it fits or goes alone.
3. A call that goes alone is refused when it is expected to exceed a limit beside all that was
   billed. So a limit is overshot by no more than one estimate's error, and what is refused doesn't
   hang on the order in which others came back.
4. Either way room is left for the root's last call, see `needs`.
5. What is left never rises, except by settling: a bill below its reservation gives the difference
   back.
6. Cost is reserved only under a cost limit, by the price that is recorded with the run, or else by
   the dearest token that the adapter has charged so far, or else another one has. As long as
   nothing is known, a call reserves all that is allowed, and so goes alone. A reply whose cost
   stays unknown counts against the limit with what was expected, and is never told as a cost.
7. What a cache answers is free: all that was reserved is given back, the place among
   `max_subcalls` too. It is reserved like any call all the same: that it is a hit is only known
   once the call was allowed to start. (Code that repeats itself for ever is stopped: `FREE_HITS`.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple

from pyrsistent import PMap, pmap

from rlm_fsm.bills import Bills
from rlm_fsm.errors import UsageError
from rlm_fsm.evolve import evolve
from rlm_fsm.ids import CallId
from rlm_fsm.numbers import LARGEST, number
from rlm_fsm.price import NANO_USD
from rlm_fsm.values import Usage

OnLimit = Literal["finalize", "raise"]
FREE_HITS = 20
"""Cache hits for each subcall that a policy allows, before hits count as subcalls. Code that asks
the same for ever would go on for ever else; and 20 times all that is allowed is a lot to repeat."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run may spend. `None` means no limit. Bad values raise `UsageError`."""

    max_steps: int = 40
    """Turns of the root frame. 0 makes no model call. (The seed runtime's default.)"""
    max_subcalls: int = 200
    """Subcalls made by code anywhere in the tree, identical prompts of a batch counted once, and
    those that a cache answers not at all. A batch must fit into what is left as a whole, before
    anybody knows which of its calls a cache will answer."""
    max_recursion_depth: int = 1
    """Depth of recursive sub-runs. 1 leaves it to the run's own option; 0 forbids them, and more
    caps both."""
    max_total_tokens: int | None = 200_000
    """Tokens of all calls of the tree, prompts and completions."""
    max_subcall_tokens: int | None = None
    """Tokens of all calls below the root's own turns."""
    max_cost_usd: float | None = None
    """Cost of all calls in USD, where it is known."""
    max_seconds: float | None = None
    """Seconds of work on the run, waiting included, over all processes that led it."""
    on_limit: OnLimit = "finalize"
    """``finalize``: a last call for the best answer, for which room is kept. ``raise``: a
    `PolicyError` that carries the best one so far."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "on_limit":
                if value not in ("finalize", "raise"):
                    raise UsageError(f"Policy(on_limit={value!r}): choose 'finalize' or 'raise'")
            elif value is None:
                if item.name in _REQUIRED:
                    raise UsageError(f"Policy({item.name}=None): give a whole number, 0 or more")
            elif (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value <= LARGEST
                or (item.name in _WHOLE and not isinstance(value, int))
            ):
                raise UsageError(_meaningless(item.name, value))


_REQUIRED = frozenset({"max_steps", "max_subcalls", "max_recursion_depth"})
_WHOLE = _REQUIRED | {"max_total_tokens", "max_subcall_tokens"}


def _meaningless(name: str, value: object) -> str:
    kind = "a whole number" if name in _WHOLE else "a number"
    told = f"Policy({name}={str(value)[:40]}): give {kind}, 0 or more"
    if not isinstance(value, int | float) or not value > LARGEST:
        return told
    return f"{told}, up to 2**53" + ("" if name in _REQUIRED else "; None means no limit")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a run has spent so far, and what is reserved for calls in flight."""

    steps: int = 0
    """Turns that the root has begun."""
    subcalls: int = 0
    """Subcalls begun anywhere, sub-runs included; not those that a cache has answered, or that a
    limit has kept from being made."""
    model_calls: int = 0
    """Model calls that ended, with a reply or without; cache hits are none."""
    cache_hits: int = 0
    """Calls that a cache answered."""
    tool_calls: int = 0
    """Calls of tools that ended, with a result or without."""
    usage: Usage = Usage()
    """Tokens of all calls that ended."""
    subcall_tokens: int = 0
    """The part of them below the root."""
    cost_usd: float | None = None
    """Sum of the known costs; None while none is known."""
    unpriced_calls: int = 0
    """Replies whose cost isn't known."""
    seconds: float = 0.0
    """Seconds of work on the run, up to the newest event that told the time."""
    reserved_tokens: int = 0
    """The most that the calls in flight may take."""
    reserved_subcall_tokens: int = 0
    reserved_nusd: int = 0
    """Nano-dollars: the most that the calls in flight may cost."""
    unknown_nusd: int = 0
    """Nano-dollars: what replies were expected to cost whose cost isn't known."""
    reservations: PMap[CallId, "Need"] = field(default_factory=lambda: pmap())
    """The part of each call in flight."""
    bills: Mapping[str, Bills] = field(default_factory=dict[str, Bills])
    """What the bills of each adapter have shown."""

    @property
    def taken_tokens(self) -> int:
        """Tokens that are spent or reserved."""
        return self.usage.total_tokens + self.reserved_tokens

    @property
    def taken_subcall_tokens(self) -> int:
        """The part of them below the root."""
        return self.subcall_tokens + self.reserved_subcall_tokens

    @property
    def taken_usd(self) -> float:
        """Cost that is known, expected or reserved."""
        return self.charged_usd + self.reserved_nusd / NANO_USD

    @property
    def charged_usd(self) -> float:
        """Cost that is known, and expected of replies whose cost isn't."""
        return (self.cost_usd or 0.0) + self.unknown_nusd / NANO_USD


class Need(NamedTuple):
    """What a call takes, by an estimate."""

    tokens: int
    nusd: int = 0
    """Nano-dollars; 0 without a cost limit, or without any idea."""

    def plus(self, other: "Need") -> "Need":
        """Both together."""
        return Need(self.tokens + other.tokens, self.nusd + other.nusd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """The first limit that a call would exceed."""

    limit: str
    """Field of `Policy`."""
    allowed: float
    used: float
    """What would be used with the call, estimates included."""

    def __str__(self) -> str:
        return f"{self.limit}: {number(self.used)} of {number(self.allowed)}"


def reserve(
    spent: Spent, call_id: CallId, most: Need, *, below_root: bool, steps: int = 0
) -> Spent:
    """Set aside what a call that starts may take, and count a root's turn."""
    below = most.tokens if below_root else 0
    return evolve(
        spent,
        steps=spent.steps + steps,
        reserved_tokens=spent.reserved_tokens + most.tokens,
        reserved_subcall_tokens=spent.reserved_subcall_tokens + below,
        reserved_nusd=spent.reserved_nusd + most.nusd,
        reservations=spent.reservations.set(call_id, most),
    )


def release(spent: Spent, call_id: CallId, *, below_root: bool) -> Spent:
    """Give back what was set aside for a call."""
    return evolve(spent, **_given_back(spent, call_id, below_root))


def settle(
    spent: Spent,
    call_id: CallId,
    *,
    below_root: bool,
    usage: Usage,
    cost_usd: float | None,
    seconds: float,
    unpriced: bool = False,
    cache_hit: bool = False,
    is_made: bool = True,
    bills: Mapping[str, Bills] | None = None,
) -> Spent:
    """Replace a reservation by the bill of the call that ended at `seconds`.

    `unpriced`: it was answered, and nobody knows what it cost. `cache_hit`: a cache answered it.
    `is_made`: anybody was asked. `bills`: what bills have shown now; None when this is none.
    """
    return evolve(
        spent,
        **_given_back(spent, call_id, below_root),
        model_calls=spent.model_calls + (is_made and not cache_hit),
        cache_hits=spent.cache_hits + cache_hit,
        usage=spent.usage + usage,
        subcall_tokens=spent.subcall_tokens + (usage.total_tokens if below_root else 0),
        cost_usd=spent.cost_usd if cost_usd is None else (spent.cost_usd or 0.0) + cost_usd,
        unpriced_calls=spent.unpriced_calls + unpriced,
        seconds=max(spent.seconds, seconds),
        bills=spent.bills if bills is None else bills,
    )


def _given_back(spent: Spent, call_id: CallId, below_root: bool) -> dict[str, object]:
    """The fields of what was set aside, without a call's part."""
    most = spent.reservations[call_id]
    below = most.tokens if below_root else 0
    return {
        "reserved_tokens": spent.reserved_tokens - most.tokens,
        "reserved_subcall_tokens": spent.reserved_subcall_tokens - below,
        "reserved_nusd": spent.reserved_nusd - most.nusd,
        "reservations": spent.reservations.remove(call_id),
    }


def uncounted(policy: Policy, spent: Spent) -> Spent:
    """What was spent, without a subcall that only caches have answered; unless there were
    `FREE_HITS` of these for each subcall that is allowed."""
    if spent.cache_hits > FREE_HITS * policy.max_subcalls:
        return spent
    return evolve(spent, subcalls=spent.subcalls - 1)


NOTHING = Need(0)
"""What a call takes that isn't made."""


def breach_by_call(
    policy: Policy, spent: Spent, takes: Need, *, below_root: bool, room: Need = NOTHING
) -> Breach | None:
    """The first limit that a call which takes so much would exceed beside all that was billed, or
    None. `room`: what is to be left for another call, of the root.

    A call without an estimate of its cost may start until the limit is reached.
    """
    used = spent.usage.total_tokens + takes.tokens + room.tokens
    if policy.max_total_tokens is not None and used > policy.max_total_tokens:
        return Breach(limit="max_total_tokens", allowed=policy.max_total_tokens, used=used)
    if below_root and policy.max_subcall_tokens is not None:
        used = spent.subcall_tokens + takes.tokens
        if used > policy.max_subcall_tokens:
            return Breach(limit="max_subcall_tokens", allowed=policy.max_subcall_tokens, used=used)
    if policy.max_cost_usd is not None:
        total = spent.charged_usd + (takes.nusd + room.nusd) / NANO_USD
        if total > policy.max_cost_usd:
            return Breach(limit="max_cost_usd", allowed=policy.max_cost_usd, used=total)
    return reached(policy, spent)


def reached(policy: Policy, spent: Spent) -> Breach | None:
    """The limit of cost that was reached, by what is known; None while there is none. Time isn't
    judged by calls: a deadline stops a run where it is, and what waits then waits for more time."""
    cost = spent.cost_usd or 0.0
    if policy.max_cost_usd is not None and cost >= policy.max_cost_usd:
        return Breach(limit="max_cost_usd", allowed=policy.max_cost_usd, used=cost)
    return None


def fits_beside(policy: Policy, spent: Spent, most: Need, room: Need) -> bool:
    """Whether a call below the root exceeds no limit, whatever it and those in flight take, and
    leaves `room`."""
    tokens, below = spent.taken_tokens + most.tokens + room.tokens, policy.max_subcall_tokens
    if policy.max_total_tokens is not None and tokens > policy.max_total_tokens:
        return False
    if below is not None and spent.taken_subcall_tokens + most.tokens > below:
        return False
    if policy.max_cost_usd is None:
        return True
    return spent.taken_usd + (most.nusd + room.nusd) / NANO_USD <= policy.max_cost_usd


def breach_by_subcalls(policy: Policy, spent: Spent, count: int) -> Breach | None:
    """Whether `count` more subcalls exceed `max_subcalls`."""
    used = spent.subcalls + count
    if used > policy.max_subcalls:
        return Breach(limit="max_subcalls", allowed=policy.max_subcalls, used=used)
    return None
