"""The event loop of cells that await.

Standard library only, and nothing of this project: the sandboxed child process loads this file
by itself, and not before a cell has to do with asyncio: importing that takes some 50 ms.

The loop has no sockets and no files. When no task can go on, everything that tasks asked is put
to the host in one pause (`_together`), so subcalls that are awaited together run in parallel.
The same cell with the same outcomes does the same again:

1. Subcalls go before timers, and time passes only when nothing else can happen: the loop's clock
   jumps to the next timer. ``asyncio.sleep`` takes no time, and a timeout never depends on how
   long a sub-model took.
2. Tasks are numbered, and sets of them keep the order of the numbers.
3. Threads that code started are waited for in real time: with them all this is off.

What ends a cell from outside, such as `CellStopped`, ends the loop, not the task that asked:
``gather(..., return_exceptions=True)`` would keep it, and another task wait for ever.
"""

import asyncio
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import Context
from functools import partial, wraps
from itertools import count
from time import perf_counter
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING or __package__:
    from effects.repls._functions import Answer, Ask, Program
    from effects.repls._stops import CellStopped
    from effects.repls._together import apart, next_ask, together
else:
    from _stops import CellStopped
    from _together import apart, next_ask, together

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Asker = Callable[["Ask"], "list[Answer]"]
"""Puts questions to the host and waits for the answers."""

PLAIN = frozenset({str, list, dict, int, float, bool, type(None)})
"""Types of what subcalls return."""
_asyncio: Any = asyncio  # of Python 3.14 on, policies are deprecated
_as_completed = asyncio.as_completed
_formatwarning = warnings.formatwarning
_unending: list[Any] = []
"""Coroutines that may catch even their end. Kept, so that their memory is never freed: that would
let them go on."""
_DEADLOCK = (
    "every task waits for another one, and no subcall is under way: nothing can go on. "
    "Look for an await of something that nobody sets or puts"
)


class Task(asyncio.Task[Any]):
    """A task that sets and dicts keep in the order of its number."""

    _numbers = count(1)

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(self._numbers)  # the base class already asks for the hash
        super().__init__(*args, **options)
        # A task that is left over says so when its memory is freed: at no certain time.
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number


class EventLoop(asyncio.BaseEventLoop):
    """A loop that waits for nothing but answers of the host, and threads."""

    def __init__(self, ask: Asker, later: "Later") -> None:
        super().__init__()
        self._selector = self
        """What the base class waits with."""
        self._ask = ask
        self._later = later
        self._asked: list[tuple[Ask, asyncio.Future[list[Answer]]]] = []
        self._now_s = 0.0
        self._woken = threading.Event()
        self.set_task_factory(_new_task)

    def time(self) -> float:
        """Seconds on a clock that stands still while anything can go on."""
        return self._now_s

    def ask(self, request: "Ask") -> "asyncio.Future[list[Answer]]":
        """Have something asked when nothing else can go on."""
        future: asyncio.Future[list[Answer]] = self.create_future()
        self._asked.append((request, future))
        return future

    def create_task(self, coro: Any, **options: Any) -> Any:
        """A task; a deferred subcall is one already."""
        return coro if isinstance(coro, Task) else super().create_task(coro, **options)

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call a function in a thread; a function that asks the host needs none."""
        call: Any = partial(func, *args)
        if isinstance(getattr(call.func, "__self__", None), Context):  # asyncio.to_thread
            call = partial(*call.args, **call.keywords)
        deferred = self._later(call.func)
        if deferred is not call.func:
            task: asyncio.Future[T] = self.create_task(deferred(*call.args, **call.keywords))
            return task
        return super().run_in_executor(executor, func, *args)

    def select(self, timeout: float | None) -> list[Any]:
        """Wait until something happened; `timeout` is 0 where something can go on at once."""
        self._asked = [(ask, future) for ask, future in self._asked if not future.done()]
        if timeout == 0:
            pass
        elif self._asked:
            self._exchange()
        elif threading.active_count() > 1:
            started_s = perf_counter()
            self._woken.wait(timeout)
            self._now_s += perf_counter() - started_s
        elif timeout is None:
            raise RuntimeError(_DEADLOCK)
        else:
            self._now_s += timeout
        self._woken.clear()
        return []

    def _exchange(self) -> None:
        request, places = together([ask for ask, _ in self._asked])
        taken = [self._asked[place] for place in places]
        self._asked = [pair for i, pair in enumerate(self._asked) if i not in places]
        try:
            parts = apart([ask for ask, _ in taken], self._ask(request))
        except Exception as error:
            for _, future in taken:
                future.set_exception(error)
        else:
            for (_, future), answers in zip(taken, parts, strict=True):
                future.set_result(answers)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell of an error outside of all tasks; what limits a cell goes through."""
        error = context.get("exception")
        if isinstance(error, BaseException) and not isinstance(error, Exception):
            raise error
        super().call_exception_handler(context)

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing: there are no files."""

    def _write_to_self(self) -> None:
        """Another thread has something for the loop."""
        self._woken.set()


class Later:
    """Functions that ask the host, in the form that is awaited.

    Called with one of them it gives a function that begins to ask and returns an awaitable;
    anything else comes back as it is.
    """

    def __init__(self, programs: "dict[Any, Callable[..., Program]]", ask: Asker) -> None:
        self._programs = {id(function): program for function, program in programs.items()}
        self._ask = ask

    def __call__(self, function: Any) -> Any:
        program = self._programs.get(id(function))
        if program is not None:
            return self._deferred(function, program)
        if type(function) is not partial:
            return function
        given: Any = function  # pyright: ignore[reportUnknownVariableType]
        inner = self(given.func)
        return given if inner is given.func else partial(inner, *given.args, **given.keywords)

    def _deferred(self, function: Any, program: "Callable[..., Program]") -> Any:
        @wraps(function)
        def begin(*args: Any, **options: Any) -> Any:
            answer: Any = self._drive(program(*args, **options))
            answer.__qualname__ = function.__name__  # for "was never awaited"
            loop = asyncio._get_running_loop()
            if not isinstance(loop, EventLoop):
                return answer
            task = loop.create_task(answer)
            task.add_done_callback(_seen)
            return task

        return begin

    async def _drive(self, program: "Program") -> Any:
        loop = asyncio._get_running_loop()  # None when the cell has ended, and catches that
        answers: list[Answer] | None = None
        while True:
            try:
                request = next_ask(program, answers, print)
            except StopIteration as stop:
                return stop.value
            if isinstance(loop, EventLoop):
                answers = await loop.ask(request)
            else:
                answers = self._ask(request)


class Loops(asyncio.DefaultEventLoopPolicy):
    """The event loops of a session."""

    def __init__(self, ask: Asker, later: Later) -> None:
        super().__init__()
        self._make = partial(EventLoop, ask, later)
        self._main: EventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run what a cell awaits at its top level, in one loop for all cells of the session.

        Tasks that are left over go on when a later cell awaits, but not those of a cell that
        raised: what they were to ask is not asked.
        """
        loop = self.get_event_loop()
        try:
            return loop.run_until_complete(coroutine)
        except BaseException as error:
            try:
                if isinstance(error, CellStopped):
                    error.__traceback__ = _waiting_at(coroutine, error.__traceback__)
                    _end_tasks(loop)
            finally:  # what the tasks do at their end may have made another loop
                self._main = None
            raise

    def get_event_loop(self) -> Any:
        """The session's loop; `new_event_loop` gives others."""
        if self._main is None or self._main.is_closed():
            self._main = self._make()
        return self._main

    def set_event_loop(self, loop: Any) -> None:
        """Has no effect: code that ends with it leaves the session's loop in place."""

    def new_event_loop(self) -> Any:
        """A loop for ``asyncio.run``."""
        return self._make()

    def install(self) -> None:
        """Make asyncio take its loops from here."""
        _asyncio.set_event_loop_policy(self)
        asyncio.as_completed = asyncio.tasks.as_completed = _in_order
        warnings.formatwarning = _warning


