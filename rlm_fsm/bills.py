"""What a call will take, by its size and by what its adapter's bills have shown so far.

How many tokens a text has depends on its language and on the model. Sizes are counted in bytes of
UTF-8, since these differ less than characters do: an English token has about four of them, a
Chinese one about three. Beyond that, a run learns from its bills, per adapter:

1. A call is *expected* to take a quarter of its prompt's bytes, or as many for each as the prompts
   so far had on the whole, where that is more; and all that it may generate, or, where that is
   less, twice what the longest reply so far had (`USUAL_REPLY`).
2. It takes *at most* a quarter more for each byte than the densest prompt so far (`MARGIN`), what
   was added to any prompt so far, and all that it may generate, with what the wordiest reply had
   more than that. Short prompts and long ones (`LONG`) are two kinds: of a short one, much may be
   the provider's own.
3. Bills say something of prompts once there were enough of them (`SEEN`). Until then a byte may be
   a token.
4. Without a price, a token is expected to cost what the cheapest one so far did, and at most what
   the dearest did: providers charge several times more for what is generated than for what is
   sent, and long prompts are cheaper by the token. What a prompt costs isn't known before rule 3.
5. With a price, it costs at most as much more than that as the dearest call did.

All are estimates still: the next text may be denser than all before it.
"""

from math import ceil
from typing import NamedTuple

from rlm_fsm.price import NANO_USD, Price
from rlm_fsm.values import Usage, estimate_tokens

EXTRA_TOKENS = 100
"""Tokens of a prompt that providers may add to its text, however long that is: roles, templates."""
SEEN = 2_000
"""Bytes that an adapter must have charged for."""
LONG = 1_000
"""Bytes of a prompt that is a long one."""
DENSE = 1.0
"""Tokens for each byte that no text exceeds. What a prompt has beyond was added to it."""
MARGIN = 1.25
"""How many times denser than the densest prompt so far the next one may be: pieces of one text
differ by less."""
USUAL_REPLY = 1_024
"""Tokens of a reply that is expected whatever came before, where so many are allowed."""


class Size(NamedTuple):
    """How many tokens a call takes."""

    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt + self.completion

    def nusd(self, price: Price, times: float = 1.0) -> int:
        """Nano-dollars for them by a price, so many times."""
        listed = price.estimate_nusd(self.prompt, self.completion)
        return listed if times == 1 else ceil(times * listed)

    def nusd_at(self, usd_per_token: float) -> int:
        """Nano-dollars for them at so much a token."""
        return ceil(usd_per_token * self.tokens * NANO_USD)


class Bills(NamedTuple):
    """What the bills of one adapter have shown. The order in which they came makes no difference.

    Prompts are counted without `EXTRA_TOKENS`, and with `DENSE` tokens for each byte at most.
    """

    bytes: int = 0
    """Bytes of all prompts."""
    prompt_tokens: int = 0
    """Tokens of all prompts."""
    densest_short: float = 0.0
    """Tokens for each byte, of the densest prompt that was short."""
    densest_long: float = 0.0
    """The same, of those that were `LONG`."""
    added: int = EXTRA_TOKENS
    """Tokens that can't have been those of the prompt's text, at most."""
    longest: int | None = None
    """Tokens of the longest reply; None before the first."""
    overrun: int = 0
    """Tokens that a reply had more than it was allowed, at most."""
    cheapest_usd: float | None = None
    """USD for a token, of the call that was cheapest by the token; None while no cost is known."""
    dearest_usd: float | None = None
    """The same, of the dearest."""
    dearer: float = 1.0
    """How many times more than by its price the dearest call cost."""

    def expected_nusd(self, size: Size) -> int | None:
        """Nano-dollars that tokens will cost, by rule 4; None while no cost is known."""
        if self.cheapest_usd is None:
            return None
        known = size if self.bytes >= SEEN else Size(0, size.completion)
        return known.nusd_at(self.cheapest_usd)

    def most_nusd(self, size: Size) -> int | None:
        """Nano-dollars that they may cost, by rule 4; None while no cost is known."""
        return None if self.dearest_usd is None else size.nusd_at(self.dearest_usd)

    def with_one(
        self,
        size: int,
        max_tokens: int,
        usage: Usage,
        cost_usd: float | None,
        price: Price | None = None,
    ) -> "Bills":
        """These bills and one more, of a call whose prompt has so many bytes."""
        total = usage.total_tokens
        charged = usage.prompt_tokens or total - usage.completion_tokens
        replied = total - usage.prompt_tokens if usage.prompt_tokens else usage.completion_tokens
        prompt = min(max(0, charged - EXTRA_TOKENS), ceil(DENSE * size))
        density = prompt / size if size else 0.0
        short, long = (0.0, density) if size >= LONG else (density, 0.0)
        cheapest, dearest = self.cheapest_usd, self.dearest_usd
        if cost_usd is not None and total:
            rate = cost_usd / total
            cheapest = rate if cheapest is None else min(cheapest, rate)
            dearest = max(dearest or 0.0, rate)
        return Bills(
            self.bytes + size,
            self.prompt_tokens + prompt,
            max(self.densest_short, short),
            max(self.densest_long, long),
            max(self.added, charged - prompt),
            max(self.longest or 0, replied),
            max(self.overrun, replied - max_tokens),
            cheapest,
            dearest,
            max(self.dearer, _times(cost_usd, price, usage)),
        )


NO_BILLS = Bills()
"""Those of an adapter that hasn't charged anything yet."""


def expected(bills: Bills, size: int, max_tokens: int) -> Size:
    """What a call with a prompt of so many bytes will take, by rule 1."""
    return Size(expected_prompt(bills, size), expected_reply(bills, max_tokens))


def expected_prompt(bills: Bills, size: int) -> int:
    """The tokens that so many bytes will be, by rule 1."""
    prompt = estimate_tokens(size)
    if bills.bytes < SEEN:
        return prompt
    return max(prompt, -(-size * bills.prompt_tokens // bills.bytes))


def expected_reply(bills: Bills, max_tokens: int) -> int:
    """The tokens of a reply that may have so many, by rule 1."""
    if bills.longest is None:
        return max_tokens
    return min(max_tokens, max(USUAL_REPLY, 2 * bills.longest))


def at_most(bills: Bills, size: int, max_tokens: int) -> Size:
    """What a call with a prompt of so many bytes may take, by rule 2."""
    density = bills.densest_long if size >= LONG else bills.densest_short
    if bills.bytes < SEEN or not density:
        density = DENSE / MARGIN
    prompt = max(ceil(MARGIN * density * size), expected_prompt(bills, size))
    return Size(prompt + bills.added, max_tokens + bills.overrun)


def _times(cost_usd: float | None, price: Price | None, usage: Usage) -> float:
    """How many times more than by its price a call cost; at least 1."""
    if cost_usd is None or price is None:
        return 1.0
    nusd = price.estimate_nusd(usage.prompt_tokens, usage.completion_tokens)
    return max(1.0, cost_usd * NANO_USD / nusd) if nusd else 1.0
