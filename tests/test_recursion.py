"""Sub-runs to true depth: sessions of their own, one budget, in parallel, not lost in a crash."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, code
from test_resume import Failing, Power

from rlm_fsm import (
    FakeAdapter,
    ModelResponse,
    Policy,
    RunResult,
    SqliteLog,
    Usage,
    approvals,
    approve,
    fork,
    replay,
    resume,
    run,
    runs,
    tool,
)
from rlm_fsm.event import CodePaused, EffectStarted, ModelReplied
from rlm_fsm.state import Phase
from rlm_fsm.values import HostCall

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
LETTERS = "abcdefghijklmnop"
TEXT = " ".join(LETTERS)
SPLIT = """\
words = P.split()
half = len(words) // 2
total = '+'.join(llm_batch([' '.join(words[:half]), ' '.join(words[half:])]))"""
WHOLE = "+".join(f"<{letter}>" for letter in LETTERS)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


class Halving:
    """Each run splits its text in two and asks about the halves; a plain call names its text."""

    def __init__(self, code: str = SPLIT) -> None:
        self.code = code
        self.plain: Counter[str] = Counter()
        self.busy = self.most_at_once = 0

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        self.busy += 1
        self.most_at_once = max(self.most_at_once, self.busy)
        await asyncio.sleep(0.001)
        self.busy -= 1
        last = messages[-1]["content"]
        if messages[0]["content"].startswith("You are a sub-LLM of"):
            self.plain[last] += 1
            return ModelResponse(f"<{last}>", Usage(5, 5, 10))
        is_first = not any(message["role"] == "assistant" for message in messages)
        said = f"```python\n{self.code}\n```" if is_first else "FINAL_VAR: total"
        return ModelResponse(said, Usage(5, 5, 10))


def split(log: Any, model: Halving, *, depth: int = 3, **options: Any) -> RunResult:
    """A run whose sub-runs have sub-runs."""
    return run(
        "What is in it?",
        TEXT,
        adapter=model,
        recursive_subcalls=True,
        max_recursion_depth=depth,
        log=log,
        **options,
    )


def events_of(log: Path, run_id: str) -> list[Any]:
    with SqliteLog(log) as opened:
        return [logged.event for logged in opened.load(opened.find(run_id))]


@BACKENDS
def test_sub_runs_have_sub_runs_to_the_depth_that_was_allowed(backend: str, log: Path) -> None:
    model = Halving()
    result = split(log, model, repl_backend=backend)
    assert (result.status, result.output) == ("finished", WHOLE)
    assert model.plain == Counter(LETTERS), "below the deepest sub-run, plain calls are made"
    opened = Counter(step.depth for step in result.trace if step.kind == "recursive_subcall")
    assert opened == {1: 2, 2: 4, 3: 8}
    assert {step.depth for step in result.trace if step.kind == "sub_subcall"} == {4}
    assert result.usage.subcalls == 2 + 4 + 8 + 16
    assert replay(result.run_id, log=log, run_code=backend == "monty").output == WHOLE


def test_every_step_of_a_sub_run_stands_under_its_parent_in_the_trace(log: Path) -> None:
    result = split(log, Halving())
    opened = {"0"}
    for step in result.trace:
        assert step.frame is not None
        if step.kind == "recursive_subcall":
            parent = step.frame.rpartition(".")[0]
            assert parent in opened
            opened.add(step.frame)
        assert step.frame in opened
        is_below = step.kind == "sub_subcall"
        assert step.depth == step.frame.count(".") + is_below
    assert len(opened) == 1 + 2 + 4 + 8


@pytest.mark.parametrize("depth", [1, 2])
def test_the_policy_caps_the_depth(depth: int, log: Path) -> None:
    model = Halving()
    result = split(log, model, policy=Policy(max_recursion_depth=depth), depth=max(depth, 1))
    assert result.output == "+".join(
        f"<{' '.join(LETTERS[start : start + 16 // 2 ** (depth + 1)])}>"
        for start in range(0, 16, 16 // 2 ** (depth + 1))
    )


@BACKENDS
def test_a_sub_run_has_the_full_set_of_functions(backend: str, log: Path) -> None:
    code = """\
