"""What errors of the runtime carry, for code in the sandbox: `.results` and `.tool`.

Its exceptions have no attributes, so these are read by a function that asks the host, which knows
what the error with that message carries (`_monty_raised`). Whatever else has such an attribute
gives its own.
"""

import ast
from collections.abc import Collection

from effects.repls._edits import Edits

CARRIED = frozenset({"results", "tool"})
"""The attributes."""
SOURCE = """
def _rlm_carried(owner, name):
    return _rlm_carried_by(f"{owner}", name) if isinstance(owner, RuntimeError) else []
def _rlm_getattr(owner, name, *default):
    found = _rlm_carried(owner, name)
    return found[0] if found else getattr(owner, name, *default)
def _rlm_has(owner, name):
    return hasattr(owner, name) or bool(_rlm_carried(owner, name))
"""
"""For the sandbox. All errors that carry something are its `RuntimeError`."""

_ASKED = {"getattr": "_rlm_getattr", "hasattr": "_rlm_has"}


def bridge_carried(
    node: ast.AST, parent: ast.AST | None, edits: Edits, bound: Collection[str]
) -> bool:
    """Change what reads one of the attributes; whether it did.

    Not for methods, which aren't values there, nor for ``self``: no class of code's is an error.
    """
    match node:
        case ast.Attribute(value=ast.Name(id="self")):
            return False
        case ast.Attribute(attr=attr, ctx=ast.Load()) if attr in CARRIED:
            is_method = isinstance(parent, ast.Call) and parent.func is node
            return not is_method and _bridge_read(node, edits)
        case ast.Call(
            func=ast.Name(id=("getattr" | "hasattr") as name) as function,
            args=[_, ast.Constant(value=attr), *_],
        ) if attr in CARRIED and name not in bound:
            edits.replace(edits.start(function), edits.end(function), _ASKED[name])
            return True
        case _:
            return False


def _bridge_read(node: ast.Attribute, edits: Edits) -> bool:
    """``x.results`` becomes a call, all on the same lines."""
    start, end = edits.start(node), edits.end(node)
    before, dot, name = edits.text(edits.end(node.value), end).rpartition(".")
    if not dot or name.strip() != node.attr or "#" in before:
        return False
    at = end - len((dot + name).encode())
    edits.wrap(start, start, "_rlm_getattr(", "")
    edits.replace(at, end, f", {node.attr!r})")
    return True
