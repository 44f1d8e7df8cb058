"""The real host: each request is a session of a backend, driven as the interpreter drives it.

ESCAPE_SECRET=... python host.py SETTINGS COMMAND_LINE_SECRET
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

from repl_driving import answer_all

from effects.repls import python
from effects.repls.base import Repl, ReplLimits, ReplSettings
from effects.repls.monty import MontyRepl
from effects.repls.python import PythonRepl
from effects.sandbox.report import MONTY
from escape.hosting import CONTEXT, PROBE, PROBED, HostState, serve

OUTPUT_CHARS = 100_000
MEMORY_BYTES = 96 << 20
GRACE_S = 0.3
"""Shorter than what ships, so that the whole corpus takes a minute."""


def main() -> None:
    """Serve."""
    global ADAPTER
    state = HostState(json.loads(sys.argv[1]))
    ADAPTER = state.adapter
    python.GRACE_S = GRACE_S
    serve(lambda request: asyncio.run(attempt(state, request)))


async def attempt(state: HostState, request: dict[str, Any]) -> dict[str, Any]:
    """Run a payload, then see whether the session, or else a new one, still works."""
    repl = session(request)
    try:
        await repl.open()
        report = repl.report if isinstance(repl, PythonRepl) else MONTY
        assert report is not None
        began_s = time.monotonic()
        result = await answer_all(repl, request["told"] + state.told(os.getpid()) + request["code"])
        took_s = time.monotonic() - began_s
        # The first of them is told that its session is gone, where it is.
        probes = [(await answer_all(repl, PROBE)).stdout for _ in range(2)]
    finally:
        await repl.close()
    fresh = session(request)
    try:
        probes.append((await answer_all(fresh, PROBE)).stdout if PROBED not in probes else "")
    finally:
        await fresh.close()
    return {
        "out": result.stdout,
        "error": str(result.error or ""),
        "took_s": took_s,
        "probes": probes,
        "works": PROBED in probes,
        "meddled": state.meddled(),
        "active": [*report.active, *report.closed],
    }


def session(request: dict[str, Any]) -> Repl:
    """A new session of the backend that is asked for."""
    limits = ReplLimits(
        cell_timeout_s=request["limit_s"], memory_bytes=MEMORY_BYTES, output_chars=OUTPUT_CHARS
    )
    settings = ReplSettings(limits=limits)
    backend = {"python": PythonRepl, "monty": MontyRepl}[request["backend"]]
    return backend(CONTEXT, settings)


if __name__ == "__main__":
    main()
