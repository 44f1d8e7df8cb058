"""What a sandbox is made of, for people: its layers by name, what each is for, how to get it.

1. A layer counts as active only when the child itself says that it was put in place.
2. *Files closed* and *network closed* are what ``isolation="strict"`` asks for. Each is so when at
   least one layer that does it alone is active.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kind of containment."""

    does: str
    """What it keeps from code."""
    remedy: str
    """How to get it where it is missing."""
    closes: str = ""
    """``files`` or ``network`` when it closes them alone."""


_NAMESPACE = (
    "Linux with user namespaces (sysctl user.max_user_namespaces above 0); in a container, a "
    "seccomp profile that allows unshare and mount"
)
LAYERS: dict[str, Layer] = {
    "death signal": Layer(does="the process dies with its host", remedy="Linux"),
    "user namespace": Layer(does="rights over nothing but itself", remedy=_NAMESPACE),
    "network namespace": Layer(
        does="no network interface, not even loopback", remedy=_NAMESPACE, closes="network"
    ),
    "mount namespace": Layer(does="mounts of its own", remedy=_NAMESPACE),
    "ipc namespace": Layer(does="no shared memory of other programs", remedy=_NAMESPACE),
    "host name namespace": Layer(does="a host name of its own", remedy=_NAMESPACE),
    "process namespace": Layer(does="no other process can be seen or named", remedy=_NAMESPACE),
    "own root": Layer(
        does="no file but the standard library's, and a folder in memory to write in",
        remedy=_NAMESPACE,
        closes="files",
    ),
    "own user": Layer(
        does="it is not root, and not any other user of this machine",
        remedy="start the program as a user other than root",
    ),
    "limits": Layer(
        does="memory, files, descriptors, threads, core dumps are limited", remedy="a POSIX system"
    ),
    "no capabilities": Layer(does="none of root's rights", remedy="Linux"),
    "no new privileges": Layer(does="no program gives it more rights", remedy="Linux"),
    "landlock": Layer(
        does="no file but the standard library's and its folder's, no TCP",
        remedy="Linux 5.13 or newer, with landlock among its security modules (boot: lsm=landlock)",
        closes="files",
    ),
    "not dumpable": Layer(does="other processes can't look into it", remedy="Linux"),
    "system call filter": Layer(
        does="no sockets, no programs, no processes, no tracing, no mounting",
        remedy="Linux on x86_64 or aarch64 with seccomp filters (CONFIG_SECCOMP_FILTER)",
        closes="network",
    ),
    "interpreter without a system": Layer(
        does="the language has no files, no network and no processes",
        remedy='repl_backend="monty"',
    ),
}
"""In the order in which they are put in place. The last is monty's, which has no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the layers of one backend."""

    backend: str
    active: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name of a layer -> why it isn't there."""
    closed: frozenset[str] = frozenset()
    """Of ``files`` and ``network``, what code can't reach."""

    @property
    def summary(self) -> str:
        """Whether files and network are closed, in words."""
        return ", ".join(
            f"{what} {'closed' if what in self.closed else 'OPEN'}" for what in ("files", "network")
        )

    def environment(self) -> dict[str, str]:
        """For the record of a run."""
        missing = "; ".join(f"{name} ({why})" for name, why in self.missing.items())
        return {
            "sandbox": self.summary,
            "sandbox.active": ", ".join(self.active),
            **({"sandbox.missing": missing} if missing else {}),
        }

    def refusal(self) -> str | None:
        """Why ``isolation="strict"`` refuses this sandbox, and what to do; None when it doesn't."""
        open_ = [what for what in ("files", "network") if what not in self.closed]
        if not open_:
            return None
        lines = [f"isolation='strict': {' and '.join(open_)} could not be closed to code."]
        for name, layer in LAYERS.items():
            if layer.closes in open_ and name in self.missing:
                lines.append(f"  - {name}: {self.missing[name]}. It takes {layer.remedy}.")
        lines.append(
            "One layer for each is enough. rlm-fsm doctor tells more; repl_backend='monty'"
        )
        lines.append("closes both on every system; isolation='best-effort' runs without them.")
        return "\n".join(lines)


def report_of(found: Mapping[str, str], backend: str = "python") -> Report:
    """The report of a sandboxed child: name of a layer -> empty when active, or why not."""
    known = {name: found[name] for name in LAYERS if name in found}
    active = tuple(name for name, why in known.items() if not why)
    return Report(
        backend=backend,
        active=active,
        missing={name: why for name, why in known.items() if why},
        closed=frozenset(LAYERS[name].closes for name in active) - {""},
    )


MONTY = Report(
    backend="monty",
    active=("interpreter without a system",),
    closed=frozenset({"files", "network"}),
)
"""Its interpreter has nothing to close, on any system."""
