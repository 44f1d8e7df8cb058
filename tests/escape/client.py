"""Trying payloads on a host process, and starting another where a payload ended it."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from escape.canaries import Canaries, state_of
from escape.corpus import Payload

ROOT = Path(__file__).parents[2]
LIMIT_S = 5.0
PATIENT_LIMIT_S = 15.0
"""For the control: it must be seen to succeed, also on a machine that is busy."""
SHORT_LIMIT_S = 0.25
"""For cells that are meant to reach the limit."""
SLACK_S = 3.0
"""Beyond the limit, for a process to be ended and for a machine that is busy."""
GONE_WITHIN_S = 2.0
DEAD_AFTER_S = 30.0
FLOOD_CHARS = 200_000


class Host:
    """A host process: ``bare``, or ``host`` with real sessions.

    `poor`: without the rights that a sandbox's namespaces take.
    """

    def __init__(self, program: str, canaries: Canaries, *, poor: bool = False) -> None:
        self._program = str(Path(__file__).parent / f"{program}.py")
        self._poor = poor
        self._canaries = canaries
        self._process = self._started()
        self.last: dict[str, Any] = {}
        """What the host said of the last payload."""

    def try_out(self, payload: Payload, backend: str = "") -> dict[str, str]:
        """The canaries that a payload tripped, and what was found."""
        patient_s = LIMIT_S if backend else PATIENT_LIMIT_S
        usual_s = SHORT_LIMIT_S if payload.trips == "overtime" else patient_s
        limit_s = float(payload.limit_s or usual_s)
        request = {
            "backend": backend,
            "limit_s": limit_s,
            "told": self._canaries.told,
            "code": payload.code,
            "traps_are_laid": payload.technique == "runtime",
        }
        reply = self._asked(request)
        if reply is None:
            self.close()
            self._process = self._started()
            reply = {"host_signalled": True}
        found = self._canaries.tripped(reply, gone_within_s=GONE_WITHIN_S if backend else 0.0)
        took_s = reply.get("took_s", 0.0)
        if took_s > limit_s + (SLACK_S if backend else 0.1):
            found["overtime"] = f"{took_s:.1f} s"
        if (chars := len(reply.get("out", "")) + len(reply.get("error", ""))) > FLOOD_CHARS:
            found["flood"] = f"{chars} characters"
        self.last = {**reply, "out": reply.get("out", "")[-500:]}
        return found

    def close(self) -> None:
        """End the process."""
        with self._process:  # closes its pipes, and waits
            self._process.kill()

    def _started(self) -> "subprocess.Popen[bytes]":
        names = self._canaries.secrets
        settings = {
            "key": names["key"],
            "memory": names["memory"],
            "file": str(self._canaries.descriptor_file),
            "poor": self._poor,
        }
        process = subprocess.Popen(
            [sys.executable, self._program, json.dumps(settings), names["command line"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._canaries.scratch,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.environ["PYTHONPATH"],
                "TMPDIR": str(self._canaries.tmp),
                "ESCAPE_SECRET": names["environment"],
            },
            start_new_session=True,
        )
        self._canaries.expect(process.pid)
        return process

    def _asked(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The reply; None when the host is dead, or stopped."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        deadline = time.monotonic() + DEAD_AFTER_S
        data = b""
        while not data.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], 0.1)[0]:
                if state_of(self._process.pid) in "TtZ" or time.monotonic() > deadline:
                    return None
                continue
            more = os.read(self._process.stdout.fileno(), 1 << 20)
            if not more:
                return None
            data += more
        reply: dict[str, Any] = json.loads(data)
        return reply
