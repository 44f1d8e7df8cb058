"""Bytes in the log per step, for runs of 50, 200 and 800 steps.

Each cell prints another 500 characters of the context, so a step has a reply, a cell and an output
worth keeping. The file is measured after it was closed; `rows` is what SQLite was given to keep.
A log that repeated the conversation with each step would grow with the square of the steps.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Check, Plan, Report, Table, ratio
from benchmarks.workload import Workload, delete_log, new_log, run_own, varied_text

COUNTS = (50, 200, 800)
OUTPUT_CHARS = 500
MAX_GROWTH = 1.3
BACKEND = "python"
"""The events are the same in both."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A log in bytes."""

    file: int
    """On the disk, with the files beside it."""
    rows: int
    """All values of all rows."""
    blobs: int
    """The part of the rows that holds long texts."""


def measure(plan: Plan) -> Report:
    """Measure logs."""
    text = varied_text(OUTPUT_CHARS * COUNTS[-1])
    sizes: dict[int, Size] = {}
    peer: dict[int, int] = {}
    for count in (0, *COUNTS):
        plan.say(f"log: {count} steps")
        work = Workload(
            backend=BACKEND,
            turns=count,
            cell=f"print(P[$I * {OUTPUT_CHARS}:($I + 1) * {OUTPUT_CHARS}])",
            context=text,
        )
        path = new_log(plan.folder)
        run_own(work, str(path))
        sizes[count] = size_of(path)
        delete_log(path)
        if plan.peer is not None:
            peer[count] = plan.peer.trace_bytes(work)
    return Report(
        name="log",
        tables=(_table(sizes, peer),),
        checks=[
            Check(
                what=f"{what}: bytes a step, {COUNTS[-1]} / {COUNTS[0]} steps",
                value=_step_bytes(whole, COUNTS[-1]) / _step_bytes(whole, COUNTS[0]),
                limit=MAX_GROWTH,
            )
            for what, whole in _ours(sizes).items()
        ],
        raw={
            "ours": {str(count): vars(size) for count, size in sizes.items()},
            "peer_trace_bytes": {str(count): size for count, size in peer.items()},
        },
    )


def size_of(path: Path) -> Size:
    """The size of a closed log."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        rows = {table: _table_bytes(connection, table) for table in tables}
    files = sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))
    return Size(file=files, rows=sum(rows.values()), blobs=rows["blobs"])


def _table_bytes(connection: sqlite3.Connection, table: str) -> int:
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    lengths = " + ".join(f'coalesce(length(CAST("{name}" AS BLOB)), 0)' for name in columns)
    total: int = connection.execute(f'SELECT total({lengths}) FROM "{table}"').fetchone()[0]
    return int(total)


def _ours(sizes: dict[int, Size]) -> dict[str, dict[int, int]]:
    return {
        "the file": {count: size.file for count, size in sizes.items()},
        "its rows": {count: size.rows for count, size in sizes.items()},
    }


def _step_bytes(whole: dict[int, int], count: int) -> float:
    """Bytes of one step: a run of `count` steps less one of none, which has what each run has."""
    return (whole[count] - whole[0]) / count


def _table(sizes: dict[int, Size], peer: dict[int, int]) -> Table:
    subjects = _ours(sizes)
    subjects["long texts in them"] = {count: size.blobs for count, size in sizes.items()}
    if peer:
        subjects["peer: Trace.to_json"] = peer
    first, last = COUNTS[0], COUNTS[-1]
    rows = [
        [
            name,
            f"{whole[0]:,}",
            *(f"{_step_bytes(whole, n):,.0f} ({whole[n] / n:,.0f})" for n in COUNTS),
            ratio(_step_bytes(whole, last), _step_bytes(whole, first)),
        ]
        for name, whole in subjects.items()
    ]
    return Table(
        title=f"Bytes per step, outputs of {OUTPUT_CHARS} characters",
        columns=(
            "",
            "a run without",
            *(f"{n} steps" for n in COUNTS),
            f"{last} / {first}",
        ),
        rows=rows,
        note="Less what a run without steps takes; in brackets the whole divided by the steps. "
        "The peer keeps its trace in memory only.",
    )
