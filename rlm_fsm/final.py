"""The text forms of a final answer: ``FINAL: ...``, ``FINAL_VAR: ...`` and their call forms.

Which lines of a reply may hold one is `reply`'s business; here one is read. The rules:

1. A form stands at the start of a line, after blanks and emphasis (``**FINAL:** x``), in capitals.
2. ``FINAL:`` takes all that follows, ``FINAL_VAR:`` the rest of its line.
3. ``FINAL(...)`` and ``FINAL_VAR(...)`` reach to the parenthesis that closes them, over many
   lines. Parentheses in quotes don't count; if that leads nowhere they all do, since answers are
   prose and hold apostrophes. Words after it on its line make it part of a sentence: no answer.
4. A sole string literal in parentheses loses its quotes and its simple escapes.
5. A variable's name loses quotes, backticks, emphasis and a full stop, and must then be a name.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from keyword import iskeyword
from typing import Literal

from rlm_fsm.fences import python_tree

Fault = Literal["empty_answer", "bad_name", "bad_answer"]

_FINAL = re.compile(
    r"^[ \t]*(?P<open>[*`]{1,3})?FINAL(?P<var>_VAR)?(?P<shut>[*`]{1,3})?[ \t]*(?P<form>[:(])",
    re.MULTILINE,
)
_AFTER = re.compile(r"[ \t*`.,;!]*$", re.MULTILINE)
_MARK = re.compile(r"(?<![\w\\])[rbfuRBFU]{0,2}(?P<quote>'''|\"\"\"|['\"])|[()]")
_STRING_REST = {
    "'": re.compile(r"(?:[^'\\\n]|\\.)*'"),
    '"': re.compile(r'(?:[^"\\\n]|\\.)*"'),
}
_SOLE_STRING = re.compile(r"""('{3}|"{3}|['"])(?P<says>(?:[^'"\\]|\\.|(?!\1)['"])*)\1""", re.DOTALL)
_ESCAPE = re.compile(r"\\([nt'\"\\])")
_AROUND_NAME = " \t*`'\".,;"


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """The answer itself."""

    text: str


@dataclass(frozen=True, slots=True)
class VariableAnswer:
    """The name of the variable that holds the answer."""

    name: str


Answer = TextAnswer | VariableAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """One form as read: an answer, or what is wrong with it. Neither: a sentence (rule 3)."""

    start: int
    """Where its line starts."""
    end: int
    """Where it ends, half-open; the end of the text for ``FINAL:``."""
    answer: Answer | None = None
    fault: Fault | None = None
    is_expression: bool = False
    """Whether it is ``FINAL(...)`` around Python that isn't a mere literal, or ``FINAL_VAR(...)``
    around Python that isn't a name either."""


def finals(text: str, start: int, end: int) -> Iterator[Final]:
    """The forms that begin on lines within ``text[start:end]``, in order.

    They may reach beyond `end`, and contain one another.
    """
    for match in _FINAL.finditer(text, start, end):
        yield _read(text, match)


def final_at(text: str, start: int) -> Final | None:
    """The form on the line that starts at `start`, or None."""
    match = _FINAL.match(text, start)
    return _read(text, match) if match else None


def _read(text: str, match: re.Match[str]) -> Final:
    if match["form"] == "(":
        return _read_call(text, match)
    body = match.end()
    if not match["var"]:
        answer = _without_emphasis(text[body:], "" if match["shut"] else match["open"] or "")
        return _text_answer(match, len(text), answer)
    end = text.find("\n", body)
    end = len(text) if end < 0 else end
    return _variable_answer(match, end, text[body:end])


def _read_call(text: str, match: re.Match[str]) -> Final:
    start = match.end()
    closings = [_closing(text, start, quotes=True), _closing(text, start, quotes=False)]
    whole = text.rstrip()
    if closings == [None, None]:
        if not whole.endswith(")") or len(whole) <= start:
            return Final(start=match.start(), end=len(text), fault="bad_answer")
        return _call(match, len(text), whole[start:-1])
    for closing in closings:
        after = _AFTER.match(text, closing + 1) if closing is not None else None
        if after is not None:
            return _call(match, after.end(), text[start:closing])
    return Final(start=match.start(), end=start)


def _call(match: re.Match[str], end: int, inner: str) -> Final:
    inner = inner.strip()
    plain = _unquoted(inner)
    if match["var"]:
        found = _variable_answer(match, end, inner if plain is None else plain)
        if found.fault == "bad_name" and plain is None and _is_expression(inner):
            return replace(found, is_expression=True)
        return found
    if plain is not None:
        return _text_answer(match, end, plain)
    return _text_answer(match, end, inner, is_expression=_is_expression(inner))


def _text_answer(
    match: re.Match[str], end: int, text: str, *, is_expression: bool = False
) -> Final:
    text = text.strip()
    return Final(
        start=match.start(),
        end=end,
        answer=TextAnswer(text) if text else None,
        fault=None if text else "empty_answer",
        is_expression=is_expression,
    )


def _variable_answer(match: re.Match[str], end: int, name: str) -> Final:
    name = name.strip(_AROUND_NAME)
    if name.isidentifier() and not iskeyword(name):
        return Final(start=match.start(), end=end, answer=VariableAnswer(name))
    fault: Fault = "bad_name" if name else "empty_answer"
    return Final(start=match.start(), end=end, fault=fault)


def _without_emphasis(body: str, mark: str) -> str:
    """The body without the emphasis that `mark` opened before the form."""
    body = body.strip()
    if not mark:
        return body
    if body.startswith(mark):
        return body.removeprefix(mark)
    line, feed, rest = body.partition("\n")
    if line.rstrip().endswith(mark):
        return line.rstrip().removesuffix(mark) + feed + rest
    return body.removesuffix(mark)


def _closing(text: str, start: int, *, quotes: bool) -> int | None:
    """Where the parenthesis stands that closes the one before `start`."""
    depth = 0
    while (mark := _MARK.search(text, start)) is not None:
        start = mark.end()
        if mark["quote"]:
            start = _string_end(text, start, mark["quote"]) if quotes else start
        elif mark[0] == "(":
            depth += 1
        elif depth:
            depth -= 1
        else:
            return mark.start()
    return None


def _string_end(text: str, start: int, quote: str) -> int:
    """Where the string ends whose quote stands before `start`; `start` if nothing ends it."""
    if len(quote) == 3:
        found = text.find(quote, start)
        return start if found < 0 else found + 3
    match = _STRING_REST[quote].match(text, start)
    return match.end() if match else start


def _unquoted(text: str) -> str | None:
    """What a sole string literal says, or None when the text is something else.

    Line feeds don't end a literal in single quotes: models write them so.
    """
    match = _SOLE_STRING.fullmatch(text)
    return _ESCAPE.sub(_unescaped, match["says"]) if match else None


def _unescaped(match: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t"}.get(match[1], match[1])


def _is_expression(text: str) -> bool:
    """Whether a text is Python that has to be worked out."""
    tree = python_tree(text)
    if tree is None:
        return False
    match tree.body:
        case [ast.Expr(value=ast.Constant())]:
            return False
        case _:
            return True
