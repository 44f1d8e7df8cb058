"""One namespace in one sandboxed worker process, driven by blocking calls.

1. A cell's source is prepared, fed, and answered for until it asks a sub-model or ends
   (`_monty_code`, `_monty_calls`).
2. Names of the runtime are put right before each cell (`_monty_names`).
3. Texts are UTF-8 in the sandbox: lone surrogates arrive as question marks.
4. A session can be written down (`_monty_saved`) between two cells and at a pause, and be had
   again in another process: the sandbox's heap by the sandbox, the rest by us.
5. After a limit of time or memory the sandbox promises nothing of its heap, so the session ends.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from keyword import iskeyword
from typing import Any

from pydantic_monty import (
    MontyComplete,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
)

from effects.repls import _monty_plain, base
from effects.repls._functions import show_vars
from effects.repls._monty_calls import VALUES, Calls, Given, TimeUp
from effects.repls._monty_code import ECHO, READ, VARIABLES, Cell
from effects.repls._monty_ends import PRELUDE, TOLD, Ends, own_names, told_at_end
from effects.repls._monty_errors import MEMORY_LIMITS, TIME_LIMIT, code_error
from effects.repls._monty_later import SavedCall
from effects.repls._monty_names import Names
from effects.repls._monty_raised import ERRORS
from effects.repls._monty_saved import MOST_DUMP_BYTES, Maker, Saved, maker_of, pack, unpack
from effects.repls._monty_shims import SHIMS
from effects.repls._monty_values import CtxPolicy, Output, encodable, utf8_bytes
from effects.repls._monty_worker import Snapshot, Worker, room_bytes
from effects.repls._text import TextView
from effects.repls._words import seconds
from effects.repls.base import Answer, Paused, ReplSettings, ReplUnavailable, SnapshotRefused
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeError, CodeResult, GivenFinal, Message, ReadResult, Variable

_PRELUDE = f"""
def {ECHO}(value):
    if value is not None:
        print(f"{{value!r}}")
