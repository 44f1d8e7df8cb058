"""Cells that await: their syntax tree, and what it needs at run time.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

The tree is changed in place, and only where `_awaits` found something; lines and columns stay.
What is called there decides at run time, so a subcall may have any name, or be an argument:

- ``f(x)``, awaited, becomes ``_rlm_later(f)(x)``: the awaitable form of a function that asks;
- ``await x`` becomes ``await _rlm_awaitable(x)``: what a plain call gave gives itself;
- ``asyncio.gather(...)`` becomes ``_rlm_waiter(asyncio.gather)(...)``, for the same reason.

The event loop is in `_loop`. Its code is read with this module, while the folder can be read, and
runs when the first cell needs it, since it imports asyncio.
"""

import _ast as ast
import sys
from collections.abc import Callable, Iterable
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.repls import _awaits, _functions, _loop
else:
    import _awaits
    import _together as _together  # what _loop will ask for

CO_COROUTINE = 0x80  # inspect.CO_COROUTINE
LATER = "_rlm_later"
AWAITABLE = "_rlm_awaitable"
WAITER = "_rlm_waiter"

may_await = _awaits.may_await


def rewrite(tree: ast.Module) -> None:
    """Change a cell's tree for its awaits."""
    found = _awaits.awaited(tree)
    for call in found.calls:
        call.func = _call(LATER, call.func)
    for call in found.maps:
        call.args[0] = _call(LATER, call.args[0])
    for node in found.awaits:
        node.value = _call(AWAITABLE, node.value)
    for call in found.waiters:
        call.func = _call(WAITER, call.func)


class Awaiting:
    """What cells of a session await with."""

    def __init__(
        self,
        programs: "dict[Any, Callable[..., _functions.Program]]",
        ask: "Callable[[_functions.Ask], list[_functions.Answer]]",
    ) -> None:
        self._programs = programs
        self._ask = ask
        self._module: Any = None
        """`_loop`, once it is needed."""
        self._later: Any = None
        self._loops: _loop.Loops | None = None

    def names(self) -> dict[str, Callable[[Any], Any]]:
        """The functions that `rewrite` puts into the code."""
        return {
            LATER: lambda function: self._later(function),
            AWAITABLE: lambda value: self._module.awaitable(value),
            WAITER: lambda function: self._module.waiter(function),
        }

    def begin(self) -> None:
        """A cell that may await begins: make asyncio take its event loops from here."""
        if self._loops is None:
            self._module = _loop_module()
            self._later = self._module.Later(self._programs, self._ask)
            self._loops = self._module.Loops(self._ask, self._later)
        assert self._loops is not None
        self._loops.install()

    def run(self, parts: Iterable[CodeType], names: dict[str, Any]) -> Any:
        """Run the parts of a cell, some of which await; the value of the last one."""
        assert self._loops is not None, "a cell that awaits has the word in its source"
        return self._loops.run(_all_of(parts, names))


async def _all_of(parts: Iterable[CodeType], names: dict[str, Any]) -> Any:
    value = None
    for part in parts:
        value = eval(part, names)
        if part.co_flags & CO_COROUTINE:
            value = await value
    return value


def _call(function: str, argument: ast.expr) -> ast.Call:
    """A call in the place of its argument, for whoever reads line numbers."""
    place: Any = {
        name: getattr(argument, name)
        for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")
    }
    name = ast.Name(id=function, ctx=ast.Load(), **place)
    return ast.Call(func=name, args=[argument], keywords=[], **place)


def _code_of_loop() -> Any:
    if TYPE_CHECKING or __package__:
        return None
    found = (finder.find_spec("_loop", None) for finder in sys.meta_path)
    spec: Any = next(spec for spec in found if spec is not None)
    return spec.loader.get_code("_loop")


def _loop_module() -> Any:
    if TYPE_CHECKING or __package__:
        from effects.repls import _loop

        return _loop
    module = ModuleType("_loop")
    module.__file__ = _LOOP.co_filename
    exec(_LOOP, module.__dict__)
    return module


_LOOP = _code_of_loop()
