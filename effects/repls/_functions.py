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
3. Texts are taken in every form that the context's own methods return them in.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

DEFAULT_CHUNK_CHARS = 50_000
"""Characters per piece where the code names no size.

About 12,000 tokens of English, some 50,000 of Chinese: fits the windows of small models too.
200 subcalls, the default limit of a run, cover 10 million characters.
"""
ERROR_MARK = "[ERROR] "
"""What a failed subcall's text begins with under ``on_error="return"``."""
NO_ANSWER = "NO_ANSWER"
"""What a sub-model replies when its piece doesn't hold the answer."""
MAX_ANSWER_CHARS = 80
"""Longest text that `pick_first_answer` accepts: longer ones are explanations."""


class SubcallError(RuntimeError):
    """A subcall failed. `results` holds the answers that did arrive, None where one is missing."""

    def __init__(self, message: str, results: Iterable[str | None] = ()) -> None:
        super().__init__(message)
        self.results: list[str | None] = list(results)


class SubcallLimitError(SubcallError):
    """A limit of the run forbade a subcall. Asking again won't help: answer with what is there."""


_ERRORS = {"error": SubcallError, "limit": SubcallLimitError}


class Ask(NamedTuple):
    """Questions for the host, asked together."""

    calls: list[dict[str, Any]]
    """Plain data, each with the fields of a host call: ``fn prompt question model max_tokens
    recursive dedupe``."""
    parallel: bool
    """False: one after the other, in this order."""


Answer = tuple[str, str]
"""How a call ended: (kind, text), with the kinds ``text``, ``error`` and ``limit``."""
Program = Generator[Ask, list[Answer], Any]


class View(Protocol):
    """What is needed of the context."""

    def len_chars(self) -> int: ...
    def peek(self, n: int = 2000) -> str: ...
    def tail(self, n: int = 2000) -> str: ...
    def extract_after(self, marker: str) -> str | None: ...


def programs(view: View, *, parallel_subcalls: bool) -> dict[str, Callable[..., Program]]:
    """The functions that ask sub-models, by name.

    `parallel_subcalls` is what ``parallel=None`` means to the functions that take chunks.
    Texts come as arguments: the context is asked about where code passes it.
    """
    made = {
        "llm_query": _query("llm_query", None),
        "rlm_query": _query("rlm_query", True),
        "llm_batch": _batch("llm_batch", None),
        "llm_query_batched": _batch("llm_query_batched", None),
        "batch_llm_query": _batch("batch_llm_query", None),
        "rlm_query_batched": _batch("rlm_query_batched", True),
        "llm_query_batch": _query_batch(parallel_subcalls),
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
    for answer in _listed("answers", answers):
        if answer is None:
            continue
        if not isinstance(answer, str):
            raise TypeError(f"answers must hold texts (str), not {_kind(answer)}")
        if (accepted := _accepted(answer)) is not None:
            return accepted
    return None


def show_vars(variables: Mapping[str, str]) -> str:
    """What `SHOW_VARS()` gives: a line ``name: type`` for each variable."""
    if not variables:
        return "No variables yet."
    return "\n".join(f"{name}: {kind}" for name, kind in variables.items())


def drive(program: Program, ask: Callable[[Ask], list[Answer]]) -> Any:
    """Run a program to its end with a blocking `ask`, and return its value."""
    answers: Any = None  # what starts a generator
    while True:
        try:
            request = program.send(answers)
        except StopIteration as stop:
            return stop.value
        answers = ask(request)


def _query(name: str, recursive: bool | None) -> Callable[..., Program]:
    def query(text: object, model: str | None = None, max_tokens: int | None = None) -> Program:
        """Ask a sub-model that sees only this text. Returns its reply."""
        texts = [_text_of("the prompt", text)]
        return (yield from _one(_calls(name, None, texts, model, max_tokens, recursive)))

    return query


def _batch(name: str, recursive: bool | None) -> Callable[..., Program]:
    def batch(
        prompts: object,
        model: str | None = None,
        max_tokens: int | None = None,
        on_error: str = "raise",
        dedupe: bool = True,
    ) -> Program:
        """Ask many prompts at once, in parallel. Returns the replies in the same order."""
        texts = _texts("prompts", prompts)
        calls = _calls(name, None, texts, model, max_tokens, recursive, dedupe)
        return (yield from _many(calls, True, on_error))

    return batch


def _ask(name: str) -> Callable[..., Program]:
    def ask(
        question: str, text: object, max_tokens: int | None = None, model: str | None = None
    ) -> Program:
        """Ask a sub-model a question about a text. Returns its reply."""
        texts = [_text_of("text", text)]
        return (yield from _one(_calls(name, _question(question), texts, model, max_tokens)))

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
    ) -> Program:
        """Ask one question about each chunk. Returns the replies in the order of the chunks.

        Chunks are ctx, a text, a list of texts, or what ctx.find, ctx.chunk and
        ctx.chunk_documents return. ctx and a text are cut into pieces of chunk_size characters.
        """
        asked, chunks = _in_order(question, chunks)
        calls = _calls(name, asked, _pieces(chunks, chunk_size, overlap), model, max_tokens)
        return (yield from _many(calls, _flag("parallel", parallel, parallel_subcalls), on_error))

    return ask_chunks


