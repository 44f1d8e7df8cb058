"""What becomes of runs that reach a limit or stall, and of what they are resumed to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_driving import recorded

from rlm_fsm import ModelError, ModelResponse, Policy, RunResult, Usage, replay, resume, run
from rlm_fsm.event import GuardTripped


def code(source: str) -> str:
    return f"```python\n{source}\n```"


class Model:
    """Plays a script for the root, the last reply for ever; answers every subcall alike."""

    def __init__(self, *script: Any, sub: str = "ok", tokens: int = 10) -> None:
        self.asked: list[Sequence[dict[str, str]]] = []
        self._script, self._sub, self._tokens = script, sub, tokens

    def complete(self, messages: Sequence[dict[str, str]], **_: Any) -> ModelResponse:
        usage = Usage(self._tokens, 0, self._tokens)
        if messages[0]["content"].startswith("You are a sub-LLM"):
            return ModelResponse(self._sub, usage)
        self.asked.append(messages)
        reply = self._script[min(len(self.asked), len(self._script)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return ModelResponse(reply, usage)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def go(model: Model, log: Path, **options: Any) -> RunResult:
    """A run, and its replay."""
    result = run("What?", "the text", adapter=model, log=log, **options)
    assert replay(result.run_id, log=log).output == result.output
    return result


def test_a_long_row_of_calls_beyond_a_limit_is_one_error_in_code(log: Path):
    """Each refused call lets out the next one: that must not be a recursion."""
    asks = (
        "try:\n    llm_query_batch(['x' * 400 + str(i) for i in range(1500)], parallel=False)\n"
        "except SubcallLimitError as error:\n    print(len(error.results))"
    )
    policy = Policy(max_total_tokens=6_000, max_subcalls=5_000)
    result = go(Model(code(asks), tokens=100), log, policy=policy)
    assert (result.limit, result.output) == ("max_total_tokens", "1500")


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_batch_beyond_the_limit_leaves_the_model_its_last_call(backend: str, log: Path):
    """What it paid for isn't lost: the model is told, and answers from what came."""
    cell = (
        "got = llm_batch([f'{i}: ' + 'x' * 3000 for i in range(60)], on_error='return')\n"
        "print(sum(reply == 'ok' for reply in got), 'replies')"
    )
    model = Model(code(cell), "Some said ok.", tokens=850)
    policy = Policy(max_total_tokens=30_000)
    result = go(model, log, policy=policy, repl_backend=backend, loop_limit=None)
    assert (result.status, result.output) == ("partial", "Some said ok.")
    assert result.limit == "max_total_tokens"
    assert result.usage.total_tokens <= 30_000
    told = next(asked[-1]["content"] for asked in model.asked if " replies" in asked[-1]["content"])
    count, _ = told.split("Output:\n")[1].split(" replies", 1)
    assert int(count) >= 28, "as many as there was room for"


def test_a_closing_turn_that_the_budget_forbids_leaves_no_trace(log: Path):
    """The run goes on as if it had never been thought of: no turn more, no stale words."""
    script = Model(code("print('found')"), tokens=800)
    result = go(script, log, policy=Policy(max_steps=3, max_total_tokens=1_500))
    assert (result.status, result.limit) == ("partial", "max_total_tokens")
    for room in (2_500, 3_500, 4_500, 90_000):
        policy = Policy(max_steps=3, max_total_tokens=room)
        before = len(script.asked)
        result = resume(result.run_id, log=log, adapter=script, policy=policy)
        for messages in script.asked[before:]:
            told = messages[-1]["content"]
            assert "no code is run" not in told or result.limit == "max_steps"
            roles = [message["role"] for message in messages[2:]]
            assert "user user" not in " ".join(roles)
        if result.limit == "max_steps":
            break
    assert (result.status, result.limit) == ("partial", "max_steps")
    assert result.usage.steps <= 4  # three, and the closing one


@pytest.mark.parametrize("on_limit", ["finalize", "raise"])
def test_calls_below_the_deepest_sub_run_are_plain_ones(on_limit: Any, log: Path):
    policy = Policy(max_recursion_depth=0, on_limit=on_limit)
    asks = code("print(llm_query('a'), rlm_query('b'), *llm_batch(['c']))\nSUBMIT('all')")
    result = go(Model(asks), log, policy=policy, recursive_subcalls=True)
    assert (result.status, result.output, result.usage.subcalls) == ("finished", "all", 3)
    assert [step.kind for step in result.trace if step.frame != "0"] == []


