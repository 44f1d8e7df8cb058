"""The part of the contract of a REPL backend that is about questions, and about the context."""

import pytest
from repl_driving import HAYSTACK, Driving, answers_to, bad_fails, failed, upper

from effects.repls.base import Answer, Paused, Repl
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeResult

PAGES = "front<!-- Page 1 -->one<!-- Page 2 -->two"


class CallsContract(Driving):
    """Host calls, the context, and the functions over chunks."""

    # Pauses

    def test_a_subcall_pauses_with_its_prompt(self) -> None:
        (pause,), result = self.pauses("print(llm_query('hello'))")
        (call,) = pause.calls
        assert (call.fn, call.prompt) == ("llm_query", "hello")
        assert (call.model, call.max_tokens, call.recursive) == (None, None, None)
        assert result.stdout == "HELLO\n"

    def test_a_subcall_carries_its_options(self) -> None:
        (pause,), _ = self.pauses("llm_query('q', model='small', max_tokens=7)")
        assert (pause.calls[0].model, pause.calls[0].max_tokens) == ("small", 7)

    @pytest.mark.parametrize(
        "call",
        [
            "llm_query({'a': 'x'}.values())",
            "llm_query(lambda: 1)",
            "llm_query(range(3))",
            "llm_query(iter(['x']))",
            "ask('what?', len)",
            "llm_batch([{'a': 'x'}.keys()])",
            "import re\nllm_query(re.match('x', 'x'))",
            "def f(p):\n    return llm_query(\n        prompt=p)\nf(int)",
            "peek(range(3))",
            "extract_after(slice(1))",
        ],
    )
    def test_what_is_no_text_is_a_type_error_and_nothing_is_asked(self, call: str) -> None:
        """The sandbox of `monty` would hand over its `repr`."""
        pauses, result = self.pauses(call)
        assert pauses == []
        assert result.error is not None
        assert result.error.kind == "TypeError"

    @pytest.mark.parametrize(
        ("texts", "asked"),
        [
            ("{'a': 'x', 'b': 'y'}.values()", ["x", "y"]),
            ("{'x': 1, 'y': 2}.keys()", ["x", "y"]),
            ("str(n) for n in range(2)", ["0", "1"]),
            ("(str(n) for n in range(2))", ["0", "1"]),
            ("iter(['x', 'y'])", ["x", "y"]),
            ("map(str, range(2))", ["0", "1"]),
            ("reversed(['x', 'y'])", ["y", "x"]),
        ],
    )
    def test_a_batch_takes_any_iterable_of_texts(self, texts: str, asked: list[str]) -> None:
        (pause,), result = self.pauses(f"print(llm_batch({texts}))")
        assert [call.prompt for call in pause.calls] == asked
        assert result.stdout == f"{[text.upper() for text in asked]}\n"

    def test_a_recursive_subcall_says_so(self) -> None:
        (pause,), result = self.pauses("print(rlm_query('dig'))")
        assert pause.calls[0].recursive is True
        assert result.stdout == "DIG\n"

    def test_a_loop_pauses_each_time_round(self) -> None:
        code = "out = []\nfor c in 'abc':\n    out.append(llm_query(c))\nprint(out)"
        pauses, result = self.pauses(code)
        assert [p.calls[0].prompt for p in pauses] == ["a", "b", "c"]
        assert result.stdout == "['A', 'B', 'C']\n"

    def test_a_comprehension_pauses_each_time_round(self) -> None:
        pauses, result = self.pauses("print([llm_query(c) for c in 'ab'])")
        assert len(pauses) == 2
        assert result.stdout == "['A', 'B']\n"

    def test_a_function_pauses_and_goes_on(self) -> None:
        code = (
            "def twice(text):\n"
            "    first = llm_query(text)\n"
            "    return first + llm_query(first + '!')\n"
            "print(twice('a'))"
        )
        pauses, result = self.pauses(code)
        assert [p.calls[0].prompt for p in pauses] == ["a", "A!"]
        assert result.stdout == "AA!\n"

    def test_a_function_of_an_earlier_cell_pauses_too(self) -> None:
        define = "def shout(text):\n    return llm_query(text)"
        assert self.output(define, "print(shout('x'), shout('y'))") == "X Y\n"

    def test_answers_come_back_in_the_order_of_the_calls(self) -> None:
        code = "print(llm_batch(['c', 'a', 'b']))"
        (pause,), result = self.pauses(code)
        assert [c.prompt for c in pause.calls] == ["c", "a", "b"]
        assert pause.parallel
        assert result.stdout == "['C', 'A', 'B']\n"

    def test_an_empty_batch_asks_nothing(self) -> None:
        pauses, result = self.pauses("print(llm_batch([]))")
        assert pauses == []
        assert result.stdout == "[]\n"

    def test_a_large_batch_comes_back_whole(self) -> None:
        code = "r = llm_batch([f'p{i}' for i in range(1000)])\nprint(len(r), r[0], r[-1])"
        (pause,), result = self.pauses(code)
        assert len(pause.calls) == 1000
        assert result.stdout == "1000 P0 P999\n"

    def test_a_wrong_argument_is_a_type_error_that_asks_nothing(self) -> None:
        pauses, result = self.pauses("llm_query(5)")
        assert pauses == []
        assert result.error is not None
        assert result.error.kind == "TypeError"

    def test_a_wrong_number_of_answers_is_refused(self) -> None:
        async def scenario(repl: Repl) -> CodeResult:
            step = await repl.start("print(llm_batch(['a', 'b']))")
            assert isinstance(step, Paused)
            with pytest.raises(UsageError):
                await repl.resume((Answer(kind="text", text="A"),))
            step = await repl.resume(answers_to(step.calls, upper))
            assert isinstance(step, CodeResult)
            return step

        assert self.session(scenario).stdout == "['A', 'B']\n"

    # Subcalls that fail

    def test_a_failed_subcall_raises(self) -> None:
        (result,) = self.cells("llm_query('q')", answerer=lambda _: failed("no route"))
        assert result.error is not None
        assert "no route" in result.error.message

    def test_a_failed_subcall_can_be_caught(self) -> None:
        code = (
            f"try:\n    llm_query('q')\n"
            f"except {self.subcall_error} as e:\n    print('caught', 'no route' in str(e))"
        )
        assert self.output(code, answerer=lambda _: failed("no route")) == "caught True\n"

    def test_a_subcall_beyond_a_limit_can_be_caught(self) -> None:
        code = (
            f"try:\n    llm_query('q')\n"
            f"except {self.subcall_limit_error} as e:\n"
            f"    print('caught', 'max_subcalls' in str(e))"
        )
        limit = Answer(kind="limit", text="max_subcalls: 201 of 200")
        assert self.output(code, answerer=lambda _: limit) == "caught True\n"

    def test_a_limit_is_caught_as_a_failed_subcall_and_as_a_runtime_error(self) -> None:
        limit = Answer(kind="limit", text="no more")
        for name in (self.subcall_error, "RuntimeError"):
            code = f"try:\n    llm_query('q')\nexcept {name}:\n    print('caught')"
            assert self.output(code, answerer=lambda _: limit) == "caught\n"

    def test_a_batch_with_a_failure_raises_once(self) -> None:
        code = f"try:\n    llm_batch(['a', 'bad', 'c'])\nexcept {self.subcall_error} as e:\n    "
        assert self.output(code + "print('broken' in str(e))", answerer=bad_fails) == "True\n"

    def test_a_failed_batch_carries_the_answers_that_arrived(self) -> None:
        code = f"try:\n    llm_batch(['a', 'bad', 'c'])\nexcept {self.subcall_error} as e:\n    "
        assert self.output(code + "print(e.results)", answerer=bad_fails) == "['A', None, 'C']\n"
        asked = "print(hasattr(e, 'results'), getattr(e, 'results', 5)[0], getattr(e, 'tool', 5))"
        assert self.output(code + asked, answerer=bad_fails) == "True A 5\n"

    def test_each_of_several_errors_carries_its_own_answers(self) -> None:
        code = (
            "errors = []\nfor c in 'xyx':\n    try:\n        llm_batch(['bad', c])\n"
            f"    except {self.subcall_error} as e:\n        errors.append(e)\n"
            "print([e.results[1] for e in errors], errors[1].results)"
        )
        assert self.output(code, answerer=bad_fails) == "['X', 'Y', 'X'] [None, 'Y']\n"

    def test_what_is_no_error_of_a_subcall_has_results_of_its_own_or_none(self) -> None:
        code = (
            "class Bag:\n    def __init__(self):\n        self.results = [3]\n"
            "    def tool(self):\n        self.results.append(1)\n        return 'used'\n"
            "bag = Bag()\nprint(bag.tool())\ndel bag.results[0]\nbag.results += [7]\n"
            "print(bag.results, (bag\n).results[0], hasattr(bag, 'tool'))\n"
            "try:\n    RuntimeError('x').results\nexcept AttributeError:\n    print('none')"
        )
        assert self.output(code) == "used\n[1, 7] 1 True\nnone\n"

    def test_a_batch_may_return_its_failures(self) -> None:
        code = (
            "r = llm_batch(['a', 'bad'], on_error='return')\n"
            "print(r[0], r[1].startswith('[ERROR] '))"
        )
        assert self.output(code, answerer=bad_fails) == "A True\n"

    def test_variables_survive_a_failed_subcall(self) -> None:
        first, second = self.cells(
            "kept = 1\nllm_query('bad')", "print(kept, llm_query('good'))", answerer=bad_fails
        )
        assert first.error is not None
        assert second.stdout == "1 GOOD\n"

    # The context

    def test_the_text_is_there_whole(self) -> None:
        assert (
            self.output("print(len(P), P[:7], lenP())")
            == f"{len(HAYSTACK)} The key {len(HAYSTACK)}\n"
        )

    def test_peek_and_tail_show_the_ends(self) -> None:
        assert self.output("print(peek(7) + '|' + tail(5))") == "The key|teal.\n"
        assert self.output("print(len(peek()), len(tail()))", source="x" * 5000) == "2000 2000\n"
        assert self.output("print([peek(0), tail(0)])") == "['', '']\n"

    def test_extract_after_gives_the_word_after_a_marker(self) -> None:
        code = (
            "print(extract_after('key is'), extract_after('color is '), extract_after('nowhere'))"
        )
        assert self.output(code) == "APPLE teal None\n"

    def test_find_gives_half_open_spans(self) -> None:
        code = "(s, e, t), = ctx.find('APPLE')\nprint(P[s:e] == t == 'APPLE', ctx.slice(s, e))"
        assert self.output(code) == "True APPLE\n"

    def test_find_takes_a_pattern_and_a_limit(self) -> None:
        code = (
            "print([t for _, _, t in ctx.find('[A-Z]+E', regex=True)])\n"
            "print(len(ctx.find('hay', max_matches=3)))"
        )
        assert self.output(code) == "['APPLE']\n3\n"
        assert (
            self.output("print(len(ctx.find('apple', case_sensitive=False)), ctx.find(''))")
            == "1 []\n"
        )

    def test_documents_are_reached_by_number(self) -> None:
        code = (
            "print(ctx.num_documents(), ctx.document_lengths())\n"
            "print(ctx.get_document(1), ctx.get_document(9))"
        )
        assert self.output(code, source=["one", "three"]) == "2 [3, 5]\nthree None\n"

    def test_a_context_is_cut_into_chunks(self) -> None:
        code = "print(ctx.chunk(4))\nprint(ctx.len_chars())"
        expected = "[(0, 4, 'abcd'), (4, 8, 'efgh'), (8, 9, 'i')]\n9\n"
        assert self.output(code, source="abcdefghi") == expected

    def test_documents_are_cut_into_groups(self) -> None:
        code = "print(ctx.chunk_documents(2))"
        assert self.output(code, source=["a", "b", "c"]) == "[(0, 2, ['a', 'b']), (2, 3, ['c'])]\n"

    def test_pages_are_found_by_their_markers(self) -> None:
        assert (
            self.output("print(ctx.page(1), ctx.page(2), ctx.page(3))", source=PAGES)
            == "one two None\n"
        )

    def test_reading_the_context_pauses_nothing(self) -> None:
        pauses, result = self.pauses("print(len(ctx.find('hay')), peek(3), lenP() > 5)")
        assert pauses == []
        assert result.stdout == "20 The True\n"

    # Replies as data

    def test_a_json_reply_is_a_value(self) -> None:
        code = "r = llm_query_json('q')\nprint(r['a'][1]['b'], type(r).__name__)"
        said = 'Here it is:\n```json\n{"a": [1, {"b": null}]}\n```'
        assert self.output(code, answerer=lambda _: said) == "None dict\n"

    def test_json_replies_of_a_batch_come_in_the_order_of_the_prompts(self) -> None:
        said = self.output("print(llm_batch_json(['2', '[3, 4]']))", answerer=lambda p: p)
        assert said == "[2, [3, 4]]\n"

    def test_a_reply_without_json_is_marked_and_loses_no_other(self) -> None:
        code = "r = llm_batch_json(['1', 'hm'])\nprint(r[0], r[1]['_raw'], '_parse_error' in r[1])"
        assert self.output(code, answerer=lambda p: p) == "1 hm True\n"

    def test_records_are_lists_of_dicts(self) -> None:
        code = "print(llm_query_records('q'), llm_batch_records(['a', 'b']))"
        said = {"q": '{"items": [{"n": 1}]}', "a": '[{"n": 2}, 5]', "b": '{"n": 3}'}
        expected = "[{'n': 1}] [[{'n': 2}], [{'n': 3}]]\n"
        assert self.output(code, answerer=lambda p: said[p]) == expected

    def test_a_failed_subcall_of_a_json_batch_raises_or_is_marked(self) -> None:
        def answerer(prompt: str) -> str | Answer:
            return failed('status 400: {"error": [1]}') if prompt == "bad" else prompt

        for name, first in (("json", {"n": 1}), ("records", [{"n": 1}])):
            call = f"llm_batch_{name}(['{{\"n\": 1}}', 'bad']"
            (result,) = self.cells(f"{call})", answerer=answerer)
            assert result.error is not None
            assert "status 400" in result.error.message
            said = self.output(f"print({call}, on_error='return'))", answerer=answerer)
            assert said == f"""[{first}, '[ERROR] status 400: {{"error": [1]}}']\n"""

    def test_a_failed_json_batch_carries_the_values_that_arrived(self) -> None:
        for name, first in (("json", {"n": 1}), ("records", [{"n": 1}])):
            code = (
                f"try:\n    llm_batch_{name}(['{{\"n\": 1}}', 'bad'])\n"
                f"except {self.subcall_error} as e:\n    print(e.results)"
            )
            said = self.output(code, answerer=lambda p: failed("broken") if p == "bad" else p)
            assert said == f"[{first}, None]\n"

    # The budget

    def test_the_budget_is_asked_of_the_host_and_is_a_dict(self) -> None:
        left = '{"steps": 3, "subcalls": 9, "tokens": null, "cost_usd": 0.25}'
        code = "b = budget()\nprint(b['steps'] + 1, b['tokens'], b['cost_usd'])"
        (pause,), result = self.pauses(code, lambda _: left)
        (call,) = pause.calls
        assert (call.fn, call.kind, call.prompt) == ("budget", "budget", "")
        assert result.stdout == "4 None 0.25\n"

    def test_budget_may_be_a_variable_of_the_codes_own(self) -> None:
        first, second = self.cells("budget = 500", "print(budget + 1)\nSHOW_VARS()")
        assert (first.error, second.error) == (None, None)
        assert second.stdout.startswith("501\n")
        assert "budget: int" in second.stdout
        assert self.read("budget = 500", "budget").text == "500"

    def test_a_function_of_the_runtime_that_was_overwritten_is_back_in_the_next_cell(self) -> None:
        assert self.output("llm_query_json = 5", "print(llm_query_json('[1]'))") == "[1]\n"

    # Questions over chunks

    def test_ask_sends_the_question_and_the_text(self) -> None:
        (pause,), _ = self.pauses("ask('What?', 'some text')")
        assert pause.calls[0].prompt == "Question: What?\nSnippet:\nsome text"
        assert pause.calls[0].question == "What?"

    @pytest.mark.parametrize(
        "chunks",
        ["['ab', 'cd']", "'abcd', chunk_size=2", "ctx.chunk(2)", "ctx, chunk_size=2"],
        ids=["texts", "a text", "tuples of chunk", "the context"],
    )
    def test_ask_chunks_takes_every_form_of_chunks(self, chunks: str) -> None:
        (pause,), result = self.pauses(f"print(len(ask_chunks('Q', {chunks})))", source="abcd")
        assert [c.prompt[-2:] for c in pause.calls] == ["ab", "cd"]
        assert result.stdout == "2\n"

    def test_ask_chunks_takes_groups_of_documents(self) -> None:
        (pause,), _ = self.pauses("ask_chunks('Q', ctx.chunk_documents(2))", source=["a", "b", "c"])
        assert [c.prompt.partition("Snippet:\n")[2] for c in pause.calls] == ["a\n\nb", "c"]

    def test_ask_chunks_is_parallel_when_told_or_by_the_settings(self) -> None:
        for code, default, expected in (
            ("ask_chunks('Q', ['a', 'b'])", False, False),
            ("ask_chunks('Q', ['a', 'b'])", True, True),
            ("ask_chunks('Q', ['a', 'b'], parallel=True)", False, True),
            ("ask_chunks('Q', ['a', 'b'], parallel=False)", True, False),
            ("llm_query_batch(['a', 'b'])", True, True),
        ):
            (pause,), _ = self.pauses(code, parallel_subcalls=default)
            assert pause.parallel is expected, code

    def test_equal_chunks_are_merged_unless_told_otherwise(self) -> None:
        for more, dedupe in (("", True), (", dedupe=False", False)):
            (pause,), _ = self.pauses(f"ask_chunks('Q', ['a', 'a']{more})")
            assert [call.dedupe for call in pause.calls] == [dedupe, dedupe]
            assert [call.is_sample for call in pause.calls] == [not dedupe, not dedupe]

    def test_ask_chunks_refuses_what_is_no_chunks(self) -> None:
        pauses, result = self.pauses("ask_chunks('Q', 5)")
        assert pauses == []
        assert result.error is not None
        assert result.error.kind == "TypeError"

    def test_ask_chunks_first_stops_at_the_first_answer(self) -> None:
        code = "print(ask_chunks_first('Q', ['a', 'b', 'c']))"
        pauses, result = self.pauses(code, lambda p: "teal" if p.endswith("b") else "NO_ANSWER")
        assert [p.calls[0].prompt[-1] for p in pauses] == ["a", "b"]
        assert all(len(p.calls) == 1 for p in pauses)
        assert result.stdout == "teal\n"

    def test_ask_chunks_first_without_an_answer_is_none(self) -> None:
        code = "print(ask_chunks_first('Q', ['a', 'b']))"
        assert self.output(code, answerer=lambda _: "NO_ANSWER") == "None\n"

    def test_pick_first_answer_skips_what_is_no_answer(self) -> None:
        code = (
            "print(pick_first_answer(['', 'no_answer', 'two\\nlines', 'x' * 81, ' teal ', 'red']))"
        )
        assert self.output(code) == "teal\n"
        assert self.output("print(pick_first_answer([]))") == "None\n"
