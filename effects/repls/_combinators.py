"""Functions that make many subcalls in a known number, said before the first one.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself, with `_functions`, whose rules hold here too.

1. Before anything is asked, the host is asked for a forecast: how many subcalls at most, how many
   tokens, at what cost where prices are known. What doesn't fit into what is left of the limits is
   a `SubcallLimitError`, and nothing was spent. What fits is printed, in a line. Until then
   prompts are only counted, not made: there may be more of them than memory holds.
2. A level of subcalls is one parallel batch. None of them becomes a run of its own: their number
   would not be known.
3. Replies that say nothing (empty, NO_ANSWER, failed) aren't carried on; a line tells of failures.
"""

# The parts of `_functions` that make calls are shared with this file and `_functions_json`.
# pyright: reportPrivateUsage=false

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING or __package__:
    from effects.repls import _arguments, _functions, _labels, _sizes, _words
else:
    import _arguments
    import _functions
    import _labels
    import _sizes
    import _words

FAN_IN = 8
"""Texts that one subcall of `reduce_tree` puts together."""
ITEMS_PER_CALL = 20
"""Most items that one subcall of `classify_all` is given: more, and small models lose count."""

_ITEM_CHARS = 20_000
"""Most characters of items in one subcall, unless one item alone is longer."""
_LABEL_TOKENS = 240
"""Tokens of a subcall's reply that labels may take: less than `subcall_max_tokens` by default."""
_COMBINE = (
    "Question: {question}\n{count} partial results follow, each under its number. Put them "
    "together into one result that answers the question: keep every fact that it needs, once. "
    "If none of them helps, reply NO_ANSWER."
)
_MARK = "\n\n[{}]\n"
_CLASSIFY = (
    "Give each of the {count} numbered items exactly one of these labels:\n{labels}\n"
    "{question}Reply with one line for each item and nothing else: its number, a colon, its label."
)
_ATTEMPT = "{prompt}\n\n(Independent attempt {number} of {count}.)"
"""Equal prompts would be asked once, and a model would answer them alike."""

Program = Generator["_functions.Ask", "list[_functions.Answer]", Any]
_Item = TypeVar("_Item")


def programs() -> dict[str, Callable[..., Program]]:
    """The functions, by name."""
    made: tuple[Callable[..., Program], ...] = (map_chunks, reduce_tree, classify_all, vote)
    return {function.__name__: function for function in made}


def map_chunks(
    question: str,
    chunks: object,
    chunk_size: int | None = None,
    overlap: int = 0,
    max_tokens: int | None = None,
    model: str | None = None,
    on_error: str = "raise",
) -> Program:
    """Ask one question about each chunk, in parallel. Returns the replies in their order.

    Chunks are as in ask_chunks. The number of subcalls is printed first.
    """
    form = f"Question: {_question(question)}\nSnippet:\n"
    texts = _sizes.pieces_of("map_chunks", chunks, chunk_size, overlap)
    ask = _asks("map_chunks", model, max_tokens, on_error)
    sizes = [len(form) + len(text) for text in dict.fromkeys(texts)]
    plan = _Plan(len(sizes), sum(sizes))
    line = yield from _forecast("map_chunks", plan, model, max_tokens)
    return (yield from ask(_sizes.prompts("map_chunks", form, texts), line))


def reduce_tree(
    texts: object,
    question: str,
    fan_in: int = FAN_IN,
    max_tokens: int | None = None,
    model: str | None = None,
    on_error: str = "raise",
) -> Program:
    """Put many texts together into one that answers the question, fan_in at a time.

    Each level is one parallel batch. Texts that say nothing are left out; with none left the
    result is NO_ANSWER, or where all failed the [ERROR] text of the first.
    """
    asked = _question(question)
    if _arguments.whole_number("fan_in", fan_in) < 2:
        raise ValueError(f"fan_in must be 2 or more, not {fan_in}")
    given = _arguments.texts_of("texts", texts)
    nothing = _nothing(given)
    left = [(text, False) for text in given if _says(text)]
    ask = _asks("reduce_tree", model, max_tokens, on_error)
    plan = _planned([text for text, _ in left], fan_in, asked)
    line = yield from _forecast("reduce_tree", plan, model, max_tokens)
    replies: list[str] = []
    while len(left) > 1 or (left and not left[0][1]):
        groups = _groups(left, fan_in)
        is_last = len(groups) == 1
        prompts = [_combined(group, asked) for group in groups if is_last or group[1:]]
        level = yield from ask(prompts, line)
        replies += level
        line = ""
        answers = iter(level)
        merged = [(next(answers), True) if is_last or group[1:] else group[0] for group in groups]
        nothing = _nothing([text for text, _ in merged])
        left = [(text, done) for text, done in merged if _says(text)]
    yield from _tell_failures("reduce_tree", replies)
    return left[0][0] if left else nothing


