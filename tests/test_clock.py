"""Runs whose code asks for the time: what is recorded, and that it stays what it was."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_resume import Failing, Power, events_of

from effects.api import replay, resume
from effects.backends import repl_factory
from effects.context import Context
from effects.repls.base import Paused, ReplLimits
from effects.view.events import says
from rlm_fsm import FakeAdapter, SqliteLog, run, runs
from rlm_fsm.event import CodeExecuted, CodePaused
from rlm_fsm.options import Options
from rlm_fsm.values import CodeResult

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
CELLS = [
    "import time, datetime\nfirst = time.time()\nprint(first, datetime.date.today())",
    "said = llm_query('a')\nsecond = time.time()\nprint(second - first >= 0, said)",
    "FINAL_VAR: second",
]


def adapter(script: list[str]) -> FakeAdapter:
    return FakeAdapter(script=script)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@BACKENDS
def test_the_log_says_what_time_it_was_and_a_replay_agrees(backend: str, path: Path) -> None:
    script = [CELLS[0], CELLS[1], "hello", CELLS[2]]
    began_s = time.time()
    result = run("q", "text", adapter=adapter(script), log=path, repl_backend=backend)
    ended_s = time.time()
    events = events_of(path, result.run_id)
    asked = [e for e in events if isinstance(e, CodePaused) and e.now_s is not None]
    assert len(asked) == 2
    first, second = (e.now_s for e in asked)
    assert began_s <= first <= second <= ended_s
    assert float(result.output) == pytest.approx(second, abs=0.01)
    shown = next(e for e in events if isinstance(e, CodeExecuted)).stdout
    assert float(shown.split()[0]) == pytest.approx(first, abs=0.01)
    assert says(asked[0]).startswith("time: it is 2")
    assert replay(result.run_id, log=path, run_code=True) == result


@BACKENDS
def test_a_run_that_died_around_the_question_goes_on_with_the_same_time(
    backend: str, path: Path
) -> None:
    script = [CELLS[0], CELLS[1], "hello", CELLS[2]]
    for appends in range(3, 8):
        log = SqliteLog(path, durability="process")
        with pytest.raises(Power):
            run(
                "q",
                "text",
                adapter=adapter(script),
                log=Failing(log, appends, after=True),
                repl_backend=backend,
            )
        log.close()
        run_id = runs(path)[0].run_id
        before = events_of(path, run_id)
        replied = sum(type(e).__name__ == "ModelReplied" for e in before)
        result = resume(run_id, log=path, adapter=adapter(script[replied:]))
        assert result.status == "finished"
        assert events_of(path, run_id)[: len(before)] == before
        assert replay(run_id, log=path, run_code=True) == result


@BACKENDS
def test_runs_of_the_first_rules_keep_the_calendar_that_they_had(backend: str) -> None:
    async def step(rules: int) -> Paused | CodeResult:
        options = replace(Options(), rules=rules)
        opened = repl_factory(backend, ReplLimits(), options, seed="20261122-181500-abc")
        repl = opened(Context.from_text("text"))
        try:
            return await repl.start("import datetime\nprint(datetime.date.today())")
        finally:
            await repl.close()

    old, new = asyncio.run(step(1)), asyncio.run(step(2))
    assert isinstance(old, CodeResult)
    assert old.stdout == "2026-11-22\n"
    assert isinstance(new, Paused)
    assert new.asks_time
