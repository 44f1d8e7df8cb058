"""``--tools MODULE:NAME``: functions of Python modules, for code to call."""

import importlib
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from effects.commands.options import Option
from rlm_fsm.errors import UsageError

TOOLS = Option(
    name="tools",
    metavar="MODULE:NAME",
    convert=lambda text: [part.strip() for part in text.split(",") if part.strip()],
    help="functions that code may call: a function of a Python module, or a list of functions or "
    "tools, as in mytools:TOOLS; several with commas. The current directory is searched too",
)


def tools_given(arguments: Namespace) -> dict[str, Any]:
    """The tools that were given, by the name of `RLM`'s argument. `UsageError` for what can't be
    found."""
    found: list[Any] = []
    for item in arguments.tools or ():
        value = _found(item)
        found += value if _is_list(value) else [value]
    return {"tools": found} if found else {}


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | Mapping)


def _found(item: str) -> Any:
    module, _, name = item.partition(":")
    if not module or not name:
        raise UsageError(f"--tools {item}: give MODULE:NAME, such as mytools:TOOLS")
    _search_here(item)
    try:
        value = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--tools {item}: the module can't be imported: {type(error).__name__}: {error}"
        ) from None
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise UsageError(f"--tools {item}: {module} has no {name}") from None
    return value


def _search_here(item: str) -> None:
    try:
        here = str(Path.cwd())
    except OSError as error:
        raise UsageError(
            f"--tools {item}: the current directory can't be searched: {error.strerror}"
        ) from None
    if here not in sys.path:
        sys.path.append(here)
