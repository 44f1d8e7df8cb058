"""The Python of both backends: bridges over gaps, gaps with advice, long texts."""

import asyncio
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from repl_driving import HAYSTACK, answer_all, bad_fails, context_of, settings_of

from effects.repls._edits import Edits
from effects.repls._library import Library
from effects.repls._monty_code import prepare
from effects.repls._monty_gaps import GAPS, INSTEAD_OF_NAME, hint
from effects.repls._monty_shims import MODULES, SHIMS
from effects.repls.base import Repl
from effects.repls.monty import MontyRepl
from effects.repls.python import PythonRepl
from rlm_fsm.values import CodeResult

DOCS = Path(__file__).parent.parent / "docs"
BRIDGES: list[tuple[str, str]] = runpy.run_path(str(DOCS / "monty_page.py"))["bridges"]()

MORE: dict[str, str] = {
    "a generator as an argument": "def two(it):\n    return next(it), next(it)\nprint(two(c for c in 'abc'))",
    "a generator in a call with more arguments": "print(sum((x for x in [1, 2]), 10), max((x for x in [3, 1]), default=0))",
    "a generator that is returned": "def evens(xs):\n    return (x for x in xs if x % 2 == 0)\ng = evens(range(5))\nprint(list(g), list(g))",
    "bridges within an f-string": "xs = ['b', 'A']\nprint(f\"{next(x for x in xs)} {', '.join(map(str.upper, xs))} {max(xs, key=str.lower)!r:>5}\")",
    "an f-string of several lines": "d = {'a': 1}\nprint(f'''one\n{max(d, key=d.get)}\ntwo''')",
    "bridges within bridges": "d = {'a': [3, 1], 'b': [2]}\ndel d[max(d, key=lambda k: len(llm_query(k)))], d[next(k for k in ['b'])]\nprint(d)",
    "an import over several lines": "from heapq import (\n    heappush,\n    heappop as pop,\n)\nh = []\nheappush(h, 2)\nprint(pop(h))",
    "several imports in one statement": "import re, heapq as hq, json; print(hq.nlargest(1, [1, 2]), re.escape('a.'), json.dumps(1))",
    "an import in a function": "def top(xs):\n    import heapq\n    return heapq.nlargest(1, xs)\nprint(top([1, 3, 2]))",
    "an import in a try": "try:\n    import statistics\nexcept ImportError:\n    statistics = None\nprint(statistics.mode([1, 1, 2]))",
    "an error of a library function": "import statistics\ntry:\n    statistics.mean([])\nexcept ValueError as e:\n    print(e)",
    "literal_eval of what is no literal": "from ast import literal_eval\ntry:\n    literal_eval('f(x)')\nexcept ValueError:\n    print('refused')",
    "a deleted item that isn't there": "try:\n    d = {}\n    del d['a']\nexcept KeyError as e:\n    print(repr(e))",
    "a deleted item out of range": "try:\n    xs = [1]\n    del xs[5]\nexcept IndexError as e:\n    print(e)",
    "a deleted name that isn't there": "try:\n    del nowhere\nexcept NameError as e:\n    print(e)",
    "a deleted name that comes back": "n = 1\ndel n\nn = 2\nprint(n)",
    "del within a block": "xs = [1, 2, 3]\nfor i in (2, 0):\n    if i: del xs[i]\nprint(xs)",
    "del with parentheses": "a = 1; b = {'k': 2}\ndel(a)\nprint('a' in globals())\ndel b [ 'k' ]\nprint(b)",
    "map over two lists": "print(list(map(lambda a, b: a + b, [1, 2], [3, 4])))",
    "map with a function of the code's own": "def tag(x):\n    return llm_query(x)\nprint(list(map(tag, ['a', 'b'])), list(filter(lambda t: tag(t) == 'B', 'ab')))",
    "a key that is a function of the code's own": "def rank(x):\n    return -len(x)\nprint(sorted(['a', 'bb'], key=rank), min(['a', 'bb'], key=rank), max([], key=rank, default=7))",
    "sorting is stable": "rows = [('b', 1), ('a', 1), ('c', 0)]\ndef second(r):\n    return r[1]\nprint(sorted(rows, key=second), sorted(rows, key=second, reverse=True))",
    "the first of equal extremes": "def one(x):\n    return 1\nprint(max('abc', key=one), min('abc', key=one))",
    "re.sub with a count and flags": "import re\nprint(re.sub('A', 'x', 'aAa', count=2, flags=re.I), re.sub(r'(\\w)@(\\w)', r'\\2 \\1', 'a@b'))",
    "sub of another object": "class Bag:\n    def sub(self, a, b):\n        return a + b\nprint(Bag().sub(1, 2))",
    "a heap of pairs": "import heapq\nh = []\nfor n, w in [(3, 'c'), (1, 'a'), (2, 'b'), (1, 'd')]:\n    heapq.heappush(h, (n, w))\nprint(h, [heapq.heappop(h) for _ in range(4)], heapq.heappushpop([2, 5], 1))",
    "lines of a text file in memory": "import io\nf = io.StringIO('a\\nb\\n')\nprint(f.readline(), [l for l in f], f.read(), f.tell())\nf.seek(0)\nprint(f.readlines())\nwith io.StringIO() as g:\n    print(g.write('xy'), g.getvalue())",
    "constants of string": "import string\nprint([string.whitespace, string.printable, string.hexdigits, string.octdigits])",
    "ascii of many planes": "print(ascii('a\\n\\xe9\\u20ac\\U0001f600'))",
    "callable of everything": "import math\nclass A: pass\nclass B:\n    def __call__(self): pass\nprint([callable(x) for x in (len, int, A, A(), B(), math.sqrt, lambda: 0, 'a', None)])",
    "names in functions stay local": "def f():\n    del_me = {'a': 1}\n    del del_me['a']\n    return del_me\nprint(f())",
    "P by the host and by the sandbox": "print(P.find('is', 10), P.rfind('a'), P[:3], P.index('key'))\ntry:\n    P.index('nowhere')\nexcept ValueError as e:\n    print(e)",
    "a P of the code's own": "def f(P):\n    return P.find('b')\nprint(f('abc'))",
    "a generator that searches": "def places(text, sub):\n    at = text.find(sub)\n    while at != -1:\n        yield at\n        at = text.find(sub, at + 1)\nprint(list(places(P, 'a')), next(places(P, 'k')), sum(1 for _ in places(P, 'hay')))",
    "a generator of tuples": "def pairs(text):\n    'Doc.'\n    for i, c in enumerate(text): yield i, c\n    yield (len(text))\n    yield\n    yield from (1, 2)\ng = pairs('ab')\nprint(next(g), list(g), list(g))",
    "a generator that returns early": "def upto(n):\n    i = 0\n    while True:\n        if i == n:\n            return\n        yield i\n        i += 1\nfor x in upto(3):\n    print(x)",
    "a generator that fails half-way": "def bad(n):\n    for i in range(n):\n        yield int('12x'[i])\ntry:\n    for x in bad(5):\n        print(x)\nexcept ValueError as e:\n    print(e)",
    "a generator in a function": "def f(text):\n    def pieces(t, n=2):\n        for i in range(0, len(t), n):\n            yield t[i:i + n]\n    return [p for p in pieces(text)], ','.join(pieces(text, n=3))\nprint(f('abcde'))",
    "a generator without arguments": "def words():\n    for w in P.split()[:2]:\n        yield w\nprint(*words())",
    "exec and eval": "exec('x = 3')\nprint(eval('x + len(P[:4])'))",
    "unicode columns": "é = {'ü': 1}; del é['ü']; print(é, next(x for x in 'öä'), max('öä', key=str.upper))",
    "line ends of Windows": "d = {'a': 1}\r\ndel d['a']\r\nprint(d)\r\n",
}  # fmt: skip
ALL = {**dict(BRIDGES), **MORE}


