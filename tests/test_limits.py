"""Limits that bite: whatever a cell does, it ends in time, the model is told why, the run goes on.

Each bomb stands in the middle of a whole run: a variable is set before it and used after it.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from repl_python import comes_true, own_children

from rlm_fsm import FakeAdapter, ReplLimits, RunResult, SqliteLog, run
from rlm_fsm.event import CodeExecuted

BACKENDS = pytest.mark.parametrize("backend", ["python", "monty"])
LIMIT_S = 0.3
PATIENT_S = 20.0
LIMITS = ReplLimits(cell_timeout_s=LIMIT_S, memory_bytes=64 << 20, output_chars=10_000)
GRACE_S = 0.3
"""Before a process that goes on is ended, for these tests."""
SLACK_S = 10.0
"""For a whole run beyond the limits of its cells, on a machine that is busy."""


@dataclass(frozen=True, kw_only=True)
class Bomb:
    """Code, and what the model must read of its end: a part for each backend."""

    name: str
    code: str
    python: str
    monty: str

    @property
    def limit_s(self) -> float:
        """A short limit only where it is to be reached."""
        return LIMIT_S if "CellTimeout" in self.python + self.monty else PATIENT_S

    def __str__(self) -> str:
        return self.name


TIME = {
    "python": "CellTimeout: the cell was stopped after 0.3 s of computing, its limit",
    "monty": "CellTimeout: the cell computed for more than 0.3 seconds and was stopped",
}
KILLED = {**TIME, "python": "CellTimeout: the cell did not stop at its limit of 0.3 s of computing"}
MEMORY = {
    "python": "MemoryError",
    "monty": "MemoryError: the cell needed more than 64 MiB of memory",
}
BOMBS = [
    Bomb(name="an endless loop", code="while True:\n    pass", **TIME),
    Bomb(
        name="an endless loop that swallows what it can",
        code="while True:\n    try:\n        while True:\n            pass\n"
        "    except BaseException:\n        pass",
        **KILLED,
    ),
    Bomb(name="an endless loop in C", code="sum(range(10 ** 13))", **KILLED),
    Bomb(
        name="a huge number",
        code="y = 10 ** 10 ** 8\nlen(str(y))",
        python=TIME["python"],
        monty="your variables are as before this code",  # time or memory, whichever ends first
    ),
    Bomb(
        name="a catastrophic pattern",
        code="import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')\nwhile True:\n    pass",
        **TIME,
    ),
    Bomb(
        name="a catastrophic pattern in the context",
        code="while True:\n    try:\n        ctx.find(r'(a+)+$', regex=True)\n"
        "    except TimeoutError:\n        pass",
        **TIME,
    ),
    Bomb(name="printing without end", code="while True:\n    print('spam ' * 1000)", **TIME),
    Bomb(
        name="a ramp of memory",
        code="y = []\nwhile True:\n    y.append('m' * 10_000_000 + str(len(y)))",
        **MEMORY,
    ),
    Bomb(name="a block of memory", code="y = 'm' * 10 ** 9", **MEMORY),
    Bomb(
        name="memory that doubles",
        code="y = [0]\nwhile True:\n    y += y",
        **MEMORY,
    ),
    Bomb(
        name="a recursion",
        code="def f(n):\n    return f(n + 1)\nf(0)",
        python="RecursionError",
        monty="RecursionError",
    ),
    Bomb(
        name="sleeping",
        code="import time\ntime.sleep(100)\nwhile True:\n    pass",
        **TIME,
    ),
    Bomb(
        name="processes",
        code="import os\nwhile True:\n    os.fork()",
        python="PermissionError",
        monty="AttributeError: module 'os' has no attribute 'fork'",
    ),
    Bomb(
        name="threads",
        code="import threading, time\n"
        "while True:\n    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()",
        python="RuntimeError: can't start new thread",
        monty="No module named 'threading'",
    ),
    Bomb(
        name="leaving",
        code="import os\nos._exit(3)",
        python="ReplDied: the process exited with code 3",
        monty="AttributeError: module 'os' has no attribute '_exit'",
    ),
    Bomb(
        name="open files",
        code="import os\nfiles = []\nwhile True:\n    files.append(os.open('/dev/null', 0))",
        python="OSError: [Errno 24] Too many open files",
        monty="AttributeError",
    ),
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effects.repls.python.GRACE_S", GRACE_S)


def went_on(
    bomb: str, backend: str, log: Path, limit_s: float = LIMIT_S
) -> tuple[RunResult, str, list[CodeExecuted]]:
    """A run with a bomb in its midst: its result, what the model was told of it, its cells."""
    script = ["x = 41", bomb, "x += 1\nprint('x is', x, llm_query('ping'))", "FINAL_VAR: x"]
    adapter = FakeAdapter(script=[f"```python\n{code}\n```" for code in script[:3]] + script[3:])
    adapter.add_rule("You are a sub-LLM", "pong")
    context = "a" * 60 + "b"
    limits = replace(LIMITS, cell_timeout_s=limit_s)
    result = run("q", context, adapter=adapter, repl_backend=backend, repl_limits=limits, log=log)
    opened = SqliteLog(log)
    try:
        events = [logged.event for logged in opened.load(result.run_id)]
    finally:
        opened.close()
    told = adapter.call_log[2][-1]["content"]
    return result, told, [event for event in events if isinstance(event, CodeExecuted)]


@BACKENDS
@pytest.mark.parametrize("bomb", BOMBS, ids=str)
def test_the_model_is_told_and_the_run_goes_on_with_its_variables(
    bomb: Bomb, backend: str, tmp_path: Path
) -> None:
    began_s = time.monotonic()
    result, told, cells = went_on(bomb.code, backend, tmp_path / "log", bomb.limit_s)
    assert time.monotonic() - began_s < LIMIT_S + GRACE_S + SLACK_S
    assert {"python": bomb.python, "monty": bomb.monty}[backend] in told
    assert "x is 42 pong" in cells[-1].stdout
    assert (result.status, result.output) == ("finished", "42")


@BACKENDS
def test_what_a_cell_printed_before_its_limit_is_shown_and_cut(
    backend: str, tmp_path: Path
) -> None:
    _, told, cells = went_on("while True:\n    print('spam ' * 1000)", backend, tmp_path / "log")
    assert told.count("spam") > 100
    assert len(cells[1].stdout) == LIMITS.output_chars
    assert cells[1].stdout_chars > LIMITS.output_chars


@BACKENDS
def test_the_model_is_not_told_that_variables_are_gone_which_are_there(
    backend: str, tmp_path: Path
) -> None:
    for bomb in ("while True:\n    pass", "sum(range(10 ** 13))"):
        _, told, _ = went_on(bomb, backend, tmp_path / f"log-{len(bomb)}")
        assert "gone" not in told, told


@BACKENDS
def test_waiting_for_the_model_is_not_computing(backend: str, tmp_path: Path) -> None:
    adapter = FakeAdapter(
        script=["```python\nx = llm_query('a') + llm_query('b')\n```", "FINAL_VAR: x"]
    )
    adapter.add_rule("You are a sub-LLM", "late", delay_s=LIMIT_S)
    result = run(
        "q", "P", adapter=adapter, repl_backend=backend, repl_limits=LIMITS, log=tmp_path / "log"
    )
    assert result.output == "latelate"


@BACKENDS
def test_nothing_of_a_bomb_is_left(backend: str, tmp_path: Path) -> None:
    before = set(own_children())
    went_on("import threading\nwhile True:\n    pass", backend, tmp_path / "log")
    assert comes_true(lambda: set(own_children()) <= before)
