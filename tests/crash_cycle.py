"""A run in processes that are killed, and the model service that it calls.

The harness plays the model service. It listens on the loopback interface, answers by the
scenario's script after a moment that chance chooses, and keeps the record of every call that has
reached it: that record is no part of the processes that die.

A `Run` starts one process after the other, has each killed as its plan says, and reads the log
after each kill, until a process ends the run. What must then hold is for `crash_checks` to say.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlm_fsm import SqliteLog, fold
from rlm_fsm.event import DERIVED, Event, ModelReplied, OnUncertain
from rlm_fsm.evolve import evolve
from rlm_fsm.state import RunState
from tests.crash_child import Order, Process, descendants, living, living_below
from tests.crash_forks import Fork, Template
from tests.crash_scenarios import SCENARIOS, key_of

CHILD = Path(__file__).with_name("crash_child.py")
LIMIT_S = 120.0
"""For one process of a run: then something hangs."""
GONE_S = 10.0
"""For processes that were told to end: a busy machine may take its time."""
TEMPLATES = 2
"""So that a run is resumed by a process with another order of sets."""
DELAY_S = 0.004
"""The longest time that the model thinks."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """Where a process dies: at a point of `crash_child`, at its N-th model call (``call:N``), or
    at a time (``time:S``): S seconds after its first call, or for a resumed one after its start."""

    point: str
    how: str = "all"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A cycle, so that it can be run again."""

    scenario: str
    backend: str
    kills: tuple[Kill, ...] = ()
    """One per process, in order; the process after the last one ends the run."""
    seed: str = ""
    """Chooses how long the model thinks."""
    snapshots: bool = False
    """Whether sessions are written down wherever they can be, instead of by the usual rule."""
    on_uncertain: OnUncertain = "retry"


@dataclass(kw_only=True)
class Ending:
    """How a run went that nobody killed: what the others are compared with."""

    output: str
    state: RunState
    outcomes: int
    """Events from the world: as many appends at most, for those that arrive together share one."""
    calls: int
    cells: int
    """Replies that hold code."""
    worked_s: float
    """From the first call to the end."""
    whole_s: float
    """From the start of the process to its end."""


