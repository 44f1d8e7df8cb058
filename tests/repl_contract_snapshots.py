"""The contract of a REPL backend that can write its sessions down. Subclass it once per backend.

Each test runs cells twice: in one session, and in a chain of sessions, each of which is restored
from what the one before wrote down at every place where that can be done. Nothing may differ.
"""

import asyncio
from typing import Any

import pytest
from repl_contract_combinators import says
from repl_contract_tools import SPECS
from repl_driving import HAYSTACK, Answerer, Driving, answers_to, bad_fails, upper

from effects.repls.base import Answer, Paused, Repl, SavesSessions, SnapshotRefused
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeResult, ReadResult

Told = tuple[list[Paused], list[CodeResult], ReadResult]
"""What cells showed: their pauses, their results, and a variable at the end."""

HELPERS = """
import re
from collections import defaultdict
pattern = re.compile('[a-z]+')
seen = defaultdict(list)
def ask_twice(text):
    first = llm_query(text)
    seen[len(first)].append(first)
    return llm_query(first + '!')
def counter(start):
    def count(step):
        return start + step
    return count
from_ten = counter(10)
"""


class SnapshotsContract(Driving):
    """The tests."""

    def told(
        self,
        *codes: str,
        moves: bool,
        answerer: Answerer = upper,
        watch: tuple[str, ...] = (),
        **settings: Any,
    ) -> Told:
        """Run cells, with `moves` in a new session after each pause and each cell."""

        async def main() -> Told:
            pauses: list[Paused] = []
            results: list[CodeResult] = []
            repl = await self.make(HAYSTACK, **settings)
            try:
                for code in codes:
                    step = await repl.start(code, watch)
                    while isinstance(step, Paused):
                        pauses.append(step)
                        if moves:
                            repl, again = await self.moved(repl, **settings)
                            assert again == step
                        step = await repl.resume(answers_to(step.calls, answerer))
                    results.append(step)
                    if moves and not step.repl_lost:
                        repl, again = await self.moved(repl, **settings)
                        assert again is None
                return pauses, results, await repl.read("result")
            finally:
                await repl.close()

        return asyncio.run(main())

    async def moved(self, repl: Repl, **settings: Any) -> tuple[Repl, Paused | None]:
        """A new session with what an old one was, which is closed."""
        data = await saves(repl).snapshot()
        await repl.close()
        assert data is not None
        new = await self.make(HAYSTACK, **settings)
        await new.open()
        return new, await saves(new).restore(data)

    def same(self, *codes: str, **options: Any) -> Told:
        """What cells show, in one session and in many."""
        expected = self.told(*codes, moves=False, **options)
        assert self.told(*codes, moves=True, **options) == expected
        return expected

    # What a session is

    def test_variables_functions_and_imports_are_carried_over(self) -> None:
        _, results, read = self.same(
            HELPERS,
            "print(pattern.findall('a1b'), from_ten(5), len(P), ctx.find('APPLE'))",
            "result = [from_ten(n) for n in range(3)]\nresult",
            watch=("result",),
        )
        assert results[1].stdout == "['a', 'b'] 15 236 [(11, 16, 'APPLE')]\n"
        assert results[2].watched == {"result": "[10, 11, 12]"}
        assert read.text == "[10, 11, 12]"

    def test_calls_of_tools_are_carried_over_awaited_or_not(self) -> None:
        pauses, results, read = self.same(
            "import asyncio\nfirst = weather('Rome', days=1)\n"
            "result = await asyncio.gather(weather('Oslo'), llm_query('q'), total(1, 2))\n"
            "try:\n    weather('bad')\nexcept ToolError as error:\n    print(error, error.tool)\n"
            "print(first)",
            answerer=lambda prompt: bad_fails(prompt) if "bad" in prompt else f'["{len(prompt)}"]',
            tools=SPECS,
        )
        assert [len(pause.calls) for pause in pauses] == [1, 3, 1]
        assert results[0].stdout == "weather failed: broken weather\n['27']\n"
        assert read.text == "[['16'], '[\"1\"]', ['19']]"

    def test_a_cell_goes_on_where_it_was_paused(self) -> None:
        pauses, results, read = self.same(
            HELPERS,
            "print('before')\nresult = [ask_twice(text) for text in ['a', 'bb']]\n"
            "print(dict(seen))",
        )
        assert [pause.calls[0].prompt for pause in pauses] == ["a", "A!", "bb", "BB!"]
        assert results[1].stdout == "before\n{1: ['A'], 2: ['BB']}\n"
        assert read.text == "['A!', 'BB!']"

    def test_what_an_error_carries_is_carried_over(self) -> None:
        _, results, read = self.same(
            "result = []\nfor text in 'ab':\n    try:\n        llm_batch(['bad', text])\n"
            "    except RuntimeError as error:\n        result.append(error)\n"
            "llm_query('then')\nresult = [error.results for error in result]",
            answerer=bad_fails,
        )
        assert results[0].error is None
        assert read.text == "[[None, 'A'], [None, 'B']]"

    def test_a_batch_is_asked_again_as_it_was(self) -> None:
        pauses, _, read = self.same("result = llm_batch([f'q{n}' for n in range(40)])")
        assert len(pauses[0].calls) == 40
        assert read.text is not None
        assert "Q39" in read.text

    def test_a_function_that_asks_one_after_the_other_goes_on_with_the_next(self) -> None:
        def second(prompt: str) -> str:
            return "found it" if "two" in prompt else "NO_ANSWER"

        pauses, _, read = self.same(
            "result = ask_chunks_first('which?', ['one', 'two', 'three'])", answerer=second
        )
        assert len(pauses) == 2
        assert read.text == "found it"

    def test_a_cell_that_asks_for_the_time_goes_on_with_it(self) -> None:
        def answerer(prompt: str) -> str:
            return prompt.upper() or "1795371300.25"

        code = (
            "import time\nresult = [time.time(), llm_query('a'), time.time()]\n"
            "class C:\n    pass\nprint(result)"
        )
        pauses, results, _ = self.same(
            code, code, answerer=answerer, seed="20261122-181500-abc", asks_clock=True
        )
        assert [pause.calls[0].kind for pause in pauses] == ["clock", "subcall"] * 2
        assert results[0].stdout == "[1795371300.25, 'A', 1795371300.251]\n"

    def test_a_gather_goes_on_where_it_was_paused(self) -> None:
        code = (
            "import asyncio\nasync def chain(p):\n    first = await llm_query(p)\n"
            "    print(first)\n    return await llm_query(first + '!')\n"
            "result = await asyncio.gather(*[chain(p) for p in 'abc'])\nprint(result)"
        )
        pauses, results, _ = self.same(code, "print(await chain('d'))")
        assert [[call.prompt for call in pause.calls] for pause in pauses] == [
            ["a", "b", "c"],
            ["A!", "B!", "C!"],
            ["d"],
            ["D!"],
        ]
        assert results[0].stdout == "A\nB\nC\n['A!', 'B!', 'C!']\n"

    def test_a_cell_is_stopped_where_it_was_paused(self) -> None:
        stop = Answer(kind="stop", text="enough")
        for ask in ("llm_query('q')", "await llm_query('q')"):
            _, results, read = self.same(
                f"result = llm_query('a')\nprint(1)\n{ask}",
                "print(result)",
                answerer=lambda prompt: stop if prompt == "q" else prompt.upper(),
            )
            assert results[0].error is not None
            assert (results[0].error.kind, results[0].stdout) == ("CellStopped", "1\n")
            assert read.text == "A"

    def test_a_cell_that_caught_its_stop_is_not_written_down(self) -> None:
        code = "try:\n    llm_query('q')\nexcept BaseException:\n    pass\nprint(llm_query('a'))"

        async def scenario(repl: Repl) -> CodeResult:
            assert isinstance(await repl.start(code), Paused)
            assert await saves(repl).snapshot() is not None
            assert isinstance(await repl.resume((Answer(kind="stop", text="enough"),)), Paused)
            assert await saves(repl).snapshot() is None
            done = await repl.resume((Answer(kind="text", text="A"),))
            assert isinstance(done, CodeResult)
            return done

        assert self.session(scenario).stdout == "A\n"

    def test_awaited_calls_of_many_kinds_go_on_where_they_were(self) -> None:
        code = (
            "import asyncio\n"
            "early = asyncio.create_task(llm_query('early'))\n"
            "x = llm_query('plain')\n"
            "print(await asyncio.gather(\n"
            "    llm_batch(('a', 'b'), dedupe=False), ask_chunks('Q', ctx, chunk_size=100),\n"
            "    ask_chunks('Q', [(0, 2, 'hi')], parallel=False),\n"
            "    llm_query_json('{\"a\": [1]}', max_tokens=9), budget(),\n"
            "    ask_chunks_first('Q', ['x', 'y']), llm_query(None), llm_query(),\n"
            "    return_exceptions=True,\n"
            "))\n"
            "result = [x, await early]"
        )
        pauses, (done,), _ = self.same(code, answerer=lambda prompt: prompt or "{}")
        assert done.error is None
        assert len(pauses) == 4
        assert "TypeError" in done.stdout

    def test_what_a_function_said_is_not_said_again(self) -> None:
        code = (
            "import asyncio\nr = await asyncio.gather(map_chunks('Q?', ['a', 'b']), llm_query('x'))"
        )
        _, (done,), _ = self.same(code + "\nprint(map_chunks('Q?', ['c']))", answerer=says)
        assert done.error is None
        assert done.stdout.count("map_chunks: ") == 2

    def test_an_awaited_call_that_failed_is_told_by_its_right_name(self) -> None:
        code = "import asyncio\nawait asyncio.gather(llm_query('ok'), llm_query('bad'))"
        _, (result,), _ = self.same(code, answerer=bad_fails)
        assert result.error is not None
        assert result.error.kind == "SubcallError"

    def test_the_library_that_cells_asked_for_is_carried_over(self) -> None:
        _, results, _ = self.same(
            "import heapq, statistics\ndef best(xs):\n    return heapq.nlargest(2, xs)",
            "print(best([1, 3, 2]), statistics.mean([1, 3]), callable(best))",
            "import heapq\nfound = {'a': 1, 'b': 2}\ndel found['a']\n"
            "print(heapq.nsmallest(1, [2, 1]), found, max(found, key=found.get))",
        )
        assert [result.error for result in results] == [None] * 3
        assert results[1].stdout == "[3, 2] 2 True\n"

    def test_names_that_code_took_are_still_its_own(self) -> None:
        _, results, _ = self.same(
            "def sorted(xs, key=None):\n    return 'mine'\nasync def llm(p):\n    return p\n"
            "done = 3\nasks = llm_query",
            "print(sorted([1], key=lambda x: asks('p')), await llm('q'), done)",
            "print('done' in globals(), done, sorted([2]))",
        )
        assert results[1].stdout == "mine q 3\n"
        assert results[2].stdout == "True 3 mine\n"

    def test_lines_that_were_put_into_a_cell_are_still_not_counted(self) -> None:
        define = "def ones(n):\n    for x in range(n):\n        yield x\n\ndef bad():\n    1 / 0"
        _, (_, result), _ = self.same(define, "bad()")
        assert result.error is not None
        assert '"<cell 1>", line 6, in bad\n    1 / 0' in result.error.traceback

    def test_the_context_can_be_passed_to_functions(self) -> None:
        code = "result = ask_chunks('Q', ctx)\nprint(len(ask_chunks('Q', chunks=ctx)))"
        _, results, _ = self.same("seen = [ctx]", code, code.replace("ctx", "seen[0]"))
        assert [result.stdout for result in results[1:]] == ["1\n", "1\n"]

    def test_a_function_of_the_runtime_that_code_keeps_is_carried_over(self) -> None:
        _, _, read = self.same("asks = llm_query", "result = asks('kept')")
        assert read.text == "KEPT"

    def test_output_beyond_the_limit_is_counted_across_a_snapshot(self) -> None:
        code = "print('x' * 50)\nresult = llm_query('q')\nprint('y' * 100)"
        _, (result,), _ = self.same(code, output_chars=60)
        assert result.stdout == "x" * 50 + "\n" + "y" * 9
        assert result.stdout_chars == 152

    def test_errors_name_the_lines_of_cells_from_before(self) -> None:
        _, results, _ = self.same(
            "def f(n):\n    return 1 // n", "x = llm_query('q')\nf(0)", "f(0)"
        )
        for result in results[1:]:
            assert result.error is not None
            assert '"<cell 1>", line 2, in f' in result.error.traceback
        assert results[2].error is not None
        assert '"<cell 3>", line 1' in results[2].error.traceback

    def test_names_of_the_runtime_that_code_bound_are_put_back(self) -> None:
        _, results, _ = self.same("P = llm_query('mine')\nprint(P)", "print(P[:7])")
        assert [result.stdout for result in results] == ["MINE\n", "The key\n"]

    def test_a_failed_subcall_is_told_by_its_right_name(self) -> None:
        code = "a = llm_query('ok')\nllm_query('bad')"
        _, (result, _), _ = self.same(code, "1", answerer=bad_fails)
        assert result.error is not None
        assert result.error.kind == "SubcallError"

    def test_what_an_empty_session_was_can_be_had_again(self) -> None:
        _, results, _ = self.same("", "print('on')")
        assert results[1].stdout == "on\n"

    # What a snapshot is not

    def test_a_session_goes_on_after_a_snapshot(self) -> None:
        async def scenario(repl: Repl) -> str:
            step = await repl.start("x = llm_query('a')\nprint(x)")
            assert isinstance(step, Paused)
            for _ in range(3):
                assert await saves(repl).snapshot()
            done = await repl.resume(answers_to(step.calls, upper))
            assert isinstance(done, CodeResult)
            return done.stdout

        assert self.session(scenario) == "A\n"

    def test_one_snapshot_gives_as_many_sessions_as_wanted(self) -> None:
        async def scenario(repl: Repl) -> list[str | None]:
            await repl.start("result = llm_query('a')")
            data = await saves(repl).snapshot()
            assert data is not None
            read: list[str | None] = []
            for answer in ("one", "two"):
                other = await self.make(HAYSTACK)
                paused = await saves(other).restore(data)
                assert isinstance(paused, Paused)
                await other.resume(answers_to(paused.calls, lambda _, text=answer: text))
                read.append((await other.read("result")).text)
                await other.close()
            return read

        assert self.session(scenario) == ["one", "two"]

    def test_a_damaged_snapshot_is_refused_and_leaves_a_new_session(self) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.start("x = 1\ny = llm_query('a')")
            data = await saves(repl).snapshot()
            assert data is not None
            middle = len(data) // 2
            for damaged in (
                b"",
                data[:middle],
                data[:-1],
                data + b"x",
                data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                b"x" + data[1:],
            ):
                other = await self.make(HAYSTACK)
                await other.open()
                with pytest.raises(SnapshotRefused):
                    await saves(other).restore(damaged)
                with pytest.raises(UsageError):
                    await other.resume(answers_to((), upper))
                assert isinstance(await other.start("print('x' in locals())"), CodeResult)
                assert (await other.read("x")).text is None
                await other.close()

        self.session(scenario)

    @pytest.mark.parametrize(
        "changed",
        [
            {"cell_timeout_s": 9.0},
            {"memory_bytes": 1 << 29},
            {"output_chars": 9},
            {"parallel_subcalls": True},
            {"max_value_chars": 9},
            {"source": "another text"},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_a_snapshot_from_under_other_settings_is_refused(self, changed: dict[str, Any]) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.start("x = 1")
            data = await saves(repl).snapshot()
            assert data is not None
            other = await self.make(**{"source": HAYSTACK, **changed})
            with pytest.raises(SnapshotRefused, match="it was made by"):
                await saves(other).restore(data)
            await other.close()

        self.session(scenario)

    def test_a_session_that_was_not_begun_has_nothing_to_write_down(self) -> None:
        async def scenario(repl: Repl) -> bytes | None:
            return await saves(repl).snapshot()

        assert self.session(scenario) is None


def saves(repl: Repl) -> SavesSessions:
    """The session, as one that can be written down."""
    assert isinstance(repl, SavesSessions)
    return repl
