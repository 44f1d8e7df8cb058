"""Errors of the runtime in the sandbox: their classes there, and what they carry.

Classes of exceptions can't be made in the sandbox. `SubcallError` is its `RuntimeError`, and
`SubcallLimitError` its `RecursionError`, a subclass: each can be caught by name, and both by the
first. `ToolError` is the `RuntimeError` too, and `ToolDenied` another subclass,
`NotImplementedError`. An error that isn't caught is shown by its right name.

Nor do exceptions of the sandbox take attributes. What an error carries stays here, under its
message, until the cell ends, and `_monty_carried` asks for it. So two errors of one message carry
the same: the message of the second one says that it is another where they don't.
"""

from collections.abc import Callable, Mapping
from typing import Any

from effects.repls._functions import SubcallError
from effects.repls._monty_values import encodable
from effects.repls._tools import ToolError

ERROR_KINDS = {
    "SubcallError": "RuntimeError",
    "SubcallLimitError": "RecursionError",
    "ToolError": "RuntimeError",
    "ToolDenied": "NotImplementedError",
}
"""The runtime's errors, and what they are in the sandbox."""
ERRORS = "".join(f"{name} = {kind}\n" for name, kind in ERROR_KINDS.items())
"""Source that binds their names."""

_STOPPED = "CellStopped"
"""Name of the error that ends a cell which asks in vain."""
_Told = tuple[str, dict[str, Any]]
"""An error's class name, and its attributes."""


class Raised:
    """The runtime's errors of one cell, by their messages."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    @property
    def kinds(self) -> Mapping[str, str]:
        """Their class names."""
        return {message: kind for message, (kind, _) in self._told.items()}

    def ended(self, error: Exception) -> Any:
        """A call that ended so, as the sandbox takes it."""
        match error:
            case SubcallError():
                carried: dict[str, Any] = {"results": error.results}
            case ToolError():
                carried = {"tool": error.tool}
            case _:
                return {"exception": error}
        kind = type(error).__name__
        message = self._kept(encodable(str(error)), (kind, carried))
        return {"exc_type": ERROR_KINDS[kind], "message": message}

    @property
    def is_stopped(self) -> bool:
        """Whether the cell was told to stop."""
        return any(kind == _STOPPED for kind, _ in self._told.values())

    def stopped(self, why: str) -> Any:
        """A call that is to end the cell, as the sandbox takes it: code that catches every
        `Exception` doesn't catch it."""
        return {"exc_type": "BaseException", "message": self._kept(encodable(why), (_STOPPED, {}))}

    def functions(self) -> dict[str, Callable[[str, str], list[Any]]]:
        """The function that tells what an error carries under a name: a list of it, or nothing."""
        return {"_rlm_carried_by": self._carried_by}

    def clear(self) -> None:
        """Forget all: the next cell begins."""
        self._told.clear()

    def saved(self) -> dict[str, _Told]:
        """What `restore` takes."""
        return dict(self._told)

    def restore(self, saved: Mapping[str, _Told]) -> None:
        """Be where `saved` was."""
        self._told = {message: (kind, carried) for message, (kind, carried) in saved.items()}

    def _kept(self, message: str, told: _Told) -> str:
        """The message under which an error is kept: its own, unless that is another's."""
        wanted, number = message, 1
        while self._told.setdefault(wanted, told) != told:
            number += 1
            wanted = f"{message} (error {number} of these words)"
        return wanted

    def _carried_by(self, message: str, name: str) -> list[Any]:
        _, carried = self._told.get(message, ("", {}))
        return [carried[name]] if name in carried else []
