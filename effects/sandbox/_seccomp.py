"""The filter of system calls: a program for the kernel's packet filter, written here by hand.

Standard library only; the sandboxed child loads this file by itself. Which calls are in which
list is `_syscalls`' business.

1. Another architecture's calls, and those of the x32 ABI, end the process: they would pass by the
   numbers below.
2. A call is looked up in the list of what is allowed, then in those few that are looked at more
   closely, then in what is refused. What is in no list fails with ENOSYS.
3. A process may make threads and no processes; signal itself and nobody else; make a pair of
   connected stream sockets, which an event loop needs and which lead nowhere, and no other socket.
4. Arguments in registers only are judged: what a pointer leads to could be changed by another
   thread after the look.
"""

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.sandbox import _kernel, _syscalls
else:
    import _kernel
    import _syscalls

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant."""

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOTTY, _ENOSYS = 1, 25, 38
_AUDIT_ARCH = (0xC000003E, 0xC00000B7)
_X32_BIT = 0x40000000
_MODE_FILTER = 2

_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
_STREAM, _TYPE_MASK, _AF_UNIX = 1, 0xF, 1
_IOCTLS = (0x541B, 0x5421, 0x5450, 0x5451, 0x5401, 0x5413)
"""FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, TCGETS (isatty) and TIOCGWINSZ."""
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
"""Duplicates, flags, locks, the size of a pipe. Not F_SETOWN, which sends signals to others."""
_PRCTLS = (15, 16, 3, 21, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_SECCOMP, and names of mappings."""


def install(*, own_pid: int, own_root: bool) -> None:
    """Put the filter over this process, for good. Raises OSError.

    `own_pid` as the process itself sees it. `own_root`: whether no file of the user can be named.
    """
    index = _kernel.machine()
    if index is None:
        raise OSError(38, "needs x86_64 or aarch64")
    program = bytearray(assembled(rules(index, own_pid=own_pid, own_root=own_root)))
    head = struct.pack("HxxxxxxQ", len(program) // 8, _kernel.address(program))
    _kernel.call("prctl", _kernel.PR_SET_SECCOMP, _MODE_FILTER, head, 0, 0)


def rules(machine: int, *, own_pid: int, own_root: bool) -> list[Instruction]:
    """The filter for one of `_kernel.MACHINES`."""
    made: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == 0:
        made += [(_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    tables = [(_syscalls.ALLOWED, _ALLOW), (_syscalls.REFUSED, _ERRNO | _EPERM)]
    tables.insert(1, (_syscalls.ATTRIBUTES, _ALLOW if own_root else _ERRNO | _EPERM))
    tables.append((_syscalls.FATAL, _KILL))
    checks = _checks(own_pid)
    checked = _syscalls.numbers(_syscalls.CHECKED, machine)
    for place, (table, verdict) in enumerate(tables):
        for number in _syscalls.numbers(table, machine).values():
            made += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, verdict)]
        if place == 0:
            for name, number in checked.items():
                made += [(_EQUAL, 0, len(checks[name]), number), *checks[name]]
    return [*made, (_RETURN, 0, 0, _ERRNO | _ENOSYS)]


def assembled(made: list[Instruction]) -> bytes:
    """Instructions as the kernel reads them: 8 bytes each."""
    return b"".join(struct.pack("HBBI", *each) for each in made)


def _checks(own_pid: int) -> dict[str, list[Instruction]]:
    """What follows the number of each call that is looked at: it ends in a verdict on every way."""
    new_thread: list[Instruction] = [
        (_LOAD, 0, 0, _argument(0)),
        (_AND, 0, 0, _CLONE_THREAD | _CLONE_NEW),
        (_EQUAL, 0, 1, _CLONE_THREAD),
        *_verdicts(_EPERM),
    ]
    pair: list[Instruction] = [
        (_LOAD, 0, 0, _argument(0)),
        (_EQUAL, 0, 4, _AF_UNIX),
        (_LOAD, 0, 0, _argument(1)),
        (_AND, 0, 0, _TYPE_MASK),
        (_EQUAL, 0, 1, _STREAM),
        *_verdicts(_EPERM),
    ]
    no_address: list[Instruction] = [
        (_LOAD, 0, 0, _argument(4)),
        (_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _argument(4) + 4),
        (_EQUAL, 0, 1, 0),
        *_verdicts(_EPERM),
    ]
    return {
        "clone": new_thread,
        "kill": _one_of(0, (own_pid,), _EPERM),
        "tgkill": _one_of(0, (own_pid,), _EPERM),
        "ioctl": _one_of(1, _IOCTLS, _ENOTTY),
        "fcntl": _one_of(1, _FCNTLS, _EPERM),
        "prctl": _one_of(0, _PRCTLS, _EPERM),
        "prlimit64": _one_of(0, (0, own_pid), _EPERM),
        "socketpair": pair,
        "sendto": no_address,
    }


def _one_of(argument: int, values: tuple[int, ...], otherwise: int) -> list[Instruction]:
    """Allow the call when the low half of an argument, all that these calls read of it, is one of
    the values."""
    tests: list[Instruction] = [
        (_EQUAL, len(values) - 1 - place, 1 if place == len(values) - 1 else 0, value)
        for place, value in enumerate(values)
    ]
    return [(_LOAD, 0, 0, _argument(argument)), *tests, *_verdicts(otherwise)]


def _verdicts(errno: int) -> list[Instruction]:
    return [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno)]


def _argument(index: int) -> int:
    """Where the low half of an argument lies, on a machine with the low end first."""
    return 16 + 8 * index
