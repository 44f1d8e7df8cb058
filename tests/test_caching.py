"""Runs with a cache: hits and what they cost, calls in flight, kills, replay, resume, batches."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from caching_model import BATCH, ONE, adapter, events_of, hits_of, server, subcalls
from machine import Machine, code

from effects.caches.base import CachedReply, CacheRequest
from effects.caches.flights import FLIGHTS
from effects.log.memory import MemoryLog
from rlm_fsm import (
    RLM,
    Appended,
    FakeAdapter,
    FileCache,
    ModelResponse,
    Policy,
    Price,
    RunResult,
    SqliteLog,
    Usage,
    UsageError,
    arun,
    fork,
    replay,
    resume,
    run,
    run_many,
    runs,
)
from rlm_fsm.codec import effect_hash
from rlm_fsm.event import EffectStarted, ModelReplied, RunStarted

ANSWER = "['ONE TEXT', 'TWO TEXT', 'THREE TEXT']"
KINDS = pytest.mark.parametrize("kind", ["files", "log"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture(autouse=True)
def _nothing_stays_in_flight() -> Any:
    yield
    assert len(FLIGHTS) == 0


def cache_of(kind: str, folder: Path) -> Any:
    return "log" if kind == "log" else FileCache(folder / "cache")


def used(result: RunResult) -> tuple[int, int, int]:
    """Subcalls that count, model calls, and hits."""
    return result.usage.subcalls, result.usage.model_calls, result.usage.cache_hits


# -- hits


@KINDS
def test_what_one_run_asked_the_next_is_given_for_nothing(kind: str, path: Path):
    prices = {"m": Price(prompt_usd_per_mtok=1_000, completion_usd_per_mtok=1_000)}
    with server() as model:
        results = [
            run(
                "q",
                "text",
                adapter=adapter(model),
                log=path,
                prices=prices,
                cache=cache_of(kind, path.parent),
            )
            for _ in range(2)
        ]
        assert set(subcalls(model).values()) == {1}
    first, second = results
    assert (first.output, second.output) == (ANSWER, ANSWER)
    assert (used(first), used(second)) == ((3, 5, 0), (0, 2, 3))
    assert first.usage.total_tokens - second.usage.total_tokens == 3 * 25
    assert first.cost_usd - second.cost_usd == pytest.approx(3 * 0.025)
    assert second.usage.unpriced_calls == 0
    assert [step.cache_hit for step in second.trace if step.kind == "subcall"] == [True] * 3
    assert [step.cache_hit for step in first.trace if step.kind == "subcall"] == [False] * 3


@KINDS
def test_a_hit_has_its_intent_before_it_and_says_what_was_said(kind: str, path: Path):
    with server(ONE) as model:
        for _ in range(2):
            result = run(
                "q", "text", adapter=adapter(model), log=path, cache=cache_of(kind, path.parent)
            )
    events = events_of(path, result.run_id)
    (hit,) = hits_of(path, result.run_id)
    intent = next(e for e in events if isinstance(e, EffectStarted) and e.call_id == hit.call_id)
    assert events.index(intent) < events.index(hit)
    assert (hit.text, hit.model_id, hit.finish_reason) == ("ONE TEXT", "loopback", "stop")
    assert (hit.usage, hit.cost_usd, len(hit.cache_key)) == (Usage(), None, 64)


def test_turns_are_asked_anew(path: Path):
    with server("found = 'x'") as model:
        for _ in range(2):
            run("q", "text", adapter=adapter(model), log=path, cache="log")
        assert len(model.requests) == 4


def test_without_a_cache_everything_is_asked_anew(path: Path):
    with server(ONE) as model:
        for cache in (None, "none"):
            result = run("q", "text", adapter=adapter(model), log=path, cache=cache)
        assert subcalls(model)["one text"] == 2
    assert all(
        not e.cache_key for e in events_of(path, result.run_id) if isinstance(e, ModelReplied)
    )


@KINDS
def test_what_decides_a_reply_decides_the_entry(kind: str, path: Path):
    with server(ONE) as model, server(ONE) as other:
        changes: list[dict[str, Any]] = [
            {},
            {"subcall_system_prompt": "You are a sub-LLM. Be brief."},
            {"subcall_max_tokens": 99},
            {"subcall_adapter": adapter(model, extra={"top_p": 0.5})},
            {"subcall_adapter": adapter(other)},
        ]
        for change in [*changes, *changes]:
            cache = cache_of(kind, path.parent)
            change = {"repl_backend": "monty", **change}
            run("q", "text", adapter=adapter(model), log=path, cache=cache, **change)
        assert (sum(subcalls(model).values()), sum(subcalls(other).values())) == (4, 1)


def test_another_key_of_the_same_service_has_the_same_entries(tmp_path: Path):
    cache = FileCache(tmp_path / "cache")
    with server(ONE) as model:
        for secret in ("sk-one", "sk-two"):
            run("q", "text", adapter=adapter(model, api_key=secret), log=":memory:", cache=cache)
        assert subcalls(model)["one text"] == 1
    kept = b"".join(file.read_bytes() for file in cache.root.rglob("*.json"))
    assert b"sk-" not in kept


def test_equal_prompts_that_are_each_to_be_answered_keep_their_own_replies(tmp_path: Path):
    cache = FileCache(tmp_path / "cache")
    replies = iter("abcdef")
    answers = []
    for _ in range(2):
        root = FakeAdapter([code("x = llm_batch(['p', 'p', 'p'], dedupe=False)"), "FINAL_VAR: x"])
        sub = FakeAdapter(rules=[], model="sub")
        sub.add_rule("", lambda _: next(replies))
        made = run("q", "t", adapter=root, subcall_adapter=sub, log=":memory:", cache=cache)
        answers.append((made.output, made.usage.cache_hits))
    assert answers[0][0] == answers[1][0]
    assert sorted(answers[0][0]) == sorted("['a', 'b', 'c']")
    assert [hits for _, hits in answers] == [0, 3]


@pytest.mark.parametrize("backend", ["python", "monty"])
@pytest.mark.parametrize("cached", [False, True])
def test_equal_prompts_that_are_gathered_are_asked_once_with_a_cache(backend: str, cached: bool):
    """As they are when they are called one after the other."""
    cell = "import asyncio\nx = await asyncio.gather(*[llm_query('same') for _ in range(3)])"
    root = FakeAdapter([code(cell), "FINAL_VAR: x"])
    sub = FakeAdapter(["a", "b", "c"], model="sub")
    result = run(
        "q",
        "t",
        adapter=root,
        subcall_adapter=sub,
        repl_backend=backend,
        log=":memory:",
        cache="log" if cached else None,
    )
    assert result.output == ("['a', 'a', 'a']" if cached else "['a', 'b', 'c']")
    assert (len(sub.call_log), result.usage.cache_hits) == ((1, 2) if cached else (3, 0))


def test_the_machine_counts_equal_calls_and_their_hashes_stay_what_they_were():
    machine = Machine()
    machine.start()
    machine.reply(code("x"))
    machine.pause("p", "p", "q", dedupe=False, is_sample=True)
    made = [machine.state.calls[name] for name in ("0.1", "0.2", "0.3")]
    assert [call.sample for call in made] == [0, 1, 0]
    assert effect_hash(made[1]) == effect_hash(replace(made[1], sample=0))


@pytest.mark.parametrize("reason", ["empty", "filtered", "failed"])
def test_replies_that_another_try_may_better_are_not_kept(tmp_path: Path, reason: str):
    cache = FileCache(tmp_path / "cache")
    found = {
        "empty": " \n",
        "filtered": ModelResponse("part", Usage(1, 1, 2), "m", {"finish_reason": "content_filter"}),
        "failed": RuntimeError("down"),
    }[reason]
    root = FakeAdapter([code("x = llm_batch(['p'], on_error='return')"), "FINAL: done"])
    sub = FakeAdapter([found], model="sub")
    result = run("q", "t", adapter=root, subcall_adapter=sub, log=":memory:", cache=cache)
    assert (result.status, len(cache)) == ("finished", 0)


def test_max_subcalls_counts_calls_and_not_hits(path: Path):
    loop = "found = [llm_query(f'{n} ' + P) for n in (1, 2, 3, 1, 2, 3)]"
    with server(loop) as model:
        result = run(
            "q",
            "text",
            adapter=adapter(model),
            log=path,
            cache="log",
            policy=Policy(max_subcalls=4),
        )
    assert (result.status, used(result)) == ("finished", (3, 5, 3))


def test_the_cache_is_shared_by_the_whole_tree_of_a_run(path: Path):
    turns = [code("a = rlm_query('sub question')\nb = llm_query('leaf')"), "FINAL_VAR: b"]
    sub_turns = [code("c = llm_query('leaf')"), "FINAL_VAR: c"]
    root, sub = FakeAdapter(turns, model="root"), FakeAdapter(rules=[], model="sub")
    sub.add_rule("You are a sub-LLM", "LEAF")
    asked = iter(sub_turns)
    sub.add_rule("", lambda _: next(asked))
    models: dict[str, Any] = {"adapter": root, "subcall_adapter": sub}
    told = {"recursive_subcall_system_prompt": "Go on."}
    result = run("q", "t", **models, **told, log=path, cache="log")
    assert (result.output, used(result)) == ("LEAF", (2, 5, 1))


# -- in flight


@KINDS
def test_runs_of_one_batch_ask_the_same_prompt_once(kind: str, path: Path):
    with server(ONE, delay_s=0.2) as model:
        done = run_many(
            [f"question {n}?" for n in range(6)],
            context="text",
            adapter=adapter(model),
            log=path,
            cache=cache_of(kind, path.parent),
            max_runs=6,
        )
        assert subcalls(model) == {"one text": 1}
    assert [row.output for row in done] == ["ONE TEXT"] * 6
    assert sorted(row.to_dict()["cache_hits"] for row in done) == [0, 1, 1, 1, 1, 1]
    assert sum(row.to_dict()["subcalls"] for row in done) == 1


@KINDS
def test_runs_in_several_threads_ask_the_same_prompt_once(kind: str, path: Path):
    with server(ONE, delay_s=0.3) as model:
        rlm = RLM(adapter(model), log=path, cache=cache_of(kind, path.parent))
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(lambda n: rlm.run(f"q{n}", "text"), range(3)))
        assert subcalls(model) == {"one text": 1}
    assert [result.output for result in done] == ["ONE TEXT"] * 3
    assert sum(result.usage.cache_hits for result in done) == 2


def test_who_waits_for_a_call_that_fails_asks_for_itself(path: Path):
    with server(ONE, delay_s=0.2, failures=1) as model:
        done = run_many(
            ["one?", "two?", "three?"],
            context="text",
            adapter=adapter(model),
            log=path,
            cache="log",
        )
        assert 2 <= subcalls(model)["one text"] <= 4
    assert sorted(row.output for row in done)[-2:] == ["ONE TEXT"] * 2


class Waiting:
    """A listener that says when the intent of a subcall is in the log."""

    def __init__(self) -> None:
        self.asks = asyncio.Event()

    def handle(self, event: Appended) -> None:
        if isinstance(event.event, EffectStarted) and event.event.call_id == "0.1":
            self.asks.set()


def test_who_waits_for_a_run_that_is_cancelled_asks_for_itself(path: Path):
    async def both() -> RunResult:
        tasks = []
        with server(ONE, first_s=60.0) as model:
            options: dict[str, Any] = {"adapter": adapter(model), "log": path, "cache": "log"}
            for query in ("first", "second"):
                waiting = Waiting()
                asking = arun(query, "text", event_listener=waiting, **options)
                tasks.append(asyncio.create_task(asking))
                await waiting.asks.wait()
                await asyncio.sleep(0.05)
            tasks[0].cancel()
            result = await tasks[1]
            assert subcalls(model)["one text"] == 2
            return result

    assert asyncio.run(both()).output == "ONE TEXT"


# -- kills, replay, resume


CHILD = """
import os, signal, sys
from caching_model import adapter
from rlm_fsm import FileCache, OpenAICompatAdapter, run

