"""The part of a backend's contract that other protocols need: their names, final answers given by
code, and what is told of variables. Model-written code stays within what every backend understands.
"""

import json

import pytest
from repl_driving import Driving, answer_all, bad_fails

from effects.repls.base import Repl
from rlm_fsm.values import CodeResult, GivenFinal, Message, Variable

TALK = (Message("system", "Be brief."), Message("user", "What?"))

SUBMITS = "async def go(p):\n    SUBMIT(await llm_query(p))\n"
WITHIN_ASYNC = {
    "at the top": "SUBMIT(await llm_query('a'))",
    "an async function": SUBMITS + "await go('a')",
    "asyncio.run": SUBMITS + "asyncio.run(go('a'))",
    "a gather": SUBMITS + "await asyncio.gather(go('a'), llm_query('b'))",
    "a gather that returns exceptions": (
        SUBMITS + "print(await asyncio.gather(go('a'), llm_query('b'), return_exceptions=True))"
    ),
    "a task": SUBMITS + "task = asyncio.create_task(go('a'))\nprint(await task)",
    "what completes first": (
        SUBMITS + "for task in asyncio.as_completed([go('a'), go('b')]):\n    print(await task)"
    ),
    "an except": SUBMITS + "try:\n    await go('a')\nexcept Exception:\n    print('caught')",
}


