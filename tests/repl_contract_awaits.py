"""The part of the contract of a REPL backend that is about awaiting subcalls."""

import json

import pytest
from repl_contract_combinators import says
from repl_driving import Driving, answer_all, bad_fails

from effects.repls.base import Answer, Paused, Repl
from rlm_fsm.values import CodeResult

TOGETHER = {
    "a list": "r = await asyncio.gather(*[llm_query(p) for p in 'ab'])",
    "a generator": "r = await asyncio.gather(*(llm_query(p) for p in 'ab'))",
    "arguments": "r = await asyncio.gather(llm_query('a'), llm_query('b'))",
    "variables": "x = llm_query('a')\ny = llm_query('b')\nr = await asyncio.gather(x, y)",
    "a list that grows": (
        "ts = []\nfor p in 'ab':\n    ts.append(llm_query(p))\n"
        "print(len(ts), end=' ')\nr = await asyncio.gather(*ts)"
    ),
    "a dict": (
        "ts = {p: llm_query(p) for p in 'ab'}\n"
        "r = list(dict(zip(ts.keys(), await asyncio.gather(*ts.values()))).values())"
    ),
    "map": "r = await asyncio.gather(*map(llm_query, 'ab'))",
    "a lambda": "r = await asyncio.gather(*map(lambda p: llm_query(p), 'ab'))",
    "a helper": (
        "async def one(p):\n    return await llm_query(p)\n"
        "r = await asyncio.gather(*[one(p) for p in 'ab'])"
    ),
    "a method": (
        "class Asker:\n    async def one(self, p):\n        return await llm_query(p)\n"
        "r = await asyncio.gather(*[Asker().one(p) for p in 'ab'])"
    ),
    "tasks": ("ts = [asyncio.create_task(llm_query(p)) for p in 'ab']\nr = [await t for t in ts]"),
    "tasks of a helper": (
        "async def one(p):\n    return await llm_query(p)\n"
        "ts = [asyncio.create_task(one(p)) for p in 'ab']\nr = []\n"
        "for t in ts:\n    r.append(await t)"
    ),
    "a loop over what completes": (
        "r = []\nfor t in asyncio.as_completed([llm_query(p) for p in 'ab']):\n"
        "    r.append(await t)"
    ),
    "a main function": (
        "async def main():\n    return await asyncio.gather(*[llm_query(p) for p in 'ab'])\n"
        "r = asyncio.run(main())"
    ),
    "a timeout": ("r = await asyncio.gather(*[asyncio.wait_for(llm_query(p), 9) for p in 'ab'])"),
    "names that were imported": (
        "from asyncio import gather\nr = await gather(*[llm_query(p) for p in 'ab'])"
    ),
    "an enumeration": (
        "ts = [llm_query(p) for p in 'ab']\nr = []\n"
        "for i, t in enumerate(ts):\n    r.append(await t)"
    ),
    "a semaphore": (
        "limit = asyncio.Semaphore(5)\n"
        "async def one(p):\n    async with limit:\n        return await llm_query(p)\n"
        "r = await asyncio.gather(*[one(p) for p in 'ab'])"
    ),
}


