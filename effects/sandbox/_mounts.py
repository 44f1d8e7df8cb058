"""A root of its own: the standard library, a folder in memory to write in, and nothing else.

Standard library only; the sandboxed child loads this file by itself. Needs a mount namespace of
the process's own, and the right to mount in it.

The new root lies in memory, on a folder that the host made and deletes; outside, nothing is ever
seen in that folder. It goes with the last process of the namespace, however that ends.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.sandbox import _kernel, _places
else:
    import _kernel
    import _places

SCRATCH = "/tmp"
"""The folder to write in, also the working folder."""
MAX_FILES = 10_000
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1 << 5, 1 << 12, 1 << 14, 1 << 18
_DETACH = 2
_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""Flags of a mount as statvfs tells them -> as mount takes them. A remount that would drop one is
refused in a user namespace."""


def enter(folder: str, trees: list[str], *, scratch_bytes: int, owner: int) -> None:
    """Make the new root on a folder, show the trees in it, and go into it.

    `owner`: the user and the group of the scratch folder, as this process numbers them.
    Raises OSError; then all is as it was.
    """
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    _mount("root", folder, "tmpfs", _NO_SETUID | _NO_DEVICES, "size=1m,mode=755")
    try:
        _fill(folder, trees, scratch_bytes, owner)
        os.chdir(folder)
        _kernel.call("pivot_root", b".\0", b".\0")
    except OSError:
        _kernel.call("umount2", os.fsencode(folder) + b"\0", _DETACH)
        os.chdir(folder)
        raise
    _kernel.call("umount2", b".\0", _DETACH)
    _mount(None, "/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | _NO_DEVICES)
    os.chdir(SCRATCH)


def _fill(folder: str, trees: list[str], scratch_bytes: int, owner: int) -> None:
    hidden = [path for tree in trees for path in _places.foreign(tree)]
    extras = _places.extras()
    for path in [*trees, *extras, *filter(os.path.exists, _places.DEVICES)]:
        _show(path, folder, writable=path in _places.DEVICES)
    for path in hidden:
        _mount("hidden", folder + path, "tmpfs", _READ_ONLY, "size=4k,mode=555")
    for path in ("/lib", "/lib64"):  # where the loader looks, and what it often leads to
        if os.path.islink(path) and not os.path.lexists(folder + path):
            os.symlink(os.readlink(path), folder + path)
    os.mkdir(folder + SCRATCH)
    options = f"size={scratch_bytes},nr_inodes={MAX_FILES},mode=700,uid={owner},gid={owner}"
    flags = _NO_SETUID | _NO_DEVICES | _NO_EXEC
    _mount("scratch", folder + SCRATCH, "tmpfs", flags, options)


def _show(path: str, root: str, *, writable: bool) -> None:
    """Make a file or a folder appear at the same path under a root."""
    target = root + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, None, _BIND | _RECURSIVE)
    if not writable:
        is_now = os.statvfs(target).f_flag
        kept = sum(flag for told, flag in _KEPT.items() if is_now & told)
        _mount(None, target, None, _REMOUNT | _BIND | _READ_ONLY | kept)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    given = [None if each is None else os.fsencode(each) + b"\0" for each in (source, target, kind)]
    last = None if options is None else options.encode() + b"\0"
    _kernel.call("mount", *given, flags, last)
