"""The functions of model-written code: what they ask, what they give back, what they refuse."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effects.repls._arguments import DEFAULT_CHUNK_CHARS
from effects.repls._functions import (
    Answer,
    Ask,
    SubcallError,
    SubcallLimitError,
    drive,
    pick_first_answer,
    plain,
    programs,
    show_vars,
)
from effects.repls._text import TextView
from rlm_fsm.values import HostCall

VIEW = TextView("alpha beta\n\ngamma", [(0, 10), (12, 17)], "document_list")
BATCHES = ("llm_batch", "llm_query_batched", "rlm_query_batched", "llm_query_batch")
ABOUT_CHUNKS = ("ask_chunks", "ask_chunked", "ask_chunks_first")


class Host:
    """Answers each prompt by a rule and remembers what was asked."""

    def __init__(self, rule: Callable[[str], Answer] | None = None) -> None:
        self.rule = rule or (lambda prompt: ("text", f"<{prompt}>"))
        self.asks: list[Ask] = []

    def __call__(self, ask: Ask) -> list[Answer]:
        self.asks.append(ask)
        return [self.rule(call["prompt"]) for call in ask.calls]

    @property
    def prompts(self) -> list[str]:
        return [call["prompt"] for ask in self.asks for call in ask.calls]

    def run(self, name: str, *args: Any, parallel_subcalls: bool = False, **kwargs: Any) -> Any:
        made = programs(VIEW, parallel_subcalls=parallel_subcalls)
        return drive(made[name](*args, **kwargs), self)


def failing(*prompts: str, kind: str = "error") -> Host:
    return Host(lambda prompt: (kind, f"no {prompt}") if prompt in prompts else ("text", prompt))


def about(question: str, text: str) -> str:
    return f"Question: {question}\nSnippet:\n{text}"


# -- single questions


def test_llm_query_asks_once_and_returns_the_reply() -> None:
    host = Host()
    assert host.run("llm_query", "hi", model="mini", max_tokens=9) == "<hi>"
    assert host.asks == [
        Ask(
            [
                {
                    "fn": "llm_query",
                    "prompt": "hi",
                    "question": None,
                    "model": "mini",
                    "max_tokens": 9,
                    "recursive": None,
                    "dedupe": True,
                    "kind": "subcall",
                    "is_sample": False,
                }
            ],
            False,
        )
    ]


def test_every_call_has_exactly_the_fields_of_a_host_call() -> None:
    wanted = {item.name for item in fields(HostCall)} - {"schema", "fault"}
    for name in programs(VIEW, parallel_subcalls=False):
        host = Host()
        if name.startswith("ask"):
            host.run(name, "q", ["x"] if "chunks" in name else "x")
        else:
            host.run(name, ["x"] if "batch" in name else "x")
        for ask in host.asks:
            for call in ask.calls:
                assert set(call) == wanted
                assert HostCall(**call).fn == name


def test_rlm_functions_ask_for_a_sub_run() -> None:
    host = Host()
    assert host.run("rlm_query", "a") == "<a>"
    assert host.run("rlm_query_batched", ["b", "c"]) == ["<b>", "<c>"]
    assert [call["recursive"] for ask in host.asks for call in ask.calls] == [True] * 3


@pytest.mark.parametrize("name", ["ask", "ask_chunk"])
def test_ask_puts_the_question_before_the_text(name: str) -> None:
    host = Host()
    host.run(name, "who?", "me", max_tokens=5)
    [call] = host.asks[0].calls
    assert call["prompt"] == "Question: who?\nSnippet:\nme"
    assert (call["question"], call["max_tokens"], call["fn"]) == ("who?", 5, name)


def test_an_empty_question_sends_the_text_alone() -> None:
    host = Host()
    host.run("ask", "", "text")
    assert (host.prompts, host.asks[0].calls[0]["question"]) == (["text"], None)


@pytest.mark.parametrize("name", ["llm_query", "rlm_query", "ask"])
def test_a_failed_subcall_raises(name: str) -> None:
    args = ("q", "x") if name == "ask" else ("x",)
    with pytest.raises(SubcallError, match=r"^gone$") as caught:
        Host(lambda _: ("error", "gone")).run(name, *args)
    assert not isinstance(caught.value, SubcallLimitError)
    assert caught.value.results == [None]
    with pytest.raises(SubcallLimitError, match=r"^max_subcalls$"):
        Host(lambda _: ("limit", "max_subcalls")).run(name, *args)


# -- batches


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_one_ask_with_answers_in_order(name: str) -> None:
    host = Host()
    assert host.run(name, ["a", "b", "a"]) == ["<a>", "<b>", "<a>"]
    assert [len(ask.calls) for ask in host.asks] == [3]


@pytest.mark.parametrize("name", BATCHES + ABOUT_CHUNKS[:2])
def test_an_empty_batch_asks_nothing(name: str) -> None:
    host = Host()
    assert host.run(name, *(["q", []] if name in ABOUT_CHUNKS else [[]])) == []
    assert host.asks == []


def test_llm_batch_is_always_parallel_and_chunks_are_when_told() -> None:
    def parallel(name: str, *args: Any, switch: bool = False, **kwargs: Any) -> bool:
        host = Host()
        host.run(name, *args, parallel_subcalls=switch, **kwargs)
        return host.asks[0].parallel

    assert parallel("llm_batch", ["a"])
    assert parallel("llm_query_batched", ["a"])
    for name, args in [("ask_chunks", ("q", ["a"])), ("llm_query_batch", (["a"],))]:
        assert not parallel(name, *args)
        assert parallel(name, *args, switch=True)
        assert parallel(name, *args, parallel=True)
        assert not parallel(name, *args, switch=True, parallel=False)


@pytest.mark.parametrize("name", BATCHES)
def test_a_failure_in_a_batch_raises_with_the_answers_that_came(name: str) -> None:
    with pytest.raises(
        SubcallError, match=r"2 of 4 subcalls failed: 1 with: no b; 1 with: no d\."
    ) as e:
        failing("b", "d").run(name, ["a", "b", "c", "d"])
    assert e.value.results == ["a", None, "c", None]
    assert type(e.value) is SubcallError
    assert ".results" in str(e.value)
    assert 'on_error="return"' in str(e.value)


def test_a_limit_in_a_batch_is_a_limit_error() -> None:
    answers: dict[str, Answer] = {"a": ("error", "x"), "b": ("limit", "y"), "c": ("text", "z")}
    with pytest.raises(SubcallLimitError) as caught:
        Host(answers.__getitem__).run("llm_batch", ["a", "b", "c"])
    assert caught.value.results == [None, None, "z"]
    assert isinstance(caught.value, RuntimeError)


def test_failures_come_back_marked_when_asked_for() -> None:
    host = failing("b")
    assert host.run("llm_batch", ["a", "b"], on_error="return") == ["a", "[ERROR] no b"]
    assert host.run("llm_query_batch", ["b"], on_error="return") == ["[ERROR] no b"]


def test_dedupe_can_be_switched_off() -> None:
    host = Host()
    host.run("llm_batch", ["a", "a"], dedupe=False)
    host.run("llm_query_batch", ["a", "a"], dedupe=False)
    assert [call["dedupe"] for ask in host.asks for call in ask.calls] == [False] * 4


def test_batches_take_what_ctx_returns() -> None:
    view, host = TextView("abcdef"), Host()
    host.run("llm_batch", view.chunk(4))
    host.run("llm_batch", (text for _, _, text in view.find("b")))
    assert host.prompts == ["abcd", "ef", "b"]


# -- questions about chunks


@pytest.mark.parametrize(
    ("chunks", "texts"),
    [
        (["a", "b"], ["a", "b"]),
        (("a", "b"), ["a", "b"]),
        (TextView("abcdef").chunk(4), ["abcd", "ef"]),
        (TextView("abcabc").find("b"), ["b", "b"]),
        ([[0, 2, "as JSON has it"]], ["as JSON has it"]),
        (VIEW.chunk_documents(10), ["alpha beta\n\ngamma"]),
        (VIEW.chunk_documents(1), ["alpha beta", "gamma"]),
        ([["a", "b"], ["c"]], ["a\n\nb", "c"]),
        ([VIEW, "x"], ["alpha beta\n\ngamma", "x"]),
        (["", "x"], ["", "x"]),
        (VIEW, ["alpha beta\n\ngamma"]),
        ("one text", ["one text"]),
        ("", []),
    ],
)
def test_chunks_come_in_every_form_that_ctx_returns(chunks: object, texts: list[str]) -> None:
    for name in ("ask_chunks", "ask_chunked"):
        host = Host()
        host.run(name, "q", chunks)
        assert host.prompts == [about("q", text) for text in texts]
    host = Host()
    host.run("llm_query_batch", chunks)
    assert host.prompts == texts


def test_texts_are_cut_to_the_size_given() -> None:
    for chunks in ("abcdefgh", TextView("abcdefgh"), ["abcdefgh"]):
        host = Host()
        host.run("llm_query_batch", chunks, chunk_size=4, overlap=1)
        assert host.prompts == ["abcd", "defg", "gh"]


def test_a_long_text_without_a_size_is_cut_by_default() -> None:
    host = Host()
    host.run("llm_query_batch", "x" * (DEFAULT_CHUNK_CHARS + 1))
    host.run("llm_query_batch", ["x" * (DEFAULT_CHUNK_CHARS + 1)])
    assert [len(prompt) for prompt in host.prompts] == [
        DEFAULT_CHUNK_CHARS,
        1,
        DEFAULT_CHUNK_CHARS + 1,
    ]


@given(st.text(max_size=60), st.integers(1, 20), st.integers(0, 19))
def test_pieces_are_those_that_ctx_chunk_gives(text: str, size: int, overlap: int) -> None:
    overlap %= size
    host = Host()
    host.run("llm_query_batch", text, chunk_size=size, overlap=overlap)
    assert host.prompts == [piece for _, _, piece in TextView(text).chunk(size, overlap)]


def test_swapped_arguments_are_understood() -> None:
    host = Host()
    host.run("ask_chunks", ["a"], "q")
    host.run("ask_chunks_first", TextView("a"), "q")
    host.run("llm_query_batch", ["a"], "what is it?")
    host.run("llm_query_batch", "q", ["a"])
    host.run("llm_query_batch", ["a"], question="q")
    assert (
        host.prompts == [about("q", "a")] * 2 + [about("what is it?", "a")] + [about("q", "a")] * 2
    )


def test_llm_query_batch_takes_a_model_in_second_place() -> None:
    host = Host()
    host.run("llm_query_batch", ["a"], "mini", 5, True)
    [call] = host.asks[0].calls
    assert (call["model"], call["max_tokens"], host.asks[0].parallel) == ("mini", 5, True)


# -- wrong arguments


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "said"),
    [
        ("llm_query", (5,), {}, "the prompt must be a text .*, not int"),
        ("llm_query", (None,), {}, "not NoneType"),
        ("llm_query", ([],), {}, "not list"),
        ("llm_query", ("x",), {"model": 3}, "model must be a name"),
        ("llm_query", ("x",), {"max_tokens": "9"}, "max_tokens must be a whole number"),
        ("llm_query", ("x",), {"max_tokens": True}, "max_tokens must be a whole number"),
        ("llm_batch", ("x",), {}, "prompts must be a list of texts .*, not str"),
        ("llm_batch", (b"x",), {}, "not bytes"),
        ("llm_batch", ({"a": 1},), {}, "not dict"),
        ("llm_batch", (["a", 3],), {}, r"prompts\[1\] must be a text .*, not int"),
        ("llm_batch", (["a"],), {"dedupe": 1}, "dedupe must be True, False or None"),
        ("ask", (["x"], "q"), {}, "question, the first argument, must be a str, not list"),
        ("ask", ("q", 4), {}, "text must be a text"),
        ("ask_chunks", (3, ["a"]), {}, "question, the first argument"),
        ("ask_chunks", ("q", 3), {}, "chunks must be a list"),
        ("ask_chunks", ("q", None), {}, "chunks must be a list"),
        ("ask_chunks", ("q", (0, 5, "x")), {}, r"chunks\[0\] must be a text"),
        ("ask_chunks", ("q", "x"), {"chunk_size": 2.0}, "chunk_size must be a whole number"),
        ("ask_chunks", ("q", ["x"]), {"parallel": "yes"}, "parallel must be True, False or None"),
        ("ask_chunks_first", (None, ["x"]), {}, "question, the first argument"),
    ],
)
def test_a_wrong_type_says_what_was_expected(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    host = Host()
    with pytest.raises(TypeError, match=said):
        host.run(name, *args, **kwargs)
    assert host.asks == [], "nothing is asked before all is known to be right"


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"chunk_size": 0}, "chunk_size must be 1 or more"),
        ({"chunk_size": 4, "overlap": 4}, "overlap from 0 to below it"),
        ({"overlap": 1}, "give chunk_size too"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more"),
        ({"on_error": "ignore"}, "'raise' or 'return', not 'ignore'"),
    ],
)
def test_a_wrong_value_says_what_was_expected(kwargs: dict[str, Any], said: str) -> None:
    for name in ("ask_chunks", "ask_chunks_first"):
        with pytest.raises(ValueError, match=said):
            Host().run(name, "q", ["x"], **kwargs)


def test_pythons_own_messages_name_the_function_as_code_knows_it() -> None:
    for name, program in programs(VIEW, parallel_subcalls=False).items():
        with pytest.raises(TypeError, match=rf"^{name}\(\) missing"):
            program()
        assert program.__doc__


@pytest.mark.parametrize("answers", ["yes", b"x", {"a": "b"}, 3, None])
def test_pick_first_answer_wants_a_list(answers: Any) -> None:
    with pytest.raises(TypeError, match="answers must be a list"):
        pick_first_answer(answers)
    with pytest.raises(TypeError, match="answers must hold texts"):
        pick_first_answer([3])


# -- plain functions and driving


def test_plain_functions_read_the_context() -> None:
    functions = plain(VIEW)
    assert sorted(functions) == ["extract_after", "lenP", "peek", "pick_first_answer", "tail"]
    assert functions["peek"](5) == "alpha"
    assert functions["tail"](n=5) == "gamma"
    assert functions["lenP"]() == 17
    assert functions["extract_after"]("alpha") == "beta"
    assert functions["extract_after"]("alpha", max_len=3, until="line") == "be"
    assert functions["pick_first_answer"](["", "x"]) == "x"


def test_show_vars_lists_names_and_types() -> None:
    assert show_vars({"a": "int", "rows": "list"}) == "a: int\nrows: list"
    assert show_vars({}) == "No variables yet."


def test_an_error_of_the_host_reaches_the_caller() -> None:
    def ask(_: Ask) -> list[Answer]:
        raise StopIteration("the pipe is gone")

    program = programs(VIEW, parallel_subcalls=False)["llm_query"]("x")
    with pytest.raises(StopIteration):
        drive(program, ask)


def test_a_wrong_number_of_answers_is_noticed() -> None:
    program = programs(VIEW, parallel_subcalls=False)["llm_batch"](["x", "y"])
    with pytest.raises(RuntimeError, match="2 subcalls were asked, 1 answers came"):
        drive(program, lambda _: [("text", "one")])


def test_a_program_can_be_paused_and_resumed_by_hand() -> None:
    program = programs(VIEW, parallel_subcalls=True)["ask_chunks"]("q", ["a", "b"])
    ask = next(program)
    assert (len(ask.calls), ask.parallel) == (2, True)
    with pytest.raises(StopIteration) as ended:
        program.send([("text", "1"), ("text", "2")])
    assert ended.value.value == ["1", "2"]
