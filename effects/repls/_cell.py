"""Compiling a cell, and what to tell of its errors.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

1. A cell is split at its last statement: a bare expression there is evaluated and echoed.
2. ``await`` may stand at the top level: the code then gives a coroutine (`_async`).
3. Tracebacks are Python's own, less the frames of the runtime and of the standard library.
"""

import os
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.repls import _async
else:
    import _async

MAX_MESSAGE_CHARS = 10_000
MAX_TRACEBACK_CHARS = 20_000
"""Longer ones lose their middle: the first frames and the error itself say most."""
MAX_FRAMES = 2_000
"""Innermost frames looked at; Python's own limit of recursion is 1,000."""

_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST; importing ast would take 10 ms of the start
_TOP_LEVEL_AWAIT = 0x2000  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_ANNOTATIONS = 0x1000000  # __future__.annotations.compiler_flag
_compile: Any = compile  # syntax trees are handled without the types of ast
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_RUNTIME = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Compiler:
    """Compiles the cells of a session: ``<cell 1>`` and so on."""

    def __init__(self) -> None:
        self._count = 0
        self._flags = _TOP_LEVEL_AWAIT

    def split(self, source: str) -> tuple[CodeType | None, CodeType | None]:
        """Code objects of the statements, and of a trailing expression: None where there is none.

        Code that awaits at its top level has the flag CO_COROUTINE: evaluated, it gives a
        coroutine.

        Raises whatever `compile` raises. Tracebacks know the source from here on.
        """
        import _ast  # these were loaded while the child was idle
        import linecache

        self._count += 1
        name = f"<cell {self._count}>"
        # Not str.splitlines: Python's own lines end nowhere else.
        plain = source.replace("\r\n", "\n").replace("\r", "\n")
        lines = [line + "\n" for line in plain.split("\n")]
        linecache.cache[name] = (len(source), None, lines, name)
        tree = _compile(source, name, "exec", _ONLY_AST | self._flags, True)
        if _async.may_await(source):
            _async.rewrite(tree)
        last = None
        if tree.body and type(tree.body[-1]) is _ast.Expr:
            last = _ast.Expression(body=tree.body.pop().value)
        statements: CodeType | None = None
        if tree.body:
            body: CodeType = _compile(tree, name, "exec", self._flags, True)
            # As in an interactive session, a __future__ import holds for the cells after it.
            self._flags |= body.co_flags & _ANNOTATIONS
            statements = body
        if last is None:
            return statements, None
        return statements, _compile(last, name, "eval", self._flags, True)


def describe(error: BaseException) -> dict[str, str]:
    """Kind, message and traceback of what a cell raised."""
    kind = type(error).__name__
    try:
        message = shortened(exact(error), MAX_MESSAGE_CHARS)
    except BaseException:
        message = "(its message can't be shown: str() of the exception failed)"
    try:
        traceback = shortened(_rendered(error), MAX_TRACEBACK_CHARS)
    except BaseException:
        traceback = f"{kind}: {message}"
    return {"kind": kind, "message": message, "traceback": traceback}


def exact(value: object) -> str:
    """`str(value)` as a plain str: that of a subclass could answer what it likes afterwards."""
    text = str(value)
    return text if type(text) is str else str.__str__(text)


def _rendered(error: BaseException) -> str:
    import traceback

    told = traceback.TracebackException(
        type(error), error, error.__traceback__, limit=-MAX_FRAMES, lookup_lines=False
    )
    _drop_frames(told)
    return "".join(told.format()).rstrip("\n")


def _drop_frames(told: Any) -> None:
    """Leave only frames of model-written code, in an exception and all it was raised from."""
    todo, done = [told], set[int]()
    while todo:
        part = todo.pop()
        if part is None or id(part) in done:
            continue
        done.add(id(part))
        part.stack[:] = [frame for frame in part.stack if _is_model_code(frame.filename)]
        todo += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]


def _is_model_code(filename: str) -> bool:
    return not filename.startswith((_LIBRARY, _RUNTIME, "<frozen "))


def shortened(text: str, limit: int) -> str:
    """A text without its middle, where it has more than `limit` characters."""
    if len(text) <= limit:
        return text
    head, tail = limit // 3, limit - limit // 3
    return f"{text[:head]}\n... ({len(text) - limit} characters left out) ...\n{text[-tail:]}"
