"""One namespace in one sandboxed worker process, driven by blocking calls.

1. A cell's source is prepared, fed, and answered for until it asks a sub-model or ends
   (`_monty_code`, `_monty_calls`).
2. `P` is copied into the sandbox when a cell first names it; everything else reads the host's.
3. Names of the runtime that a cell bound are put right before the next one. What is bound behind
   the parser's back, by `exec`, isn't noticed.
4. Texts are UTF-8 in the sandbox: lone surrogates arrive as question marks.
5. After a limit of time or memory the sandbox promises nothing of its heap, so the session ends.
"""

import time
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any

from pydantic_monty import (
    MontyComplete,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
)

from effects.repls._functions import show_vars
from effects.repls._monty_calls import ERRORS, Calls, TimeUp
from effects.repls._monty_code import ECHO, READ, VARIABLES, Cell, prepare
from effects.repls._monty_errors import MEMORY_LIMITS, TIME_LIMIT, code_error
from effects.repls._monty_shims import BUILTINS, MODULE_KINDS, SHIMS
from effects.repls._monty_values import CtxPolicy, Output, encodable, stub
from effects.repls._monty_worker import Snapshot, Worker, room_bytes
from effects.repls._text import TextView
from effects.repls.base import Answer, Paused, ReplSettings, ReplUnavailable
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeError, CodeResult, ReadResult

_PRELUDE = f"""
def {ECHO}(value):
    if value is not None:
        print(f"{{value!r}}")
def {READ}(value, most):
    text = f"{{value!s}}"
    return (text if len(text) <= most else None, len(text), value is None)
{ERRORS}"""
_GONE = "The variables are gone; the next cell begins a new session."
_TIMEOUT = f"the cell computed for more than {{:g}} seconds and was stopped. {_GONE}"
_MEMORY = f"the cell needed more than {{:,.0f}} MiB of memory. {_GONE}"
_TOO_LONG = "{} has {} characters, more than the {} that can be handed over: make it shorter"


