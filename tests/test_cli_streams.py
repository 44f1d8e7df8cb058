"""The command line where standard streams are closed, full, or of a poor encoding; many Ctrl-C."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_driving import (
    ANSWER,
    CODE,
    KEY,
    PROGRAM,
    ROOT_DIR,
    environment,
    make_folder,
    recorded_run,
    scripted,
    start,
)
from loopback import ChatServer, Respond

from rlm_fsm import SqliteLog, runs

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def shell(
    redirected: str, *arguments: str, log: Path, **extra: str
) -> subprocess.CompletedProcess[str]:
    """The program, started by a shell that redirects its streams."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT_DIR,
        env=environment(log, extra),
        timeout=60,
    )


@pytest.mark.parametrize("command", [["runs"], ["show", "last"], ["events", "last"], ["--help"]])
def test_a_closed_stdout_is_no_fault(command: list[str], log: Path):
    recorded_run(log)
    done = shell(">&-", *command, log=log)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_full
@pytest.mark.parametrize("command", [["runs"], ["show", "last"], ["events", "last"], ["--help"]])
def test_a_full_disk_is_told_and_fails(command: list[str], log: Path):
    recorded_run(log)
    done = shell(f">{FULL}", *command, log=log)
    assert done.returncode == 1
    assert done.stderr.startswith("rlm-fsm: standard output can't be written: No space left")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("where", ["2>&-", pytest.param(f"2>{FULL}", marks=needs_full)])
def test_a_run_is_answered_though_nothing_can_be_told(where: str, log: Path, tmp_path: Path):
    folder = make_folder(tmp_path)
    with scripted([CODE, ANSWER]) as server:
        model = ("--model", "m", "--base-url", server.base_url)
        done = shell(where, "run", "What?", str(folder), *model, log=log)
    assert (done.returncode, done.stdout) == (0, "forty-two\n")
    assert runs(log)[0].status == "finished"
    with SqliteLog(log) as opened:
        assert [check.problem for check in opened.verify()] == [None]


def test_a_closed_stdin_is_no_text(log: Path):
    done = shell("<&-", "run", "What?", "--model", "ollama:m", log=log)
    assert done.returncode == 2
    assert done.stderr.startswith("rlm-fsm: standard input is empty")
    assert not log.exists()


@pytest.mark.parametrize("command", [["runs"], ["show", "last"], ["events", "last"]])
def test_what_an_encoding_lacks_is_escaped(command: list[str], log: Path):
    recorded_run(log, "What does “é” mean in 日本語?")
    done = shell("", *command, log=log, PYTHONIOENCODING="latin-1", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u65e5" in done.stdout


def test_interrupts_after_the_first_do_not_hide_which_run_it_was(log: Path, tmp_path: Path):
    folder, reached = make_folder(tmp_path), threading.Event()
    asks = "```python\nllm_batch([str(n) for n in range(6)])\n```"

    def slow(messages: Any) -> str | Respond:
        if messages[0]["content"].startswith("You are a sub-LLM"):
            reached.set()
            return Respond(delay_s=60)
        return asks

    with ChatServer(slow, key=KEY) as server:
        model = ("--model", "m", "--base-url", server.base_url)
        with start("run", "What?", str(folder), *model, log=log) as process:
            assert reached.wait(30)
            process.send_signal(signal.SIGINT)
            # More of them, one behind the other, until the program is gone.
            while process.poll() is None:
                os.kill(process.pid, signal.SIGINT)
                try:
                    process.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue
            _, err = process.communicate(timeout=30)
    (info,) = runs(log)
    assert "nothing was started" not in err
    assert f"rlm-fsm resume {info.run_id}" in err
    assert info.status in ("cancelled", "running")
