"""Resume: a run that stopped anywhere goes on and ends as it would have."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rlm_fsm import (
    Context,
    FakeAdapter,
    ModelAuthError,
    ModelResponse,
    Policy,
    ReplayDiverged,
    RunBusy,
    RunNotFound,
    SqliteLog,
    Usage,
    UsageError,
    fold,
    fork,
    replay,
    resume,
    run,
    runs,
)
from rlm_fsm.adapters import AdapterError
from rlm_fsm.event import CodeExecuted, EffectStarted, ModelReplied, RunResumed

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
TEXT = "one two three four"
TURNS = [
    "words = P.split()\nprint(len(words))",
    "found = llm_batch([f'length of {word}' for word in words])\nprint(found)",
    "total = sum(int(n) for n in found)\nmore = llm_query(f'double {total}')\n"
    "lines = [more]\nfor word in words[:2]:\n    lines.append(llm_query('shout ' + word))",
    "FINAL_VAR: lines",
]
ANSWER = "['30', 'ONE', 'TWO']"


class Model:
    """A deterministic model without a memory of its own, that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: Counter = Counter()

    async def acomplete(self, messages, *, max_tokens, temperature):
        prompt = messages[-1]["content"]
        if "sub-LLM" in messages[0]["content"]:
            self.asked[prompt] += 1
            verb, _, rest = prompt.partition(" ")
            said = {
                "length": lambda: str(len(rest.split()[-1])),
                "double": lambda: str(2 * int(rest)),
                "shout": rest.upper,
            }[verb]()
        else:
            turn = sum(message["role"] == "assistant" for message in messages)
            self.asked[f"turn {turn}"] += 1
            said = TURNS[turn]
        return ModelResponse(said, Usage(1, 1, 2))


class Power(BaseException):
    """The process is gone."""


class Failing:
    """A log that dies at its n-th append, before or after the append itself."""

    def __init__(self, log: SqliteLog, appends: int, *, after: bool) -> None:
        self.log, self.left, self.after = log, appends, after

    def __getattr__(self, name):
        return getattr(self.log, name)

    def append(self, run_id, expected_seq, events):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Power
        seq = self.log.append(run_id, expected_seq, events)
        if self.left == 0:
            raise Power
        return seq


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def stop_at(path: Path, appends: int, *, after: bool, backend: str, model: Model, **options) -> str:
    """Begin a run that dies at its n-th append; its id."""
    log = SqliteLog(path, durability="process")
    try:
        with pytest.raises(Power):
            run(
                "q",
                TEXT,
                adapter=model,
                log=Failing(log, appends, after=after),
                repl_backend=backend,
                **options,
            )
    finally:
        log.close()
    return runs(path)[0].run_id if runs(path) else ""


def events_of(path: Path, run_id: str) -> list:
    log = SqliteLog(path)
    try:
        return [logged.event for logged in log.load(run_id)]
    finally:
        log.close()


def commits_of_a_whole_run(path: Path) -> int:
    count = 0

    class Counting(Failing):
        def append(self, run_id, expected_seq, events):
            nonlocal count
            count += 1
            return self.log.append(run_id, expected_seq, events)

    log = SqliteLog(path, durability="process")
    result = run("q", TEXT, adapter=Model(), log=Counting(log, 0, after=False))
    log.close()
    assert result.output == ANSWER
    return count


@BACKENDS
def test_a_run_that_dies_at_any_commit_ends_with_the_same_answer(backend: str, tmp_path: Path):
    commits = commits_of_a_whole_run(tmp_path / "whole.sqlite")
    assert commits > 15
    for number in range(2, commits + 1):
        path, model = tmp_path / f"{number}.sqlite", Model()
        run_id = stop_at(path, number, after=number % 2 == 0, backend=backend, model=model)
        committed = [e.call_id for e in events_of(path, run_id) if isinstance(e, ModelReplied)]
        result = resume(run_id, log=path, adapter=model)
        assert result.output == ANSWER, number
        events = events_of(path, run_id)
        outcomes = Counter(e.call_id for e in events if isinstance(e, ModelReplied))
        assert set(outcomes.values()) == {1}, "no outcome is recorded twice"
        intents = Counter(e.call_id for e in events if isinstance(e, EffectStarted))
        assert all(intents[call] == 1 for call in committed), "no committed call is repeated"
        repeated = sum(intents.values()) - len(intents)
        assert result.usage.uncertain_calls == repeated
        assert replay(run_id, log=path).output == ANSWER


