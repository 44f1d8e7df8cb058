"""The helper processes of the `monty` backend: what they may still do."""

import asyncio
import sys
from pathlib import Path

import pytest
from repl_driving import answer_all, context_of, settings_of

from effects.repls.monty import MontyRepl

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
CELL = (
    "import statistics\nprint(ctx.find('k[a-z]+', regex=True), statistics.mean([1, 2, 6]))\n"
    "ctx.find('hay', regex=True, max_matches=1)"
)


def status(pid: int) -> dict[str, str]:
    """What the system says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children() -> set[int]:
    """The processes that this one, or a thread of it, has started."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


async def helpers() -> tuple[str, list[dict[str, str]]]:
    """What a cell printed that needs both helpers, and how they stood then."""
    before = children()
    repl = MontyRepl(context_of("the key is here, hay"), settings_of())
    try:
        result = await answer_all(repl, CELL)
        pids = children() - before - {repl.worker_pid}
        return result.stdout, [status(pid) for pid in pids]
    finally:
        await repl.close()


def test_helpers_have_no_rights_and_a_filter_and_still_do_their_work() -> None:
    printed, found = asyncio.run(helpers())
    assert printed == "[(4, 7, 'key')] 3\n[(17, 20, 'hay')]\n"
    assert len(found) == 2
    for helper in found:
        assert (helper["NoNewPrivs"], helper["Seccomp"]) == ("1", "2")
        assert int(helper["CapEff"], 16) == 0
