"""Losing all rights: another user in place of root, no capabilities, no way to more.

Standard library only; the sandboxed child loads this file by itself.
"""

import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.sandbox import _kernel
else:
    import _kernel

_FIRST_ID = 1_600_000_000
"""Far above what systems give to people and services."""
_NOBODY = 65534
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522


def own_id(pid: int) -> int:
    """The id for a session of root's whose process has this number on the host."""
    return _FIRST_ID + pid % (1 << 22)


def become(user: int, needed: list[str]) -> None:
    """Give up being root for good: for a user that nobody else is.

    Raises OSError, and stays root, when that user could not read the paths that are `needed`.
    """
    os.setgroups([])
    try:
        os.setresgid(user, user, user)
        os.setresuid(user, user, 0)
    except OSError:  # a container that knows few users
        user = _NOBODY
        os.setresgid(user, user, user)
        os.setresuid(user, user, 0)
    blocked = [path for path in needed if not os.access(path, os.R_OK, effective_ids=True)]
    if blocked:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        raise OSError(13, f"{blocked[0]} can be read by root only")
    os.setresuid(user, user, user)


def drop_capabilities() -> None:
    """Give up all rights that root is made of. Raises OSError."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            _kernel.call("prctl", _kernel.PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:
            break  # not one that this kernel has, or not ours to drop: then there is none either
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _kernel.call("capset", header, bytes(24))


def no_new_privileges() -> None:
    """No program that is started gives more rights than this process has. Raises OSError."""
    _kernel.call("prctl", _kernel.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def not_dumpable() -> None:
    """No other process of the same user may look into this one. Raises OSError."""
    _kernel.call("prctl", _kernel.PR_SET_DUMPABLE, 0, 0, 0, 0)
