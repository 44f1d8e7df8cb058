"""Starting the process of a session, and ending it with all that it started.

1. The process gets an empty environment, an empty folder of its own, and no descriptor but a
   socket; the context's file comes with the first frame. So it can be started before it is known
   what for (`_pool`). It leads a session, so that it can be ended with all it started.
2. The number of a process group may be given away once its leader has been reaped, so everything
   is killed first and reaped last.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# Imported whole, so that Python caches the bytecode of what the child loads: it may not write.
from effects.repls import _child
from effects.sandbox.scratch import Scratch

REAP_TIMEOUT_S = 5.0
"""How long a killed process may take to be gone: the system has to take back its memory."""
_FOLDER = str(Path(__file__).parent)
_SANDBOX_FOLDER = str(Path(__file__).parent.parent / "sandbox")


class Started:
    """A child process that waits for its first frame. It belongs to no event loop."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """Start it. Raises OSError when it can't be had.

        `plan` is that of `effects.sandbox._layers`, less what is found here.
        """
        self.socket, inner = socket.socketpair()
        self.scratch = Scratch()
        try:
            self.socket.setblocking(False)
            full = {**plan, "folder": self.scratch.path, "host": os.getpid()}
            self.process = _spawned(inner.fileno(), full)
        except BaseException:
            self.socket.close()
            self.scratch.delete()
            raise
        finally:
            inner.close()

    def is_alive(self) -> bool:
        """Whether it can still be given to a session."""
        return how_it_exited(self.process.pid) is None

    def end(self) -> None:
        """End it and delete its folder. Blocks until it is gone."""
        self.socket.close()
        kill_session(self.process.pid)
        self.reap()

    def reap(self) -> None:
        """Wait for the process, which was killed, and delete its folder."""
        try:
            self.process.wait(REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass  # stuck in the system; it can do nothing any more
        self.scratch.delete()


def how_it_exited(pid: int) -> str | None:
    """How a child process ended, in words; None while it lives. It isn't reaped."""
    try:
        status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "ended"  # somebody else has reaped it
    if status is None:
        return None
    if status.si_code == os.CLD_EXITED:
        return f"exited with code {status.si_status}"
    name = signal.Signals(status.si_status).name
    return f"was killed by {name}" + (
        " (by the system, if memory ran out)" if status.si_status == signal.SIGKILL else ""
    )


def kill_session(leader: int) -> None:
    """Kill a process group, and what else is in the session that its leader leads."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    for pid in _session_members(leader):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _spawned(socket_fd: int, plan: dict[str, Any]) -> "subprocess.Popen[bytes]":
    if not sys.executable:
        raise OSError("this Python doesn't know its own executable (sys.executable is empty)")
    # As isolated as -I, which would also ignore the hash seed: sets of texts must come in the same
    # order when a cell is run again.
    flags = ["-P", "-s", "-S", "-B"]
    given = [_FOLDER, _SANDBOX_FOLDER, str(socket_fd), json.dumps(plan)]
    return subprocess.Popen(
        [sys.executable, *flags, "-c", _child.PROGRAM, *given],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(socket_fd,),
        cwd=plan["folder"],
        env={"PYTHONHASHSEED": "0"},
        start_new_session=True,
    )


def _session_members(leader: int) -> list[int]:
    found = list[int]()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            try:
                stat = os.open(f"/proc/{name}/stat", os.O_RDONLY)  # quicker than a file object
            except OSError:
                continue
            try:
                # pid (name) state ppid pgrp session ...; the name may hold anything
                fields = os.read(stat, 1024).rpartition(b")")[2].split(None, 4)
            except OSError:
                continue
            finally:
                os.close(stat)
            if len(fields) > 3 and int(fields[3]) == leader:
                found.append(int(name))
    return found
