"""Sessions of sub-runs: closed when their frames end, and whatever befalls the run meanwhile."""

import asyncio
import gc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from machine import code
from repl_python import own_children

from rlm_fsm import ModelResponse, Policy, Usage, arun, runs

CHILD = "You are the child."


class Model:
    """Stops the run at the moment at which the last reply of its sub-run is there."""

    task: "asyncio.Task[Any]"

    async def acomplete(self, messages: Any, **_: Any) -> ModelResponse:
        if not messages[0]["content"].startswith(CHILD):
            return ModelResponse(code("found = rlm_query('a')"), Usage(1, 1, 2))
        if len(messages) > 2:
            self.task.cancel()
            return ModelResponse("FINAL: x", Usage(1, 1, 2))
        return ModelResponse(code("q = 'x'"), Usage(1, 1, 2))


@pytest.fixture
def _no_collector() -> Generator[None]:
    """It would close what was forgotten."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("backend", ["python", "monty"])
@pytest.mark.parametrize("limit_s", [None, 600.0], ids=["alone", "timed"])
@pytest.mark.usefixtures("_no_collector")
def test_a_sub_run_that_ends_in_the_commit_of_the_cancellation_leaves_no_process(
    backend: str, limit_s: float | None, tmp_path: Path
):
    log = tmp_path / "log.sqlite"

    async def program() -> None:
        before = set(own_children())
        model = Model()
        model.task = asyncio.create_task(
            arun(
                "q",
                "text",
                adapter=model,
                log=log,
                repl_backend=backend,
                policy=Policy(max_recursion_depth=2, max_seconds=limit_s),
                recursive_subcall_system_prompt=CHILD,
            )
        )
        with pytest.raises(asyncio.CancelledError):
            await model.task
        assert set(own_children()) <= before

    asyncio.run(program())
    assert runs(log)[0].status == "cancelled"
