"""Whole runs through the library call: real log, real REPLs, a scripted model."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from rlm_fsm import (
    RLM,
    Context,
    FakeAdapter,
    MaxStepsExceeded,
    ModelAuthError,
    ModelError,
    ModelResponse,
    Policy,
    ReplError,
    ReplLimits,
    RunError,
    SqliteLog,
    Usage,
    UsageError,
    arun,
    fold,
    replay,
    run,
    runs,
)
from rlm_fsm.adapters import AdapterError
from rlm_fsm.event import Cancelled, CodePaused, EffectStarted, ModelReplied, RunFinished

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
TEXT = "RLMs treat long prompts as environment state."
SCRIPT = [
    "snippet = peek(80)\nsummary = llm_query(f'Summarize: {snippet}')\n"
    "answer = f'Summary -> {summary}'",
    "FINAL_VAR: answer",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def events_of(log: Path, run_id: str) -> list:
    opened = SqliteLog(log)
    try:
        return [logged.event for logged in opened.load(run_id)]
    finally:
        opened.close()


def summarizer() -> FakeAdapter:
    adapter = FakeAdapter(script=list(SCRIPT))
    adapter.add_rule("You are a sub-LLM", "[fake] short summary")
    return adapter


# -- answers --------------------------------------------------------------------------------------


@BACKENDS
def test_a_run_answers_and_unpacks_into_output_and_trace(backend: str, log: Path):
    result = run("Summarize this.", TEXT, adapter=summarizer(), repl_backend=backend, log=log)
    output, trace = result
    assert output == "Summary -> [fake] short summary"
    assert [step.kind for step in trace] == ["root_call", "subcall", "repl_exec", "root_call"]
    assert (result.status, result.limit, result.error) == ("finished", None, None)
    assert (result.usage.steps, result.usage.subcalls, result.usage.model_calls) == (2, 1, 3)


@BACKENDS
def test_the_log_of_a_run_folds_to_its_result(backend: str, log: Path):
    result = run("Summarize this.", TEXT, adapter=summarizer(), repl_backend=backend, log=log)
    state = fold(events_of(log, result.run_id))
    assert (state.status, state.output) == (result.status, result.output)
    assert state.spent.usage.total_tokens == result.usage.total_tokens


@BACKENDS
def test_a_batch_is_asked_in_parallel_within_the_window(backend: str, log: Path):
    busy, most, lock = 0, 0, asyncio.Lock()

    class Busy:
        async def acomplete(self, messages, *, max_tokens, temperature):
            nonlocal busy, most
            if "sub-LLM" not in messages[0]["content"]:
                code = "answers = llm_batch([f'number {i}' for i in range(12)])"
                said = code if len(messages) == 2 else "FINAL_VAR: answers"
                return ModelResponse(said, Usage(1, 1, 2))
            async with lock:
                busy += 1
                most = max(most, busy)
            await asyncio.sleep(0.01)
            busy -= 1
            return ModelResponse(messages[1]["content"].split()[-1], Usage(1, 1, 2))

    result = run(
        "q", TEXT, adapter=Busy(), max_concurrent_subcalls=4, repl_backend=backend, log=log
    )
    assert result.output == str([str(number) for number in range(12)])
    assert most == 4


@BACKENDS
def test_a_recursive_subcall_is_a_run_of_its_own_in_the_same_log(backend: str, log: Path):
    adapter = FakeAdapter(
        script=[
            "x = llm_query('The word is: plover.')",
            "word = P.split(': ')[1].rstrip('.')\nprint(word, lenP())",
            "FINAL_VAR: word",
            "FINAL_VAR: x",
        ]
    )
    result = run(
        "Which word?", TEXT, adapter=adapter, recursive_subcalls=True, repl_backend=backend, log=log
    )
    assert result.output == "plover"
    kinds = [(step.kind, step.depth) for step in result.trace]
    assert ("recursive_subcall", 1) in kinds
    assert ("sub_repl_exec", 1) in kinds


def test_documents_and_files_are_contexts_too(tmp_path: Path, log: Path):
    (tmp_path / "a.txt").write_text("alpha", encoding="utf-8")
    (tmp_path / "b.txt").write_text("beta", encoding="utf-8")
    code = "n = ctx.num_documents(); d = ctx.get_document(1)"
    for context in (["alpha", "beta"], [tmp_path / "a.txt", tmp_path / "b.txt"]):
        adapter = FakeAdapter(script=[f"```python\n{code}\n```", "FINAL_VAR: d"])
        assert run("q", context, adapter=adapter, log=log).output == "beta"


def test_a_synchronous_adapter_runs_in_threads(log: Path):
    names: set[str] = set()

    class Synchronous:
        def complete(self, messages, *, max_tokens=512, temperature=0.0):
            names.add(threading.current_thread().name)
            if "sub-LLM" in messages[0]["content"]:
                return ModelResponse("yes", Usage(1, 1, 2))
            code = "x = llm_batch(['a', 'b', 'c'])"
            said = code if len(messages) == 2 else "FINAL_VAR: x"
            return ModelResponse(said, Usage(1, 1, 2))

    assert run("q", TEXT, adapter=Synchronous(), log=log).output == "['yes', 'yes', 'yes']"
    assert threading.current_thread().name not in names


def test_subcalls_go_to_the_adapter_that_they_name(log: Path):
    code = "x = [llm_query('a'), llm_query('b', model='wise')]"
    result = run(
        "q",
        TEXT,
        adapter=FakeAdapter(script=[code, "FINAL_VAR: x"]),
        subcall_adapter=FakeAdapter(script=["cheap"]),
        adapters={"wise": FakeAdapter(script=["dear"])},
        log=log,
    )
    assert result.output == "['cheap', 'dear']"


def test_an_unknown_model_name_is_an_error_in_the_code_that_names_the_known_ones(log: Path):
    code = "try:\n    llm_query('a', model='wsie')\nexcept SubcallError as e:\n    x = str(e)"
    adapter = FakeAdapter(script=[code, "FINAL_VAR: x"])
    output = run("q", TEXT, adapter=adapter, adapters={"wise": adapter}, log=log).output
    assert "wsie" in output
    assert "wise" in output


@BACKENDS
def test_the_run_ends_when_the_watched_variable_is_set(backend: str, log: Path):
    adapter = FakeAdapter(script=["x = 1", "answer = 'forty-two'"])
    result = run(
        "q", TEXT, adapter=adapter, auto_finalize_var="answer", repl_backend=backend, log=log
    )
    assert result.output == "forty-two"
    assert len(adapter.call_log) == 2


@BACKENDS
def test_a_cell_that_never_ends_is_stopped_and_the_run_goes_on(backend: str, log: Path):
    adapter = FakeAdapter(script=["while True:\n    pass", "FINAL: stopped"])
    limits = ReplLimits(cell_timeout_s=0.3)
    result = run("q", TEXT, adapter=adapter, repl_limits=limits, repl_backend=backend, log=log)
    assert result.output == "stopped"
    assert "CellTimeout" in adapter.call_log[1][-1]["content"]


@BACKENDS
def test_a_cell_that_kills_its_session_leaves_the_variables_of_the_cells_before(
    backend: str, log: Path
):
    # monty loses its session to any time limit, CPython to code that can't be interrupted
    endless = "sum(range(10 ** 12))" if backend == "python" else "while True:\n    pass"
    cells = [
        "kept = llm_query('first')\nprint(kept)",
        f"kept = 'changed'\nlost = llm_query('second')\n{endless}",
        "kept += '!'\nprint(kept, 'lost' in SHOW_VARS())",
        "FINAL_VAR: kept",
    ]
    adapter = FakeAdapter(script=cells)
    adapter.add_rule("You are a sub-LLM", "an answer")
    limits = ReplLimits(cell_timeout_s=0.2)
    result = run("q", TEXT, adapter=adapter, repl_limits=limits, repl_backend=backend, log=log)
    assert result.output == "an answer!"
    told = [messages[-1]["content"] for messages in adapter.call_log]
    [lost] = [text for text in told if "CellTimeout" in text]
    assert "0.2 s" in lost
    assert "as before this code" in lost
    assert any("an answer! False" in text for text in told)
    assert len([text for text in told if text in ("first", "second")]) == 2  # none asked again
    [event] = [e for e in events_of(log, result.run_id) if getattr(e, "rebuilt", False)]
    assert event.repl_lost
    assert replay(result.run_id, log=log, run_code=True).output == "an answer!"


def test_a_session_that_can_not_be_rebuilt_is_said_to_be_empty(log: Path):
    asks_anew = "import os\nx = llm_query(str(os.urandom(8)))"
    adapter = FakeAdapter(script=[asks_anew, "os._exit(1)", "print('x' in dir())", "FINAL: ok"])
    adapter.add_rule("You are a sub-LLM", "an answer")
    assert run("q", TEXT, adapter=adapter, log=log).output == "ok"
    told = [messages[-1]["content"] for messages in adapter.call_log]
    assert any("your variables are gone" in text for text in told)
    assert any("False" in text for text in told)


# -- limits and failures --------------------------------------------------------------------------


def test_a_step_limit_gives_a_partial_result(log: Path):
    adapter = FakeAdapter(script=["print('clue')", "It was the butler."])
    result = run("q", TEXT, adapter=adapter, policy=Policy(max_steps=1), log=log)
    assert (result.status, result.limit) == ("partial", "max_steps")
    assert result.output == "It was the butler."


def test_a_step_limit_raises_when_the_policy_says_so(log: Path):
    adapter = FakeAdapter(script=["print('clue')"])
    with pytest.raises(MaxStepsExceeded) as caught:
        run("q", TEXT, adapter=adapter, policy=Policy(max_steps=1, on_limit="raise"), log=log)
    error = caught.value
    assert (error.limit, error.value, error.output) == ("max_steps", 1, "clue")
    assert error.run_id in str(error)
    assert len(error.trace) == 3


def test_no_steps_make_no_call(log: Path):
    adapter = FakeAdapter(script=["FINAL: never"])
    result = run("q", TEXT, adapter=adapter, policy=Policy(max_steps=0), log=log)
    assert (result.status, result.output, adapter.call_log) == ("partial", "", [])


def test_a_policy_serves_any_number_of_runs(log: Path):
    policy = Policy(max_subcalls=1, max_steps=2)
    rlm = RLM(summarizer(), policy=policy, log=log)
    first = rlm.run("q", TEXT)
    second = RLM(summarizer(), policy=policy, log=log).run("q", TEXT)
    assert first.status == second.status == "finished"


def test_a_refused_key_is_an_error_that_keeps_the_run(log: Path):
    refused = AdapterError("401: wrong key", kind="auth", status=401)
    adapter = FakeAdapter(script=["print('clue')", refused])
    with pytest.raises(ModelAuthError, match="wrong key") as caught:
        run("q", TEXT, adapter=adapter, log=log)
    assert caught.value.run_id in str(caught.value)
    assert caught.value.output == "clue"
    (info,) = runs(log)
    assert (info.run_id, info.status) == (caught.value.run_id, "failed")
    assert [step.kind for step in caught.value.trace] == ["root_call", "repl_exec", "root_call"]
    assert "wrong key" in caught.value.trace.steps[-1].error


def test_an_adapter_that_raises_anything_fails_the_run_and_not_the_program(log: Path):
    with pytest.raises(ModelError, match="KeyError"):
        run("q", TEXT, adapter=FakeAdapter(script=[KeyError("hm")]), log=log)


def test_an_adapter_that_returns_anything_is_told_what_it_must_return(log: Path):
    class Odd:
        def complete(self, messages, **_):
            return "FINAL: 42"

    with pytest.raises(ModelError, match="must return a ModelResponse"):
        run("q", TEXT, adapter=Odd(), log=log)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"usage": {"total_tokens": 3}}, "usage is dict, not Usage or None"),
        ({"usage": Usage(1, "2", 3)}, "completion_tokens is '2', not a whole number"),
        ({"usage": Usage(1, -2, 3)}, "completion_tokens is -2, not a whole number"),
        ({"model_id": 3}, "model_id is int, not str or None"),
        ({"meta": [1]}, "meta is list, not a mapping or None"),
        ({"text": b"FINAL: 42"}, "text is bytes, not str"),
    ],
)
def test_a_reply_with_fields_that_make_no_sense_fails_its_call(log: Path, fields: Any, told: str):
    class Odd:
        def complete(self, messages, **_):
            return ModelResponse(**{"text": "FINAL: 42", "usage": Usage(1, 2, 3), **fields})

    with pytest.raises(ModelError, match=told) as caught:
        run("q", TEXT, adapter=Odd(), log=log)
    assert runs(log)[0].run_id == caught.value.run_id
    assert runs(log)[0].status == "failed"


def test_usage_that_is_missing_is_estimated(log: Path):
    class Silent:
        def complete(self, messages, **_):
            return ModelResponse("FINAL: 42", None)

    result = run("q", TEXT, adapter=Silent(), log=log)
    assert result.output == "42"
    assert result.usage.estimated


def test_a_repl_that_can_not_be_had_is_an_error_of_its_own(log: Path):
    from effects.repls.base import ReplUnavailable

    class Gone:
        async def open(self):
            raise ReplUnavailable("no room for a process")

        async def close(self):
            pass

    adapter = FakeAdapter(script=["x = 1"])
    with pytest.raises(ReplError, match="no room"):
        run("q", TEXT, adapter=adapter, repl_backend=lambda context: Gone(), log=log)


def test_giving_up_is_a_result_and_not_an_exception(log: Path):
    adapter = FakeAdapter(script=["Hm.", "Well."])
    result = run("q", TEXT, adapter=adapter, invalid_response_limit=2, log=log)
    assert result.status == "failed"
    assert "gave up" in (result.error or "")


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"query": "  "}, "query is empty"),
        ({"query": None}, "query=None: give the question"),
        ({"context": None}, "no context"),
        ({"context": 5}, "a list of str"),
        ({"context": Path("no/such/file.txt")}, "no/such/file.txt"),
        ({"adapter": object()}, "needs a method"),
        ({"adapter": FakeAdapter}, "pass an instance"),
        ({"model": "openai:x"}, "not both"),
        ({"max_tokens": 0}, "1 or more"),
        ({"min_steps": -1}, "0 or more"),
        ({"max_concurrent_subcalls": True}, "whole number"),
        ({"profile": "pirate"}, "choose one of"),
        ({"repl_backend": "rust"}, "'python' or 'monty'"),
        ({"auto_finalize_var": "not a name"}, "name of a variable"),
        ({"log": ""}, "no path"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else None,
)
def test_bad_input_is_refused_before_anything_starts(arguments: dict, says: str, log: Path):
    adapter = FakeAdapter(script=["FINAL: never"])
    given = {"query": "q", "context": TEXT, "adapter": adapter, "log": log, **arguments}
    with pytest.raises((UsageError, TypeError), match=says):
        run(given.pop("query"), given.pop("context"), **given)
    assert adapter.call_log == []
    assert not log.exists()


def test_without_a_model_the_error_lists_the_ways(monkeypatch: pytest.MonkeyPatch, log: Path):
    for name in ("LLM_API_KEY", "OPENAI_API_KEY", "LLM_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RLM_FSM_MODEL", raising=False)
    with pytest.raises(UsageError) as caught:
        run("q", TEXT, log=log)
    for way in ("adapter=", "model=", "RLM_FSM_MODEL", "LLM_API_KEY", "ollama:"):
        assert way in str(caught.value)


@pytest.mark.parametrize("bad", [{"max_steps": -1}, {"max_steps": 1.5}, {"on_limit": "stop"}])
def test_a_policy_refuses_values_that_mean_nothing(bad: dict):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Policy(**bad)


# -- asynchronous programs ------------------------------------------------------------------------


def test_arun_runs_in_the_callers_loop(log: Path):
    result = asyncio.run(arun("q", TEXT, adapter=summarizer(), log=log))
    assert result.status == "finished"


def test_run_inside_a_running_loop_has_a_thread_of_its_own(log: Path):
    async def program():
        return run("q", TEXT, adapter=summarizer(), log=log)

    assert asyncio.run(program()).status == "finished"


def test_a_stream_gives_every_event_in_order(log: Path):
    async def program():
        rlm = RLM(summarizer(), log=log)
        return [appended async for appended in rlm.stream("q", TEXT)]

    appended = asyncio.run(program())
    assert [item.seq for item in appended] == list(range(1, len(appended) + 1))
    assert isinstance(appended[-1].event, RunFinished)
    assert [item.event for item in appended] == events_of(log, appended[0].run_id)


def test_a_cancelled_run_is_whole_in_the_log(log: Path):
    async def program():
        adapter = FakeAdapter(script=["x = llm_batch(['a', 'b'])"])
        adapter.add_rule("You are a sub-LLM", "late", delay_s=60)
        asked = asyncio.Event()

        class Watch:
            def handle(self, appended):
                if isinstance(appended.event, CodePaused):
                    asked.set()

        rlm = RLM(adapter, log=log, event_listener=Watch())
        task = asyncio.create_task(rlm.arun("q", TEXT))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    (info,) = runs(log)
    assert info.status == "cancelled"
    events = events_of(log, info.run_id)
    assert isinstance(events[-2], Cancelled)
    assert fold(events).status == "cancelled"


def test_many_runs_side_by_side_share_one_log_file(log: Path):
    async def program():
        return await asyncio.gather(
            *(arun(f"q{i}", TEXT, adapter=summarizer(), log=log) for i in range(6))
        )

    results = asyncio.run(program())
    assert {result.status for result in results} == {"finished"}
    assert len(runs(log)) == 6


# -- listeners and logs ---------------------------------------------------------------------------


def test_a_listener_that_fails_does_not_end_the_run(log: Path, caplog: pytest.LogCaptureFixture):
    class Broken:
        def handle(self, appended):
            raise RuntimeError("view is broken")

    with caplog.at_level(logging.ERROR, "rlm_fsm"):
        result = run("q", TEXT, adapter=summarizer(), event_listener=Broken(), log=log)
    assert result.status == "finished"
    assert "view is broken" in caplog.text


def test_an_intent_is_durable_before_its_call_starts(log: Path):
    """The adapter looks into the file, with a connection of its own, while it is called."""
    import sqlite3

    seen: list[int] = []

    class Looks:
        async def acomplete(self, messages, *, max_tokens, temperature):
            other = sqlite3.connect(log)
            query = "select count(*) from events where kind = 'EffectStarted'"
            seen.append(other.execute(query).fetchone()[0])
            other.close()
            sub = "sub-LLM" in messages[0]["content"]
            said = "yes" if sub else ("x = llm_query('a')" if len(messages) == 2 else "FINAL: 1")
            return ModelResponse(said, Usage(1, 1, 2))

    run("q", TEXT, adapter=Looks(), log=log)
    assert seen == [1, 2, 3]


def test_every_call_has_one_intent_and_one_outcome(log: Path):
    result = run("q", TEXT, adapter=summarizer(), log=log)
    events = events_of(log, result.run_id)
    intents = [event.call_id for event in events if isinstance(event, EffectStarted)]
    outcomes = [event.call_id for event in events if isinstance(event, ModelReplied)]
    assert intents == outcomes == ["0.m1", "0.1", "0.m2"]


def test_a_log_in_memory_still_gives_the_trace():
    output, trace = run("q", TEXT, adapter=summarizer(), log=":memory:")
    assert output.startswith("Summary")
    assert len(trace) == 4


def test_a_log_object_of_the_callers_is_used_and_left_open(log: Path):
    opened = SqliteLog(log)
    result = run("q", TEXT, adapter=summarizer(), log=opened)
    assert [info.run_id for info in runs(opened)] == [result.run_id]
    opened.close()


def test_the_log_goes_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "deep" / "runs.sqlite"
    monkeypatch.setenv("RLM_FSM_LOG", str(path))
    run("q", TEXT, adapter=summarizer())
    assert path.exists()
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_no_run_writes_into_the_current_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("RLM_FSM_LOG", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    run("q", TEXT, adapter=summarizer())
    assert list(here.iterdir()) == []
    assert (tmp_path / "data" / "rlm-fsm" / "log.sqlite").exists()


def test_a_run_error_is_one_tree():
    assert issubclass(ModelAuthError, RunError)
    assert issubclass(MaxStepsExceeded, RuntimeError)


def test_two_contexts_of_equal_text_have_equal_digests():
    assert Context.from_text("a").digest() == Context.from_text("a").digest()


class _Panic(BaseException):
    """Some libraries' own, such as those that wrap another language."""


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


