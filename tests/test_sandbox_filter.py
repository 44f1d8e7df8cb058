"""The filter of system calls: its verdicts on both machines, and the kernel's own word for them.

The filter is data, so a small reading of it here says what it decides of every call, also for the
machine that the tests don't run on.
"""

import os
import struct
import sys

import pytest
from repl_python import PythonDriving

from effects.sandbox import _kernel, _seccomp, _syscalls

ALLOW, KILL, EPERM, ENOTTY, ENOSYS = 0x7FFF0000, 0x80000000, 0x50001, 0x50019, 0x50026
ARCHES = (0xC000003E, 0xC00000B7)
OWN = 4711
MACHINES = pytest.mark.parametrize("machine", [0, 1], ids=_kernel.MACHINES)


def verdict(
    machine: int, number: int, *arguments: int, arch: int = 0, own_root: bool = True
) -> int:
    """What the filter says of a call, by the rules of the kernel's packet filter."""
    program = _seccomp.rules(machine, own_pid=OWN, own_root=own_root)
    given = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, arch or ARCHES[machine], 0, *given)
    place, value = 0, 0
    while True:
        code, if_true, if_false, constant = program[place]
        place += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("<I", data, constant)
            case 0x54:
                value &= constant
            case 0x15:
                place += if_true if value == constant else if_false
            case 0x35:
                place += if_true if value >= constant else if_false
            case 0x06:
                return constant
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


def number_of(name: str, machine: int) -> int:
    tables = (_syscalls.ALLOWED, _syscalls.ATTRIBUTES, _syscalls.REFUSED, _syscalls.FATAL)
    for table in (*tables, _syscalls.CHECKED):
        if (number := _syscalls.numbers(table, machine).get(name)) is not None:
            return number
    raise KeyError(name)


@MACHINES
@pytest.mark.parametrize(
    ("table", "expected"), [("ALLOWED", ALLOW), ("REFUSED", EPERM), ("FATAL", KILL)]
)
def test_every_call_of_a_table_gets_its_verdict(machine: int, table: str, expected: int) -> None:
    for name, number in _syscalls.numbers(getattr(_syscalls, table), machine).items():
        assert verdict(machine, number) == expected, name


@MACHINES
def test_no_call_stands_in_two_tables(machine: int) -> None:
    tables = (
        _syscalls.ALLOWED,
        _syscalls.ATTRIBUTES,
        _syscalls.REFUSED,
        _syscalls.FATAL,
        _syscalls.CHECKED,
    )
    numbers = [n for table in tables for n in _syscalls.numbers(table, machine).values()]
    assert len(numbers) == len(set(numbers))


@MACHINES
def test_attributes_are_changed_in_a_root_of_its_own_only(machine: int) -> None:
    for number in _syscalls.numbers(_syscalls.ATTRIBUTES, machine).values():
        assert verdict(machine, number) == ALLOW
        assert verdict(machine, number, own_root=False) == EPERM


@MACHINES
def test_a_call_that_is_not_known_seems_not_to_be_there(machine: int) -> None:
    assert verdict(machine, 9999) == ENOSYS
    assert verdict(machine, 435) == ENOSYS  # clone3, whose flags a filter can't see


@MACHINES
def test_calls_of_another_architecture_end_the_process(machine: int) -> None:
    read = number_of("read", machine)
    assert verdict(machine, read, arch=ARCHES[1 - machine]) == KILL
    assert verdict(machine, read, arch=0x40000003) == KILL  # 32 bits


def test_calls_of_the_x32_abi_end_the_process() -> None:
    assert verdict(0, 0x40000000 | number_of("read", 0)) == KILL


