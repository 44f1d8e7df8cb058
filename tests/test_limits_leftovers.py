"""A thousand cells leave nothing: no process, no folder, no descriptor, no thread."""

import asyncio
import os
import tempfile
import threading
from pathlib import Path

import pytest
from repl_driving import answer_all, context_of, settings_of
from repl_python import comes_true, own_children

from effects.repls.base import Repl
from effects.repls.monty import MontyRepl
from effects.repls.python import PythonRepl

SESSIONS, AT_ONCE = 20, 4
CELLS = [
    "n = 1",
    "n += 1\nprint(n)",
    "print(llm_query('question'))",
    "1 / 0",
    "print(llm_batch(['a', 'b', 'c']))",
    "with open('notes', 'a') as notes:\n    notes.write('x' * 10_000)",
    "def f(x):\n    return x\nf(n)",
    "raise ValueError(f(n))",
    "syntax error",
    "texts = [str(i) for i in range(1000)]",
] * 5


@pytest.mark.parametrize("backend", [PythonRepl, MontyRepl])
def test_a_thousand_cells_leave_nothing(
    backend: type[PythonRepl] | type[MontyRepl], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def session() -> int:
        repl: Repl = backend(context_of("context " * 100), settings_of())
        try:
            results = [await answer_all(repl, code) for code in CELLS]
        finally:
            await repl.close()
        assert results[1].stdout == "2\n"
        return len(results)

    async def some(count: int) -> int:
        ran = 0
        for _ in range(count // AT_ONCE):
            ran += sum(await asyncio.gather(*(session() for _ in range(AT_ONCE))))
        return ran

    asyncio.run(some(AT_ONCE))  # what a program opens once and keeps
    before = open_things()
    assert asyncio.run(some(SESSIONS)) == 1000
    assert comes_true(lambda: open_things() == before), (before, open_things())
    assert not list(tmp_path.iterdir())


def open_things() -> tuple[set[int], int, int]:
    """The processes, descriptors and threads of this program."""
    return set(own_children()), len(os.listdir("/proc/self/fd")), threading.active_count()
