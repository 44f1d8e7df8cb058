"""The bare host, for the positive control: what happens where code is simply given to `exec`.

    ESCAPE_SECRET=... python bare.py SETTINGS COMMAND_LINE_SECRET

Each request gets a throw-away host and a throw-away worker, both copies of this process, so that
whatever the code does happens to them. The worker is what most runtimes are: it holds the adapter,
it has the host's rights, descriptors and environment, and it takes frames at their word.
"""

import contextlib
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

from escape.hosting import CONTEXT, PROBE, PROBED, HostState, serve

PATIENCE_S = 0.2
"""Beyond the limit."""
LEAVING_S = 3.0
"""For a worker to leave in which something waits for the interpreter's end."""
HOST_S = 4.0
"""For the host, beyond the limit: it was stopped if it takes longer."""

CPU_S = 20
HEADER_BYTES = 12
MEMORY_BYTES = 64 << 30


def main() -> None:
    """Serve."""
    global ADAPTER
    state = HostState(json.loads(sys.argv[1]))
    ADAPTER = state.adapter
    serve(lambda request: attempt(state, request))


def attempt(state: HostState, request: dict[str, Any]) -> dict[str, Any]:
    """Try a payload on a throw-away host; what that says, and what became of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _host(state, request, writing)
    os.close(writing)
    said = _received(reading, time.monotonic() + request["limit_s"] + HOST_S)
    os.close(reading)
    reply = json.loads(said) if said.endswith(b"}") else {}
    _, status = os.waitpid(pid, os.WUNTRACED | (0 if reply else os.WNOHANG))
    ended_well = bool(reply) and os.WIFEXITED(status)
    if not ended_well:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return {**reply, "host_signalled": not ended_well}


def _host(state: HostState, request: dict[str, Any], writing: int) -> NoReturn:
    """The throw-away host: starts the worker, gives it the payload, then the probe."""
    os.setsid()
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        os.close(writing)
        told = request["told"] + state.told(os.getppid())
        _worker(state, theirs, told, request["traps_are_laid"])
    theirs.close()
    channel = Channel(ours)
    began_s = time.monotonic()
    result = channel.ask(request["code"], request["limit_s"] + PATIENCE_S)
    took_s = time.monotonic() - began_s
    probe = channel.ask(PROBE, PATIENCE_S) if result else {}
    ours.close()
    reply = {
        "out": str(result.get("out")),
        "error": str(result.get("error")),
        "took_s": took_s,
        "probes": [str(probe.get("out"))],
        "works": probe.get("out") == PROBED,
        "meddled": state.meddled(),
    }
    leaves = request["traps_are_laid"] or (not result and took_s < request["limit_s"])
    deadline = time.monotonic() + (LEAVING_S if leaves else 0.0)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.002)
    _send_all(writing, json.dumps(reply).encode())
    os._exit(0)


class Channel:
    """The throw-away host's end: it takes whatever frame comes first for the answer."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._rest = b""

    def ask(self, code: str, patience_s: float) -> dict[str, Any]:
        """What the worker says of a cell; nothing if it says nothing, or nonsense."""
        deadline = time.monotonic() + patience_s
        try:
            _send_all(self._socket.fileno(), _frame({"code": code}))
            size = int.from_bytes(self._take(HEADER_BYTES, deadline)[:4], "big")
            said = json.loads(self._take(size, deadline))
        except (OSError, ValueError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._rest) < size:
            left_s = deadline - time.monotonic()
            if left_s < 0 or not select.select([self._socket], [], [], left_s)[0]:
                raise TimeoutError
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._rest += data
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _worker(state: HostState, theirs: socket.socket, told: str, traps_are_laid: bool) -> NoReturn:
    """Run what comes, in this very process, until the host closes the connection."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it breaks loudly, as it should
    # Code that gets away is stopped by these at last.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    adapter = state.adapter

    def llm_query(text: str) -> str:
        """Stands for a function that asks the adapter: it needs it within reach."""
        return text.upper() if adapter else ""

    names = {"P": CONTEXT.text, "ctx": CONTEXT.view, "llm_query": llm_query}
    exec(told, names)
    fd = theirs.fileno()
    while head := os.read(fd, HEADER_BYTES):
        size, payload = int.from_bytes(head[:4], "big"), b""
        while len(payload) < size:
            payload += os.read(fd, size - len(payload))
        out, error = io.StringIO(), ""
        try:
            with contextlib.redirect_stdout(out):
                exec(compile(json.loads(payload)["code"], "<cell>", "exec"), names)
        except BaseException as raised:
            error = f"{traceback.format_exc()}\n{raised}"
        _send_all(fd, _frame({"out": out.getvalue(), "error": error}))
    if not traps_are_laid:
        os._exit(0)  # what an interpreter does when it ends takes longer than all the rest
    raise SystemExit


def _frame(message: dict[str, Any]) -> bytes:
    """A frame as real sessions have them: length, mark, JSON. Nobody looks at the mark here."""
    payload = json.dumps(message).encode()
    return len(payload).to_bytes(4, "big") + bytes(HEADER_BYTES - 4) + payload


def _send_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _received(fd: int, deadline: float) -> bytes:
    """All that comes until the other end is closed, or the time is up."""
    data = b""
    while (left_s := deadline - time.monotonic()) > 0 and select.select([fd], [], [], left_s)[0]:
        more = os.read(fd, 1 << 16)
        if not more:
            return data
        data += more
    return data


if __name__ == "__main__":
    main()
