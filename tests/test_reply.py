"""Model replies: the rules of `rlm_fsm.reply`, one table per rule, and hostile ones."""

import sys
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from agreement import turns
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.pipeline import is_successful

from rlm_fsm.profile import Profile
from rlm_fsm.profiles import DSPY, PROFILES, PYRLM, RLMS
from rlm_fsm.reply import Reply, ReplyError, TextAnswer, VariableAnswer, lone_block, parse, visible
from rlm_fsm.wording import forms


def read(text: str, finish_reason: str | None = None) -> Reply | str:
    """The reply, or the kind of its error."""
    result = parse(text, PYRLM, finish_reason)
    return result.unwrap() if is_successful(result) else result.failure().kind


def code(*blocks: str, answer: TextAnswer | VariableAnswer | None = None) -> Reply:
    return Reply(blocks, answer)


def text(answer: str) -> Reply:
    return Reply((), TextAnswer(answer))


def variable(name: str) -> Reply:
    return Reply((), VariableAnswer(name))


def check(cases: dict[str, Reply | str]) -> None:
    found = {given: read(given) for given in cases}
    assert found == cases


def test_reasoning_is_dropped() -> None:
    check(
        {
            "<think>FINAL: no</think>\nFINAL: yes": text("yes"),
            "<think>\nFINAL: no\n```python\nx = 1\n```\n</think>FINAL: yes": text("yes"),
            "<Thinking>a</Thinking>\n<think>b</think>\nx = 1": code("x = 1"),
            "Look:\n```python\nx = 1\n```\n<think>\nFINAL: no\n</think>\nDone.": code("x = 1"),
            "<think>I was thinking of FINAL: 4\nFINAL: 4": "empty",
            "lost its opening tag\nFINAL: no\n</think>\n\nFINAL: yes": text("yes"),
            "so I am sure.</think>\nFINAL: yes": text("yes"),
        }
    )


def test_tags_of_reasoning_in_code_are_code() -> None:
    split = "x = P.split('</think>')[-1]\nprint(x)"
    inner = 't = """\n<think>\n"""'
    check({split: code(split), f"```python\n{inner}\n```": code(inner)})
    assert visible("as <think> says") == "as <think> says"
    assert visible("<think>no</think>\n\n yes \n") == "yes"


def test_blocks_in_the_languages_of_the_profile_are_code() -> None:
    for info in ("repl", "python", "py", "python3", "py3", "", "Python", "REPL ", " python"):
        check({f"```{info}\nx = 1\n```": code("x = 1")})
    check(
        {
            '```python title="a b"\nx = 1\n```': code("x = 1"),
            "```{.python .numberLines}\nx = 1\n```": code("x = 1"),
            "```python:cell.py\nx = 1\n```": code("x = 1"),
        }
    )


def test_blocks_run_in_order_and_prose_is_ignored() -> None:
    given = "First:\n```python\na = 1\n```\nthen (b = 2?)\n```repl\nprint(a)\n```\nThat's all."
    check({given: code("a = 1", "print(a)")})


def test_a_block_that_does_not_parse_is_code_all_the_same() -> None:
    check(
        {
            "```python\nprint('a\n```": code("print('a"),
            "```py\nhello there\n```": code("hello there"),
        }
    )


@pytest.mark.parametrize(
    "language", ["text", "output", "plaintext", "json", "bash", "JSON", "tool_code", "javascript"]
)
def test_blocks_in_other_languages_are_never_run(language: str) -> None:
    output = f"```{language}\nprint(1)\n```"
    nothing = "no_code" if language == "tool_code" else "only_output"
    check({output: nothing, f"```python\nx = 1\n```\n{output}": code("x = 1")})


def test_a_block_without_a_language_runs_when_it_looks_like_code() -> None:
    check(
        {
            "```\nprint(1)\n```": code("print(1)"),
            "```\nx = (1\n```": code("x = (1"),
            "```\nfor c in chunks:\nprint(c)\n```": code("for c in chunks:\nprint(c)"),
            "```\nThe answer is 42.\n```": "no_code",
            "```\nTotal: 5\n```": "no_code",
            "```\n{'a': 1}\n```": "no_code",
        }
    )


def test_fences_may_be_of_tildes_and_of_any_length() -> None:
    check(
        {
            "~~~python\nx = 1\n~~~": code("x = 1"),
            "`````py\nx = 1\n`````": code("x = 1"),
            "```python\nx = 1\n`````": code("x = 1"),
            "~~~python\nx = 1\n```\n~~~": code("x = 1\n```"),
            "````python\nx = 1\n```\n````": code("x = 1\n```"),
        }
    )