def test_a_run_that_dies_in_a_batch_asks_only_what_is_missing(path: Path):
    model = Model()
    run_id = stop_at(path, 8, after=True, backend="python", model=model, max_concurrent_subcalls=1)
    before = model.asked.copy()
    result = resume(run_id, log=path, adapter=model)
    assert result.output == ANSWER
    again = {prompt for prompt, count in model.asked.items() if count > 1}
    assert len(again) <= 1, "only the call in flight"
    assert sum(before.values()) > 3


def test_a_run_that_dies_twice_goes_on_all_the_same(path: Path):
    run_id = stop_at(path, 6, after=True, backend="python", model=Model())
    for appends in (2, 3):
        log = SqliteLog(path)
        with pytest.raises(Power):
            resume(run_id, log=Failing(log, appends, after=True), adapter=Model())
        log.close()
    result = resume(run_id, log=path, adapter=Model())
    assert result.output == ANSWER
    assert sum(isinstance(event, RunResumed) for event in events_of(path, run_id)) == 3


def test_a_run_that_dies_inside_a_sub_run_brings_its_session_back(tmp_path: Path):
    script = {
        "root": ["x = llm_query('the key is PLOVER')", "FINAL_VAR: x"],
        "sub": ["word = P.split()[-1]", "again = llm_query('shout ' + word)", "FINAL_VAR: again"],
    }

    class Recursive:
        async def acomplete(self, messages, *, max_tokens, temperature):
            system, last = messages[0]["content"], messages[-1]["content"]
            turn = sum(message["role"] == "assistant" for message in messages)
            if last.startswith("shout"):
                said = last.split()[-1] + "!"
            else:
                said = script["sub" if "sub-LLM" in system else "root"][turn]
            return ModelResponse(said, Usage(1, 1, 2))

    options = {"recursive_subcalls": True, "max_recursion_depth": 1}
    for number in range(2, 14):
        path = tmp_path / f"{number}.sqlite"
        run_id = stop_at(path, number, after=True, backend="python", model=Recursive(), **options)
        assert resume(run_id, log=path, adapter=Recursive()).output == "PLOVER!", number


def test_uncertain_calls_may_be_refused(path: Path):
    run_id = stop_at(path, 5, after=True, backend="python", model=Model())
    adapter = FakeAdapter(script=["FINAL: gave up"])
    result = resume(run_id, log=path, adapter=adapter, on_uncertain="fail")
    assert (result.output, result.usage.uncertain_calls) == ("gave up", 4)
    assert "may have been paid for" in adapter.call_log[0][-1]["content"]
    assert len(adapter.call_log) == 1, "none of them was made again"


@pytest.mark.parametrize(("at", "shared"), [(1, 0), (4, 3)])
def test_a_fork_whose_process_dies_at_its_first_commit_goes_on_by_resume(
    path: Path, at: int, shared: int
):
    first = run("q", TEXT, adapter=Model(), log=path)

    class Dying(Failing):
        def fork(self, *args):
            assert self.log.fork(*args) > args[2], "the fork and its own events are one transaction"
            raise Power

    log = SqliteLog(path)
    with pytest.raises(Power):
        fork(
            first.run_id,
            at=at,
            log=Dying(log, 0, after=True),
            adapter=Model(),
            max_tokens=77,
        )
    log.close()
    newest, _ = runs(path)
    assert (newest.parent, newest.parent_seq) == (first.run_id, shared)
    result = resume(newest.run_id, log=path, adapter=Model())
    assert result.output == ANSWER
    assert fold(events_of(path, newest.run_id)).options.max_tokens == 77


def test_a_finished_run_gives_its_result_and_makes_no_call(path: Path):
    first = run("q", TEXT, adapter=Model(), log=path)
    model = Model()
    again = resume(first.run_id, log=path, adapter=model)
    assert (again.output, again.status) == (ANSWER, "finished")
    assert not model.asked
    assert resume(first.run_id, log=path).output == ANSWER, "not even an adapter is needed"


def test_a_refused_key_is_followed_by_a_resume_with_another(path: Path):
    refused = AdapterError("wrong key", kind="auth")
    adapter = FakeAdapter(script=["x = 41", refused])
    with pytest.raises(ModelAuthError) as caught:
        run("q", TEXT, adapter=adapter, log=path)
    better = FakeAdapter(script=["x += 1", "FINAL_VAR: x"])
    result = resume(caught.value.run_id, log=path, adapter=better)
    assert result.output == "42"


def test_a_partial_run_goes_on_with_a_larger_policy_and_only_with_one(path: Path):
    adapter = FakeAdapter(script=["x = 41", "perhaps 40"])
    first = run("q", TEXT, adapter=adapter, policy=Policy(max_steps=1), log=path)
    assert first.status == "partial"
    with pytest.raises(UsageError, match="max_steps"):
        resume(first.run_id, log=path, adapter=adapter)
    adapter = FakeAdapter(script=["x += 1", "FINAL_VAR: x"])
    result = resume(first.run_id, log=path, adapter=adapter, policy=Policy(max_steps=5))
    assert (result.status, result.output) == ("finished", "42")


