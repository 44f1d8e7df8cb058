"""Runs workloads with the peer. A script, run by the peer's own interpreter; see `peer`.

    python peer_worker.py FOLDER

Reads jobs from stdin, one JSON object a line, and answers each with one line. Standard library
and pyrlm-runtime only: this project isn't installed there. FOLDER takes the peer's cache, which
is always on: each run gets an empty one.
"""

import gc
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

_MANY = 10**9
_peer: Any = importlib.import_module("pyrlm_runtime")
_adapters: Any = importlib.import_module("pyrlm_runtime.adapters")


class RootModel:
    """Answers at once."""

    def __init__(self, replies: list[str]) -> None:
        self.asked: list[float] = []
        """When it was asked."""
        self._replies = replies

    def complete(self, messages: Any, **options: Any) -> Any:
        """The next reply."""
        self.asked.append(time.perf_counter())
        return _adapters.ModelResponse(self._replies[len(self.asked) - 1], _adapters.Usage(1, 1, 2))


class SlowModel:
    """Answers a subcall after a fixed time."""

    def __init__(self, delay_s: float) -> None:
        self.calls: list[None] = []  # appending is safe in many threads, counting isn't
        self._delay_s = delay_s

    def complete(self, messages: Any, **options: Any) -> Any:
        """An answer, after the delay."""
        self.calls.append(None)
        time.sleep(self._delay_s)
        return _adapters.ModelResponse("ok", _adapters.Usage(1, 1, 2))


def about(job: dict[str, Any]) -> dict[str, Any]:
    """Who answers here."""
    return {"python": platform.python_version(), "peer": version("pyrlm-runtime")}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run a workload: how long it took, what it did, and its trace's size when asked for."""
    root, sub = RootModel(job["replies"]), SlowModel(job["subcall_s"])
    cache = tempfile.mkdtemp(dir=sys.argv[1])
    rlm = _peer.RLM(
        root,
        subcall_adapter=sub,
        policy=_peer.Policy(max_steps=_MANY, max_subcalls=_MANY),
        repl_backend=job["backend"],
        max_concurrent_subcalls=job["workers"],
        cache_dir=cache,
    )
    context = _peer.Context.from_text(job["context"])
    gc.collect()
    began = time.perf_counter()
    output, trace = rlm.run(job["query"], context)
    whole_s = time.perf_counter() - began
    shutil.rmtree(cache)
    return {
        "whole_s": whole_s,
        "turns_s": root.asked[-1] - root.asked[1],
        "did": [output, len(root.asked), len(sub.calls)],
        "trace_bytes": len(trace.to_json().encode()) if job["trace"] else None,
    }


def cells(job: dict[str, Any]) -> dict[str, Any]:
    """Run one cell again and again in one REPL: seconds of each."""
    if job["backend"] == "monty":
        repl = importlib.import_module("pyrlm_runtime.env_monty").MontyREPL()
    else:
        repl = _peer.PythonREPL()
    seconds: list[float] = []
    for _ in range(job["count"]):
        began = time.perf_counter()
        repl.exec(job["cell"])
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "about": about,
    "run": run,
    "cells": cells,
}


def main() -> None:
    """Answer jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what the peer prints must not be taken for an answer
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = JOBS[job["do"]](job)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