class FinalsContract(Driving):
    """Part of `ReplContract`."""

    def final(self, *codes: str, **options: object) -> GivenFinal | None:
        """The final answer that the last of the cells gave; none of them may fail."""
        results = self.cells(*codes, **options)
        for result in results:
            assert result.error is None, result.error
        return results[-1].final

    # Final answers

    @pytest.mark.parametrize("form", ["SUBMIT", "FINAL", "FINAL_VAR", "done"])
    def test_a_call_gives_the_answer_and_ends_the_cell(self, form: str) -> None:
        first, second = self.cells(f"print(1)\n{form}(41 + 1)\nprint(2)", "print(3)")
        assert (first.stdout, first.error) == ("1\n", None)
        assert first.final == GivenFinal(form=form, text="42", kind="int", data="42")
        assert (second.stdout, second.final) == ("3\n", None)

    def test_a_call_is_no_exception_that_code_catches(self) -> None:
        code = "try:\n    FINAL('yes')\nexcept Exception:\n    print('caught')\nprint('on')"
        (result,) = self.cells(code)
        assert (result.stdout, result.error) == ("", None)
        assert result.final == GivenFinal(form="FINAL", text="yes")

    def test_an_answer_counts_also_when_a_bare_except_swallows_its_signal(self) -> None:
        assert self.final("try:\n    done('yes')\nexcept:\n    pass\nx = 1") == GivenFinal(
            form="done", text="yes"
        )

    def test_the_first_answer_of_a_cell_counts(self) -> None:
        final = self.final("try:\n    FINAL(1)\nexcept:\n    FINAL(2)")
        assert final is not None
        assert final.text == "1"

    def test_an_answer_can_be_given_within_functions(self) -> None:
        final = self.final("def finish(x):\n    SUBMIT(x)", "def go():\n    finish('deep')\ngo()")
        assert final == GivenFinal(form="SUBMIT", text="deep")

    @pytest.mark.parametrize("code", WITHIN_ASYNC.values(), ids=WITHIN_ASYNC)
    def test_an_answer_given_in_code_that_awaits_ends_the_cell(self, code: str) -> None:
        (result,) = self.cells(f"import asyncio\n{code}\nprint('on')")
        assert (result.stdout, result.error) == ("", None)
        assert result.final == GivenFinal(form="SUBMIT", text="A")

    def test_named_fields_are_a_dict_and_a_single_one_is_its_text(self) -> None:
        one = self.final("SUBMIT(answer='teal')")
        two = self.final("SUBMIT(b=[1, None], a='x')")
        assert one == GivenFinal(form="SUBMIT", text="teal", kind="dict", data='{"answer":"teal"}')
        assert two is not None
        assert (two.text, two.kind) == ("{'b': [1, None], 'a': 'x'}", "dict")
        assert two.data == '{"a":"x","b":[1,null]}'

    def test_several_values_are_a_tuple(self) -> None:
        final = self.final("SUBMIT(1, 'a')")
        assert final == GivenFinal(form="SUBMIT", text="(1, 'a')", kind="tuple", data='[1,"a"]')

    @pytest.mark.parametrize("value", ["{1}", "{1: 'a'}", "float('nan')", "b'x'", "1j"])
    def test_what_json_cannot_say_has_a_text_only(self, value: str) -> None:
        if value == "1j" and self.subcall_error != "SubcallError":
            pytest.skip("this backend has no complex numbers")
        final = self.final(f"FINAL({value})")
        assert final is not None
        assert final.data is None
        assert final.text

    def test_data_is_json_that_gives_the_value_back(self) -> None:
        final = self.final("FINAL({'b': [1, 2.5, True, None, {'é': 'ü'}], 'a': ''})")
        assert final is not None
        assert final.data is not None
        assert json.loads(final.data) == {"b": [1, 2.5, True, None, {"é": "ü"}], "a": ""}

    @pytest.mark.parametrize("call", ["SUBMIT()", "FINAL()", "done()", "FINAL(x=1)", "FINAL_VAR()"])
    def test_a_call_without_an_answer_is_a_type_error_that_says_so(self, call: str) -> None:
        (result,) = self.cells(call)
        assert result.final is None
        assert result.error is not None
        assert result.error.kind == "TypeError"
        assert "takes the answer" in result.error.message

    def test_an_answer_that_is_too_long_is_an_error(self) -> None:
        (result,) = self.cells("FINAL('x' * 101)", max_value_chars=100)
        assert result.final is None
        assert result.error is not None
        assert "101" in result.error.message

    def test_an_answer_of_a_cell_that_raised_comes_with_its_error(self) -> None:
        code = "try:\n    FINAL('early')\nfinally:\n    1 / 0"
        for given in (code, "answer['content'] = 'early'\nanswer['ready'] = True\n1 / 0"):
            (result,) = self.cells(given)
            assert result.error is not None
            assert result.error.kind == "ZeroDivisionError"
            assert result.final is not None
            assert result.final.text == "early"

    # FINAL_VAR

    def test_final_var_takes_the_name_of_a_variable(self) -> None:
        final = self.final("total = [1, 2]", "FINAL_VAR('total')")
        assert final == GivenFinal(form="FINAL_VAR", text="[1, 2]", kind="list", data="[1,2]")

    def test_final_var_takes_a_value_too(self) -> None:
        for code in (
            "FINAL_VAR(['a'])",
            "FINAL_VAR('it is so')",
            "city = 'Paris'\nFINAL_VAR(city)",
        ):
            assert self.final(code) is not None
        final = self.final("city = 'Paris'\nFINAL_VAR(city)")
        assert final == GivenFinal(form="FINAL_VAR", text="Paris")

    def test_final_var_of_a_missing_variable_is_an_error_that_names_those_there_are(self) -> None:
        (result,) = self.cells("total = 1\nFINAL_VAR('totl')")
        assert result.final is None
        assert result.error is not None
        assert result.error.kind == "NameError"
        for word in ("totl", "total"):
            assert word in result.error.message
        assert "llm_query" not in result.error.message

    def test_final_var_of_what_python_itself_brings_is_an_error(self) -> None:
        for name in ("sum", "print", "__name__"):
            (result,) = self.cells(f"total = 1\nFINAL_VAR({name!r})")
            assert result.final is None
            assert result.error is not None
            assert result.error.kind == "NameError"

    def test_final_var_of_answer_is_its_content_once_it_has_one(self) -> None:
        for code in ("answer['content'] = [1]", "answer = {'content': [1], 'ready': False}"):
            final = self.final(code, "FINAL_VAR('answer')")
            assert final == GivenFinal(form="FINAL_VAR", text="[1]", kind="list", data="[1]")
        assert self.final("answer = 'mine'", "FINAL_VAR('answer')") == GivenFinal(
            form="FINAL_VAR", text="mine"
        )
        (empty,) = self.cells("FINAL_VAR('answer')")
        assert empty.final is None
        assert empty.error is not None
        assert empty.error.kind == "NameError"

    # The dict `answer`

    def test_the_answer_is_given_once_it_is_ready(self) -> None:
        first, second, third = self.cells(
            "answer['content'] = 'draft'",
            "answer['content'] += '!'\nanswer['ready'] = True",
            "x = 1",
        )
        assert (first.final, third.final) == (None, None)
        assert second.final == GivenFinal(form="answer", text="draft!")

    def test_the_answer_may_be_replaced_by_a_dict(self) -> None:
        final = self.final("answer = {'content': [1], 'ready': True}")
        assert final == GivenFinal(form="answer", text="[1]", kind="list", data="[1]")

    def test_a_function_of_an_earlier_cell_may_fill_the_answer(self) -> None:
        define = "def finish(x):\n    answer['content'] = x\n    answer['ready'] = True"
        assert self.final(define, "finish('ok')") == GivenFinal(form="answer", text="ok")

    def test_answer_bound_to_something_else_is_the_codes_own_variable(self) -> None:
        results = self.cells("answer = 'mine'", "print(answer)", watch=("answer",))
        assert [r.final for r in results] == [None, None]
        assert results[1].stdout == "mine\n"
        assert dict(results[1].watched) == {"answer": "mine"}
        assert self.read("answer = 'mine'", "answer").text == "mine"

    def test_the_dict_of_the_protocol_is_no_watched_variable(self) -> None:
        (result,) = self.cells("answer['content'] = 'x'", watch=("answer",))
        assert dict(result.watched) == {}

    def test_reading_answer_gives_the_content_of_the_dict(self) -> None:
        assert self.read("answer['content'] = 'x'", "answer").text == "x"
        assert self.read("y = 1", "answer").text is None

    # Names of other protocols

    def test_context_is_the_text_or_the_list_of_documents(self) -> None:
        code = "print(type(context).__name__, len(context), context_0 == context)"
        assert self.output(code, source="héllo") == "str 5 True\n"
        assert self.output(code, source=["one", "zwö"]) == "list 2 True\n"
        assert self.output("print(context[1])", source=["one", "zwö"]) == "zwö\n"

    def test_functions_of_earlier_cells_see_the_context(self) -> None:
        define = "def head(n):\n    return context[:n]"
        assert self.output(define, "print(head(3))") == "The\n"

    def test_history_is_the_conversation_so_far(self) -> None:
        async def scenario(repl: Repl) -> list[CodeResult]:
            repl.remember(TALK[:1])
            first = await answer_all(repl, "print(len(history), history[0]['role'])")
            repl.remember(TALK)
            return [first, await answer_all(repl, "print(history[-1]['content'], len(history))")]

        first, second = self.session(scenario)
        assert (first.stdout, second.stdout) == ("1 system\n", "What? 2\n")

    def test_names_of_other_protocols_come_back_after_each_cell(self) -> None:
        names = ("context", "context_0", "history", "SUBMIT", "FINAL", "FINAL_VAR", "SHOW_VARS")
        spoil = "\n".join(f"{name} = 1" for name in names)

        async def scenario(repl: Repl) -> list[CodeResult]:
            repl.remember(TALK)
            codes = (spoil, "print(context[:3], context_0[:3], len(history))", "FINAL(SHOW_VARS())")
            return [await answer_all(repl, code) for code in codes]

        _, values, functions = self.session(scenario)
        assert (values.error, values.stdout) == (None, "The The 2\n")
        assert functions.final is not None
        assert functions.final.text == "No variables yet."

    def test_done_may_be_a_variable(self) -> None:
        assert self.output("done = False", "print(done)") == "False\n"

    def test_names_of_other_protocols_are_no_variables_of_the_code(self) -> None:
        async def scenario(repl: Repl) -> CodeResult:
            repl.remember(TALK)
            await answer_all(repl, "a = len(context) + len(history)\nb = answer")
            return await answer_all(repl, "print(SHOW_VARS())")

        lines = self.session(scenario).stdout.splitlines()
        assert sorted(lines) == ["a: int", "b: dict"]

    # Subcalls that fail

    def test_a_failed_subcall_is_a_text_where_the_profile_says_so(self) -> None:
        settings = {"subcall_error": "Error: {message}", "batch_error": "[ERROR] {message}"}
        code = "print(llm_query('bad'), rlm_query('bad'), llm_query_batched(['a', 'bad']))"
        out = self.output(code, answerer=bad_fails, **settings)
        assert out == "Error: broken Error: broken ['A', '[ERROR] broken']\n"

    def test_on_error_goes_before_the_profile(self) -> None:
        settings = {"batch_error": "Error: {message}"}
        (result,) = self.cells(
            "llm_batch(['a', 'bad'], on_error='raise')", answerer=bad_fails, **settings
        )
        assert result.error is not None
        out = self.output(
            "print(llm_batch(['bad'], on_error='return'))", answerer=bad_fails, **settings
        )
        assert out == "['Error: broken']\n"

    def test_a_prompt_may_be_passed_by_name(self) -> None:
        assert self.output("print(llm_query(prompt='a'), llm_query(text='b'))") == "A B\n"

    # What is told of variables

    def test_new_and_changed_variables_are_told_in_a_line_each(self) -> None:
        first, second, third = self.cells(
            "n = 3\nxs = [1, 'b']\n_hidden = 1\ndef f():\n    return 1", "xs.append(n)\nn = n", "n"
        )
        assert first.variables == (
            Variable(name="n", summary="int 3", is_new=True),
            Variable(name="xs", summary="list of 2: 1, 'b'", is_new=True),
            Variable(name="f", summary="function", is_new=True),
        )
        assert second.variables == (Variable(name="xs", summary="list of 3: 1, 'b', 3"),)
        assert third.variables == ()

    def test_a_summary_is_short_however_large_the_value_is(self) -> None:
        code = (
            "a = 'x' * 1_000_000\nb = [a] * 100_000\nc = {a: a}\nd = 10 ** 5000\n"
            "e = [[[a]]]\nf = (1.5, None, True, a)"
        )
        (result,) = self.cells(code)
        assert [v.name for v in result.variables] == ["a", "b", "c", "d", "e", "f"]
        assert all(len(v.summary) < 200 for v in result.variables)
        said = {v.name: v.summary for v in result.variables}
        assert said["a"].startswith("str of 1,000,000 characters: 'xxx")
        assert said["b"].startswith("list of 100,000: 'xxx")
        assert said["d"] == "int a large int"
        assert said["f"] == "tuple of 4: 1.5, None, True, ..."

    def test_variables_of_a_cell_that_raised_are_told(self) -> None:
        (result,) = self.cells("n = 1\n1 / 0")
        assert [v.name for v in result.variables] == ["n"]

    def test_too_many_variables_are_counted(self) -> None:
        (result,) = self.cells("\n".join(f"v{i} = {i}" for i in range(25)))
        assert (len(result.variables), result.more_variables) == (20, 5)

    def test_only_names_or_nothing_is_told_where_the_profile_says_so(self) -> None:
        code = "n = 3\ndef f():\n    return 1"
        first, second = self.cells(code, "xs = []", variables="names")
        assert first.variables == (Variable(name="n"),)
        assert second.variables == (Variable(name="n"), Variable(name="xs"))
        (nothing,) = self.cells(code, variables="none")
        assert nothing.variables == ()
