"""What a REPL is to the interpreter.

A REPL is a session of one frame: variables survive from cell to cell, also across a cell that
raised. Code in it is a coroutine of the machine: when it asks the host something, `start` and
`resume` return `Paused`, and the cell goes on when it is resumed with the outcomes.

Calls that only read the context (`peek`, `ctx.find` ...) are answered by the backend itself.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from rlm_fsm.errors import RLMError, UsageError
from rlm_fsm.values import CodeResult, HostCall, Outcome, ReadResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The cell waits for the outcomes of `calls`."""

    calls: tuple[HostCall, ...]
    parallel: bool = True


Answer = Outcome
"""The outcome of one host call: what a paused cell is resumed with."""


class Repl(Protocol):
    """One session. Not for concurrent use: one cell at a time."""

    async def open(self) -> None:
        """Start what the session needs, so that the first cell doesn't wait for it. Optional:
        `start` does it too. Raises `ReplUnavailable`."""
        ...

    async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused | CodeResult:
        """Run a cell until it pauses or ends. `watch` names variables wanted with the result."""
        ...

    async def resume(self, answers: tuple[Outcome, ...]) -> Paused | CodeResult:
        """Go on with the paused cell; one answer per call, in their order."""
        ...

    async def read(self, name: str) -> ReadResult:
        """A variable as text, for a final answer."""
        ...

    async def close(self) -> None:
        """End the session and everything it started. Safe to call twice, and in mid-cell."""
        ...


class ReplUnavailable(RLMError):
    """No session could be had: the backend's process did not start, or isn't installed."""


Isolation = Literal["best-effort", "strict"]
"""What a session does where the system can't close its sandbox. ``best-effort``: it starts, and
what is missing is recorded. ``strict``: it doesn't start unless files and network are closed."""


NEEDS_LINUX = "repl_backend='python' needs Linux, which keeps its code in; use repl_backend='monty'"
"""Why there is no `python` backend on another system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplLimits:
    """What a cell may use."""

    cell_timeout_s: float = 30.0
    """Seconds of computing per cell. Time spent waiting for subcalls isn't counted."""
    memory_bytes: int = 1 << 30
    """Memory beyond the context."""
    output_chars: int = 1_000_000
    """Characters of output kept per cell. What the model is shown is the profile's choice."""
    scratch_bytes: int = 64 << 20
    """Bytes of files that a session of the `python` backend may have at a time. Where it has no
    root of its own this holds for each file, and their number is not limited."""
    isolation: Isolation = "best-effort"
    """See `Isolation`; ``rlm-fsm doctor`` says what this machine offers."""

    def __post_init__(self) -> None:
        if not self.cell_timeout_s > 0:
            raise UsageError(
                f"ReplLimits(cell_timeout_s={self.cell_timeout_s!r}): give seconds above 0"
            )
        if self.memory_bytes < 16 << 20:
            raise UsageError(
                f"ReplLimits(memory_bytes={self.memory_bytes!r}): give at least 16 MiB (1 << 24)"
            )
        if self.output_chars < 1:
            raise UsageError(f"ReplLimits(output_chars={self.output_chars!r}): give 1 or more")
        if self.scratch_bytes < 1 << 16:
            raise UsageError(
                f"ReplLimits(scratch_bytes={self.scratch_bytes!r}): give at least 64 KiB (1 << 16)"
            )
        if self.isolation not in get_args(Isolation):
            raise UsageError(
                f"ReplLimits(isolation={self.isolation!r}): choose 'best-effort' or 'strict'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplSettings:
    """What a session's functions need to know of the run."""

    limits: ReplLimits = ReplLimits()
    parallel_subcalls: bool = False
    """Whether `ask_chunks` and `llm_query_batch` are parallel unless told otherwise."""
    max_value_chars: int = 16 << 20
    """Longest variable that `read` and `watch` hand over."""
    seed: str = ""
    """Where chance and the calendar of the session begin, see `effects.repls._fixed`; empty: they
    are the system's."""
    without_layers: tuple[str, ...] = ()
    """Layers of the sandbox to leave out, by the names of `effects.sandbox.report`: for tests, and
    for a machine on which one of them does harm."""
