"""The steps of a run as values: what `rlm_fsm.trace` makes of a log, and their JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, cast

from rlm_fsm.errors import UsageError
from rlm_fsm.values import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStep:
    """One step. What doesn't apply to its kind is None."""

    step_id: int = 0
    """Position in the trace, counted from 1."""
    kind: str
    depth: int = 0
    """0 for the root's turns and cells, 1 for its subcalls and its sub-runs' steps, and so on."""
    frame: str | None = None
    """Whose step it is: ``0`` for the root, ``0.2`` for the sub-run of its second host call,
    ``0.2.1`` for a sub-run of that one. A ``recursive_subcall`` has its sub-run's."""
    prompt_summary: str | None = None
    """Head of the prompt; for ``guard`` the name of the guard or limit; for ``tool`` and
    ``approval`` the call, as in ``send({"to": "Ann"})``."""
    code: str | None = None
    output: str | None = None
    """The reply; for ``guard`` what the model was told or which limit it was."""
    stdout: str | None = None
    error: str | None = None
    usage: Usage | None = None
    model: str | None = None
    """The model as the provider names it."""
    elapsed: float | None = None
    """Seconds."""
    cache_hit: bool = False
    input_hash: str | None = None
    """`text_hash` of a subcall's whole prompt."""
    output_hash: str | None = None
    """`text_hash` of the whole reply."""
    parallel_group_id: str | None = None
    """The cell and the number of its pause, as in ``0.c1#2``: calls that were asked for at once."""
    parallel_index: int | None = None
    """Position in the group, counted from 0."""
    parallel_total: int | None = None
    """Calls in the group, merged ones included; 1 when it was asked for alone."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The steps of a run. Iterates over them; `len` counts them."""

    steps: tuple[TraceStep, ...] = ()
    run_id: str = ""
    query: str = ""

    def __iter__(self) -> Iterator[TraceStep]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def to_json(self, indent: int | None = 2) -> str:
        """As a JSON object in ASCII; `from_json` is its inverse."""
        data = {"run_id": self.run_id, "query": self.query, "steps": [*map(_to_dict, self.steps)]}
        return json.dumps(data, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> "Trace":
        """Read `to_json`'s object, or a plain array of steps. Fields it doesn't know are left out.

        Raises `UsageError` for anything else.
        """
        try:
            data: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not a trace: not JSON ({error})") from error
        match data:
            case [*items] | {"steps": [*items]}:
                steps = tuple(_from_dict(n, item) for n, item in enumerate(items, 1))
            case _:
                raise UsageError("not a trace: expected a list of steps, or an object with one")
        about = cast(dict[str, Any], data) if isinstance(data, dict) else {}
        return cls(steps, str(about.get("run_id", "")), str(about.get("query", "")))


_FIELDS = tuple(item.name for item in fields(TraceStep))


def _to_dict(step: TraceStep) -> dict[str, Any]:
    data = {name: getattr(step, name) for name in _FIELDS}
    data["usage"] = step.usage.to_dict() if step.usage else None
    return data


def _from_dict(number: int, item: Any) -> TraceStep:
    if not isinstance(item, dict):
        raise UsageError(f"not a trace: step {number} is not an object")
    found = cast(dict[str, Any], item)
    data = {name: found[name] for name in _FIELDS if found.get(name) is not None}
    if not isinstance(data.get("step_id"), int) or not isinstance(data.get("kind"), str):
        raise UsageError(f"not a trace: step {number} lacks its step_id or its kind")
    if isinstance(data.get("usage"), dict):
        data["usage"] = Usage.from_dict(data["usage"])
    return TraceStep(**data)
