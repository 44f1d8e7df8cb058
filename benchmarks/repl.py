"""Round trips to a REPL: a trivial cell, a host call, and how long one takes to start and end.

Both backends run cells in another process, so the floor is a message to a process and back: a bare
socketpair, blocking, and on an event loop, which is how a run waits.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from benchmarks.figures import (
    BACKENDS,
    Check,
    Plan,
    Report,
    Samples,
    Table,
    microseconds,
    milliseconds,
)
from effects.context import Context
from effects.repls._pool import POOL
from effects.repls.base import Paused, Repl, ReplSettings
from effects.repls.monty import MontyRepl
from effects.repls.python import PythonRepl
from rlm_fsm.values import CodeResult, Outcome

TRIPS = 300
"""Of each kind in one repetition."""
STARTS = 3
SETTLES_S = 0.3
"""For a process to be started beside us."""
MESSAGE = b"x" * 64
"""About the size of the frames of a trivial cell."""
_CELL = "x = 1"
_CALLS = f"for i in range({TRIPS}):\n    llm_query(f'question {{i}}')"
_ECHO = """
import socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
while data := line.recv(65536):
    line.sendall(data)
"""
_OPEN: dict[str, Callable[[Context], Repl]] = {
    "python": lambda context: PythonRepl(context, ReplSettings()),
    "monty": lambda context: MontyRepl(context, ReplSettings()),
}
Trips = dict[str, list[float]]


def measure(plan: Plan) -> Report:
    """Measure REPLs."""
    trips: Trips = {}
    lives: Trips = {}
    for number in range(plan.repetitions):
        plan.say(f"repl: repetition {number + 1} of {plan.repetitions}")
        with echoing() as line:
            trips.setdefault("socketpair, blocking", []).extend(blocking_trips(line))
        with echoing() as line:
            found = asyncio.run(loop_trips(line))
            trips.setdefault("socketpair, event loop", []).extend(found)
        for backend in BACKENDS:
            asyncio.run(_session(backend, trips))
            for _ in range(STARTS):
                asyncio.run(_life(backend, lives))
                if backend == "python":
                    asyncio.run(_warm_life(lives))
            if plan.peer is not None:
                taken = plan.peer.cells(backend, _CELL, TRIPS)
                trips.setdefault(f"{backend}: a cell of the peer", []).extend(taken)
    return Report(
        name="repl",
        tables=(_trip_table(trips), _life_table(lives)),
        checks=_checks(trips),
        raw={"trips_s": trips, "lives_s": lives},
    )


@contextmanager
def echoing() -> Generator[socket.socket]:
    """A line to a child process that sends back what it is sent."""
    ours, inner = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ECHO, str(inner.fileno())], pass_fds=[inner.fileno()]
    )
    inner.close()
    with ours:
        yield ours
    child.wait()


def blocking_trips(line: socket.socket) -> list[float]:
    """Seconds of each message and its echo. The first one waits for the child to start."""
    taken: list[float] = []
    for _ in range(TRIPS + 1):
        began = time.perf_counter()
        line.sendall(MESSAGE)
        line.recv(65536)
        taken.append(time.perf_counter() - began)
    return taken[1:]


async def loop_trips(line: socket.socket) -> list[float]:
    """The same with a callback of the event loop and a future."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[bytes] = loop.create_future()
    line.setblocking(False)
    loop.add_reader(line, lambda: waiter.set_result(line.recv(65536)))
    taken: list[float] = []
    for _ in range(TRIPS + 1):
        waiter = loop.create_future()
        began = time.perf_counter()
        line.send(MESSAGE)
        await waiter
        taken.append(time.perf_counter() - began)
    loop.remove_reader(line)
    return taken[1:]


async def _session(backend: str, trips: Trips) -> None:
    """One session: cells, then one cell that calls the host again and again."""
    repl = _OPEN[backend](Context.from_text("some text"))
    try:
        await repl.start(_CELL)
        cells = trips.setdefault(f"{backend}: a cell", [])
        for _ in range(TRIPS):
            began = time.perf_counter()
            _ended(await repl.start(_CELL))
            cells.append(time.perf_counter() - began)
        calls = trips.setdefault(f"{backend}: a host call", [])
        step = await repl.start(_CALLS)
        while isinstance(step, Paused):
            began = time.perf_counter()
            step = await repl.resume((Outcome("text", "ok"),))
            calls.append(time.perf_counter() - began)
        _ended(step)
    finally:
        await repl.close()


async def _life(backend: str, lives: Trips) -> None:
    """A session that is opened, runs one cell and is closed."""
    repl = _OPEN[backend](Context.from_text("some text"))
    marks = [time.perf_counter()]
    await repl.open()
    marks.append(time.perf_counter())
    _ended(await repl.start(_CELL))
    marks.append(time.perf_counter())
    await repl.close()
    marks.append(time.perf_counter())
    for what, began, end in zip(("open", "first cell", "close"), marks, marks[1:], strict=False):
        lives.setdefault(f"{backend}: {what}", []).append(end - began)


async def _warm_life(lives: Trips) -> None:
    """A session that is opened while a run keeps processes ready for its next sessions."""
    taken = 0.0
    async with POOL.in_use():
        for _ in range(3):
            repl = PythonRepl(Context.from_text("some text"))
            began = time.perf_counter()
            await repl.open()
            taken = time.perf_counter() - began
            await repl.close()
            await asyncio.sleep(SETTLES_S)
    lives.setdefault("python: open, process kept ready", []).append(taken)


def _ended(step: Paused | CodeResult) -> None:
    if isinstance(step, Paused) or step.error is not None:
        raise RuntimeError(f"the cell did something else: {step}")


def _trip_table(trips: Trips) -> Table:
    floor = min(trips["socketpair, event loop"])
    rows: list[list[str]] = []
    for name, values in trips.items():
        found = Samples(tuple(values))
        rows.append(
            [
                name,
                microseconds(found.minimum),
                microseconds(found.median),
                f"{found.minimum / floor:.1f}",
            ]
        )
    return Table(
        title="A round trip, microseconds",
        columns=("", "minimum", "median", "x socketpair on a loop"),
        rows=rows,
        note="The peer's REPLs run in the host's own process: nothing to cross, nothing to stop.",
    )


def _checks(trips: Trips) -> tuple[Check, ...]:
    """A host call against a message to a process and back, each waiting as it does."""
    call = min(trips["python: a host call"])
    return tuple(
        Check(what=f"python: a host call, x {name}", value=call / min(trips[name]), limit=2.0)
        for name in ("socketpair, blocking", "socketpair, event loop")
    )


def _life_table(lives: Trips) -> Table:
    rows = [
        [name, milliseconds(min(values)), milliseconds(Samples(tuple(values)).median)]
        for name, values in lives.items()
    ]
    return Table(
        title="A session's start and end, milliseconds",
        columns=("", "minimum", "median"),
        rows=rows,
    )
