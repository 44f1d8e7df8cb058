"""More functions that model-written code calls: replies as data, and what is left of the budget.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself, with `_functions`, whose rules hold here too.

1. A reply is read leniently: the whole of it, less a fence around it, or else the longest object
   or array that stands in it.
2. A reply that holds no JSON is data too, and marked: a dict with ``_parse_error`` and ``_raw``,
   so that one bad reply doesn't lose a batch.
3. A subcall that failed has no reply: it raises, or its place holds the text that `llm_batch` has
   there, whatever stands in it.
"""

# The parts of `_functions` that make calls are shared with this file too.
# pyright: reportPrivateUsage=false

import json
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING or __package__:
    from effects.repls import _arguments, _functions
else:
    import _arguments
    import _functions

RECORD_KEYS = ("records", "items", "entities", "results", "data")
"""Keys under which sub-models put the list that was asked for."""
_MOST_TRIES = 1_000
"""Brackets at which a value is looked for: a reply of brackets alone would take for ever."""

Program = Generator["_functions.Ask", "list[_functions.Answer]", Any]


def programs() -> dict[str, Callable[..., Program]]:
    """The functions, by name."""
    made: dict[str, Callable[..., Program]] = {
        "llm_query_json": _query("llm_query_json", parsed),
        "llm_query_records": _query("llm_query_records", records),
        "llm_batch_json": _batch("llm_batch_json", parsed),
        "llm_batch_records": _batch("llm_batch_records", records),
        "budget": budget,
    }
    for name, function in made.items():  # Python's own messages use the qualified name
        function.__name__ = function.__qualname__ = name
    return made


def budget() -> Program:
    """What is left, as a dict: steps, subcalls, tokens, subcall_tokens, cost_usd, seconds.

    None where there is no limit.
    """
    call: dict[str, Any] = {
        "fn": "budget",
        "prompt": "",
        "question": None,
        "model": None,
        "max_tokens": None,
        "recursive": None,
        "dedupe": True,
        "kind": "budget",
        "is_sample": False,
    }
    [(_, text)] = yield _functions.Ask([call], False)
    return json.loads(text)


def parsed(text: str) -> Any:
    """The JSON value that a reply holds; a dict with ``_parse_error`` and ``_raw`` if none."""
    try:
        return json.loads(_unfenced(text.strip()))
    except (ValueError, RecursionError) as error:
        found = max(_values(text), key=lambda item: item[0], default=None)
        if found is not None:
            return found[1]
        return {"_parse_error": f"the reply holds no JSON: {error}", "_raw": text}


def records(text: str) -> list[dict[str, Any]]:
    """The reply's objects: its list, the list under one of `RECORD_KEYS`, or its only object."""
    value = parsed(text)
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        lists = [fields[key] for key in RECORD_KEYS if isinstance(fields.get(key), list)]
        value = lists[0] if lists else [fields]
    if isinstance(value, list):
        items = cast(list[object], value)
        return [cast(dict[str, Any], item) for item in items if isinstance(item, dict)]
    return [{"_parse_error": "the reply is JSON, but no object and no list of them", "_raw": text}]


def _query(name: str, read: Callable[[str], Any]) -> Callable[..., Program]:
    ask = _functions.query(name, None, "")

    def query(text: object, model: str | None = None, max_tokens: int | None = None) -> Program:
        return read((yield from ask(text, model, max_tokens)))

    query.__doc__ = _QUERY_DOC[read.__name__]
    return query


def _batch(name: str, read: Callable[[str], Any]) -> Callable[..., Program]:
    def batch(
        prompts: object,
        model: str | None = None,
        max_tokens: int | None = None,
        on_error: str = "raise",
        dedupe: bool = True,
    ) -> Program:
        texts = _arguments.texts_of("prompts", prompts)
        calls = _functions._calls(name, None, texts, model, max_tokens, dedupe=dedupe)
        return (yield from _functions._many(calls, True, on_error, read=read))

    batch.__doc__ = _BATCH_DOC[read.__name__]
    return batch


_QUERY_DOC = {
    "parsed": "Ask a sub-model for JSON. Returns the value that its reply holds.",
    "records": "Ask a sub-model for objects. Returns a list of dicts.",
}
_BATCH_DOC = {
    "parsed": "Ask many prompts for JSON, in parallel. Returns the values in the same order.",
    "records": "Ask many prompts for objects, in parallel. Returns a list of dicts for each.",
}


def _unfenced(text: str) -> str:
    """The inside of the fenced block that the text is; else the text."""
    if not (text.startswith("```") and text.endswith("```") and "\n" in text):
        return text
    return text.partition("\n")[2].removesuffix("```").strip()


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """The objects and arrays that stand in a text, none within another, with their lengths."""
    read = json.JSONDecoder().raw_decode
    at = 0
    for _ in range(_MOST_TRIES):
        starts = [start for start in (text.find("{", at), text.find("[", at)) if start >= 0]
        if not starts:
            return
        start = min(starts)
        try:
            value, at = read(text, start)
        except (ValueError, RecursionError):
            at = start + 1
        else:
            yield at - start, value