def _query_batch(parallel_subcalls: bool) -> Callable[..., Program]:
    def query_batch(
        chunks: Any,
        model: Any = None,
        max_tokens: int | None = None,
        parallel: bool | None = None,
        *,
        question: str | None = None,
        chunk_size: int | None = None,
        overlap: int = 0,
        on_error: str = "raise",
        dedupe: bool = True,
    ) -> Program:
        """Ask a sub-model about each chunk, given alone or with a question. Returns the replies.

        Chunks are as in ask_chunks.
        """
        if isinstance(chunks, str) and model is not None and not isinstance(model, str):
            chunks, model, question = model, None, chunks  # called as (question, chunks)
        elif isinstance(model, str) and question is None and len(model.split()) > 1:
            model, question = None, model  # called as (chunks, question): a model's name is a word
        asked = None if question is None else _question(question)
        texts = _pieces(chunks, chunk_size, overlap)
        calls = _calls("llm_query_batch", asked, texts, model, max_tokens, dedupe=dedupe)
        return (yield from _many(calls, _flag("parallel", parallel, parallel_subcalls), on_error))

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
    asked, chunks = _in_order(question, chunks)
    texts = list(dict.fromkeys(_pieces(chunks, chunk_size, overlap)))
    replies, raises = list[str | None](), _raises(on_error)
    for call in _calls("ask_chunks_first", asked, texts, model, max_tokens):
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
) -> list[dict[str, Any]]:
    """A call per text. An empty question is none: the text is then the whole prompt."""
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model must be a name (str) or None, not {_kind(model)}")
    if max_tokens is not None and _whole("max_tokens", max_tokens) < 1:
        raise ValueError(f"max_tokens must be 1 or more, or None, not {max_tokens}")
    shared = {
        "fn": fn,
        "question": question or None,
        "model": model or None,
        "max_tokens": max_tokens,
        "recursive": recursive,
        "dedupe": _flag("dedupe", dedupe, True),
    }
    form = f"Question: {question}\nSnippet:\n" if question else ""
    return [{**shared, "prompt": form + text} for text in texts]


def _one(calls: list[dict[str, Any]]) -> Generator[Ask, list[Answer], str]:
    [(kind, reply)] = yield Ask(calls, False)
    if kind != "text":
        raise _ERRORS[kind](reply, [None])
    return reply