def {READ}(value, most):
    text = f"{{value!s}}"
    return (text if len(text) <= most else None, len(text), _rlm_is_unset(value))
{PRELUDE}
{_monty_plain.SOURCE}
{ERRORS}"""
_SHIMS = "\n".join(shim.source for shim in SHIMS.values())
_TIMEOUT = "the cell computed for more than {} and was stopped"
_MEMORY = "the cell needed more than {:,.0f} MiB of memory"
_TOO_LONG = "{} has {} characters, more than the {} that can be handed over: make it shorter"


class Session:
    """A worker process, started by the constructor, which raises `ReplUnavailable`.

    With `saved`, what `save` has written, it is that session again; `SnapshotRefused` otherwise.
    Call the methods from one thread at a time; `kill` from any. When `is_lost` is true the
    namespace is gone and the session good for nothing but `close`.
    """

    def __init__(
        self,
        view: TextView,
        settings: ReplSettings,
        first_cell: int = 1,
        *,
        saved: bytes | None = None,
    ) -> None:
        self.is_lost = False
        self.next_cell = first_cell
        """Number of the next cell."""
        self._view = view
        self._settings = settings
        self._calls = Calls(
            view, settings, self._show_vars, lambda line: self._output("stdout", f"{line}\n")
        )
        self._cells: dict[str, Cell] = {}
        """Cells by the file names that the sandbox gave them."""
        self._left_s = 0.0
        """Seconds of computing that the paused cell has left."""
        self._watch: tuple[str, ...] = ()
        self._output = Output(0)
        most = settings.max_value_chars
        self._ends = Ends(self._evaluated, variables=settings.variables, most=most)
        self._may_answer = False
        """Whether any cell so far may have used `answer`."""
        self._types: Mapping[str, str] = {}
        """The variables and their types when the cell began, where it asks for them."""
        self.paused: Paused | None = None
        """Where the cell of a session stands that was written down at a pause."""
        known = None if saved is None else unpack(saved, self._maker())
        clock, room = self._calls.clock.policy, room_bytes(view.text)
        self._worker = Worker(settings.limits, room_bytes=room, seed=settings.seed, clock=clock)
        self._names = Names(view, self._calls, self._worker)
        try:
            if known is None:
                self._names.feed(self._prelude, {"ctx": CtxPolicy(view)})
            else:
                self._load(known)
        except (MontyError, RuntimeError, ValueError) as error:
            self._worker.close()
            if known is not None:
                raise SnapshotRefused(f"the sandbox doesn't take it: {error}") from error
            raise ReplUnavailable(f"the monty sandbox failed at its first line: {error}") from error

    @property
    def worker_pid(self) -> int | None:
        """Id of the process; None when it was closed."""
        return self._worker.pid

    def start(
        self, source: str, watch: tuple[str, ...], history: Sequence[Message]
    ) -> Paused | CodeResult:
        """Run a cell until it asks something or ends. Never raises for what the code does."""
        self._refuse_while_paused()
        cell = self._names.read(source, self.next_cell)
        self.next_cell += 1
        self._watch = watch
        self._output = Output(self._settings.limits.output_chars)
        self._calls.begin_cell()
        self._may_answer = self._may_answer or "answer" in source
        if "history" in source:
            self._calls.history = [message.as_dict() for message in history]
        return self._run(lambda: self._begin(cell))

    def resume(self, answers: tuple[Answer, ...]) -> Paused | CodeResult:
        """Go on with the paused cell. Raises `UsageError` for a wrong number of answers."""
        go = self._calls.take(answers)
        if self._calls.raised.is_stopped and (why := base.stop_of(answers)) is not None:
            return self._result(self._lost("CellStopped", why))
        self._allow(self._left_s)
        self._calls.clock.in_cell = True
        return self._run(go)

    def read(self, name: str) -> ReadResult:
        """A variable's text, or the names that there are."""
        self._refuse_while_paused()
        try:
            text, error, _ = self._value(name)
            names = tuple(self._names.users(self._all_types())) if text is error is None else ()
        except (MontyError, RuntimeError) as failure:
            return ReadResult(error=str(self._judge(failure)))
        return ReadResult(text=text, error=error, names=names)

    def save(self) -> bytes | None:
        """The session between two cells or at a pause, as bytes; None when it is too large."""
        if self._calls.bound and utf8_bytes(self._view.text) > MOST_DUMP_BYTES:
            return None
        if self._calls.is_paused and self._calls.has_caught:
            return None
        given: Given | None = None
        later: list[SavedCall] = []
        try:
            if self._calls.is_paused:
                dump, given, later = self._calls.saved()
            else:
                dump = self._worker.dump()
        except (MontyError, RuntimeError, ValueError):  # too large, say; the session goes on
            return None
        if len(dump) + self._calls.asked_chars > MOST_DUMP_BYTES:
            return None
        names, calls = self._names, self._calls
        saved = Saved(
            dump=dump,
            feeds=self._worker.feeds,
            next_cell=self.next_cell,
            cells={
                file: (cell.number, cell.source, list(cell.inserted))
                for file, cell in self._cells.items()
            },
            spoiled=sorted(names.spoiled),
            taken=sorted(names.taken),
            owned=sorted(names.owned),
            shims=sorted(names.shims),
            may_answer=self._may_answer,
            bound=sorted(calls.bound),
            seen=self._ends.seen,
            history=calls.history if given is not None else [],
            given=given,
            later=later,
            printed=self._output.text(),
            printed_chars=self._output.chars,
            left_s=self._left_s,
            watch=list(self._watch),
            types=dict(self._types),
            raised=calls.raised.saved() if given is not None else {},
            clock=calls.clock.saved(),
        )
        return pack(saved, self._maker())

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

    # -- snapshots

    def _maker(self) -> Maker:
        given = f"{self._prelude}\n{sorted(self._calls.names)}\n{_SHIMS}"
        return maker_of(self._settings, self._view, given)

    @property
    def _prelude(self) -> str:
        return _PRELUDE + own_names(self._calls.names)

    def _load(self, saved: Saved) -> None:
        """Become what was written down."""
        self.next_cell = saved.next_cell
        self._cells = {
            file: Cell(number, source, source, inserted=tuple(inserted))
            for file, (number, source, inserted) in saved.cells.items()
        }
        self._left_s, self._watch, self._types = saved.left_s, tuple(saved.watch), saved.types
        self._calls.raised.restore(saved.raised)
        self._names.load(saved)
        self._may_answer, self._calls.history = saved.may_answer, saved.history
        self._ends.seen = saved.seen
        self._calls.clock.restore(saved.clock)
        if saved.given is None:
            self._worker.load(saved.dump, saved.feeds)
            return
        self._output = Output(self._settings.limits.output_chars)
        self._output("stdout", saved.printed)
        self._output.chars = saved.printed_chars
        given = [[(kind, text) for kind, text in answers] for answers in saved.given]
        step = self._worker.load_paused(saved.dump, saved.feeds, self._output)
        self.paused = self._calls.wait_again(step, given, saved.later)

    # -- running

    def _refuse_while_paused(self) -> None:
        if self._calls.is_paused:
            raise UsageError("a cell is paused: resume it first, or close the session")

    def _run(self, go: Callable[[], Snapshot | Paused]) -> Paused | CodeResult:
        try:
            step = self._calls.drive(go())
        except (MontyError, RuntimeError) as failure:
            error = self._judge(failure)
            return self._result(None if self._is_signal(error) else error)
        if isinstance(step, Paused):
            self._left_s = self._calls.deadline - time.monotonic()
            return step
        told = told_at_end(step.output)
        if told is None and step.output is not None:  # of a source that was fed as it is
            self._output("stdout", f"{step.output!r}\n")
        return self._result(None, told)

    def _begin(self, cell: Cell) -> Snapshot:
        self._allow(self._settings.limits.cell_timeout_s)
        inputs = self._names.put_right(cell)
        if "SHOW_VARS" in cell.names:
            self._types = self._all_types()
        self._cells[self._worker.next_file] = cell
        self._allow(self._settings.limits.cell_timeout_s)
        # What is told of `answer` depends on what becomes of it afterwards.
        tells = cell.is_parsed and self._ends.are_told and not self._may_answer
        code = f"{cell.code}\n{TOLD}" if tells else cell.code
        self._calls.clock.in_cell = True
        return self._worker.feed(code, inputs, self._output)

    def _allow(self, seconds: float) -> None:
        self._calls.deadline = time.monotonic() + seconds

    # -- results

    def _result(self, error: CodeError | None, told: object = None) -> CodeResult:
        self._calls.clock.in_cell = False
        watched: dict[str, str] = {}
        final: GivenFinal | None = None
        variables, more = tuple[Variable, ...](), 0
        try:
            if not self.is_lost:
                hidden = self._names.hidden
                final, problem = self._ends.final(
                    self._calls.signal, may_answer=self._may_answer, hidden=hidden
                )
                error = error or problem
                variables, more = self._ends.variables(hidden, told)
            for name in () if self.is_lost else self._watch:
                text, _, is_nothing = self._value(name, watched=True)
                if text is not None and text.strip() and not is_nothing:
                    watched[name] = text
        except (MontyError, RuntimeError) as failure:
            error = error or self._judge(failure)
        return CodeResult(
            final=final,
            variables=variables,
            more_variables=more,
            stdout=self._output.text(),
            stdout_chars=self._output.chars,
            error=error,
            watched={} if self.is_lost else watched,
            repl_lost=self.is_lost,
        )

    def _is_signal(self, error: CodeError) -> bool:
        signal = self._calls.signal
        return signal is not None and (error.kind, error.message) == ("BaseException", str(signal))

    def _judge(self, failure: MontyError | RuntimeError) -> CodeError:
        """The error of a cell, and whether the session outlives it."""
        limits = self._settings.limits
        if isinstance(failure, MontyRuntimeError | MontySyntaxError):
            message = failure.display("msg")
            if message.startswith(TIME_LIMIT):
                return self._lost("CellTimeout", _TIMEOUT.format(seconds(limits.cell_timeout_s)))
            if message.startswith(MEMORY_LIMITS):
                return self._lost("MemoryError", _MEMORY.format(limits.memory_bytes / (1 << 20)))
            self.is_lost = self.is_lost or self._calls.is_stuck
            return code_error(failure, self._cells, self._calls.raised.kinds)
        if isinstance(failure, TimeUp) or (
            isinstance(failure, MontyCrashedError) and failure.timed_out
        ):
            return self._lost("CellTimeout", _TIMEOUT.format(seconds(limits.cell_timeout_s)))
        return self._lost("ReplDied", f"the sandbox's process ended: {failure}")

    def _lost(self, kind: str, message: str) -> CodeError:
        self.is_lost = True
        return CodeError(kind=kind, message=message, traceback=f"{kind}: {message}")

    # -- variables

    def _value(self, name: str, *, watched: bool = False) -> tuple[str | None, str | None, bool]:
        """A variable's text, or an error, or neither when there is none; and whether it is None.

        Raises what the sandbox raises when a limit is reached.
        """
        most = self._settings.max_value_chars
        if name == "answer" and not self._is_answer_there(watched):
            return None, None, False
        is_list = name != "P" and self._view.kind == "document_list"
        if name in VALUES - self._names.spoiled - {"history"} and not is_list:
            chars = self._view.len_chars()
            if chars > most:
                return None, _TOO_LONG.format(name, chars, most), False
            return encodable(self._view.text), None, False
        is_name = name.isidentifier() and not iskeyword(name)
        is_readable = name not in self._names.hidden - VALUES or name in ("answer", "context")
        if not is_name or not is_readable or name == "history":
            return None, None, False
        if name == "answer":
            source = "answer['content'] if _rlm_is_protocol(answer) else answer"
            read = f"{READ}({source}, {most})"
        else:  # a bare name could be one of Python's own, such as sum
            read = f"{READ}({name}, {most}) if {name!r} in locals() else None"
        try:
            found = self._evaluated(read)
        except MontyRuntimeError as failure:
            error = self._judge(failure)
            if self.is_lost:
                raise
            return None, f"{name} can't be shown: {error.kind}: {error.message}", False
        if found is None:
            return None, None, False
        text, chars, is_nothing = found
        if text is None:
            return None, _TOO_LONG.format(name, chars, most), False
        return text, None, is_nothing

    def _is_answer_there(self, watched: bool) -> bool:
        """Whether ``answer`` may be read: a dict of the protocol only when it has content, and
        when nobody just watches."""
        if not self._may_answer:
            return False
        is_protocol: bool = self._evaluated("_rlm_is_protocol(answer)")
        return not is_protocol or (not watched and self._evaluated("bool(answer['content'])"))

    def _evaluated(self, expression: str, inputs: dict[str, Any] | None = None) -> Any:
        self._allow(self._settings.limits.cell_timeout_s)
        done = self._calls.drive(self._names.feed(expression, inputs))
        assert isinstance(done, MontyComplete)
        return done.output

    def _all_types(self) -> Mapping[str, str]:
        types: dict[str, str] = self._evaluated(VARIABLES)
        return types

    def _show_vars(self, types: Mapping[str, str] | None = None) -> str:
        """The code's `SHOW_VARS`; its argument is inserted where the call is at the top level."""
        if not isinstance(types, dict | None):
            raise TypeError("SHOW_VARS takes no arguments")
        return show_vars(self._names.users(self._types if types is None else types))
