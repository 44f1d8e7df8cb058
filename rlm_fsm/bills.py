"""What a call will take, by its size and by what its adapter's bills have shown so far.

How many tokens a text has depends on its language and on the model: an English token has about
four characters, a Chinese one hardly one. So a run learns from its bills, per adapter:

1. A call is *expected* to take a quarter of its prompt's characters, or as many for each as the
   prompts so far had on the whole, where that is more; and all that it may generate.
2. It takes *at most* a quarter more for each character than the densest prompt so far (`MARGIN`),
   and as much more than it was allowed to generate as the wordiest reply so far.
3. Bills say something of prompts once there were enough of them (`SEEN_CHARS`). Until then a
   character may count as a token.
4. Without a price, a token is expected to cost what the cheapest one so far did, and at most what
   the dearest did: providers charge several times more for what is generated than for what is
   sent, and long prompts are cheaper by the token. What a prompt costs isn't known before rule 3.

Both are estimates still: the next text may be in another language than all before it.
"""

from math import ceil
from typing import NamedTuple

from rlm_fsm.price import NANO_USD, Price
from rlm_fsm.values import Usage, estimate_tokens

EXTRA_TOKENS = 100
"""Tokens of a prompt that providers may add to its text, however long that is: roles, templates."""
SEEN_CHARS = 2_000
"""Characters that an adapter must have charged for."""
DENSE = 1.0
"""Tokens for each character of a dense text, such as Chinese."""
MARGIN = 1.25
"""How many times denser than the densest prompt so far the next one may be: pieces of one text
differ by less."""


class Size(NamedTuple):
    """How many tokens a call takes."""

    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt + self.completion

    def nusd(self, price: Price) -> int:
        """Nano-dollars for them by a price."""
        return price.estimate_nusd(self.prompt, self.completion)

    def nusd_at(self, usd_per_token: float) -> int:
        """Nano-dollars for them at so much a token."""
        return ceil(usd_per_token * self.tokens * NANO_USD)


class Bills(NamedTuple):
    """What the bills of one adapter have shown. The order in which they came makes no difference.

    Prompts are counted without `EXTRA_TOKENS`.
    """

    chars: int = 0
    """Characters of all prompts."""
    prompt_tokens: int = 0
    """Tokens of all prompts."""
    densest: float = 0.0
    """Tokens for each character, of the densest prompt."""
    wordiest: float = 1.0
    """Tokens for each one that was allowed, of the reply that kept to that least."""
    cheapest_usd: float | None = None
    """USD for a token, of the call that was cheapest by the token; None while no cost is known."""
    dearest_usd: float | None = None
    """The same, of the dearest."""

    def expected_nusd(self, size: Size) -> int | None:
        """Nano-dollars that tokens will cost, by rule 4; None while no cost is known."""
        if self.cheapest_usd is None:
            return None
        known = size if self.chars >= SEEN_CHARS else Size(0, size.completion)
        return known.nusd_at(self.cheapest_usd)

    def most_nusd(self, size: Size) -> int | None:
        """Nano-dollars that they may cost, by rule 4; None while no cost is known."""
        return None if self.dearest_usd is None else size.nusd_at(self.dearest_usd)

    def with_one(
        self, chars: int, max_tokens: int, usage: Usage, cost_usd: float | None
    ) -> "Bills":
        """These bills and one more, of a call with so many characters."""
        total = usage.total_tokens
        prompt = max(0, (usage.prompt_tokens or total - usage.completion_tokens) - EXTRA_TOKENS)
        replied = total - usage.prompt_tokens if usage.prompt_tokens else usage.completion_tokens
        cheapest, dearest = self.cheapest_usd, self.dearest_usd
        if cost_usd is not None and total:
            rate = cost_usd / total
            cheapest = rate if cheapest is None else min(cheapest, rate)
            dearest = max(dearest or 0.0, rate)
        return Bills(
            self.chars + chars,
            self.prompt_tokens + prompt,
            max(self.densest, prompt / chars) if chars else self.densest,
            max(self.wordiest, replied / max_tokens),
            cheapest,
            dearest,
        )


NO_BILLS = Bills()
"""Those of an adapter that hasn't charged anything yet."""


def expected(bills: Bills, chars: int, max_tokens: int) -> Size:
    """What a call of so many characters will take, by rule 1."""
    prompt = estimate_tokens(chars)
    if bills.chars >= SEEN_CHARS:
        seen = min(bills.prompt_tokens, ceil(DENSE * bills.chars))
        prompt = max(prompt, -(-chars * seen // bills.chars))
    return Size(prompt, max_tokens)


def at_most(bills: Bills, chars: int, max_tokens: int) -> Size:
    """What a call of so many characters may take, by rule 2."""
    density = max(MARGIN * bills.densest, 0 if bills.chars >= SEEN_CHARS else DENSE)
    prompt = max(ceil(density * chars), expected(bills, chars, 0).prompt)
    return Size(prompt + EXTRA_TOKENS, ceil(bills.wordiest * max_tokens))
