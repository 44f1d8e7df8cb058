"""The session of a sandboxed child: one module's namespace, and what can be asked of it.

Standard library only; the child process loads this file by itself, as a top-level module, and
its siblings with it.

The namespace is that of a real module, `__main__`: functions see later globals, classes can be
pickled, `import __main__` works. The runtime's names (`P`, `ctx`, `llm_query` ...) are put back
after every cell.
"""

import builtins
import os
import sys
from _thread import allocate_lock
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.repls import _async, _cell, _functions, _limits, _output, _text
else:
    import _async
    import _cell
    import _functions
    import _limits
    import _output

Exchange = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a frame to the host and waits for its answer."""

_HEADROOM = 200
"""Levels of recursion for a host call: it must not break off between sending and receiving."""


class Session:
    """Runs cells in one namespace."""

    def __init__(
        self,
        view: "_text.TextView",
        guard: "_limits.Guard",
        exchange: Exchange,
        *,
        output_chars: int,
        max_value_chars: int,
        parallel_subcalls: bool,
    ) -> None:
        self._guard = guard
        self._exchange = exchange
        self._max_value_chars = max_value_chars
        self._compiler = _cell.Compiler()
        self._sink = _output.Sink(output_chars)
        self._stdout = _output.Stream(self._sink, "<stdout>")
        self._stderr = _output.Stream(self._sink, "<stderr>")
        self._pid = os.getpid()
        self._lock = allocate_lock()
        """Held through a host call: calls of several threads go one after the other."""
        self._asking_allowed = False
        self._module = ModuleType("__main__")
        self._names = self._module.__dict__
        self._names["__builtins__"] = builtins
        self._own = self._runtime_names(view, parallel_subcalls)
        self._hidden = frozenset(self._names) | (self._own.keys() - {"P"})
        self._restore()

    def run(self, code: str, watch: list[str]) -> dict[str, Any]:
        """Run a cell; the fields of the frame that tells how it ended."""
        self._asking_allowed = True
        error = _limits.guarded(self._guard, lambda: self._run(code))
        if os.getpid() != self._pid:
            os._exit(0)  # a copy made by os.fork has no session to go on with
        with self._lock:  # a thread may still be waiting for the host
            self._asking_allowed = False
        told = None if error is None else _cell.describe(error)
        del error  # it holds the frames of the cell, and they hold what it computed
        watched = self._watched(watch)
        self._restore()
        text, chars = self._sink.take()
        return {"out": text, "chars": chars, "error": told, "watched": watched}

    def read(self, name: str) -> dict[str, Any]:
        """A variable as text; the fields of the frame that answers."""
        if name in self._hidden or name not in self._names:
            return {"text": None, "error": None, "names": list(self._variables())}
        text, problem = self._text_of(name, None)
        self._restore()
        return {"text": text, "error": problem, "names": []}

    def _run(self, code: str) -> None:
        if _async.may_await(code):
            self._awaiting.begin()
        statements, expression = self._compiler.split(code)
        parts = [part for part in (statements, expression) if part is not None]
        value = None
        if any(part.co_flags & _async.CO_COROUTINE for part in parts):
            value = self._awaiting.run(parts, self._names)
        else:
            for part in parts:
                value = eval(part, self._names)
        if expression is not None and value is not None:
            print(repr(value))

    def _watched(self, names: list[str]) -> dict[str, str]:
        """The watched variables that exist and are not None, blank, or impossible to show."""
        found = dict[str, str]()
        for name in names:
            if self._names.get(name) is not None:
                text, _ = self._text_of(name, max(self._guard.left_s, _limits.TICK_S))
                if text is not None and not text.isspace() and text:
                    found[name] = text
        return found

    def _text_of(self, name: str, limit_s: float | None) -> tuple[str | None, str | None]:
        """A variable as text, or why there is none. Its `__str__` is the user's code."""
        texts: list[str] = []
        error = _limits.guarded(
            self._guard, lambda: texts.append(_cell.exact(self._names[name])), limit_s
        )
        if error is not None:
            told = _cell.describe(error)
            return None, f"{name} can't be shown: {told['kind']}: {told['message']}"
        if len(texts[0]) > self._max_value_chars:
            return None, (
                f"{name} has {len(texts[0])} characters, more than the {self._max_value_chars} "
                "that can be handed over: make it shorter"
            )
        return texts[0], None

    def _ask(self, request: "_functions.Ask") -> "list[_functions.Answer]":
        """Put questions to the host and wait for the answers."""
        if os.getpid() != self._pid:
            raise RuntimeError("only the session's own process can ask: use threads instead")
        with self._lock:
            if not self._asking_allowed:
                raise RuntimeError("asked while no cell is running: join threads before it ends")
            self._guard.pause()
            levels = sys.getrecursionlimit()
            try:
                sys.setrecursionlimit(levels + _HEADROOM)
                reply = self._exchange(
                    {
                        "t": "pause",
                        "calls": request.calls,
                        "parallel": request.parallel,
                        "left_s": self._guard.left_s,
                    }
                )
            finally:
                sys.setrecursionlimit(levels)
                self._guard.resume()
        return [(kind, text) for kind, text in reply["answers"]]

    def _restore(self) -> None:
        """Put back what code may have overwritten."""
        self._names.update(self._own)
        self._names["__builtins__"] = builtins
        self._names["__name__"] = "__main__"
        sys.modules["__main__"] = self._module
        for name in ("stdout", "__stdout__"):
            setattr(sys, name, self._stdout)
        for name in ("stderr", "__stderr__"):
            setattr(sys, name, self._stderr)

    def _variables(self) -> dict[str, str]:
        """The user's variables and the names of their types."""
        return {
            name: type(value).__name__
            for name, value in list(self._names.items())
            if name not in self._own
            and not name.startswith("_")
            and not isinstance(value, ModuleType)
        }

    def _runtime_names(self, view: "_text.TextView", parallel_subcalls: bool) -> dict[str, Any]:
        def SHOW_VARS() -> str:
            """The names and types of your variables, as text."""
            return _functions.show_vars(self._variables())

        asking = _functions.programs(view, parallel_subcalls=parallel_subcalls)
        made: dict[str, Any] = {
            "SubcallError": _functions.SubcallError,
            "SubcallLimitError": _functions.SubcallLimitError,
            "SHOW_VARS": SHOW_VARS,
            **{name: self._driven(program) for name, program in asking.items()},
        }
        programs = {made[name]: program for name, program in asking.items()}
        self._awaiting = _async.Awaiting(programs, self._ask)
        for value in made.values():
            # Tracebacks and messages show the bare names, and pickle finds them.
            value.__module__ = "__main__"
            value.__qualname__ = value.__name__
        names = self._awaiting.names()
        return {"P": view.text, "ctx": view, **_functions.plain(view), **made, **names}

    def _driven(self, program: Callable[..., "_functions.Program"]) -> Callable[..., Any]:
        @wraps(program)
        def call(*args: Any, **options: Any) -> Any:
            return _functions.drive(program(*args, **options), self._ask)

        return call
