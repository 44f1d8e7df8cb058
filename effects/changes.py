"""The options of a run that goes on: those that it had, and what its caller changes.

`fork` takes options by the names and in the forms in which `RLM` takes them; here they become what
a log records of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from effects.arguments import check_code, check_objects, patterns_of
from effects.prices import check_cost_limit, prices_again
from effects.tools import Toolbox
from effects.tools.named import given_again
from effects.windows import compacting, share_of
from rlm_fsm.errors import UsageError
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options
from rlm_fsm.price import Price
from rlm_fsm.profiles import profile_of

_NO_ARGUMENTS = {
    "answer_schema": "a run's log has the schema of a type: give the type, as output_type=",
    "rules": "this is no argument: a run keeps the rules that it began with",
}
_RECORDED: dict[str, Callable[[Any], Any]] = {
    "auto_finalize_reject_patterns": patterns_of,
    "compaction": share_of,
}
"""How a log records what is given in another form."""


def changes_of(given: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The options that `fork` was given, as a log records them. `model` is the root's.

    Raises `TypeError` for a name that no option has, and `UsageError` for what can't be changed.
    """
    unknown = sorted(given.keys() - {field.name for field in fields(Options)})
    if unknown:
        raise TypeError(f"fork() has no option {', '.join(unknown)}")
    for name in sorted(given.keys() & _NO_ARGUMENTS.keys()):
        raise UsageError(f"{name}={given[name]!r}: {_NO_ARGUMENTS[name]}")
    check_objects(policy=given.get("policy"), profile=given.get("profile"))
    check_code("fallback_code", given.get("fallback_code"))
    changes = {name: _RECORDED.get(name, _as_it_is)(value) for name, value in given.items()}
    if "profile" in changes:
        changes["profile"] = profile_of(changes["profile"], model)
    return changes


def options_now(
    before: Options,
    changes: Mapping[str, Any],
    adapters: Mapping[str, Any],
    prices: Mapping[str, Price],
) -> Options:
    """The options of a run that goes on with these adapters.

    Raises `UsageError` for a limit of cost that can't be kept, and for a share of an unknown room.
    """
    options = replace(before, **{**changes, "compaction": 0.0})
    options = compacting(options, changes.get("compaction", before.compaction), adapters)
    if options.rules < 2:
        return options
    options = replace(options, prices=prices_again(adapters, prices, before.prices))
    check_cost_limit(options.policy, adapters, options.prices)
    return options


def tools_now(run_id: RunId, before: Options, toolbox: Toolbox) -> dict[str, Any]:
    """The tools of a run that goes on, as they are now. Raises what `given_again` raises."""
    now = tuple(tool.spec for tool in given_again(run_id, before.tools, toolbox.tools))
    return {} if now == before.tools else {"tools": now}


def _as_it_is(value: Any) -> Any:
    return value
