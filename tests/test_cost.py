"""What a step costs, counted instead of timed: commits, encodings, host calls, function calls."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from rlm_fsm import ModelResponse, Policy, ReplLimits, SqliteLog, Usage, codec, run
from rlm_fsm.event import EffectStarted, Event, ModelReplied


class Instant:
    """A model that runs a trivial cell in each turn, then answers."""

    def __init__(self, turns: int, cell: str = "x = 1") -> None:
        self.left = turns
        self.reply = f"```python\n{cell}\n```"

    async def acomplete(self, messages, *, max_tokens, temperature):
        if "sub-LLM" in messages[0]["content"]:
            return ModelResponse("yes", Usage(1, 1, 2))
        self.left -= 1
        return ModelResponse(self.reply if self.left >= 0 else "FINAL: x", Usage(1, 1, 2))


class CountingLog:
    """A log that counts what goes in."""

    def __init__(self, log: SqliteLog) -> None:
        self.log = log
        self.commits: list[tuple[Event, ...]] = []

    def __getattr__(self, name):
        return getattr(self.log, name)

    def append(self, run_id, expected_seq, events):
        self.commits.append(tuple(events))
        return self.log.append(run_id, expected_seq, events)


@pytest.fixture
def log(tmp_path: Path):
    log = CountingLog(SqliteLog(tmp_path / "log.sqlite", durability="process"))
    yield log
    log.close()


def go(adapter, log, **options) -> None:
    policy = Policy(max_steps=1_000, max_total_tokens=None, max_subcalls=10_000)
    # The trivial cell is the same in each turn, and here that is no loop.
    run("q", "some text", adapter=adapter, log=log, policy=policy, loop_limit=None, **options)


def test_an_ordinary_turn_costs_two_commits_and_three_events(log: CountingLog):
    go(Instant(12), log)
    kinds = [[type(event).__name__ for event in commit] for commit in log.commits]
    assert kinds[0] == ["RunStarted", "EffectStarted"]
    assert kinds[1:-1] == [["ModelReplied"], ["CodeExecuted", "EffectStarted"]] * 12
    assert kinds[-1] == ["ModelReplied", "RunFinished"]


def test_a_cell_with_a_subcall_costs_two_commits_more(log: CountingLog):
    go(Instant(1, "x = llm_query('a')"), log)
    kinds = [[type(event).__name__ for event in commit] for commit in log.commits]
    assert kinds[2:4] == [["CodePaused", "EffectStarted"], ["ModelReplied"]]


def test_a_batch_costs_one_pause_and_one_intent_a_call(log: CountingLog):
    go(Instant(1, "x = llm_batch([f'number {i}' for i in range(200)])"), log)
    events = [event for commit in log.commits for event in commit]
    assert Counter(type(event).__name__ for event in events) == {
        "RunStarted": 1,
        "EffectStarted": 202,
        "ModelReplied": 202,
        "CodePaused": 1,
        "CodeExecuted": 1,
        "RunFinished": 1,
    }
    assert len(log.commits) <= 206


def test_a_wave_of_outcomes_is_committed_in_parts(log: CountingLog):
    cell = "x = llm_batch([f'number {i}' for i in range(40)])"
    go(Instant(1, cell), log, max_concurrent_subcalls=40)
    replies = [sum(type(event) is ModelReplied for event in commit) for commit in log.commits]
    assert sum(replies) == 42
    assert max(replies) <= 20  # how many exactly follows from what the commits took: `portions`


def test_each_event_is_encoded_once(log: CountingLog):
    counted = count_calls(lambda: go(Instant(10), log))
    events = [event for commit in log.commits for event in commit]
    assert counted[codec.encode.__code__] == len(events)
    intents = [event for event in events if isinstance(event, EffectStarted)]
    assert counted[codec.effect_hash.__code__] == len(intents)


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_step_costs_the_same_however_many_came_before(backend: str):
    def calls(turns: int) -> int:
        limits = ReplLimits()
        counted = count_calls(
            lambda: go(Instant(turns), ":memory:", repl_backend=backend, repl_limits=limits)
        )
        return sum(counted.values())

    calls(220)  # whatever is loaded or built once is there from here on
    first, second, third = calls(20), calls(120), calls(220)
    early, late = (second - first) / 100, (third - second) / 100
    # Turns of the event loop differ by a few calls with what the other process does meanwhile; a
    # step that looked at all the ones before it would cost twice as much at twice the steps.
    assert late <= 1.25 * early, (early, late)


def test_the_log_grows_by_the_same_bytes_however_many_steps_came_before(tmp_path: Path):
    def size(turns: int) -> int:
        path = tmp_path / f"{turns}.sqlite"
        log = SqliteLog(path, durability="process")
        go(Instant(turns, "print('z' * 500)"), log)
        log.close()
        return path.stat().st_size

    sizes = [size(turns) for turns in (50, 150, 250)]
    assert sizes[2] - sizes[1] <= 1.3 * (sizes[1] - sizes[0])


def count_calls(work) -> Counter:
    """How often each Python function was called while `work` ran, in this thread."""
    counted: Counter = Counter()

    def profile(frame, event, _):
        if event == "call":
            counted[frame.f_code] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counted