def test_turns_whose_call_failed_are_not_used_up_however_often_a_run_is_resumed(log: Path):
    down = Model(RuntimeError("down"))
    with pytest.raises(ModelError) as failed:
        go(down, log, policy=Policy(max_steps=3))
    for _ in range(3):
        with pytest.raises(ModelError):
            resume(failed.value.run_id, log=log, adapter=down)
    script = Model(code("print(1)"), code("print(2)"), "FINAL: done")
    result = resume(failed.value.run_id, log=log, adapter=script)
    assert (result.status, result.output) == ("finished", "done")
    assert replay(result.run_id, log=log).output == "done"


@pytest.mark.parametrize("last", ["", "<think>hm</think>", "```python\n", code("print(2)")])
def test_a_last_reply_that_says_nothing_leaves_the_best_answer(last: str, log: Path):
    result = go(Model(code("print('good')"), last), log, policy=Policy(max_steps=1))
    assert (result.status, result.output) == ("partial", "good")


def test_a_last_reply_in_prose_is_the_answer(log: Path):
    result = go(Model(code("print('good')"), "It is 4."), log, policy=Policy(max_steps=1))
    assert result.output == "It is 4."


@pytest.mark.parametrize("sub", [code("x = 1"), code("print('step log')")])
def test_a_sub_run_that_ends_without_an_answer_is_an_error_in_code(sub: str, log: Path):
    asks = (
        "try:\n    seen = rlm_query('dig')\nexcept SubcallLimitError as error:\n"
        "    seen = f'limit: {error}'"
    )
    result = go(Model(code(asks), "FINAL_VAR: seen", sub=sub), log)
    assert result.output.startswith("limit: ")
    assert "recursive_subcall_max_steps" in result.output


@pytest.mark.parametrize(
    ("reply", "options"),
    [
        ("prose", {"fallback_guard_steps": 2, "auto_finalize_var": "found"}),
        (
            "FINAL: a",
            {
                "subcall_guard_steps": 2,
                "require_subcall_before_final": True,
                "auto_finalize_var": "found",
            },
        ),
    ],
)
def test_guards_on_steps_press_though_no_code_is_sent(
    reply: str, options: dict[str, Any], log: Path
):
    fallback = "found = llm_query('x')"
    policy = Policy(max_steps=8)
    result = go(Model(reply), log, policy=policy, fallback_code=fallback, **options)
    assert (result.status, result.output) == ("finished", "ok")
    assert result.usage.steps == 2


@pytest.mark.parametrize("backend", ["python", "monty"])
@pytest.mark.parametrize("empty", ["[]", "{}", "()", "set()", "''", "None"])
def test_a_variable_that_is_empty_does_not_end_a_run(empty: str, backend: str, log: Path):
    script = Model(code(f"found = {empty}"), code("found = ['it']"), "FINAL: no")
    result = go(script, log, auto_finalize_var="found", repl_backend=backend)
    assert result.output == "['it']"


def test_what_a_guard_asks_for_may_stand_in_the_blocks_that_follow(log: Path):
    both = code("found = 'v'") + "\n" + code("seen = llm_query('x')")
    script = Model(both, "FINAL: no")
    result = go(
        script, log, auto_finalize_var="found", require_subcall_before_final=True, max_tokens=99
    )
    assert (result.output, result.usage.subcalls, result.usage.steps) == ("v", 1, 1)


def test_a_refused_value_of_code_is_no_invalid_reply(log: Path):
    script = Model(code("found = 'it'"), code("found = 'it'"), "FINAL: it")
    result = go(script, log, auto_finalize_var="found", min_steps=3, invalid_response_limit=1)
    assert (result.status, result.output) == ("finished", "it")
    tripped = [e for e in recorded(log, result.run_id) if isinstance(e, GuardTripped)]
    assert {event.guard for event in tripped} == {"min_steps"}


def test_fallback_code_may_leave_its_answer_in_answer(log: Path):
    result = go(
        Model(""),
        log,
        invalid_response_limit=2,
        auto_finalize_var="found",
        fallback_code="answer = 'A'",
    )
    assert (result.status, result.output) == ("finished", "A")
