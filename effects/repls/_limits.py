"""The limits of model-written code: seconds of computing, and memory.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself.

1. Time: a timer signal whose handler raises `CellTimeout` in the main thread at the limit, and
   again every 0.1 seconds, so that no ``except:`` swallows it for ever. The timer is set when
   code starts, and left alone when it waits or has ended: a signal that comes too early sets it
   anew.
2. The handler raises only while model-written code runs (`Guard.active`) and no host call is
   under way (`Guard.waiting`): the runtime's own lines are never torn apart.
3. Memory: a limit of the address space on top of what the process has when it is ready.
   It is a little higher while the runtime's own lines run, so that code which has used up its
   memory can be told so, and can free some. Where the context is mapped there is room for one
   `str` of it, which code gets when that is made.
"""

import resource
import sys
from collections.abc import Callable
from time import perf_counter  # taken before `_fixed` puts another one in its place
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.repls import _words
else:
    import _words

TICK_S = 0.1
"""Seconds between two reminders that the time is up."""
RESERVE_BYTES = 32 << 20
"""Address space that only the runtime may use."""
_PAGES_BYTES = 1 << 16
"""What the system rounds a large block up by, and more."""
MAX_OPEN_FILES = 512
MAX_PROCESSES = 16_384
"""Processes and threads of the whole user, where the system counts them all: far above what a
desktop has running."""


# The functions below those of `signal`, which spend 6 microseconds each on making enums.
_signal: Any = __import__("_signal")


class CellTimeout(BaseException):
    """The cell used up its time. No `Exception`, so that ``except Exception`` lets it pass."""


CellTimeout.__module__ = "__main__"  # tracebacks show the bare name


class Guard:
    """Switches the limits on and off around model-written code."""

    def __init__(self, limit_s: float) -> None:
        self.left_s = limit_s
        """Seconds left of the cell's time; exact while it waits and when it has ended."""
        self.active = False
        """Model-written code runs. Set to False by a plain store, see `guarded`."""
        self.waiting = False
        """A host call is under way."""
        self._limit_s = limit_s
        self._memory_bytes = 0
        self._expired = False
        self._ends_s = 0.0
        """When the time is up, by `perf_counter`; of no meaning while it waits."""
        self._is_set = False
        """The timer was set, and hasn't been stopped since."""
        self._handlers = ((_signal.SIGALRM, self._on_alarm), (_signal.SIGINT, self._on_interrupt))
        self._for_code = self._for_runtime = resource.getrlimit(resource.RLIMIT_AS)
        self._take_signals()

    def limit_memory(self, used_bytes: int, memory_bytes: int, room_bytes: int = 0) -> None:
        """Code gets so much address space on top of what the process has now, and `with_room`
        the last of these for the whole text."""
        self._memory_bytes = memory_bytes
        wanted = used_bytes + memory_bytes + RESERVE_BYTES + room_bytes
        top = _at_most_hard(resource.RLIMIT_AS, wanted)
        soft = top - room_bytes
        self._for_code, self._for_runtime = (soft - RESERVE_BYTES, top), (soft, top)
        _set_memory(self._for_runtime)

    def with_room(self, make: Callable[[], str]) -> str:
        """Make the whole text, with the address space that was set aside for it."""
        (code, top), (runtime, _) = self._for_code, self._for_runtime
        try:
            _set_memory((top, top))
            text = make()
            size = min(sys.getsizeof(text) + _PAGES_BYTES, top - runtime)
            self._for_code, self._for_runtime = (code + size, top), (runtime + size, top)
        finally:
            _set_memory(self._for_code if self.active else self._for_runtime)
        return text

    def start(self, limit_s: float | None = None) -> None:
        """Model-written code is about to run, for the whole limit or less."""
        self.left_s = self._limit_s if limit_s is None else limit_s
        self._expired = self.waiting = False
        _set_memory(self._for_code)
        self._ends_s = perf_counter() + self.left_s
        self.active = True
        self._set_timer(self.left_s)

    def name_limit(self, error: BaseException) -> None:
        """Say which limit a bare `MemoryError` is about, unless it came without one."""
        if type(error) is MemoryError and not error.args and self._memory_bytes:
            most = self._memory_bytes / (1 << 20)
            error.args = (f"the cell needed more than {most:,.0f} MiB of memory",)

    def stop(self) -> None:
        """Model-written code has ended."""
        self.active = False
        self.left_s = 0.0 if self._expired else max(0.0, self._ends_s - perf_counter())
        self._take_signals()  # code may have put handlers of its own in place
        _set_memory(self._for_runtime)

    def pause(self) -> None:
        """A host call begins."""
        if self._expired:
            raise self._timeout()
        self.waiting = True
        self.left_s = max(0.0, self._ends_s - perf_counter())
        _set_memory(self._for_runtime)

    def resume(self) -> None:
        """A host call has ended. The code may have ended before it, if a thread made the call."""
        if not self.active:
            self.waiting = False
            return
        _set_memory(self._for_code)
        self._ends_s = perf_counter() + self.left_s
        # From here on a signal sets the timer anew. One that came before has stopped it.
        self.waiting = False
        if not self._is_set:
            self._set_timer(max(self.left_s, 0.001))

    def _take_signals(self) -> None:
        for number, handler in self._handlers:
            if _signal.getsignal(number) != handler:
                _signal.signal(number, handler)
                self._stop_timer()  # it may be set for something else

    def _set_timer(self, seconds: float) -> None:
        self._is_set = True
        _signal.setitimer(_signal.ITIMER_REAL, seconds, TICK_S)

    def _stop_timer(self) -> None:
        self._is_set = False
        _signal.setitimer(_signal.ITIMER_REAL, 0.0)

    def _on_alarm(self, *_: object) -> None:
        if not self.active or (self.waiting and not self._expired):
            self._stop_timer()
        elif not self._expired and (early_s := self._ends_s - perf_counter()) > 0:
            self._set_timer(early_s)
        else:
            self._expired = True
            if not self.waiting:
                raise self._timeout()

    def _on_interrupt(self, *_: object) -> None:
        if self.active and not self.waiting:
            raise KeyboardInterrupt

    def _timeout(self) -> CellTimeout:
        return CellTimeout(
            f"the cell was stopped after {_words.number(self._limit_s)} s of computing, its limit. "
            "Variables set so far are kept; do the work in smaller pieces."
        )


def guarded(
    guard: Guard, work: Callable[[], None], limit_s: float | None = None
) -> BaseException | None:
    """Run model-written code under the limits; what it raised, whatever it was."""
    try:
        guard.start(limit_s)
        work()
        # Plain stores: the interpreter looks for signals when it enters a function, so a call to
        # `stop` could still be interrupted before it does anything.
        guard.active = False
    except BaseException as error:
        guard.active = False
        guard.stop()
        guard.name_limit(error)
        return error
    guard.stop()
    return None


def limit_process(file_bytes: int, tasks: int | None) -> None:
    """The limits that hold all the time: core files, file sizes, open files, threads, locked
    memory, messages. `tasks`: how many threads, where the system counts this session's alone."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, tasks or MAX_PROCESSES),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        value = _at_most_hard(kind, value)
        resource.setrlimit(kind, (value, value))


def _set_memory(limits: tuple[int, int]) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    except (ValueError, OSError):
        pass  # code has lowered the hard limit itself


def _at_most_hard(kind: int, value: int) -> int:
    _, hard = resource.getrlimit(kind)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
