"""``python -m benchmarks``: measure, and show the figures beside their targets."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import commits, fanout, log_size, repl, snapshots, steps
from benchmarks.disk import folder_on_disk
from benchmarks.figures import Plan, Report
from benchmarks.peer import Peer, PeerUnavailable, environment
from benchmarks.report import as_json, console, machine, show, show_machine

BENCHMARKS: dict[str, Callable[[Plan], Report]] = {
    "steps": steps.measure,
    "fanout": fanout.measure,
    "log": log_size.measure,
    "repl": repl.measure,
    "snapshots": snapshots.measure,
    "commits": commits.measure,
}
REPETITIONS = 7
"""Odd, so that the median is one of them; enough that a quiet moment is among them."""
QUICK_REPETITIONS = 2


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks that are named. 0 when every target was met, else 1."""
    args = _parsed(argv)
    out = console()
    with ExitStack() as stack:
        parent = args.dir if args.dir is not None else folder_on_disk()
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="rlm-fsm-bench-", dir=parent))
        )
        plan = Plan(
            repetitions=args.repetitions or (QUICK_REPETITIONS if args.quick else REPETITIONS),
            peer=None if args.no_peer else _peer(args.peer_python, folder, stack),
            folder=folder,
            say=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
        )
        facts = machine(plan)
        show_machine(out, facts)
        reports: list[Report] = []
        for name in BENCHMARKS if args.which == "all" else [args.which]:
            reports.append(BENCHMARKS[name](plan))
            show(out, reports[-1])
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(as_json(facts, reports), indent=1) + "\n", "utf-8")
        out.print(f"\nEvery sample is in {args.json}.")
    return 0 if all(check.is_met for report in reports for check in report.checks) else 1


def _peer(python: str | None, folder: Path, stack: ExitStack) -> Peer | None:
    """The peer; None, and a line that says why, when it can't be had."""
    try:
        return stack.enter_context(Peer(environment(python), folder))
    except PeerUnavailable as error:
        print(f"without the peer: {error}", file=sys.stderr, flush=True)
        return None


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("which", nargs="?", default="all", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a first look")
    parser.add_argument("--repetitions", type=int, metavar="N", help=f"default {REPETITIONS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--no-peer", action="store_true", help="measure this project only")
    parser.add_argument("--peer-python", metavar="PYTHON", help="interpreter for the peer")
    parser.add_argument("--dir", type=Path, help="where to put logs; must be on a disk")
    args = parser.parse_args(argv)
    if args.repetitions is not None and args.repetitions < 1:
        parser.error("--repetitions: give 1 or more")
    if args.dir is not None and not args.dir.is_dir():
        parser.error(f"--dir: {args.dir} is no folder")
    return args


if __name__ == "__main__":
    sys.exit(main())
