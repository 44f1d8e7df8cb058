"""`repl_extensions` and `doc_tools`: functions by name, for programs that were written so.

They are tools like any other. A session runs in a process of its own, or in a sandbox that has no
CPython, so an object of the caller's program can't be put into it: what code calls under the name
is the function on the host, with plain data going there and back.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from effects.tools.declared import Tool, tool
from rlm_fsm.errors import UsageError

Extensions = Callable[..., Mapping[str, Callable[..., Any]] | None]
"""Called with ``rlm=``, ``repl=``, ``retriever=`` and ``log_diag=``; gives functions by name.
``rlm`` is the `RLM` whose runs will have them, and None where `rlm_fsm.resume` or `fork` goes on
without one. ``repl`` is None: the session lives in another process. ``log_diag`` notes a label, and
whatever else it is given, with the logger, as debugging."""


def extensions_of(
    repl_extensions: Extensions | None,
    doc_tools: Mapping[str, Callable[..., Any]] | None,
    *,
    rlm: object,
    logger: logging.Logger,
) -> list[Tool]:
    """The tools that both make. `UsageError` for what isn't a function."""
    found: list[Tool] = []
    if repl_extensions is not None:
        if not callable(cast(object, repl_extensions)):
            raise UsageError(f"repl_extensions={repl_extensions!r}: give a function, see the docs")
        log_diag = partial(_log_diag, logger)
        given = repl_extensions(rlm=rlm, repl=None, retriever=None, log_diag=log_diag)
        found += _named("repl_extensions", {} if given is None else given)
    if doc_tools is not None:
        found += _named("doc_tools", doc_tools)
    return found


def _log_diag(logger: logging.Logger, label: object, *details: object) -> None:
    logger.debug(" ".join(["%s"] * (1 + len(details))), label, *details)


def _named(origin: str, given: object) -> list[Tool]:
    if not isinstance(given, Mapping):
        raise UsageError(f"{origin} gave {type(given).__name__}: it must be functions by name")
    found: list[Tool] = []
    for name, value in cast(Mapping[object, object], given).items():
        if not isinstance(name, str) or not callable(value):
            raise UsageError(
                f"{origin}: {name!r} is {type(value).__name__}, no function: code runs in another "
                "process, which can't have the value; give a function that returns it"
            )
        if isinstance(value, Tool):
            found.append(replace(value, name=name))
        else:
            found.append(tool(value, name=name))
    return found
