"""One budget over all runs of a batch.

1. A run that begins is given a share of what is left as limits of its own, so that the reducer
   keeps the budget: before each call, with estimates. The shares of the runs that go on at the same
   time, and what the others have used, are never more than the whole.
2. A share is what is free, divided by the runs that could begin now; but not less than a run is
   likely to need. When less than that is free, the next run waits for the shares of those that go
   on: a run gives back what it didn't use.
   - A run needs the most that one has used that came to its end, or more than one was allowed that
     the budget cut short; and room for the two calls that the machine sets aside.
   - While nothing is known of that, it is a third of what is left, but 4 to 32 first calls.
3. With nothing going on and not even a first call's worth left, the budget is used up.
4. Time isn't shared out: each run may work until the batch's time is over.
5. What earlier processes of the batch have spent counts, but for time: that is counted from the
   start of this one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

from rlm_fsm.errors import UsageError
from rlm_fsm.ids import RunId
from rlm_fsm.numbers import number, usd
from rlm_fsm.policy import Policy

Limit = Literal["max_total_tokens", "max_cost_usd", "max_seconds"]
SHARED: tuple[Limit, ...] = ("max_total_tokens", "max_cost_usd")
"""Limits that are divided among runs."""
LIMITS: tuple[Limit, ...] = (*SHARED, "max_seconds")
FIRST_WAVE = 3
"""Runs that may begin, in a tight budget, before one has shown what it needs."""
FIRST_CALLS = (4, 32)
"""First calls that the share of such a run is worth, at least and at most. A run of two turns
needs about three, since room is kept for two; one of five long turns and twenty subcalls 25."""
SET_ASIDE = 2
"""Calls that the machine keeps room for: the next one and the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a batch may spend, all its runs together. None means no limit.

    Bad values raise `UsageError`.
    """

    max_cost_usd: float | None = None
    """Cost of all calls in USD, where it is known."""
    max_total_tokens: int | None = None
    """Tokens of all calls, prompts and completions."""
    max_seconds: float | None = None
    """Seconds from the start of the batch until the last run must have ended."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_whole = item.name != "max_total_tokens" or isinstance(value, int)
            if value is not None and not (is_number and is_whole and value >= 0):
                kind = "a number" if is_whole else "a whole number"
                raise UsageError(f"Budget({item.name}={value!r}): give {kind}, 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a run has used so far."""

    tokens: int = 0
    cost_usd: float = 0.0
    """The known part."""
    seconds: float = 0.0


class Ledger:
    """Who may spend what."""

    def __init__(
        self, budget: Budget, policy: Policy, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`policy` is every run's own."""
        self.budget = budget
        self.policy = policy
        self._clock = clock
        self._began_s = clock()
        self._used: dict[RunId, Used] = {}
        self._spent: dict[Limit, float] = dict.fromkeys(SHARED, 0.0)
        """The sums over `_used`."""
        self._granted: dict[RunId, Policy] = {}
        """The runs that go on, with what they may use in all."""
        self._needed: dict[Limit, float] = {}
        """The most that a run has needed, as far as is known."""

    @property
    def is_idle(self) -> bool:
        """Whether no run goes on."""
        return not self._granted

    def note(self, run_id: RunId, used: Used, *, is_whole: bool = False) -> None:
        """What a run has used in all; `is_whole` when it needs no more."""
        before = self._used.get(run_id, Used())
        for name in SHARED:
            self._spent[name] += _amount(used, name) - _amount(before, name)
            if is_whole:
                self._needs(name, _amount(used, name))
        self._used[run_id] = used

    def grant(self, run_id: RunId, *, first: Used, at_once: int) -> Policy | None:
        """The limits of a run that begins or goes on; None when too little is free.

        `first` is the estimate of its first call, `at_once` the number of runs that could begin
        now, this one included.
        """
        if self.reached() is not None:
            return None
        used = self._used.get(run_id, Used())
        policy = self.policy
        for name in SHARED:
            free = self._free(name)
            if free is None:
                continue
            least = _amount(first, name)
            wanted = self._wanted(name, least)
            share = max(free / at_once, min(free, wanted))
            if share < (least if self.is_idle else wanted) or share <= 0:
                return None
            policy = _capped(policy, name, _amount(used, name) + share)
        policy = _capped(policy, "max_seconds", self._until(used))
        self._granted[run_id] = policy
        return policy

    def settle(
        self, run_id: RunId, used: Used, *, is_whole: bool = False, limit: str | None = None
    ) -> None:
        """A run has stopped, by a `limit` perhaps: it gives back what it didn't use."""
        granted = self._granted.pop(run_id)
        self.note(run_id, used, is_whole=is_whole)
        cut = self.cut_by(limit, granted)
        if cut in SHARED:
            self._needs(cut, _limit(granted, cut))

    def reached(self) -> Limit | None:
        """The limit of the budget that is used up by what was spent, or None."""
        for name in SHARED:
            allowed = self._allowed(name)
            if allowed is not None and self._spent[name] >= allowed:
                return name
        seconds = self.budget.max_seconds
        if seconds is not None and self._clock() - self._began_s >= seconds:
            return "max_seconds"
        return None

    def refusal(self, first: Used) -> str:
        """Why no more runs are begun."""
        if self.reached() == "max_seconds":
            return self.shortage("max_seconds")
        for name in SHARED:
            least, left = _amount(first, name), self._free(name)
            if left is not None and (left <= 0 or left < least):
                takes = f", a first call takes {_told(name, least)}" if least else ""
                return self._used_up(name, takes)
        raise AssertionError("nothing is refused while there is room")

    def cut_by(self, limit: str | None, granted: Policy) -> Limit | None:
        """The limit that has ended a run, if it had that from the budget, not of its own."""
        for name in LIMITS:
            if limit == name and getattr(granted, name) != getattr(self.policy, name):
                return name
        return None

    def shortage(self, limit: Limit) -> str:
        """Why runs that the budget cut short don't go on."""
        seconds = self.budget.max_seconds
        if limit == "max_seconds" and seconds is not None:
            return f"the budget's time is over: max_seconds={number(seconds)}"
        return self._used_up(limit, ", too little to go on")

    def _used_up(self, name: Limit, more: str) -> str:
        allowed, left = self._allowed(name), self._free(name)
        assert allowed is not None, "only what has a limit is used up"
        assert left is not None, "a limit leaves something"
        return f"the budget is used up: {name}={number(allowed)}, {_told(name, left)} left{more}"

    def _allowed(self, name: Limit) -> float | None:
        allowed: float | None = getattr(self.budget, name)
        return allowed

    def _free(self, name: Limit) -> float | None:
        """What nobody has used or was given; None without a limit."""
        allowed = self._allowed(name)
        if allowed is None:
            return None
        held = sum(
            max(0.0, _limit(policy, name) - self._used_by(run_id, name))
            for run_id, policy in self._granted.items()
        )
        return max(0.0, allowed - self._spent[name] - held)

    def _wanted(self, name: Limit, least: float) -> float:
        """What a run is likely to need; `least` is its first call."""
        needed = self._needed.get(name)
        if needed is not None:
            return needed + SET_ASIDE * least
        allowed = self._allowed(name)
        assert allowed is not None, "only what has a limit is shared"
        third = (allowed - self._spent[name]) / FIRST_WAVE
        if not least:
            return third
        fewest, most = FIRST_CALLS
        return max(fewest * least, min(most * least, third))

    def _needs(self, name: Limit, amount: float) -> None:
        self._needed[name] = max(amount, self._needed.get(name, 0.0))

    def _used_by(self, run_id: RunId, name: Limit) -> float:
        return _amount(self._used.get(run_id, Used()), name)

    def _until(self, used: Used) -> float | None:
        if self.budget.max_seconds is None:
            return None
        left = self.budget.max_seconds - (self._clock() - self._began_s)
        return used.seconds + max(0.0, left)


def _capped(policy: Policy, name: Limit, most: float | None) -> Policy:
    """The policy with a limit that is `most` at most."""
    own: float | None = getattr(policy, name)
    if most is None or (own is not None and own <= most):
        return policy
    match name:
        case "max_total_tokens":
            return replace(policy, max_total_tokens=int(most))
        case "max_cost_usd":
            return replace(policy, max_cost_usd=most)
        case "max_seconds":
            return replace(policy, max_seconds=most)


def _limit(policy: Policy, name: Limit) -> float:
    value: float | None = getattr(policy, name)
    assert value is not None, "a run under a budget has a limit"
    return value


def _told(name: Limit, amount: float) -> str:
    return usd(amount) if name == "max_cost_usd" else number(amount)


def _amount(used: Used, name: Limit) -> float:
    return used.tokens if name == "max_total_tokens" else used.cost_usd
