"""The part of the contract of a REPL backend that is about tools."""

import json
from typing import Any

import pytest
from repl_driving import Driving, answer_all, answers_to

from effects.repls.base import Answer, Paused, Repl
from effects.tools import tool


def weather(city: str, days: int = 3, *, unit: str = "C") -> str:
    """The weather of a city."""
    raise NotImplementedError(city, days, unit)


def total(*numbers: float, **options: bool) -> float:
    """The sum."""
    raise NotImplementedError(numbers, options)


def head(text: str, /, n: int) -> str:
    """The first characters."""
    raise NotImplementedError(text, n)


SPECS = tuple(tool(fn, max_chars=2_000).spec for fn in (weather, total, head))


def echo(prompt: str) -> str:
    """Answers a call with its arguments."""
    return prompt


def denied(_: str) -> Answer:
    return Answer(kind="denied", text="not now")


class ToolsContract(Driving):
    """Functions of the caller's program, called by code."""

    def echoed(self, code: str) -> str:
        """What a cell prints whose tools return their arguments."""
        return self.output(code, answerer=echo, tools=SPECS)

    def test_a_call_of_a_tool_pauses_with_its_name_and_its_arguments(self) -> None:
        code = "print(weather('Rome', unit='F'))"
        (pause,), result = self.pauses(code, answerer=lambda _: '"sun"', tools=SPECS)
        (call,) = pause.calls
        assert (call.kind, call.fn, call.dedupe) == ("tool", "weather", False)
        assert json.loads(call.prompt) == {"city": "Rome", "unit": "F"}
        assert result.stdout == "sun\n"

    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            0,
            -1.5,
            'text \N{SAILBOAT} "quoted" \\ {}',
            [],
            [1, [2, {"a": None}]],
            {"a": {"b": [True, False]}, "": 1},
            10**30,
        ],
        ids=repr,
    )
    def test_plain_data_goes_there_and_back(self, value: Any) -> None:
        code = f"v = {value!r}\nr = total(v)\nprint(r == {{'numbers': [v]}}, type(r['numbers'][0]))"
        assert self.echoed(code) == f"True {type(value)}\n"

    def test_arguments_are_bound_as_python_does(self) -> None:
        assert self.echoed("print(total(1, 2, fast=True))") == (
            "{'numbers': [1, 2], 'options': {'fast': True}}\n"
        )
        assert self.echoed("print(total())") == "{}\n"
        assert self.echoed("print(head('abc', n=2))") == "{'text': 'abc', 'n': 2}\n"
        assert self.echoed("print(weather(days=1, city=('a', 'b')))") == (
            "{'city': ['a', 'b'], 'days': 1}\n"
        )

    @pytest.mark.parametrize(
        ("call", "kind", "message"),
        [
            ("weather()", "TypeError", "weather() missing 1 required argument: 'city'"),
            ("head()", "TypeError", "head() missing 2 required arguments: 'text' and 'n'"),
            ("weather('a', 1, 2)", "TypeError", "takes 2 positional arguments but 3 were given"),
            ("weather('a', town='b')", "TypeError", "unexpected keyword argument 'town'"),
            ("weather('a', city='b')", "TypeError", "multiple values for argument 'city'"),
            ("head(text='a', n=1)", "TypeError", "unexpected keyword argument 'text'"),
            ("weather({1, 2})", "TypeError", "weather(): city is of type set"),
            ("weather(['a', b'b'])", "TypeError", "weather(): city[1] is of type bytes"),
            ("weather({'a': {1: 2}})", "TypeError", "city['a'] has a key of type int"),
            ("weather(float('nan'))", "ValueError", "city is nan, which JSON can't say"),
            ("weather('x' * 3000)", "ValueError", "more than the 2,000 allowed"),
        ],
    )
    def test_what_a_tool_cannot_take_is_an_error_and_nothing_is_asked(
        self, call: str, kind: str, message: str
    ) -> None:
        pauses, result = self.pauses(call, tools=SPECS)
        assert pauses == []
        assert result.error is not None
        assert result.error.kind == kind
        assert message in result.error.message

    def test_a_failed_call_raises_an_error_that_names_the_tool(self) -> None:
        (result,) = self.cells(
            "weather('Rome')",
            answerer=lambda _: Answer(kind="error", text="KeyError: 'Rome'"),
            tools=SPECS,
        )
        assert result.error is not None
        assert result.error.kind == "ToolError"
        assert result.error.message == "weather failed: KeyError: 'Rome'"

    def test_a_refused_call_raises_an_error_of_its_own(self) -> None:
        (result,) = self.cells("weather('Rome')", answerer=denied, tools=SPECS)
        assert result.error is not None
        assert result.error.kind == "ToolDenied"
        assert result.error.message == "weather was refused: not now"

    def test_errors_of_tools_can_be_caught(self) -> None:
        code = (
            "for kind in (ToolDenied, ToolError, RuntimeError):\n"
            "    try:\n        weather('Rome')\n"
            "    except kind as error:\n        print('not now' in str(error))\n"
        )
        assert self.output(code, answerer=denied, tools=SPECS) == "True\n" * 3

    def test_a_failure_is_not_taken_for_a_refusal(self) -> None:
        code = (
            "try:\n    weather('Rome')\nexcept ToolDenied:\n    print('denied')\n"
            "except ToolError:\n    print('failed')"
        )
        broken = Answer(kind="error", text="down")
        assert self.output(code, answerer=lambda _: broken, tools=SPECS) == "failed\n"

    def test_calls_that_are_awaited_together_are_asked_together(self) -> None:
        code = (
            "import asyncio\n"
            "r = await asyncio.gather(weather('a'), llm_query('q'), *[weather(c) for c in 'bb'])\n"
            "print(r)"
        )
        (pause,), result = self.pauses(code, answerer=_by_kind, tools=SPECS)
        assert [call.fn for call in pause.calls] == ["weather", "llm_query", "weather", "weather"]
        assert [call.dedupe for call in pause.calls][2:] == [False, False]
        assert result.stdout == "['a', 'Q', 'b', 'b']\n"

    def test_a_tool_is_a_function_that_code_may_pass_around_and_not_lose(self) -> None:
        first, second = self.cells(
            "def twice(f, x):\n    return [f(x), f(x)]\nprint(twice(weather, 'a'))\nweather = 1",
            "print(weather('b'))",
            answerer=_by_kind,
            tools=SPECS,
        )
        assert first.stdout == "['a', 'a']\n"
        assert second.stdout == "b\n"

    def test_tools_are_no_variables_of_the_code(self) -> None:
        assert self.output("x = 1\nprint(SHOW_VARS())", tools=SPECS) == "x: int\n"

    def test_a_large_result_comes_back_whole(self) -> None:
        code = "r = weather('a')\nprint(len(r), r[0], r[-1])"
        result = json.dumps(list(range(50_000)))
        assert self.output(code, answerer=lambda _: result, tools=SPECS) == "50000 0 49999\n"

    def test_a_paused_call_can_be_closed(self) -> None:
        async def scenario(repl: Repl) -> None:
            step = await repl.start("weather('Rome')")
            assert isinstance(step, Paused)

        self.session(scenario, tools=SPECS)

    def test_another_cell_works_after_a_tool_has_answered(self) -> None:
        async def scenario(repl: Repl) -> str:
            step = await repl.start("w = weather('Rome')")
            assert isinstance(step, Paused)
            await repl.resume(answers_to(step.calls, _by_kind))
            return (await answer_all(repl, "print(w)")).stdout

        assert self.session(scenario, tools=SPECS) == "Rome\n"


def _by_kind(prompt: str) -> str:
    """The city of a call of `weather`; any other prompt in capitals."""
    if prompt.startswith("{"):
        return json.dumps(json.loads(prompt)["city"])
    return prompt.upper()
