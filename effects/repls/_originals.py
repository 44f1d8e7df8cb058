"""Python as it was before any code of a model ran, to be put back after each cell.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.
"""

import builtins
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.repls import _output
else:
    import _output


class Originals:
    """Builtins, modules, the streams of a session and the recursion limit, as they are now."""

    def __init__(self, main: ModuleType, sink: _output.Sink) -> None:
        """`main` is what code gets as `__main__`; what it prints goes to `sink`."""
        self._main = main
        self._stdout = _output.Stream(sink, "<stdout>")
        self._stderr = _output.Stream(sink, "<stderr>")
        self._builtins: dict[str, Any] = dict(builtins.__dict__)
        self._modules = sys.modules
        self._loaded = dict(sys.modules)
        self._levels = sys.getrecursionlimit()

    def put_back(self) -> None:
        """Undo what code has done to them. Modules that it loaded stay."""
        builtins.__dict__.update(self._builtins)
        sys.setrecursionlimit(self._levels)
        if not self._loaded.keys() <= self._modules.keys():
            self._modules.update(self._loaded)
        sys.modules = self._modules
        self._modules["__main__"] = self._main
        for name in ("stdout", "__stdout__"):
            setattr(sys, name, self._stdout)
        for name in ("stderr", "__stderr__"):
            setattr(sys, name, self._stderr)
