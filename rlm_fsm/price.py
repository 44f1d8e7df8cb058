"""What tokens cost: prices as data, and the estimate for a call.

Prices come from outside (a price list, or the caller) and are recorded with a run's options, so
that what a cost limit allowed can be derived again from the log alone.

Amounts that are set aside are whole nano-dollars: sums and differences of them are exact, in
whatever order calls begin and end.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from rlm_fsm.errors import UsageError
from rlm_fsm.values import Usage

NANO_USD = 1_000_000_000
"""Nano-dollars in a dollar."""
_MTOK = 1_000_000
_MOST_USD = 1_000_000_000
"""Of a million tokens: more is a slip, and would overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """What a model charges for calls with long prompts. Bad values raise `UsageError`."""

    above_tokens: int
    """Of a prompt with more tokens than that, all tokens of the call have this price."""
    prompt_usd_per_mtok: float
    completion_usd_per_mtok: float
    cached_usd_per_mtok: float | None = None
    """As in `Price`."""

    def __post_init__(self) -> None:
        if type(self.above_tokens) is not int or self.above_tokens < 1:
            raise UsageError(
                f"PriceTier(above_tokens={self.above_tokens!r}): give a number, from 1"
            )
        _check_rates(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model charges. Bad values raise `UsageError`."""

    prompt_usd_per_mtok: float
    """USD for a million tokens sent."""
    completion_usd_per_mtok: float
    """USD for a million tokens generated, reasoning included."""
    cached_usd_per_mtok: float | None = None
    """USD for a million tokens sent that the provider had cached; None: as all others."""
    tiers: tuple[PriceTier, ...] = ()
    """Other prices of calls with long prompts, the shortest first."""

    def __post_init__(self) -> None:
        _check_rates(self)
        tiers = self.tiers
        if not isinstance(tiers, tuple) or not all(isinstance(one, PriceTier) for one in tiers):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"Price(tiers={tiers!r}): give a tuple of PriceTier")
        starts = [tier.above_tokens for tier in tiers]
        if starts != sorted(set(starts)):
            raise UsageError(f"Price(tiers=...): above_tokens must rise, and is {starts}")

    def cost_usd(self, usage: Usage) -> float:
        """What these tokens cost."""
        rates = self._rates(usage.prompt_tokens)
        cached = rates.cached_usd_per_mtok
        cached = rates.prompt_usd_per_mtok if cached is None else cached
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        prompt = fresh * rates.prompt_usd_per_mtok + usage.cached_tokens * cached
        return (prompt + usage.completion_tokens * rates.completion_usd_per_mtok) / _MTOK

    def estimate_nusd(self, prompt_tokens: int, max_tokens: int) -> int:
        """Nano-dollars of a call: nothing cached, all that it may generate."""
        rates = self._rates(prompt_tokens)
        cost = prompt_tokens * rates.prompt_usd_per_mtok
        cost += max_tokens * rates.completion_usd_per_mtok
        return ceil(cost * (NANO_USD // _MTOK))

    def _rates(self, prompt_tokens: int) -> "Price | PriceTier":
        reached = [tier for tier in self.tiers if prompt_tokens > tier.above_tokens]
        return reached[-1] if reached else self


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPrice:
    """The price of one of a run's adapters, as its options record it."""

    adapter: str
    """The adapter's name in the run: ``root``, ``subcall``, or one that code may ask for."""
    model: str
    """The model that was looked up."""
    price: Price
    source: Literal["given", "list"]
    """``given`` by the caller, or from a price ``list``."""


def _check_rates(prices: Price | PriceTier) -> None:
    for name in ("prompt_usd_per_mtok", "completion_usd_per_mtok", "cached_usd_per_mtok"):
        value, told = getattr(prices, name), f"{type(prices).__name__}({name}="
        if value is None and name == "cached_usd_per_mtok":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"{told}{value!r}): give USD per million tokens")
        if not 0 <= value <= _MOST_USD:
            raise UsageError(f"{told}{value!r}): give a number from 0 to {_MOST_USD:,}")
