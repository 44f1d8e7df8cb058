"""A process of the host's that computes for a session what may take too long or too much memory.

It runs a program of ours on a model's data and patterns: with an empty environment, a memory limit,
what of the sandbox fits it (`effects.sandbox._helper`), and an end when an answer takes too long.
Frames go over its pipes: 8 bytes of length, little-endian, then the data. The program's first
arguments are the folders that it loads from, its last one is its memory limit in bytes.
"""

import select
import subprocess
import sys
from pathlib import Path

from effects.sandbox import _helper

SANDBOX_FOLDER = str(Path(_helper.__file__).parent)
"""What helpers load their layers from."""
INTERPRETER_BYTES = 256 << 20
"""Address space of a Python that does nothing, rounded up well."""
_LENGTH_BYTES = 8


class Helper:
    """One such process. Ask from one thread; `kill` may come from another."""

    def __init__(self, program: str, *folders: str, memory_bytes: int) -> None:
        """Start it. `memory_bytes`: what it may take besides a bare interpreter's. Raises OSError
        when it can't be had."""
        limit_bytes = INTERPRETER_BYTES + memory_bytes
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, *folders, str(limit_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,  # Ctrl-C is the host's affair
        )

    def ask(self, request: bytes, timeout_s: float) -> bytes:
        """The answer to a request, once it begins within the time.

        Raises `TimeoutError`, and another OSError when the process is gone. It must be closed then.
        """
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0] is not None
        assert pipes[1] is not None
        pipes[0].write(len(request).to_bytes(_LENGTH_BYTES, "little"))
        pipes[0].write(request)
        pipes[0].flush()
        if not select.select([pipes[1]], [], [], timeout_s)[0]:
            raise TimeoutError
        head = pipes[1].read(_LENGTH_BYTES)
        size = int.from_bytes(head, "little")
        data = pipes[1].read(size)
        if len(head) < _LENGTH_BYTES or len(data) < size:
            raise BrokenPipeError("its process is gone")
        return data

    def kill(self) -> None:
        """End what it computes; the one who asks learns that the process is gone."""
        self._process.kill()

    def close(self) -> None:
        """End it and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # what it never read
                pass