@MACHINES
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clone", (0x3D0F00,), ALLOW),  # what the C library passes for a thread
        ("clone", (17,), EPERM),  # a fork
        ("clone", (0x4111,), EPERM),  # a vfork
        ("clone", (0x3D0F00 | 0x10000000,), EPERM),  # a thread with a new user namespace
        ("kill", (OWN, 15), ALLOW),
        ("kill", (1, 15), EPERM),
        ("kill", (0, 15), EPERM),
        ("kill", (2**64 - 1, 15), EPERM),
        ("tgkill", (OWN, 4712, 6), ALLOW),
        ("tgkill", (1, 1, 6), EPERM),
        ("prlimit64", (0, 7, 0, 0), ALLOW),
        ("prlimit64", (OWN, 7, 0, 0), ALLOW),
        ("prlimit64", (1, 7, 0, 0), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),  # isatty
        ("ioctl", (0, 0x5412), ENOTTY),  # typing into a terminal
        ("ioctl", (0, 0x8901), ENOTTY),  # FIOSETOWN
        ("fcntl", (0, 1030), ALLOW),
        ("fcntl", (0, 8), EPERM),  # F_SETOWN
        ("fcntl", (0, 10), EPERM),  # F_SETSIG
        ("prctl", (15,), ALLOW),  # a thread's name
        ("prctl", (1,), EPERM),  # another death signal
        ("prctl", (4, 1), EPERM),  # dumpable again
        ("prctl", (22,), EPERM),  # another filter
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (1, 0x80801), ALLOW),  # with flags
        ("socketpair", (1, 2), EPERM),  # datagrams, which can be sent to anybody
        ("socketpair", (1, 5), EPERM),
        ("socketpair", (2, 1), EPERM),
        ("sendto", (3, 1, 1, 0, 0, 0), ALLOW),
        ("sendto", (3, 1, 1, 0, 0x7F0000000000, 16), EPERM),
        ("sendto", (3, 1, 1, 0, 0xFF, 16), EPERM),
    ],
)
def test_arguments_are_looked_at(
    machine: int, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert verdict(machine, number_of(name, machine), *arguments) == expected


def test_the_program_is_short_enough_for_the_kernel() -> None:
    for machine in (0, 1):
        assert len(_seccomp.rules(machine, own_pid=1, own_root=True)) <= 4096


def test_the_numbers_are_those_of_this_machine() -> None:
    index = _kernel.machine()
    if index is None:
        pytest.skip("the numbers of this machine's system calls aren't known")
    assert _kernel.call("prctl", 3, 0, 0, 0, 0) in (0, 1)  # is this process dumpable?


class TestTheKernel(PythonDriving):
    """The same asked of the kernel, by calls that would do no harm if they were made."""

    CALL = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.syscall({}, {}), ctypes.get_errno())"
    )

    @pytest.fixture(autouse=True)
    def _machine(self) -> None:
        index = _kernel.machine()
        if sys.platform != "linux" or index is None:
            pytest.skip("the filter needs Linux on x86_64 or aarch64")
        self.machine = index

    @pytest.mark.parametrize("name", ["ptrace", "bpf", "io_uring_setup", "keyctl", "unshare"])
    def test_a_fatal_call_ends_the_process_with_sigsys(self, name: str) -> None:
        code = self.CALL.format(number_of(name, self.machine), "-1, 0, 0, 0")
        error = self.lost(code).error
        assert error is not None
        assert "SIGSYS" in error.message
        assert self.cells(code, without_layers=("system call filter",))[0].error is None

    @pytest.mark.parametrize(
        "name", ["sched_setaffinity", "personality", "inotify_init1", "shmget"]
    )
    def test_a_refused_call_fails(self, name: str) -> None:
        arguments = "0xffffffff, 0, 0" if name == "personality" else "0, 0, 0"
        code = self.CALL.format(number_of(name, self.machine), arguments)
        assert self.output(code) == "-1 1\n"
        assert self.output(code, without_layers=("system call filter",)) != "-1 1\n"

    def test_a_fork_by_its_number_fails_too(self) -> None:
        number = number_of("clone", self.machine)
        assert self.output(self.CALL.format(number, "17, 0, 0, 0, 0")) == "-1 1\n"

    def test_a_new_call_seems_not_to_be_there(self) -> None:
        assert self.output(self.CALL.format(435, "0, 0")) == "-1 38\n"
        assert os.strerror(38) == "Function not implemented"
