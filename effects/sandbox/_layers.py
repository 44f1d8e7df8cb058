"""The layers of the sandbox in their order, and what became of each.

Standard library only; the sandboxed child loads this file by itself.

Two steps. `enter` comes before anything of the session exists: namespaces, the fork that one of
them takes, the new root. `lock` comes when the session is ready to run code: limits, rights,
Landlock, the filter. A layer that can't be had is noted with the reason, and the next one is
tried.

The names are those of `report.LAYERS`.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.sandbox import _landlock, _mounts, _namespaces, _places, _seccomp, _user
else:
    import _landlock
    import _mounts
    import _namespaces
    import _places
    import _seccomp
    import _user

ACTIVE = ""
"""What `Layers.found` says of a layer that is there."""
LEFT_OUT = "left out by request"
UNSHARED_COUNT = (5, 14)
"""Since this kernel a user namespace counts the processes and threads of its users by itself."""
MAX_TASKS = 256
"""Threads of one session, where the kernel counts them for it alone."""


class Layers:
    """The sandbox of this process."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """`plan`: ``folder``, a folder of the session's own; ``host``, the process id of the host;
        ``without``, names of layers to leave out; ``scratch_bytes``, what may be written."""
        self.found: dict[str, str] = {}
        """Name of a layer -> `ACTIVE`, or why it isn't there."""
        self.counts_alone = False
        """Whether the kernel counts this session's threads apart from everybody else's."""
        self._plan = plan
        self._was_root = os.geteuid() == 0
        self._in_user_namespace = False
        self._number = os.getpid()
        """As the host sees it."""
        self._memory = -1
        self._trees = _places.trees()  # while there is a /proc to ask

    def enter(self) -> None:
        """Namespaces and the new root. Returns in another process than it was called in."""
        host = self._plan["host"]
        self._try("death signal", _namespaces.die_with_parent)
        if host and os.getppid() != host:
            os._exit(0)  # the host was gone before the signal was asked for
        if not (self._was_root and _namespaces.can_make_directly()):
            self._try("user namespace", _namespaces.make_user)
            self._in_user_namespace = self._has("user namespace")
        for kind in _namespaces.KINDS:
            self._try(kind, lambda kind=kind: _namespaces.make(kind))  # type: ignore[misc]
        if self._has("process namespace"):
            _namespaces.fork_into()
        self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        if self._has("mount namespace"):
            self._try("own root", self._make_root)
        else:
            self.found["own root"] = "needs the mount namespace"

    def lock(self, limit_process: Callable[[int | None], None]) -> None:
        """Everything else. `limit_process` sets the resource limits; it is told how many threads
        there may be, None where the kernel would count those of other processes too."""
        if self._was_root and not self._in_user_namespace:
            self._try("own user", self._become_nobody)
        else:
            self.found["own user"] = (
                ACTIVE if not self._was_root else "root has no right to change users here"
            )
        self.counts_alone = self._counts_alone()
        self._try("limits", lambda: limit_process(MAX_TASKS if self.counts_alone else None))
        self._try("no capabilities", _user.drop_capabilities)
        self._try("no new privileges", _user.no_new_privileges)
        self._try("landlock", self._close_files)
        self._try("not dumpable", _user.not_dumpable)
        if self._has("death signal"):
            _namespaces.die_with_parent()  # a change of the user has undone it
        self._try("system call filter", self._filter)

    def used_bytes(self) -> int:
        """Address space that this process takes now. To be asked once."""
        pages = int(os.pread(self._memory, 100, 0).split()[0])
        os.close(self._memory)
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _try(self, name: str, work: Callable[[], object]) -> None:
        if name in self._plan["without"]:
            self.found[name] = LEFT_OUT
            return
        try:
            work()
        except OSError as error:
            self.found[name] = error.strerror or str(error)
        else:
            self.found[name] = ACTIVE

    def _has(self, name: str) -> bool:
        return self.found.get(name) == ACTIVE

    def _owner(self) -> int:
        """The user that code will run as, as this process numbers it."""
        if self._in_user_namespace:
            return _namespaces.INNER_ID
        return _user.own_id(self._number) if self._was_root else os.geteuid()

    def _make_root(self) -> None:
        folder, size = self._plan["folder"], self._plan["scratch_bytes"]
        _mounts.enter(folder, self._trees, scratch_bytes=size, owner=self._owner())

    def _become_nobody(self) -> None:
        folder, user = self._plan["folder"], self._owner()
        if self._has("own root"):
            _user.become(user, [])
            return
        os.chown(folder, user, user)
        try:
            _user.become(user, [os.__file__, folder])
        except OSError:
            os.chown(folder, 0, 0)
            raise

    def _counts_alone(self) -> bool:
        if self._was_root:
            return self._has("own user")
        release = os.uname().release.split(".")
        return self._in_user_namespace and tuple(map(int, release[:2])) >= UNSHARED_COUNT

    def _close_files(self) -> None:
        own_root = self._has("own root")
        readable = [*self._trees, *_places.extras()]
        if not own_root:
            readable = [piece for tree in readable for piece in _places.pieces(tree)]
        scratch = _mounts.SCRATCH if own_root else self._plan["folder"]
        _landlock.restrict(readable=readable, writable=[scratch], devices=_places.DEVICES)

    def _filter(self) -> None:
        _seccomp.install(own_pid=os.getpid(), own_root=self._has("own root"))


def landlock_version() -> int:
    """The version of Landlock's interface; 0 where there is none."""
    try:
        return _landlock.version()
    except OSError:
        return 0