class Session:
    """A worker process, started by the constructor, which raises `ReplUnavailable`.

    Call the methods from one thread at a time; `kill` from any. When `is_lost` is true the
    namespace is gone and the session good for nothing but `close`.
    """

    def __init__(self, view: TextView, settings: ReplSettings, first_cell: int) -> None:
        self.is_lost = False
        self.next_cell = first_cell
        """Number of the next cell."""
        self._view = view
        self._settings = settings
        self._calls = Calls(view, settings, self._show_vars)
        self._spoiled: frozenset[str] = frozenset()
        """Names of the runtime that the last cell bound."""
        self._taken = frozenset[str]()
        """Names that cells bound, those of the runtime and of modules left out."""
        self._shims = set[str]()
        """What was added to the sandbox's library so far."""
        self._cells: dict[str, Cell] = {}
        """Cells by the file names that the sandbox gave them."""
        self._left_s = 0.0
        """Seconds of computing that the paused cell has left."""
        self._watch: tuple[str, ...] = ()
        self._output = Output(0)
        self._types: Mapping[str, str] = {}
        """The variables and their types when the cell began, where it asks for them."""
        self._worker = Worker(settings.limits, room_bytes=room_bytes(view.text))
        try:
            self._feed(_PRELUDE, {"ctx": CtxPolicy(view)})
        except (MontyError, RuntimeError) as error:
            self._worker.close()
            raise ReplUnavailable(f"the monty sandbox failed at its first line: {error}") from error

    @property
    def worker_pid(self) -> int | None:
        """Id of the process; None when it was closed."""
        return self._worker.pid

    def start(self, source: str, watch: tuple[str, ...]) -> Paused | CodeResult:
        """Run a cell until it asks something or ends. Never raises for what the code does."""
        self._refuse_while_paused()
        cell = prepare(source, self.next_cell, self._calls.asking, self._taken)
        self._taken |= cell.bound - self._calls.names - cell.modules
        self.next_cell += 1
        self._watch = watch
        self._output = Output(self._settings.limits.output_chars)
        self._calls.begin_cell()
        return self._run(lambda: self._begin(cell))

    def resume(self, answers: tuple[Answer, ...]) -> Paused | CodeResult:
        """Go on with the paused cell. Raises `UsageError` for a wrong number of answers."""
        go = self._calls.take(answers)
        self._allow(self._left_s)
        return self._run(go)

    def read(self, name: str) -> ReadResult:
        """A variable's text, or the names that there are."""
        self._refuse_while_paused()
        try:
            text, error, _ = self._value(name)
            names = tuple(self._users(self._all_types())) if text is error is None else ()
        except (MontyError, RuntimeError) as failure:
            return ReadResult(error=str(self._judge(failure)))
        return ReadResult(text=text, error=error, names=names)

    def kill(self) -> None:
        """End the worker while it computes: the call that waits for it then fails at once."""
        if not self.is_lost:
            self.is_lost = True
            self._worker.kill()
            self._calls.kill()

    def close(self) -> None:
        """End the worker. Safe to call twice."""
        self.is_lost = True
        self._worker.close()
        self._calls.close()

    # -- running

    def _refuse_while_paused(self) -> None:
        if self._calls.is_paused:
            raise UsageError("a cell is paused: resume it first, or close the session")

    def _run(self, go: Callable[[], Snapshot | Paused]) -> Paused | CodeResult:
        try:
            step = self._calls.drive(go())
        except (MontyError, RuntimeError) as failure:
            return self._result(self._judge(failure))
        if isinstance(step, Paused):
            self._left_s = self._calls.deadline - time.monotonic()
            return step
        if step.output is not None:  # of a source that was fed as it is
            self._output("stdout", f"{step.output!r}\n")
        return self._result(None)

    def _begin(self, cell: Cell) -> Snapshot:
        self._allow(self._settings.limits.cell_timeout_s)
        if self._spoiled & {"SubcallError", "SubcallLimitError"}:
            self._feed(ERRORS)
        if "P" in self._spoiled or (cell.wants_text and not self._calls.text_was_bound):
            self._calls.text_was_bound = True
            self._worker.bind_text("P", self._view.text)
        if "SHOW_VARS" in cell.names:
            self._types = self._all_types()
        for name in cell.shims:
            if name not in self._shims:
                self._calls.drive(self._feed(SHIMS[name].source))
                self._shims.add(name)
        lost_functions = self._spoiled & self._calls.functions
        if "globals" in cell.shims:  # what code sees there must not depend on what it called
            lost_functions |= {name for name in self._calls.functions if name.isidentifier()}
        inputs: dict[str, Any] = {name: stub(name) for name in lost_functions}
        if "ctx" in self._spoiled:
            inputs["ctx"] = CtxPolicy(self._view)
        self._spoiled = self._calls.names & cell.bound
        self._cells[self._worker.next_file] = cell
        return self._worker.feed(cell.code, inputs, self._output)

    def _feed(self, code: str, inputs: dict[str, Any] | None = None) -> Snapshot:
        """Run a source of our own, whose output nobody wants."""
        return self._worker.feed(code, inputs, Output(0))

    def _allow(self, seconds: float) -> None:
        self._calls.deadline = time.monotonic() + seconds

    # -- results

    def _result(self, error: CodeError | None) -> CodeResult:
        watched: dict[str, str] = {}
        try:
            for name in () if self.is_lost else self._watch:
                text, _, is_none = self._value(name)
                if text is not None and text.strip() and not is_none:
                    watched[name] = text
        except (MontyError, RuntimeError) as failure:
            error = error or self._judge(failure)
        return CodeResult(
            stdout=self._output.text(),
            stdout_chars=self._output.chars,
            error=error,
            watched={} if self.is_lost else watched,
            repl_lost=self.is_lost,
        )

    def _judge(self, failure: MontyError | RuntimeError) -> CodeError:
        """The error of a cell, and whether the session outlives it."""
        limits = self._settings.limits
        if isinstance(failure, MontyRuntimeError | MontySyntaxError):
            message = failure.display("msg")
            if message.startswith(TIME_LIMIT):
                return self._lost("CellTimeout", _TIMEOUT.format(limits.cell_timeout_s))
            if message.startswith(MEMORY_LIMITS):
                return self._lost("MemoryError", _MEMORY.format(limits.memory_bytes / (1 << 20)))
            self.is_lost = self.is_lost or self._calls.is_stuck
            return code_error(failure, self._cells, self._calls.raised)
        if isinstance(failure, TimeUp) or (
            isinstance(failure, MontyCrashedError) and failure.timed_out
        ):
            return self._lost("CellTimeout", _TIMEOUT.format(limits.cell_timeout_s))
        return self._lost("ReplDied", f"the sandbox's process ended: {failure}. {_GONE}")

    def _lost(self, kind: str, message: str) -> CodeError:
        self.is_lost = True
        return CodeError(kind=kind, message=message, traceback=f"{kind}: {message}")

    # -- variables

    def _value(self, name: str) -> tuple[str | None, str | None, bool]:
        """A variable's text, or an error, or neither when there is none; and whether it is None.

        Raises what the sandbox raises when a limit is reached.
        """
        most = self._settings.max_value_chars
        if name == "P" and name not in self._spoiled:
            chars = self._view.len_chars()
            if chars > most:
                return None, _TOO_LONG.format(name, chars, most), False
            return encodable(self._view.text), None, False
        is_name = name.isidentifier() and not iskeyword(name)
        if not is_name or name in self._calls.names - self._spoiled:
            return None, None, False
        self._calls.unknown.clear()
        try:
            text, chars, is_none = self._evaluated(f"{READ}({name}, {most})")
        except MontyRuntimeError as failure:
            if name in self._calls.unknown:
                return None, None, False
            error = self._judge(failure)
            if self.is_lost:
                raise
            return None, f"{name} can't be shown: {error.kind}: {error.message}", False
        if text is None:
            return None, _TOO_LONG.format(name, chars, most), False
        return text, None, is_none

    def _evaluated(self, expression: str) -> Any:
        self._allow(self._settings.limits.cell_timeout_s)
        done = self._calls.drive(self._feed(expression))
        assert isinstance(done, MontyComplete)
        return done.output

    def _all_types(self) -> Mapping[str, str]:
        types: dict[str, str] = self._evaluated(VARIABLES)
        return types

    def _users(self, types: Mapping[str, str]) -> dict[str, str]:
        """The variables that the code made, modules left out, with their types."""
        ours = (self._calls.names - self._spoiled) | (BUILTINS & self._shims)
        return {
            name: kind
            for name, kind in types.items()
            if not name.startswith("_") and name not in ours and kind not in MODULE_KINDS
        }

    def _show_vars(self, types: Mapping[str, str] | None = None) -> str:
        """The code's `SHOW_VARS`; its argument is inserted where the call is at the top level."""
        if not isinstance(types, dict | None):
            raise TypeError("SHOW_VARS takes no arguments")
        return show_vars(self._users(self._types if types is None else types))
