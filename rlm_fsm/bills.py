"""What a call will take, by its size and by what its adapter's bills have shown so far.

How many tokens a text has depends on its language and on the model. Sizes are counted in bytes of
UTF-8, since these differ less than characters do: an English token has about four of them, a
Chinese one about three. Beyond that, a run learns from its bills, per adapter, of short prompts and
of long ones (`LONG`) apart: of a short one, much may be the provider's own.

1. A call is *expected* to take a quarter of its prompt's bytes, or as many for each as such prompts
   had on the whole, where that is more, and what was added to all of them; and all that it may
   generate, or, where that is less, twice what the longest reply so far had (`USUAL_REPLY`), and
   what all replies had beyond.
2. It takes *at most* a quarter more for each byte than the densest such prompt (`MARGIN`), what was
   added to any prompt, and all that it may generate, with what the wordiest reply had beyond.
3. Bills say something of prompts of a kind once there were enough of them (`SEEN`). Until then a
   byte may be a token.
4. Without a price, a token is expected to cost what the cheapest one so far did, and at most what
   the dearest did: providers charge several times more for what is generated than for what is
   sent, and long prompts are cheaper by the token. What a prompt costs isn't known before rule 3.
5. With a price, it costs at most as much more than that as the dearest call did.
6. An adapter that has charged nothing yet is taken to be as odd as the oddest of the others: mostly
   it is the same one by another name.

All are estimates still: the next text may be denser than all before it.
"""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from rlm_fsm.price import NANO_USD, Price
from rlm_fsm.values import Usage, estimate_tokens

EXTRA_TOKENS = 100
"""Tokens of a prompt that providers may add to its text, however long that is: roles, templates."""
SEEN = 2_000
"""Bytes of prompts of one kind that an adapter must have charged for."""
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


class Prompts(NamedTuple):
    """What bills have shown of prompts of one kind, counted without `EXTRA_TOKENS` and with `DENSE`
    tokens for each byte at most: what is beyond was `added`."""

    bytes: int = 0
    tokens: int = 0
    densest: float = 0.0
    """Tokens for each byte, of the densest one."""
    added: int | None = None
    """Tokens that were added to each of them at least; None before the first."""

    def with_one(self, size: int, charged: int) -> "Prompts":
        """These and one more of so many bytes."""
        tokens = min(max(0, charged - EXTRA_TOKENS), ceil(DENSE * size))
        added = max(0, charged - EXTRA_TOKENS - tokens)
        return Prompts(
            self.bytes + size,
            self.tokens + tokens,
            max(self.densest, tokens / size) if size else self.densest,
            added if self.added is None else min(self.added, added),
        )

    def expected(self, size: int) -> int:
        """The tokens of a prompt of so many bytes, by rule 1."""
        tokens = estimate_tokens(size)
        if self.bytes >= SEEN:
            tokens = max(tokens, -(-size * self.tokens // self.bytes))
        return tokens + (self.added or 0)

    def at_most(self, size: int) -> int:
        """The same by rule 2, but for what may be added."""
        density = self.densest if self.bytes >= SEEN else DENSE / MARGIN
        return max(ceil(MARGIN * density * size), self.expected(size))


class Bills(NamedTuple):
    """What the bills of one adapter have shown, whatever the order in which they came."""

    short: Prompts = Prompts()
    long: Prompts = Prompts()
    added: int = EXTRA_TOKENS
    """Tokens that can't have been those of a prompt's text, at most."""
    longest: int | None = None
    """Tokens of the longest reply; None before the first."""
    overrun: int = 0
    """Tokens that a reply had more than it was allowed, at most."""
    least_overrun: int | None = None
    """The same, at least; None before the first reply."""
    cheapest_usd: float | None = None
    """USD for a token, of the call that was cheapest by the token; None while no cost is known."""
    dearest_usd: float | None = None
    """The same, of the dearest."""
    dearer: float = 1.0
    """How many times more than by its price the dearest call cost."""

    def of(self, size: int) -> Prompts:
        """What is known of prompts such as one of so many bytes."""
        return self.long if size >= LONG else self.short

    def expected_nusd(self, size: Size) -> int | None:
        """Nano-dollars that tokens will cost, by rule 4; None while no cost is known."""
        if self.cheapest_usd is None:
            return None
        knows_prompts = self.short.bytes + self.long.bytes >= SEEN
        return (size if knows_prompts else Size(0, size.completion)).nusd_at(self.cheapest_usd)

    def most_nusd(self, size: Size) -> int | None:
        """Nano-dollars that they may cost, by rule 4; None while no cost is known. A call that cost
        nothing says nothing of the next one: what the provider had at hand is often free."""
        return size.nusd_at(self.dearest_usd) if self.dearest_usd else None

    def as_odd_as(self, others: Iterable["Bills"]) -> "Bills":
        """These of an adapter that has charged nothing yet, by rule 6."""
        found = self
        for bills in others:
            found = found._replace(
                added=max(found.added, bills.added),
                overrun=max(found.overrun, bills.overrun),
                dearer=max(found.dearer, bills.dearer),
            )
        return found

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
        is_long, beyond = size >= LONG, max(0, replied - max_tokens)
        cheapest, dearest, least = self.cheapest_usd, self.dearest_usd, self.least_overrun
        if cost_usd is not None and total:
            rate = cost_usd / total
            cheapest = rate if cheapest is None else min(cheapest, rate)
            dearest = max(dearest or 0.0, rate)
        return Bills(
            self.short if is_long else self.short.with_one(size, charged),
            self.long.with_one(size, charged) if is_long else self.long,
            max(self.added, charged - ceil(DENSE * size)),
            max(self.longest or 0, replied),
            max(self.overrun, beyond),
            beyond if least is None else min(least, beyond),
            cheapest,
            dearest,
            max(self.dearer, _times(cost_usd, price, usage)),
        )


NO_BILLS = Bills()
"""Those of an adapter that hasn't charged anything yet."""


def expected(bills: Bills, size: int, max_tokens: int) -> Size:
    """What a call with a prompt of so many bytes will take, by rule 1."""
    return Size(bills.of(size).expected(size), expected_reply(bills, max_tokens))


def expected_prompts(bills: Bills, size: int, count: int) -> int:
    """The tokens that so many prompts of so many bytes together will be, by rule 1."""
    if not count:
        return 0
    each = bills.of(size // count)
    return each.expected(size) + (count - 1) * (each.added or 0)


def expected_reply(bills: Bills, max_tokens: int) -> int:
    """The tokens of a reply that may have so many, by rule 1."""
    if bills.longest is None:
        return max_tokens
    usual = min(max_tokens, max(USUAL_REPLY, 2 * bills.longest))
    return usual + (bills.least_overrun or 0)


def at_most(bills: Bills, size: int, max_tokens: int) -> Size:
    """What a call with a prompt of so many bytes may take, by rule 2."""
    prompt = bills.of(size).at_most(size) + bills.added
    return Size(prompt, max_tokens + bills.overrun)


def _times(cost_usd: float | None, price: Price | None, usage: Usage) -> float:
    """How many times more than by its price a call cost; at least 1."""
    if cost_usd is None or price is None:
        return 1.0
    nusd = price.estimate_nusd(usage.prompt_tokens, usage.completion_tokens)
    return max(1.0, cost_usd * NANO_USD / nusd) if nusd else 1.0
