"""The log: append-only streams of events, one per run, in one SQLite file.

`base` says what a log is, `sqlite` is the one there is. Names are imported on first use, so that
a program which only wants the protocol loads no database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effects.log.base import EventLog, Lease, Logged, RunInfo
    from effects.log.checking import RunCheck
    from effects.log.sqlite import SqliteLog

__all__ = ["EventLog", "Lease", "Logged", "RunCheck", "RunInfo", "SqliteLog"]

_HOMES = {
    "EventLog": "effects.log.base",
    "Lease": "effects.log.base",
    "Logged": "effects.log.base",
    "RunInfo": "effects.log.base",
    "RunCheck": "effects.log.checking",
    "SqliteLog": "effects.log.sqlite",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
