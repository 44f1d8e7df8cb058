"""The sandbox backend: the contract of REPLs, and what is this backend's own."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from repl_contract import ReplContract
from repl_driving import (
    HAYSTACK,
    answer_all,
    answers_to,
    context_of,
    settings_of,
    upper,
)

from effects.context import Context
from effects.repls._monty_gaps import hint
from effects.repls._monty_values import Output
from effects.repls._monty_worker import Worker
from effects.repls.base import Answer, Paused, Repl, ReplLimits, ReplUnavailable
from effects.repls.monty import MontyRepl
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeError, CodeResult, ReadResult

NO_MORE = Answer(kind="limit", text="no more")


class TestMontyRepl(ReplContract):
    keeps_lone_surrogates = False
    keeps_variables_after_timeout = False

    async def make(self, source: str | list[str] | Context, **settings: Any) -> Repl:
        return MontyRepl(context_of(source), settings_of(**settings))

    def error(self, *codes: str, **options: Any) -> CodeError:
        """The error of the last cell."""
        error = self.cells(*codes, **options)[-1].error
        assert error is not None
        return error

    # Echoes

    @pytest.mark.parametrize(
        ("code", "shown"),
        [
            ("len", "<built-in function len>"),
            ("class A:\n    def __repr__(self):\n        return 'an A'\nA()", "an A"),
            ("from collections import Counter\nCounter('aab')", "Counter({'a': 2, 'b': 1})"),
            (
                "from dataclasses import dataclass\n@dataclass\nclass D:\n    x: int\nD(1)",
                "D(x=1)",
            ),
            ("1, 'a'", "(1, 'a')"),
            ("*[1, 2], 3", "(1, 2, 3)"),
            ("x = 1; x;", "1"),
            ("(1 +\n 2)  # three", "3"),
            ("é = 'ü'; é + '!'  # ö", "'ü!'"),
            ("if True:\n    5", ""),
            ("ctx", f"TextView(chars={len(HAYSTACK)}, documents=1)"),
            ("import math\r\nmath.floor(\r\n2.5)\r\n", "2"),
        ],
    )
    def test_an_echo_is_what_python_would_show(self, code: str, shown: str) -> None:
        assert self.output(code) == (shown + "\n" if shown else "")

    def test_source_that_only_the_sandbox_can_parse_is_echoed_too(self) -> None:
        # A quote of the same kind within an f-string is newer than Python 3.11.
        assert self.output("f'{'a'}b'") == "'ab'\n"

    # Names

    def test_functions_of_the_runtime_are_values(self) -> None:
        code = "f = llm_query\ndef twice(g, x):\n    return g(g(x))\nfind = ctx.find\n"
        code += "print(twice(f, 'a'), find('teal')[0][2])"
        assert self.output(code, answerer=lambda p: p + "!") == "a!! teal\n"

    def test_an_unknown_function_is_an_unknown_name(self) -> None:
        error = self.error("x = 1", "nowhere(3)")
        assert str(error).splitlines()[1:] == [
            '  File "<cell 2>", line 1, in <module>',
            "    nowhere(3)",
            "NameError: name 'nowhere' is not defined",
        ]

    def test_unknown_attributes_of_ctx_are_attribute_errors(self) -> None:
        assert self.error("ctx.nope").kind == "AttributeError"
        assert self.error("ctx.nope()").kind == "AttributeError"
        assert self.output("hasattr(ctx, 'find'), hasattr(ctx, 'nope')") == "(True, False)\n"

    def test_show_vars_sees_variables_of_its_own_cell(self) -> None:
        text = self.output("import re\nalpha = 1\nprint(SHOW_VARS())\nbeta = 2")
        assert text == "alpha: int\n"

    def test_show_vars_in_a_function_shows_what_there_was_when_the_cell_began(self) -> None:
        code = "later = 2\ndef names():\n    return SHOW_VARS()\nprint(names())"
        assert self.output("early = 1", code) == "early: int\n"

    def test_the_text_is_found_by_code_that_names_it_in_a_text(self) -> None:
        assert self.output("eval('P[:7]')") == "'The key'\n"

    def test_names_that_a_function_or_import_took_come_back(self) -> None:
        spoil = "def ask(x):\n    return 0\nimport math as SubcallError\nfor ctx in 'ab': pass"
        code = (
            "try:\n    ask('q', 't')\nexcept SubcallError:\n    print('caught', lenP())\nctx.kind"
        )
        out = self.output(spoil, code, answerer=lambda _: NO_MORE)
        assert out == f"caught {len(HAYSTACK)}\n'string'\n"

    def test_a_compiled_pattern_is_refused_and_not_taken_for_a_text(self) -> None:
        assert self.error("import re\nctx.find(re.compile('key'))").kind == "TypeError"
        assert self.output("import re\nlen(ctx.find('KEY', flags=re.IGNORECASE))") == "1\n"

    # Patterns

    CATASTROPHE = "ctx.find(r'(a+)+$', regex=True)"

    def test_a_pattern_without_end_is_stopped_and_the_session_goes_on(self) -> None:
        code = f"try:\n    {self.CATASTROPHE}\nexcept TimeoutError as e:\n    print(e)"
        again = "x = 1\nlen(ctx.find('a+', regex=True)), ctx.find('B', case_sensitive=False)"
        first, second = self.cells(code, again, source="a" * 40 + "b", cell_timeout_s=0.3)
        assert first.stdout.startswith("the search took more than 0.15 seconds")
        assert second.stdout == "(1, [(40, 41, 'b')])\n"

    def test_searches_count_as_computing(self) -> None:
        code = f"n = 0\nwhile True:\n    n += 1\n    try:\n        {self.CATASTROPHE}\n"
        code += "    except TimeoutError:\n        pass"
        began = time.monotonic()
        (result,) = self.cells(code, source="a" * 40 + "b", cell_timeout_s=0.3)
        assert result.error is not None
        assert result.error.kind == "CellTimeout"
        assert time.monotonic() - began < 5

    def test_the_event_loop_goes_on_while_a_pattern_is_searched(self) -> None:
        async def scenario(repl: Repl) -> float:
            cell = asyncio.ensure_future(repl.start(self.CATASTROPHE))
            longest, last = 0.0, time.monotonic()
            while not cell.done():
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            return longest

        assert self.session(scenario, "a" * 40 + "b", cell_timeout_s=0.5) < 0.4

    def test_close_ends_a_search_that_runs(self) -> None:
        async def scenario(repl: Repl) -> None:
            cell = asyncio.ensure_future(repl.start(self.CATASTROPHE))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            await repl.close()
            assert time.monotonic() - began < 5
            result = await cell
            assert isinstance(result, CodeResult)
            assert result.repl_lost

        self.session(scenario, "a" * 40 + "b")

    def test_patterns_see_the_text_as_it_is(self) -> None:
        code = "print(ctx.find('İ.', regex=True), ctx.find('ß', case_sensitive=False))"
        expected = "[(2, 4, 'İ?')] [(6, 7, 'ß')]\n"
        assert self.output(code, source="😀\u2028İ\ud800 \nß") == expected
        assert self.error("ctx.find('(', regex=True)").kind == "ValueError"
        assert self.error("ctx.find('a', regex=True, flags='i')").kind == "TypeError"

    # Errors

    def test_subcall_errors_are_shown_by_their_names(self) -> None:
        error = self.error("llm_query('q')", answerer=lambda _: NO_MORE)
        assert (error.kind, error.message) == ("SubcallLimitError", "no more")
        assert str(error).endswith("\nSubcallLimitError: no more")

    def test_a_limit_and_a_failure_are_told_apart(self) -> None:
        code = (
            "for q in ('bad', 'limit'):\n    try:\n        llm_query(q)\n"
            "    except SubcallLimitError:\n        print('limit')\n"
            "    except SubcallError:\n        print('failure')"
        )
        failure = Answer(kind="error", text="broken")
        out = self.output(code, answerer=lambda p: NO_MORE if p == "limit" else failure)
        assert out == "failure\nlimit\n"

    def test_tracebacks_show_the_cells_as_they_were_written(self) -> None:
        error = self.error("def f(n):\n    return 1 / n", "# é\nf(0)")
        assert error.traceback == (
            "Traceback (most recent call last):\n"
            '  File "<cell 2>", line 2, in <module>\n'
            "    f(0)\n"
            '  File "<cell 1>", line 2, in f\n'
            "    return 1 / n\n"
            "           ^^^^^\n"
            "ZeroDivisionError: division by zero"
        )

    def test_file_names_stay_true_after_reading_and_watching(self) -> None:
        async def scenario(repl: Repl) -> CodeResult:
            await answer_all(repl, "x = P", watch=("x", "missing"))
            await repl.read("nothing")
            await answer_all(repl, "print(SHOW_VARS()", watch=("x",))
            return await answer_all(repl, "def f():\n    x / 0\nf()")

        error = self.session(scenario).error
        assert error is not None
        assert '"<cell 3>", line 2, in f' in error.traceback

    def test_deep_stacks_are_shortened(self) -> None:
        error = self.error("def a(n): return b(n + 1)\ndef b(n): return a(n)\na(0)")
        assert len(error.traceback) < 2000
        assert "more frames" in error.traceback

    def test_the_key_of_a_key_error_is_shown_as_python_does(self) -> None:
        assert self.error("{}['a']").message == "'a'"

    @pytest.mark.parametrize(
        ("code", "advice"),
        [
            ("def f():\n    x = yield 1", "Build a list"),
            ("def f():\n    x = 1\n    del x", "Assign None"),
            ("class E(Exception):\n    pass", "plain class"),
            ("import numpy as np", "Available"),
            ("max({'a': 1}, key={'a': 1}.get)", "lambda"),
            ("f = 'abc'.upper", "lambda"),
            ("g = map\nlist(g(llm_query, ['a']))", "llm_batch"),
            ("g = map\nlist(g(lambda t: peek(1), ['a']))", "comprehension"),
            ("def f():\n    return globals()\nf()", "SHOW_VARS"),
            ("input()", "isn't available"),
            ("ctx[0:5]", "ctx.slice"),
            ("len(ctx)", "len_chars"),
            ("for d in ctx: pass", "get_document"),
            ("'a' in ctx", "ctx.find"),
            ("try:\n    int('x')\nexcept ValueError as e:\n    e.results", "on_error"),
        ],
    )
    def test_a_gap_comes_with_a_way_round(self, code: str, advice: str) -> None:
        error = self.error(code, answerer=lambda _: NO_MORE)
        assert advice in error.message
        assert str(error).endswith(f"{error.kind}: {error.message}")

    def test_ordinary_mistakes_come_without_advice(self) -> None:
        for message in ("division by zero", "'list' object has no attribute 'strip'", "no more"):
            assert hint(message) is None

    def test_a_syntax_gap_runs_nothing(self) -> None:
        result, after = self.cells("print('ran')\nx = 1\nclass A(dict): pass", "x")
        assert result.stdout == ""
        assert after.error is not None
        assert after.error.kind == "NameError"

    # Texts

    def test_lone_surrogates_become_question_marks(self) -> None:
        code = "print(P, ctx.slice(0, 3), ctx.find('a'), llm_query('q'))"
        out = self.output(code, source="a\ud800b", answerer=lambda _: "c\udfff")
        assert out == "a?b a?b [(0, 1, 'a')] c?\n"
        assert self.error("x = '\ud800'").kind == "SyntaxError"

    def test_a_long_text_is_bound_in_pieces(self) -> None:
        worker = Worker(ReplLimits(), room_bytes=0)
        try:
            output = Output(100)
            worker.bind_text("P", "0123456789", piece_chars=3)
            worker.feed("print(P, list(locals()))", None, output)
            assert output.text() == "0123456789 ['_rlm_pieces', '_rlm_piece', 'P']\n"
        finally:
            worker.close()

    def test_the_context_does_not_count_against_the_memory_limit(self) -> None:
        text = "x" * (40 << 20)
        (result,) = self.cells("print(len(P))", source=text, memory_bytes=16 << 20)
        assert result.error is None

    # Variables

    def test_a_variable_that_cannot_be_printed_is_read_as_an_error(self) -> None:
        code = (
            "class A:\n    def __str__(self):\n        print('side effect')\n        return 1 / 0\n"
            "x = A()"
        )

        async def scenario(repl: Repl) -> tuple[CodeResult, ReadResult]:
            return await answer_all(repl, code, watch=("x",)), await repl.read("x")

        result, read = self.session(scenario)
        assert (result.error, dict(result.watched), result.stdout) == (None, {}, "")
        assert read == ReadResult(error="x can't be shown: ZeroDivisionError: division by zero")

    def test_the_text_itself_can_be_an_answer(self) -> None:
        assert self.read("x = 1", "P").text == HAYSTACK
        assert "236" in str(self.read("x = 1", "P", max_value_chars=100).error)

    @pytest.mark.parametrize("name", ["llm_query", "ctx", "a.b", "1", "if", "", "_rlm_echo(1)"])
    def test_what_is_no_variable_is_not_read(self, name: str) -> None:
        assert self.read("alpha = 1\nimport re", name) == ReadResult(names=("alpha",))

    # Repeatability

    def test_two_sessions_see_the_same_clock_and_random_numbers(self) -> None:
        code = "import random, time, datetime as d\nrandom.random(), time.time(), d.date.today()"
        assert self.output(code) == self.output(code)

    def test_sleeping_takes_no_time(self) -> None:
        began = time.monotonic()
        assert self.output("import time\ntime.sleep(30)\nprint('on')") == "on\n"
        assert time.monotonic() - began < 10

    # Limits

    def test_a_cell_stopped_at_its_limit_ends_the_session_and_keeps_its_output(self) -> None:
        code = "x = 1\nprint('so far')\nwhile True: pass"
        stopped, after = self.cells(code, "def f(): return x\nf()", cell_timeout_s=0.2)
        assert (stopped.stdout, stopped.repl_lost) == ("so far\n", True)
        assert after.error is not None
        assert after.error.kind == "NameError"
        assert '"<cell 2>"' in after.error.traceback

    def test_work_that_ignores_the_limit_is_killed(self) -> None:
        code = "10 ** 10 ** 8"
        stopped, after = self.cells(code, "print('on')", cell_timeout_s=0.2)
        assert stopped.error is not None
        assert (stopped.error.kind, stopped.repl_lost) == ("CellTimeout", True)
        assert after.stdout == "on\n"

    @pytest.mark.parametrize(
        "code", ["x = 'a' * 10**10", "x = []\nwhile True: x.append('a' * 999)"]
    )
    def test_too_much_memory_ends_the_session(self, code: str) -> None:
        stopped, after = self.cells(code, "print('on')", memory_bytes=16 << 20)
        assert stopped.error is not None
        assert (stopped.error.kind, stopped.repl_lost) == ("MemoryError", True)
        assert "16 MiB" in stopped.error.message
        assert after.stdout == "on\n"

    def test_calls_of_the_host_count_as_computing(self) -> None:
        began = time.monotonic()
        (result,) = self.cells("while True: peek(1)", cell_timeout_s=0.2)
        assert result.error is not None
        assert (result.error.kind, result.repl_lost) == ("CellTimeout", True)
        assert time.monotonic() - began < 2

    def test_the_codes_own_timeout_is_an_ordinary_error(self) -> None:
        result, after = self.cells("x = 1\nraise TimeoutError('mine')", "print(x)")
        assert result.error is not None
        assert (result.error.kind, result.repl_lost) == ("TimeoutError", False)
        assert after.stdout == "1\n"

    def test_printing_without_end_stops_at_the_time_limit(self) -> None:
        (result,) = self.cells("while True: print('x' * 99)", cell_timeout_s=0.2, output_chars=100)
        assert result.error is not None
        assert result.error.kind == "CellTimeout"
        assert len(result.stdout) == 100
        assert result.stdout_chars > 1000

    # Processes and threads

    def test_a_worker_that_dies_is_reported_and_replaced(self) -> None:
        async def scenario(repl: Repl) -> list[CodeResult]:
            step = await repl.start("x = llm_query('q')")
            assert isinstance(step, Paused)
            os.kill(worker_of(repl), signal.SIGKILL)
            died = await repl.resume(answers_to(step.calls, upper))
            assert isinstance(died, CodeResult)
            return [died, await answer_all(repl, "print('on')")]

        died, after = self.session(scenario)
        assert died.error is not None
        assert (died.error.kind, died.repl_lost) == ("ReplDied", True)
        assert after.stdout == "on\n"

    def test_no_process_and_no_thread_outlive_a_session(self) -> None:
        async def scenario(repl: Repl) -> int:
            await answer_all(repl, "x = 1")
            return worker_of(repl)

        pid = self.session(scenario)
        assert not is_running(pid)
        assert not threads()

    def test_a_session_that_nobody_closes_ends_with_its_last_reference(self) -> None:
        async def leave() -> int:
            repl = await self.make("text")
            await answer_all(repl, "x = 1")
            return worker_of(repl)

        pid = asyncio.run(leave())
        gc.collect()
        for thread in threads():
            thread.join(5)
        assert not threads()
        assert not is_running(pid)

    def test_many_sessions_run_at_once(self) -> None:
        async def main() -> list[str]:
            repls = [await self.make(f"text {i}") for i in range(6)]
            steps = [await repl.start("x = llm_query(P)\nprint(x)") for repl in repls]
            try:
                results = [
                    await repl.resume(answers_to(step.calls, upper))
                    for repl, step in zip(repls, steps, strict=True)
                    if isinstance(step, Paused)
                ]
            finally:
                for repl in repls:
                    await repl.close()
            return [result.stdout for result in results if isinstance(result, CodeResult)]

        assert asyncio.run(main()) == [f"TEXT {i}\n" for i in range(6)]

    def test_the_event_loop_goes_on_while_a_cell_computes(self) -> None:
        async def scenario(repl: Repl) -> int:
            cell = asyncio.ensure_future(repl.start("while True: pass"))
            ticks = 0
            while not cell.done():
                await asyncio.sleep(0.01)
                ticks += 1
            return ticks

        assert self.session(scenario, cell_timeout_s=0.3) > 5

    def test_a_cell_that_is_cancelled_is_killed_and_the_next_begins_afresh(self) -> None:
        async def scenario(repl: Repl) -> tuple[bool, CodeResult]:
            await answer_all(repl, "x = 1")
            pid = worker_of(repl)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(repl.start("while True: pass"), 0.1)
            after = await answer_all(repl, "print(x)")
            return is_running(pid), after

        running, after = self.session(scenario)
        assert not running
        assert after.error is not None
        assert after.error.kind == "NameError"

    def test_a_session_outlives_the_loop_that_began_it(self) -> None:
        async def begin() -> tuple[Repl, Paused]:
            repl = await self.make("text")
            step = await repl.start("x = llm_query('q')\nprint(x)")
            assert isinstance(step, Paused)
            return repl, step

        repl, step = asyncio.run(begin())
        result = asyncio.run(finish(lambda: repl.resume(answers_to(step.calls, upper))))
        asyncio.run(repl.close())
        assert isinstance(result, CodeResult)
        assert result.stdout == "Q\n"

    # Misuse

    def test_a_closed_session_says_so(self) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.open()
            await repl.close()
            with pytest.raises(ReplUnavailable, match="closed"):
                await repl.start("1")

        self.session(scenario)

    def test_a_paused_cell_comes_first(self) -> None:
        async def scenario(repl: Repl) -> None:
            with pytest.raises(UsageError):
                await repl.resume(())
            step = await repl.start("print(llm_query('q'))")
            assert isinstance(step, Paused)
            with pytest.raises(UsageError):
                await repl.start("1")
            with pytest.raises(UsageError):
                await repl.read("x")
            result = await repl.resume(answers_to(step.calls, upper))
            assert isinstance(result, CodeResult)
            assert result.stdout == "Q\n"

        self.session(scenario)

    def test_a_sandbox_that_does_not_start_is_unavailable(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MONTY_BIN", "/nowhere/monty")

        async def scenario(repl: Repl) -> None:
            with pytest.raises(ReplUnavailable, match="did not start"):
                await repl.open()

        self.session(scenario)
        assert not threads()


async def finish(work: Callable[[], Awaitable[Any]]) -> Any:
    """Await something that must be made inside the loop."""
    return await work()


def worker_of(repl: Repl) -> int:
    """The process of a session."""
    assert isinstance(repl, MontyRepl)
    pid = repl.worker_pid
    assert pid is not None
    return pid


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rlm-monty"]


def test_sessions_opened_at_the_same_moment_in_a_fresh_process_all_start() -> None:
    code = (
        "import sys, threading\n"
        "sys.setswitchinterval(1e-6)\n"
        "from effects.repls._monty_worker import Worker\n"
        "from effects.repls.base import ReplLimits\n"
        "errors, barrier = [], threading.Barrier(6)\n"
        "def start():\n"
        "    barrier.wait()\n"
        "    try:\n        Worker(ReplLimits(), room_bytes=0).close()\n"
        "    except BaseException as error:\n        errors.append(repr(error))\n"
        "threads = [threading.Thread(target=start) for _ in range(6)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print(errors)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