seen = [peek(1), tail(1), lenP(), ctx.find('b')[0][0], extract_after('a')]
seen.append(ask('Q', 'x'))
seen += ask_chunks('Q', ['y'], parallel=True) + [ask_chunks_first('Q', ['z'])]
seen += [pick_first_answer(['', 'p']), llm_query_json('[1]'), len(llm_batch_records(['r']))]
seen += [len(SHOW_VARS()) > 0, budget()['steps'], rlm_query('w')]
total = repr(seen)"""
    outer = "total = llm_query('a b c')"

    class Model(Halving):
        async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
            self.code = outer if messages[0]["content"].startswith("You answer") else code
            return await super().acomplete(messages, max_tokens=max_tokens, temperature=0)

    result = split(log, Model(), depth=1, repl_backend=backend)
    assert result.output.startswith("['a', 'c', 5, 2, 'b', '<Question: Q\\nSnippet:\\nx>'")
    assert "'p', [1], 1, True, 2, '<w>']" in result.output


def test_subcalls_are_counted_over_the_whole_tree(log: Path) -> None:
    code = SPLIT.replace("total =", "try:\n    total =") + "\nexcept SubcallLimitError:\n    "
    result = split(log, Halving(code + "total = '?'"), policy=Policy(max_subcalls=20))
    assert result.usage.subcalls == 20
    assert result.status == "finished"
    # Five of the eight deepest found no room for their two; or fewer, where one of those that asked
    # them came too late itself.
    assert 1 <= result.output.count("?") <= 5


@BACKENDS
def test_tokens_are_limited_over_the_whole_tree(backend: str, log: Path) -> None:
    policy = Policy(max_subcall_tokens=4_000)
    options = {"max_tokens": 50, "subcall_max_tokens": 50, "repl_backend": backend}
    result = split(log, Halving(), policy=policy, **options)
    below = result.usage.total_tokens - 10 * result.usage.steps
    assert 0 < below <= 4_000


def test_the_window_holds_for_the_whole_tree(log: Path) -> None:
    model, window = Halving(), 3
    result = split(log, model, max_concurrent_subcalls=window, repl_backend="monty")
    assert result.output == WHOLE
    assert model.most_at_once == window


@BACKENDS
def test_a_tree_of_sub_runs_survives_a_crash_at_any_depth(backend: str, tmp_path: Path) -> None:
    for appends in (6, 19):
        path, model = tmp_path / f"{appends}.sqlite", Halving()
        opened = SqliteLog(path, durability="process")
        with pytest.raises(Power):
            split(Failing(opened, appends, after=True), model, repl_backend=backend)
        opened.close()
        (info,) = runs(path)
        committed = {
            event.call_id
            for event in events_of(path, info.run_id)
            if isinstance(event, ModelReplied)
        }
        result = resume(info.run_id, log=path, adapter=model)
        assert result.output == WHOLE, appends
        intents = Counter(
            event.call_id
            for event in events_of(path, info.run_id)
            if isinstance(event, EffectStarted)
        )
        assert all(intents[call] == 1 for call in committed), "no answered call is made again"
        assert replay(info.run_id, log=path).output == WHOLE


@BACKENDS
def test_a_named_model_takes_the_turns_of_the_sub_run_that_asked_for_it(
    backend: str, log: Path
) -> None:
    wise = FakeAdapter(["n = llm_query('how many?')", "FINAL_VAR: n"])
    result = run(
        "q",
        TEXT,
        adapter=FakeAdapter(["x = rlm_query('count', model='wise')", "FINAL_VAR: x"]),
        subcall_adapter=FakeAdapter(["sixteen"]),
        adapters={"wise": wise},
        repl_backend=backend,
        log=log,
    )
    assert result.output == "sixteen"
    assert len(wise.call_log) == 2


def test_a_sub_run_of_an_unknown_model_fails_with_the_names_that_there_are(log: Path) -> None:
    code = "try:\n    rlm_query('a', model='wsie')\nexcept SubcallError as e:\n    x = str(e)"
    adapter = FakeAdapter([code, "FINAL_VAR: x"])
    output = run("q", TEXT, adapter=adapter, adapters={"wise": adapter}, log=log).output
    assert "wsie" in output
    assert "root, subcall, wise" in output


class Asking:
    """The root asks by `code`; sub-runs say what they find in their text. Keeps what was sent."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.sent: list[tuple[list[dict[str, str]], int]] = []

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        self.sent.append((list(messages), max_tokens))
        if any(message["role"] == "assistant" for message in messages):
            return ModelResponse("FINAL_VAR: found", Usage(5, 5, 10))
        is_root = len(self.sent) == 1
        said = self.code if is_root else "found = [P, ctx.find('Zanzibar'), len(P)]"
        return ModelResponse(f"```python\n{said}\n```", Usage(5, 5, 10))

    @property
    def turns_below(self) -> list[tuple[list[dict[str, str]], int]]:
        return self.sent[1:3]


