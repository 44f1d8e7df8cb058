"""What a REPL is to the interpreter.

A REPL is a session of one frame: variables survive from cell to cell, also across a cell that
raised. Code in it is a coroutine of the machine: when it asks the host something, `start` and
`resume` return `Paused`, and the cell goes on when it is resumed with the outcomes.

Calls that only read the context (`peek`, `ctx.find` ...) are answered by the backend itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from rlm_fsm.errors import RLMError, UsageError
from rlm_fsm.profile import Variables
from rlm_fsm.toolspec import ToolSpec
from rlm_fsm.values import CodeResult, HostCall, Message, Outcome, ReadResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The cell waits for the outcomes of `calls`."""

    calls: tuple[HostCall, ...]
    parallel: bool = True

    @property
    def asks_time(self) -> bool:
        """Whether one of the calls asks what time it is."""
        return any(call.kind == "clock" for call in self.calls)


Answer = Outcome
"""The outcome of one host call: what a paused cell is resumed with."""


def stop_of(answers: Sequence[Answer]) -> str | None:
    """Why a paused cell is to end; None where it is to go on."""
    return next((answer.text for answer in answers if answer.kind == "stop"), None)


class Repl(Protocol):
    """One session. Not for concurrent use: one cell at a time."""

    async def open(self) -> None:
        """Start what the session needs, so that the first cell doesn't wait for it. Optional:
        `start` does it too. Raises `ReplUnavailable`."""
        ...

    def remember(self, messages: Sequence[Message]) -> None:
        """What code finds as `history` in the cells from here on: the conversation so far.

        Kept by reference and handed over with cells that name `history`.
        """
        ...

    async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused | CodeResult:
        """Run a cell until it pauses or ends. `watch` names variables wanted with the result."""
        ...

    async def resume(self, answers: tuple[Outcome, ...]) -> Paused | CodeResult:
        """Go on with the paused cell; one answer per call, in their order.

        Answers of kind ``stop`` end it, see `stop_of`: what waits for them raises, in the code, an
        error that ``except Exception`` doesn't catch. The result's error is then ``CellStopped``
        with their text, and the session goes on with the variables set so far. Code that catches
        even that, and is to stop a second time, is ended with its session.
        """
        ...

    async def read(self, name: str) -> ReadResult:
        """A variable as text, for a final answer."""
        ...

    async def close(self) -> None:
        """End the session and everything it started. Safe to call twice, and in mid-cell."""
        ...


@runtime_checkable
class SavesSessions(Protocol):
    """What a backend has besides `Repl` when it can write its sessions down.

    A snapshot is a cache: a session comes back without one too, by running its cells again.
    """

    async def snapshot(self) -> bytes | None:
        """The session as it is now, between two cells or at a pause; None when it can't be
        written down. The session goes on as if nothing had been."""
        ...

    async def restore(self, data: bytes) -> Paused | None:
        """Make this new session what `snapshot` has written: at its pause, or None between two
        cells.

        Raises `SnapshotRefused` when that can't be: the session is then new and empty again.
        """
        ...


class SnapshotRefused(RLMError):
    """A snapshot isn't used: it is damaged, or was written by another version or under other
    limits. The cells are run again instead."""


class ReplUnavailable(RLMError):
    """No session could be had: the backend's process did not start, or isn't installed."""


Isolation = Literal["best-effort", "strict"]
"""What a session does where the system can't close its sandbox. ``best-effort``: it starts, and
what is missing is recorded. ``strict``: it doesn't start unless files and network are closed."""


NEEDS_LINUX = "repl_backend='python' needs Linux, which keeps its code in; use repl_backend='monty'"
"""Why there is no `python` backend on another system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRule:
    """When a session is written down, so that a resume need not run its cells again.

    Nothing is written for runs that compute little, and little for the others: measured in
    November 2026, a `monty` session of 10 KB takes 1 ms, one of 1 MB 25 ms, one of 10 MB 0.3 s,
    next to the calls of the run.
    """

    after_s: float = 1.0
    """Seconds of computing, since a frame's last snapshot, from which on one is worth it.
    ``math.inf``: never."""
    most_share: float = 0.05
    """Most time that snapshots may take, as a share of the time that cells compute: after one
    that took long, the next one waits for so much more computing."""
    most_bytes: int = 16 << 20
    """Larger snapshots, compressed, aren't kept."""

    def __post_init__(self) -> None:
        if not self.after_s >= 0:
            raise UsageError(f"SnapshotRule(after_s={self.after_s!r}): give seconds, 0 or more")
        if not self.most_share > 0:
            raise UsageError(f"SnapshotRule(most_share={self.most_share!r}): give a share above 0")
        if self.most_bytes < 0:
            raise UsageError(f"SnapshotRule(most_bytes={self.most_bytes!r}): give bytes, 0 or more")


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
    snapshots: SnapshotRule = SnapshotRule()
    """When a session is written down, see below. No limit of a cell."""

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
    subcall_error: str = ""
    """What a failed `llm_query` returns, with ``{message}``; empty: it raises."""
    batch_error: str = ""
    """What stands for a failed subcall in the list of a batch; empty: the batch raises."""
    variables: Variables = "changed"
    """Which variables a cell's result tells of, see `Profile.variables`."""
    tools: tuple[ToolSpec, ...] = ()
    """Functions of the caller's program that code may call."""
    seed: str = ""
    """Where chance and the calendar of the session begin, see `effects.repls._fixed`; empty: they
    are the system's."""
    asks_clock: bool = False
    """Whether code that has a seed, and asks for the time, is told the true one, by a host call of
    kind ``clock``. Runs of rules 1 have the calendar that begins with the seed's."""
    without_layers: tuple[str, ...] = ()
    """Layers of the sandbox to leave out, by the names of `effects.sandbox.report`: for tests, and
    for a machine on which one of them does harm."""

    def tool_forms(self) -> list[dict[str, Any]]:
        """The tools as plain data, for `effects.repls._tools`."""
        return [
            {
                "name": tool.name,
                "signature": tool.signature,
                "doc": tool.doc,
                "max_chars": tool.max_chars,
                "parameters": [[p.name, p.kind, p.is_required] for p in tool.parameters],
            }
            for tool in self.tools
        ]
