"""Parts of Python's library that the sandbox lacks, written in the Python that it has.

A shim is fed to the sandbox when a cell first asks for it, never before. A module is an object
with functions for attributes; ``import heapq`` becomes ``heapq = _rlm_m_heapq``
(`_monty_bridges`). What a shim offers gives CPython's result or an error; what can't be had in
that way isn't there. Functions that only compute on plain data are better done by CPython itself
(`_library`).
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from effects.repls import _monty_carried, _monty_generators
from effects.repls import _monty_modules as modules
from effects.repls._library import FUNCTIONS, host_name
from effects.repls._monty_asyncio import ASYNCIO

FAR_CHARS = 20_000
"""From this length on, CPython replaces by patterns: the sandbox takes quadratic time for it."""
MODULE = "_rlm_m_{}"
"""Names of module objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shim:
    """A source for the sandbox."""

    source: str
    names: tuple[str, ...] = ()
    """What a module offers to ``from module import name``."""
    needs: tuple[str, ...] = ()
    """Shims that must be there before."""


_BASE = """
class _rlm_module:
    def __init__(self, names):
        for name, value in names.items():
            setattr(self, name, value)
    def __repr__(self):
        return "<module>"
"""

_CALLS = """
def _rlm_map(function, *iterables):
    if len(iterables) == 1:
        return iter([function(x) for x in iterables[0]])
    return iter([function(*xs) for xs in zip(*iterables)])
def _rlm_filter(function, iterable):
    return iter([x for x in iterable if (x if function is None else function(x))])
def _rlm_keyed(iterable, key):
    return [(key(x), x) for x in iterable]
def _rlm_first(pair):
    return pair[0]
def _rlm_sorted(iterable, *, key=None, reverse=False):
    if key is None:
        return sorted(iterable, reverse=reverse)
    return [x for _, x in sorted(_rlm_keyed(iterable, key), key=_rlm_first, reverse=reverse)]
def _rlm_sort(items, *, key=None, reverse=False):
    if not isinstance(items, list):
        raise TypeError("sort: only lists can be sorted with this key here; use sorted(...)")
    items[:] = _rlm_sorted(items, key=key, reverse=reverse)
class _rlm_Missing:
    pass
def _rlm_extreme(best, args, key, default):
    found = _rlm_keyed(args[0] if len(args) == 1 else args, key)
    if not found:
        if default is not _rlm_Missing:
            return default
        raise ValueError("iterable argument is empty")
    return best(found, key=_rlm_first)[1]
def _rlm_max(*args, key=None, default=_rlm_Missing):
    return _rlm_extreme(max, args, key, default)
def _rlm_min(*args, key=None, default=_rlm_Missing):
    return _rlm_extreme(min, args, key, default)
def _rlm_is_str(x, method):
    if not isinstance(x, str):
        kind = type(x).__name__
        raise TypeError(
            f"descriptor '{method}' for 'str' objects doesn't apply to a '{kind}' object"
        )
    return x
"""

_DELETE = """
def _rlm_delete(owner, key):
    if isinstance(owner, dict):
        if key not in owner:
            raise KeyError(key)
        owner.pop(key)
    elif isinstance(owner, list):
        if not isinstance(key, int):
            raise TypeError(f"list indices must be integers or slices, not {type(key).__name__}")
        if not -len(owner) <= key < len(owner):
            raise IndexError("list assignment index out of range")
        owner.pop(key)
    elif hasattr(owner, "__delitem__"):
        owner.__delitem__(key)
    else:
        raise TypeError(f"'{type(owner).__name__}' object doesn't support item deletion")
def _rlm_delete_slice(owner, start, stop):
    if not isinstance(owner, list):
        raise TypeError(f"'{type(owner).__name__}' object doesn't support slice deletion here")
    owner[start:stop] = []
"""

_GLOBALS = """
def _rlm_globals(names):
    return {name: value for name, value in names.items() if not name.startswith("_rlm_")}
def _rlm_dir(names):
    return sorted(_rlm_globals(names))
"""

_FIELD_SIZE = """
_rlm_field_size = [131072]
def _rlm_field_size_limit(limit=None):
    old = _rlm_field_size[0]
    if limit is not None:
        if limit < old:
            raise NotImplementedError("field_size_limit(): the limit can't be lowered here")
        _rlm_field_size[0] = limit
    return old
"""

# What CPython's builtin types have: the sandbox has most of it, and only calls of it, no values.
_TYPES = (str, bytes, int, float, bool, complex, list, tuple, dict, set, frozenset, type(None))
_HASATTR = f"""
_rlm_attributes = {{{", ".join(f"{kind.__name__!r}: {dir(kind)!r}" for kind in _TYPES)}}}
def _rlm_hasattr(value, name):
    return hasattr(value, name) or name in _rlm_attributes.get(type(value).__name__, ())
"""

