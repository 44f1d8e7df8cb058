"""The layers for a helper of the host: a process that computes with a model's data and patterns.

Standard library only; a helper loads this file by itself. It runs no code of a model, so only a
mistake in the interpreter would let anyone in. It takes the layers that a process can put on in
place: no rights, no file but the standard library's, no network, no programs and processes. What
the system refuses is passed over.
"""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.sandbox import _landlock, _places, _seccomp, _user
else:
    import _landlock
    import _places
    import _seccomp
    import _user


def lock() -> None:
    """Put the layers on, for good. Nothing is done on systems other than Linux."""
    if sys.platform != "linux":
        return
    steps: tuple[Callable[[], object], ...] = (
        _user.drop_capabilities,
        _user.no_new_privileges,
        _close_files,
        _user.not_dumpable,
        lambda: _seccomp.install(own_pid=os.getpid(), own_root=False),
    )
    for step in steps:
        try:
            step()
        except OSError:
            pass


def _close_files() -> None:
    readable = [piece for tree in _places.trees() for piece in _places.pieces(tree)]
    _landlock.restrict(readable=readable, writable=[], devices=_places.DEVICES)
