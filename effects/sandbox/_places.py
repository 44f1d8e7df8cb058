"""What code in the sandbox may read: the standard library, and what loading its modules takes.

Standard library only; the sandboxed child loads this file by itself.

Modules are loaded when code first imports them, so the library stays readable for good, and the
shared libraries that its C modules need. Other packages lie within the same folders on most
systems; they are left out.
"""

import os
import sys
from collections.abc import Iterator

FOREIGN = frozenset({"site-packages", "dist-packages"})
"""Folders of packages that aren't the standard library's."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_EXTRAS = ("/usr/share/zoneinfo", "/etc/ld.so.cache")
"""Time zones, for `zoneinfo`, and where the system keeps its shared libraries."""


def trees() -> list[str]:
    """The folders, each by the paths that lead to it."""
    found: dict[str, None] = {}
    for path in [p for p in sys.path if os.path.exists(p)] + _library_folders():
        found[path] = found[os.path.realpath(path)] = None
    kept: list[str] = []
    for path in sorted(found):  # what holds others comes before them
        if not any(path.startswith(outer + os.sep) for outer in kept):
            kept.append(path)
    return kept


def extras() -> list[str]:
    """Other files and folders that are there."""
    return [path for path in _EXTRAS if os.path.exists(path)]


def foreign(tree: str) -> list[str]:
    """Folders of a tree that are to be left out: in it, or in a folder ``python...`` of it."""
    outer = [tree, *(e.path for e in _entries(tree) if e.name.startswith("python"))]
    return [e.path for path in outer for e in _entries(path) if e.name in FOREIGN]


def pieces(tree: str) -> Iterator[str]:
    """Files and folders that together are a tree without what is foreign to it."""
    left_out = foreign(tree)
    if not left_out:
        yield tree
        return
    split = {tree, *(os.path.dirname(path) for path in left_out)}
    for path in split:
        for entry in _entries(path):
            if entry.path not in split and entry.name not in FOREIGN:
                yield entry.path


def _library_folders() -> list[str]:
    """The folders of the shared libraries that this process has loaded."""
    found = set[str]()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if ".so" in path:
                found.add(os.path.dirname("/" + path))
    return sorted(found)


def _entries(path: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError:  # a zip archive, or a folder that isn't there
        return []
