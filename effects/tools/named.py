"""The tools of a run, from what its caller gave: each with a name of its own that code can use."""

import builtins
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from keyword import iskeyword
from typing import Any, cast

from effects.repls import _asking, _functions
from effects.repls._text import TextView
from effects.tools.declared import Tool, tool
from rlm_fsm.errors import UsageError
from rlm_fsm.ids import RunId
from rlm_fsm.toolspec import ToolSpec

ToolLike = Tool | Callable[..., Any]
_ALSO = (
    "P ctx context context_0 history answer SHOW_VARS SUBMIT FINAL FINAL_VAR done "
    "SubcallError SubcallLimitError ToolError ToolDenied asyncio"
)


def listed(given: Iterable[ToolLike]) -> list[ToolLike]:
    """The items of an argument ``tools``. `UsageError` for what is no list of functions."""
    if not isinstance(cast(object, given), Iterable) or isinstance(given, str | Mapping):
        raise UsageError(f"tools={given!r}: give a list of functions")
    return list(given)


def tools_of(given: Iterable[ToolLike]) -> dict[str, Tool]:
    """Tools by name. `UsageError` for what is no function, and for names that can't be used."""
    found: dict[str, Tool] = {}
    for item in given:
        made = item if isinstance(item, Tool) else tool(item)
        check_name(made.name)
        if made.name in found:
            raise UsageError(
                f"two tools are named {made.name}: give one of them tool(fn, name=...)"
            )
        found[made.name] = made
    return found


def check_name(name: str) -> None:
    """`UsageError` unless code can call a tool by this name without losing another one."""
    why = None
    if not name.isidentifier() or iskeyword(name):
        why = "is no name that code can use"
    elif name.startswith("_"):
        why = "begins with an underscore: such names are the runtime's"
    elif name in own_names():
        why = "is a name of the runtime's own"
    elif hasattr(builtins, name):
        why = "is a name of Python's own"
    if why is not None:
        raise UsageError(f"the tool name {name!r} {why}: give another one, tool(fn, name=...)")


@cache
def own_names() -> frozenset[str]:
    """Every name that the runtime binds in a session."""
    view = TextView("")
    asking = _asking.programs(view, parallel_subcalls=False, styles=_functions.RAISE, tools=())
    return frozenset({*asking, *_functions.plain(view), *_ALSO.split()})


def given_again(
    run_id: RunId, recorded: tuple[ToolSpec, ...], given: Mapping[str, Tool]
) -> list[Tool]:
    """The tools of a run that exists, from those that were given to go on with it; others aren't
    offered. `UsageError` for one that is missing, or takes other parameters."""
    missing = [spec.name for spec in recorded if spec.name not in given]
    if missing:
        one = len(missing) == 1
        raise UsageError(
            f"run {run_id} has the tool{'' if one else 's'} {', '.join(missing)}, which the log "
            "can't hold: pass the same functions again as tools="
        )
    for spec in recorded:
        now = given[spec.name].spec
        if now.parameters != spec.parameters:
            raise UsageError(
                f"the tool {spec.name} takes {now.signature}, and run {run_id} was begun with "
                f"{spec.signature}: its code relies on that"
            )
    return [given[spec.name] for spec in recorded]