@cache
def results() -> dict[str, tuple[CodeResult, CodeResult]]:
    """What each cell comes to in CPython and in the sandbox, in a session for all."""

    async def run(repl: Repl) -> list[CodeResult]:
        try:
            return [await answer_all(repl, code, bad_fails) for code in ALL.values()]
        finally:
            await repl.close()

    async def main() -> list[list[CodeResult]]:
        made = (PythonRepl, MontyRepl)
        return [await run(make(context_of(HAYSTACK), settings_of())) for make in made]

    python, monty = asyncio.run(main())
    return dict(zip(ALL, zip(python, monty, strict=True), strict=True))


@pytest.mark.parametrize("what", ALL)
def test_a_bridge_gives_what_cpython_gives(what: str) -> None:
    python, monty = results()[what]
    assert python.error is None, python.error
    assert (monty.stdout, monty.error) == (python.stdout, None)
    assert python.stdout


def monty(*codes: str, source: str = HAYSTACK, **settings: Any) -> CodeResult:
    """What the last cell comes to in the sandbox."""

    async def main() -> CodeResult:
        repl = MontyRepl(context_of(source), settings_of(**settings))
        try:
            return [await answer_all(repl, code) for code in codes][-1]
        finally:
            await repl.close()

    return asyncio.run(main())