@BACKENDS
@pytest.mark.parametrize(
    "asked",
    [
        "ask(question, text)",
        "ask_chunks(question, [text])[0]",
        "ask_chunks_first(question, [text])",
        "llm_query_batch([text], question=question)[0]",
    ],
)
def test_a_sub_run_searches_the_text_that_a_question_is_about_and_not_the_question(
    asked: str, backend: str, log: Path
) -> None:
    code = f"question = 'Is Zanzibar in it?'\ntext = 'Oslo alone.'\nfound = {asked}"
    model = Asking(code)
    result = run("q", TEXT, adapter=model, recursive_subcalls=True, repl_backend=backend, log=log)
    assert result.output == "['Oslo alone.', [], 11]"
    task = model.turns_below[0][0][1]["content"]
    assert "Is Zanzibar in it?" in task
    assert replay(result.run_id, log=log, run_code=True).output == result.output


def test_a_prompt_that_looks_like_a_question_about_a_text_is_taken_as_it_is(log: Path) -> None:
    asked = "Question: what?\\nSnippet:\\nOslo"
    model = Asking(f"found = rlm_query('{asked}')")
    result = run("q", TEXT, adapter=model, max_recursion_depth=1, log=log)
    assert "Question: what?" in result.output


@pytest.mark.parametrize(
    ("given", "had"), [("", 500), (", max_tokens=77", 500), (", max_tokens=900", 900)]
)
def test_the_turns_of_a_sub_run_may_have_what_its_call_allows_and_room_for_code(
    given: str, had: int, log: Path
) -> None:
    model = Asking(f"found = rlm_query('Oslo'{given})")
    run("q", TEXT, adapter=model, max_tokens=500, max_recursion_depth=1, log=log)
    assert [most for _, most in model.turns_below] == [had, had]


def test_what_the_root_is_told_besides_is_not_told_to_sub_runs(log: Path) -> None:
    """Such as the variable that ends the run: theirs ends nothing."""
    model = Asking("found = rlm_query('Oslo')")
    run("q", TEXT, adapter=model, system_prompt_supplement="Set ans.", log=log)
    systems = [messages[0]["content"] for messages, _ in model.sent]
    assert ["Set ans." in system for system in systems] == [True, False, False, True]


def test_sub_runs_end_before_others_start() -> None:
    """What the cell of an open one asks for goes before the first turns of the next ones: else all
    would be open at once, and a limit would find none of them with an answer."""
    machine = Machine()
    machine.start(recursive_subcalls=True, max_recursion_depth=1, max_concurrent_subcalls=1)
    machine.reply(code("x"))
    machine.pause("a", "b", "c")
    order: list[str] = []
    while machine.state.calls:
        call = machine.call()
        order.append(call.call_id)
        if call.purpose == "subcall":
            machine.reply("leaf")
            if machine.frame(call.frame).phase is Phase.RUNNING:
                machine.ran("clue", frame=call.frame)
            continue
        is_first = call.call_id.endswith("m1")
        machine.reply(code("y") if is_first else "FINAL: done")
        if is_first:
            machine.pause("p", "q", frame=call.frame, recursive=False, parallel=call.frame == "0.1")
    expected = [[f"{name}.m1", f"{name}.1", f"{name}.2", f"{name}.m2"] for name in BRANCHES]
    assert order == [*expected[0], *expected[1], *expected[2]]


