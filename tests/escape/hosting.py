"""What the real host and the bare one share: secrets in memory, requests, their own state.

A host process is started with ``ESCAPE_SECRET`` in its environment and a secret on its command
line. It holds a real adapter with a key, a secret in its memory and an open file. It answers
requests, a line of JSON each.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effects.adapters.openai_compat import OpenAICompatAdapter
from effects.context import Context

PROBE = "print(6 * 7, llm_query('ping'), P[:5])"
"""The cell that says whether a session still works."""
PROBED = "42 PING aaaaa\n"
CONTEXT = Context.from_text("a" * 60 + "b")
KEY_START = "sk-escape-"
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24
_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION = 0x20080522


class HostState:
    """The secrets of a host, and whether anybody meddled with it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.adapter = OpenAICompatAdapter("model", "http://127.0.0.1:1/v1", settings["key"])
        self.memory = ctypes.create_string_buffer(settings["memory"].encode())
        if settings["poor"]:
            give_up_namespaces()
        self.file = os.open(settings["file"], os.O_RDONLY)
        os.set_inheritable(self.file, True)
        self._before = self._state()

    def told(self, pid: int) -> str:
        """What the code is told of its host, as code."""
        return (
            f"HOST = {pid}\nHOST_FD = {self.file}\nPROGRAM = {sys.argv[0]!r}\n"
            f"SECRET_AT = {ctypes.addressof(self.memory)}\nSECRET_SIZE = {len(self.memory) - 1}\n"
        )

    def meddled(self) -> list[str]:
        """What was changed of this process from outside; from then on it counts as unchanged."""
        before, self._before = self._before, self._state()
        return [
            f"{old} is now {new}"
            for old, new in zip(before, self._before, strict=True)
            if old != new
        ]

    def _state(self) -> list[object]:
        with open("/proc/self/oom_score_adj") as file:
            oom = file.read()
        return [
            oom,
            os.getpriority(os.PRIO_PROCESS, 0),
            os.sched_getscheduler(0),
            os.sched_getaffinity(0),
            resource.getrlimit(resource.RLIMIT_NOFILE),
            self.memory.raw,
        ]


def give_up_namespaces() -> None:
    """Become a process that has no rights and can't make namespaces, as in many a container."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    head, none = struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24)
    if libc.capset(head, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def die_with_parent() -> None:
    """See to it that nothing is left of tests that were killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until their source ends."""
    die_with_parent()
    out = os.dup(1)
    os.set_inheritable(out, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    with os.fdopen(os.dup(0), encoding="utf-8") as requests:
        os.dup2(null, 0)
        for line in requests:
            reply = json.dumps(answer(json.loads(line))).encode() + b"\n"
            while reply:
                reply = reply[os.write(out, reply) :]