def advice(code: str) -> str:
    """The error that a cell ends with."""
    error = monty(code).error
    assert error is not None
    return error.message


@pytest.mark.parametrize("gap", [gap for gap in GAPS if gap.example], ids=lambda gap: gap.example)
def test_a_gap_is_named_with_a_way_round(gap: Any) -> None:
    if "except*" in gap.example:
        pytest.skip("checked with the sandbox's message")
    assert advice(gap.example).endswith(gap.advice)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from heapq import merge", "Only these names of heapq are here: heappush"),
        ("import io\nio.BytesIO(b'')", "module has no attribute 'BytesIO'. Only a part"),
        ("from functools import wraps", "leave it out"),
        ("import re\nre.compile('a', re.VERBOSE)", "without spaces and comments"),
        ("'a'.translate({})", "isn't available here"),
        ("import pandas", "csv.DictReader"),
        ("import asyncio\nasyncio.Lock()", "await one call after the other"),
        ("import asyncio\nasyncio.Semaphore(1)", "one call after the other"),
    ],
)
def test_parts_that_are_missing_are_named(code: str, said: str) -> None:
    assert said in advice(code)


def test_mistakes_of_the_code_come_without_advice() -> None:
    for message in (
        "module 'math' has no attribute 'foo'",
        "'dict' object has no attribute 'push'",
        "name 'foo' is not defined",
        "cannot import name 'foo' from 're' (unknown location)",
    ):
        assert hint(message) is None, message


def test_advice_on_names_is_about_names_that_are_not_offered() -> None:
    offered = {name for module in MODULES for name in SHIMS[module].names}
    assert not offered & INSTEAD_OF_NAME.keys()


# Sources


def test_a_changed_source_keeps_its_lines() -> None:
    for code in ALL.values():
        cell = prepare(code, 1, ("llm_query",))
        assert cell.code.count("\n") == code.count("\n") + len(cell.inserted), code


def test_a_source_without_gaps_is_changed_in_nothing_but_its_echo() -> None:
    code = "import re\nxs = [len(w) for w in P.split()]\nprint(sorted(xs, key=abs), max(xs))\nxs"
    assert prepare(code, 1).code == code[:-2] + "_rlm_echo((xs))"


def test_a_traceback_shows_the_line_as_it_was_written() -> None:
    error = monty("d = {'a': 1}\nimport heapq\ndel d['a'], d['b']").error
    assert error is not None
    assert error.traceback == (
        "Traceback (most recent call last):\n"
        '  File "<cell 1>", line 3, in <module>\n'
        "    del d['a'], d['b']\n"
        "KeyError: 'b'"
    )


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    print('a')\n    yield 1",
        "def f():\n    yield llm_query('a')",
        "def f():\n    x = yield 1",
        "def f():\n    while True:\n        yield 1",
        "seen = []\ndef f():\n    for x in seen:\n        yield x",
        "def f(x):\n    x.append(1)\n    yield 1",
        "def f(x):\n    x[0] = 1\n    yield 1",
        "def f(x):\n    try:\n        yield 1\n    finally:\n        x()",
        "@deco\ndef f():\n    yield 1",
        "class A:\n    def f(self):\n        yield 1",
        "def f(len):\n    yield 1\ndef g(x):\n    yield len(x)",
    ],
)
def test_a_generator_whose_time_of_running_can_be_told_is_not_bridged(code: str) -> None:
    assert not prepare(code, 1).inserted or code.startswith("def f(len)")
    assert "yield" in prepare(code, 1).code


def test_a_generator_of_what_can_change_is_refused_when_it_is_called() -> None:
    code = "def f(xs):\n    for x in xs:\n        yield x\nf((1, 'a'))\nf([1])"
    assert "it was given a list" in advice(code).replace("this one", "it")


def test_lines_after_a_bridged_generator_keep_their_numbers() -> None:
    code = "def f(n):\n    yield n\ndef g(n):\n    yield n\ndef h(n):\n    return 1 // n\nh(0)"
    error = monty(code).error
    assert error is not None
    assert error.traceback.splitlines()[1:5] == [
        '  File "<cell 1>", line 7, in <module>',
        "    h(0)",
        '  File "<cell 1>", line 6, in h',
        "    return 1 // n",
    ]


