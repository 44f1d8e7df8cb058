"""The process that the crash harness kills: one run, begun or resumed, in a process of its own.

    python tests/crash_child.py ORDER

`ORDER` is a JSON object (see `Order`). The process prints a JSON object when the run has ended. It
kills itself at the point that the order names:

| point | when |
|---|---|
| ``append:N:before``, ``append:N:after`` | at its N-th append, before or after the commit |
| ``cell:N`` | some milliseconds after the commit of its N-th reply that holds code |
| ``soon:N`` | some milliseconds after its N-th commit: whatever follows is under way |
| ``lead`` | when it has become the run's leader |
| ``load:N`` | when it has read N events of the run |
| ``save:N:before``, ``save:N:after`` | at its N-th snapshot of a session |

A run that has fewer appends, for outcomes that arrive together share one, or fewer snapshots is
killed at its last append.
With ``how="all"`` the processes that it has started die with it, as when a container is killed;
with ``how="main"`` it dies alone, as when memory runs out.
"""

import asyncio
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rlm_fsm import (
    ModelResponse,
    ReplLimits,
    RunBusy,
    RunError,
    SnapshotRule,
    SqliteLog,
    Usage,
    resume,
    run,
)
from rlm_fsm.event import Event, ModelReplied, OnUncertain, RunFinished
from tests.crash_scenarios import SCENARIOS, key_of

SOON_S = 0.004
"""Enough for a cell to have been handed to its process, too little for a busy one to end."""
EXIT_BUSY = 75
Process = tuple[int, str]
"""A process's id and when it was started: together they name it for good."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the process is to do."""

    log: str
    port: int
    """Where the model service listens, on the loopback interface."""
    run: str
    """The service's name for the run that the calls belong to."""
    generation: int
    """Which process of the run this is, from 0."""
    scenario: str
    backend: str
    run_id: str | None = None
    """What to resume; None: begin."""
    point: str = ""
    """Where to die; empty: nowhere."""
    how: str = "all"
    snapshots: bool = False
    """Whether sessions are written down at every place where they can be."""
    on_uncertain: OnUncertain = "retry"


class Crashing:
    """A log that kills its process."""

    def __init__(self, log: SqliteLog, order: Order) -> None:
        self.appends = 0
        self._log = log
        self._order = order
        kind, _, rest = order.point.partition(":")
        number, _, when = rest.partition(":")
        self._kind, self._when = kind, when
        self._left = int(number or 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def lead(self, run_id: Any) -> Any:
        lease = self._log.lead(run_id)
        self._at("lead")
        return lease

    def load(self, run_id: Any, *, until: int | None = None) -> Iterator[Any]:
        for logged in self._log.load(run_id, until=until):
            yield logged
            self._at("load")

    def append(self, run_id: Any, expected_seq: int, events: Sequence[Event]) -> int:
        self.appends += 1
        is_last = any(isinstance(event, RunFinished) for event in events)
        if is_last and self._kind in ("append", "soon", "cell", "save") and self._left > 0:
            self._kind, self._left = "append", 1
        if self._when == "before":
            self._at("append")
        seq = self._log.append(run_id, expected_seq, events)
        if self._when != "before":
            self._at("append")
        if any(isinstance(event, ModelReplied) and "```" in event.text for event in events):
            self._at("cell", SOON_S)
        self._at("soon", SOON_S)
        return seq

    def save_snapshot(self, *args: Any) -> None:
        if self._when == "before":
            self._at("save")
        self._log.save_snapshot(*args)
        if self._when != "before":
            self._at("save")

    def _at(self, kind: str, delay_s: float = 0.0) -> None:
        if kind != self._kind:
            return
        self._left -= 1
        at = f"append:{self.appends}:{self._when or 'after'}" if kind == "append" else ""
        if self._left == 0 and delay_s:
            asyncio.get_running_loop().call_later(delay_s, _die, self._order)
        elif self._left == 0:
            _die(self._order, at)


class Service:
    """The adapter: it hands every call to the model service, which keeps the record."""

    def __init__(self, order: Order) -> None:
        self._order = order

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._order.port)
        try:
            asked = {"run": self._order.run, "generation": self._order.generation}
            writer.write(json.dumps({**asked, "messages": messages}).encode() + b"\n")
            text = json.loads(await reader.readline())
        finally:
            writer.close()
            await writer.wait_closed()
        return ModelResponse(text, Usage(10, 5, 15), meta={"request_id": key_of(messages)})


def main(order: Order) -> int:
    """Do what was ordered; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    scenario = SCENARIOS[order.scenario]
    rule = SnapshotRule(after_s=0.0, most_share=math.inf) if order.snapshots else SnapshotRule()
    limits = ReplLimits(snapshots=rule)
    adapter: Any = Service(order)
    with SqliteLog(order.log) as inner:
        log: Any = Crashing(inner, order)
        try:
            if order.run_id is None:
                result = run(
                    "What is it?",
                    scenario.context,
                    adapter=adapter,
                    log=log,
                    repl_backend=order.backend,
                    repl_limits=limits,
                    **scenario.options,
                )
            else:
                result = resume(
                    order.run_id,
                    adapter=adapter,
                    log=log,
                    repl_limits=limits,
                    on_uncertain=order.on_uncertain,
                )
        except RunError as error:
            if order.on_uncertain == "retry":
                raise
            print(json.dumps({"output": error.output, "uncertain": None, "appends": log.appends}))
            return 0
        except RunBusy as busy:
            print(busy, file=sys.stderr)
            return EXIT_BUSY
        ended = {"output": result.output, "uncertain": result.usage.uncertain_calls}
        print(json.dumps({**ended, "appends": log.appends}))
    return 0


def descendants(pid: int) -> set[Process]:
    """The processes that a process has started, and theirs, in whatever session."""
    now = _processes()
    found, newest = set[int](), {pid}
    while newest:
        newest = {child for child, (parent, _) in now.items() if parent in newest} - found
        found |= newest
    return {(child, now[child][1]) for child in found}


def living(processes: set[Process]) -> set[Process]:
    """Those that still run. A zombie doesn't: it only waits for somebody to take note."""
    now = _processes()
    return {(pid, start) for pid, start in processes if pid in now and now[pid][1] == start}


def living_below(folder: Path) -> set[Process]:
    """The processes that work in a folder or below it."""
    found: set[Process] = set()
    for pid, (_, start) in _processes().items():
        try:
            works_in = Path(os.readlink(f"/proc/{pid}/cwd"))
        except OSError:
            continue  # another user's, or gone meanwhile
        if works_in.is_relative_to(folder):
            found.add((pid, start))
    return found


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and start time of every process that isn't a zombie."""
    found: dict[int, tuple[int, str]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()  # state ppid ... ; the 20th is the start
        if fields[0] not in "ZX":
            found[int(name)] = (int(fields[1]), fields[19])
    return found


def _die(order: Order, at: str = "") -> NoReturn:
    started = descendants(os.getpid())
    note = Path(order.log).with_name(f"note-{order.generation}.json")
    told = {"point": at or order.point, "started": sorted(started)}
    note.write_text(json.dumps(told), encoding="utf-8")
    for pid, _ in started if order.how == "all" else ():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


if __name__ == "__main__":
    sys.exit(main(Order(**json.loads(sys.argv[1]))))