def test_a_missing_closing_fence_is_tolerated() -> None:
    check(
        {
            "```python\nx = 1": code("x = 1"),
            "```python\nx = 1\n```repl\nprint(x)\n```": code("x = 1", "print(x)"),
            "```python\nx = 1\n```output\n1\n```\nFine.": code("x = 1"),
        }
    )


def test_a_closing_fence_may_be_glued_to_the_last_line() -> None:
    check(
        {
            "```python\nx = 1\nprint(x)```": code("x = 1\nprint(x)"),
            "```python\nf(1)```\nThen:\n```repl\ng()\n```": code("f(1)", "g()"),
            "```python\nx = '```'\nprint(x)\n```": code("x = '```'\nprint(x)"),
            "```python\nx = 1  # no ``` here\nprint(x)\n```": code(
                "x = 1  # no ``` here\nprint(x)"
            ),
        }
    )


def test_junk_after_a_closing_fence_is_not_code() -> None:
    check(
        {
            "```repl\nprint(P)\n```atical output\nIt says:\n```\nThe end": code("print(P)"),
            "```repl\na()\n```relude\nIt is cut off.\n```repl\nb()\n```": code("a()", "b()"),
            "```repl\na()\n```pez\nFINAL_VAR: x": code("a()", answer=VariableAnswer("x")),
            "```repl\na()\n````,` `\nFINAL_VAR: x": code("a()", answer=VariableAnswer("x")),
            "write it in a ```repl``` block": "no_code",
        }
    )


def test_fences_inside_strings_do_not_end_a_block() -> None:
    inner = 'doc = """\n```python\nx = 1\n```\n"""\nprint(doc)'
    single = "doc = '''\n```\n'''"
    check(
        {
            f"```python\n{inner}\n```\nthen FINAL": code(inner),
            f"```python\n{single}\n```\n```python\ny = 2\n```": code(single, "y = 2"),
            f"```python\n{single}": code(single),
        }
    )


def test_a_string_left_open_by_mistake_ends_with_its_block() -> None:
    check(
        {
            "```python\nprint('''\n```\nprose\n```python\ny = 1\n```": code("print('''", "y = 1"),
            "```python\nx = '''a\n```\nit's\n```python\ny = '''b'''\n```": code(
                "x = '''a", "y = '''b'''"
            ),
        }
    )


def test_indented_code_is_shifted_to_the_left() -> None:
    check(
        {
            "1. Do:\n   ```python\n   if x:\n       y = 1\n\n   z = 2\n   ```": code(
                "if x:\n    y = 1\n\nz = 2"
            ),
            "```python\n\n    x = 1\n    y = 2\n```": code("x = 1\ny = 2"),
            "\t```python\n\tx = 1\n\t```": code("x = 1"),
        }
    )


def test_an_answer_in_text_takes_the_rest_of_the_reply() -> None:
    check(
        {
            "FINAL: 42": text("42"),
            "FINAL:\n42": text("42"),
            "  FINAL :  a: b  ": text("a: b"),
            "Here it is.\nFINAL: one\n\ntwo\n": text("one\n\ntwo"),
            "FINAL: use this\n```python\nx = 1\n```\n": text("use this\n```python\nx = 1\n```"),
            "FINAL: a\nFINAL: b": text("a\nFINAL: b"),
            "FINAL: a\r\nb": text("a\nb"),
        }
    )


def test_an_answer_in_a_variable_names_it() -> None:
    for name in ("answer", "`answer`", "'answer'", '"answer"', "answer.", "answer\nThat is it."):
        check({f"FINAL_VAR: {name}": variable("answer")})
    check(
        {
            "Reason.\n FINAL_VAR:answer": variable("answer"),
            "FINAL_VAR: größe_2": variable("größe_2"),
        }
    )


def test_emphasis_around_an_answer_is_taken_off() -> None:
    check(
        {
            "**FINAL:** x": text("x"),
            "**FINAL**: x": text("x"),
            "**FINAL: x**": text("x"),
            "**FINAL: x**\nmore": text("x\nmore"),
            "**FINAL: x\nmore**": text("x\nmore"),
            "**FINAL:** **x**": text("**x**"),
            "*FINAL: x*": text("x"),
            "`FINAL: x`": text("x"),
            "**FINAL_VAR: x**": variable("x"),
            "**FINAL_VAR:** `x`": variable("x"),
            "**FINAL(x)**": text("x"),
        }
    )


