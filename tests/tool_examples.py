"""Tools for tests of the command line: what `--tools tool_examples:TOOLS` finds."""

import os
import signal
from pathlib import Path

from rlm_fsm import tool


def _note(text: str) -> None:
    with Path(os.environ["TOOL_NOTES"]).open("a") as notes:
        notes.write(f"{text}\n")


@tool(needs_approval=True)
def send(to: str) -> str:
    """Send a message."""
    _note(f"sent to {to}")
    return f"sent to {to}"


@tool(idempotent=False)
def once() -> str:
    """Do something that may not be done twice; its program dies."""
    _note("once")
    os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def dies(name: str) -> str:
    """Note a name; the program dies while it does so for the first time."""
    _note(name)
    if Path(os.environ["TOOL_NOTES"]).read_text().count(name) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def look(city: str) -> str:
    """Look up a city."""
    _note(f"look {city}")
    return city.upper()


TOOLS = [send, once, dies, look]
