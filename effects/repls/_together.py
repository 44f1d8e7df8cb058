"""Questions of programs: the next one of each, and those of several asked in one pause.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

When everything in a cell waits, what is waited for is asked at once:

1. Questions that may be asked in parallel go together, in the order in which the programs began.
2. A list of questions that is to be asked one after the other keeps a pause of its own, after
   the others.
3. Equal prompts of one batch are asked once. Equal prompts of separate calls are asked as often
   as they are called, but for what a cache answers: as if they were called one after the other.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.repls._functions import Answer, Ask, Program
else:
    from _functions import Ask


def together(asks: "Sequence[Ask]") -> "tuple[Ask, list[int]]":
    """What to ask first, and of which of the programs that is, by their places in `asks`.

    `asks` holds what each program asks; it isn't empty.
    """
    side_by_side = [i for i, ask in enumerate(asks) if ask.parallel or len(ask.calls) <= 1]
    taken = side_by_side or [0]
    if len(taken) == 1:
        return asks[taken[0]], taken
    calls = [
        {**call, "dedupe": call["dedupe"] and len(asks[i].calls) > 1}
        for i in taken
        for call in asks[i].calls
    ]
    return Ask(calls, True), taken


def next_ask(
    program: "Program", answers: "list[Answer] | None", say: Callable[[str], object]
) -> "Ask":
    """Let a program go on until it asks; `answers` is None at its beginning, `say` prints a line.

    Raises what the program raises, `StopIteration` with its value at its end.
    """
    ask = next(program) if answers is None else program.send(answers)
    while True:
        if ask.said:
            say(ask.said)
        if ask.calls:
            return ask
        ask = program.send([])


def apart(asks: "Sequence[Ask]", answers: "Sequence[Answer]") -> "list[list[Answer]]":
    """The answers of each program, from those to all that were asked together."""
    if len(answers) != sum(len(ask.calls) for ask in asks):
        raise RuntimeError(f"{len(answers)} answers came, of another number of subcalls")
    parts: list[list[Answer]] = []
    start = 0
    for ask in asks:
        parts.append(list(answers[start : start + len(ask.calls)]))
        start += len(ask.calls)
    return parts