def test_wraps_at_one_place_nest() -> None:
    edits = Edits("f(x)")
    edits.wrap(0, 4, "outer(", ")")
    edits.wrap(0, 4, "inner(", ")")
    edits.wrap(2, 3, "a[", "]")
    assert edits.result() == "outer(inner(f(a[x])))"


def test_variables_of_the_code_are_not_taken_by_what_is_added() -> None:
    first = "module = 1\nStringIO = 2\ncallable = 3\nnlargest = 4"
    code = "import heapq, io\nio.StringIO()\nprint(module, StringIO, callable, nlargest)"
    assert monty(first, code).stdout == "1 2 3 4\n"


@pytest.mark.parametrize(
    ("define", "use", "shown"),
    [
        ("def sorted(xs, key):\n    return 'mine'", "sorted('ab', key=lambda c: f(c))", "'mine'"),
        ("map = lambda f, xs: 'mine'", "map(lambda c: f(c), 'ab')", "'mine'"),
        ("def hasattr(x, name):\n    return 'mine'", "hasattr('a', 'b')", "'mine'"),
        ("class re:\n    sub = 1\nre = 5", "re + 1", "6"),
        ("iter = 5", "sum(list(x for x in [iter]))", "5"),
        ("callable = 5", "callable", "5"),
        ("def llm_query(p):\n    return 'mine'\nx = llm_query('a')", "x", "'mine'"),
    ],
)
def test_names_that_the_code_took_keep_their_meaning(define: str, use: str, shown: str) -> None:
    result = monty(define, use)
    assert (result.stdout, result.error) == (f"{shown}\n", None)


def test_what_is_added_is_no_variable() -> None:
    code = "import heapq, asyncio\ncallable(5)\nx = 1\nprint(SHOW_VARS())"
    assert monty(code, "print(SHOW_VARS())").stdout == "x: int\n"


# Long texts


def test_the_text_stays_on_the_host_until_code_needs_it() -> None:
    for code, wanted in (
        ("P.find('a') + P.count('b')", False),
        ("ctx.find('a')", False),
        ("peek(5)", False),
        ("P[:5]", True),
        ("text = P", True),
        ("'P' in globals()", True),
        ("def f(P):\n    return P", True),
    ):
        assert prepare(code, 1).wants_text is wanted, code


def test_finding_all_places_in_a_long_text_takes_no_square_of_time() -> None:
    code = "n = i = 0\nwhile (i := P.find('x', i)) != -1:\n    n += 1\n    i += 1\nprint(n)"
    text = ("y" * 999 + "x") * 10_000
    result = monty(code, source=text, cell_timeout_s=10.0)
    assert (result.stdout, result.error) == ("10000\n", None)


def test_replacing_in_a_long_text_takes_no_square_of_time() -> None:
    code = r"import re" + "\n" + r"print(len(re.sub(r'\s+', ' ', 'ab  ' * 1_000_000)))"
    result = monty(code, cell_timeout_s=10.0)
    assert (result.stdout, result.error) == ("3000000\n", None)


# CPython's functions


def library(allowed_s: float = 20.0, memory_bytes: int = 256 << 20) -> Library:
    """A library with a fixed allowance for each call."""
    return Library(allowed_s=lambda: allowed_s, memory_bytes=memory_bytes)


def test_a_library_function_that_takes_too_long_is_stopped_and_the_next_one_runs() -> None:
    made = library(allowed_s=1.0)
    try:
        functions = made.functions()
        with pytest.raises(TimeoutError, match=r"re\.sub took more than 1 seconds"):
            functions["_rlm_lib_re_sub"]("(a+)+$", "", "a" * 40 + "b", count=0, flags=0)
        made._allowed_s = lambda: 20.0
        assert functions["_rlm_lib_statistics_mean"]([1, 2, 3]) == 2
    finally:
        made.close()


def test_a_library_function_that_takes_too_much_memory_is_an_error() -> None:
    made = library(memory_bytes=64 << 20)
    try:
        with pytest.raises(MemoryError):
            made.functions()["_rlm_lib_textwrap_indent"]("a\n" * 100, "x" * (8 << 20))
        assert made.functions()["_rlm_lib_html_escape"]("<") == "&lt;"
    finally:
        made.close()


def test_a_library_function_takes_plain_data_only() -> None:
    made = library()
    with pytest.raises(TypeError, match="plain data"):
        made.functions()["_rlm_lib_html_escape"](object())
    made.close()