@pytest.mark.parametrize(
    "failure",
    [asyncio.CancelledError(), SystemExit(1), StopIteration(), _Panic("no"), _Unspeakable()],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_an_adapter_raises_is_an_error_of_its_call(
    log: Path, failure: BaseException, is_async: bool
):
    """Also what ends programs elsewhere: nobody has cancelled this run."""

    class Sync:
        def complete(self, messages: Any, **_: Any) -> ModelResponse:
            raise failure

    class Async:
        async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
            raise failure

    if not is_async and isinstance(failure, SystemExit):
        pytest.skip("an executor's thread hands it on as any exception: the other case shows it")
    cell = (
        "```python\ntry:\n    llm_batch(['a', 'b', 'c'])\n"
        "except SubcallError as error:\n    seen = str(error)\n```"
    )
    adapter = FakeAdapter(script=[cell, "FINAL_VAR: seen"])
    sub = Async() if is_async else Sync()
    result = run("q", TEXT, adapter=adapter, subcall_adapter=sub, log=log)
    assert type(failure).__name__ in result.output
    assert result.usage.model_calls == 5


def test_a_usage_without_a_total_counts_its_parts(log: Path):
    class Model:
        def complete(self, messages: Any, **_: Any) -> ModelResponse:
            return ModelResponse("FINAL: 1", Usage(5_000, 700))

    result = run("q", TEXT, adapter=Model(), log=log)
    assert (result.usage.total_tokens, result.usage.prompt_tokens) == (5_700, 5_000)


def test_what_a_tool_raises_has_a_message_that_can_be_read(log: Path):
    def silent() -> str:
        raise _Unspeakable

    def endless() -> str:
        raise ValueError("y" * 1_000_000)

    cell = (
        "```python\nseen = []\nfor call in (silent, endless):\n    try:\n        call()\n"
        "    except ToolError as error:\n        seen.append(len(str(error)) < 20_000)\n```"
    )
    adapter = FakeAdapter(script=[cell, "FINAL_VAR: seen"])
    result = run("q", TEXT, adapter=adapter, tools=[silent, endless], log=log)
    assert result.output == "[True, True]"
