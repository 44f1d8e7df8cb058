"""How a batch shares a budget: a tight one finishes jobs, an ample one is shared at once."""

import asyncio
from pathlib import Path

import pytest

from effects.many.budget import Budget as Allowed
from effects.many.budget import Ledger, Used
from rlm_fsm import Budget, Job, ManyResult, ModelResponse, Policy, Usage, run_many
from rlm_fsm.ids import RunId
from rlm_fsm.values import Messages

ASK = "```python\nprint(llm_batch([f'{n} about {P}' for n in range(4)]))\n```"


class Reading:
    """A model that asks four things of the text, and answers; a token for four characters."""

    model = "reading"

    def __init__(self) -> None:
        self.at_once = self.most_at_once = 0

    async def acomplete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        is_sub = messages[0]["content"].startswith("You are a sub-LLM")
        turn = sum(message["role"] == "assistant" for message in messages)
        text = "a short reply" if is_sub else "FINAL: done" if turn else ASK
        self.at_once += not is_sub and not turn
        self.most_at_once = max(self.most_at_once, self.at_once)
        for _ in range(50):
            await asyncio.sleep(0)
        self.at_once -= not is_sub and not turn
        prompt, reply = sum(len(m["content"]) for m in messages) // 4, len(text) // 4 + 1
        return ModelResponse(text, Usage(prompt, reply, prompt + reply), self.model, {})

    complete = None  # only the asynchronous method is there


def read(jobs: int, budget: Budget | None = None, **options: object) -> tuple[ManyResult, Reading]:
    model = Reading()
    listed = [Job("Q?", f"text {number:02}", id=f"j{number:02}") for number in range(jobs)]
    done = run_many(
        listed,
        adapter=model,  # type: ignore[arg-type]  # it is asynchronous only
        log=":memory:",
        progress=False,
        budget=budget,
        **options,
    )
    return done, model


@pytest.fixture(scope="module")
def one() -> int:
    """Tokens of one job without a budget."""
    return read(1)[0].total_tokens


@pytest.mark.parametrize("max_runs", [1, 4, 10])
def test_a_tight_budget_finishes_jobs_however_many_may_go_on_at_once(
    one: int, max_runs: int
) -> None:
    budget = Budget(max_total_tokens=10 * one)
    done, _ = read(20, budget, max_runs=max_runs)
    assert done.counts()["finished"] >= 7
    assert done.total_tokens <= 10 * one
    assert "the budget is used up" in (done.stopped or "")


@pytest.mark.parametrize("jobs_worth", [3, 5, 20])
def test_runs_at_once_finish_as_many_jobs_as_one_after_the_other(one: int, jobs_worth: int) -> None:
    budget = Budget(max_total_tokens=jobs_worth * one)
    few, many = (read(20, budget, max_runs=runs)[0].counts() for runs in (1, 10))
    assert 0 < few["finished"] <= many["finished"] + 1


def test_an_ample_budget_is_worked_through_at_once(one: int) -> None:
    done, model = read(20, Budget(max_total_tokens=300 * one), max_runs=10)
    assert done.counts()["finished"] == 20
    assert model.most_at_once == 10


FIRST = Used(tokens=100)


def granted(ledger: Ledger, run: str, at_once: int = 10) -> int | None:
    policy = ledger.grant(RunId(run), first=FIRST, at_once=at_once)
    return None if policy is None else policy.max_total_tokens


def ledger(tokens: int) -> Ledger:
    return Ledger(Allowed(max_total_tokens=tokens), Policy())


def test_the_first_runs_have_a_third_each_within_bounds() -> None:
    for budget, shares in (
        (1_000, [400, 400, None]),
        (2_000, [666, 666, 666, None]),
        (20_000, [3_200] * 6 + [None]),
        (90_000, [9_000]),
    ):
        shared = ledger(budget)
        assert [granted(shared, f"r{n}") for n in range(len(shares))] == shares


def test_a_share_is_what_a_run_has_needed_and_two_calls() -> None:
    shared = ledger(2_000)
    assert granted(shared, "a") == 666
    shared.settle(RunId("a"), Used(tokens=300), is_whole=True)
    assert [granted(shared, f"r{n}") for n in range(4)] == [500, 500, 500, None]


def test_a_run_that_was_cut_needs_more_than_it_was_allowed() -> None:
    shared = ledger(2_000)
    assert granted(shared, "a") == 666
    shared.settle(RunId("a"), Used(tokens=150), limit="max_total_tokens")
    assert [granted(shared, f"r{n}") for n in range(3)] == [866, 866, None]


def test_a_run_that_goes_on_is_given_all_that_is_free() -> None:
    shared = ledger(2_000)
    assert granted(shared, "a") == 666
    shared.settle(RunId("a"), Used(tokens=150), limit="max_total_tokens")
    assert granted(shared, "a", at_once=1) == 2_000


ASK_IN_VAIN = (
    "```python\ntry:\n    llm_query('q ' * 20_000)\nexcept SubcallLimitError:\n    pass\n```"
)


class Refused(Reading):
    """Its code asks for more than a share of 6,000 tokens allows, and does without."""

    async def acomplete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        turn = sum(message["role"] == "assistant" for message in messages)
        said = "FINAL: x" if turn else ASK_IN_VAIN
        return ModelResponse(said, Usage(90, 10, 100), self.model, {})


@pytest.mark.parametrize(
    ("budget", "policy", "told"),
    [
        (6_000, Policy(), "subcalls were refused: {} left it max_total_tokens=6,000"),
        (900_000, Policy(max_total_tokens=6_000), None),
    ],
)
def test_a_finished_run_says_that_its_share_refused_subcalls_whoever_ended_it(
    budget: int, policy: Policy, told: str | None, tmp_path: Path
) -> None:
    for who, origin in (("the batch's budget", "new"), ("an earlier process", "log")):
        (row,) = run_many(
            [("q", "t")],
            adapter=Refused(),  # type: ignore[arg-type]  # it is asynchronous only
            log=tmp_path / "log.sqlite",
            budget=Budget(max_total_tokens=budget),
            policy=policy,
            progress=False,
        )
        assert (row.status, row.origin) == ("finished", origin)
        assert row.error == (told.format(who) if told else None)
