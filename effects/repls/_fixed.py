"""Chance and the calendar of a session: the same each time that its cells are run.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

1. Both begin with the run's id: its beginning says when the run was started, all of it is the seed.
2. The calendar begins when the run did. It goes on by a millisecond each time that it is read, and
   by what code sleeps. So no two readings are equal, and what code computes takes no time by it.
3. The first time that a cell reads it, the host is asked what time it is (`Calendar.ask`): an event
   of the run, so a cell that is run again reads the same times. The calendar is set forward to
   that, never back. Importing a module is no reading, nor is what runs while no cell does.
4. `time.perf_counter` and its like go on as the calendar does, but are never set.
   `time.monotonic` and what waits by it are the system's: event loops and timeouts need it.
5. `random`, and every generator that code makes without a seed, begin with the run's. What is meant
   for secrets (`os.urandom`, `secrets`, `uuid.uuid4`) is the system's, and differs each time.
6. `datetime` asks `time` only in the form that is written in Python, so that form is loaded.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

DEFAULT_START_S = 1_767_225_600
"""1 January 2026: where the calendar begins when the run's id doesn't say."""
TICK_NS = 1_000_000
CALL: dict[str, Any] = {
    "fn": "time",
    "prompt": "",
    "question": None,
    "model": None,
    "max_tokens": None,
    "recursive": None,
    "dedupe": True,
    "kind": "clock",
}
"""The host call that asks what time it is."""
_NS = 1_000_000_000


def start_of(seed: str) -> int:
    """When a run was started, by its id (``20261122-181500-...``): seconds since 1970."""
    digits = seed[:8] + seed[9:15]
    if len(digits) != 14 or not (digits.isascii() and digits.isdecimal()):
        return DEFAULT_START_S
    year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:8])
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31):
        return DEFAULT_START_S
    hour, minute, second = int(digits[8:10]), int(digits[10:12]), int(digits[12:14])
    return _days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second


def number_of(seed: str) -> int:
    """A seed as a number of 63 bits."""
    found = 0xCBF29CE484222325  # FNV-1a: `hashlib` would take milliseconds of the start
    for byte in seed.encode("utf-8", "surrogatepass"):
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found >> 1


class Calendar:
    """What time it is for the code of one session. Times are in nanoseconds."""

    def __init__(self, start_ns: int) -> None:
        self.ask: Callable[[], int | None] | None = None
        """Asks the host; None for a calendar that only begins where it should. It gives None where
        the host can't be asked now."""
        self.elapsed_ns = 0
        """What the readings and the sleeping took so far."""
        self.base_ns = start_ns
        """The time of day when nothing had elapsed."""
        self.is_asked = False
        """Whether the running cell has asked."""

    def begin_cell(self) -> None:
        """The next reading asks."""
        self.is_asked = False

    def tick(self) -> int:
        """One more reading: what has elapsed."""
        self.elapsed_ns += TICK_NS
        return self.elapsed_ns

    def now_ns(self) -> int:
        """The time of day, read once more."""
        elapsed_ns = self.tick()
        if self.ask is not None and not self.is_asked and not _imports():
            self.is_asked = True
            now_ns = self.ask()
            if now_ns is None:
                self.is_asked = False
            else:
                self.set_to(now_ns)
        return self.base_ns + elapsed_ns

    def set_to(self, now_ns: int) -> None:
        """Go on from this time, unless it is past already."""
        self.base_ns = max(self.base_ns, now_ns - self.elapsed_ns)


def install(seed: str) -> Calendar:
    """Fix both for this process. Modules that took functions of `time` before keep
    the system's."""
    calendar = Calendar(start_of(seed) * _NS)
    _fix_calendar(calendar)
    for name in ("_datetime", "_zoneinfo"):  # the second needs the first
        sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: not there
    sys.meta_path.insert(0, _Seeding(seed))
    return calendar


def told_ns(answers: "list[tuple[str, str]]") -> int | None:
    """What the host said to `CALL`: nanoseconds since 1970; None when it doesn't know."""
    [(kind, text)] = answers
    return round(float(text) * 1e6) * 1_000 if kind == "text" else None


def _imports() -> bool:
    """Whether it is a module that reads the time while it is imported, as `logging` does."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # as `logging` does it
    while frame.f_back is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__"


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970, by the Gregorian calendar; years are taken to begin in March."""
    year -= month <= 2
    month = (month + 9) % 12
    since = year * 365 + year // 4 - year // 100 + year // 400
    return since + (month * 153 + 2) // 5 + day - 1 - 719_468


def _fix_calendar(calendar: Calendar) -> None:
    sleep = time.sleep
    localtime, gmtime, strftime = time.localtime, time.gmtime, time.strftime
    ctime, asctime = time.ctime, time.asctime
    read = calendar.now_ns

    def slept(seconds: float, /) -> None:
        sleep(seconds)
        calendar.elapsed_ns += int(seconds * _NS)

    def filled(function: Callable[[float], Any]) -> Callable[..., Any]:
        def given(secs: float | None = None, /) -> Any:
            return function(read() / _NS if secs is None else secs)

        return given

    def fixed_asctime(t: Any = None, /) -> str:
        return asctime(localtime(read() / _NS) if t is None else t)

    def fixed_strftime(form: str, t: Any = None, /) -> str:
        return strftime(form, localtime(read() / _NS) if t is None else t)

    fixed: dict[str, Any] = {
        "time": lambda: read() / _NS,
        "time_ns": lambda: read(),
        "sleep": slept,
        "gmtime": filled(gmtime),
        "localtime": filled(localtime),
        "ctime": filled(ctime),
        "asctime": fixed_asctime,
        "strftime": fixed_strftime,
    }
    for name in ("perf_counter", "process_time", "thread_time"):
        fixed[name] = lambda: calendar.tick() / _NS
        fixed[f"{name}_ns"] = lambda: calendar.tick()
    for name, function in fixed.items():
        function.__name__ = function.__qualname__ = name
        function.__module__ = "time"
        setattr(time, name, function)


class _Seeding:
    """Seeds `random` when code first imports it: loading it takes milliseconds."""

    def __init__(self, seed: str) -> None:
        self._seed = seed

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The module's own spec, with a loader that seeds it."""
        if name != "random":
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec: Any = next(filter(None, specs), None)
        if spec is not None:
            load, seed = spec.loader.exec_module, number_of(self._seed)

            def load_and_seed(module: Any) -> None:
                load(module)
                _fix_chance(module, seed)

            spec.loader.exec_module = load_and_seed
        return spec


def _fix_chance(random: Any, number: int) -> None:
    """Let generators that are made or seeded without a seed take one that is counted up."""
    plain = random.Random.seed
    taken = number

    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        nonlocal taken
        if a is None:
            taken, a = taken + 1, taken
        plain(self, a, version)

    seed.__doc__, seed.__qualname__ = plain.__doc__, plain.__qualname__
    random.Random.seed = seed
    random.seed = random._inst.seed  # bound before
    random.seed()
