"""What calls cost: told by providers, given by callers, looked up, or unknown; limits of cost."""

from pathlib import Path
from typing import Any

import pytest
from loopback import ChatServer

from effects import prices as pricing
from effects.adapters.openai_compat import OpenAICompatAdapter
from rlm_fsm import (
    RLM,
    FakeAdapter,
    MaxCostExceeded,
    ModelResponse,
    Policy,
    Price,
    SqliteLog,
    Usage,
    UsageError,
    fork,
    resume,
    run,
)
from rlm_fsm.event import ModelReplied, RunResumed, RunStarted
from rlm_fsm.price import AdapterPrice

TEXT = "one two three"
CENT = Price(prompt_usd_per_mtok=0, completion_usd_per_mtok=10_000)
"""A cent a generated token."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


class Model:
    """Asks its code's questions, then answers; each reply is billed one generated token."""

    model = "metered"

    def __init__(self, *turns: str, meta: dict[str, Any] | None = None) -> None:
        self.turns, self.meta, self.calls = list(turns), meta, 0

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        self.calls += 1
        if messages[0]["content"].startswith("You are a sub-LLM"):
            said = "yes"
        else:
            said = self.turns.pop(0)
        return ModelResponse(said, Usage(5, 1, 6), model_id=self.model, meta=self.meta)


def events_of(log: Path, run_id: str) -> list[Any]:
    with SqliteLog(log) as opened:
        return [logged.event for logged in opened.load(opened.find(run_id))]


def test_a_given_price_makes_the_cost_of_a_run_known(log: Path) -> None:
    model = Model("x = llm_batch(['a', 'b'])", "FINAL_VAR: x")
    result = run("q", TEXT, adapter=model, prices={"metered": CENT}, log=log)
    assert result.cost_usd == pytest.approx(0.04)
    assert result.usage.unpriced_calls == 0
    replies = [e for e in events_of(log, result.run_id) if isinstance(e, ModelReplied)]
    assert [event.cost_usd for event in replies] == [0.01] * 4


def test_what_the_provider_tells_wins_over_any_price(log: Path) -> None:
    model = Model("FINAL: 1", meta={"cost_usd": 0.5})
    assert run("q", TEXT, adapter=model, prices={"metered": CENT}, log=log).cost_usd == 0.5


def test_of_an_unknown_model_there_is_no_cost(log: Path) -> None:
    result = run("q", TEXT, adapter=Model("FINAL: 1"), log=log)
    assert (result.cost_usd, result.usage.unpriced_calls) == (None, 1)


def test_the_known_part_of_a_cost_says_how_many_calls_are_missing(log: Path) -> None:
    result = run(
        "q",
        TEXT,
        adapter=Model("x = llm_query('a')", "FINAL_VAR: x"),
        subcall_adapter=FakeAdapter(["hm"]),
        prices={"root": CENT},
        log=log,
    )
    assert result.cost_usd == pytest.approx(0.02)
    assert result.usage.unpriced_calls == 1


def test_an_estimated_usage_has_no_cost_unless_the_model_is_free(log: Path) -> None:
    adapter = FakeAdapter(["FINAL: 1"])  # reports estimates, marked as such
    result = run("q", TEXT, adapter=adapter, prices={"fake": CENT}, log=log)
    assert (result.cost_usd, result.usage.unpriced_calls) == (None, 1)
    free = Price(prompt_usd_per_mtok=0, completion_usd_per_mtok=0)
    adapter = FakeAdapter(["FINAL: 1"])
    assert run("q", TEXT, adapter=adapter, prices={"fake": free}, log=log).cost_usd == 0


def test_a_cost_limit_that_can_not_be_kept_is_refused_before_anything_starts(log: Path) -> None:
    model = Model("FINAL: 1")
    with pytest.raises(UsageError, match=r"root \(metered\).*prices=\{'metered'"):
        run("q", TEXT, adapter=model, policy=Policy(max_cost_usd=1), log=log)
    assert model.calls == 0
    assert not log.exists()


