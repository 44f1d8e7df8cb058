"""What the host answers when the sandbox suspends.

The sandbox suspends at each name and call that it doesn't know:

- what only reads the context, or its arguments, is answered at once;
- a function that asks sub-models starts its program, which stays here while the cell is paused;
  each answer goes into the program, and what the program returns or raises goes into the cell;
- an unknown name is a `NameError`, worded as Python does.

Classes of exceptions can't be made in the sandbox. `SubcallError` is its `RuntimeError`, and
`SubcallLimitError` its `RecursionError`, a subclass: each can be caught by name, and both by the
first. They carry no `results`. An error that isn't caught is shown by its right name.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from pydantic_monty import (
    FunctionSnapshot,
    FutureSnapshot,
    MontyComplete,
    MontyRuntimeError,
    NameLookupSnapshot,
)

from effects.repls import _functions
from effects.repls._functions import Program, SubcallError, SubcallLimitError
from effects.repls._library import Library
from effects.repls._monty_bridges import LATER, TEXT_METHOD, TEXT_METHODS
from effects.repls._monty_later import Later
from effects.repls._monty_values import ATTRIBUTES, encodable, stub
from effects.repls._monty_worker import Snapshot
from effects.repls._searcher import Searcher
from effects.repls._text import METHODS, TextView
from effects.repls.base import Answer, Paused, ReplSettings
from rlm_fsm.errors import UsageError
from rlm_fsm.values import HostCall

ERRORS = "SubcallError = RuntimeError\nSubcallLimitError = RecursionError\n"
"""Source that binds the names of the runtime's errors."""

_COMPILED = re.compile(r"re\.compile\((['\"]).*\)", re.DOTALL)


class TimeUp(RuntimeError):
    """The cell's time is over while the sandbox waits for the host."""


