"""System calls by number, through the C library that Python itself is linked with.

Standard library only; the sandboxed child loads this file by itself. It uses `_ctypes`, the part
of `ctypes` that is written in C: importing the rest would take 5 ms of every start.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

try:
    # Not there on other systems, nor in a Python that was built without libffi.
    _ctypes: Any = __import__("_ctypes") if sys.platform == "linux" else None
except ImportError:
    _ctypes = None

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
_M_ARENA_MAX = -8
MACHINES = ("x86_64", "aarch64")
"""Those whose system calls are known by number."""
_NUMBERS = {
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "capset": (126, 91),
    "prctl": (157, 167),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}


def machine() -> int | None:
    """The index of this machine in `MACHINES`, None for another or a 32-bit Python."""
    name = os.uname().machine
    return MACHINES.index(name) if name in MACHINES and sys.maxsize > 2**32 else None


def call(name: str, *arguments: int | bytes | None) -> int:
    """Make a system call. Bytes are passed as a pointer to them. Raises OSError."""
    index = machine()
    if _ctypes is None or index is None:
        raise OSError(38, "needs Linux on x86_64 or aarch64, and a Python with ctypes")
    result = _function("syscall")(_NUMBERS[name][index], *arguments)
    if result < 0:
        code = _ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def use_few_arenas(count: int) -> None:
    """Tell the C library into how many parts memory may be split, so that threads get by with
    little address space. Does nothing where it can't be told."""
    try:
        _function("mallopt")(_M_ARENA_MAX, count)
    except (AttributeError, OSError):
        pass


def address(data: bytearray) -> int:
    """Where the contents lie, as long as nobody resizes them."""
    return int(_ctypes.addressof(_types()[0].from_buffer(data)))


def _function(name: str) -> Callable[..., int]:
    """A function of the C library."""
    word, function = _types()
    found = function(_ctypes.dlsym(_ctypes.dlopen(None, 0), name))
    return lambda *given: found(*(word(each) if isinstance(each, int) else each for each in given))


def _types() -> Any:
    """The type of an argument, and that of a function."""
    if not _made:

        class Word(_ctypes._SimpleCData):  # type: ignore[misc]  # of a module without types
            _type_ = "l"

        class Function(_ctypes.CFuncPtr):  # type: ignore[misc]
            _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
            _restype_ = Word

        _made.append((Word, Function))
    return _made[0]


_made: list[Any] = []
