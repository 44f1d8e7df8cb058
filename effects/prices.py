"""What models charge, and what a reply cost that its provider doesn't tell.

1. Prices that the caller gives count first, then the list of the library genai-prices (the extra
   ``prices``), then nothing: a model that neither knows has no price, and its calls no cost.
2. The list is asked only about adapters that say at which address they ask (`url`): the same name
   at another address is another model, or the same one for nothing.
3. A cost is worked out from the usage that the provider reports. Of an estimated usage it would
   be a guess, so there is none; unless the model is free.
4. A limit of cost that can't be kept is refused before anything is started.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, cast
from urllib.parse import urlsplit

from effects.calling import CostOf
from rlm_fsm.errors import UsageError
from rlm_fsm.numbers import number
from rlm_fsm.policy import Policy
from rlm_fsm.price import AdapterPrice, Price, PriceTier
from rlm_fsm.values import ModelResponse, Usage

INSTALL = 'pip install "rlm-fsm[prices]"'
_SAMPLE_TOKENS = 1_000
"""Tokens that a list's price of short prompts is asked for."""


def prices_of(
    adapters: Mapping[str, Any], given: Mapping[str, Price] | None
) -> tuple[AdapterPrice, ...]:
    """The prices of a run's adapters, as far as they are known.

    `given` names models, or adapters by their names in the run.
    Raises `UsageError` for a name that means neither, and for what is no `Price`.
    """
    given = given or {}
    _check_given(given, adapters)
    found: list[AdapterPrice] = []
    for name in sorted(adapters):
        model = _model(adapters[name])
        own = given.get(name, given.get(model))
        if own is None and adapters[name] is adapters.get("root"):
            own = given.get("root")
        listed = _listed(adapters[name], model) if own is None else None
        if own is not None:
            found.append(AdapterPrice(adapter=name, model=model, price=own, source="given"))
        elif listed is not None:
            found.append(AdapterPrice(adapter=name, model=model, price=listed, source="list"))
    return tuple(found)


def prices_again(
    adapters: Mapping[str, Any], given: Mapping[str, Price] | None, recorded: Sequence[AdapterPrice]
) -> tuple[AdapterPrice, ...]:
    """The prices of a run that goes on: those that were given then hold for the same models."""
    names = {*adapters, *(_model(adapter) for adapter in adapters.values())}
    kept = {
        item.model: item.price
        for item in recorded
        if item.source == "given" and item.model in names
    }
    return prices_of(adapters, {**kept, **(given or {})})


def check_cost_limit(
    policy: Policy, adapters: Mapping[str, Any], prices: Sequence[AdapterPrice]
) -> None:
    """Refuse a limit of cost for models whose cost nobody knows.

    An adapter with a true `reports_cost` needs no price: its replies tell what they cost.
    """
    if policy.max_cost_usd is None:
        return
    priced = {item.adapter for item in prices}
    unknown = sorted(
        name
        for name, adapter in adapters.items()
        if name not in priced and not getattr(adapter, "reports_cost", False)
    )
    if not unknown:
        return
    named = ", ".join(f"{name} ({_model(adapters[name]) or 'no name'})" for name in unknown)
    example = _model(adapters[unknown[0]]) or unknown[0]
    library = "" if has_list() else f", or install a price list: {INSTALL}"
    raise UsageError(
        f"max_cost_usd={number(policy.max_cost_usd)} can't be kept: nobody knows what these models "
        f"cost: {named}. Pass prices={{{example!r}: Price(prompt_usd_per_mtok=..., "
        f"completion_usd_per_mtok=...)}} (0 for a model of your own){library}"
    )