def test_an_adapter_that_reports_its_cost_needs_no_price(log: Path) -> None:
    model = Model("x = llm_query('a')", "FINAL_VAR: x", meta={"cost_usd": 0.3})
    model.reports_cost = True  # type: ignore[attr-defined]
    result = run("q", TEXT, adapter=model, policy=Policy(max_cost_usd=0.5), log=log)
    assert (result.status, result.limit) == ("partial", "max_cost_usd")
    assert (result.cost_usd, model.calls) == (0.3, 1), "the next one may cost as much"


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_cost_limit_holds_for_batches_and_the_code_is_told(backend: str, log: Path) -> None:
    code = (
        "x = llm_batch([f'p{i}' for i in range(40)], max_tokens=25, on_error='return')\n"
        "print(sum(r == 'yes' for r in x), budget()['cost_usd'])"
    )
    model = Model(f"```python\n{code}\n```", "FINAL: done")
    result = run(
        "q",
        TEXT,
        adapter=model,
        prices={"metered": CENT},
        policy=Policy(max_cost_usd=0.51),
        max_tokens=20,
        max_concurrent_subcalls=9,
        repl_backend=backend,
        log=log,
    )
    assert result.status == "finished"
    assert result.cost_usd is not None
    assert result.cost_usd <= 0.5
    (cell,) = [step for step in result.trace if step.kind == "repl_exec"]
    answered, left = (cell.stdout or "").split()
    assert int(answered) == 6, "0.01 USD each, and 0.25 + 0.2 USD are left: of a call, and the last"
    assert float(left) == pytest.approx(0.51 - 0.01 * (1 + int(answered)) - 0.2)


def test_a_run_that_its_cost_ended_goes_on_with_more(log: Path) -> None:
    options: dict[str, Any] = {"prices": {"metered": CENT}, "max_tokens": 30}
    model = Model("x = 1", "FINAL_VAR: x")
    first = run("q", TEXT, adapter=model, policy=Policy(max_cost_usd=0.305), log=log, **options)
    assert (first.status, first.limit) == ("partial", "max_cost_usd")
    with pytest.raises(UsageError, match="larger max_cost_usd"):
        resume(first.run_id, adapter=model, log=log)
    result = resume(first.run_id, adapter=model, policy=Policy(max_cost_usd=1), log=log)
    assert (result.status, result.cost_usd) == ("finished", pytest.approx(0.02))


def test_a_cost_limit_may_raise(log: Path) -> None:
    policy = Policy(max_cost_usd=0.305, on_limit="raise")
    model = Model("x = 1")
    with pytest.raises(MaxCostExceeded) as caught:
        run("q", TEXT, adapter=model, policy=policy, prices={"root": CENT}, max_tokens=30, log=log)
    assert (caught.value.limit, caught.value.value) == ("max_cost_usd", 0.305)


def test_the_prices_of_a_run_are_recorded_and_hold_when_it_goes_on(log: Path) -> None:
    first = run("q", TEXT, adapter=Model("x = 1", "0"), log=log, **ONE_STEP)
    (started,) = [e for e in events_of(log, first.run_id) if isinstance(e, RunStarted)]
    recorded = AdapterPrice(adapter="root", model="metered", price=CENT, source="given")
    assert started.options.prices[0] == recorded
    more = Policy(max_steps=5, max_cost_usd=9)
    result = resume(first.run_id, adapter=Model("FINAL: 1"), policy=more, log=log)
    assert result.cost_usd == pytest.approx(0.01 * result.usage.model_calls)


def test_going_on_with_another_model_takes_its_price(log: Path) -> None:
    first = run("q", TEXT, adapter=Model("x = 1", "0"), log=log, **ONE_STEP)
    other = Model("FINAL: 1")
    other.model = "other"
    more = Policy(max_steps=5, max_cost_usd=9)
    with pytest.raises(UsageError, match="can't be kept"):
        resume(first.run_id, adapter=other, policy=more, log=log)
    twice = Price(prompt_usd_per_mtok=0, completion_usd_per_mtok=20_000)
    resume(first.run_id, adapter=other, policy=more, prices={"other": twice}, log=log)
    (resumed,) = [e for e in events_of(log, first.run_id) if isinstance(e, RunResumed)]
    assert resumed.options is not None
    assert [item.price for item in resumed.options.prices] == [twice, twice]
    forked = fork(first.run_id, at=1, adapter=Model("FINAL: 1"), prices={"root": twice}, log=log)
    assert forked.cost_usd == pytest.approx(0.02)


