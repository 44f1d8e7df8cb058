"""What tokens cost: prices as data, and the estimate for a call.

Prices come from outside (a price list, or the caller) and are recorded with a run's options, so
that what a cost limit allowed can be derived again from the log alone.

Amounts that are set aside are whole nano-dollars: sums and differences of them are exact, in
whatever order calls begin and end.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal

from rlm_fsm.errors import UsageError
from rlm_fsm.values import Usage

NANO_USD = 1_000_000_000
"""Nano-dollars in a dollar."""
_MTOK = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model charges. Bad values raise `UsageError`."""

    prompt_usd_per_mtok: float
    """USD for a million tokens sent."""
    completion_usd_per_mtok: float
    """USD for a million tokens generated, reasoning included."""
    cached_usd_per_mtok: float | None = None
    """USD for a million tokens sent that the provider had cached; None: as all others."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.name == "cached_usd_per_mtok":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"Price({item.name}={value!r}): give USD per million tokens")
            if not 0 <= value < math.inf:
                raise UsageError(f"Price({item.name}={value!r}): give a number, 0 or more")

    def cost_usd(self, usage: Usage) -> float:
        """What these tokens cost."""
        cached = self.cached_usd_per_mtok
        cached = self.prompt_usd_per_mtok if cached is None else cached
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        prompt = fresh * self.prompt_usd_per_mtok + usage.cached_tokens * cached
        return (prompt + usage.completion_tokens * self.completion_usd_per_mtok) / _MTOK

    def estimate_nusd(self, prompt_tokens: int, max_tokens: int) -> int:
        """Nano-dollars of a call: nothing cached, all that it may generate."""
        cost = prompt_tokens * self.prompt_usd_per_mtok + max_tokens * self.completion_usd_per_mtok
        return math.ceil(cost * (NANO_USD // _MTOK))


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
