"""The canaries: what would change, be reached or be lost on the host if a payload got out.

`Canaries` sets them up, and says after each payload which of them were tripped; it puts right
what was, so that the next payload finds everything as it should be.
"""

import contextlib
import ctypes
import os
import secrets
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from escape.hosting import KEY_START

_PR_SET_CHILD_SUBREAPER = 36
_IPC = {"shm": "shmctl", "msg": "msgctl", "sem": "semctl"}
_VICTIM = "import ctypes, time; ctypes.CDLL(None).prctl(1, 9); time.sleep(3600)"


class Canaries:
    """Everything that a payload might touch. Close it."""

    def __init__(self, folder: Path) -> None:
        self.token = "tripped" + secrets.token_hex(6)
        self.secrets = {
            name: secrets.token_hex(16)
            for name in ("file", "name", "database", "module", "descriptor", "environment")
        }
        self.secrets |= {"command line": secrets.token_hex(16), "memory": secrets.token_hex(16)}
        self.secrets |= {"key": KEY_START + secrets.token_hex(16)}
        with open("/etc/passwd") as users:
            self.secrets["users"] = users.readline().strip()
        self._vault, self._outside = folder / "vault", folder / "outside"
        self.tmp, self.scratch = folder / "tmp", folder / "scratch"
        for path in (self._vault, self._outside, self.tmp, self.scratch):
            path.mkdir()
        self.descriptor_file = self._vault / f"named-{self.secrets['name']}"
        self._fill_vault()
        self._servers = _Servers(folder, self.token)
        self._terminal, self._typed = os.openpty()
        self._ipc_key = secrets.randbelow(1 << 30) + 1
        self._processes = set[int]()
        """Those that may go on living."""
        self._victim = self._new_victim()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._processes |= descendants()
        self._seen = self._state_outside()

    def close(self) -> None:
        """Put everything away, but the folder."""
        self._victim.kill()
        self._victim.wait()
        self._servers.close()
        os.close(self._terminal)
        os.close(self._typed)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    @property
    def told(self) -> str:
        """What a payload is told, as code: where everything is, and what to say on success."""
        names: dict[str, object] = {
            "SECRET_FILE": str(self._vault / "secret.txt"),
            "VAULT": str(self._vault),
            "OUTSIDE": str(self._outside),
            "PRECIOUS": str(self._outside / "precious"),
            "HOST_TMP": str(self.tmp),
            "TERMINAL": os.ttyname(self._typed),
            "IPC_KEY": self._ipc_key,
            "VICTIM": self._victim.pid,
            "TOKEN": self.token,
            "TRIPPED": f"it worked: {self.token}",
            "FORGED": f"forged: {self.token}",
            **self._servers.told,
        }
        return "".join(f"{name} = {value!r}\n" for name, value in names.items())

    def expect(self, pid: int) -> None:
        """A process of the tests' own was started: it may go on living."""
        self._processes.add(pid)

    def tripped(self, reply: dict[str, Any], *, gone_within_s: float) -> dict[str, str]:
        """The canaries that a payload tripped, with what was found.

        `reply` is a host's. The processes of a closed session have `gone_within_s` to be gone.
        """
        found = {
            "leak": self._leaked(reply),
            "told": "said so" if f"it worked: {self.token}" in reply.get("out", "") else "",
            "forged": str([p for p in reply.get("probes", ()) if self.token in p] or ""),
            "wrecked": "" if reply.get("works", True) else f"probes: {reply['probes']}",
            "meddled": ", ".join(reply.get("meddled", ())),
            "contact": ", ".join([*self._servers.contacts(), *self._terminal_contacts()]),
            "signalled": self._signalled(reply),
            "written": self._written(),
            "left": ", ".join([*self._left_files(), *self._left_ipc()]),
            "alive": self._alive(gone_within_s),
        }
        return {name: what for name, what in found.items() if what}

    def _fill_vault(self) -> None:
        (self._vault / "secret.txt").write_text(self.secrets["file"])
        (self._vault / "loot.py").write_text(f"SECRET = {self.secrets['module']!r}\n")
        (self._vault / f"listed-{self.secrets['name']}").touch()
        self.descriptor_file.write_text(self.secrets["descriptor"])
        database = sqlite3.connect(self._vault / "secrets.db")
        database.execute("create table secrets(x)")
        database.execute("insert into secrets values (?)", (self.secrets["database"],))
        database.commit()
        database.close()
        (self._outside / "precious").write_text("precious")
        for path in (*self._vault.iterdir(), self._outside / "precious"):
            path.chmod(0o600)

    def _leaked(self, reply: dict[str, Any]) -> str:
        text = reply.get("out", "") + reply.get("error", "")
        return ", ".join(name for name, secret in self.secrets.items() if secret in text)

    def _signalled(self, reply: dict[str, Any]) -> str:
        found = ["the host"] if reply.get("host_signalled") else []
        if self._victim.poll() is not None or state_of(self._victim.pid) != "S":
            found.append("another process")
            self._victim.kill()
            self._victim.wait()
            self._victim = self._new_victim()
        return ", ".join(found)

    def _new_victim(self) -> "subprocess.Popen[bytes]":
        victim = subprocess.Popen(
            [sys.executable, "-S", "-c", _VICTIM, f"victim-{self.token}"], start_new_session=True
        )
        self.expect(victim.pid)
        while state_of(victim.pid) != "S":  # it sleeps once it has started
            time.sleep(0.002)
        return victim

    def _written(self) -> str:
        shared = Path("/dev/shm") / self.token
        found = ["shared memory"] if shared.exists() else []
        shared.unlink(missing_ok=True)
        now = self._state_outside()
        if now != self._seen:
            found += [str(path) for path, _ in dict(now ^ self._seen).items()]
            _remove(self._outside)
            self._outside.mkdir()
            (self._outside / "precious").write_text("precious")
            self._seen = self._state_outside()
        return ", ".join(found)

    def _state_outside(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        found = set[tuple[str, tuple[int, ...]]]()
        there = [self._outside, *self._outside.rglob("*")] if self._outside.exists() else []
        for path in there:
            s = path.lstat()
            numbers = (s.st_mode, s.st_uid, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            found.add((path.name, numbers))
        return frozenset(found)

    def _left_files(self) -> list[str]:
        left = [*self.tmp.iterdir(), *Path("/tmp").glob(f"{self.token}*")]
        for path in (*left, *self.scratch.iterdir()):
            _remove(path)
        return [str(path) for path in left]

    def _left_ipc(self) -> list[str]:
        found: list[str] = []
        for kind, control in _IPC.items():
            rows = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
            for key, number, *_ in (row.split() for row in rows):
                if int(key) == self._ipc_key:
                    found.append(f"System V {kind}")
                    libc = ctypes.CDLL(None)
                    remove = (int(number), 0, 0) if kind == "sem" else (int(number), 0, None)
                    getattr(libc, control)(*remove)
        return found

    def _alive(self, gone_within_s: float) -> str:
        """Processes that were not there before; they are ended."""
        deadline = time.monotonic() + gone_within_s
        while (new := descendants() - self._processes) and time.monotonic() < deadline:
            time.sleep(0.005)
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in descendants(zombies=True) - self._processes:
            with contextlib.suppress(ChildProcessError):  # it is somebody else's to bury
                os.waitpid(pid, os.WNOHANG)
        return f"{len(new)} processes" if new else ""

    def _terminal_contacts(self) -> list[str]:
        shown = b""
        while select.select([self._terminal], [], [], 0)[0]:
            shown += os.read(self._terminal, 1000)
        return ["terminal"] if self.token.encode() in shown else []


class _Servers:
    """Servers on this machine's loopback. What reached them is looked up afterwards."""

    def __init__(self, folder: Path, token: str) -> None:
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        inet, unix = socket.AF_INET, socket.AF_UNIX
        places: list[tuple[str, int, int, Any]] = [
            ("TCP", inet, stream, ("127.0.0.1", 0)),
            ("UDP", inet, datagram, ("127.0.0.1", 0)),
            ("UNIX", unix, stream, str(folder / "socket")),
            ("UNIX_DATAGRAM", unix, datagram, str(folder / "datagrams")),
            ("abstract", unix, stream, f"\0{token}"),
            ("abstract datagram", unix, datagram, f"\0{token}-datagram"),
        ]
        self._sockets: dict[str, socket.socket] = {}
        for name, family, kind, address in places:
            self._sockets[name] = server = socket.socket(family, kind)
            server.bind(address)
            if kind == stream:
                server.listen(50)
        self.told = {
            "TCP": self._sockets["TCP"].getsockname()[1],
            "UDP": self._sockets["UDP"].getsockname()[1],
            "UNIX": str(folder / "socket"),
            "UNIX_DATAGRAM": str(folder / "datagrams"),
            "ABSTRACT": token,
        }

    def contacts(self) -> list[str]:
        """The servers that were reached since the last time."""
        found: list[str] = []
        while ready := select.select(self._sockets.values(), [], [], 0)[0]:
            for server in ready:
                found += [name for name, known in self._sockets.items() if known is server]
                if server.type == socket.SOCK_STREAM:
                    server.accept()[0].close()
                else:
                    server.recv(1000)
        return found

    def close(self) -> None:
        for server in self._sockets.values():
            server.close()


def descendants(*, zombies: bool = False) -> set[int]:
    """All living processes that this one started, or inherited from those; or all dead ones."""
    stats = {int(name): _stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found, todo = set[int](), [os.getpid()]
    while todo:
        new = children.get(todo.pop(), [])
        found.update(new)
        todo += new
    return {pid for pid in found if (stats[pid][0] == "Z") is zombies}


def state_of(pid: int) -> str:
    """The letter of a process's state; "" when there is none."""
    return (_stat(pid) or [""])[0]


def _stat(pid: int) -> list[str]:
    """State, parent, group and so on; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def _remove(path: Path) -> None:
    """Delete a folder or a file, however deep and locked it is."""
    if path.is_dir() and not path.is_symlink():
        subprocess.run(["chmod", "-R", "u+rwx", path], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", path], check=True)
    else:
        path.unlink(missing_ok=True)
