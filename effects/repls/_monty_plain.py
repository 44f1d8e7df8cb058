"""What code hands to the host is plain data: texts, numbers, lists, dicts.

The sandbox turns anything else into its `repr` on the way, a text like any other, and a model would
be asked about ``dict_values(['x'])``. So arguments of the host's functions are looked at in the
sandbox, by a function that the bridges put around them: what is no data is a `TypeError`, and where
several are taken, iterables become lists, as the `python` backend takes them.

Known gap, told in ``docs/reference/monty.md``: a function of the host that is called under another
name, or by ``map``, isn't seen by the bridges.
"""

import ast
from collections.abc import Collection

from effects.repls._edits import Edits

PLAIN = "_rlm_plain"
"""The function's name."""
TAKERS = frozenset({"peek", "tail", "extract_after", "pick_first_answer"})
"""Functions of the host that take arguments, besides those that ask."""
SOURCE = f"""
_rlm_iterable = {{'dict_keys', 'dict_values', 'dict_items', 'range', 'deque', 'generator'}}
_rlm_opaque = {{
    'function', 'builtin_function_or_method', 'method', 'type', 'partial', 'module', 'slice',
    'Match', 'Pattern',
}}
def _rlm_is_plain(value):
    return value is None or isinstance(value, (str, int, float, bytes))
def {PLAIN}(value, several=False):
    if _rlm_is_plain(value):
        return value
    if isinstance(value, (list, tuple)):
        if all([_rlm_is_plain(item) for item in value]):
            return value
        items = [{PLAIN}(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {{key: {PLAIN}(item) for key, item in value.items()}}
    kind = type(value).__name__
    is_iterable = kind in _rlm_iterable or kind.endswith('iterator')
    if is_iterable and several:
        return [{PLAIN}(item) for item in value]
    if kind == 'Pattern':
        raise TypeError('a compiled pattern can\\'t be handed over: pass its text, and regex=True')
    if is_iterable or kind in _rlm_opaque:
        raise TypeError(f'a {{kind}} can\\'t be handed over: pass texts, numbers, lists or dicts')
    return value
"""
"""For the sandbox, once."""

_SEVERAL = ("batch", "chunk", "classify_all", "reduce_tree", "pick_first_answer")
"""What the names of functions hold that take several texts."""
_CERTAIN = (ast.Constant, ast.JoinedStr, ast.Compare)


def takes_data(call: ast.Call, asking: Collection[str], bound: Collection[str]) -> bool:
    """Whether this calls a function of the host that takes plain data."""
    match call.func:
        case ast.Name(id=name):
            return (name in asking or name in TAKERS) and name not in bound
        case ast.Attribute(value=ast.Name(id="ctx")):
            return "ctx" not in bound
        case _:
            return False


def check_arguments(call: ast.Call, edits: Edits) -> None:
    """Have the arguments of such a call looked at, but for those that can only be plain data, and
    for a schema, which may be a type."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    several = any(part in name for part in _SEVERAL)
    named = [word.value for word in call.keywords if word.arg and word.arg != "schema"]
    for value in (*call.args, *named):
        if isinstance(value, (*_CERTAIN, ast.Starred)):
            continue
        start, end = edits.start(value), edits.end(value)
        if isinstance(value, ast.GeneratorExp) and end == edits.end(call):
            start, end = start + 1, end - 1  # its parentheses are those of the call
        edits.wrap(start, end, f"{PLAIN}(", ", True)" if several else ")")