def _waiting_at(coroutine: Any, inner: TracebackType | None) -> TracebackType | None:
    """A traceback with the lines at which a coroutine waits, above those of another one."""
    for each in reversed(_chain(coroutine)):
        frame = each.cr_frame
        inner = TracebackType(inner, frame, frame.f_lasti, frame.f_lineno)
    return inner


def _chain(coroutine: Any) -> list[Any]:
    """A coroutine that waits, the one that it waits for, and so on."""
    found: list[Any] = []
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        found.append(coroutine)
        coroutine = coroutine.cr_await
    return found


def _end_tasks(loop: Any) -> None:
    """Let tasks that never go on end now, while the limits of the cell hold."""
    for task in sorted(asyncio.all_tasks(loop), key=hash):
        coroutines = _chain(task.get_coro())
        try:
            if coroutines:
                coroutines[0].close()
        except Exception:
            _unending.extend(coroutines)


def awaitable(value: Any) -> Any:
    """What ``await`` can take: plain data that came from a plain call gives itself."""
    return _value(value) if type(value) in PLAIN else value


def waiter(function: Any) -> Any:
    """A function of asyncio that takes plain data for awaitables, too."""
    if not str(getattr(function, "__module__", "")).startswith("asyncio"):
        return function

    def call(*args: Any, **options: Any) -> Any:
        count = len(args) if function.__name__ == "gather" else 1
        ready = [_argument(function, argument) for argument in args[:count]]
        return function(*ready, *args[count:], **options)

    return call


def _argument(function: Any, argument: Any) -> Any:
    items: Any = argument
    if type(argument) is list and function.__name__ in ("wait", "as_completed"):
        return [awaitable(item) for item in items]
    return awaitable(items)


async def _value(value: Any) -> Any:
    return value


def _new_task(loop: Any, coro: Any, **options: Any) -> Any:
    task = Task(coro, loop=loop, **options)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    """End the cell when what ended a task is to end it: a final answer, the limit of time."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, Exception):
        raise error


def _seen(task: asyncio.Task[Any]) -> None:
    """The error of a subcall that nobody awaits is no news."""
    if not task.cancelled():
        task.exception()


def _in_order(fs: Iterable[Any], **options: Any) -> Iterator[Any]:
    """`asyncio.as_completed`, whose tasks begin in the order in which they were given."""
    return _as_completed([asyncio.ensure_future(awaitable(f)) for f in fs], **options)


def _warning(message: Any, category: type[Warning], *args: Any, **options: Any) -> str:
    """A warning as text. Where a coroutine was forgotten isn't known, only where it was noticed."""
    if "was never awaited" in str(message):
        return f"{category.__name__}: {message}\n"
    return _formatwarning(message, category, *args, **options)
