"""The sandbox that a run's sessions will have: found out before the run begins, and recorded.

The `python` backend is asked by starting a session, once for each program; `monty` has the same on
every machine; of a backend of the caller's own nothing is known.
"""

import sys

from effects.context import Context
from effects.repls.base import NEEDS_LINUX, ReplLimits, ReplSettings, ReplUnavailable
from effects.sandbox.report import MONTY, Report
from rlm_fsm.errors import UsageError


async def report(backend: object, limits: ReplLimits) -> Report | None:
    """What is known of a backend's sandbox. Raises `ReplUnavailable` when no session starts."""
    if backend == "monty":
        return MONTY
    if backend != "python":
        return None
    if sys.platform != "linux":
        raise ReplUnavailable(NEEDS_LINUX)
    from effects.repls import _isolation
    from effects.repls.python import PythonRepl

    settings = ReplSettings(limits=ReplLimits(scratch_bytes=limits.scratch_bytes))
    found = _isolation.known(settings)
    if found is None:
        repl = PythonRepl(Context.from_text(""), settings)
        try:
            await repl.open()
            found = repl.report
        finally:
            await repl.close()
    return found


async def checked(backend: object, limits: ReplLimits) -> dict[str, str]:
    """The sandbox, for the record of a run that is about to begin.

    Raises `UsageError` when ``isolation="strict"`` asks for more than this machine gives.
    """
    strict = limits.isolation == "strict"
    try:
        found = await report(backend, limits)
    except ReplUnavailable:
        if strict:
            raise
        return {}  # the run's own session will say the same, and how to go on
    if found is None:
        return {}
    refusal = found.refusal() if strict else None
    if refusal is not None:
        raise UsageError(refusal)
    return found.environment()
