"""The crash harness: kill runs wherever they can be killed, resume them, and check what is left.

    python tests/crash.py --cycles 200 --seed 1

A cycle is one run in real processes (`crash_child`), killed by SIGKILL once or several times
(`crash_cycle`), resumed until it has ended, and compared with the run that nobody killed
(`crash_checks`). The processes are forks of loaded ones (`crash_forks`), which takes a third of the
time; with ``--exec`` each is started anew. Two modes:

- ``points``: deterministic points, each append of each scenario before and after its commit, each
  model call, each cell, and others; every point comes once before one comes again.
- ``times``: a moment that chance chooses.

In eight cycles of ten with the `monty` backend sessions are written down wherever they can be (else
by the usual rule, which for runs as short as these means never). One cycle in six resumes with
``on_uncertain="fail"``.

In three cycles of ten the process dies alone instead of with all that it has started. In one of
three there is a second kill, while the run is resumed or later, and in one of nine a third.

A plan depends on the seed and the cycle's number: ``--only N`` runs one again. (A kill at a time
falls where the machine is just then; a kill at a point falls there again.)
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tests.crash_checks import Findings, judged
from tests.crash_cycle import Ending, Harness, Kill, Plan
from tests.crash_scenarios import SCENARIOS

Mode = Literal["points", "times", "both"]
Key = tuple[str, str]
"""A scenario and a backend."""
BACKENDS = ("python", "monty")
MAX_KILLS = 3


@dataclass(frozen=True, kw_only=True)
class Report:
    """All cycles of a run of the harness."""

    seed: int
    seconds: float
    findings: Sequence[tuple[int, Findings]]
    """With the number of the cycle."""

    @property
    def failures(self) -> list[str]:
        """What must not be, a line each."""
        return [
            f"cycle {number}: {detail} {found.plan}"
            for number, found in self.findings
            for detail in found.details
        ]

    @property
    def points(self) -> int:
        """Different deterministic points at which a run was killed first."""
        hit = {
            (found.plan.scenario, found.plan.backend, found.struck[0])
            for _, found in self.findings
            if found.struck and not found.struck[0].startswith("time:")
        }
        return len(hit)

    def total(self, name: str) -> int:
        """The sum of one of the counts of `Findings`."""
        return sum(getattr(found, name) for _, found in self.findings)

    def __str__(self) -> str:
        return (
            f"{len(self.findings)} cycles, seed {self.seed}: "
            f"{self.total('divergences')} divergences, "
            f"{self.total('lost_events')} committed events lost, "
            f"{self.total('repeated_committed')} committed calls repeated, "
            f"{self.total('uncertain')} uncertain calls ({self.total('repeated')} made again, "
            f"{self.total('refused')} refused), "
            f"{self.total('orphans')} orphans; "
            f"{self.total('from_snapshots')} sessions back from snapshots, "
            f"{self.total('from_cells')} from their cells; "
            f"{self.total('kills')} kills, {self.points} different points, {self.seconds:.0f} s"
        )

    def as_json(self) -> str:
        """All of it."""
        names = ("divergences", "lost_events", "repeated_committed", "unannounced", "uncertain")
        more = (
            "repeated",
            "refused",
            "from_snapshots",
            "from_cells",
            "orphans",
            "scratch_folders",
            "kills",
            "events",
        )
        totals = {name: self.total(name) for name in (*names, *more)}
        cycles = [{"cycle": number, **asdict(found)} for number, found in self.findings]
        head = {"seed": self.seed, "seconds": round(self.seconds, 1), "points": self.points}
        return json.dumps({**head, **totals, "cycles": cycles}, indent=1)


async def crash(
    *,
    cycles: int,
    seed: int,
    backends: Sequence[str] = BACKENDS,
    mode: Mode = "both",
    jobs: int = 2,
    forks: bool = True,
    only: Iterable[int] | None = None,
) -> Report:
    """Run cycles 1 to `cycles`, or `only` some of them, `jobs` at a time."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        async with Harness(Path(folder), forks=forks) as harness:
            keys = [(scenario, backend) for scenario in SCENARIOS for backend in backends]
            endings = [await harness.ending(*key) for key in keys]
            whole = dict(zip(keys, endings, strict=True))
            points = [(key, point) for key in keys for point in points_of(whole[key], key[1])]
            plans = planned(cycles, seed, whole, points, mode)
            free = asyncio.Semaphore(jobs)
            wanted = sorted(only or range(1, cycles + 1))
            found = await asyncio.gather(
                *(_cycle(harness, plans[number - 1], whole, free) for number in wanted)
            )
    return Report(
        seed=seed,
        seconds=time.monotonic() - began,
        findings=list(zip(wanted, found, strict=True)),
    )


