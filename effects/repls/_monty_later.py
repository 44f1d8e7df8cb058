"""Subcalls that code awaits, in the sandbox.

A call of a function in its awaitable form is answered with a future at once. When all of the
code waits, the sandbox suspends with the futures that are open. Then what their programs ask is
asked in one pause (`_together`), and what they come to goes into the sandbox.
"""

from collections.abc import Callable
from typing import Any

from pydantic_monty import FunctionSnapshot, FutureSnapshot

from effects.repls._functions import Answer, Ask, Program
from effects.repls._monty_worker import Snapshot
from effects.repls._together import apart, together

End = Any
"""How a call ended, as the sandbox takes it."""

_GONE = "this call was made in an earlier cell: await a subcall in the cell that makes it"


class Later:
    """The awaited calls of a cell. `ended` gives the sandbox's form of a value or an error."""

    def __init__(self, ended: Callable[[Any, Exception | None], End]) -> None:
        self._ended = ended
        self._ends: dict[int, End] = {}
        """How calls ended that the sandbox hasn't been told of."""
        self._asks: dict[int, tuple[Program, Ask]] = {}
        """What the other calls ask, by their numbers, which count up."""

    def clear(self) -> None:
        """Forget all calls: their numbers begin anew with each cell."""
        self._ends.clear()
        self._asks.clear()

    def begin(self, call: FunctionSnapshot, make: Callable[..., Program]) -> Snapshot:
        """Take a call, and let the code go on."""
        try:
            self._go(call.call_id, make(*call.args, **call.kwargs), None)
        except TypeError as error:
            self._ends[call.call_id] = self._ended(None, error)
        return call.resume({"future": ...})

    def settle(self, waiting: FutureSnapshot) -> "Snapshot | Ask":
        """Tell the sandbox how calls ended that it waits for; else what is to be asked."""
        known = [number for number in waiting.pending_call_ids if number in self._ends]
        if known:
            # One at a time: of several, the sandbox wakes any one first.
            first = min(known)
            return waiting.resume({first: self._ends.pop(first)})
        if not self._asks:
            raise RuntimeError(_GONE)
        request, _ = self._next()
        return request

    def answer(self, answers: list[Answer]) -> None:
        """Give the programs the answers to what `settle` said is to be asked."""
        _, taken = self._next()
        parts = apart([self._asks[number][1] for number in taken], answers)
        for number, part in zip(taken, parts, strict=True):
            program, _ = self._asks.pop(number)
            self._go(number, program, part)

    def _next(self) -> tuple[Ask, list[int]]:
        """What to ask first, and for which calls."""
        numbers = sorted(self._asks)
        request, places = together([self._asks[number][1] for number in numbers])
        return request, [numbers[place] for place in places]

    def _go(self, number: int, program: Program, answers: list[Answer] | None) -> None:
        """Let a program go on; `answers` is None at its beginning."""
        try:
            ask = next(program) if answers is None else program.send(answers)
            while not ask.calls:
                ask = program.send([])
        except StopIteration as stop:
            self._ends[number] = self._ended(stop.value, None)
        except Exception as error:
            self._ends[number] = self._ended(None, error)
        else:
            self._asks[number] = (program, ask)
