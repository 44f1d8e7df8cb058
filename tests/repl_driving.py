"""Driving a REPL in tests: cells, pauses and answers.

The questions that code asks are answered by a function from a prompt to a text or an `Answer`;
`answer_all` runs a cell to its end with one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from effects.context import Context
from effects.repls.base import Answer, Isolation, Paused, Repl, ReplLimits, ReplSettings
from rlm_fsm.values import CodeResult, HostCall, ReadResult

Answerer = Callable[[str], str | Answer]
T = TypeVar("T")

HAYSTACK = "The key is APPLE. " + "hay " * 50 + "The color is teal."


def upper(prompt: str) -> str:
    """The answerer that most tests use."""
    return prompt.upper()


def context_of(source: str | list[str] | Context) -> Context:
    """A context from a text or a list of documents."""
    match source:
        case str():
            return Context.from_text(source)
        case list():
            return Context.from_documents(source)
        case _:
            return source


def settings_of(
    *,
    cell_timeout_s: float = 30.0,
    memory_bytes: int = 1 << 30,
    output_chars: int = 1_000_000,
    parallel_subcalls: bool = False,
    max_value_chars: int = 16 << 20,
    scratch_bytes: int = 64 << 20,
    isolation: Isolation = "best-effort",
    seed: str = "",
    asks_clock: bool = False,
    without_layers: tuple[str, ...] = (),
    **profile: Any,
) -> ReplSettings:
    """`ReplSettings` from the keyword arguments of `ReplContract.make`.

    `profile` are settings that come from a profile: ``subcall_error batch_error variables``.
    """
    return ReplSettings(
        limits=ReplLimits(
            cell_timeout_s=cell_timeout_s,
            memory_bytes=memory_bytes,
            output_chars=output_chars,
            scratch_bytes=scratch_bytes,
            isolation=isolation,
        ),
        parallel_subcalls=parallel_subcalls,
        max_value_chars=max_value_chars,
        seed=seed,
        asks_clock=asks_clock,
        without_layers=without_layers,
        **profile,
    )


def answers_to(calls: tuple[HostCall, ...], answerer: Answerer) -> tuple[Answer, ...]:
    """The answers to the calls of a pause, in their order."""
    given = (answerer(call.prompt) for call in calls)
    return tuple(Answer(kind="text", text=a) if isinstance(a, str) else a for a in given)


async def answer_all(
    repl: Repl, code: str, answerer: Answerer = upper, watch: tuple[str, ...] = ()
) -> CodeResult:
    """Run a cell to its end; `answerer` answers whatever it asks."""
    step = await repl.start(code, watch)
    while isinstance(step, Paused):
        step = await repl.resume(answers_to(step.calls, answerer))
    return step


def failed(message: str) -> Answer:
    """The answer to a call that failed."""
    return Answer(kind="error", text=message)


def bad_fails(prompt: str) -> str | Answer:
    """An answerer that fails for prompts with the word ``bad``."""
    return failed("broken") if "bad" in prompt else prompt.upper()


class Driving:
    """Ways to run cells in a session. A backend gives `make`, and says where it differs."""

    subcall_error = "SubcallError"
    """What code catches when a subcall failed."""
    subcall_limit_error = "SubcallLimitError"
    """What code catches when a limit forbade a subcall."""
    keeps_lone_surrogates = True
    """Whether texts of code may hold lone surrogates."""
    keeps_variables_after_timeout = True
    """Whether a session survives a cell that was stopped at its time limit."""

    async def make(self, source: str | list[str] | Context, **settings: Any) -> Repl:
        """A session over a text, documents or a context; keywords as in `settings_of`."""
        raise NotImplementedError

    # Driving

    def session(
        self,
        scenario: Callable[[Repl], Awaitable[T]],
        source: str | list[str] | Context = HAYSTACK,
        **settings: Any,
    ) -> T:
        """Run a scenario with a session of its own, and close it."""

        async def main() -> T:
            repl = await self.make(source, **settings)
            try:
                return await scenario(repl)
            finally:
                await repl.close()

        return asyncio.run(main())

    def cells(
        self,
        *codes: str,
        answerer: Answerer = upper,
        watch: tuple[str, ...] = (),
        source: str | list[str] | Context = HAYSTACK,
        **settings: Any,
    ) -> list[CodeResult]:
        """Run cells one after the other in one session."""

        async def scenario(repl: Repl) -> list[CodeResult]:
            return [await answer_all(repl, code, answerer, watch) for code in codes]

        return self.session(scenario, source, **settings)

    def output(self, *codes: str, answerer: Answerer = upper, **options: Any) -> str:
        """What the last of the cells printed; none of them may fail."""
        results = self.cells(*codes, answerer=answerer, **options)
        for result in results:
            assert result.error is None, result.error
        return results[-1].stdout

    def pauses(
        self, code: str, answerer: Answerer = upper, **options: Any
    ) -> tuple[list[Paused], CodeResult]:
        """All pauses of a cell, and its result."""

        async def scenario(repl: Repl) -> tuple[list[Paused], CodeResult]:
            seen: list[Paused] = []
            step = await repl.start(code)
            while isinstance(step, Paused):
                seen.append(step)
                step = await repl.resume(answers_to(step.calls, answerer))
            return seen, step

        return self.session(scenario, **options)

    def read(self, code: str, name: str, **settings: Any) -> ReadResult:
        """Read a variable after a cell."""

        async def scenario(repl: Repl) -> ReadResult:
            await answer_all(repl, code)
            return await repl.read(name)

        return self.session(scenario, **settings)
