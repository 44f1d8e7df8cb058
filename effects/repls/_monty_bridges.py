"""Bridges over gaps of the sandbox's Python: the changes to a cell's source.

Each bridge gives CPython's result or an error; what can't be bridged in that way is left to the
sandbox, whose error names the gap (`_monty_errors`). The table in ``docs/reference/monty.md``
lists them. Functions whose names begin with ``_rlm_`` are in `_monty_shims`.

Nearly all changes stay within lines (`_edits`). Within f-strings, whose nodes have no reliable
places before Python 3.12, a place is used only where it can be proved right.
"""

import ast
import builtins
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from effects.repls import _awaits
from effects.repls._edits import Edits
from effects.repls._monty_carried import bridge_carried
from effects.repls._monty_generators import bridge_generator
from effects.repls._monty_plain import check_arguments, takes_data
from effects.repls._monty_shims import BUILTINS, MODULE, MODULES, SHIMS

LATER = "_rlm_later_"
"""What the names of functions begin with that ask sub-models, where they are awaited."""
TEXT_METHODS = frozenset({"find", "rfind", "index", "rindex", "count", "startswith", "endswith"})
"""Methods of `P` that the host answers: the sandbox takes time for all of a text."""
TEXT_METHOD = "_rlm_P_{}"
"""What they are called then."""
NAMESPACES = frozenset({"globals", "locals", "vars", "dir"})
"""Functions that give all variables, or their names."""

_READERS = (
    "sum any all list tuple set frozenset dict sorted max min enumerate zip map filter Counter "
    "deque join extend update fsum prod mean"
)
_CONSUMERS = frozenset(_READERS.split())
"""Functions that read an iterable once, from its beginning, so that a list will do."""
_READINGS = frozenset(
    ["time", "time_ns", "now", "today", "localtime", "gmtime", "strftime", "ctime"]
)
"""Functions of modules that ask the host what time it is."""
_BUILTIN_NAMES = frozenset(dir(builtins))
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_BRIDGED = (
    ast.Import,
    ast.ImportFrom,
    ast.GeneratorExp,
    ast.Call,
    ast.Delete,
    ast.FunctionDef,
    ast.AsyncWith,
    ast.Name,
    ast.Attribute,
)
"""What may have a gap, or be one."""
_EXEC_DELETE = "exec('try: raise ValueError\\nexcept ValueError as {}: pass')"
"""Deletes a global: the sandbox unbinds the name of a caught exception as Python does."""


@dataclass(slots=True)
class Bridged:
    """What the bridges over a cell's gaps need."""

    shims: set[str] = field(default_factory=set[str])
    own_text_uses: int = 0
    """Uses of `P` that the host answers."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What surrounds a node."""

    parent: ast.AST | None = None
    is_top: bool = True
    """At the level of the module, where names are globals."""
    in_text: bool = False
    """Within an f-string."""


def bridge(
    tree: ast.Module, edits: Edits, asking: Collection[str], bound: Collection[str]
) -> Bridged:
    """Note the changes to a cell.

    `asking` are the names of the functions that ask sub-models. `bound` are names that mean
    something of the code's own: what they stand for elsewhere is then not for us to know.
    """
    work = _Bridges(edits, bound, asking)
    work.visit(tree, _Place())
    if _awaits.may_await(edits.source):
        work.awaits(_awaits.awaited(tree), asking)
    return work.done


