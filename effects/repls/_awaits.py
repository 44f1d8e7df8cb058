"""Which calls of a cell are made to be awaited.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

To code without `await`, a subcall is a plain function that returns a text. Code that awaits wants
something to wait for, so that several subcalls run in parallel. The syntax tree tells which is
meant, before anything runs. A call is *deferred*, so that it gives an awaitable, if its value goes

1. into an ``await``;
2. into an argument of a function of asyncio that takes awaitables (`gather`, `create_task` ...),
   also by way of a list, a comprehension, a star, a slice, ``list(...)`` or ``map``;
3. into a variable whose every use in the cell is one of these, or one that doesn't look at the
   value: ``tasks.append(...)``, ``len(tasks)``, ``for t in tasks: await t``.

Names are taken together over all scopes of the cell: a use anywhere that isn't of these kinds
makes all calls that go into the variable plain ones. Plain is always right, if not parallel:
awaiting a text gives that text.
"""

import _ast as ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_WAITERS = "gather create_task ensure_future wait_for as_completed shield run_until_complete"
WAITERS = frozenset(_WAITERS.split())
"""Functions and methods that take awaitables, by their last name."""
_OF_MODULE = frozenset({"run", "wait"})
"""More of them, whose names are too common: they count only as ``asyncio.run`` and the like."""
_MARKS = ("await", "asyncio")
_CONTAINERS = frozenset({"list", "tuple", "set", "reversed", "iter", "sorted"})
_PUTS = frozenset({"append", "extend", "add", "put_nowait", "insert", "setdefault"})


def may_await(source: str) -> bool:
    """Whether a source can have anything to do with awaiting; no more than a glance."""
    return any(mark in source for mark in _MARKS)


@dataclass(slots=True)
class Awaited:
    """What of a cell is awaited. The nodes are those of its tree."""

    calls: list[ast.Call] = field(default_factory=list[ast.Call])
    """Calls that are deferred."""
    maps: list[ast.Call] = field(default_factory=list[ast.Call])
    """Calls of `map` with a function, by its name, that is to make deferred calls."""
    awaits: list[ast.Await] = field(default_factory=list[ast.Await])
    """Each ``await``."""
    waiters: list[ast.Call] = field(default_factory=list[ast.Call])
    """Calls of the functions of asyncio that take awaitables."""


def awaited(tree: ast.Module) -> Awaited:
    """What is awaited in a cell."""
    search = _Search(tree)
    search.run()
    calls = {id(node): node for node in search.calls if not _is_waiter(node)}
    maps = {id(node): node for node in search.maps}
    return Awaited(
        calls=list(calls.values()),
        maps=list(maps.values()),
        awaits=search.awaits,
        waiters=search.waiters,
    )


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it."""
    todo = [node]
    while todo:
        yield (here := todo.pop())
        todo.extend(reversed(list(children(here))))


def children(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes directly below one, in the order of the source, mostly."""
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if isinstance(value, ast.AST):
            yield value
        elif isinstance(value, list):
            for item in value:  # pyright: ignore[reportUnknownVariableType]
                if isinstance(item, ast.AST):
                    yield item