class AwaitsContract(Driving):
    """Subcalls that are awaited."""

    @pytest.mark.parametrize("code", TOGETHER.values(), ids=TOGETHER)
    def test_subcalls_that_are_awaited_together_are_asked_in_one_pause(self, code: str) -> None:
        pauses, result = self.pauses(f"import asyncio\n{code}\nprint(list(r))")
        assert result.error is None, result.error
        assert [[call.prompt for call in pause.calls] for pause in pauses] == [["a", "b"]]
        assert pauses[0].parallel
        assert result.stdout.endswith("['A', 'B']\n")

    def test_a_subcall_can_be_awaited(self) -> None:
        (pause,), result = self.pauses("answer = await llm_query('q')\nprint(answer)")
        assert [call.prompt for call in pause.calls] == ["q"]
        assert result.stdout == "Q\n"

    def test_an_awaited_value_is_echoed(self) -> None:
        assert self.output("await llm_query('q')") == "'Q'\n"

    def test_without_await_a_subcall_is_a_plain_function(self) -> None:
        code = (
            "import asyncio\nx = llm_query('a')\nprint(type(x).__name__, len(x))\n"
            "async def main():\n    return await llm_query('b')\nprint(asyncio.run(main()))"
        )
        pauses, result = self.pauses(code)
        assert [pause.calls[0].prompt for pause in pauses] == ["a", "b"]
        assert result.stdout == "str 1\nB\n"

    @pytest.mark.parametrize(
        ("call", "value"),
        [
            ("llm_batch(['a', 'b'])", "['A', 'B']"),
            ("batch_llm_query(['a', 'b'])", "['A', 'B']"),
            ("llm_query_batched(['a', 'b'])", "['A', 'B']"),
            ("rlm_query('a')", "'A'"),
            ("ask('Q', 't')", "'QUESTION: Q\\nSNIPPET:\\nT'"),
            ("ask_chunks_first('Q', ['x', 'y'])", "None"),
            ("llm_query_json('[1]')", "[1]"),
            ("llm_batch_json(['{}', '2'])", "[{}, 2]"),
            ("llm_query_records('{}')", "[{}]"),
            ("llm_batch_records(['[{}]', '{}'])", "[[{}], [{}]]"),
        ],
    )
    def test_every_function_that_asks_can_be_awaited(self, call: str, value: str) -> None:
        assert self.output(f"print(repr(await {call}))") == f"{value}\n"

    def test_the_budget_can_be_awaited_among_subcalls(self) -> None:
        code = (
            "import asyncio\nprint((await budget())['steps'])\n"
            "r = await asyncio.gather(llm_query('x'), budget(), llm_query_json('[2]'))\nprint(r)"
        )
        pauses, result = self.pauses(code, answerer=lambda prompt: prompt or '{"steps": 3}')
        assert [[call.kind for call in pause.calls] for pause in pauses] == [
            ["budget"],
            ["subcall", "budget", "subcall"],
        ]
        assert result.stdout == "3\n['x', {'steps': 3}, [2]]\n"

    def test_a_function_that_says_how_much_it_asks_can_be_awaited(self) -> None:
        code = (
            "import asyncio\nprint(await map_chunks('Q?', ['a', 'b']))\n"
            "print(await asyncio.gather(map_chunks('Q?', ['c', 'd']), llm_query('x')))"
        )
        pauses, result = self.pauses(code, says)
        assert [[call.kind for call in pause.calls] for pause in pauses] == [
            ["forecast"],
            ["subcall"] * 2,
            ["forecast", "subcall"],
            ["subcall"] * 2,
        ]
        line = "map_chunks: 2 subcalls, about 1,200 tokens, $0.5000\n"
        assert result.stdout == f"{line}['A', 'B']\n{line}[['C', 'D'], 'X']\n"

    def test_data_of_a_schema_can_be_awaited(self) -> None:
        code = "print(await llm_query('3', schema=int), await llm_batch(['[]'], schema=list))"
        assert self.output(code, answerer=str) == "3 [[]]\n"

    def test_what_code_binds_to_the_name_of_a_function_is_its_own(self) -> None:
        code = "async def budget(n):\n    return n + 1\nprint(await budget(1))"
        assert self.output(code, "print(await budget(2))") == "3\n"

    def test_calls_of_different_functions_go_into_one_pause(self) -> None:
        code = (
            "import asyncio\nr = await asyncio.gather(llm_query('x'), llm_batch(['a', 'b']), "
            "rlm_query('y'))\nprint(r)"
        )
        (pause,), result = self.pauses(code)
        assert [call.prompt for call in pause.calls] == ["x", "a", "b", "y"]
        assert result.stdout == "['X', ['A', 'B'], 'Y']\n"

    def test_calls_in_a_row_keep_a_pause_of_their_own(self) -> None:
        code = (
            "import asyncio\n"
            "r = await asyncio.gather(ask_chunks('Q', ['1', '2'], parallel=False), llm_query('x'))"
        )
        pauses, _ = self.pauses(code)
        assert [pause.parallel for pause in pauses] == [False, False]
        assert [len(pause.calls) for pause in pauses] == [1, 2]

    def test_equal_prompts_of_separate_calls_are_each_asked(self) -> None:
        code = "import asyncio\nr = await asyncio.gather(*[llm_query('same') for _ in range(3)])"
        (pause,), _ = self.pauses(code)
        assert [call.dedupe for call in pause.calls] == [False, False, False]
        assert not any(call.is_sample for call in pause.calls)

    def test_each_round_of_tasks_is_one_pause(self) -> None:
        code = (
            "import asyncio\nasync def chain(p):\n    first = await llm_query(p)\n"
            "    return await llm_query(first + '!')\n"
            "print(await asyncio.gather(*[chain(p) for p in 'abc']))"
        )
        pauses, result = self.pauses(code)
        assert [[call.prompt for call in pause.calls] for pause in pauses] == [
            ["a", "b", "c"],
            ["A!", "B!", "C!"],
        ]
        assert result.stdout == "['A!', 'B!', 'C!']\n"

    def test_a_failure_is_raised_where_it_is_awaited(self) -> None:
        code = (
            "import asyncio\ntry:\n    await asyncio.gather(llm_query('good'), llm_query('bad'))\n"
            f"except {self.subcall_error} as e:\n    print('caught', e)\n"
            "print(await llm_query('on'))"
        )
        assert self.output(code, answerer=bad_fails) == "caught broken\nON\n"

    def test_failures_can_be_returned(self) -> None:
        code = (
            "import asyncio\n"
            "r = await asyncio.gather(llm_query('a'), llm_query('bad'), return_exceptions=True)\n"
            "print(r[0], isinstance(r[1], RuntimeError), r[1])"
        )
        assert self.output(code, answerer=bad_fails) == "A True broken\n"

    def test_an_error_that_nobody_catches_ends_the_cell_at_its_line(self) -> None:
        code = "import asyncio\nasync def f():\n    return 1 / 0\nawait asyncio.gather(f())"
        (result,) = self.cells(code)
        assert result.error is not None
        assert result.error.kind == "ZeroDivisionError"
        assert "line 3, in f\n    return 1 / 0" in result.error.traceback

    def test_awaiting_what_is_a_text_already_gives_the_text(self) -> None:
        code = "def helper(p):\n    return llm_query(p)\nprint(await helper('a'))"
        assert self.output(code) == "A\n"
        for data in ("{}", "[1]", "2", "2.5", "true", "null"):
            asks = f"def helper():\n    return llm_query_json({data!r})\nprint(await helper())"
            assert self.output(asks, answerer=str) == f"{json.loads(data)}\n"
        assert self.output("task = llm_query('a')", "print(await task)") == "A\n"

    def test_a_function_of_an_earlier_cell_can_be_awaited(self) -> None:
        define = "async def one(p):\n    return await llm_query(p)"
        gather = "import asyncio\nprint(await asyncio.gather(one('a'), one('b')))"

        async def scenario(repl: Repl) -> Paused | CodeResult:
            await answer_all(repl, define)
            return await repl.start(gather)

        pause = self.session(scenario)
        assert isinstance(pause, Paused)
        assert [call.prompt for call in pause.calls] == ["a", "b"]

    def test_a_cell_that_stopped_in_a_gather_asks_the_same_when_it_is_run_again(self) -> None:
        code = (
            "import asyncio\nasync def two(p):\n    x = await llm_query(p)\n"
            "    return await llm_query(x + '2')\n"
            "ts = [asyncio.create_task(two(p)) for p in 'cab']\n"
            "r = []\nfor t in asyncio.as_completed(ts):\n    r.append(await t)\nprint(r)"
        )
        first, second = (self.pauses(code) for _ in range(2))
        assert [p.calls for p in first[0]] == [p.calls for p in second[0]]
        assert first[1].stdout == second[1].stdout

    def test_a_failed_cell_leaves_nothing_to_ask_to_the_next_one(self) -> None:
        code = (
            "import asyncio\nasync def f():\n    1 / 0\nawait asyncio.gather(f(), llm_query('x'))"
        )
        asked: list[str] = []

        def answerer(prompt: str) -> str:
            asked.append(prompt)
            return prompt.upper()

        failing, after = self.cells(code, "print(await llm_query('y'))", answerer=answerer)
        assert failing.error is not None
        assert (asked, after.stdout) == (["y"], "Y\n")

    def test_sleeping_takes_no_time(self) -> None:
        code = "import asyncio\nawait asyncio.sleep(3600)\nprint('rested')"
        assert self.output(code, cell_timeout_s=5.0) == "rested\n"

    def test_a_loop_that_awaits_without_end_is_stopped_at_the_limit(self) -> None:
        code = "import asyncio\nwhile True:\n    await asyncio.sleep(0)"
        stopped, after = self.cells(code, "print('on')", cell_timeout_s=0.3)
        assert stopped.error is not None
        assert stopped.error.kind == "CellTimeout"
        assert after.stdout == "on\n"

    def test_a_limit_reaches_the_code_that_awaits(self) -> None:
        code = (
            "import asyncio\ntry:\n    await asyncio.gather(llm_query('a'), llm_query('b'))\n"
            f"except {self.subcall_limit_error}:\n    print('limited')"
        )
        limit = Answer(kind="limit", text="no more")
        assert self.output(code, answerer=lambda _: limit) == "limited\n"

    def test_closing_in_the_middle_of_a_gather_ends_the_session(self) -> None:
        async def scenario(repl: Repl) -> Paused | CodeResult:
            return await repl.start("import asyncio\nawait asyncio.gather(llm_query('a'))")

        assert isinstance(self.session(scenario), Paused)