def test_the_call_forms_keep_what_is_between_their_parentheses() -> None:
    check(
        {
            "FINAL(1000)": text("1000"),
            "FINAL(x is set to 500.)": text("x is set to 500."),
            "FINAL(a (b (c)) d)": text("a (b (c)) d"),
            "FINAL(\n  one\n  two\n)\nThat's it.": text("one\n  two"),
            "FINAL(see\n```json\n{}\n```\n)": text("see\n```json\n{}\n```"),
            'FINAL("Blue")': text("Blue"),
            "FINAL('''one\ntwo''')": text("one\ntwo"),
            'FINAL("one\ntwo")': text("one\ntwo"),
            r'FINAL("say \"a\"\nb")': text('say "a"\nb'),
            'FINAL("a" and "b")': text('"a" and "b"'),
            "FINAL_VAR(answer)": variable("answer"),
            "FINAL_VAR('answer')": variable("answer"),
            'Good.\n FINAL_VAR("answer").': variable("answer"),
        }
    )


def test_parentheses_in_quotes_do_not_count_and_apostrophes_do_not_quote() -> None:
    check(
        {
            "FINAL(It's 5 (don't ask))": text("It's 5 (don't ask)"),
            'FINAL(he said ":)" loudly)': text('he said ":)" loudly'),
            'FINAL("The answer (see "x")")': text('"The answer (see "x")"'),
            "FINAL(I like :( smileys)": text("I like :( smileys"),
            "FINAL(f':) {x}')": text("f':) {x}'"),
        }
    )


@pytest.mark.parametrize(
    "given",
    [
        "Then I will call FINAL(x)",
        "FINAL(x) comes when I am done (soon)",
        "The FINAL: answer",
        "FINAL_ANSWER: x",
        "FINAL 42",
        "final: 42",
        "Final answer: 42",
        "- FINAL is next",
        "use `FINAL_VAR` now",
        "```text\nFINAL: 42\nis what I would say\n```\n",
    ],
)
def test_a_mention_of_final_is_not_an_answer(given: str) -> None:
    if given.startswith("```"):
        # A block that begins with the answer is one; in a sentence it is not.
        given = given.replace("FINAL: 42\nis", "then\nFINAL: 42\nis")
    check({given: "only_output" if given.startswith("```text") else "no_code"})


@pytest.mark.parametrize(
    "given",
    [
        "x = 'FINAL: no'\nprint(x)",
        't = """\nFINAL: no\n"""\nprint(t)',
        "t = '''\nFINAL_VAR: no\n'''",
        "# FINAL: no\nprint(1)",
    ],
)
def test_final_in_a_string_or_comment_is_code(given: str) -> None:
    check({given: code(given), f"```python\n{given}\n```": code(given)})


def test_final_after_code_in_a_block_is_code() -> None:
    given = "x = 1\nFINAL_VAR: x"
    check({f"```python\n{given}\n```": code(given)})


def test_the_answer_of_a_reply_with_code_comes_with_it() -> None:
    check(
        {
            "```python\nx = 1\n```\nFINAL_VAR: x": code("x = 1", answer=VariableAnswer("x")),
            "FINAL_VAR: x\n```python\nx = 1\n```": code("x = 1", answer=VariableAnswer("x")),
            "```python\nx = 1\n```\nFINAL: one": code("x = 1", answer=TextAnswer("one")),
            "```python\nx = 1\n```\n```\nFINAL_VAR: x\n```": code(
                "x = 1", answer=VariableAnswer("x")
            ),
            "FINAL_VAR: x\n```py\nx = 1\n```\nFINAL_VAR: y": code(
                "x = 1", answer=VariableAnswer("x")
            ),
        }
    )


@pytest.mark.parametrize(
    "given",
    [
        "snippet = peek(80)\nsummary = llm_query(f'Summarize: {snippet}')\n"
        "answer = f'Summary -> {summary}'",
        "len(P)",
        "print(P[:100])",
        "P[:500]",
        "1/0",
        "import re",
        "x: int = 3",
        "x += 1",
        "def f():\n    return 1",
        "for c in ctx.chunk(100):\n    print(c)",
        "# look\nprint(1)",
        "await llm_query('a')",
        "raise ValueError('a')",
        "assert x",
        "with open('a') as f: pass",
        r"re.findall('\d+', P)",
        "[c for c in P]",
    ],
)
def test_a_reply_that_is_python_is_code(given: str) -> None:
    check({given: code(given), f"\n{given}\n\n": code(given), f"python\n{given}": code(given)})