ONE_STEP: dict[str, Any] = {"policy": Policy(max_steps=1), "prices": {"metered": CENT}}
"""The turn, and the one for the best answer."""


@pytest.mark.parametrize(
    ("prices", "says"),
    [({"metred": CENT}, "metred.*metered"), ({"metered": (1, 2)}, "give a Price")],
)
def test_prices_that_mean_nothing_are_refused(prices: Any, says: str, log: Path) -> None:
    with pytest.raises(UsageError, match=says):
        RLM(Model("FINAL: 1"), prices=prices, log=log)


# The price list


def test_the_list_knows_what_a_provider_charges_at_its_own_address() -> None:
    pytest.importorskip("genai_prices")
    adapter = OpenAICompatAdapter("gpt-4o-mini", api_key="k")
    (item,) = pricing.prices_of({"root": adapter}, None)
    assert item.source == "list"
    assert item.price.completion_usd_per_mtok > item.price.prompt_usd_per_mtok > 0
    cost_of = pricing.costs({"root": adapter}, (item,))
    reply = ModelResponse("x", Usage(1_000, 100, 1_100), model_id="gpt-4o-mini-2024-07-18")
    expected = item.price.cost_usd(reply.usage)
    assert cost_of("root", reply) == pytest.approx(expected)
    cached = ModelResponse("x", Usage(1_000, 100, 1_100, cached_tokens=1_000))
    assert 0 < (cost_of("root", cached) or 0) < expected
    estimated = ModelResponse("x", Usage(1_000, 100, 1_100, estimated=True))
    assert cost_of("root", estimated) is None


def test_the_list_knows_that_some_models_charge_more_for_long_prompts() -> None:
    """By its own sums, on both sides of the size from which that holds."""
    pytest.importorskip("genai_prices")
    adapter = OpenAICompatAdapter("gpt-5.4", api_key="k")
    (item,) = pricing.prices_of({"root": adapter}, None)
    (tier,) = item.price.tiers
    cost_of = pricing.costs({"root": adapter}, (item,))
    for prompt in (1_000, tier.above_tokens, tier.above_tokens + 1, 2 * tier.above_tokens):
        reply = ModelResponse("x", Usage(prompt, 100, prompt + 100), model_id="gpt-5.4")
        assert item.price.cost_usd(reply.usage) == pytest.approx(cost_of("root", reply))
    assert tier.prompt_usd_per_mtok > item.price.prompt_usd_per_mtok


@pytest.mark.parametrize("url", ["http://localhost:11434/v1", "https://llm.example.org/v1"])
def test_the_same_name_at_another_address_has_no_price(url: str) -> None:
    adapter = OpenAICompatAdapter("gpt-4o-mini", base_url=url, api_key="")
    assert pricing.prices_of({"root": adapter}, None) == ()
    reply = ModelResponse("x", Usage(10, 1, 11), model_id="gpt-4o-mini")
    assert pricing.costs({"root": adapter}, ())("root", reply) is None


def test_without_the_list_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    monkeypatch.setattr(pricing, "find_spec", lambda name: None)
    adapter = OpenAICompatAdapter("gpt-4o-mini", api_key="k")
    assert pricing.prices_of({"root": adapter}, None) == ()
    with pytest.raises(UsageError, match=r"rlm-fsm\[prices\]"):
        RLM(adapter, policy=Policy(max_cost_usd=1), log=log)


def test_a_cost_in_the_reply_of_a_server_reaches_the_result(log: Path) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": 0.125}
    with ChatServer(lambda messages: "FINAL: 1", usage=usage) as server:
        adapter = OpenAICompatAdapter("m", base_url=server.base_url, api_key="")
        assert run("q", TEXT, adapter=adapter, log=log).cost_usd == 0.125
