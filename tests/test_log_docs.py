"""`docs/reference/log.md` says what the database is: each table, view and column, each example."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from effects.log import SqliteLog
from effects.log.schema import APPLICATION_ID
from tests.log_files import sql

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "log.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of real runs: the golden ones, made anew."""
    path = tmp_path_factory.mktemp("log") / "rlm-fsm.sqlite"
    runpy.run_path(str(ROOT / "tests" / "make_golden_log.py"))["make"](path)
    return path


def documented() -> dict[str, list[str]]:
    """The columns that the page names, in its order, by table or view."""
    sections = re.split(r"^### (\w+)$", PAGE, flags=re.MULTILINE)[1:]
    found: dict[str, list[str]] = {}
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        first_cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
        found[name] = [column for cell in first_cells for column in re.findall(r"`(\w+)`", cell)]
    return found


def test_every_table_view_and_column_is_documented_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    SqliteLog(path).close()
    names = sql(
        path,
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT GLOB ?",
        "*sqlite_*",
    )
    there = {
        str(name): sorted(str(row[1]) for row in sql(path, f"PRAGMA table_info({name})"))
        for (name,) in names
    }
    assert {name: sorted(columns) for name, columns in documented().items()} == there
    assert f"0x{APPLICATION_ID:08X}" in PAGE


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_the_example_queries_run_on_a_real_log(real: Path, query: str) -> None:
    before = real.read_bytes()
    rows = sql(real, query)
    assert rows or "outcome <>" in query
    assert real.read_bytes() == before


def test_the_examples_tell_what_happened(real: Path) -> None:
    costs, tree, problems = QUERIES
    told = {row[1:6] for row in sql(real, costs)}
    assert told == {
        ("What was carried?", "finished", 7, 0, 3245),
        ("What was carried?", "finished", 2, 0, 220),
        ("How many ships?", "finished", 2, 0, 220),
    }
    assert [(str(row[0]), row[1]) for row in sql(real, tree)] == [
        ("0", "frame"),
        ("  0.m1", "turn"),
        ("  0.1", "subcall"),
        ("  0.2", "subcall"),
        ("  0.3", "subcall"),
        ("  0.m2", "turn"),
        ("  0.m3", "turn"),
    ]
    assert sql(real, problems) == []


def test_sqlite_utils_shows_the_views(real: Path) -> None:
    """The page's command, as a program of its own."""
    _, options = re.findall(r"sqlite-utils rows (\S+) (.+)", PAGE)[0]
    command = [sys.executable, "-m", "sqlite_utils", "rows", str(real), *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "How many ships?" in done.stdout
