"""Processes for the crash harness that need not import anything: copies of one that has.

    python tests/crash_forks.py SOCKET_FD

Two thirds of what a short run takes is Python's start and its imports. So the harness starts a few
`Template` processes, which load all that a run needs and begin none, and each process of a run is a
fork of one: it leads a session of its own, in its run's folder, and is killed like any other.

Python chooses the order of sets anew for each process that it starts, and a fork has that of its
template. So the processes of a run come from different templates: what depends on that order must
not get into a log.
"""

import asyncio
import json
import os
import select
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tests.crash_child import Order, main


class Fork:
    """A process of a run, seen from the harness; the part of `asyncio`'s own that it uses."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.ended = asyncio.Event()
        self._out = out

    async def wait(self) -> int | None:
        """Its exit status, when it has ended."""
        await self.ended.wait()
        return self.returncode

    async def communicate(self) -> tuple[bytes, None]:
        """What it has printed, when it has ended."""
        await self.wait()
        return self._out.read_bytes(), None


class Template:
    """A process that is forked. Ended by `close`, and by the death of the harness."""

    def __init__(self) -> None:
        self._forks: dict[int, Fork] = {}
        self._begun: asyncio.Queue[Fork] = asyncio.Queue()
        self._asking = asyncio.Lock()
        self._out = Path()

    async def start(self) -> None:
        """Start it. The first fork waits until it has loaded everything."""
        ours, its = socket.socketpair()
        with its:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(its.fileno()), pass_fds=(its.fileno(),)
            )
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._listening = asyncio.create_task(self._listen())

    async def fork(self, order: dict[str, Any], folder: Path, errors: Path) -> Fork:
        """A new process in this folder, which does what is ordered."""
        async with self._asking:
            self._out = errors.with_name(f"out-{order['generation']}.txt")
            files = {"errors": str(errors), "out": str(self._out)}
            told = {"order": order, "folder": str(folder), **files}
            self._writer.write(json.dumps(told).encode() + b"\n")
            return await self._begun.get()

    async def close(self) -> None:
        """End it; its forks, if any live, go on."""
        self._writer.close()
        await self._process.wait()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        async for line in self._reader:
            pid, status = json.loads(line)
            if status is None:
                self._forks[pid] = Fork(pid, self._out)
                self._begun.put_nowait(self._forks[pid])
            else:
                fork = self._forks.pop(pid)
                fork.returncode = status
                fork.ended.set()


def serve(line: socket.socket) -> None:
    """Fork for each order that comes, and tell of each fork's end."""
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    rest = b""
    while True:
        ready = select.select([line, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 1 << 10)
            for pid, status in _ended():
                _tell(line, pid, status)
        if line in ready:
            data = line.recv(1 << 16)
            if not data:
                return
            *orders, rest = (rest + data).split(b"\n")
            for order in orders:
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for fd in (line.fileno(), woken, wakes):
                        os.close(fd)
                    _be(json.loads(order))
                _tell(line, pid, None)


def _ended() -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


def _tell(line: socket.socket, pid: int, status: int | None) -> None:
    line.sendall(json.dumps([pid, status]).encode() + b"\n")


def _be(told: dict[str, Any]) -> NoReturn:
    """Be a process of a run."""
    status = 1
    try:
        os.setsid()
        os.chdir(told["folder"])
        os.environ["TMPDIR"] = tempfile.tempdir = str(Path(told["folder"]) / "tmp")
        for name, fd in (("out", 1), ("errors", 2)):
            file = os.open(told[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, fd)
            os.close(file)
        status = main(Order(**told["order"]))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def load() -> None:
    """Import what runs import on use."""
    import effects.api
    import effects.log.sqlite
    import effects.repls.monty
    import effects.repls.python  # noqa: F401


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