@pytest.mark.parametrize(
    "given",
    [
        "Yes",
        "42",
        "'quoted'",
        "a, b, c",
        "Paris (France)",
        "not sure",
        "yes or no",
        "The result: 5",
        "follow-up",
        "I'll look at the text first.",
        "Let me see:\nx = 1",
        "{'a': 1}",
        "x = (1\nprint(x)",
    ],
)
def test_a_reply_that_is_prose_or_broken_is_not_code(given: str) -> None:
    check({given: "no_code"})


def test_bare_code_may_end_in_an_answer() -> None:
    check(
        {
            "x = 1\nFINAL_VAR: x": code("x = 1", answer=VariableAnswer("x")),
            "x = 1\nFINAL_VAR(x)": code("x = 1", answer=VariableAnswer("x")),
            "x = 1\n\nFINAL: all of\nit": code("x = 1", answer=TextAnswer("all of\nit")),
            "t = '''\nFINAL: a\n'''\nFINAL_VAR: t": code(
                "t = '''\nFINAL: a\n'''", answer=VariableAnswer("t")
            ),
            "x = 1\nFINAL(x + 1)": code("x = 1\nFINAL(x + 1)"),
            "Well, x is 1\nFINAL: 1": text("1"),
            'The """ is odd\nFINAL: 1': text("1"),
        }
    )


def test_bare_code_is_only_code_where_the_profile_says_so() -> None:
    fenced_only = replace(PYRLM, bare_code=False, fences=("repl",))
    assert parse("x = 1", fenced_only).failure().kind == "no_code"
    assert parse("```python\nx = 1\n```", fenced_only).failure().kind == "no_code"
    assert parse("```repl\nx = 1\n```", fenced_only).unwrap() == code("x = 1")
    assert parse("FINAL: 1", fenced_only).unwrap() == text("1")


def test_a_block_with_nothing_but_an_answer_is_the_answer() -> None:
    check(
        {
            "```\nFINAL_VAR: x\n```": variable("x"),
            "So:\n```python\nFINAL_VAR: x\n```\nDone.": variable("x"),
            "```repl\nFINAL_VAR('x')\n```": variable("x"),
            "```python\nFINAL: it is 5\n```": text("it is 5"),
            "```\nFINAL: one\ntwo\n```": text("one\ntwo"),
            "```text\nFINAL(a + b)\n```": text("a + b"),
            "```python\nFINAL('five')\n```": text("five"),
            "```python\nFINAL(it is set to 5)\n```": text("it is set to 5"),
            "```python\nFINAL(a + b)\n```": code("FINAL(a + b)"),
            "```python\nFINAL: int\nprint(1)\n```": code("FINAL: int\nprint(1)"),
            "```repl\nFINAL_VAR(rows[0])\n```": code("FINAL_VAR(rows[0])"),
            "```python\nFINAL_VAR(', '.join(names))\n```": code("FINAL_VAR(', '.join(names))"),
            "names = ['a']\nFINAL_VAR(names[0])": code("names = ['a']\nFINAL_VAR(names[0])"),
            "```text\nFINAL_VAR(rows[0])\n```": "bad_name",
        }
    )


def test_what_is_wrong_with_an_answer_is_told() -> None:
    check(
        {
            "FINAL:": "empty_answer",
            "FINAL:  \n\n": "empty_answer",
            "FINAL_VAR:": "empty_answer",
            "FINAL()": "empty_answer",
            "FINAL_VAR('')": "empty_answer",
            "**FINAL:**": "empty_answer",
            "FINAL_VAR: the answer": "bad_name",
            "FINAL_VAR: None": "bad_name",
            "FINAL_VAR: rows[0]": "bad_name",
            '```repl\nFINAL_VAR("Knights of the Vale")\n```': "bad_name",
            "FINAL(so it goes": "bad_answer",
        }
    )