BRANCHES = ("0.1", "0.2", "0.3")


def send(x: str) -> str:
    """Sends."""
    return f"sent {x}"


@BACKENDS
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("window", [1, 2, 10])
def test_more_sub_runs_than_places_that_wait_for_people_are_all_asked_for(
    window: int, depth: int, backend: str, log: Path
) -> None:
    """One that waits for a person takes no place from the others, however deep."""
    asks = "FINAL(send(P))" if depth == 1 else "FINAL(rlm_query(P + '!', max_tokens=600))"
    adapter = FakeAdapter()
    adapter.add_rule("ROOT", code("FINAL(str(rlm_query_batched(['a', 'b', 'c'])))"))
    adapter.add_rule("P holds 2 characters", code("FINAL(send(P))"))
    adapter.add_rule("", code(asks))
    options: dict[str, Any] = {"tools": [tool(send, needs_approval=True)], "log": log}
    policy = Policy(max_recursion_depth=2)
    result = run(
        "ROOT",
        "ctx",
        adapter=adapter,
        max_concurrent_subcalls=window,
        repl_backend=backend,
        policy=policy,
        **options,
    )
    assert result.status == "waiting"
    assert len(approvals(result.run_id, log=log)) == 3
    approve(result.run_id, log=log)
    done = resume(result.run_id, adapter=adapter, **options)
    assert done.status == "finished"
    assert done.output.count("sent") == 3


GATHER = """\
import asyncio
r = await asyncio.gather(rlm_query('a'), rlm_query('b'), llm_query('c'), llm_query('d'))
FINAL(str(r))"""


@pytest.mark.parametrize("changes", [{}, {"max_concurrent_subcalls": 1}], ids=["same", "smaller"])
@pytest.mark.parametrize("window", [1, 2])
def test_a_fork_at_any_event_of_sub_runs_and_plain_calls_ends_alike(
    window: int, changes: dict[str, Any], log: Path
) -> None:
    def model() -> FakeAdapter:
        adapter = FakeAdapter()
        adapter.add_rule("You are a sub-LLM of", "plain")
        adapter.add_rule("ROOT", code(GATHER))
        adapter.add_rule("1 turn is left", "FINAL: sub")
        adapter.add_rule("2 turns are left", code("x = llm_query('leaf')"))
        adapter.add_rule("", code("print(len(P))"))
        return adapter

    options = {"max_concurrent_subcalls": window, "repl_backend": "monty"}
    first = run("ROOT", "ctx", adapter=model(), log=log, **options)
    assert first.status == "finished"
    with SqliteLog(log) as opened:
        count = len(list(opened.load(first.run_id)))
    for at in range(1, count):
        forked = fork(first.run_id, at=at, adapter=model(), log=log, **changes)
        assert (forked.status, forked.output) == ("finished", first.output), at
        assert replay(forked.run_id, log=log).output == first.output


def test_plain_calls_pass_sub_runs_that_wait_for_others_to_end() -> None:
    machine = Machine()
    machine.start(max_recursion_depth=1, max_concurrent_subcalls=1)
    machine.reply(code("x"))
    calls = [HostCall(fn="f", prompt=name, recursive=name != "c") for name in "abc"]
    machine.send(CodePaused(frame="0", call_id="0.c1", calls=tuple(calls), parallel=True))
    machine.reply(code("y"), "0.1.m1")
    assert sorted(machine.state.calls) == ["0.3"], "0.1 computes, and 0.2 waits for its end"
