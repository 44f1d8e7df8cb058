"""How the program begins: Ctrl-C before the command line is loaded ends it, without a traceback.

Loading takes some tenths of a second, in which nothing is started. This module imports nothing
else before it listens.
"""

import os
import signal

_CANCELLED = 130


def main() -> int:
    """The command line's exit code."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, _end)
    from effects.cli import main as command

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return command()


def _end(number: int, frame: object) -> None:
    """An exception in the middle of an import can be swallowed, or be followed by another one."""
    del number, frame
    os._exit(_CANCELLED)