def test_a_faulty_answer_does_not_hide_code_or_a_good_answer() -> None:
    check(
        {
            "```python\nx = 1\n```\nFINAL:": code("x = 1"),
            "x = 1\nFINAL_VAR: a b": code("x = 1"),
            "FINAL()\nFINAL: 5": text("5"),
            "FINAL_VAR(not it)\nFINAL_VAR: x": variable("x"),
        }
    )


def test_nothing_at_all_is_an_error_of_its_own() -> None:
    check({"": "empty", " \n\t\n": "empty", "```python\n```": "no_code", "\n```\n": "no_code"})


@pytest.mark.parametrize("finish_reason", ["length", "max_tokens", "LENGTH"])
def test_a_reply_cut_within_its_code_is_cut(finish_reason: str) -> None:
    def cut(given: str) -> Reply | str:
        return read(given, finish_reason)

    assert cut("") == "cut"
    assert cut("<think>on and on") == "cut"
    assert cut("I will look at") == "cut"
    assert cut("```python\nx = 1") == "cut_code"
    assert cut("```python\na = 1\n```\nand\n```python\nx = 1") == "cut_code"
    assert cut("x = 1\ny = 2") == "cut_code"
    assert cut("FINAL(so it") == "cut"
    assert cut("```python\nx = 1\n```\nThen I") == code("x = 1")
    assert cut("FINAL: the answer") == text("the answer")
    assert cut("x = 1\nFINAL_VAR: x") == code("x = 1", answer=VariableAnswer("x"))


def test_a_reply_that_a_filter_stopped_is_refused() -> None:
    assert read("", "content_filter") == "refused"
    assert read("```python\nx = ", "content_filter") == "refused"
    assert read("FINAL: 5", "content_filter") == text("5")


def test_a_profile_may_run_the_first_or_the_last_block_only() -> None:
    given = "```python\na\n```\n```python\nb\n```\n```python\nc\n```\nFINAL: 1"
    last = replace(PYRLM, blocks="last")
    assert parse(given, DSPY).unwrap() == Reply(("a",), TextAnswer("1"), 2)
    assert parse(given, last).unwrap() == Reply(("c",), TextAnswer("1"), 2)
    assert parse(given, RLMS).unwrap() == Reply(("a", "b", "c"), TextAnswer("1"))
    assert parse("```python\na\n```", DSPY).unwrap() == Reply(("a",))


FAULTY = {
    "empty": ("", None),
    "no_code": ("hm", None),
    "only_output": ("```output\n3\n```", None),
    "cut": ("I think that", "length"),
    "cut_code": ("```python\nx = ", "length"),
    "refused": ("", "content_filter"),
    "empty_answer": ("FINAL:", None),
    "bad_name": ("FINAL_VAR: a b", None),
    "bad_answer": ("FINAL(a", None),
}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_each_fault_has_a_reason_of_its_own_and_shows_the_form(profile: Profile) -> None:
    reasons = {}
    for kind, (reply, finish_reason) in FAULTY.items():
        error = parse(reply, profile, finish_reason).failure()
        assert error.kind == kind
        assert error.reason.endswith(forms(profile))
        assert f"```{profile.fences[0]}\n" in error.reason
        assert len(error.reason) < 500
        reasons[kind] = error.reason
    assert len(set(reasons.values())) == len(FAULTY)


def test_a_fault_without_words_counts_as_the_general_one() -> None:
    old = replace(PYRLM, only_output="", cut_code="")
    assert parse("```output\n3\n```", old).failure().kind == "no_code"
    assert parse("```python\nx = ", old, "length").failure().kind == "cut"


def test_an_error_tells_the_fault_and_the_expected_form() -> None:
    kinds = set[str]()
    for bad in ("", "hm", "FINAL:", "FINAL_VAR: a b", "FINAL(a"):
        error = parse(bad, PYRLM).failure()
        assert isinstance(error, ReplyError)
        assert "```python\n" in error.reason
        assert "FINAL: your answer" in error.reason
        assert "FINAL_VAR: variable_name" in error.reason
        assert len(error.reason) < 500
        kinds.add(error.reason.partition("Reply with")[0])
    assert len(kinds) == 5