def test_a_cancelled_run_goes_on(path: Path):
    async def program() -> None:
        from rlm_fsm import arun

        slow = FakeAdapter(script=["x = llm_query('a')"])
        slow.add_rule("sub-LLM", "late", delay_s=60)
        task = asyncio.create_task(arun("q", TEXT, adapter=slow, log=path))
        while len(slow.call_log) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(program())
    (info,) = runs(path)
    assert info.status == "cancelled"
    adapter = FakeAdapter(script=["FINAL_VAR: x"])
    adapter.add_rule("sub-LLM", "now")
    assert resume(info.run_id, log=path, adapter=adapter).output == "now"


def test_a_context_given_as_text_comes_back_by_itself(path: Path):
    run_id = stop_at(path, 3, after=True, backend="python", model=Model())
    assert resume(run_id, log=path, adapter=Model()).output == ANSWER


def test_a_context_that_was_too_long_to_keep_must_be_passed_again(path: Path):
    run_id = stop_at(path, 3, after=True, backend="python", model=Model(), store_context_chars=5)
    with pytest.raises(UsageError, match="pass it again"):
        resume(run_id, log=path, adapter=Model())
    with pytest.raises(UsageError, match="not the context"):
        resume(run_id, log=path, adapter=Model(), context="something else")
    assert resume(run_id, log=path, adapter=Model(), context=TEXT).output == ANSWER


