"""The functions that model-written code calls, subcalls above all; one source for all backends.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.

A function that asks sub-models is a *program*: a generator function. Called, it checks its
arguments, yields an `Ask`, is sent the answers in the order of the calls, and returns what the
code gets. A backend that runs code in a process of its own drives a program with a blocking pipe
(`drive`); one that suspends code keeps the generator and goes on when the answers are there.

1. A wrong argument is a `TypeError` or `ValueError` that says what was expected.
2. A subcall that failed never comes back as a text that could be taken for an answer:
   it raises, or it is marked with `ERROR_MARK` where the code asked for that.
3. Texts are taken in every form that the context's own methods return them in (`_arguments`).
"""

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING or __package__:
    from effects.repls import _arguments, _schemas, _sizes, _words
else:
    import _arguments
    import _schemas
    import _sizes
    import _words

ERROR_MARK = "[ERROR] "
"""What a failed subcall's text begins with under ``on_error="return"``."""
NO_ANSWER = "NO_ANSWER"
"""What a sub-model replies when its piece doesn't hold the answer."""
MAX_ANSWER_CHARS = 80
"""Longest text that `pick_first_answer` accepts: longer ones are explanations."""


class SubcallError(RuntimeError):
    """A subcall failed. `results` holds what did arrive (texts, or data where that was asked for),
    None where an answer is missing."""

    def __init__(self, message: str, results: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.results: list[Any] = list(results)


class SubcallLimitError(SubcallError):
    """A limit of the run forbade a subcall. Asking again won't help: answer with what is there."""


_MISSING: Any = object()
_ERRORS = {"error": SubcallError, "limit": SubcallLimitError}


class Ask(NamedTuple):
    """Questions for the host, asked together."""

    calls: list[dict[str, Any]]
    """Plain data, each with the fields of a `HostCall`."""
    parallel: bool
    """False: one after the other, in this order."""
    said: str = ""
    """A line to print first; without calls, all that is done."""


Answer = tuple[str, str]
"""How a call ended: (kind, text), with the kinds ``text``, ``error`` and ``limit``."""
Program = Generator[Ask, list[Answer], Any]


class Styles(NamedTuple):
    """How subcalls that failed look to the code: templates with ``{message}``, empty to raise."""

    single: str = ""
    """What `llm_query` and `rlm_query` return."""
    batch: str = ""
    """What stands in the list of a batch."""


RAISE = Styles()
"""Every failure raises."""


class View(Protocol):
    """What is needed of the context."""

    def len_chars(self) -> int: ...
    def peek(self, n: int = 2000) -> str: ...
    def tail(self, n: int = 2000) -> str: ...
    def extract_after(self, marker: str) -> str | None: ...


def programs(
    view: View, *, parallel_subcalls: bool, styles: Styles = RAISE
) -> dict[str, Callable[..., Program]]:
    """The functions that ask sub-models, by name.

    `parallel_subcalls` is what ``parallel=None`` means to the functions that take chunks, and
    `styles` what ``on_error=None`` means. `ask` and its relatives always raise.
    """
    made = {
        "llm_query": query("llm_query", None, styles.single),
        "rlm_query": query("rlm_query", True, styles.single),
        "llm_batch": batch("llm_batch", None, styles.batch),
        "llm_query_batched": batch("llm_query_batched", None, styles.batch),
        "batch_llm_query": batch("batch_llm_query", None, styles.batch),
        "rlm_query_batched": batch("rlm_query_batched", True, styles.batch),
        "llm_query_batch": _query_batch(parallel_subcalls, styles.batch),
        "ask": _ask("ask"),
        "ask_chunk": _ask("ask_chunk"),
        "ask_chunks": _ask_chunks("ask_chunks", parallel_subcalls),
        "ask_chunked": _ask_chunks("ask_chunked", parallel_subcalls),
        "ask_chunks_first": ask_chunks_first,
    }
    for name, function in made.items():  # Python's own messages use the qualified name
        function.__name__ = function.__qualname__ = name
    return made


def plain(view: View) -> dict[str, Callable[..., Any]]:
    """The functions that only read the context or their arguments, by name."""
    return {
        "peek": view.peek,
        "tail": view.tail,
        "lenP": view.len_chars,
        "extract_after": view.extract_after,
        "pick_first_answer": pick_first_answer,
    }


def pick_first_answer(answers: Iterable[str | None]) -> str | None:
    """The first acceptable answer, stripped, or None.

    Acceptable is what isn't empty, not NO_ANSWER, one line, at most 80 characters, without a code
    fence, and no failure. None among the answers is passed over.
    """
    for answer in _arguments.items_of("answers", answers):
        if answer is None:
            continue
        if not isinstance(answer, str):
            raise TypeError(f"answers must hold texts (str), not {_arguments.kind_of(answer)}")
        if (accepted := _accepted(answer)) is not None:
            return accepted
    return None


def show_vars(variables: Mapping[str, str]) -> str:
    """What `SHOW_VARS()` gives: a line ``name: type`` for each variable."""
    return "\n".join(f"{name}: {kind}" for name, kind in variables.items()) or "No variables yet."


def drive(program: Program, ask: Callable[[Ask], list[Answer]]) -> Any:
    """Run a program to its end with a blocking `ask`, and return its value."""
    answers: Any = None  # what starts a generator
    while True:
        try:
            request = program.send(answers)
        except StopIteration as stop:
            return stop.value
        if request.said:
            print(request.said)
        answers = ask(request) if request.calls else []


def query(name: str, recursive: bool | None, style: str) -> Callable[..., Program]:
    """A function `name` that asks one prompt; `style` is how a failure looks, see `Styles`."""

    def query(
        text: object = _MISSING,
        model: str | None = None,
        max_tokens: int | None = None,
        *,
        prompt: object = _MISSING,
        schema: object = None,
    ) -> Program:
        """Ask a sub-model that sees only this text. Returns its reply; with a schema, the data."""
        if text is _MISSING and prompt is _MISSING:
            raise TypeError(f"{name}() missing 1 required positional argument: 'text'")
        if text is not _MISSING and prompt is not _MISSING:
            raise TypeError(f"{name}() takes text or prompt, not both: they mean the same")
        return one(text if prompt is _MISSING else prompt, model, max_tokens, schema)

    def one(text: object, model: object, max_tokens: object, schema: object) -> Program:
        texts = [_arguments.text_of("the prompt", text)]
        calls = _calls(name, None, texts, model, max_tokens, recursive, schema=schema)
        if schema is None:
            return (yield from _one(calls, style))
        return json.loads((yield from _one(calls)))  # a failure is no data: it raises

    return query


def batch(name: str, recursive: bool | None, style: str) -> Callable[..., Program]:
    """A function `name` that asks many prompts in parallel; `style` as in `query`."""

    def batch(
        prompts: object,
        model: str | None = None,
        max_tokens: int | None = None,
        on_error: str | None = None,
        dedupe: bool = True,
        *,
        schema: object = None,
    ) -> Program:
        """Ask many prompts at once, in parallel. Returns the replies in the same order; with a
        schema, the data."""
        texts = _arguments.texts_of("prompts", prompts)
        calls = _calls(name, None, texts, model, max_tokens, recursive, dedupe, schema)
        if schema is None:
            return (yield from _many(calls, True, on_error, style))
        return (yield from _many(calls, True, on_error, read=json.loads))

    return batch


def _ask(name: str) -> Callable[..., Program]:
    def ask(
        question: str, text: object, max_tokens: int | None = None, model: str | None = None
    ) -> Program:
        """Ask a sub-model a question about a text. Returns its reply."""
        texts = [_arguments.text_of("text", text)]
        return (
            yield from _one(
                _calls(name, _arguments.checked_question(question), texts, model, max_tokens)
            )
        )

    return ask


def _ask_chunks(name: str, parallel_subcalls: bool) -> Callable[..., Program]:
    def ask_chunks(
        question: object,
        chunks: object,
        max_tokens: int | None = None,
        chunk_size: int | None = None,
        overlap: int = 0,
        parallel: bool | None = None,
        model: str | None = None,
        on_error: str = "raise",
        dedupe: bool = True,
    ) -> Program:
        """Ask one question about each chunk. Returns the replies in the order of the chunks.

        Chunks are ctx, a text, a list of texts, or what ctx.find, ctx.chunk and
        ctx.chunk_documents return. ctx and a text are cut into pieces of chunk_size characters.
        """
        asked, chunks = _arguments.in_order(question, chunks)
        texts = _sizes.pieces_of(name, chunks, chunk_size, overlap)
        calls = _calls(name, asked, texts, model, max_tokens, dedupe=dedupe)
        is_parallel = _arguments.flag("parallel", parallel, parallel_subcalls)
        return (yield from _many(calls, is_parallel, on_error))

    return ask_chunks


def _query_batch(parallel_subcalls: bool, style: str) -> Callable[..., Program]:
    def query_batch(
        chunks: Any,
        model: Any = None,
        max_tokens: int | None = None,
        parallel: bool | None = None,
        *,
        question: str | None = None,
        chunk_size: int | None = None,
        overlap: int = 0,
        on_error: str | None = None,
        dedupe: bool = True,
    ) -> Program:
        """Ask a sub-model about each chunk, given alone or with a question. Returns the replies.

        Chunks are as in ask_chunks.
        """
        if isinstance(chunks, str) and model is not None and not isinstance(model, str):
            chunks, model, question = model, None, chunks  # called as (question, chunks)
        elif isinstance(model, str) and question is None and len(model.split()) > 1:
            model, question = None, model  # called as (chunks, question): a model's name is a word
        asked = None if question is None else _arguments.checked_question(question)
        texts = _sizes.pieces_of("llm_query_batch", chunks, chunk_size, overlap)
        calls = _calls("llm_query_batch", asked, texts, model, max_tokens, dedupe=dedupe)
        is_parallel = _arguments.flag("parallel", parallel, parallel_subcalls)
        return (yield from _many(calls, is_parallel, on_error, style))

    return query_batch


def ask_chunks_first(
    question: object,
    chunks: object,
    max_tokens: int | None = None,
    chunk_size: int | None = None,
    overlap: int = 0,
    model: str | None = None,
    on_error: str = "raise",
) -> Program:
    """Ask one question about one chunk after the other, until an answer is acceptable.

    Returns that answer or None. Chunks are as in ask_chunks, acceptable as in
    pick_first_answer. With on_error="return" a chunk whose subcall failed is passed over.
    """
    asked, chunks = _arguments.in_order(question, chunks)
    pieces = _sizes.pieces_of("ask_chunks_first", chunks, chunk_size, overlap)
    replies, raises = list[str | None](), _raises(on_error)
    for call in _calls("ask_chunks_first", asked, list(dict.fromkeys(pieces)), model, max_tokens):
        [(kind, reply)] = yield Ask([call], False)
        replies.append(reply if kind == "text" else None)
        # Beyond a limit every further chunk would be refused too.
        if kind == "limit" or (kind != "text" and raises):
            raise _ERRORS[kind](reply, replies)
        if kind == "text" and (accepted := _accepted(reply)) is not None:
            return accepted
    return None


def _calls(
    fn: str,
    question: str | None,
    texts: list[str],
    model: object,
    max_tokens: object,
    recursive: bool | None = None,
    dedupe: object = True,
    schema: object = None,
) -> list[dict[str, Any]]:
    """A call per text. An empty question is none: the text is then the whole prompt."""
    if not isinstance(model, str | None):
        raise TypeError(f"model must be a name (str) or None, not {_arguments.kind_of(model)}")
    if max_tokens is not None and not 0 < _arguments.whole_number("max_tokens", max_tokens) < 1e9:
        raise ValueError(f"max_tokens must be 1 or more, or None, not {max_tokens:.6g}")
    if schema is not None and recursive:
        raise TypeError(f"{fn} takes no schema: a sub-run answers in words; use llm_query")
    is_merged = _arguments.flag("dedupe", dedupe, True)
    shared = {
        "fn": fn,
        "question": question or None,
        "model": model or None,
        "max_tokens": max_tokens,
        "recursive": recursive,
        "dedupe": is_merged,
        "kind": "subcall",
        "is_sample": not is_merged,
    }
    if schema is not None:
        shared["schema"] = _schemas.schema_text(schema)
    form = f"Question: {question}\nSnippet:\n" if question else ""
    return [{**shared, "prompt": prompt} for prompt in _sizes.prompts(fn, form, texts)]


def _one(calls: list[dict[str, Any]], style: str = "") -> Generator[Ask, list[Answer], str]:
    """Ask one thing. With a `style`, a failure is a text; what a limit forbids always raises."""
    [(kind, reply)] = yield Ask(calls, False)
    if kind == "error" and style:
        return style.replace("{message}", reply)
    if kind != "text":
        raise _ERRORS[kind](reply, [None])
    return reply


def _many(
    calls: list[dict[str, Any]],
    parallel: bool,
    on_error: object,
    style: str = "",
    read: Callable[[str], Any] = str,
) -> Generator[Ask, list[Answer], list[Any]]:
    """Ask several things. `style` is what ``on_error=None`` means; empty: to raise. `read` makes
    of a reply what the code gets."""
    if on_error is not None and _raises(on_error):
        style = ""
    elif on_error is not None:
        style = style or ERROR_MARK + "{message}"
    if not calls:
        return []
    answers = yield Ask(calls, parallel)
    if len(answers) != len(calls):
        raise RuntimeError(f"{len(calls)} subcalls were asked, {len(answers)} answers came")
    kinds = {kind for kind, _ in answers}
    if kinds - {"text"} and (not style or (on_error is None and "limit" in kinds)):
        there = "The other answers are in the exception's .results; " if "text" in kinds else ""
        raise _ERRORS["limit" if "limit" in kinds else "error"](
            f'{_words.failed(answers)}. {there}on_error="return" gives texts that begin with '
            f"{ERROR_MARK.strip()} instead.",
            [read(text) if kind == "text" else None for kind, text in answers],
        )
    return [
        read(text) if kind == "text" else style.replace("{message}", text) for kind, text in answers
    ]


def _accepted(answer: str) -> str | None:
    text = answer.strip()
    if not text or len(text) > MAX_ANSWER_CHARS or "\n" in text or "\r" in text or "```" in text:
        return None
    refused = text.strip(" .!*`\"'").upper() == NO_ANSWER or text.startswith(ERROR_MARK.strip())
    return None if refused else text


def _raises(on_error: object) -> bool:
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}")
    return on_error == "raise"