# -- any text ---------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        *("```", "```python\n", "```repl", "````", "~~~", "~~~py\n", "\n", "\n\n", " ", "    "),
        *("FINAL:", "FINAL_VAR:", "FINAL(", "FINAL_VAR(", ")", "(", "**", "`", "'", '"', "'''"),
        *('"""', "\\", "#", "x = 1\n", "print(x)", "x", "answer", "text", "json", "atical "),
        *("<think>", "</think>", "<thinking>", "def f():\n", "\r\n", "\0", "\ud800", "é", "{", "}"),
    ]
)
_TEXTS = st.one_of(
    st.text(),
    st.lists(_PIECES, max_size=40).map("".join),
    st.tuples(
        st.sampled_from([turn.text for turn in turns()]),
        st.integers(0, 3_000),
        st.integers(0, 80),
        st.lists(_PIECES, max_size=4).map("".join),
    ).map(lambda t: t[0][: t[1]] + t[3] + t[0][t[1] + t[2] :]),
)


_PROFILES = st.sampled_from([*PROFILES.values(), replace(RLMS, blocks="last", bare_code=False)])


@given(_TEXTS, st.sampled_from([None, "stop", "length", "content_filter", "?"]), _PROFILES)
@example("```python\n'''\n```\n```python\n'''\n", None, PYRLM)
@example("0or 1", None, PYRLM)
@example("x = 1\0", None, PYRLM)
@example("FINAL('" + "\\" * 7, "length", PYRLM)
@settings(deadline=None, max_examples=300)
def test_any_text_is_a_reply_or_an_error(
    text: str, finish_reason: str | None, profile: Profile
) -> None:
    result = parse(text, profile, finish_reason)
    if not is_successful(result):
        assert result.failure().reason
        return
    reply = result.unwrap()
    assert reply.blocks or reply.answer
    assert not reply.left_out or profile.blocks != "all"
    assert all(block == block.rstrip() and block for block in reply.blocks)
    match reply.answer:
        case TextAnswer(answer):
            assert answer == answer.strip() != ""
        case VariableAnswer(name):
            assert name.isidentifier()
        case None:
            pass


@given(_TEXTS)
@settings(deadline=None, max_examples=100)
def test_reasoning_is_dropped_only_where_there_is_some(text: str) -> None:
    seen = visible(text)
    assert seen == text or "think" in text.lower()
    assert len(seen) <= len(text)


@given(_TEXTS, st.sampled_from(["python", "repl", "py", "text", ""]), st.booleans())
def test_the_short_cut_gives_what_the_rules_give(body: str, language: str, tight: bool) -> None:
    given = f"```{language}\n{body}\n```"
    given = given if tight else given + "\n"
    lone = lone_block(given, PYRLM)
    if lone is not None:
        assert read(f"Here it is.\n{given}") == read(given) == code(lone)


def test_the_short_cut_is_taken_for_the_commonest_reply() -> None:
    assert lone_block("```python\nx = 1\nprint(x)\n```", PYRLM) == "x = 1\nprint(x)"


HOSTILE = {
    "blank": "\n",
    "backticks": "`",
    "fences": "```\n",
    "openings": "```python\n",
    "open strings": "```python\n) '''\n```\n",
    "two kinds of quotes": "```python\n''' \"\"\" )\n```\n",
    "prose blocks": "```\na b c\n```\n",
    "open calls": "FINAL(\n",
    "empty calls": "FINAL()\n",
    "sentences": "FINAL(x) is\n",
    "bad names": "FINAL_VAR: a b\n",
    "quotes": "FINAL('\"\n",
    "escapes": "FINAL(\"\\\\'",
    "thoughts": "<think>\n</think>\n",
    "ends of thoughts": "</think> x ",
    "calls": "a(",
    "operators": "-",
    "assignments": "a=",
    "statements": "x = 1\n",
    "emphasis": "**FINAL",
    "continued lines": "x = \\\n",
    "nested": "FINAL(('\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_with_the_length_of_the_text_and_no_faster(name: str) -> None:
    """Ten times the text is at most about ten times the Python-level work.

    Calls are counted, not seconds: a function of C counts as one, and what those do is bounded
    by the patterns, none of which backtracks.
    """
    unit = HOSTILE[name]
    for tail in ("", ")" * 100 + " w", "\n```"):
        small, large = (calls_of(unit * n + tail) for n in (100, 1_000))
        assert large <= 12 * small + 1_000


def calls_of(text: str) -> int:
    """How many calls of functions, in Python and in C, `parse` makes."""
    count = 0

    def note(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        parse(text, PYRLM)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("unit", ["\n", "`", "FINAL(\n", "</think> x ", "-", "(", "\\"])
def test_a_megabyte_of_anything_is_read(unit: str) -> None:
    parse(unit * (1_000_000 // len(unit)), PYRLM)
