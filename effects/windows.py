"""How much a model can be sent: what `compaction` is a share of when nobody says it.

1. An adapter that has a whole number `context_window` is believed. Else the list of genai-prices
   (the extra ``prices``) is asked, of adapters that say at which address they ask, as for prices.
2. Sizes are estimates of four characters a token, which may be too low for code, numbers and other
   languages than English: a quarter of the window stays free for that (`FILLED`).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from effects.prices import INSTALL, has_list, model_listed
from rlm_fsm.errors import UsageError
from rlm_fsm.options import Options

FILLED = 0.75
"""Share of a window that is counted on."""
SHARE = 0.8
"""What ``compaction=True`` means."""


def share_of(compaction: object) -> float:
    """The recorded share of the argument `compaction`. `UsageError` for what is no number."""
    if isinstance(compaction, bool):
        return SHARE if compaction else 0.0
    if not isinstance(compaction, int | float):
        raise UsageError(f"compaction={compaction!r}: give True, or a share such as 0.8")
    return float(compaction)


def compacting(options: Options, share: float, adapters: Mapping[str, Any]) -> Options:
    """The options with this share for `compaction`, and with room where nobody said how much."""
    room = options.max_history_tokens
    if share and not room:
        room = history_room(adapters, max(options.max_tokens, options.compaction_max_tokens))
    return replace(options, compaction=share, max_history_tokens=room)


def history_room(adapters: Mapping[str, Any], max_tokens: int) -> int:
    """Tokens of history that root and sub-runs can be sent, when replies take up to `max_tokens`.

    Raises `UsageError` when nobody knows the root's window; where only that of sub-runs is unknown,
    the root's holds.
    """
    root, subcall = window(adapters["root"]), window(adapters["subcall"])
    if root is None:
        library = "" if has_list() else f", or install the list that knows them: {INSTALL}"
        raise UsageError(
            "compaction is a share of what may be sent, and nobody knows this model's window: give "
            f"max_history_tokens=..., or an adapter with a context_window{library}"
        )
    room = int(min(root, subcall or root) * FILLED) - max_tokens
    if room <= 0:
        raise UsageError(
            f"the model's window of {min(root, subcall or root):,} tokens leaves no room for "
            f"history beside replies of {max_tokens:,}: lower max_tokens"
        )
    return room


def window(adapter: Any) -> int | None:
    """Tokens that an adapter's model can be sent and generate in one call; None where unknown."""
    own = getattr(adapter, "context_window", None)
    if isinstance(own, int) and not isinstance(own, bool) and own > 0:
        return own
    listed = model_listed(adapter)
    known = getattr(listed, "context_window", None)
    return known if isinstance(known, int) and known > 0 else None
