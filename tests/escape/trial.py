"""Tries many payloads on one kind of host, and prints what each tripped.

    python trial.py MODE FOLDER < numbers of payloads

A payload under bare `exec` has several tries: there it is to trip its canary. In a session it has
one, which is to trip nothing.

A process of its own, so that several trials go on side by side: what a payload starts is found
among the descendants of the process that watches.
"""

import json
import sys
from pathlib import Path

from escape.canaries import Canaries
from escape.client import Host
from escape.corpus import load
from escape.hosting import die_with_parent

MODES = {
    "bare": ("bare", ""),
    "python": ("host", "python"),
    "python without namespaces": ("host", "python"),
    "monty": ("host", "monty"),
}
MOST_TRIES = 5
"""Some payloads race with their host. One that is to trip its canary may need several starts."""


def main() -> None:
    """Try them, one line of JSON each: what was tripped, and what the host said."""
    die_with_parent()
    mode, folder = sys.argv[1], Path(sys.argv[2])
    program, backend = MODES[mode]
    canaries = Canaries(folder)
    host = Host(program, canaries, poor=mode == "python without namespaces")
    try:
        for number in map(int, sys.stdin.read().split()):
            payload = load()[number]
            tripped = host.try_out(payload, backend)
            for _ in range(1, MOST_TRIES):
                if backend or payload.needs or payload.trips in tripped:
                    break
                tripped = host.try_out(payload, backend)
            print(json.dumps([number, tripped, host.last]), flush=True)
    finally:
        host.close()
        canaries.close()


if __name__ == "__main__":
    main()