class Run:
    """One run under the harness: its folder, its processes, and the service's record of it."""

    def __init__(
        self, plan: Plan, folder: Path, port: int, templates: Sequence[Template] = ()
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.log = folder / "log.sqlite"
        self.starts: list[tuple[int, str]] = []
        """Generation and key of each call that has reached the service."""
        self.gate = asyncio.Event()
        """While it is closed, the model thinks."""
        self.gate.set()
        self.first_call = asyncio.Event()
        self.processes: list[asyncio.subprocess.Process | Fork] = []
        self.started: set[Process] = set()
        """What the killed processes had started."""
        self.snapshots: list[list[Event]] = []
        """What the log held after each kill."""
        self.struck: list[str] = []
        """Where the processes died: the points of the plan, or the last append instead."""
        self.scratch_left = 0
        """Folders of sessions that the killed processes have left."""
        self.reports: list[dict[str, Any]] = []
        self.whole_s = self.worked_s = 0.0
        self._port = port
        self._templates = templates
        self._random = random.Random(plan.seed)
        folder.joinpath("tmp").mkdir()

    @property
    def kill(self) -> Kill | None:
        """How the newest process is to die."""
        newest = len(self.processes) - 1
        return self.plan.kills[newest] if newest < len(self.plan.kills) else None

    async def call(self, generation: int, messages: list[dict[str, str]]) -> str | None:
        """A call has reached the service: its reply, or None when the caller was killed."""
        self.starts.append((generation, key_of(messages)))
        self.first_call.set()
        number = sum(made_by == generation for made_by, _ in self.starts)
        if self.kill and self.kill.point == f"call:{number}" and self._is_newest(generation):
            self.strike()
            return None
        await asyncio.sleep(self._random.uniform(0, DELAY_S))
        await self.gate.wait()
        return SCENARIOS[self.plan.scenario].reply(messages)

    async def spawn(self, run_id: str | None) -> asyncio.subprocess.Process | Fork:
        """Start the next process of the run."""
        generation = len(self.processes)
        kill = self.plan.kills[generation] if generation < len(self.plan.kills) else None
        is_own = kill is not None and kill.point.partition(":")[0] not in ("call", "time")
        order = Order(
            log=str(self.log),
            port=self._port,
            run=self.folder.name,
            generation=generation,
            scenario=self.plan.scenario,
            backend=self.plan.backend,
            run_id=run_id,
            point=kill.point if kill and is_own else "",
            how=kill.how if kill else "all",
            snapshots=self.plan.snapshots,
            on_uncertain=self.plan.on_uncertain,
        )
        errors = self.folder / f"errors-{generation}.txt"
        if self._templates:
            template = self._templates[generation % len(self._templates)]
            process = await template.fork(asdict(order), self.folder, errors)
        else:
            process = await self._start(asdict(order), errors)
        self.processes.append(process)
        return process

    async def _start(self, order: dict[str, Any], errors: Path) -> asyncio.subprocess.Process:
        with errors.open("wb") as file:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                str(CHILD),
                json.dumps(order),
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                cwd=self.folder,
                env={**os.environ, "TMPDIR": str(self.folder / "tmp")},
                start_new_session=True,
            )

    async def to_the_end(self) -> None:
        """Start processes, have them killed, and resume, until one ends the run."""
        run_id: str | None = None
        while True:
            began = time.monotonic()
            process = await self.spawn(run_id)
            timer = asyncio.create_task(self._strike_in_time(run_id))
            try:
                out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
            except TimeoutError:
                self.strike()
                await process.wait()
                raise RuntimeError(f"a process did not end: {self.errors()}") from None
            finally:
                timer.cancel()
                await asyncio.gather(timer, return_exceptions=True)
            self.whole_s = time.monotonic() - began
            if process.returncode == 0:
                self.reports.append(json.loads(out))
                return
            if process.returncode != -signal.SIGKILL or self.kill is None:
                raise RuntimeError(f"exit {process.returncode}: {self.errors()}")
            self._read_note()
            run_id, events = self.snapshot()
            self.snapshots.append(events)
            self.scratch_left = self.scratch()

    def strike(self) -> None:
        """Kill the newest process now, as its plan says."""
        process, how = self.processes[-1], self.kill.how if self.kill else "all"
        if process.returncode is not None:
            return
        started = descendants(process.pid)
        self.started |= started
        # Not `process.kill()`: that looks first whether the process has ended, and then takes its
        # exit status away from the one who waits for it.
        for pid in (process.pid, *(pid for pid, _ in started if how == "all")):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def snapshot(self) -> tuple[str | None, list[Event]]:
        """The run and its events as they now are on the disk. Read from a copy: opening a log
        mends it, and that is for the next process to do."""
        copy = self.folder / "copy"
        copy.mkdir(exist_ok=True)
        for old in copy.iterdir():
            old.unlink()
        for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-heads"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, copy)
        if not (copy / "log.sqlite").exists():
            return None, []
        with SqliteLog(copy / "log.sqlite") as log:
            runs = log.runs()
            if not runs:
                return None, []
            return runs[0].run_id, [logged.event for logged in log.load(runs[0].run_id)]

    async def orphans(self) -> set[Process]:
        """What still lives of the run when its processes have had time to end."""
        deadline = time.monotonic() + GONE_S
        while left := living(self.started) | living_below(self.folder):
            if time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.02)
        return set()

    def scratch(self) -> int:
        """Folders of sessions that are still there."""
        return sum(1 for _ in (self.folder / "tmp").glob("rlm-fsm-*"))

    def sessions_back(self) -> tuple[int, int]:
        """How many sessions the processes have brought back: from snapshots, and from cells."""
        told = [
            path.read_text(encoding="utf-8", errors="replace")
            for path in self.folder.glob("errors-*.txt")
        ]
        from_snapshots = sum(text.count("is back from its snapshot") for text in told)
        return from_snapshots, sum(text.count("is back from no snapshot") for text in told)

    def errors(self) -> str:
        """What the newest process complained of."""
        path = self.folder / f"errors-{len(self.processes) - 1}.txt"
        return path.read_text(encoding="utf-8", errors="replace")[-2_000:]

    def _is_newest(self, generation: int) -> bool:
        return generation == len(self.processes) - 1

    async def _strike_in_time(self, run_id: str | None) -> None:
        kill = self.kill
        if run_id is None:
            await self.first_call.wait()
        began = time.monotonic()
        try:
            if kill is not None and kill.point.startswith("time:"):
                await asyncio.sleep(float(kill.point.partition(":")[2]))
                self.strike()
            await asyncio.Event().wait()
        finally:
            self.worked_s = time.monotonic() - began

    def _read_note(self) -> None:
        note = self.folder / f"note-{len(self.processes) - 1}.json"
        if not note.exists():  # the harness has killed it
            self.struck.append(self.kill.point if self.kill else "")
            return
        told = json.loads(note.read_text(encoding="utf-8"))
        self.struck.append(told["point"])
        self.started |= {(pid, start) for pid, start in told["started"]}


