"""The end of a cell that asks the host in vain for ever.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

The host answers a call with the kind ``stop``. Then the call raises `CellStopped` in the code,
which ends the cell and leaves the session whole. Code that catches even that may go on, but when
it asks again and is to stop again, the host ends the process.

In threads that code started, every call raises from then on and nothing is asked: a pool of them
would ask for all that is left in its queue.
"""

from _thread import get_ident
from collections.abc import Callable
from typing import Any, NoReturn


class CellStopped(BaseException):
    """The cell is to end. No `Exception`, so that ``except Exception`` lets it pass."""


CellStopped.__module__ = "__main__"  # tracebacks show the bare name


class Stops:
    """Asks the host for one session, and raises where its answer is to stop."""

    def __init__(self, ask: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._ask = ask
        self._thread = get_ident()
        """That which runs the cells."""
        self._why: str | None = None
        """Why the cell is to stop; None where it isn't."""
        self._is_told = False
        """Whether the thread that runs the cell knows."""

    def begin_cell(self) -> None:
        """Forget the last cell."""
        self._why, self._is_told = None, False

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a frame and wait for the answers. Raises `CellStopped`."""
        if self._why is not None and not (self._is_told and get_ident() == self._thread):
            self._stop(self._why)
        reply = self._ask(message)
        for kind, text in reply["answers"]:
            if kind == "stop":
                self._stop(text)
        return reply

    def _stop(self, why: str) -> NoReturn:
        self._why = why
        self._is_told = self._is_told or get_ident() == self._thread
        raise CellStopped(why)
