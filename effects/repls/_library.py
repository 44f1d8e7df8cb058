"""Functions of CPython's standard library, computed in a process of their own.

For a sandbox that lacks them. Only functions of a closed list are called, on plain data, and only
those that compute a value from their arguments and reach nothing else. They run the model's data
and patterns; the process (`_helping`) is started by the first call.

Values cross as `marshal` has them: what the process sends is trusted, what it gets is plain data
by construction.
"""

import builtins
import marshal
import re
from collections.abc import Callable
from typing import Any

from effects.repls._helping import SANDBOX_FOLDER, Helper

FUNCTIONS: dict[str, tuple[str, ...]] = {
    "ast": ("literal_eval",),
    "difflib": ("get_close_matches",),
    "fnmatch": ("fnmatch", "fnmatchcase", "filter"),
    "html": ("escape", "unescape"),
    "shlex": ("split", "quote", "join"),
    "statistics": (
        "mean",
        "fmean",
        "median",
        "median_low",
        "median_high",
        "mode",
        "multimode",
        "stdev",
        "pstdev",
        "variance",
        "pvariance",
        "harmonic_mean",
        "geometric_mean",
        "quantiles",
    ),
    "textwrap": ("wrap", "fill", "shorten", "dedent", "indent"),
}
"""What modules offer by way of this process."""
_MORE = ("re.sub", "string.capwords", "pprint.pformat")
"""What is used by shims of modules that exist otherwise."""

_CHILD = """
import importlib, marshal, resource, sys
sys.path.insert(0, sys.argv[1])
import _helper
del sys.path[0]
_helper.lock()
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
files = sys.stdin.buffer, sys.stdout.buffer
while head := files[0].read(8):
    name, args, options = marshal.loads(files[0].read(int.from_bytes(head, "little")))
    module, _, function = name.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), function)(*args, **options)
        data = marshal.dumps((True, value))
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        data = marshal.dumps((False, (kinds, str(error))))
    files[1].write(len(data).to_bytes(8, "little") + data)
    files[1].flush()
"""


def host_name(module: str, function: str) -> str:
    """What a function is called in the sandbox."""
    return f"_rlm_lib_{module.replace('.', '_')}_{function}"


class Library:
    """Calls functions in the process. Call from one thread; `kill` may come from another.

    `allowed_s` is asked for the seconds that the next call may take.
    """

    def __init__(self, *, allowed_s: Callable[[], float], memory_bytes: int) -> None:
        self._allowed_s = allowed_s
        self._memory_bytes = memory_bytes
        self._helper: Helper | None = None

    def functions(self) -> dict[str, Callable[..., Any]]:
        """All functions, by their names in the sandbox."""
        return {name: self._function(path) for name, path in NAMES.items()}

    def kill(self) -> None:
        """End a call that runs."""
        if (helper := self._helper) is not None:
            helper.kill()

    def close(self) -> None:
        """End the process. Safe to call twice."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close()

    def _function(self, path: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            return self._call(path, args, options)

        return call

    def _call(self, path: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            request = marshal.dumps((path, args, options))
        except ValueError:
            raise TypeError(f"{path} takes only plain data here: texts, numbers, lists") from None
        allowed_s = max(self._allowed_s(), 0.0)
        try:
            is_value, value = marshal.loads(self._started().ask(request, allowed_s))
        except TimeoutError:
            self.close()
            raise TimeoutError(
                f"{path} took more than {allowed_s:.2g} seconds and was stopped"
            ) from None
        except OSError as error:
            self.close()
            raise MemoryError(f"{path} was ended: it needed too much memory") from error
        if is_value:
            return value
        kinds, message = value
        raise _exception(kinds)(message)

    def _started(self) -> Helper:
        if self._helper is None:
            self._helper = Helper(_CHILD, SANDBOX_FOLDER, memory_bytes=self._memory_bytes)
        return self._helper


def _exception(kinds: list[str]) -> Callable[[str], Exception]:
    """The nearest class that the sandbox can have, of those that an error belongs to."""
    for kind in kinds:
        if kind in ("error", "PatternError"):
            return re.error
        found = getattr(builtins, kind, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return RuntimeError


def _names() -> dict[str, str]:
    paths = [f"{module}.{name}" for module, names in FUNCTIONS.items() for name in names]
    return {host_name(*path.rsplit(".", 1)): path for path in [*paths, *_MORE]}


NAMES = _names()
"""Functions by the names that they have in the sandbox."""