class _Bridges:
    def __init__(self, edits: Edits, bound: Collection[str], asking: Collection[str]) -> None:
        self.done = Bridged()
        self._edits = edits
        self._bound = bound
        self._asking = asking
        self._builtins = BUILTINS.difference(bound)

    def visit(self, node: ast.AST, place: _Place) -> None:
        """Bridge the gaps of a node, then those below it."""
        if place.in_text and isinstance(node, ast.expr) and self._edits.is_exact(node):
            # Once a place is right, so are those below.
            place = _Place(place.parent, place.is_top, False)
        if not place.in_text and isinstance(node, _BRIDGED):
            self._bridge(node, place)
        below: _Place | None = None
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr_context):
                continue
            if below is None:
                is_top = place.is_top and not isinstance(node, _SCOPES)
                below = _Place(node, is_top, place.in_text or isinstance(node, ast.JoinedStr))
            self.visit(child, below)

    def awaits(self, found: _awaits.Awaited, asking: Collection[str]) -> None:
        """Make subcalls awaitable where they are awaited."""
        self.done.shims.add("asyncio")
        for node in found.awaits:
            if self._edits.is_exact(node):
                self._wrap(node.value, "_rlm_awaitable(", ")")
        names = [call.func for call in found.calls] + [call.args[0] for call in found.maps]
        for name in names:
            if not isinstance(name, ast.Name) or name.id in self._bound:
                continue
            if name.id in asking and self._edits.is_exact(name):
                self._prefix(name, LATER)

    def _bridge(self, node: ast.AST, place: _Place) -> None:
        if bridge_carried(node, place.parent, self._edits, self._bound):
            self.done.shims.add("carried")
            return
        match node:
            case ast.Import():
                self._import(node)
            case ast.ImportFrom():
                self._import_from(node)
            case ast.GeneratorExp():
                self._generator(node, place)
            case ast.Call():
                self._call(node, place)
            case ast.Delete():
                self._delete(node, place)
            case ast.FunctionDef():
                if not isinstance(place.parent, ast.ClassDef) and bridge_generator(
                    node, self._edits, self._bound
                ):
                    self.done.shims.add("yield")
            case ast.AsyncWith():
                self._async_with(node)
            case ast.Name(id=name, ctx=ast.Load()) if name in self._builtins:
                self.done.shims.add(name)
            case _:
                pass

    # -- modules

    def _import(self, node: ast.Import) -> None:
        if not any(alias.name in MODULES for alias in node.names):
            return
        parts: list[str] = []
        for alias in node.names:
            if alias.name in MODULES:
                self.done.shims.add(alias.name)
                parts.append(f"{alias.asname or alias.name} = {MODULE.format(alias.name)}")
            else:
                renamed = f" as {alias.asname}" if alias.asname else ""
                parts.append(f"import {alias.name}{renamed}")
        self._statement(node, parts)

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module not in MODULES or node.level:
            return
        if not all(alias.name in SHIMS[module].names for alias in node.names):
            return
        self.done.shims.add(module)
        owner = MODULE.format(module)
        self._statement(
            node, [f"{alias.asname or alias.name} = {owner}.{alias.name}" for alias in node.names]
        )

    def _statement(self, node: ast.stmt, parts: list[str]) -> None:
        """Put several statements in the place of one, which may have several lines."""
        start, end = self._edits.start(node), self._edits.end(node)
        lines = self._edits.lines(start, end)
        if lines:  # within parentheses a statement may have as many lines as it likes
            parts = [*parts[:-1], parts[-1].replace(" = ", f" = ({lines}", 1) + ")"]
        self._edits.replace(start, end, "; ".join(parts))

    # -- calls

    def _generator(self, node: ast.GeneratorExp, place: _Place) -> None:
        """Generators are lists in the sandbox: `iter` makes one that can be read once."""
        match place.parent:
            case _ if "iter" in self._bound:
                return
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _CONSUMERS:
                return
            case ast.For() | ast.comprehension() | ast.Starred():
                return
            case ast.Call(args=[only]) as call if only is node and self._is_bare(node, call):
                start, end = self._edits.start(node), self._edits.end(node)
                self._edits.wrap(start + 1, end - 1, "iter(", ")")
            case _:
                self._wrap(node, "iter", "")

    def _is_bare(self, node: ast.GeneratorExp, call: ast.Call) -> bool:
        """Whether the parentheses of a generator are those of the call."""
        return self._edits.end(node) == self._edits.end(call)

    def _call(self, call: ast.Call, place: _Place) -> None:
        if takes_data(call, self._asking, self._bound):
            check_arguments(call, self._edits)
        match call:
            case ast.Call(func=ast.Name(id=name)) if name in self._bound:
                pass
            case ast.Call(func=ast.Name(id="map" | "filter" as name), args=[function, _, *_]):
                if self._may_suspend(function):
                    self._rename(call.func, f"_rlm_{name}", "calls")
                self._bound_method(function)
            case ast.Call(func=ast.Name(id="sorted" | "max" | "min" as name)):
                if (key := _key(call)) is not None:
                    if self._may_suspend(key):
                        self._rename(call.func, f"_rlm_{name}", "calls")
                    self._bound_method(key)
            case ast.Call(func=ast.Attribute(value=owner, attr="sort"), args=[]):
                if (key := _key(call)) is not None:
                    if self._may_suspend(key):
                        self._method(call, owner, "_rlm_sort", "calls")
                    self._bound_method(key)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr="sub")) if (
                "re" not in self._bound
            ):
                self._rename(call.func, "_rlm_re_sub", "re.sub")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="csv"), attr="field_size_limit")):
                self._rename(call.func, "_rlm_field_size_limit", "field_size_limit")
            case ast.Call(func=ast.Attribute(value=owner, attr="sub"), args=[_, _, *_]):
                self._method(call, owner, "_rlm_sub_by", "re.sub")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="P"), attr=attr)) if (
                attr in TEXT_METHODS and "P" not in self._bound
            ):
                self._rename(call.func, TEXT_METHOD.format(attr))
                self.done.own_text_uses += 1
            case ast.Call(func=ast.Name(id="hasattr")):
                self._rename(call.func, "_rlm_hasattr", "hasattr")
            case ast.Call(func=ast.Name(id=name), args=[], keywords=[]) if name in NAMESPACES:
                self._namespace(call, name, place)
            case _:
                pass

    def _may_suspend(self, function: ast.expr) -> bool:
        """Whether calling a function may ask the host, which callbacks of builtins can't."""
        match function:
            case ast.Name(id=name):
                return name not in _BUILTIN_NAMES or name in self._bound
            case ast.Attribute(value=ast.Name(id="self" | "ctx")):
                return True
            case ast.Attribute(attr=attr) if attr in _READINGS:
                return True
            case ast.Lambda(body=body):
                return any(
                    self._may_suspend(node.func)
                    for node in ast.walk(body)
                    if isinstance(node, ast.Call) and not _is_method_of_value(node.func)
                )
            case _:
                return False

    def _bound_method(self, function: ast.expr) -> None:
        """Methods of builtin types are no values in the sandbox: a lambda calls them."""
        match function:
            case ast.Attribute(value=ast.Name(id="str"), attr=attr) if "str" not in self._bound:
                text = f"lambda _rlm_x: _rlm_is_str(_rlm_x, {attr!r}).{attr}()"
                start, end = self._edits.start(function), self._edits.end(function)
                self._edits.replace(start, end, text)
                self.done.shims.add("calls")
            case ast.Attribute(value=ast.Name()):
                self._wrap(function, "lambda *_rlm_x: ", "(*_rlm_x)")
            case _:
                pass

    def _namespace(self, call: ast.Call, name: str, place: _Place) -> None:
        if place.is_top and not _is_stored(call, place):
            form = "_rlm_dir" if name == "dir" else "_rlm_globals"
            start, end = self._edits.start(call), self._edits.end(call)
            self._edits.replace(start, end, f"{form}(locals())")
            self.done.shims.add("globals")

    # -- statements

    def _delete(self, node: ast.Delete, place: _Place) -> None:
        """``del``: each target becomes an expression, and the statement a tuple of them."""
        deletions = [self._deletion(target, place) for target in node.targets]
        if any(deletion is None for deletion in deletions):
            return
        start, end = self._edits.start(node), self._edits.start(node.targets[0])
        after = self._edits.text(start, end).removeprefix("del")
        self._edits.replace(start, end - len(after.lstrip(" \t")), "")
        for deletion in deletions:
            assert deletion is not None
            deletion()

    def _deletion(self, target: ast.expr, place: _Place) -> Callable[[], None] | None:
        """What changes a target of ``del``; None where it can't be."""
        start, end = self._edits.start(target), self._edits.end(target)
        match target:
            case ast.Name(id=name) if place.is_top:
                text = f"({name}, {_EXEC_DELETE.format(name)})"
                return lambda: self._edits.replace(start, end, text)
            case ast.Subscript(value=owner, slice=ast.Slice(step=None) as part):
                return lambda: self._delete_slice(target, owner, part)
            case ast.Subscript(value=owner, slice=key) if not isinstance(key, ast.Slice):
                return lambda: self._delete_item(target, owner, key)
            case _:
                return None

    def _delete_item(self, target: ast.expr, owner: ast.expr, key: ast.expr) -> None:
        edits = self._edits
        self.done.shims.add("delete")
        edits.wrap(edits.start(target), edits.end(owner), "_rlm_delete((", ")")
        edits.replace(edits.end(owner), edits.start(key), ", (")
        edits.replace(edits.end(key), edits.end(target), "))")

    def _delete_slice(self, target: ast.expr, owner: ast.expr, part: ast.Slice) -> None:
        edits = self._edits
        self.done.shims.add("delete")
        edits.wrap(edits.start(target), edits.end(owner), "_rlm_delete_slice((", ")")
        at = edits.end(owner)
        for bound in (part.lower, part.upper):
            if bound is not None:
                edits.replace(at, edits.start(bound), ", (")
                edits.wrap(edits.end(bound), edits.end(bound), ")", "")
                at = edits.end(bound)
            else:
                edits.wrap(at, at, ", None", "")
        edits.replace(at, edits.end(target), ")")

    def _async_with(self, node: ast.AsyncWith) -> None:
        start = self._edits.start(node)
        if self._edits.text(start, start + 6) != "async ":
            return
        self._edits.replace(start, start + 6, "")
        for item in node.items:
            self._wrap(item.context_expr, "_rlm_async_with(", ")")
        self.done.shims.add("asyncio")

    # -- changes

    def _wrap(self, node: ast.expr, before: str, after: str) -> None:
        self._edits.wrap(self._edits.start(node), self._edits.end(node), before, after)

    def _prefix(self, node: ast.expr, prefix: str) -> None:
        self._edits.wrap(self._edits.start(node), self._edits.start(node), prefix, "")

    def _rename(self, node: ast.expr, name: str, shim: str | None = None) -> None:
        self._edits.replace(self._edits.start(node), self._edits.end(node), name)
        if shim is not None:
            self.done.shims.add(shim)

    def _method(self, call: ast.Call, owner: ast.expr, name: str, shim: str) -> None:
        """Call a function with the method's owner for its first argument."""
        edits = self._edits
        opening = edits.text(edits.end(call.func), edits.end(call))
        edits.wrap(edits.start(owner), edits.end(owner), f"{name}((", "), ")
        edits.replace(edits.end(owner), edits.end(call.func) + opening.index("(") + 1, "")
        self.done.shims.add(shim)


def _key(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "key"), None)


def _is_method_of_value(function: ast.expr) -> bool:
    """A method of anything but the runtime's context, or a clock: the host knows nothing of it."""
    match function:
        case ast.Attribute(value=ast.Name(id="ctx")):
            return False
        case ast.Attribute(attr=attr) if attr in _READINGS:
            return False
        case ast.Attribute():
            return True
        case _:
            return False


def _is_stored(call: ast.Call, place: _Place) -> bool:
    """Whether something is put into the variables by way of the call."""
    match place.parent:
        case ast.Subscript(ctx=ast.Store() | ast.Del()):
            return True
        case ast.Attribute(value=value, attr="update" | "pop" | "setdefault" | "clear"):
            return value is call
        case _:
            return False