class _Search:
    def __init__(self, tree: ast.Module) -> None:
        self.calls: list[ast.Call] = []
        self.maps: list[ast.Call] = []
        self.awaits: list[ast.Await] = []
        self.waiters: list[ast.Call] = []
        self._values: dict[str, list[ast.expr]] = {}
        """What goes into each variable."""
        self._loops: dict[str, list[ast.expr]] = {}
        """What each variable of a loop is taken from, element by element."""
        self._loads: dict[str, list[ast.Name]] = {}
        self._harmless = set[int]()
        """Uses of variables that await them, or don't look at the value."""
        self._sinks: list[str] = []
        self._bound = set[str]()
        """Variables that also get their value in ways that aren't followed."""
        for node in walk(tree):
            self._note(node)

    def run(self) -> None:
        for node in self.awaits:
            self._follow(node.value)
        for call in self.waiters:
            for argument in call.args:
                self._follow(argument)
        # Following a variable may lead to others, whose uses then count too.
        done = set[str]()
        while ready := {n for n in self._sinks if n not in done and self._is_only_awaited(n)}:
            done |= ready
            for name in sorted(ready):
                for value in [*self._values.get(name, ()), *self._loops.get(name, ())]:
                    self._follow(value)

    def _is_only_awaited(self, name: str) -> bool:
        return name not in self._bound and all(
            id(load) in self._harmless for load in self._loads.get(name, ())
        )

    # -- what there is in the tree

    def _note(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                self._loads.setdefault(name, []).append(node)
            case ast.Await():
                self.awaits.append(node)
            case ast.Call():
                self._note_call(node)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.AugAssign(target=target, value=value):
                self._assign(target, value)
            case ast.NamedExpr(target=target, value=value):
                self._assign(target, value)
            case (
                ast.For(target=target, iter=values) | ast.comprehension(target=target, iter=values)
            ):
                self._loop(target, values)
            case ast.arg(arg=name):
                self._bound.add(name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                self._bound.update(names)
            case ast.If(test=ast.Name() as test) | ast.While(test=ast.Name() as test):
                self._harmless.add(id(test))
            case _:
                pass

    def _note_call(self, call: ast.Call) -> None:
        if _is_waiter(call):
            self.waiters.append(call)
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name) as owner, attr=attr)) if (
                attr in _PUTS
            ):
                self._harmless.add(id(owner))
                if call.args:
                    self._values.setdefault(name, []).append(call.args[-1])
            case ast.Call(func=ast.Name(id="len" | "bool"), args=[ast.Name() as only]):
                self._harmless.add(id(only))
            case ast.Call(func=ast.Attribute(value=ast.Name() as owner, attr="keys")):
                self._harmless.add(id(owner))
            case _:
                pass

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Name(id=name), _:
                self._values.setdefault(name, []).append(value)
            case ast.Subscript(value=ast.Name(id=name) as owner), _:
                self._harmless.add(id(owner))
                self._values.setdefault(name, []).append(value)
            case (
                (ast.Tuple(elts=targets) | ast.List(elts=targets)),
                (ast.Tuple(elts=values) | ast.List(elts=values)),
            ) if len(targets) == len(values):
                for one, its in zip(targets, values, strict=True):
                    self._assign(one, its)
            case _:
                self._bound.update(_names(target))

    def _loop(self, target: ast.expr, values: ast.expr) -> None:
        """A loop gives each variable of its target the elements of one iterable."""
        match target, values:
            case ast.Name(id=name), _:
                self._loops.setdefault(name, []).append(values)
            case (
                ast.Tuple(elts=[first, second]),
                ast.Call(func=ast.Name(id="enumerate"), args=[inner, *_]),
            ):
                self._bound.update(_names(first))
                self._loop(second, inner)
            case (
                ast.Tuple(elts=[first, second]),
                ast.Call(func=ast.Attribute(value=inner, attr="items"), args=[]),
            ):
                self._bound.update(_names(first))
                self._loop(second, inner)
            case ast.Tuple(elts=targets), ast.Call(func=ast.Name(id="zip"), args=args) if len(
                targets
            ) == len(args):
                for one, its in zip(targets, args, strict=True):
                    self._loop(one, its)
            case _:
                self._bound.update(_names(target))

    # -- where awaited values come from

    def _follow(self, node: ast.expr) -> None:
        """The value of this expression, or each of its elements, is awaited."""
        match node:
            case ast.Name(id=name):
                self._harmless.add(id(node))
                self._sinks.append(name)
            case ast.Call():
                self._follow_call(node)
            case ast.Starred(value=value) | ast.Subscript(value=value) | ast.NamedExpr(value=value):
                self._follow(value)
            case ast.ListComp(elt=elt) | ast.SetComp(elt=elt) | ast.GeneratorExp(elt=elt):
                self._follow(elt)
            case ast.DictComp(value=value):
                self._follow(value)
            case ast.List(elts=several) | ast.Tuple(elts=several) | ast.Set(elts=several):
                self._follow_all(several)
            case ast.Dict(values=several):
                self._follow_all(several)
            case ast.IfExp(body=body, orelse=orelse):
                self._follow_all((body, orelse))
            case ast.BinOp(left=left, right=right):
                self._follow_all((left, right))
            case _:
                pass

    def _follow_all(self, nodes: Iterable[ast.expr]) -> None:
        for node in nodes:
            self._follow(node)

    def _follow_call(self, call: ast.Call) -> None:
        match call:
            case ast.Call(func=ast.Name(id=name), args=[only]) if name in _CONTAINERS:
                self._follow(only)
            case ast.Call(func=ast.Attribute(value=inner, attr="values"), args=[]):
                self._follow(inner)
            case ast.Call(func=ast.Name(id="map"), args=[ast.Name(), _]):
                self.maps.append(call)
            case ast.Call(func=ast.Name(id="map"), args=[ast.Lambda(body=body), _]):
                self._follow(body)
            case _:
                self.calls.append(call)


def _is_waiter(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id=name):
            return name in WAITERS
        case ast.Attribute(value=ast.Name(id="asyncio" | "aio"), attr=name) if name in _OF_MODULE:
            return True
        case ast.Attribute(attr=name):
            return name in WAITERS
        case _:
            return False


def _names(target: ast.expr) -> list[str]:
    return [node.id for node in walk(target) if isinstance(node, ast.Name)]
