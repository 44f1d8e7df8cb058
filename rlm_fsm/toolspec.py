"""Tools: what a run knows of the functions of its caller's program that code may call.

The core never sees a function. It knows a tool by what is recorded with the run: its name, its
signature and its words, which the model is told, and what decides the machine's doing. So a run is
replayed without any of the functions. How calls are made is in `tool_calls`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlm_fsm.profile import Profile, fill

ParameterKind = Literal["positional", "any", "rest", "keyword", "options"]
"""``positional``: given by place only. ``any``: by place or by name. ``rest``: ``*args``.
``keyword``: by name only. ``options``: ``**kwargs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolParameter:
    """One parameter of a tool."""

    name: str
    kind: ParameterKind = "any"
    is_required: bool = True
    """Whether it has no default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as it is recorded with a run."""

    name: str
    """What code calls it."""
    signature: str = "()"
    """As Python writes it, types included, such as ``(city: str, days: int = 3) -> str``."""
    doc: str = ""
    """What the model is told of it: its docstring, unless the caller gave other words."""
    parameters: tuple[ToolParameter, ...] = ()
    needs_approval: bool = False
    """Whether a person has to agree to each call before it is made."""
    idempotent: bool | None = None
    """Whether a call may be made twice, when it was in flight as the run stopped. True: it is made
    again. False: it counts as failed. None: ``on_uncertain`` decides, and a call that a person has
    agreed to counts as failed."""
    max_chars: int = 1_000_000
    """Most characters of a call's arguments, and of its result, as JSON."""


def told(words: Profile, tools: Sequence[ToolSpec]) -> str:
    """What a model is told of the tools; empty without any."""
    if not tools:
        return ""
    return fill(words.tools, tools="\n".join(_told(words, tool) for tool in tools))


def _told(words: Profile, tool: ToolSpec) -> str:
    about = [tool.doc] if tool.doc else []
    if tool.needs_approval:
        about.append(words.tool_approval)
    lines = "\n".join(about).splitlines()
    head = fill(words.tool, name=tool.name, signature=tool.signature)
    return "\n".join([head, *(f"    {line}".rstrip() for line in lines)])
