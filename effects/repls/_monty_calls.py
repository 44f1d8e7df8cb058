"""What the host answers when the sandbox suspends.

The sandbox suspends at each name and call that it doesn't know:

- what only reads the context, or its arguments, is answered at once;
- a function that asks sub-models starts its program, which stays here while the cell is paused;
  each answer goes into the program, and what the program returns or raises goes into the cell;
- an unknown name is a `NameError`, worded as Python does;
- what the runtime raises becomes an error of the sandbox (`_monty_raised`).
"""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic_monty import (
    FunctionSnapshot,
    FutureSnapshot,
    MontyComplete,
    MontyRuntimeError,
    NameLookupSnapshot,
)

from effects.repls import _asking, _finals, _functions
from effects.repls._finals import Signal
from effects.repls._functions import Ask, Program, Styles
from effects.repls._library import Library
from effects.repls._monty_bridges import LATER, TEXT_METHOD, TEXT_METHODS
from effects.repls._monty_clock import Clock
from effects.repls._monty_later import Later, SavedCall
from effects.repls._monty_raised import ERROR_KINDS, Raised
from effects.repls._monty_values import ATTRIBUTES, arguments, encodable, stub
from effects.repls._monty_worker import Snapshot
from effects.repls._searcher import Searcher
from effects.repls._text import METHODS, TextView
from effects.repls._together import next_ask
from effects.repls.base import Answer, Paused, ReplSettings, stop_of
from rlm_fsm.errors import UsageError
from rlm_fsm.values import HostCall

VALUES = frozenset({"P", "context", "context_0", "history"})
"""Names of values that are copied into the sandbox when code first names them."""
Given = list[list[_functions.Answer]]
"""The answers that a program was given, one list for each time it asked."""

_COMPILED = re.compile(r"re\.compile\((['\"]).*\)", re.DOTALL)


class TimeUp(RuntimeError):
    """The cell's time is over while the sandbox waits for the host."""


class _Waiting(NamedTuple):
    """A suspension of the sandbox that a pause is of."""

    at: FunctionSnapshot | FutureSnapshot
    program: Program | None
    """The program of the call; None where calls are awaited."""
    asked: int
    """How many answers are due."""
    given: Given


