"""The part of the contract of a REPL backend that is about cells which are to stop.

The machine stops a cell that asks for ever for what no limit allows.
"""

import json

import pytest
from repl_driving import Driving

from effects.repls.base import Answer

STOP = Answer(kind="stop", text="enough")
ENDLESS = "while True:\n    try:\n        {ask}\n    except {error}:\n        pass"


def stops(prompt: str) -> str | Answer:
    """Answers all but ``q``, and what is no prompt."""
    return prompt.upper() if prompt in ("a", "b") else STOP


def stops_after_forecast(prompt: str) -> str | Answer:
    """Stops at the first subcall of a function that makes many."""
    if prompt.startswith('{"calls"'):
        return json.dumps({"subcalls": 1, "tokens": 9, "cost_usd": None})
    return STOP


class StopsContract(Driving):
    """A cell is stopped in the code first, and with its session when that goes on all the same."""

    @pytest.mark.parametrize(
        "ask",
        [
            "llm_query('q')",
            "llm_batch(['a', 'q'], on_error='return')",
            "ask_chunks_first('q', ['a'], on_error='return')",
            "llm_batch_json(['a', 'q'], on_error='return')",
            "budget()",
            "await llm_query('q')",
            "await asyncio.gather(*[llm_query(p) for p in 'aqb'])",
            "await asyncio.gather(llm_query('q'), return_exceptions=True)",
            "await asyncio.gather(*[one(p) for p in 'aqb'])",
            "asyncio.run(one('q'))",
        ],
    )
    def test_a_cell_that_is_to_stop_ends_and_loses_nothing(self, ask: str) -> None:
        code = (
            "import asyncio\nasync def one(p):\n    try:\n        return await llm_query(p)\n"
            "    except Exception:\n        return None\n"
            f"got = [llm_query(p) for p in 'ab']\nprint('begun')\n"
            f"{ENDLESS.format(ask=ask, error='Exception')}"
        )
        first, second, third = self.cells(
            "kept = 1", code, "print(kept, got, llm_query('a'))", answerer=stops
        )[-3:]
        assert first.error is None
        assert second.error is not None
        assert (second.error.kind, second.error.message) == ("CellStopped", "enough")
        assert second.error.traceback.startswith("Traceback (most recent call last):\n")
        assert 'File "<cell 2>", line ' in second.error.traceback
        assert second.error.traceback.endswith("\nCellStopped: enough")
        assert second.stdout == "begun\n"
        assert not second.repl_lost
        assert [variable.name for variable in second.variables if variable.is_new][-1] == "got"
        assert (third.error, third.stdout) == (None, "1 ['A', 'B'] A\n")

    def test_the_traceback_of_a_stop_names_the_line_that_asked(self) -> None:
        for ask in ("llm_query('q')", "await llm_query('q')"):
            (result,) = self.cells(f"x = 1\nif x:\n    y = {ask}\nz = 2", answerer=stops)
            assert result.error is not None
            assert '"<cell 1>", line 3' in result.error.traceback
            assert f"y = {ask}" in result.error.traceback

    def test_a_function_that_makes_many_subcalls_stops(self) -> None:
        for call in ("map_chunks('who?', ['a'])", "vote('q')"):
            first, second = self.cells(f"n = 1\n{call}", "print(n)", answerer=stops_after_forecast)
            assert first.error is not None
            assert (first.error.kind, first.repl_lost) == ("CellStopped", False)
            assert second.stdout == "1\n"

    def test_what_a_cell_does_last_when_it_is_stopped_is_done(self) -> None:
        for ask in ("llm_query('q')", "await llm_query('q')"):
            code = f"n = 1\ntry:\n    {ask}\nfinally:\n    n += 1\n    print('bye')"
            first, second = self.cells(code, "print(n)", answerer=stops)
            assert first.error is not None
            assert (first.error.kind, first.stdout) == ("CellStopped", "bye\n")
            assert second.stdout == "2\n"

    def test_code_may_catch_its_stop_and_end(self) -> None:
        code = "n = 1\ntry:\n    llm_query('q')\nexcept BaseException as e:\n    print(e)\nn += 1"
        first, second = self.cells(code, "print(n)", answerer=stops)
        assert (first.error, first.stdout, second.stdout) == (None, "enough\n", "2\n")

    def test_each_cell_is_stopped_in_its_code_first(self) -> None:
        first, *results = self.cells("n = 0", *["n += 1\nllm_query('q')"] * 3, answerer=stops)
        assert first.error is None
        for result in results:
            assert result.error is not None
            assert (result.error.kind, result.repl_lost) == ("CellStopped", False)

    @pytest.mark.parametrize("ask", ["llm_query('q')", "await llm_query('q')", "budget()"])
    def test_a_cell_that_catches_even_its_stop_is_stopped_with_its_session(self, ask: str) -> None:
        code = ENDLESS.format(ask=ask, error="BaseException")
        first, second = self.cells(f"print('begun')\n{code}", "print('alive')", answerer=stops)
        assert first.error is not None
        assert (first.error.kind, first.error.message) == ("CellStopped", "enough")
        assert first.repl_lost
        assert second.stdout == "alive\n"

    def test_awaited_tasks_that_catch_even_their_stop_are_stopped_with_the_session(self) -> None:
        loop = ENDLESS.format(ask="await llm_query('q')", error="BaseException")
        code = "import asyncio\nasync def one():\n    " + loop.replace("\n", "\n    ")
        first, second = self.cells(
            f"{code}\nawait asyncio.gather(one(), one())", "print('alive')", answerer=stops
        )
        assert first.error is not None
        assert (first.error.kind, first.repl_lost) == ("CellStopped", True)
        assert second.stdout == "alive\n"

    def test_a_cell_that_was_stopped_may_hand_in_an_answer(self) -> None:
        code = "try:\n    llm_query('q')\nexcept BaseException:\n    FINAL('what there is')"
        (result,) = self.cells(code, answerer=stops)
        assert result.error is None
        assert result.final is not None
        assert result.final.text == "what there is"

    def test_asking_for_the_time_can_be_what_stops(self) -> None:
        code = "import time\nn = 1\ntime.time()"
        first, second = self.cells(code, "print(n)", answerer=stops, seed="s", asks_clock=True)
        assert first.error is not None
        assert (first.error.kind, first.repl_lost) == ("CellStopped", False)
        assert second.stdout == "1\n"
