"""Namespaces: a network without interfaces, a table of processes with one, and so on.

Standard library only; the sandboxed child loads this file by itself.

A user with the right to (root, mostly) makes them directly; anybody else in a user namespace of
their own, where the kernel lets them. A process namespace holds only what is forked after it was
made, so the process forks once: its first half waits for the second, and ends as that one ends.
"""

import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING or __package__:
    from effects.sandbox import _kernel
else:
    import _kernel

KINDS = {
    "network namespace": 0x40000000,
    "mount namespace": 0x00020000,
    "ipc namespace": 0x08000000,
    "host name namespace": 0x04000000,
    "process namespace": 0x20000000,
}
INNER_ID = 1000
"""The user and the group in a user namespace."""
_NEW_USER = 0x10000000
_SIGKILL = 9


def can_make_directly() -> bool:
    """Whether this process may make namespaces without one for users. It tries, harmlessly."""
    try:
        _kernel.call("unshare", KINDS["host name namespace"])
    except OSError:
        return False
    return True


def make_user() -> None:
    """A user namespace in which this process may do everything, for now. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    _kernel.call("unshare", _NEW_USER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INNER_ID} {user} 1"),
        ("gid_map", f"{INNER_ID} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def make(kind: str) -> None:
    """One of `KINDS`. Raises OSError."""
    _kernel.call("unshare", KINDS[kind])


def fork_into() -> None:
    """Go on in the process namespace. Returns in the new process only."""
    inner = os.fork()
    if inner:
        _wait_for(inner)
    die_with_parent()


def die_with_parent() -> None:
    """Be killed when the parent's thread that started this process is gone. Raises OSError."""
    _kernel.call("prctl", _kernel.PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def _wait_for(inner: int) -> NoReturn:
    """End as another process ends. Keeps nothing open: the host must notice the other's end."""
    os.closerange(0, 1 << 16)
    while True:
        _, status = os.waitpid(inner, 0)
        if os.WIFEXITED(status):
            os._exit(os.WEXITSTATUS(status))
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number != _SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            os._exit(128 + number)