class Calls:
    """The runtime's functions and the call that the sandbox waits at.

    Everything that goes on with the sandbox raises what the sandbox raises.
    """

    def __init__(
        self, view: TextView, settings: ReplSettings, show_vars: Callable[..., str]
    ) -> None:
        self._view = view
        self.deadline = 0.0
        """When `drive` gives up, by `time.monotonic`. The sandbox counts only its own time, and
        none for what the host does."""
        # Half of the time that is left, so that code can still react.
        self.searcher = Searcher(
            view,
            allowed_s=lambda: (self.deadline - time.monotonic()) / 2,
            memory_bytes=settings.limits.memory_bytes,
        )
        self._programs = _functions.programs(view, parallel_subcalls=settings.parallel_subcalls)
        self.asking = frozenset(self._programs)
        """Names of the functions that ask sub-models."""
        self.library = Library(
            allowed_s=lambda: (self.deadline - time.monotonic()) / 2,
            memory_bytes=settings.limits.memory_bytes,
        )
        self._later = Later(self._ended)
        self._awaited = {LATER + name: program for name, program in self._programs.items()}
        self._plain: dict[str, Callable[..., Any]] = {
            **_functions.plain(view),
            **self.library.functions(),
            **{TEXT_METHOD.format(name): getattr(view.text, name) for name in TEXT_METHODS},
            "SHOW_VARS": show_vars,
            **{f"ctx.{name}": getattr(view, name) for name in METHODS},
            "ctx.find": self._find,
        }
        self._waiting: tuple[FunctionSnapshot | FutureSnapshot, Program | None, int] | None = None
        """The suspension that a pause is of; its program, or None for calls that are awaited;
        the number of answers."""
        self.functions = frozenset({*self._programs, *self._plain, *self._awaited})
        """Names of the functions; methods of `ctx` as ``ctx.find``."""
        self.names = self.functions | {"P", "ctx", "SubcallError", "SubcallLimitError"}
        """All names of the runtime."""
        self.text_was_bound = False
        """Whether the sandbox has asked for `P` and keeps it now."""
        self.is_stuck = False
        """True when the sandbox waits for an answer that it can't be given."""
        self.unknown: set[str] = set()
        """Names that were looked up in vain; for others to clear."""
        self.raised: dict[str, str] = {}
        """Class names of the subcall errors by message; for others to clear."""

    @property
    def is_paused(self) -> bool:
        """Whether a program waits for answers."""
        return self._waiting is not None

    def drive(self, step: Snapshot | Paused) -> Paused | MontyComplete:
        """Answer what the host can, until the cell asks a sub-model or ends.

        Raises `TimeUp` at the deadline.
        """
        while True:
            if time.monotonic() > self.deadline and not isinstance(step, Paused | MontyComplete):
                raise TimeUp
            match step:
                case Paused() | MontyComplete():
                    return step
                case NameLookupSnapshot():
                    step = self._look_up(step)
                case FunctionSnapshot(is_os_function=True):
                    step = step.resume_auto()
                case FunctionSnapshot():
                    step = self._call(step)
                case FutureSnapshot():
                    step = self._settle(step)

    def take(self, answers: tuple[Answer, ...]) -> Callable[[], Snapshot | Paused]:
        """What goes on with the program that waits, once it is called.

        Raises `UsageError` for a wrong number of answers.
        """
        if self._waiting is None:
            raise UsageError("there is no paused cell to resume: start one first")
        call, program, count = self._waiting
        if len(answers) != count:
            raise UsageError(f"the paused cell waits for {count} answers, not {len(answers)}")
        self._waiting = None
        sent: list[_functions.Answer] = [(answer.kind, answer.text) for answer in answers]
        if isinstance(call, FutureSnapshot):
            return lambda: self._answered(call, sent)
        assert program is not None
        return lambda: self._proceed(call, program, sent)

    def begin_cell(self) -> None:
        """Forget what the last cell left."""
        self.raised.clear()
        self._later.clear()

    def kill(self) -> None:
        """End what runs for the sandbox in other processes. May be called from any thread."""
        self.searcher.kill()
        self.library.kill()

    def close(self) -> None:
        """End the other processes. Safe to call twice."""
        self.searcher.close()
        self.library.close()

    # -- the kinds of suspension

    def _look_up(self, lookup: NameLookupSnapshot) -> Snapshot:
        """Answer for a name that is read and not called, or for an attribute of `ctx`."""
        name = lookup.variable_name
        if lookup.object_id is not None:
            if name in ATTRIBUTES:
                return lookup.resume(value=encodable(getattr(self._view, name)))
            name = f"ctx.{name}"
        elif name == "P":
            self.text_was_bound = True
            return lookup.resume(value=encodable(self._view.text))
        if name in self.functions:
            return lookup.resume(value=stub(name))
        self.unknown.add(name)
        return lookup.resume()

    def _call(self, call: FunctionSnapshot) -> Snapshot | Paused:
        name = call.function_name if call.object_id is None else f"ctx.{call.function_name}"
        if (begin := self._awaited.get(name)) is not None:
            return self._later.begin(call, begin)
        if (begin := self._programs.get(name)) is not None:
            try:
                program = begin(*call.args, **call.kwargs)
            except TypeError as error:
                return self._throw(call, error)
            return self._proceed(call, program, None)
        try:
            value = self._function(name)(*call.args, **call.kwargs)
        except Exception as error:
            return self._throw(call, error)
        return self._reply(call, value)

    def _function(self, name: str) -> Callable[..., Any]:
        if name in self._plain:
            return self._plain[name]
        owner, dot, attribute = name.partition(".")
        if dot:
            raise AttributeError(f"'{owner}' has no attribute {attribute!r}")
        raise NameError(f"name {name!r} is not defined")

    def _proceed(
        self, call: FunctionSnapshot, program: Program, answers: list[_functions.Answer] | None
    ) -> Snapshot | Paused:
        """Let a program go on; `answers` is None at its beginning."""
        try:
            ask = next(program) if answers is None else program.send(answers)
            while not ask.calls:
                ask = program.send([])
        except StopIteration as stop:
            value = stop.value
        except Exception as error:
            return self._throw(call, error)
        else:
            self._waiting = (call, program, len(ask.calls))
            calls = tuple([HostCall(**arguments) for arguments in ask.calls])
            return Paused(calls=calls, parallel=ask.parallel)
        return self._reply(call, value)

    def _settle(self, waiting: FutureSnapshot) -> Snapshot | Paused:
        """Go on with code all of which waits, or ask what it waits for."""
        step = self._later.settle(waiting)
        if not isinstance(step, _functions.Ask):
            return step
        self._waiting = (waiting, None, len(step.calls))
        calls = tuple([HostCall(**arguments) for arguments in step.calls])
        return Paused(calls=calls, parallel=step.parallel)

    def _answered(
        self, waiting: FutureSnapshot, answers: list[_functions.Answer]
    ) -> Snapshot | Paused:
        self._later.answer(answers)
        return self._settle(waiting)

    # -- answers

    def _reply(self, call: FunctionSnapshot, value: Any) -> Snapshot:
        try:
            return call.resume({"return_value": value})
        except MontyRuntimeError as error:
            # What the code did has frames. Without them the value itself was refused, and the
            # call still waits; or a limit was reached, and a second answer is refused too.
            if error.traceback():
                raise
            refused = error
        try:
            if refused.display("type-msg").startswith("UnicodeEncodeError"):
                return call.resume({"return_value": encodable(value)})
            return call.resume({"exception": refused.exception()})
        except RuntimeError:
            self.is_stuck = "exceeds the maximum" in str(refused)
            raise refused from None

    def _throw(self, call: FunctionSnapshot, error: Exception) -> Snapshot:
        return call.resume(self._ended(None, error))

    def _ended(self, value: Any, error: Exception | None) -> Any:
        """How a call ended, as the sandbox takes it."""
        if error is None:
            return {"return_value": encodable(value)}
        if not isinstance(error, SubcallError):
            return {"exception": error}
        message = encodable(str(error))
        self.raised[message] = type(error).__name__
        is_limit = isinstance(error, SubcallLimitError)
        return {"exc_type": "RecursionError" if is_limit else "RuntimeError", "message": message}

    def _find(self, pattern: Any, *args: Any, **options: Any) -> list[tuple[int, int, str]]:
        started_s = self.searcher.starting_s
        try:
            found = self.searcher.find(pattern, *args, **options)
        finally:
            self.deadline += self.searcher.starting_s - started_s
        # A compiled pattern arrives as its repr, which as a literal text finds nothing.
        if not found and isinstance(pattern, str) and _COMPILED.fullmatch(pattern):
            raise TypeError("pattern must be a text (str) here: ctx.find(text, regex=True)")
        return found