def points_of(whole: Ending, backend: str) -> list[str]:
    """The deterministic points of a run that was not killed before."""
    saves = (1, 2, 3) if backend == "monty" else ()
    appends = range(1, whole.outcomes + 1)
    return [
        *(f"append:{number}:{when}" for number in appends for when in ("before", "after")),
        *(f"call:{number}" for number in range(1, whole.calls + 1)),
        *(f"soon:{number}" for number in appends[:-1]),
        *(f"cell:{number}" for number in range(1, whole.cells + 1)),
        *(f"save:{number}:{when}" for number in saves for when in ("before", "after")),
    ]


def planned(
    cycles: int,
    seed: int,
    whole: Mapping[Key, Ending],
    points: Sequence[tuple[Key, str]],
    mode: Mode,
) -> list[Plan]:
    """The plans of all cycles. A longer list begins with the shorter one of the same seed."""
    order = list(points)
    random.Random(f"{seed}").shuffle(order)
    plans: list[Plan] = []
    used = 0
    for number in range(1, cycles + 1):
        chance = random.Random(f"{seed}:{number}")
        if mode == "points" or (mode == "both" and number % 5 not in (2, 4)):
            key, point = order[used % len(order)]
            used += 1
        else:
            key = chance.choice(list(whole))
            point = f"time:{chance.uniform(0, whole[key].worked_s):.4f}"
        kills = [_kill(chance, point)]
        while len(kills) < MAX_KILLS and chance.random() < 1 / 3:
            kills.append(_kill(chance, _later_point(chance, whole[key])))
        is_saving = any(kill.point.startswith("save:") for kill in kills)
        plans.append(
            Plan(
                scenario=key[0],
                backend=key[1],
                kills=tuple(kills),
                seed=str(number),
                snapshots=key[1] == "monty" and (is_saving or chance.random() < 0.8),
                on_uncertain="fail" if chance.random() < 1 / 6 else "retry",
            )
        )
    return plans


def _later_point(chance: random.Random, whole: Ending) -> str:
    """Where a process that resumes the run dies: while it resumes, or later."""
    number = chance.randint(1, 4)
    when = chance.choice(("before", "after"))
    return chance.choice(
        (
            "lead",
            f"load:{number}",
            f"append:1:{when}",
            f"append:{number}:{when}",
            "soon:1",
            f"soon:{number}",
            f"call:{number}",
            f"save:{number}:{when}",
            f"time:{chance.uniform(0, whole.whole_s):.4f}",
        )
    )


def _kill(chance: random.Random, point: str) -> Kill:
    return Kill(point=point, how="main" if chance.random() < 0.3 else "all")


async def _cycle(
    harness: Harness, plan: Plan, whole: Mapping[Key, Ending], free: asyncio.Semaphore
) -> Findings:
    async with free:
        run = harness.new_run(plan)
        try:
            await run.to_the_end()
            return await judged(run, whole[plan.scenario, plan.backend])
        except Exception as error:  # a finding like others: it must not end the other cycles
            return Findings(plan=plan, details=[f"{type(error).__name__}: {error}"])
        finally:
            harness.forget(run)


def main() -> int:
    """The program; 1 when anything was found that must not be."""
    parser = argparse.ArgumentParser(
        description="Kill runs, resume them, and check that nothing is lost or paid twice."
    )
    parser.add_argument("--cycles", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--backend", choices=(*BACKENDS, "both"), default="both")
    parser.add_argument("--mode", choices=("points", "times", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="cycles at a time")
    parser.add_argument(
        "--exec",
        action="store_true",
        help="start each process anew, no forks",
    )
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these cycles alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings there")
    told = parser.parse_args()
    report = asyncio.run(
        crash(
            cycles=max([told.cycles, *(told.only or [])]),
            seed=told.seed,
            backends=BACKENDS if told.backend == "both" else (told.backend,),
            mode=told.mode,
            jobs=told.jobs,
            forks=not told.exec,
            only=told.only,
        )
    )
    if told.json:
        told.json.write_text(report.as_json() + "\n", encoding="utf-8")
    for failure in report.failures:
        print(failure, file=sys.stderr)
    print(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
