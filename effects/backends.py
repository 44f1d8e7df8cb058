"""What opens the sessions of a run: a backend by its name, or a function of one's own."""

import sys
from collections.abc import Callable

from effects.context import Context
from effects.repls.base import NEEDS_LINUX, Repl, ReplLimits, ReplSettings
from rlm_fsm.errors import UsageError
from rlm_fsm.options import Options

ReplFactory = Callable[[Context], Repl]
"""Makes a session over a context, which is not open yet."""


def repl_factory(
    backend: str | ReplFactory, limits: ReplLimits, options: Options, seed: str = ""
) -> ReplFactory:
    """What opens the sessions of a run. `seed` is that of its first event."""
    settings = ReplSettings(
        limits=limits,
        parallel_subcalls=options.parallel_subcalls,
        subcall_error=options.profile.subcall_error,
        batch_error=options.profile.batch_error,
        variables=options.profile.variables,
        tools=options.tools,
        seed=seed,
        asks_clock=options.rules >= 2,
    )
    match backend:
        case "python":
            if sys.platform != "linux":
                raise UsageError(NEEDS_LINUX)
            from effects.repls.python import PythonRepl

            return lambda context: PythonRepl(context, settings)
        case "monty":
            from effects.repls.monty import MontyRepl

            return lambda context: MontyRepl(context, settings)
        case str():
            raise UsageError(f"repl_backend={backend!r}: choose 'python' or 'monty'")
        case _ if callable(backend):
            return backend
        case _:
            raise UsageError(
                f"repl_backend={backend!r}: pass 'python', 'monty', or a function from a Context "
                "to a Repl"
            )
