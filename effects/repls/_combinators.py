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
4. An error carries what was paid for in a form that code can go on with.
"""

# The parts of `_functions` that make calls are shared with this file and `_functions_json`.
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from effects.repls import _arguments, _functions, _labels, _planned, _sizes, _trees, _words
else:
    import _arguments
    import _functions
    import _labels
    import _planned
    import _sizes
    import _trees
    import _words

FAN_IN = 8
"""Texts that one subcall of `reduce_tree` puts together."""
ITEMS_PER_CALL = 20
"""Most items that one subcall of `classify_all` is given: more, and small models lose count."""

_ITEM_CHARS = 20_000
"""Most characters of items in one subcall, unless one item alone is longer."""
_LABEL_TOKENS = 240
"""Tokens of a subcall's reply that labels may take: less than `subcall_max_tokens` by default."""
_CLASSIFY = (
    "Give each of the {count} numbered items exactly one of these labels:\n{labels}\n"
    "{question}Reply with one line for each item and nothing else: its number, a colon, its label."
)
_ATTEMPT = "{prompt}\n\n(Independent attempt {number} of {count}.)"
"""Equal prompts would be asked once, and a model would answer them alike."""

Program = Generator["_functions.Ask", "list[_functions.Answer]", Any]


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
    first, chunks = _arguments.put_right(question, chunks)
    form = f"Question: {_question(first)}\nSnippet:\n"
    texts = _sizes.pieces_of("map_chunks", chunks, chunk_size, overlap)
    ask = _planned.asks("map_chunks", model, max_tokens, on_error)
    unique = list(dict.fromkeys(texts))
    size = len(form) * len(unique) + sum(map(len, unique))
    wider = _sizes.wider(form) * len(unique) + sum(map(_sizes.wider, unique))
    plan = _planned.Plan(len(unique), size, wider)
    line = yield from _planned.forecast("map_chunks", plan, model, max_tokens)
    replies = yield from ask(_sizes.prompts("map_chunks", form, texts), line)
    yield from _planned.tell_failures("map_chunks", replies)
    return replies


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
    result is NO_ANSWER, or where all failed the [ERROR] text of the first. An error's .results
    are the texts that are still to be put together.
    """
    first, texts = _arguments.put_right(question, texts)
    asked = _question(first)
    if _arguments.whole_number("fan_in", fan_in) < 2:
        raise ValueError(f"fan_in must be 2 or more, not {fan_in}")
    given = _arguments.texts_of("texts", texts)
    nothing = _trees.nothing(given)
    left = [(text, False) for text in given if _trees.says(text)]
    ask = _planned.asks("reduce_tree", model, max_tokens, on_error)
    plan = _trees.planned([text for text, _ in left], fan_in, asked)
    line = yield from _planned.forecast("reduce_tree", plan, model, max_tokens)
    replies: list[str] = []
    while len(left) > 1 or (left and not left[0][1]):
        level = _trees.Level(left, fan_in)
        try:
            answers = yield from ask(level.prompts(asked), line)
        except _functions.SubcallError as error:
            raise level.unfinished(error) from None
        line = ""
        replies += answers
        merged = level.merged(answers)
        nothing = _trees.nothing([text for text, _ in merged])
        left = [(text, is_reply) for text, is_reply in merged if _trees.says(text)]
    yield from _planned.tell_failures("reduce_tree", replies)
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
    several in a subcall. An error's .results are the labels that were given.
    """
    texts = [" ".join(text.split()) for text in _arguments.texts_of("items", items)]
    known = _labels.labels_of(labels)
    if _arguments.whole_number("per_call", per_call) < 1:
        raise ValueError(f"per_call must be 1 or more, not {per_call}")
    longest = max(len(label) for label in known)
    most = max(1, min(per_call, _LABEL_TOKENS // (8 + longest // 3)))
    groups = _packed(list(dict.fromkeys(texts)), per_call if max_tokens else most)
    about = "" if question is None else _question(question).strip() + "\n"
    ask = _planned.asks("classify_all", model, max_tokens, on_error)
    head = _classified([], known, about)
    bare = len(head) - len("0")
    sizes = [_planned.chars(bare, "\n{}: ", map(len, group)) for group in groups]
    wider = sum(_sizes.wider(head + "".join(group)) for group in groups)
    plan = _planned.Plan(len(sizes), sum(sizes), wider)
    line = yield from _planned.forecast("classify_all", plan, model, max_tokens)
    try:
        replies = yield from ask([_classified(group, known, about) for group in groups], line)
    except _functions.SubcallError as error:
        given = _given(texts, groups, error.results, known)
        raise type(error)(str(error), given) from None
    given = _given(texts, groups, replies, known)
    yield from _planned.tell_failures("classify_all", replies)
    if None in given:
        told = f"{given.count(None):,} of {_words.counted(len(given), 'item')} got no label (None)"
        yield _functions.Ask([], False, f"classify_all: {told}")
    return given


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
    text = _arguments.text_of("the prompt", prompt)
    if not text.strip():
        raise ValueError("the prompt is empty: give the text of what to ask")
    if _arguments.whole_number("n", n) < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    known = {} if choices is None else _labels.labels_of(choices, "choices")
    allowed = list(known) or None
    n = min(n, _sizes.MOST)
    _functions._calls("vote", None, [], model, max_tokens)  # wrong arguments raise at once
    ending = f"\nReply with one of: {', '.join(allowed)}." if allowed else ""
    each = len(_ATTEMPT.format(prompt="", number="", count=n)) + len(text) + len(ending)
    plan = _planned.Plan(n, n * each + _sizes.digits(n), n * _sizes.wider(text + ending))
    line = yield from _planned.forecast("vote", plan, model, max_tokens)
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
    best = counted[0][0]
    return known[best].given if known else best


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


def _given(
    items: Sequence[str],
    groups: Sequence[list[str]],
    replies: Sequence[str | None],
    labels: "Mapping[str, _labels.Label]",
) -> list[str | None]:
    """The labels of the items, by the replies to the groups that they were asked in."""
    found: dict[str, str] = {}
    for group, reply in zip(groups, replies, strict=True):
        if reply is not None and not _planned.failed(reply):
            found.update(_labels.labels_read(reply, group, list(labels)))
    return [labels[found[item]].given if item in found else None for item in items]


def _classified(items: Sequence[str], labels: "Mapping[str, _labels.Label]", question: str) -> str:
    told = [f"{name}: {of.meaning}" if of.meaning else name for name, of in labels.items()]
    listed = "\n".join(f"- {line}" for line in told)
    head = _CLASSIFY.format(count=len(items), labels=listed, question=question)
    return "\n".join([head, "", *(f"{n}: {item}" for n, item in enumerate(items, 1))])


def _tally(replies: Sequence[str], allowed: Sequence[str] | None) -> list[tuple[str, int]]:
    """Different replies with how often each was given, most often first."""
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for reply in replies:
        if _planned.failed(reply) or not reply.strip():
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
