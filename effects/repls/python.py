"""The `python` backend: cells run by full CPython, in a process of their own.

The session lives in a child process (`_child`), which this side talks to in frames (`_frames`)
over a socket (`_process`).

1. The process is started by `open`, or by the first `start`, and puts itself into a sandbox
   (`effects.sandbox`). The context reaches it as a file in memory (`_sealed`), not through the
   socket; a long text is mapped there, and sessions over the same one share it.
2. A host call in the code is a frame: the cell is paused until `resume` answers it.
3. The time limit is kept twice: in the child by a timer signal, which leaves the session whole,
   and here, `GRACE_S` later, by killing the process.
4. A cell that is to stop is told so in the child (`_stops`). When it goes on all the same, and is
   to stop again, its process is killed.
5. Whatever the process does, `start` and `resume` return: a process that is gone is a result with
   the error ``ReplDied`` or ``CellTimeout``, and with ``repl_lost``. The next `start` begins an
   empty session.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from effects.repls._answers import code_result, paused, read_result
from effects.repls._isolation import checked
from effects.repls._pool import POOL
from effects.repls._process import Child, Lost
from effects.repls._sealed import ContextSource, Sealed, sealed
from effects.repls._spawning import Started
from effects.repls._words import number
from effects.repls.base import Paused, ReplSettings, ReplUnavailable, stop_of
from effects.sandbox.report import Report
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeError, CodeResult, HostCall, Message, Outcome, ReadResult

START_TIMEOUT_S = 60.0
"""For a process to be ready. It takes 0.03 seconds."""
GRACE_S = 2.0
"""Beyond the time limit, for the child to stop the cell itself and to tell of it."""
_CLOSED = Lost("ReplDied", "the session was closed while the cell ran")


class PythonRepl:
    """A session over a context. See `effects.repls.base.Repl` for the methods.

    Bound to the event loop that first uses it. `close` it: it holds a process and a folder.
    """

    def __init__(self, context: ContextSource, settings: ReplSettings | None = None) -> None:
        self._context = context
        self._settings = settings or ReplSettings()
        self.report: Report | None = None
        """The sandbox of its process, once there was one."""
        self._sealed: Sealed | None = None
        """The context's file, kept from its first process on: the next one maps it too."""
        self._child: Child | None = None
        self._opening: asyncio.Task[None] | None = None
        self._calls: tuple[HostCall, ...] | None = None
        """What a paused cell asked."""
        self._busy = False
        self._was_stopped = False
        """Whether the running cell was told to stop once already."""
        self._closed = False
        self._watch: frozenset[str] = frozenset()
        self._history: Sequence[Message] = ()
        self._left_s = 0.0
        """Seconds left to the running cell, as its process says."""

    async def open(self) -> None:
        """Start the process, if there is none. Raises `ReplUnavailable`."""
        if self._closed:
            raise ReplUnavailable("this session was closed; make a new one")
        if self._child is not None:
            return
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_seen)
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if opening.cancelled() and task is not None and not task.cancelling():
                raise ReplUnavailable("this session was closed while it started") from None
            raise
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    def remember(self, messages: Sequence[Message]) -> None:
        """What code finds as `history` from here on."""
        self._history = messages

    async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused | CodeResult:
        """Run a cell until it pauses or ends."""
        self._check_idle("start")
        self._busy = True
        try:
            if self._child is None:
                await self.open()
            self._left_s = self._settings.limits.cell_timeout_s
            self._watch = frozenset(watch)
            self._was_stopped = False
            message: dict[str, Any] = {"t": "run", "code": code, "watch": list(watch)}
            if "history" in code:
                message["history"] = [said.as_dict() for said in self._history]
            return await self._go(message)
        finally:
            self._busy = False

    async def resume(self, answers: tuple[Outcome, ...]) -> Paused | CodeResult:
        """Go on with the paused cell; one answer per call, in their order."""
        if self._calls is None or self._busy:
            raise UsageError("no cell is paused: call start, and resume when it returns Paused")
        if len(answers) != len(self._calls):
            raise UsageError(
                f"the cell asked {len(self._calls)} calls and {len(answers)} answers were given: "
                "give one answer per call, in their order"
            )
        self._busy, self._calls = True, None
        try:
            if (why := stop_of(answers)) is not None:
                if self._was_stopped:
                    stopped = Lost("CellStopped", why)
                    await self._drop(stopped)
                    return _lost_result(stopped, self._left_s)
                self._was_stopped = True
            texts = [(answer.kind, answer.text) for answer in answers]
            return await self._go({"t": "answers", "answers": texts})
        finally:
            self._busy = False

    async def read(self, name: str) -> ReadResult:
        """A variable as text, for a final answer."""
        self._check_idle("read")
        if self._child is None:
            return ReadResult()
        self._busy = True
        try:
            timeout_s = self._settings.limits.cell_timeout_s + GRACE_S
            frame = await self._child.request({"t": "read", "name": name}, timeout_s)
            if isinstance(frame, Lost):
                return ReadResult(error=f"{name} can't be read: {frame.message}")
            result = read_result(frame)
            if result is None:
                lost = await self._refuse()
                return ReadResult(error=f"{name} can't be read: {lost.message}")
            return result
        finally:
            self._busy = False

    async def close(self) -> None:
        """End the process and everything it started. Safe to call twice, and in mid-cell."""
        self._closed = True
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        self._sealed = None
        child, self._child = self._child, None
        if child is not None:
            await child.close(_CLOSED)

    async def _open(self) -> None:
        limits = self._settings.limits
        try:
            self._sealed = await sealed(self._context)
            plan = self._plan()
            start = partial(Started, plan)
            child = Child(POOL.take(repr(plan), start) or start())
        except OSError as error:
            raise ReplUnavailable(
                f"the Python process for model-written code could not be started: {error}"
            ) from error
        init = {
            "t": "init",
            "context": self._sealed.layout(),
            "cell_timeout_s": limits.cell_timeout_s,
            "memory_bytes": limits.memory_bytes,
            "scratch_bytes": limits.scratch_bytes,
            "seed": self._settings.seed,
            "asks_clock": self._settings.asks_clock,
            "session": {
                "output_chars": limits.output_chars,
                "max_value_chars": self._settings.max_value_chars,
                "parallel_subcalls": self._settings.parallel_subcalls,
                "subcall_error": self._settings.subcall_error,
                "batch_error": self._settings.batch_error,
                "variables": self._settings.variables,
                "tools": self._settings.tool_forms(),
            },
        }
        try:
            frame = await child.request(init, START_TIMEOUT_S, fds=[self._sealed.fd])
        except asyncio.CancelledError:
            await child.close(_CLOSED)
            raise
        if isinstance(frame, Lost) or frame.get("t") != "ready":
            why = frame.message if isinstance(frame, Lost) else str(frame.get("message"))
            await child.close(_CLOSED)
            raise ReplUnavailable(f"the Python process for model-written code did not start: {why}")
        try:
            self.report = checked(frame.get("layers"), self._settings)
        except ReplUnavailable:
            await child.close(_CLOSED)
            raise
        self._child = child

    def _plan(self) -> dict[str, Any]:
        """What its process is told of the sandbox at once."""
        settings = self._settings
        return {
            "without": settings.without_layers,
            "scratch_bytes": settings.limits.scratch_bytes,
        }

    async def _go(self, message: dict[str, Any]) -> Paused | CodeResult:
        """Let the cell run until it pauses, ends, or is lost."""
        child = self._child
        if child is None:
            return _lost_result(_CLOSED, self._left_s)
        frame = await child.request(message, self._left_s + GRACE_S)
        if not isinstance(frame, Lost):
            match frame.get("t"):
                case "pause" if (told := paused(frame)) is not None:
                    pause, left_s = told
                    self._calls = pause.calls
                    self._left_s = min(self._left_s, left_s)
                    return pause
                case "end" if (result := code_result(frame, self._watch)) is not None:
                    return result
                case _:
                    frame = await self._refuse()
        await self._drop(frame)
        return _lost_result(frame, self._settings.limits.cell_timeout_s)

    async def _refuse(self) -> Lost:
        """End a process whose frame makes no sense."""
        lost = Lost("ReplDied", "the process sent what is no answer, and was ended")
        if self._child is not None:
            await self._child.close(lost)
        return lost

    async def _drop(self, lost: Lost) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close(lost)

    def _check_idle(self, what: str) -> None:
        if self._closed:
            raise ReplUnavailable("this session was closed; make a new one")
        if self._busy:
            raise UsageError(f"{what}: a cell is running; one session runs one cell at a time")
        if self._calls is not None:
            raise UsageError(f"{what}: a cell is paused; resume it first, or close the session")


def _lost_result(lost: Lost, limit_s: float) -> CodeResult:
    message = lost.message
    if lost.kind == "CellTimeout":
        message = (
            f"the cell did not stop at its limit of {number(limit_s)} s of computing, so its "
            "process was ended"
        )
    error = CodeError(kind=lost.kind, message=message, traceback=f"{lost.kind}: {message}")
    return CodeResult(error=error, repl_lost=True)


def _seen(task: asyncio.Task[None]) -> None:
    """The error of a start that nobody waited for comes again with the next one."""
    if not task.cancelled():
        task.exception()
