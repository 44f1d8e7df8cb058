"""Whole recorded runs through the whole machine: the recorded replies, in order, give the recorded
outputs and the recorded answers, in both backends, and the log of it replays.

Two things are ours and not the recorded runtime's. A cell that ends in an expression shows its
value here. And names that the recorded runtime bound are bound by a reply before the first one.
"""

import ast
import gzip
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from agreement import FOLDER, PROFILES_OF, recorded_runs

from rlm_fsm import FakeAdapter, Policy, RunResult, SqliteLog, replay, run
from rlm_fsm.event import CodeExecuted

RUNS = [run for run in recorded_runs() if run["id"] < 22]
"""The runs whose outputs were recorded."""

NAMES = "completion_context = session_context_0 = context\n"
BEFORE = {
    **dict.fromkeys((16, 17, 18, 20), NAMES),
    # The recorded session went on from run 20.
    21: NAMES + "x = 500\n",
}
"""What the recorded runtime had at hand, by run."""

TURNS = {3: 6}
"""Where the recorded run was out of turns."""


def quotes(text: str) -> str:
    """The quotes of a text in ``FINAL(...)`` are taken off."""
    return text.strip('"')


def order(text: str) -> str:
    """The code prints a set of texts: each process has an order of its own."""
    return " ".join(sorted(re.findall(r"\w+", text)))


def number(text: str) -> str:
    """The code draws a random number."""
    return re.sub(r"\d+", "N", text)


DIFFERENCES: dict[int, Callable[[str], str]] = {7: order, 17: number, 18: quotes, 19: quotes}
"""Runs that come out otherwise, with what makes them equal: its docstring is the reason."""


@pytest.mark.parametrize("backend", ["python", "monty"])
@pytest.mark.parametrize("recorded", RUNS, ids=lambda recorded: str(recorded["id"]))
def test_a_recorded_run_comes_out_as_recorded(
    recorded: dict[str, Any], backend: str, tmp_path: Path
) -> None:
    log = tmp_path / "log.db"
    result = again(recorded, backend, log)
    same = DIFFERENCES.get(recorded["id"], str)
    assert same(result.output) == same(recorded["final"])
    assert result.status == ("partial" if recorded["id"] in TURNS else "finished")
    if same is quotes:
        assert result.output != recorded["final"], "no longer different: take it off the list"

    cells = executed(log, result.run_id)[recorded["id"] in BEFORE :]
    expected = outputs(recorded)
    assert len(cells) == len(expected)
    codes = [code for turn in recorded["turns"] for code in turn["executed"]]
    for code, cell, (stdout, error) in zip(codes, cells, expected, strict=True):
        said = cell.stdout if same(cell.stdout) == same(stdout) else without_echo(code, cell.stdout)
        assert same(said) == same(stdout)
        assert (cell.error and f"\n{cell.error.kind}: {cell.error.message}") == (error or None)

    replayed = replay(result.run_id, log=str(log), run_code=True)
    assert (replayed.output, replayed.status) == (result.output, result.status)


def again(recorded: dict[str, Any], backend: str, log: Path) -> RunResult:
    """The run, with the recorded replies for a model. All of them are asked for."""
    script = [turn["reply"] for turn in recorded["turns"]]
    if recorded["id"] in BEFORE:
        script.insert(0, f"```repl\n{BEFORE[recorded['id']]}```")
    adapter = FakeAdapter(script=script)
    result = run(
        recorded["query"],
        contexts().get(recorded["id"], recorded["query"]),
        adapter=adapter,
        profile=PROFILES_OF[recorded["dialect"]],
        repl_backend=backend,
        log=str(log),
        policy=Policy(max_steps=TURNS.get(recorded["id"], 40)),
    )
    assert not adapter.script, "the run ended too early"
    return result


def executed(log: Path, run_id: str) -> list[CodeExecuted]:
    """The cells of the run, as its log has them."""
    opened = SqliteLog(log)
    try:
        events = [logged.event for logged in opened.load(run_id)]
    finally:
        opened.close()
    return [event for event in events if isinstance(event, CodeExecuted)]


def without_echo(code: str, stdout: str) -> str:
    """What a cell printed, without the value of the expression that it ends in."""
    *_, last = ast.parse(code).body
    assert isinstance(last, ast.Expr), "only an expression is shown"
    # The expressions at the end of the recorded cells fit into a line.
    return stdout[: stdout.rstrip("\n").rfind("\n") + 1]


@cache
def recorded_cells() -> dict[int, dict[str, Any]]:
    """The recorded cells of each run, with its context where that was recorded."""
    with gzip.open(FOLDER / "cells.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {row["id"]: row for row in map(json.loads, lines)}


def contexts() -> dict[int, str]:
    """The recorded contexts; runs 16 to 21 had their question for one."""
    return {number: row["context"] for number, row in recorded_cells().items() if "context" in row}


def outputs(recorded: dict[str, Any]) -> list[tuple[str, str]]:
    """What the recorded cells printed, and the end of their errors."""
    if recorded["id"] < 16:
        cells = recorded_cells()[recorded["id"]]["cells"]
        return [(cell["stdout"], cell["stderr"]) for cell in cells]
    return [(stdout, "") for turn in recorded["turns"] for stdout in turn["stdouts"]]
