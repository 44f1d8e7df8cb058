"""Ctrl-C and SIGTERM on the command line, several of them one behind the other."""

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_driving import KEY, ROOT_DIR, start, wait_until
from loopback import ChatServer, Respond, chat

from rlm_fsm import SqliteLog, runs

ASKS = "```python\nr = llm_batch([str(n) for n in range(12)])\nprint(r)\n```"
TRIES = 6
"""How often a race is run: before there was one handler, three of five tries failed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def reply(messages: list[dict[str, str]]) -> Respond:
    """Subcalls that never seem to end, in a batch, each quickly answered."""
    said = ASKS
    if messages[0]["content"].startswith("You are a sub-LLM"):
        said = "fine"
    return chat(said, delay_s=0.03)


@contextmanager
def model() -> Generator[tuple[ChatServer, list[str]]]:
    """A server, and the options that name it."""
    with ChatServer(reply, key=KEY) as server:
        yield server, ["--model", "m", "--base-url", server.base_url, "--concurrency", "1"]


def interrupt(
    process: "subprocess.Popen[str]", server: ChatServer, number: int, pause_s: float
) -> str:
    """Send a signal twice when subcalls are being made; what is told on stderr."""
    before = len(server.requests)
    wait_until(lambda: len(server.requests) > before + 3)
    process.send_signal(number)
    time.sleep(pause_s)
    process.send_signal(number)
    try:
        return process.communicate(timeout=20)[1]
    finally:
        process.kill()


def check(process: "subprocess.Popen[str]", err: str, log: Path) -> None:
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert {info.status for info in runs(log)} == {"cancelled"}
    with SqliteLog(log) as opened:
        assert {check.problem for check in opened.verify()} == {None}


@pytest.mark.parametrize("number", SIGNALS)
def test_two_signals_close_together_cancel_a_run_once(number: int, log: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("alpha")
    with model() as (server, options):
        for pause_s in (0, 0.0001, 0.01) * (TRIES // 3):
            with start("run", "What?", str(text), *options, log=log) as process:
                err = interrupt(process, server, number, pause_s)
            check(process, err, log)
            assert f"rlm-fsm resume {runs(log)[0].run_id}" in err


@pytest.mark.parametrize("command", [["resume", "last"], ["fork", "last", "--at", "1"]])
def test_two_signals_cancel_a_run_that_goes_on_once(command: list[str], log: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("alpha")
    with model() as (server, options):
        with start("run", "What?", str(text), *options, log=log) as process:
            err = interrupt(process, server, signal.SIGINT, 0)
        check(process, err, log)
        for pause_s in (0, 0.0001, 0.01):
            with start(*command, *options[:4], log=log) as process:
                err = interrupt(process, server, signal.SIGINT, pause_s)
            check(process, err, log)


@pytest.mark.parametrize("number", SIGNALS)
def test_two_signals_close_together_cancel_a_batch_once(number: int, log: Path, tmp_path: Path):
    jobs = tmp_path / "jobs.jsonl"
    rows = [{"query": "What?", "id": str(n), "context": f"text {n}"} for n in range(8)]
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with model() as (server, options):
        for n, pause_s in enumerate((0, 0.002, 0.01)):
            batch = ("--batch", f"b{n}")
            with start("many", str(jobs), *batch, *options, log=log) as process:
                err = interrupt(process, server, number, pause_s)
            check(process, err, log)
            assert "cancelled: 0 of 8 jobs" in err


def test_two_signals_cancel_the_demo_once(log: Path):
    for pause_s in (0, 0.0001, 0.01):
        known = len(runs(log)) if log.exists() else 0
        with start("demo", "--size", "0.1", log=log) as process:
            wait_until(lambda: log.exists() and len(runs(log)) > known)  # noqa: B023
            process.send_signal(signal.SIGINT)
            time.sleep(pause_s)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        check(process, err, log)


def test_a_signal_while_the_program_goes_away_does_not_change_how_it_ends(
    log: Path, tmp_path: Path
):
    text = tmp_path / "text.txt"
    text.write_text("alpha")
    with model() as (server, options):
        for number in SIGNALS:
            with start("run", "What?", str(text), *options, log=log) as process:
                before = len(server.requests)
                wait_until(lambda: len(server.requests) > before + 3)  # noqa: B023
                process.send_signal(number)
                assert process.stderr is not None
                assert any("cancelled" in line for line in process.stderr)
                while process.poll() is None:
                    process.send_signal(number)
                    time.sleep(0.001)
            assert process.returncode == 130


LOADED = """
import os, signal, sys

interrupted = sys.argv[1]

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from {module} import {name} as main
sys.argv[1:] = ["--version"]
sys.exit(main())
"""


@pytest.mark.parametrize("imported", ["rlm_fsm", "rlm_fsm.reducer", "effects.cli", "argparse"])
def test_ctrl_c_while_the_program_is_loaded_is_no_traceback(imported: str):
    project = tomllib.loads((ROOT_DIR / "pyproject.toml").read_text())["project"]
    module, name = project["scripts"]["rlm-fsm"].split(":")
    program = LOADED.format(module=module, name=name)
    done = subprocess.run(
        [sys.executable, "-c", program, imported],
        capture_output=True,
        text=True,
        cwd=ROOT_DIR,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
