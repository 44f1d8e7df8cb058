"""The calendar of a sandboxed session: what code reads that asks for the time.

The sandbox puts each reading to the host. The rules are those of the `python` backend (`_fixed`,
rules 2 to 4), but that sleeping takes no time here. Reading the time is a program, as a subcall is:
the first one of a cell asks what time it is, the others are answered at once.

A session that doesn't ask (`ReplSettings.asks_clock`) has a calendar that stands still, which the
sandbox keeps by itself.
"""

from datetime import UTC, datetime, tzinfo
from typing import Literal

from pydantic_monty import FunctionSnapshot

from effects.repls._fixed import CALL, TICK_NS, Calendar, start_of, told_ns
from effects.repls._functions import Ask, Program
from effects.repls.base import ReplSettings

_NS = 1_000_000_000
_ELAPSED = frozenset({"time.monotonic", "time.perf_counter"})
"""What `time.time` is asked for where no time of day is wanted."""
_READINGS = frozenset({"time.time", "datetime.now", "date.today"})


class Clock:
    """The time of one session."""

    def __init__(self, settings: ReplSettings) -> None:
        self._start_s = start_of(settings.seed)
        self.calendar = Calendar(self._start_s * _NS)
        self.asks = settings.asks_clock and bool(settings.seed)
        """Whether the readings come here."""
        self.in_cell = False
        """A cell runs: what reads the time now may ask."""

    @property
    def policy(self) -> datetime | Literal["call_host"]:
        """The sandbox's own: ask the host, or a time that stands still."""
        start = datetime.fromtimestamp(self._start_s, UTC).replace(tzinfo=None)
        return "call_host" if self.asks else start

    def reads(self, call: FunctionSnapshot) -> bool:
        """Whether the sandbox waits for a reading."""
        return self.asks and call.is_os_function and call.function_name in _READINGS

    def read(self, call: FunctionSnapshot) -> Program:
        """What answers a reading, and asks first where it is the first one of the cell."""
        if call.args and call.args[0] in _ELAPSED:
            return self.calendar.tick() / _NS
        if self.in_cell and not self.calendar.is_asked:
            self.calendar.is_asked = True
            now_ns = told_ns((yield Ask([CALL], False)))
            if now_ns is not None:
                self.calendar.set_to(now_ns - TICK_NS)  # the reading itself is a tick
        now_s = self.calendar.now_ns() / _NS
        match call.function_name, call.args:
            case "datetime.now", [tzinfo() as zone]:
                return datetime.fromtimestamp(now_s, zone)
            case "datetime.now", _:
                return datetime.fromtimestamp(now_s, UTC).replace(tzinfo=None)
            case "date.today", _:
                return datetime.fromtimestamp(now_s, UTC).date()
            case _:
                return now_s

    def read_again(self, call: FunctionSnapshot) -> Program:
        """The program of a reading that has asked, from its beginning."""
        self.in_cell, self.calendar.is_asked = True, False
        return self.read(call)

    def saved(self) -> list[int]:
        """The calendar as plain data; `restore` is its inverse."""
        calendar = self.calendar
        return [calendar.base_ns, calendar.elapsed_ns, int(calendar.is_asked)]

    def restore(self, saved: list[int]) -> None:
        """Become what was written down."""
        self.calendar.base_ns, self.calendar.elapsed_ns, is_asked = saved
        self.calendar.is_asked = bool(is_asked)