_RE_SUB = """
import re as _rlm_re
def _rlm_re_sub(pattern, repl, string, count=0, flags=0):
    if not isinstance(pattern, str):
        return _rlm_sub_by(pattern, repl, string, count)
    if not isinstance(repl, str):
        return _rlm_replaced(_rlm_re.compile(pattern, flags), repl, string, count)
    if len(string) > {far} or _rlm_re.compile(pattern, flags).search("") is not None:
        return _rlm_lib_re_sub(pattern, repl, string, count=count, flags=int(flags))
    return _rlm_re.sub(pattern, repl, string, count=count, flags=flags)
def _rlm_sub_by(pattern, repl, string, count=0):
    if type(pattern).__name__ != "Pattern":
        return pattern.sub(repl, string, count) if count else pattern.sub(repl, string)
    if not isinstance(repl, str):
        return _rlm_replaced(pattern, repl, string, count)
    if len(string) > {far} or pattern.search("") is not None:
        return _rlm_lib_re_sub(
            pattern.pattern, repl, string, count=count, flags=int(pattern.flags)
        )
    return pattern.sub(repl, string, count)
def _rlm_replaced(pattern, function, string, count):
    pieces, at, done = [], 0, 0
    for match in pattern.finditer(string):
        if match.start() == match.end():
            raise NotImplementedError(
                "a function as replacement and a pattern that matches the empty text don't go "
                "together here"
            )
        if count and done == count:
            break
        pieces.append(string[at:match.start()])
        pieces.append(function(match))
        at, done = match.end(), done + 1
    pieces.append(string[at:])
    return "".join(pieces)
""".replace("{far}", str(FAR_CHARS))


_BUILTINS = {
    "callable": """
def _rlm_callable(value):
    kinds = ("function", "builtin_function_or_method", "type", "partial", "method")
    return type(value).__name__ in kinds or hasattr(value, "__call__")
""",
    "ascii": """
def _rlm_ascii(value):
    pieces = []
    for c in repr(value):
        code = ord(c)
        if code < 128:
            pieces.append(c)
        elif code < 256:
            pieces.append(f"\\\\x{code:02x}")
        elif code < 65536:
            pieces.append(f"\\\\u{code:04x}")
        else:
            pieces.append(f"\\\\U{code:08x}")
    return "".join(pieces)
""",
    "IOError": "_rlm_IOError = OSError\n",
    "EnvironmentError": "_rlm_EnvironmentError = OSError\n",
}
_BOUND = """
if {name!r} not in locals():
    {name} = _rlm_{name}
"""


def _builtin(name: str, source: str) -> Shim:
    # A variable of that name that code made earlier stays.
    return Shim(source=source + _BOUND.format(name=name))


def _module(source: str, *needs: str) -> Shim:
    # What it offers stands in the dict that the module object is made of.
    dicts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Dict)]
    keys = [key.value for key in dicts[-1].keys if isinstance(key, ast.Constant)]
    return Shim(source=source, names=tuple(map(str, keys)), needs=("base", *needs))


def _of_library(module: str) -> Shim:
    """A module all of whose functions are done by CPython."""
    items = ", ".join(f'"{name}": {host_name(module, name)}' for name in FUNCTIONS[module])
    source = f"{MODULE.format(module)} = _rlm_module({{{items}}})\n"
    return Shim(source=source, names=FUNCTIONS[module], needs=("base",))


SHIMS: dict[str, Shim] = {
    "base": Shim(source=_BASE),
    "calls": Shim(source=_CALLS, needs=("base",)),
    "delete": Shim(source=_DELETE),
    "field_size_limit": Shim(source=_FIELD_SIZE),
    "globals": Shim(source=_GLOBALS),
    "carried": Shim(source=_monty_carried.SOURCE),
    "yield": Shim(source=_monty_generators.SOURCE),
    "hasattr": Shim(source=_HASATTR),
    "re.sub": Shim(source=_RE_SUB),
    **{name: _builtin(name, source) for name, source in _BUILTINS.items()},
    "asyncio": _module(ASYNCIO),
    "heapq": _module(modules.HEAPQ, "calls"),
    "io": _module(modules.IO),
    "operator": _module(modules.OPERATOR),
    "pprint": _module(modules.PPRINT),
    "string": _module(modules.STRING),
    **{name: _of_library(name) for name in FUNCTIONS},
}
"""The shims by name. Those of modules have the module's name."""
MODULES = frozenset(name for name, shim in SHIMS.items() if shim.names)
BUILTINS = frozenset(_BUILTINS)
"""Names that code finds without importing them."""
MODULE_KINDS = frozenset({"module", "_rlm_module"})
"""Types of modules."""


def in_order(wanted: Iterable[str]) -> tuple[str, ...]:
    """Shims with all that they need, in the order in which to feed them."""
    found = dict[str, None]()
    for name in wanted:
        found.update(dict.fromkeys(in_order(SHIMS[name].needs)))
        found[name] = None
    return tuple(found)