when, base_url, log, root = sys.argv[1:]

class Dying(FileCache):
    def put(self, key, reply, request):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(key, reply, request)
        os.kill(os.getpid(), signal.SIGKILL)

model = OpenAICompatAdapter("m", base_url=base_url, api_key="sk-any", max_retries=0)
run("q", "text", adapter=model, log=log, cache=Dying(root))
"""


@pytest.mark.parametrize(("when", "asked"), [("before", 2), ("after", 1)])
def test_a_call_that_was_in_flight_asks_the_cache_first(path: Path, when: str, asked: int):
    """Killed between the answer and its entry, the call is made again; between the entry and its
    event it isn't."""
    here = Path(__file__).parent
    with server(ONE) as model:
        killed = subprocess.run(
            [sys.executable, "-c", CHILD, when, model.base_url, path, path.parent / "cache"],
            env={"PYTHONPATH": f"{here}:{here.parent}", "PATH": os.environ["PATH"]},
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        result = resume(runs(path)[0].run_id, log=path, adapter=adapter(model))
        assert subcalls(model)["one text"] == asked
    assert (result.output, result.usage.uncertain_calls) == ("ONE TEXT", 1)
    assert result.usage.cache_hits == (when == "after")


def test_a_run_with_hits_replays_without_its_cache(path: Path):
    cache = FileCache(path.parent / "cache")
    with server() as model:
        for _ in range(2):
            result = run("q", "text", adapter=adapter(model), log=path, cache=cache)
    shutil.rmtree(cache.root)
    again = replay(result.run_id, log=path, run_code=True)
    assert (again.output, used(again)) == (ANSWER, (0, 2, 3))
    assert again.trace == result.trace
    assert not cache.root.exists(), "a replay makes nothing"


class Halting(SqliteLog):
    """A log whose process stops at the third reply of a model."""

    replies = 0

    def append(self, run_id: Any, expected_seq: int, events: Any) -> int:
        seq = super().append(run_id, expected_seq, events)
        self.replies += sum(isinstance(event, ModelReplied) for event in events)
        if self.replies >= 3:
            raise KeyboardInterrupt
        return seq


def halted(path: Path, **options: Any) -> str:
    """A run that stopped in the middle of a loop of subcalls; its id."""
    with Halting(path) as log, pytest.raises(KeyboardInterrupt):
        run("q", "text", log=log, **options)
    return runs(path)[0].run_id


LOOP = "found = [llm_query(f'{n} ' + P) for n in (1, 2, 3, 4)]"


@KINDS
def test_a_run_that_goes_on_has_the_cache_that_it_had(kind: str, path: Path):
    with server(LOOP) as model:
        run("q", "text", adapter=adapter(model), log=path, cache=cache_of(kind, path.parent))
        cache = cache_of(kind, path.parent)
        stopped = halted(path, adapter=adapter(model), cache=cache)
        before = sum(subcalls(model).values())
        result = resume(stopped, log=path, adapter=adapter(model))
        assert sum(subcalls(model).values()) == before == 4
    assert result.usage.cache_hits == 4
    started = events_of(path, stopped)[0]
    assert isinstance(started, RunStarted)
    assert started.environment["cache"] == kind


def test_a_resume_may_do_without_a_cache_or_have_another(path: Path):
    with server(LOOP) as model:
        run("q", "text", adapter=adapter(model), log=path, cache="log")
        for cache, more in (("none", 2), (FileCache(path.parent / "empty"), 2), ("log", 0)):
            stopped = halted(path, adapter=adapter(model), cache="log")
            before = sum(subcalls(model).values())
            result = resume(stopped, log=path, adapter=adapter(model), cache=cache)
            assert sum(subcalls(model).values()) - before == more
            assert result.output == "['1 TEXT', '2 TEXT', '3 TEXT', '4 TEXT']"


def test_a_resume_goes_on_when_the_folder_of_its_cache_cannot_be_had(
    path: Path, caplog: pytest.LogCaptureFixture
):
    root = path.parent / "cache"
    with server(LOOP) as model:
        stopped = halted(path, adapter=adapter(model), cache=FileCache(root))
        shutil.rmtree(root)
        root.write_text("a file")
        result = resume(stopped, log=path, adapter=adapter(model))
    assert result.status == "finished"
    assert "goes on without its cache" in caplog.text


def test_a_fork_has_the_cache_of_its_parent(path: Path):
    with server(LOOP) as model:
        first = run("q", "text", adapter=adapter(model), log=path, cache="log")
        before = sum(subcalls(model).values())
        forked = fork(first.run_id, at=2, log=path, adapter=adapter(model))
        assert sum(subcalls(model).values()) == before
    assert (forked.output, forked.usage.cache_hits) == (first.output, 4)


def test_a_run_without_a_key_in_its_log_is_found_by_nobody(path: Path):
    with server(ONE) as model:
        run("q", "text", adapter=adapter(model), log=path)
        result = run("q", "text", adapter=adapter(model), log=path, cache="log")
    assert result.usage.cache_hits == 0


# -- what goes wrong


class Broken:
    """A cache that raises whatever it is asked."""

    def get(self, key: str) -> CachedReply | None:
        raise ConnectionError("no route")

    def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        raise OSError(28, "No space left on device")


def test_a_broken_cache_is_warned_of_once_and_never_ends_a_run(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "rlm_fsm")
    with server() as model:
        rlm = RLM(adapter(model), log=":memory:", cache=Broken())
        done = [rlm.run("q", "text") for _ in range(2)]
        assert set(subcalls(model).values()) == {2}
    assert [result.output for result in done] == [ANSWER] * 2
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "can't be read" in told[0]
    assert "No space left" in told[1]


def test_a_folder_that_is_lost_while_runs_go_on_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    cache = FileCache(tmp_path / "cache")
    shutil.rmtree(cache.root)
    cache.root.write_text("a file")
    with server() as model:
        rlm = RLM(adapter(model), log=":memory:", cache=cache)
        assert [rlm.run("q", "text").output for _ in range(2)] == [ANSWER] * 2
    assert caplog.text.count("can't be written") == 1
    assert list(tmp_path.iterdir()) == [cache.root]


class Lying:
    """A cache that gives what is no reply."""

    def get(self, key: str) -> Any:
        return "a reply"

    def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None: ...


def test_a_cache_that_gives_no_reply_is_none(caplog: pytest.LogCaptureFixture):
    with server(ONE) as model:
        result = run("q", "text", adapter=adapter(model), log=":memory:", cache=Lying())
    assert (result.output, result.usage.cache_hits) == ("ONE TEXT", 0)
    assert "must give a CachedReply or None" in caplog.text


def test_a_cache_of_ones_own_must_be_passed_again(path: Path, caplog: pytest.LogCaptureFixture):
    with server(LOOP) as model:
        stopped = halted(path, adapter=adapter(model), cache=Lying())
        assert resume(stopped, log=path, adapter=adapter(model)).status == "finished"
    assert "the run had a cache (object Lying)" in caplog.text


def test_a_log_that_cannot_find_replies_is_no_cache():
    class Older:
        path = ":memory:"

        def __init__(self) -> None:
            self._log = MemoryLog()

        def __getattr__(self, name: str) -> Any:
            if name == "answer":
                raise AttributeError(name)
            return getattr(self._log, name)

    model = FakeAdapter([])
    with pytest.raises(UsageError, match="Older can't find replies"):
        run("q", "text", adapter=model, log=Older(), cache="log")
    assert model.call_log == []


FORKED = """
import os
from effects.caches.flights import FLIGHTS, Flight

leading = FLIGHTS.join(("place", "key"))
child = os.fork()
if child == 0:
    os._exit(0 if isinstance(FLIGHTS.join(("place", "key")), Flight) else 1)
assert os.waitpid(child, 0)[1] == 0
assert not isinstance(FLIGHTS.join(("place", "key")), Flight)
"""


def test_a_forked_child_waits_for_no_call_of_its_parents():
    root = str(Path(__file__).parent.parent)
    subprocess.run([sys.executable, "-c", FORKED], env={"PYTHONPATH": root}, check=True)


@pytest.mark.parametrize("bad", ["folder", "LOG", 7, object(), FileCache, Path("cache")])
def test_what_is_no_cache_is_refused_before_anything_is_started(bad: Any, tmp_path: Path):
    model = FakeAdapter([])
    with pytest.raises(UsageError, match="give FileCache"):
        RLM(model, log=tmp_path / "log.sqlite", cache=bad)
    assert (model.call_log, list(tmp_path.iterdir())) == ([], [])


class Nameless:
    def complete(self, messages: Any, *, max_tokens: int = 1, temperature: float = 0.0) -> Any:
        return ModelResponse("FINAL: x", Usage())


class Unspeakable(Nameless):
    identity = {"weights": object()}  # noqa: RUF012


def test_adapters_that_nobody_can_tell_apart_are_refused():
    with pytest.raises(UsageError, match=r"Nameless \(root\).*attribute model"):
        RLM(Nameless(), cache="log")
    with pytest.raises(UsageError, match=r"Unspeakable\.identity can't be written as JSON"):
        RLM(FakeAdapter([]), adapters={"x": Unspeakable()}, cache="log")
    RLM(Nameless(), subcall_adapter=FakeAdapter([]), cache="log")


def test_a_log_in_memory_is_a_cache_for_the_runs_of_a_batch():
    with server(ONE) as model:
        done = run_many(
            ["a?", "b?"], context="text", adapter=adapter(model), log=":memory:", cache="log"
        )
        assert subcalls(model)["one text"] == 1
    assert sum(row.usage.cache_hits for row in done if row.usage) == 1


def test_a_batch_is_the_same_batch_with_a_cache_and_without(path: Path):
    with server(BATCH) as model:
        names = {
            run_many(["a?"], context="text", adapter=adapter(model), log=path, cache=cache).name
            for cache in (None, "log")
        }
    assert len(names) == 1
