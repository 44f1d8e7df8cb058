"""Subcalls that code awaits, in the sandbox.

A call of a function in its awaitable form is answered with a future at once. When all of the
code waits, the sandbox suspends with the futures that are open. Then what their programs ask is
asked in one pause (`_together`), and what they come to goes into the sandbox.

The sandbox's dump holds the numbers of open calls and no more. So a call is kept with its
arguments and its answers until the sandbox was told how it ended: run again with them, its
program is where it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic_monty import FunctionSnapshot, FutureSnapshot

from effects.repls._functions import Answer, Ask, Program
from effects.repls._monty_values import arguments
from effects.repls._monty_worker import Snapshot
from effects.repls._text import TextView
from effects.repls._together import apart, next_ask, together

End = Any
"""How a call ended, as the sandbox takes it."""
SavedCall = list[Any]
"""An open call as JSON: its number, name, arguments, arguments by name, and answers so far."""

_GONE = "this call was made in an earlier cell: await a subcall in the cell that makes it"


@dataclass(slots=True)
class _Call:
    """An open call."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    given: list[list[Answer]] = field(default_factory=list[list[Answer]])
    """The answers that its program was given, one list for each time it asked."""


class Later:
    """The awaited calls of a cell.

    `programs` are the functions by name, `ended` gives the sandbox's form of a value or an error,
    `say` prints a line.
    """

    def __init__(
        self,
        programs: Mapping[str, Callable[..., Program]],
        ended: Callable[[Any, Exception | None], End],
        view: TextView,
        say: Callable[[str], None],
    ) -> None:
        self._programs = programs
        self._ended = ended
        self._view = view
        self._say = say
        self._is_silent = False
        """Whether what programs say was said before."""
        self._calls: dict[int, _Call] = {}
        """The open calls by their numbers, which count up."""
        self._ends: dict[int, End] = {}
        """How those of them ended whose program has."""
        self._asks: dict[int, tuple[Program, Ask]] = {}
        """What the others ask."""

    def clear(self) -> None:
        """Forget all calls: their numbers begin anew with each cell."""
        self._calls.clear()
        self._ends.clear()
        self._asks.clear()

    def begin(self, call: FunctionSnapshot, name: str) -> Snapshot:
        """Take a call of a function, and let the code go on."""
        self._begin(call.call_id, _Call(name, *arguments(call, self._view)))
        return call.resume({"future": ...})

    def settle(self, waiting: FutureSnapshot) -> "Snapshot | Ask":
        """Tell the sandbox how calls ended that it waits for; else what is to be asked."""
        known = [number for number in waiting.pending_call_ids if number in self._ends]
        if not known:
            return self.request()
        # One at a time: of several, the sandbox wakes any one first.
        first = min(known)
        del self._calls[first]
        return waiting.resume({first: self._ends.pop(first)})

    def request(self) -> Ask:
        """What is to be asked. Raises `RuntimeError` when there is nothing."""
        if not self._asks:
            raise RuntimeError(_GONE)
        return self._next()[0]

    def answer(self, answers: list[Answer]) -> None:
        """Give the programs the answers to what is to be asked."""
        _, taken = self._next()
        parts = apart([self._asks[number][1] for number in taken], answers)
        for number, part in zip(taken, parts, strict=True):
            program, _ = self._asks.pop(number)
            self._go(number, program, part)

    def stop(self, end: End) -> None:
        """End all calls that ask something in the same way."""
        self._ends.update(dict.fromkeys(self._asks, end))
        self._asks.clear()

    # -- snapshots

    def saved(self) -> list[SavedCall]:
        """The open calls. Raises `ValueError` when one has arguments that can't be written."""
        return [
            [number, call.name, self._written(call.args), self._written(call.options), call.given]
            for number, call in sorted(self._calls.items())
        ]

    @property
    def asked_chars(self) -> int:
        """Length of all prompts that are to be asked."""
        return sum(len(one["prompt"]) for _, ask in self._asks.values() for one in ask.calls)

    def restore(self, saved: list[SavedCall]) -> None:
        """Be where `saved` was. Raises `ValueError` for what can't have been saved."""
        self.clear()
        self._is_silent = True
        try:
            for number, name, args, options, given in saved:
                self._begin(number, _Call(name, self._read(args), self._read(options)))
                for answers in given:
                    program, _ = self._asks.pop(number)
                    self._go(number, program, [(kind, text) for kind, text in answers])
        except (KeyError, TypeError) as error:
            raise ValueError(f"the calls aren't what they were: {error!r}") from error
        finally:
            self._is_silent = False

    def _written(self, value: Any) -> Any:
        """A value as JSON, in which a list means one of several things, by its first item."""
        kind = type(cast(object, value))
        if value is None or kind in (str, int, float, bool):
            return value
        if kind is list or kind is tuple:
            return [kind.__name__, *[self._written(item) for item in value]]
        if kind is dict:
            pairs = cast(dict[Any, Any], value).items()
            return ["dict", *[[self._written(key), self._written(item)] for key, item in pairs]]
        if value is self._view:
            return ["ctx"]
        raise ValueError(f"a value of type {kind.__name__} can't be written")

    def _read(self, written: Any) -> Any:
        match written:
            case ["list", *items]:
                return [self._read(item) for item in items]
            case ["tuple", *items]:
                return tuple([self._read(item) for item in items])
            case ["dict", *pairs]:
                return {self._read(key): self._read(value) for key, value in pairs}
            case ["ctx"]:
                return self._view
            case _:
                return written

    # -- programs

    def _next(self) -> tuple[Ask, list[int]]:
        """What to ask first, and for which calls."""
        numbers = sorted(self._asks)
        request, places = together([self._asks[number][1] for number in numbers])
        return request, [numbers[place] for place in places]

    def _begin(self, number: int, call: _Call) -> None:
        self._calls[number] = call
        try:
            program = self._programs[call.name](*call.args, **call.options)
        except TypeError as error:
            self._ends[number] = self._ended(None, error)
        else:
            self._go(number, program, None)

    def _go(self, number: int, program: Program, answers: list[Answer] | None) -> None:
        """Let a program go on; `answers` is None at its beginning."""
        if answers is not None:
            self._calls[number].given.append(answers)
        try:
            ask = next_ask(program, answers, _unsaid if self._is_silent else self._say)
        except StopIteration as stop:
            self._ends[number] = self._ended(stop.value, None)
        except Exception as error:
            self._ends[number] = self._ended(None, error)
        else:
            self._asks[number] = (program, ask)


def _unsaid(_: str) -> None:
    """Says nothing."""
