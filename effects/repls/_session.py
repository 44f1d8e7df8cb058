"""The session of a sandboxed child: one module's namespace, and what can be asked of it.

Standard library only; the child process loads this file by itself, as a top-level module, and
its siblings with it.

The namespace is that of a real module, `__main__`: functions see later globals, classes can be
pickled, `import __main__` works. The runtime's names (`P`, `ctx`, `llm_query` ...) and Python's
own are put back after every cell, but for those that code may take for itself (`_finals.SOFT`).

`context` and `history` are made when a cell first names them: a list of documents takes as much
memory as the text, and a conversation grows. So is `P` where the text is long: the rest works on
the mapped text (`_mapped`).
"""

import builtins
import os
import re
import sys
from _thread import allocate_lock
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.repls import (
        _asking,
        _async,
        _cell,
        _finals,
        _fixed,
        _frames,
        _functions,
        _limits,
        _originals,
        _output,
        _summaries,
        _text,
        _tools,
    )
else:
    import _asking
    import _async
    import _cell
    import _finals
    import _fixed
    import _frames
    import _functions
    import _limits
    import _originals
    import _output
    import _summaries
    import _tools

Exchange = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a frame to the host and waits for its answer."""

_NAMES_P = re.compile(r"\bP\b")
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
        subcall_error: str,
        batch_error: str,
        variables: str,
        tools: "list[_tools.Tool]",
        calendar: "_fixed.Calendar | None" = None,
    ) -> None:
        """`calendar` is one that asks the host, where the session has such a one."""
        self._view = view
        self._guard = guard
        self._exchange = exchange
        self._max_value_chars = max_value_chars
        self._compiler = _cell.Compiler()
        self._sink = _output.Sink(output_chars)
        self._pid = os.getpid()
        self._lock = allocate_lock()
        """Held through a host call: calls of several threads go one after the other."""
        self._asking_allowed = False
        self._module = ModuleType("__main__")
        self._names = self._module.__dict__
        self._names["__builtins__"] = builtins
        self._originals = _originals.Originals(self._module, self._sink)
        styles = _functions.Styles(subcall_error, batch_error)
        self._own = self._runtime_names(view, parallel_subcalls, styles, tools)
        self._soft: dict[str, Any] = {name: self._own.pop(name) for name in _finals.SOFT}
        self._tracker = _summaries.Tracker(variables)
        self._signal: _finals.Signal | None = None
        """The final answer that the running cell has given by a call."""
        self._calendar = calendar
        if calendar is not None:
            calendar.ask = self._ask_time
        self._internal = frozenset(self._names)
        self._restore()

    def run(
        self, code: str, watch: list[str], history: list[dict[str, str]] | None = None
    ) -> dict[str, Any]:
        """Run a cell; the fields of the frame that tells how it ended.

        `history` comes with cells that name it.
        """
        self._bind_named(code, history)
        self._asking_allowed = True
        self._signal = None
        if self._calendar is not None:
            self._calendar.begin_cell()
        error = _limits.guarded(self._guard, lambda: self._run(code))
        if os.getpid() != self._pid:
            os._exit(0)  # a copy made by os.fork has no session to go on with
        with self._lock:  # a thread may still be waiting for the host
            self._asking_allowed = False
        error = None if isinstance(error, _finals.Signal) else error
        final, problem = self._final()
        error = error or problem
        told = None if error is None else _cell.describe(error)
        del error, problem  # they hold the frames of the cell, and these hold what it computed
        watched = self._watched(watch)
        self._restore()
        variables, more = self._told_variables()
        text, chars = self._sink.take()
        return {
            "out": text,
            "chars": chars,
            "error": told,
            "watched": watched,
            "final": final,
            "variables": variables,
            "more": more,
        }

    def read(self, name: str) -> dict[str, Any]:
        """A variable as text; the fields of the frame that answers."""
        self._bind_named(name, None)
        if not self._is_readable(name):
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
        """The watched variables with a value that can be shown, and isn't blank."""
        found = dict[str, str]()
        for name in names:
            if self._is_readable(name, watched=True) and not _finals.is_unset(self._names[name]):
                text, _ = self._text_of(name, max(self._guard.left_s, _limits.TICK_S))
                if text is not None and not text.isspace() and text:
                    found[name] = text
        return found

    def _is_readable(self, name: str, *, watched: bool = False) -> bool:
        """Whether a name is that of a variable which may be an answer."""
        if name not in self._names or name in self._internal:
            return False
        value = self._names[name]
        if name == "answer" and _finals.is_protocol(value):
            return not watched and bool(value["content"])
        if name in self._soft:
            return value is not self._soft[name]
        return name not in self._own or name in ("P", "context", "context_0")

    def _value(self, name: str) -> Any:
        value = self._names[name]
        return value["content"] if name == "answer" and _finals.is_protocol(value) else value

    def _final(self) -> tuple[dict[str, Any] | None, BaseException | None]:
        """The final answer that the cell has given, and why it can't be one. Values are the
        user's, and so is the code that prints them."""
        signal, found = self._signal, list[dict[str, Any]]()

        def work() -> None:
            form, value = "answer", None
            if signal is not None:
                form, value = signal.form, signal.value
            else:
                is_ready, value = _finals.take_answer(self._names.get("answer"))
                if not is_ready:
                    return
            named = signal is not None and signal.has_fields
            most = self._max_value_chars
            found.append(_finals.told(form, value, fields=named, most=most, text_of=_cell.exact))

        if signal is None and not _finals.may_be_ready(self._names.get("answer")):
            return None, None
        limit_s = max(self._guard.left_s, _limits.TICK_S)
        error = _limits.guarded(self._guard, work, limit_s)
        self._signal = None
        return (found[0] if found else None), error

    def _told_variables(self) -> tuple[list[list[Any]], int]:
        """What is told of the variables, as the profile has it."""
        if self._tracker.mode == "none":
            return [], 0
        if self._tracker.mode == "names":
            kinds = self._variables().items()
            return self._tracker.named(n for n, kind in kinds if kind in _summaries.SIMPLE)
        found = dict[str, str]()

        def work() -> None:
            names = self._names
            found.update({name: _summaries.summary(names[name]) for name in self._users()})

        # Even a type's name may be the code's own doing.
        error = _limits.guarded(self._guard, work, max(self._guard.left_s, _limits.TICK_S))
        return ([], 0) if error is not None else self._tracker.told(found)

    def _text_of(self, name: str, limit_s: float | None) -> tuple[str | None, str | None]:
        """A variable as text, or why there is none. Its `__str__` is the user's code."""
        texts: list[str] = []
        error = _limits.guarded(
            self._guard, lambda: texts.append(_cell.exact(self._value(name))), limit_s
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
                        "calls": [_frames.row(call) for call in request.calls],
                        "parallel": request.parallel,
                        "left_s": self._guard.left_s,
                    }
                )
            finally:
                sys.setrecursionlimit(levels)
                self._guard.resume()
        return [(kind, text) for kind, text in reply["answers"]]

    def _ask_time(self) -> int | None:
        """The time of day, where the host can be asked now."""
        if not self._asking_allowed or self._lock.locked() or os.getpid() != self._pid:
            return None
        return _fixed.told_ns(self._ask(_functions.Ask([_fixed.CALL], False)))

    def _restore(self) -> None:
        """Put back what code may have overwritten, unless the name is its own now."""
        self._originals.put_back()
        self._names.update(self._own)
        for name, value in self._soft.items():
            self._names.setdefault(name, value)
        self._names["__builtins__"] = builtins
        self._names["__name__"] = "__main__"

    def _variables(self) -> dict[str, str]:
        """The user's variables and the names of their types."""
        return {name: type(self._names[name]).__name__ for name in self._users()}

    def _users(self) -> list[str]:
        """The names of the user's variables, in the order in which they were made."""
        own, soft, internal = self._own, self._soft, self._internal
        return [
            name
            for name, value in list(self._names.items())
            if name not in own
            and name not in internal
            and not name.startswith("_")
            and (name not in soft or value is not soft[name] or name == "answer")
            and (name != "answer" or self._is_readable(name))
            and not isinstance(value, ModuleType)
        ]

    def _bind_named(self, code: str, history: list[dict[str, str]] | None) -> None:
        """Make what a cell names for the first time; the conversation, each time."""
        own, view = self._own, self._view
        if "P" not in own and _NAMES_P.search(code):
            own["P"] = self._names["P"] = view.text
        if "context" in code and "context" not in own:
            whole = list(view) if view.kind == "document_list" else view.text
            for name in ("context", "context_0"):
                own[name] = self._names[name] = whole
        if history is not None:
            own["history"] = self._names["history"] = history

    def _runtime_names(
        self,
        view: "_text.TextView",
        parallel_subcalls: bool,
        styles: "_functions.Styles",
        tools: "list[_tools.Tool]",
    ) -> dict[str, Any]:
        def SHOW_VARS() -> str:
            """The names and types of your variables, as text."""
            return _functions.show_vars(self._variables())

        def SUBMIT(*values: Any, **fields: Any) -> None:
            """Hand in the final answer: a value, or named fields. Ends the cell."""
            value, named = _finals.submitted(values, fields)
            self._give("SUBMIT", value, named)

        def FINAL(*answer: Any, **options: Any) -> None:
            """Hand in the final answer. Ends the cell."""
            self._give("FINAL", _finals.one_value("FINAL", answer, options))

        def done(*answer: Any, **options: Any) -> None:
            """Hand in the final answer. Ends the cell."""
            self._give("done", _finals.one_value("done", answer, options))

        def FINAL_VAR(*answer: Any, **options: Any) -> None:
            """Hand in a variable, by its name, or a value, as the final answer. Ends the cell."""
            value = _finals.one_value("FINAL_VAR", answer, options)
            self._give("FINAL_VAR", self._named_or_value(value))

        asking = _asking.programs(
            view, parallel_subcalls=parallel_subcalls, styles=styles, tools=tools
        )
        made: dict[str, Any] = {
            "SubcallError": _functions.SubcallError,
            "SubcallLimitError": _functions.SubcallLimitError,
            **_tools.ERRORS,
            "SHOW_VARS": SHOW_VARS,
            "SUBMIT": SUBMIT,
            "FINAL": FINAL,
            "FINAL_VAR": FINAL_VAR,
            "done": done,
            **{name: self._driven(program) for name, program in asking.items()},
        }
        programs = {made[name]: program for name, program in asking.items()}
        self._awaiting = _async.Awaiting(programs, self._ask)
        for value in made.values():
            # Tracebacks and messages show the bare names, and pickle finds them.
            value.__module__ = "__main__"
            value.__qualname__ = value.__name__
        answer = _finals.fresh_answer()
        whole = {} if view.is_lazy else {"P": view.text}
        return {
            **whole,
            "ctx": view,
            "answer": answer,
            **_functions.plain(view),
            **made,
            **self._awaiting.names(),
        }

    def _give(self, form: str, value: object, has_fields: bool = False) -> None:
        signal = _finals.Signal(form, value, has_fields)
        self._signal = self._signal or signal
        raise signal

    def _named_or_value(self, given: object) -> object:
        """What ``FINAL_VAR`` was given: see `_finals`, rule 2."""
        name = _finals.named(given)
        if name is None:
            return given
        if self._is_readable(name):
            return self._value(name)
        users = self._variables()
        if any(type(self._names[each]) is str and self._names[each] == given for each in users):
            return given
        raise _finals.no_variable(name, users)

    def _driven(self, program: Callable[..., "_functions.Program"]) -> Callable[..., Any]:
        @wraps(program)
        def call(*args: Any, **options: Any) -> Any:
            return _functions.drive(program(*args, **options), self._ask)

        return call