class Calls:
    """The runtime's functions and the call that the sandbox waits at.

    Everything that goes on with the sandbox raises what the sandbox raises.
    """

    def __init__(
        self,
        view: TextView,
        settings: ReplSettings,
        show_vars: Callable[..., str],
        say: Callable[[str], None],
    ) -> None:
        """`say` prints a line among what the cell prints."""
        self._view = view
        self._say = say
        self.deadline = 0.0
        """When `drive` gives up, by `time.monotonic`. The sandbox counts only its own time, and
        none for what the host does."""
        # Half of the time that is left, so that code can still react.
        self.searcher = Searcher(
            view,
            allowed_s=lambda: (self.deadline - time.monotonic()) / 2,
            memory_bytes=settings.limits.memory_bytes,
        )
        self._programs = _asking.programs(
            view,
            parallel_subcalls=settings.parallel_subcalls,
            styles=Styles(settings.subcall_error, settings.batch_error),
            tools=settings.tool_forms(),
        )
        self.asking = frozenset(self._programs)
        """Names of the functions that ask sub-models."""
        self.library = Library(
            allowed_s=lambda: (self.deadline - time.monotonic()) / 2,
            memory_bytes=settings.limits.memory_bytes,
        )
        self.clock = Clock(settings)
        self.raised = Raised()
        """The runtime's errors that the cell has met."""
        self._later = Later(self._programs, self._ended, view, say)
        self._awaited = {LATER + name: name for name in self._programs}
        self._plain: dict[str, Callable[..., Any]] = {
            **_functions.plain(view),
            **self.library.functions(),
            **self.raised.functions(),
            **{TEXT_METHOD.format(name): getattr(view.text, name) for name in TEXT_METHODS},
            "SHOW_VARS": show_vars,
            **{f"ctx.{name}": getattr(view, name) for name in METHODS},
            "ctx.find": self._find,
            "SUBMIT": _submit,
            "FINAL": _signals("FINAL"),
            "FINAL_VAR": _signals("FINAL_VAR"),
            "done": _signals("done"),
        }
        self._waiting: _Waiting | None = None
        self.functions = frozenset({*self._programs, *self._plain, *self._awaited})
        """Names of the functions; methods of `ctx` as ``ctx.find``."""
        self.names = self.functions | {"ctx", *ERROR_KINDS} | VALUES | {"answer"}
        """All names of the runtime."""
        self.bound: set[str] = set()
        """Names of `VALUES` that the sandbox has asked for and keeps now."""
        self.signal: Signal | None = None
        """The final answer that the cell has given by a call."""
        self.is_stuck = False
        """True when the sandbox waits for an answer that it can't be given."""
        self.history: list[dict[str, str]] = []
        """The conversation, for `history`."""

    @property
    def is_paused(self) -> bool:
        """Whether a program waits for answers."""
        return self._waiting is not None

    @property
    def has_caught(self) -> bool:
        """Whether the paused cell has caught what was to end it, a final answer (which may be any
        value) or a stop."""
        return self.signal is not None or self.raised.is_stopped

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
                case FunctionSnapshot() if self.clock.reads(step):
                    step = self._proceed(step, self.clock.read(step), [])
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
        at, program, asked, given = self._waiting
        if len(answers) != asked:
            raise UsageError(f"the paused cell waits for {asked} answers, not {len(answers)}")
        self._waiting = None
        if (why := stop_of(answers)) is not None:
            return lambda: self._stopped(at, why)
        sent: list[_functions.Answer] = [(answer.kind, answer.text) for answer in answers]
        if isinstance(at, FutureSnapshot):
            return lambda: self._answered(at, sent)
        assert program is not None, "a call has a program"
        return lambda: self._proceed(at, program, [*given, sent])

    def saved(self) -> tuple[bytes, Given, list[SavedCall]]:
        """What brings the pause back: the sandbox's dump, the answers so far of the program that
        waits, and the calls that are awaited.

        Raises `ValueError` when one of these has arguments that can't be written.
        """
        assert self._waiting is not None, "nothing waits"
        return self._waiting.at.dump(), self._waiting.given, self._later.saved()

    @property
    def asked_chars(self) -> int:
        """Length of the prompts of calls that are awaited."""
        return self._later.asked_chars

    def wait_again(self, step: object, given: Given, later: list[SavedCall]) -> Paused:
        """Be at the pause again that `saved` wrote down, the sandbox being there already.

        Raises `ValueError` or `RuntimeError` when nothing waits there.
        """
        self._later.restore(later)
        if isinstance(step, FutureSnapshot):
            return self._wait(step, None, self._later.request(), [])
        if not isinstance(step, FunctionSnapshot):
            raise ValueError("the sandbox waits for something else")
        try:
            program = self._program_of(step)
            for number in range(len(given)):
                _next_ask(program, given[:number], _unsaid)
            ask = _next_ask(program, given, _unsaid)
        except Exception as error:
            raise ValueError(f"the program doesn't ask what it asked: {error!r}") from error
        return self._wait(step, program, ask, given)

    def _program_of(self, step: FunctionSnapshot) -> Program:
        if self.clock.reads(step):
            return self.clock.read_again(step)
        args, options = arguments(step, self._view)
        return self._programs[step.function_name](*args, **options)

    def value(self, name: str) -> Any:
        """What a name of `VALUES` stands for."""
        if name == "history":
            return self.history
        if name == "P" or self._view.kind != "document_list":
            return self._view.text
        return list(self._view)

    def begin_cell(self) -> None:
        """Forget what the last cell left."""
        self.raised.clear()
        self.clock.calendar.begin_cell()
        self.signal = None
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
        elif name in VALUES:
            self.bound.add(name)
            return lookup.resume(value=encodable(self.value(name)))
        elif name == "answer":
            return lookup.resume(value=_finals.fresh_answer())
        if name in self.functions:
            return lookup.resume(value=stub(name))
        return lookup.resume()

    def _call(self, call: FunctionSnapshot) -> Snapshot | Paused:
        name = call.function_name if call.object_id is None else f"ctx.{call.function_name}"
        if (awaited := self._awaited.get(name)) is not None:
            return self._later.begin(call, awaited)
        args, options = arguments(call, self._view)
        if (begin := self._programs.get(name)) is not None:
            try:
                program = begin(*args, **options)
            except TypeError as error:
                return self._throw(call, error)
            return self._proceed(call, program, [])
        try:
            value = self._function(name)(*args, **options)
        except Signal as signal:
            self.signal = self.signal or signal
            return call.resume({"exc_type": "BaseException", "message": str(signal)})
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

    def _proceed(self, call: FunctionSnapshot, program: Program, given: Given) -> Snapshot | Paused:
        """Let a program go on with the last answers that it was given."""
        try:
            ask = _next_ask(program, given, self._say)
        except StopIteration as stop:
            value = stop.value
        except Exception as error:
            return self._throw(call, error)
        else:
            return self._wait(call, program, ask, given)
        return self._reply(call, value)

    def _settle(self, waiting: FutureSnapshot) -> Snapshot | Paused:
        """Go on with code all of which waits, or ask what it waits for."""
        step = self._later.settle(waiting)
        return self._wait(waiting, None, step, []) if isinstance(step, Ask) else step

    def _answered(
        self, waiting: FutureSnapshot, answers: list[_functions.Answer]
    ) -> Snapshot | Paused:
        self._later.answer(answers)
        return self._settle(waiting)

    def _stopped(self, at: FunctionSnapshot | FutureSnapshot, why: str) -> Snapshot | Paused:
        end = self.raised.stopped(why)
        if isinstance(at, FunctionSnapshot):
            return at.resume(end)
        self._later.stop(end)
        return self._settle(at)

    def _wait(
        self,
        at: FunctionSnapshot | FutureSnapshot,
        program: Program | None,
        ask: Ask,
        given: Given,
    ) -> Paused:
        self._waiting = _Waiting(at, program, len(ask.calls), given)
        calls = tuple([HostCall(**arguments) for arguments in ask.calls])
        return Paused(calls=calls, parallel=ask.parallel)

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
        return {"return_value": encodable(value)} if error is None else self.raised.ended(error)

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


def _submit(*values: Any, **fields: Any) -> None:
    raise Signal("SUBMIT", *_finals.submitted(values, fields))


def _signals(form: str) -> Callable[..., None]:
    def give(*answer: Any, **options: Any) -> None:
        raise Signal(form, _finals.one_value(form, answer, options))

    return give


def _next_ask(program: Program, given: Given, say: Callable[[str], None]) -> Ask:
    """Let a program go on, from its beginning or with the last answers, until it asks."""
    return next_ask(program, given[-1] if given else None, say)


def _unsaid(_: str) -> None:
    """Says nothing: it was said before the session was written down."""