def test_files_are_opened_again_and_checked(path: Path, tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text(TEXT, encoding="utf-8")
    log = SqliteLog(path)
    with pytest.raises(Power):
        run("q", file, adapter=Model(), log=Failing(log, 4, after=True))
    log.close()
    (info,) = runs(path)
    file.write_text("changed", encoding="utf-8")
    with pytest.raises(UsageError, match="changed"):
        resume(info.run_id, log=path, adapter=Model())
    file.unlink()
    with pytest.raises(UsageError, match="not found"):
        resume(info.run_id, log=path, adapter=Model())
    file.write_text(TEXT, encoding="utf-8")
    assert resume(info.run_id, log=path, adapter=Model()).output == ANSWER


def test_a_cell_that_prints_something_else_is_noticed(path: Path):
    adapter = FakeAdapter(script=["import os\nprint(os.urandom(8))", "x = 1"])
    log = SqliteLog(path)
    with pytest.raises(Power):
        run("q", TEXT, adapter=adapter, log=Failing(log, 4, after=True))
    log.close()
    (info,) = runs(path)
    with pytest.raises(ReplayDiverged) as diverged:
        resume(info.run_id, log=path, adapter=FakeAdapter(script=["FINAL: no"]))
    assert (diverged.value.run_id, diverged.value.seq) == (info.run_id, 4)
    adapter = FakeAdapter(script=["FINAL: yes"])
    result = resume(info.run_id, log=path, adapter=adapter, on_changed_output="accept")
    assert result.output == "yes"


def test_two_can_not_lead_one_run(path: Path):
    run_id = stop_at(path, 5, after=True, backend="python", model=Model())
    other = SqliteLog(path)
    model = Model()
    with other.lead(other.find(run_id)), pytest.raises(RunBusy, match=run_id):
        resume(run_id, log=path, adapter=model)
    other.close()
    assert not model.asked
    assert resume(run_id, log=path, adapter=model).output == ANSWER


def test_an_unknown_run_is_not_found(path: Path):
    run("q", TEXT, adapter=Model(), log=path)
    with pytest.raises(RunNotFound):
        resume("no-such-run", log=path, adapter=Model())


# -- replay ---------------------------------------------------------------------------------------


@BACKENDS
def test_a_replay_gives_the_identical_result_and_can_run_the_cells_again(backend: str, path: Path):
    first = run("q", TEXT, adapter=Model(), repl_backend=backend, log=path)
    again = replay(first.run_id, log=path, run_code=True)
    assert again == first
    assert again.trace == first.trace


@BACKENDS
def test_a_replay_can_run_the_cells_again_where_a_loop_is_running(backend: str, path: Path):
    """As in a notebook."""
    first = run("q", TEXT, adapter=Model(), repl_backend=backend, log=path)

    async def program() -> None:
        assert replay(first.run_id, log=path, run_code=True) == first
        with SqliteLog(path) as log:
            assert replay(first.run_id, log=log, run_code=True, context=TEXT) == first

    asyncio.run(program())


def test_a_replay_of_an_interrupted_run_gives_what_there_is(path: Path):
    run_id = stop_at(path, 5, after=True, backend="python", model=Model())
    assert replay(run_id, log=path).status == "running"


def test_a_replay_stops_at_any_event(path: Path):
    first = run("q", TEXT, adapter=Model(), log=path)
    events = events_of(path, first.run_id)
    for at in range(1, len(events) + 1):
        assert replay(first.run_id, log=path, at=at) == fold(events[:at])
    with pytest.raises(UsageError, match="has events 1 to"):
        replay(first.run_id, log=path, at=len(events) + 1)


# -- fork -----------------------------------------------------------------------------------------


def test_a_fork_shares_what_was_before_and_goes_its_own_way(path: Path):
    first = run("q", TEXT, adapter=Model(), log=path)
    events = events_of(path, first.run_id)
    at = next(i for i, e in enumerate(events, 1) if isinstance(e, CodeExecuted))
    adapter = FakeAdapter(script=["n = len(words)", "FINAL_VAR: n"])
    forked = fork(first.run_id, at=at, log=path, adapter=adapter)
    assert forked.output == "4"
    assert events_of(path, forked.run_id)[: at - 1] == events[: at - 1]
    assert events_of(path, first.run_id) == events
    assert forked.usage.uncertain_calls == 0


def test_a_run_can_be_forked_at_every_event(path: Path):
    first = run("q", TEXT, adapter=Model(), log=path)
    events = events_of(path, first.run_id)
    for at in range(1, len(events)):
        forked = fork(first.run_id, at=at, log=path, adapter=Model())
        assert forked.output == ANSWER, at
        assert replay(forked.run_id, log=path).output == ANSWER


def test_an_edited_reply_is_the_forks_own(path: Path):
    adapter = FakeAdapter(script=["x = 1", "FINAL_VAR: x"])
    first = run("q", TEXT, adapter=adapter, log=path)
    events = events_of(path, first.run_id)
    at = next(i for i, e in enumerate(events, 1) if isinstance(e, ModelReplied))
    again = FakeAdapter(script=["FINAL_VAR: x"])
    forked = fork(
        first.run_id, at=at, log=path, adapter=again, edit=lambda e: replace(e, text="x = 99")
    )
    assert forked.output == "99"
    assert events_of(path, first.run_id) == events


def test_a_fork_may_change_the_question(path: Path):
    first = run("q", TEXT, adapter=FakeAdapter(script=["FINAL: 1"]), log=path)
    adapter = FakeAdapter(script=["FINAL: 2"])
    edit = lambda event: replace(event, query="another question")  # noqa: E731
    forked = fork(first.run_id, at=1, log=path, adapter=adapter, edit=edit)
    assert forked.output == "2"
    assert "another question" in adapter.call_log[0][1]["content"]


def test_a_fork_goes_on_under_larger_limits(path: Path):
    adapter = FakeAdapter(script=["x = 41", "dunno"])
    first = run("q", TEXT, adapter=adapter, policy=Policy(max_steps=1), log=path)
    at = next(
        i for i, e in enumerate(events_of(path, first.run_id), 1) if isinstance(e, CodeExecuted)
    )
    adapter = FakeAdapter(script=["x += 1", "FINAL_VAR: x"])
    forked = fork(first.run_id, at=at, log=path, adapter=adapter, policy=Policy(max_steps=9))
    assert (forked.output, forked.status) == ("42", "finished")


@pytest.mark.parametrize(
    ("at", "edit", "says"),
    [(0, None, "has events 1 to"), (99, None, "has events"), (2, lambda e: e, "derived")],
)
def test_a_fork_that_can_not_be_is_refused(path: Path, at: int, edit, says: str):
    first = run("q", TEXT, adapter=FakeAdapter(script=["FINAL: 1"]), log=path)
    with pytest.raises(UsageError, match=says):
        fork(first.run_id, at=at, log=path, adapter=FakeAdapter(), edit=edit)
    assert len(runs(path)) == 1


def test_contexts_of_documents_come_back_with_their_boundaries(path: Path):
    context = Context.from_documents(["a", "bb"], names=["x", "y"])
    adapter = FakeAdapter(script=["print(ctx.document_lengths())"])
    log = SqliteLog(path)
    with pytest.raises(Power):
        run("q", context, adapter=adapter, log=Failing(log, 4, after=True))
    log.close()
    (info,) = runs(path)
    adapter = FakeAdapter(script=["d = ctx.get_document(1)", "FINAL_VAR: d"])
    assert resume(info.run_id, log=path, adapter=adapter).output == "bb"
