"""The contract of a REPL backend: one suite, subclassed once per backend.

A subclass gives `make` and, where a backend is known to differ, the class attributes of
`repl_driving.Driving`. Model-written code in here stays within what every backend understands:
no classes, no imports.
"""

import asyncio

import pytest
from repl_contract_awaits import AwaitsContract
from repl_contract_calls import CallsContract
from repl_contract_combinators import CombinatorsContract
from repl_contract_finals import FinalsContract
from repl_contract_stops import StopsContract
from repl_contract_tools import ToolsContract
from repl_driving import answer_all, answers_to, context_of, settings_of, upper

from effects.repls.base import Paused, Repl
from rlm_fsm.values import CodeResult, ReadResult

__all__ = ["ReplContract", "answer_all", "answers_to", "context_of", "settings_of", "upper"]


class ReplContract(
    CallsContract,
    CombinatorsContract,
    FinalsContract,
    AwaitsContract,
    StopsContract,
    ToolsContract,
):
    """What every backend does. Subclass it as `TestSomething` and give `make`."""

    # A session

    def test_variables_survive_from_cell_to_cell(self) -> None:
        assert self.output("x = 20", "x += 1", "print(x * 2)") == "42\n"

    def test_a_cell_that_raises_keeps_its_variables(self) -> None:
        first, second = self.cells("before = 1\nboom = 1 / 0\nafter = 2", "print(before)")
        assert first.error is not None
        assert first.error.kind == "ZeroDivisionError"
        assert not first.repl_lost
        assert second.stdout == "1\n"

    def test_variables_of_a_cell_that_raised_after_a_pause_are_kept(self) -> None:
        first, second = self.cells("got = llm_query('a')\nraise ValueError(got)", "print(got)")
        assert first.error is not None
        assert (first.error.kind, first.error.message) == ("ValueError", "A")
        assert second.stdout == "A\n"

    def test_functions_survive_and_see_globals_that_are_set_later(self) -> None:
        define = "def total():\n    return helper(base)"
        later = "base = 3\ndef helper(n):\n    return n + 1"
        assert self.output(define, later, "print(total())", "base = 10", "print(total())") == "11\n"

    def test_functions_that_share_globals_change_them(self) -> None:
        define = "count = 0\ndef bump():\n    global count\n    count += 1"
        assert self.output(define, "bump()\nbump()", "print(count)") == "2\n"

    def test_an_empty_cell_does_nothing(self) -> None:
        assert self.output("") == ""
        assert self.output("# only a comment\n") == ""

    # Output

    def test_a_trailing_expression_is_echoed(self) -> None:
        assert self.output("x = 'a'\nx") == "'a'\n"
        assert self.output("1 + 1") == "2\n"

    def test_only_the_last_expression_is_echoed(self) -> None:
        assert self.output("1\n2\n3") == "3\n"

    def test_none_and_print_are_not_echoed(self) -> None:
        assert self.output("None") == ""
        assert self.output("print('once')") == "once\n"
        assert self.output("x = 5") == ""

    def test_a_trailing_subcall_is_echoed(self) -> None:
        assert self.output("llm_query('a')") == "'A'\n"

    def test_output_before_an_error_is_kept(self) -> None:
        (result,) = self.cells("print('so far')\nraise ValueError('no')")
        assert result.stdout == "so far\n"
        assert result.error is not None

    def test_output_before_and_after_a_pause_is_one_output(self) -> None:
        assert self.output("print(1)\nx = llm_query('q')\nprint(x)") == "1\nQ\n"

    def test_output_of_one_cell_does_not_reach_the_next(self) -> None:
        assert self.output("print('first')", "print('second')") == "second\n"

    def test_big_output_is_cut_and_counted(self) -> None:
        (result,) = self.cells("for i in range(1000):\n    print('x' * 99)", output_chars=1000)
        assert result.stdout == ("x" * 99 + "\n") * 10
        assert result.stdout_chars == 100_000

    def test_the_count_of_uncut_output_is_its_length(self) -> None:
        (result,) = self.cells("print('héllo')")
        assert result.stdout_chars == len(result.stdout) == 6

    # Errors

    def test_an_error_names_its_line(self) -> None:
        (result,) = self.cells("x = 1\n\ny = x / 0\n")
        assert result.error is not None
        assert result.error.kind == "ZeroDivisionError"
        assert "line 3" in result.error.traceback
        assert "y = x / 0" in result.error.traceback
        last = result.error.traceback.rstrip().splitlines()[-1]
        assert last == f"ZeroDivisionError: {result.error.message}"

    def test_an_error_in_a_function_of_an_earlier_cell_names_both_lines(self) -> None:
        _, second = self.cells("def f(n):\n    return 1 // n", "a = 1\nf(0)")
        assert second.error is not None
        assert "line 2, in f" in second.error.traceback
        assert second.error.traceback.index("line 2") < second.error.traceback.index("in f")

    def test_a_syntax_error_is_an_error_of_the_cell(self) -> None:
        first, second = self.cells("x = 1\ny = = 2", "print('on')")
        assert first.error is not None
        assert first.error.kind == "SyntaxError"
        assert "line 2" in first.error.traceback
        assert second.stdout == "on\n"

    def test_a_syntax_error_runs_nothing(self) -> None:
        first, second = self.cells("print('ran')\nx = (", "print('on')")
        assert first.stdout == ""
        assert second.stdout == "on\n"

    def test_a_name_that_does_not_exist_is_named(self) -> None:
        (result,) = self.cells("print(nowhere)")
        assert result.error is not None
        assert result.error.kind == "NameError"
        assert "nowhere" in result.error.message

    def test_endless_recursion_is_an_error_of_the_cell(self) -> None:
        first, second = self.cells("def f(n):\n    return f(n + 1)\nf(0)", "print('on')")
        assert first.error is not None
        assert first.error.kind == "RecursionError"
        assert second.stdout == "on\n"

    # Names of the runtime

    def test_show_vars_names_the_variables_and_their_types(self) -> None:
        text = self.output("alpha = 1\nbeta = 'x'", "print(SHOW_VARS())")
        for word in ("alpha", "int", "beta", "str"):
            assert word in text
        for word in ("llm_query", "ctx", "SHOW_VARS"):
            assert word not in text

    def test_show_vars_prints_nothing_itself(self) -> None:
        assert self.output("alpha = 1\ntext = SHOW_VARS()") == ""
        assert "alpha" in self.output("alpha = 1\nSHOW_VARS()")

    def test_names_of_the_runtime_come_back_after_each_cell(self) -> None:
        spoil = "P = 1\nctx = 2\nllm_query = 3\npeek = 4"
        assert self.output(spoil, "print(P[:3], ctx.len_chars() > 5, llm_query('q'), peek(3))") == (
            "The True Q The\n"
        )

    # Watching and reading

    def test_watched_variables_come_with_the_result(self) -> None:
        first, second = self.cells(
            "answer = 'teal'\ncount = 3", "count += 1", watch=("answer", "count")
        )
        assert dict(first.watched) == {"answer": "teal", "count": "3"}
        assert dict(second.watched) == {"answer": "teal", "count": "4"}

    def test_empty_and_missing_variables_are_not_watched(self) -> None:
        (result,) = self.cells(
            "none = None\nempty = ''\nblank = ' \\n'\nzero = 0",
            watch=("none", "empty", "blank", "missing", "zero"),
        )
        assert dict(result.watched) == {"zero": "0"}

    def test_watched_variables_come_with_an_error_too(self) -> None:
        (result,) = self.cells("answer = 'teal'\nraise ValueError('x')", watch=("answer",))
        assert result.error is not None
        assert dict(result.watched) == {"answer": "teal"}

    def test_a_watched_variable_that_is_too_long_is_left_out(self) -> None:
        (result,) = self.cells(
            "long = 'x' * 101\nshort = 'x' * 100", watch=("long", "short"), max_value_chars=100
        )
        assert list(result.watched) == ["short"]

    def test_a_variable_is_read_as_python_prints_it(self) -> None:
        assert self.read("x = 'teal'", "x").text == "teal"
        assert self.read("x = [1, 'a', None]", "x").text == "[1, 'a', None]"
        assert self.read("x = None", "x").text == "None"
        assert self.read("x = ''", "x").text == ""

    def test_a_missing_variable_is_answered_with_the_names_there_are(self) -> None:
        result = self.read("alpha = 1\nbeta = 2\n_hidden = 3", "gamma")
        assert result.text is None
        assert result.error is None
        assert sorted(result.names) == ["alpha", "beta"]

    def test_a_variable_that_is_too_long_is_an_error_with_its_length(self) -> None:
        result = self.read("x = 'y' * 101", "x", max_value_chars=100)
        assert result.text is None
        assert result.error is not None
        assert "101" in result.error

    def test_what_python_itself_brings_is_no_variable(self) -> None:
        for name in ("sum", "print", "id", "__name__", "llm_query"):
            result = self.read("total = 1", name)
            assert (result.text, result.error) == (None, None), name
        assert self.read("sum = 'mine'", "sum").text == "mine"

    def test_reading_before_any_cell_finds_nothing(self) -> None:
        async def scenario(repl: Repl) -> ReadResult:
            return await repl.read("x")

        assert self.session(scenario) == ReadResult()

    # Unicode

    def test_every_text_passes_both_ways(self) -> None:
        text = "naïve İstanbul 日本語 😀 e\u0301 \x00 \u2028 \U0010ffff"

        async def scenario(repl: Repl) -> tuple[str, CodeResult, ReadResult]:
            step = await repl.start("got = llm_query(P)\nprint(got)")
            assert isinstance(step, Paused)
            result = await repl.resume(answers_to(step.calls, lambda p: p))
            assert isinstance(result, CodeResult)
            return step.calls[0].prompt, result, await repl.read("got")

        prompt, result, read = self.session(scenario, text)
        assert prompt == text
        assert result.stdout == text + "\n"
        assert read.text == text

    def test_offsets_are_characters(self) -> None:
        code = "(s, e, t), = ctx.find('key')\nprint(s, e, P[s:e], lenP())"
        assert self.output(code, source="😀😀 é key") == "5 8 key 8\n"

    def test_lone_surrogates_pass_both_ways(self) -> None:
        if not self.keeps_lone_surrogates:
            pytest.skip("this backend's texts hold no lone surrogates")
        texts: list[str] = []

        def answerer(prompt: str) -> str:
            texts.append(prompt)
            return prompt + "\udcff"

        out = self.output("print(llm_query(P))", source="a\ud83d\ude00b\ud800", answerer=answerer)
        assert texts == ["a\ud83d\ude00b\ud800"]
        assert out == "a\ud83d\ude00b\ud800\udcff\n"

    def test_a_large_prompt_and_a_large_answer_pass(self) -> None:
        code = "x = llm_query('ä' * 2_000_000)\nprint(len(x), x[-1])"
        assert self.output(code, answerer=lambda p: p + "€") == "2000001 €\n"

    # Limits

    def test_an_endless_loop_is_stopped_and_the_session_goes_on(self) -> None:
        before, endless, after = self.cells(
            "x = 1", "while True:\n    pass", "print('on')", cell_timeout_s=0.3
        )
        assert before.error is None
        assert endless.error is not None
        assert endless.error.kind == "CellTimeout"
        assert "0.3" in endless.error.message
        assert after.stdout == "on\n"

    def test_variables_survive_a_cell_that_was_stopped(self) -> None:
        if not self.keeps_variables_after_timeout:
            pytest.skip("this backend's session ends with a cell that is stopped")
        endless, after = self.cells(
            "x = 1\nwhile True:\n    x += 1", "print(x > 1)", cell_timeout_s=0.3
        )
        assert not endless.repl_lost
        assert after.stdout == "True\n"

    def test_waiting_for_answers_is_not_counted_as_computing(self) -> None:
        async def scenario(repl: Repl) -> Paused | CodeResult:
            step = await repl.start("print(llm_query('a') + llm_query('b'))")
            while isinstance(step, Paused):
                await asyncio.sleep(0.25)
                step = await repl.resume(answers_to(step.calls, upper))
            return step

        result = self.session(scenario, cell_timeout_s=0.4)
        assert isinstance(result, CodeResult)
        assert result.stdout == "AB\n"

    def test_computing_is_counted_over_all_pauses_of_a_cell(self) -> None:
        code = "while True:\n    llm_query('again')\n    for i in range(100_000):\n        pass"
        (result,) = self.cells(code, cell_timeout_s=0.3)
        assert result.error is not None
        assert result.error.kind == "CellTimeout"

    # Closing

    def test_close_is_safe_twice_and_before_any_cell(self) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.close()
            await repl.close()

        self.session(scenario)

    def test_close_is_safe_while_a_cell_is_paused(self) -> None:
        async def scenario(repl: Repl) -> None:
            step = await repl.start("llm_query('q')")
            assert isinstance(step, Paused)
            await repl.close()

        self.session(scenario)

    def test_close_ends_a_cell_that_runs(self) -> None:
        async def scenario(repl: Repl) -> None:
            await answer_all(repl, "x = 1")
            running = asyncio.ensure_future(repl.start("while True:\n    pass"))
            await asyncio.sleep(0.1)
            await repl.close()
            result = await asyncio.wait_for(running, 5)
            assert isinstance(result, CodeResult)
            assert result.repl_lost

        self.session(scenario)

    def test_two_sessions_share_nothing(self) -> None:
        async def main() -> list[CodeResult]:
            one, two = await self.make("one"), await self.make("two")
            try:
                await answer_all(one, "x = 1")
                return [await answer_all(two, "print(P)"), await answer_all(two, "print(x)")]
            finally:
                await one.close()
                await two.close()

        text, missing = asyncio.run(main())
        assert text.stdout == "two\n"
        assert missing.error is not None
        assert missing.error.kind == "NameError"
