"""The peer, pyrlm-runtime, in a virtual environment of its own.

It pins a pydantic-monty that this project can't use, so it can't be installed beside it. The
environment is made on first use, in ``benchmarks/.peer``, from the group ``bench`` of
``pyproject.toml``, and made anew when that group or the interpreter changes.

A worker process (`peer_worker`) is kept open and given one job after the other, so that runs of
the peer and of this project can take turns.
"""

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from benchmarks.workload import ANSWER, QUERY, Timing, Workload

GROUP = "bench"
LEAST_PYTHON = (3, 12)
"""What the peer needs."""
PIP = "pip>=25.1"
"""The first one that knows ``--group``."""
_NAMES = ("python3.13", "python3.12")
_HERE = Path(__file__).resolve().parent
_PROJECT = _HERE.parent / "pyproject.toml"
_FOLDER = _HERE / ".peer"
_MARK = _FOLDER / "made-from.json"
_WHICH = "import sys; print(*sys.version_info[:2]); print(sys.executable)"


class PeerUnavailable(Exception):
    """There is no peer here; the message says why."""


class Peer:
    """A process that runs workloads with the peer. A context manager: leaving it ends it."""

    def __init__(self, python: Path, folder: Path) -> None:
        """Start it. `folder` takes the peer's caches. Raises `PeerUnavailable`."""
        self._process = subprocess.Popen(
            [str(python), "-I", str(_HERE / "peer_worker.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=folder,
        )
        try:
            told = self.ask({"do": "about"})
        except RuntimeError as error:
            self.close()
            raise PeerUnavailable(f"the peer does not start: {error}") from error
        self.python: str = told["python"]
        """Version of its Python."""
        self.version: str = told["peer"]

    def run(self, workload: Workload) -> Timing:
        """Run a workload. Raises `RuntimeError` when the run did something else."""
        answer = self._run(workload, trace=False)
        return Timing(whole_s=answer["whole_s"], turns_s=answer["turns_s"])

    def trace_bytes(self, workload: Workload) -> int:
        """Run a workload; size of its trace as JSON."""
        size: int = self._run(workload, trace=True)["trace_bytes"]
        return size

    def cells(self, backend: str, cell: str, count: int) -> list[float]:
        """Run one cell `count` times in one REPL; seconds of each."""
        job = {"do": "cells", "backend": backend, "cell": cell, "count": count}
        seconds: list[float] = self.ask(job)["seconds"]
        return seconds

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do a job. Raises `RuntimeError` with what the peer says when it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer says it
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer's process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the peer failed at {job['do']!r}: {answer['error']}")
        return answer

    def _run(self, workload: Workload, *, trace: bool) -> dict[str, Any]:
        replies = [workload.reply(number) for number in range(workload.turns + 2)]
        job = {"do": "run", "query": QUERY, "replies": replies, "trace": trace}
        answer = self.ask({**job, **asdict(workload)})
        if answer["did"] != [ANSWER, len(replies), workload.subcalls]:
            raise RuntimeError(f"the peer did something else: {answer['did']}")
        return answer

    def close(self) -> None:
        """End the process. Safe to call twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def environment(wanted: str | None = None) -> Path:
    """The Python of the peer's environment, which is made if need be.

    `wanted` is the interpreter to make it with. Raises `PeerUnavailable`.
    """
    python, group, made = _FOLDER / "bin" / "python", _group(), _made()
    running = sys.version_info[:2]
    if made is not None and wanted is None and made["group"] == group and running < LEAST_PYTHON:
        return python  # this Python could not make it, and need not
    base, number = _interpreter(wanted)
    wants = {"python": str(base), "version": number, "group": group}
    if made == wants:
        return python
    print(f"making the peer's environment in {_FOLDER} (once) ...", file=sys.stderr, flush=True)
    _do([str(base), "-m", "venv", "--clear", str(_FOLDER)])
    _do([str(python), "-m", "pip", "install", "--quiet", PIP])
    _do([str(python), "-m", "pip", "install", "--quiet", "--group", f"{_PROJECT}:{GROUP}"])
    _MARK.write_text(json.dumps(wants), "utf-8")
    return python


def _made() -> dict[str, Any] | None:
    """What the environment that is there was made from; None when there is no whole one."""
    if not (_FOLDER / "bin" / "python").exists():
        return None
    try:
        made: dict[str, Any] = json.loads(_MARK.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return made


def _group() -> list[str]:
    try:
        project = tomllib.loads(_PROJECT.read_text("utf-8"))
        group: list[str] = project["dependency-groups"][GROUP]
    except (OSError, KeyError) as error:
        raise PeerUnavailable(
            f"{_PROJECT} has no dependency group {GROUP!r}: run this from a checkout"
        ) from error
    return group


def _interpreter(wanted: str | None) -> tuple[Path, list[int]]:
    """A Python that the peer can use: the one asked for, this one, or the newest on the path."""
    if wanted is None and sys.version_info[:2] >= LEAST_PYTHON:
        return Path(sys.executable), list(sys.version_info[:2])
    for candidate in _on_path() if wanted is None else [wanted]:
        found = _tried(candidate)
        if found is not None:
            return found
    least = ".".join(map(str, LEAST_PYTHON))
    where = f"{wanted} is none" if wanted else f"none of {', '.join(_NAMES)} on the path works"
    raise PeerUnavailable(
        f"the peer needs Python {least} or newer, and {where}: give one with --peer-python"
    )


def _on_path() -> list[str]:
    """Every file with a name of a Python, newest first. Some may be mere shims."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = [os.path.join(folder, name) for name in _NAMES for folder in folders if folder]
    return [path for path in paths if os.access(path, os.X_OK)]


def _tried(candidate: str) -> tuple[Path, list[int]] | None:
    """Where an interpreter really is, and its version; None if it is too old or doesn't run."""
    try:
        done = subprocess.run(
            [candidate, "-I", "-c", _WHICH], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    version, executable = done.stdout.splitlines()
    number = [int(part) for part in version.split()]
    return (Path(executable), number) if tuple(number) >= LEAST_PYTHON else None


def _do(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise PeerUnavailable(f"the peer's environment can't be made: {error}") from error
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise PeerUnavailable(
            f"the peer's environment can't be made: {' '.join(command[1:])}\n{last}"
        )
