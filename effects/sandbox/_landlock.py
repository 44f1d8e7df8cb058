"""Landlock: files by path, TCP, and other processes, closed to this process by itself.

Standard library only; the sandboxed child loads this file by itself. The version of the kernel's
interface says what can be closed: 1 (Linux 5.13) files; 2 moves between folders; 3 truncation;
4 (6.7) TCP; 5 ioctl on devices; 6 (6.12) abstract sockets and signals. What a version lacks is
left open here, and closed by other layers.

It sees openings and changes of folders, not attributes: `stat` works on every path, `chmod` too.

Source: the kernel's page "Landlock: unprivileged access control".
"""

import os
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.sandbox import _kernel
else:
    import _kernel

_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_MAKE = 1 << 7 | 1 << 8 | 1 << 10 | 1 << 12
"""Folders, files, named pipes and symbolic links; no devices and no sockets."""
_REMOVE = 1 << 4 | 1 << 5
_REFER = 1 << 13
_FILE_RIGHTS = (1 << 13, 1 << 14, 1 << 15, 1 << 15, 1 << 16, 1 << 16)
"""By version: all rights over files are those below this bit."""
_NEWEST = len(_FILE_RIGHTS)
_TCP, _SCOPES = 0b11, 0b11
_CREATE_VERSION, _RULE_PATH_BENEATH = 1, 1


def version() -> int:
    """The version of the interface. Raises OSError where there is none."""
    return _kernel.call("landlock_create_ruleset", None, 0, _CREATE_VERSION)


def restrict(*, readable: Iterable[str], writable: Iterable[str], devices: Iterable[str]) -> int:
    """Close everything but these paths, for good; the version. Raises OSError.

    Paths that aren't there are passed over. `no_new_privs` must be set.
    """
    newest = version()
    known = min(newest, _NEWEST)
    rights = _FILE_RIGHTS[known - 1] - 1
    attributes = struct.pack(
        "QQQ", rights, _TCP if known >= 4 else 0, _SCOPES if known >= 6 else 0
    )[: 8 if known < 4 else 16 if known < 6 else 24]
    ruleset = _kernel.call("landlock_create_ruleset", attributes, len(attributes), 0)
    read = _READ_FILE | _READ_DIR
    change = _WRITE_FILE | _TRUNCATE
    try:
        for path in readable:
            _add(ruleset, path, rights & read)
        for path in writable:
            _add(ruleset, path, rights & (read | change | _MAKE | _REMOVE | _REFER))
        for path in devices:
            _add(ruleset, path, rights & (_READ_FILE | change))
        _kernel.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return newest


def _add(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = struct.pack("=Qi", rights, place)
        _kernel.call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(place)
