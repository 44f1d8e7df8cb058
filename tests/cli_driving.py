"""What the tests of the command line share: a model behind HTTP, a program in a process."""

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback import ChatServer, Respond

from effects.cli import main
from effects.log import SqliteLog
from rlm_fsm import FakeAdapter, run
from rlm_fsm.event import Event
from rlm_fsm.ids import RunId

ROOT_DIR = Path(__file__).parent.parent
KEY = "sk-secret-1234567890"
LOOK = "I look first.\n```python\nprint(peek(40))\n```"
CODE = "```python\nprint(1)\n```"
ANSWER = "FINAL: forty-two"
PROGRAM = (sys.executable, "-m", "rlm_fsm")


def set_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log and the key of a user's environment; the path of the log."""
    path = folder / "log.sqlite"
    monkeypatch.setenv("RLM_FSM_LOG", str(path))
    monkeypatch.setenv("LLM_API_KEY", KEY)
    return path


def make_folder(parent: Path) -> Path:
    """A folder with two texts and a file that is none."""
    path = parent / "notes"
    path.mkdir()
    (path / "a.txt").write_text("alpha")
    (path / "b.txt").write_text("beta")
    (path / "picture.bin").write_bytes(b"\0\1\2")
    return path


def type_in(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Put a text on standard input, which is no terminal then."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def ask(server: ChatServer, *arguments: str) -> int:
    """``rlm-fsm run`` against a server; the exit code."""
    return main(["run", *arguments, "--model", "m", "--base-url", server.base_url])


def recorded_run(log: Path, query: str = "What?") -> str:
    """A run with a batch of subcalls and an error, made by the library; its id."""
    code = "replies = llm_batch(['one ' + P, 'two ' + P])\nprint(replies)\n1 / 0"
    script = [f"I ask.\n```python\n{code}\n```", "FINAL: done"]
    adapter = FakeAdapter(script, model="root")
    sub = FakeAdapter(["first", "second"], model="sub")
    return run(query, "the text", adapter=adapter, subcall_adapter=sub, log=log).run_id


def scripted(
    replies: Iterable[str | Respond], *, sub: str | Respond = "a sub-answer"
) -> ChatServer:
    """A model that answers its root turns in order, the last for ever, and every subcall alike."""
    turns = list(replies)

    def reply(messages: list[dict[str, str]]) -> str | Respond:
        if messages[0]["content"].startswith("You are a sub-LLM"):
            return sub
        return turns[min(sum(m["role"] == "assistant" for m in messages), len(turns) - 1)]

    return ChatServer(reply, key=KEY)


def environment(log: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program: this one, a log and a key."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "RLM_FSM_LOG": str(log), "LLM_API_KEY": KEY, "TERM": "xterm", **(extra or {})}


@contextmanager
def running(code: str, *arguments: str, log: Path) -> Generator["subprocess.Popen[str]"]:
    """A program of Python code in a process of its own, which doesn't outlive the test."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT_DIR,
        env=environment(log),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def start(
    *arguments: str, log: Path, extra: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """The program, its streams as pipes."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT_DIR,
        env=environment(log, extra),
    )


def on_terminal(*arguments: str, log: Path, extra: Mapping[str, str] | None = None) -> str:
    """All that the program writes to a terminal of 80 columns, its control characters included."""
    ours, theirs = pty.openpty()
    sized = {"COLUMNS": "80", "LINES": "24", **(extra or {})}
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT_DIR,
        env=environment(log, sized),
    ) as process:
        os.close(theirs)
        written, end = b"", time.monotonic() + 60
        try:
            while time.monotonic() < end:
                if select.select([ours], [], [], 1)[0]:
                    written += os.read(ours, 65_536)
        except OSError:
            pass  # how a terminal whose program has ended says so on Linux
        finally:
            os.close(ours)
            process.kill()
    return written.decode()


def recorded(log: Path, run_id: str) -> list[Event]:
    """The events of a run, checked."""
    with SqliteLog(log) as opened:
        return [logged.event for logged in opened.load(RunId(run_id))]


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for another process."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