def _many(
    calls: list[dict[str, Any]], parallel: bool, on_error: object
) -> Generator[Ask, list[Answer], list[str]]:
    raises = _raises(on_error)
    if not calls:
        return []
    answers = yield Ask(calls, parallel)
    if len(answers) != len(calls):
        raise RuntimeError(f"{len(calls)} subcalls were asked, {len(answers)} answers came")
    failed = [(kind, text) for kind, text in answers if kind != "text"]
    if failed and raises:
        kind = "limit" if any(kind == "limit" for kind, _ in failed) else "error"
        raise _ERRORS[kind](
            f"{len(failed)} of {len(calls)} subcalls failed, the first with: {failed[0][1]}. "
            "The other answers are in the exception's .results; "
            f'on_error="return" gives texts that begin with {ERROR_MARK.strip()} instead.',
            [text if kind == "text" else None for kind, text in answers],
        )
    return [text if kind == "text" else ERROR_MARK + text for kind, text in answers]


def _accepted(answer: str) -> str | None:
    text = answer.strip()
    if not text or len(text) > MAX_ANSWER_CHARS or "\n" in text or "\r" in text or "```" in text:
        return None
    refused = text.strip(" .!*`\"'").upper() == NO_ANSWER or text.startswith(ERROR_MARK.strip())
    return None if refused else text


def _in_order(question: object, chunks: object) -> tuple[str, object]:
    """Take (chunks, question) for (question, chunks) where the types leave no doubt."""
    if isinstance(chunks, str) and question is not None and not isinstance(question, str):
        return chunks, question
    return _question(question), chunks


def _question(question: object) -> str:
    if not isinstance(question, str):
        raise TypeError(f"question, the first argument, must be a str, not {_kind(question)}")
    return question


def _pieces(chunks: object, chunk_size: object, overlap: object) -> list[str]:
    """The texts to ask about. ctx and a text are always cut, a list only with `chunk_size`."""
    shared = _whole("overlap", overlap)
    whole = chunks if isinstance(chunks, str) else getattr(chunks, "text", None)
    texts = [whole] if isinstance(whole, str) else _texts("chunks", chunks)
    if chunk_size is not None:
        size = _whole("chunk_size", chunk_size)
    elif isinstance(whole, str):
        size = DEFAULT_CHUNK_CHARS
    elif shared:
        raise ValueError("overlap is for texts that are cut: give chunk_size too")
    else:
        return texts
    if not 0 <= shared < size:
        raise ValueError(
            f"chunk_size must be 1 or more and overlap from 0 to below it, not {size} and {shared}"
        )
    starts = [range(0, max(len(t) - shared, min(len(t), 1)), size - shared) for t in texts]
    return [t[i : i + size] for t, of_text in zip(texts, starts, strict=True) for i in of_text]


def _texts(name: str, items: object) -> list[str]:
    return [_text_of(f"{name}[{i}]", item) for i, item in enumerate(_listed(name, items))]


def _listed(name: str, items: object) -> Iterable[object]:
    kind = _kind(items)
    if isinstance(items, Iterable) and not isinstance(items, str | bytes | Mapping):
        return cast(Iterable[object], items)
    raise TypeError(f"{name} must be a list of texts (str), not {kind}")


def _text_of(name: str, item: object) -> str:
    """A text in the forms that code has it in: a str, ctx, (start, end, text) or (i, j, texts)."""
    kind, text = _kind(item), getattr(item, "text", item)
    if isinstance(text, str):
        return text
    if isinstance(item, list | tuple):
        parts = cast(Sequence[object], item)
        if len(parts) == 3 and isinstance(parts[0], int) and isinstance(parts[1], int):
            return _text_of(name, parts[2])
        if parts and all(isinstance(part, str) for part in parts):
            return "\n\n".join(map(str, parts))
    raise TypeError(f"{name} must be a text (str) or what ctx.chunk returns, not {kind}")


def _kind(value: object) -> str:
    return type(value).__name__


def _whole(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be a whole number (int), not {_kind(value)}")


def _flag(name: str, value: object, default: bool) -> bool:
    if value is None or isinstance(value, bool):
        return default if value is None else value
    raise TypeError(f"{name} must be True, False or None, not {_kind(value)}")


def _raises(on_error: object) -> bool:
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}")
    return on_error == "raise"