def costs(adapters: Mapping[str, Any], prices: Sequence[AdapterPrice]) -> CostOf:
    """What replies of these adapters cost."""
    given = {item.adapter: item.price for item in prices if item.source == "given"}
    unknown: set[tuple[str, str]] = set()

    def cost_of(adapter: str, response: ModelResponse) -> float | None:
        price, usage = given.get(adapter), response.usage
        if price is not None and _is_free(price):
            return 0.0
        if usage.estimated or usage.total_tokens <= 0:
            return None
        if price is not None:
            return price.cost_usd(usage)
        known = adapters.get(adapter)
        for model in dict.fromkeys((response.model_id or "", _model(known))):
            if (model, _url(known)) not in unknown:
                cost = _by_list(usage, model, _url(known))
                if cost is not None:
                    return sum(cost)
                unknown.add((model, _url(known)))
        return None

    return cost_of


def has_list() -> bool:
    """Whether the price list is installed."""
    return find_spec("genai_prices") is not None


def model_listed(adapter: Any) -> Any:
    """What the list knows of an adapter's model, as its library gives it; None where nothing."""
    found = _looked_up(Usage(1, 1, 2), _model(adapter), _url(adapter))
    return None if found is None else found.model


def _check_given(given: Mapping[str, Price], adapters: Mapping[str, Any]) -> None:
    models = {_model(adapter) for adapter in adapters.values()}
    known = sorted({*adapters, *models} - {""})
    for name, price in given.items():
        if not isinstance(price, Price):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(
                f"prices[{name!r}] is {type(price).__name__}: give a Price("
                "prompt_usd_per_mtok=..., completion_usd_per_mtok=...)"
            )
        if name not in known:
            raise UsageError(f"prices names {name!r}; the run's models are {', '.join(known)}")


def _is_free(price: Price) -> bool:
    return (price.prompt_usd_per_mtok, price.completion_usd_per_mtok) == (0, 0)


def _model(adapter: Any) -> str:
    model = getattr(adapter, "model", None)
    return model if isinstance(model, str) else ""


def _url(adapter: Any) -> str:
    url = getattr(adapter, "url", None)
    return url if isinstance(url, str) else ""


def _listed(adapter: Any, model: str) -> Price | None:
    """The list's price of an adapter's model, with those of long prompts."""
    url = _url(adapter)
    found = _looked_up(Usage(1, 1, 2), model, url)
    rates = _rates(model, url, _SAMPLE_TOKENS)
    if found is None or rates is None:
        return None
    tiers: list[PriceTier] = []
    for start in _starts(found.model_price):
        prompt, completion = _rates(model, url, start + 1) or rates
        tiers.append(
            PriceTier(
                above_tokens=start, prompt_usd_per_mtok=prompt, completion_usd_per_mtok=completion
            )
        )
    return Price(prompt_usd_per_mtok=rates[0], completion_usd_per_mtok=rates[1], tiers=tuple(tiers))


def _rates(model: str, url: str, prompt_tokens: int) -> tuple[float, float] | None:
    """USD for a million tokens sent and generated, with a prompt of so many, by the list."""
    cost = _by_list(
        Usage(prompt_tokens, _SAMPLE_TOKENS, prompt_tokens + _SAMPLE_TOKENS), model, url
    )
    if cost is None:
        return None
    return (
        round(cost[0] * 1_000_000 / prompt_tokens, 9),
        round(cost[1] * 1_000_000 / _SAMPLE_TOKENS, 9),
    )


def _starts(prices: Any) -> list[int]:
    """The sizes of prompts from which a model of the list has another price."""
    parts = cast(dict[str, Any], vars(prices)).values()
    return sorted({int(tier.start) for part in parts for tier in getattr(part, "tiers", ())})


def _by_list(usage: Usage, model: str, url: str) -> tuple[float, float] | None:
    """What prompt and completion cost by the list; None where it doesn't know the model."""
    price = _looked_up(usage, model, url)
    return None if price is None else (float(price.input_price), float(price.output_price))


def _looked_up(usage: Usage, model: str, url: str) -> Any:
    """What the list says of a model's call; None where it doesn't know the model."""
    if not model or not url or _is_local(url) or not has_list():
        return None
    # Imported here: it takes 0.3 s.
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )
    try:
        return genai_prices.calc_price(counted, model, provider_api_url=url)
    except (LookupError, ValueError):
        return None


def _is_local(url: str) -> bool:
    return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