class Harness:
    """The model service of all runs under way. An asynchronous context manager."""

    def __init__(self, folder: Path, *, forks: bool = False) -> None:
        """`forks`: processes of runs are forks of templates, see `crash_forks`."""
        self._folder = folder
        self._runs: dict[str, Run] = {}
        self._number = 0
        self._templates = [Template() for _ in range(TEMPLATES if forks else 0)]

    async def __aenter__(self) -> "Harness":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        for template in self._templates:
            await template.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for template in self._templates:
            await template.close()
        self._server.close()
        await self._server.wait_closed()

    def new_run(self, plan: Plan) -> Run:
        """A run in a folder of its own."""
        self._number += 1
        folder = self._folder / f"run-{self._number}"
        folder.mkdir()
        port = self._server.sockets[0].getsockname()[1]
        run = Run(plan, folder.resolve(), port, self._templates)
        self._runs[folder.name] = run
        return run

    def forget(self, run: Run) -> None:
        """Delete all that a run has left."""
        del self._runs[run.folder.name]
        shutil.rmtree(run.folder, ignore_errors=True)

    async def ending(self, scenario: str, backend: str) -> Ending:
        """The run that nobody kills."""
        run = self.new_run(Plan(scenario=scenario, backend=backend))
        await run.to_the_end()
        _, events = run.snapshot()
        keys = [key for _, key in run.starts]
        if len(set(keys)) != len(keys):
            raise RuntimeError(f"{scenario}: two calls have the same messages")
        state, report = fold(events), run.reports[-1]
        if state.status != "finished":
            raise RuntimeError(f"{scenario}: it ended as {state.status}: {state.error}")
        self.forget(run)
        return Ending(
            output=report["output"],
            state=comparable(state),
            outcomes=sum(not isinstance(event, DERIVED) for event in events),
            calls=len(keys),
            cells=sum(isinstance(e, ModelReplied) and "```" in e.text for e in events),
            worked_s=run.worked_s,
            whole_s=run.whole_s,
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            run = self._runs.get(asked["run"])
            said = run and await run.call(asked["generation"], asked["messages"])
            if said is not None:
                writer.write(json.dumps(said).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the caller was killed
        finally:
            writer.close()


def comparable(state: RunState) -> RunState:
    """A state without what a crash may change: times, uncertain calls, the number of events."""
    spent = evolve(state.spent, seconds=0.0)
    return evolve(state, spent=spent, uncertain=0, seq=0)