def classify_all(
    items: object,
    labels: object,
    question: str | None = None,
    per_call: int = ITEMS_PER_CALL,
    model: str | None = None,
    max_tokens: int | None = None,
    on_error: str = "raise",
) -> Program:
    """Give each item one of the labels. Returns a label for each item, None where none was given.

    labels is a list of texts, or a dict from labels to what they mean. Equal items are asked once,
    several in a subcall.
    """
    texts = [" ".join(text.split()) for text in _arguments.texts_of("items", items)]
    known = _labels.labels_of(labels)
    if _arguments.whole_number("per_call", per_call) < 1:
        raise ValueError(f"per_call must be 1 or more, not {per_call}")
    longest = max(len(label) for label in known)
    most = max(1, min(per_call, _LABEL_TOKENS // (8 + longest // 3)))
    groups = _packed(list(dict.fromkeys(texts)), per_call if max_tokens else most)
    about = "" if question is None else _question(question).strip() + "\n"
    ask = _asks("classify_all", model, max_tokens, on_error)
    head = len(_classified([], known, about)) - len("0")
    sizes = [_chars(head, "\n{}: ", map(len, group)) for group in groups]
    plan = _Plan(len(sizes), sum(sizes))
    line = yield from _forecast("classify_all", plan, model, max_tokens)
    found: dict[str, str] = {}
    replies = yield from ask([_classified(group, known, about) for group in groups], line)
    for group, reply in zip(groups, replies, strict=True):
        if not _failed(reply):
            found.update(_labels.labels_read(reply, group, list(known)))
    yield from _tell_failures("classify_all", replies)
    missing = sum(text not in found for text in texts)
    if missing:
        told = f"{missing:,} of {_words.counted(len(texts), 'item')} got no label (None)"
        yield _functions.Ask([], False, f"classify_all: {told}")
    return [found.get(text) for text in texts]


def vote(
    prompt: object,
    n: int = 5,
    choices: object = None,
    max_tokens: int | None = None,
    model: str | None = None,
) -> Program:
    """Ask one prompt n times and return the reply that most agree on; how they voted is printed.

    Replies count as equal apart from case and punctuation at their ends. With choices (texts), a
    reply that names none of them, or several, doesn't count. Of equally many, the first one wins.
    Calls that failed are told of in that line; when more than half did, it raises.
    """
    text = _arguments.texts_of("the prompt", [prompt])[0]
    if _arguments.whole_number("n", n) < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    allowed = None if choices is None else list(_labels.labels_of(choices, "choices"))
    n = min(n, _sizes.MOST)
    _functions._calls("vote", None, [], model, max_tokens)  # wrong arguments raise at once
    ending = f"\nReply with one of: {', '.join(allowed)}." if allowed else ""
    each = len(_ATTEMPT.format(prompt="", number="", count=n)) + len(text) + len(ending)
    plan = _Plan(n, n * each + _sizes.digits(n))
    line = yield from _forecast("vote", plan, model, max_tokens)
    attempts = (_ATTEMPT.format(prompt=text, number=i, count=n) for i in range(1, n + 1))
    prompts = [attempt + ending for attempt in attempts]
    calls = _functions._calls("vote", None, prompts, model, max_tokens, False)
    answers = yield _functions.Ask(calls, True, line)
    given = [reply for kind, reply in answers if kind == "text"]
    results = [reply if kind == "text" else None for kind, reply in answers]
    if len(given) < n / 2:
        told = f"too few replies for a vote: {_words.failed(answers)}"
        is_limit = any(kind == "limit" for kind, _ in answers)
        raise _functions._ERRORS["limit" if is_limit else "error"](told, results)
    counted = _tally(given, allowed)
    if not counted:
        told = f"none of {_words.counted(len(given), 'reply', 'replies')} can be counted"
        told = f"{told}: {given[0][:200]!r}"
        raise _functions.SubcallError(told, results)
    told = ", ".join(f"{count} for {reply[:60]!r}" for reply, count in counted[:4])
    failed = f"; {n - len(given):,} failed{_words.reasons(answers)}" if len(given) < n else ""
    yield _functions.Ask([], False, f"vote: {told} of {n}{failed}")
    return counted[0][0]


# -- asking


def _asks(
    fn: str, model: object, max_tokens: object, on_error: object
) -> Callable[[list[str], str], Generator["_functions.Ask", "list[_functions.Answer]", list[str]]]:
    """What asks one level of prompts, and prints a line before; wrong arguments raise at once."""
    _functions._raises(on_error)
    _functions._calls(fn, None, [], model, max_tokens)

    def ask(
        prompts: list[str], line: str
    ) -> Generator["_functions.Ask", "list[_functions.Answer]", list[str]]:
        calls = _functions._calls(fn, None, prompts, model, max_tokens, False)
        if line:
            yield _functions.Ask([], False, line)
        return (yield from _functions._many(calls, True, on_error))

    return ask


class _Plan(NamedTuple):
    """What a function is about to ask."""

    calls: int
    """Equal ones of a level once."""
    chars: int
    """Of their prompts, but for the replies of earlier calls."""
    replies: int = 0
    """How many replies of earlier calls are in prompts."""
    levels: int = 1
    built: int = 0
    """Characters with equal prompts as often as they are made, where that is more than `chars`."""


def _forecast(
    fn: str, plan: _Plan, model: str | None, max_tokens: int | None
) -> Generator["_functions.Ask", "list[_functions.Answer]", str]:
    """The line that tells what is about to be asked. Raises `SubcallLimitError` for too much, and
    `ValueError` for more than anybody may ask."""
    if not plan.calls:
        return ""
    chars = min(plan.chars, _sizes.MOST)
    request = {"calls": plan.calls, "chars": chars, "replies": plan.replies}
    (call,) = _functions._calls(fn, None, [json.dumps(request)], model, max_tokens, False)
    [(kind, text)] = yield _functions.Ask([{**call, "kind": "forecast"}], False)
    if kind == "limit":
        raise _functions.SubcallLimitError(f"{fn}: {text}. Nothing was asked.")
    if kind != "text":
        raise _functions.SubcallError(f"{fn}: {text}")
    _sizes.check(fn, plan.calls, max(plan.chars, plan.built))
    told = json.loads(text)
    cost = "" if told["cost_usd"] is None else f", {_words.usd(told['cost_usd'])}"
    is_tree = plan.levels > 1
    at_most, plural = ("at most ", f" in {plan.levels} levels") if is_tree else ("", "")
    calls, tokens = _words.counted(plan.calls, "subcall"), _words.counted(told["tokens"], "token")
    return f"{fn}: {at_most}{calls}{plural}, at most about {tokens}{cost}"


def _chars(head: int, mark: str, sizes: Iterable[int]) -> int:
    """Characters of a prompt: `head` of them and the number of its items, then items of these
    sizes, each after a mark with its place."""
    counted = list(sizes)
    marks = len(counted) * (len(mark) - len("{}")) + _sizes.digits(len(counted))
    return head + len(str(len(counted))) + marks + sum(counted)


def _failed(reply: str) -> bool:
    return reply.startswith(_functions.ERROR_MARK.strip())


def _tell_failures(
    fn: str, replies: Sequence[str]
) -> Generator["_functions.Ask", "list[_functions.Answer]", None]:
    """Print how many of the replies are failures, if any."""
    mark = _functions.ERROR_MARK
    answers = [("error", r[len(mark) :]) if _failed(r) else ("text", r) for r in replies]
    if any(kind == "error" for kind, _ in answers):
        yield _functions.Ask([], False, f"{fn}: {_words.failed(answers)}")


# -- trees


def _groups(items: Sequence[_Item], fan_in: int) -> list[Sequence[_Item]]:
    """As few groups of at most `fan_in` as will do, of sizes as equal as can be.

    A subcall is made for each; but a text alone is passed on, unless it is the only one.
    """
    if not items:
        return []
    count = -(-len(items) // fan_in)
    size, larger = divmod(len(items), count)
    starts = [size * i + min(i, larger) for i in range(count)]
    return [items[start : start + size + (i < larger)] for i, start in enumerate(starts)]


def _planned(texts: Sequence[str], fan_in: int, question: str) -> _Plan:
    """All levels, if every reply says something."""
    head = len(_combined([], question)) - len("0")
    left: list[str | None] = list(texts)  # None: a reply
    calls = chars = replies = levels = built = 0
    while left and (len(left) > 1 or not levels):
        merged: list[str | None] = []
        groups, seen = _groups(left, fan_in), set[tuple[str | None, ...]]()
        for group in groups:
            if len(group) == 1 < len(groups):
                merged.append(group[0])
                continue
            merged.append(None)
            size = _chars(head, _MARK, [0 if text is None else len(text) for text in group])
            built += size
            if None in group or tuple(group) not in seen:
                seen.add(tuple(group))
                calls, chars, replies = calls + 1, chars + size, replies + group.count(None)
        left, levels = merged, levels + 1
    return _Plan(calls, chars, replies, levels, built)


def _combined(items: Sequence[tuple[str, bool]], question: str) -> str:
    parts = [_COMBINE.format(question=question, count=len(items))]
    return "".join([*parts, *(_MARK.format(n) + text for n, (text, _) in enumerate(items, 1))])


def _says(text: str) -> bool:
    """Whether a text says anything."""
    bare = text.strip()
    return bool(bare) and not (
        bare.strip(_labels.EDGES).upper() == _functions.NO_ANSWER or _failed(bare)
    )


def _nothing(texts: Sequence[str]) -> str:
    """The result where none of the texts says anything: the first failure if all are failures."""
    said = [text for text in texts if text.strip()]
    return said[0] if said and all(map(_failed, said)) else _functions.NO_ANSWER


# -- items


def _packed(texts: Sequence[str], most: int) -> list[list[str]]:
    """Groups of at most `most` texts and `_ITEM_CHARS` characters."""
    groups: list[list[str]] = []
    room = 0
    for text in texts:
        if not groups or len(groups[-1]) >= most or len(text) > room:
            groups.append([])
            room = _ITEM_CHARS
        groups[-1].append(text)
        room -= len(text)
    return groups


def _classified(items: Sequence[str], labels: Mapping[str, str], question: str) -> str:
    listed = "\n".join(f"- {label}: {of}" if of else f"- {label}" for label, of in labels.items())
    head = _CLASSIFY.format(count=len(items), labels=listed, question=question)
    return "\n".join([head, "", *(f"{n}: {item}" for n, item in enumerate(items, 1))])


def _tally(replies: Sequence[str], allowed: Sequence[str] | None) -> list[tuple[str, int]]:
    """Different replies with how often each was given, most often first."""
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for reply in replies:
        if _failed(reply) or not reply.strip():
            continue
        named = reply.strip() if allowed is None else _labels.label_in(reply, allowed)
        if named is not None:
            key = _labels.bare(named) if allowed is None else named
            first.setdefault(key, named)
            counts[key] = counts.get(key, 0) + 1
    order = sorted(counts, key=lambda key: -counts[key])
    return [(first[key], counts[key]) for key in order]


def _question(question: object) -> str:
    if not isinstance(question, str):
        raise TypeError(f"question must be a text (str), not {type(question).__name__}")
    if not question.strip():
        raise ValueError("question is empty: give the text of what to ask")
    return question
