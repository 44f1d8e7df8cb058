"""Awaited subcalls: which calls are meant, and runs that are killed in the middle of a gather."""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from effects.repls import _awaits
from effects.repls._functions import Ask
from effects.repls._together import apart, together
from rlm_fsm import ModelResponse, SqliteLog, Usage, replay, resume, run, runs
from rlm_fsm.event import CodePaused, ModelReplied

# Which calls are meant


@pytest.mark.parametrize(
    ("code", "deferred"),
    [
        ("x = await f(1)", ["f(1)"]),
        ("x = f(1)\ny = await f(2)", ["f(2)"]),
        ("r = await gather(*[f(p) for p in ps])", ["f(p)"]),
        ("ts = [f(p) for p in ps]\nr = await gather(*ts)", ["f(p)"]),
        ("ts = [f(p) for p in ps]\nprint(ts)\nr = await gather(*ts)", []),
        ("ts = [f(1)] + [f(2)]\nr = await gather(*ts[:1])", ["f(1)", "f(2)"]),
        ("a, b = f(1), f(2)\nawait a\nawait b", ["f(1)", "f(2)"]),
        ("t = f(1)\nprint(t.upper())\nr = await t", []),
        ("def g():\n    return t + '!'\nt = f(1)\nr = await t", []),
        ("ts = []\nts.append(f(1))\nfor t in ts:\n    r = await t", ["f(1)"]),
        ("for k, t in {1: f(1)}.items():\n    await t", ["f(1)"]),
        ("for p, t in zip(ps, [f(p) for p in ps]):\n    await t", ["f(p)"]),
        ("r = await gather(*[g(f(p)) for p in ps])", ["g(f(p))"]),
        ("await (f(1) if x else f(2))", ["f(1)", "f(2)"]),
        ("r = [await t for t in [f(p) for p in ps]]", ["f(p)"]),
        ("asyncio.run(f(1))", ["f(1)"]),
        ("subprocess.run(f(1))", []),
        ("async def g(t):\n    return await t\nx = await g(f(1))", ["g(f(1))"]),
        ("with f(1) as t:\n    await t", []),
    ],
)
def test_a_call_is_deferred_when_its_value_can_only_be_awaited(
    code: str, deferred: list[str]
) -> None:
    calls = _awaits.awaited(ast.parse(code)).calls
    assert sorted(ast.unparse(call) for call in calls) == deferred


# What is asked together


def ask(*prompts: str, parallel: bool = True) -> Ask:
    return Ask([{"prompt": prompt, "dedupe": True} for prompt in prompts], parallel)


def prompts(request: Ask) -> list[str]:
    return [call["prompt"] for call in request.calls]


def test_parallel_and_single_questions_go_together_in_their_order() -> None:
    request, places = together([ask("a", parallel=False), ask("b", "c"), ask("d")])
    assert (prompts(request), request.parallel, places) == (["a", "b", "c", "d"], True, [0, 1, 2])
    assert [call["dedupe"] for call in request.calls] == [False, True, True, False]


def test_questions_in_a_row_come_last_and_alone() -> None:
    asks = [ask("a", "b", parallel=False), ask("c")]
    assert together(asks) == (asks[1], [1])
    assert together(asks[:1]) == (asks[0], [0])


def test_answers_are_given_back_to_who_asked() -> None:
    answers = [("text", "A"), ("text", "B"), ("error", "C")]
    assert apart([ask("a"), ask("b", "c")], answers) == [answers[:1], answers[1:]]
    with pytest.raises(RuntimeError, match="another number"):
        apart([ask("a")], answers)


# Runs

CELL = """
import asyncio
async def chain(word):
    first = await llm_query('shout ' + word)
    return await llm_query('mirror ' + first)
tasks = [asyncio.create_task(chain(word)) for word in P.split()]
found = []
for task in asyncio.as_completed(tasks):
    found.append(await task)
print(found)
"""


class Model:
    """Answers the cell's prompts, and counts them."""

    def __init__(self) -> None:
        self.asked = Counter[str]()

    async def acomplete(self, messages: Any, *, max_tokens: Any, temperature: Any) -> Any:
        prompt = messages[-1]["content"]
        verb, _, rest = prompt.partition(" ")
        self.asked[prompt] += 1
        if verb in ("shout", "mirror"):
            return ModelResponse(rest.upper() if verb == "shout" else rest[::-1], Usage(1, 1, 2))
        is_first = not any(message["role"] == "assistant" for message in messages)
        said = f"```python\n{CELL}\n```" if is_first else "FINAL_VAR: found"
        return ModelResponse(said, Usage(1, 1, 2))


class Power(BaseException):
    """The process is gone."""


class Failing:
    """A log that dies at its n-th append."""

    def __init__(self, log: SqliteLog, appends: int) -> None:
        self.log, self.left = log, appends

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    def append(self, run_id: str, expected_seq: int, events: Any) -> int:
        if self.left == 0:
            raise Power
        self.left -= 1
        return self.log.append(run_id, expected_seq, events)


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_run_that_dies_in_a_gather_goes_on_with_the_same_pauses(
    backend: str, tmp_path: Path
) -> None:
    for appends in (3, 4, 5):
        path, model = tmp_path / f"{appends}.sqlite", Model()
        log = SqliteLog(path, durability="process")
        failing: Any = Failing(log, appends)
        with pytest.raises(Power):
            run("q", "one two three", adapter=model, log=failing, repl_backend=backend)
        log.close()
        (stored,) = runs(path)
        result = resume(stored.run_id, log=path, adapter=model)
        assert result.output == "['ENO', 'OWT', 'EERHT']"
        log = SqliteLog(path)
        events = [logged.event for logged in log.load(stored.run_id)]
        log.close()
        pauses = [event for event in events if isinstance(event, CodePaused)]
        assert [[call.prompt.split()[0] for call in pause.calls] for pause in pauses] == [
            ["shout"] * 3,
            ["mirror"] * 3,
        ]
        outcomes = Counter(event.call_id for event in events if isinstance(event, ModelReplied))
        assert set(outcomes.values()) == {1}
        assert replay(stored.run_id, log=path).output == result.output
