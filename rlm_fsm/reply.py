"""Model text -> code to run, a final answer, both, or the reason why it is neither.

Total and pure: any text gives a `Reply` or a `ReplyError`, in work linear in its length. Where
blocks begin and end is told by `fences`, how an answer is written by `final`. The rules:

1. Reasoning is dropped: from ``<think>`` or ``<thinking>`` at the start of a line, outside fences,
   to its closing tag or the end; and all that stands before a closing tag that nothing opened.
2. Blocks in a language that the profile names are code, in order, also when they don't parse: the
   model must see its SyntaxError. Blocks in other languages are never run. A block without a
   language is code when rule 4 says so, or when it doesn't parse but has a line that looks like
   code; if such a block isn't code and never ends, it is prose.
3. The first answer outside blocks counts. ``FINAL:`` takes the rest of the reply, fences included.
4. A reply without any fence is code as a whole, if the profile allows it, when it parses as Python
   and does something: names, constants and operators between names are prose. An answer that
   ends it is its answer; in a string it is part of the code.
5. A block that holds nothing but an answer is one, except ``FINAL(expression)`` and
   ``FINAL_VAR(expression)`` in a block of code: that is for the REPL to work out. The same holds
   for the end of rule 4's code.
6. What is wrong with an answer is told only when there is neither code nor another answer.
7. A reply that the token limit cut within its code, or before it came to anything, is refused with
   that reason; so is one that the provider's filter stopped there.
8. Of several blocks all are run, or the first, or the last, as the profile says. Blocks of output
   alone are no reply: what they show was made up.
"""

import ast
import re
from dataclasses import dataclass, field
from typing import Literal

from returns.result import Failure, Result, Success

from rlm_fsm.fences import (
    OPAQUE,
    Block,
    Fence,
    Part,
    Prose,
    fence_at,
    lines_outside_strings,
    python_tree,
    shift_left,
    split,
)
from rlm_fsm.final import Answer, Fault, Final, TextAnswer, VariableAnswer, final_at, finals
from rlm_fsm.profile import Profile, fill
from rlm_fsm.wording import forms

__all__ = [
    "Answer",
    "ErrorKind",
    "Reply",
    "ReplyError",
    "TextAnswer",
    "VariableAnswer",
    "parse",
    "visible",
]

ErrorKind = Literal["empty", "cut", "cut_code", "refused", "no_code", "only_output"] | Fault

_CUT = frozenset({"length", "max_tokens"})
_REFUSED = frozenset({"content_filter", "refusal"})
_FAULTS = 4
"""Faulty answers that are looked at in one reply, each at the cost of reading on to its end."""

_THINK = re.compile(r"^[ \t]*<think(?:ing)?>", re.IGNORECASE | re.MULTILINE)
_THINK_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THINK_END_AT_EDGE = re.compile(
    r"^[ \t]*</think(?:ing)?>|</think(?:ing)?>[ \t]*$", re.IGNORECASE | re.MULTILINE
)

_CODE_LINE = re.compile(
    r"^[ \t]*(?:import \w|from [\w.]+ import|(?:def|class|for|while|if|with|try|async)\b.*:[ \t]*$"
    r"|[\w.]+(?:\[[^\]\n]*\])?[ \t]*[-+*/|&]?=[^=\n]|[\w.]+\()",
    re.MULTILINE,
)
_ASIDE = re.compile(r"\s*[\w.]+[ \t]+\(")
_DOES = (
    *(ast.Assign, ast.AugAssign, ast.NamedExpr, ast.Import, ast.ImportFrom),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Try, ast.TryStar, ast.Match),
    *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith),
    *(ast.Delete, ast.Assert, ast.Raise, ast.Pass),
    *(ast.Call, ast.Await, ast.Subscript, ast.JoinedStr),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
"""Syntax that makes a text code (rule 4)."""

_GENERAL: dict[ErrorKind, ErrorKind] = {"cut_code": "cut", "only_output": "no_code"}
"""What a kind counts as where the profile has no words for it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply asks for: code, an answer, or both, never neither."""

    blocks: tuple[str, ...] = ()
    """Code to run, in order, each block as a cell of its own."""
    answer: Answer | None = None
    """The final answer; it counts when no block raised."""
    left_out: int = 0
    """Blocks that the profile doesn't let run."""


@dataclass(frozen=True, slots=True)
class ReplyError:
    """Why a reply is neither code nor an answer."""

    kind: ErrorKind
    """``empty``, ``refused``: there is no whole text. ``cut``, ``cut_code``: the token limit came
    before it came to anything, or within its code. ``no_code``: there is text, but neither code
    nor an answer in it; ``only_output``: there are blocks, but none of code. The others: an answer
    with a fault."""
    reason: str
    """What the model is told: the fault, and the form that is expected."""


def parse(
    text: str, profile: Profile, finish_reason: str | None = None
) -> Result[Reply, ReplyError]:
    """Read a model's reply by the rules above.

    `finish_reason` is the provider's, as in `ModelReplied`.
    """
    lone = lone_block(text, profile)
    if lone is not None:
        return Success(Reply((lone,)))
    text = visible(text.replace("\r\n", "\n").replace("\r", "\n"))
    found = _read(text, profile)
    reason = (finish_reason or "").lower()
    if found.unfinished or found.is_nothing:
        if reason in _CUT:
            return _failure("cut_code" if found.blocks else "cut", profile)
        if reason in _REFUSED:
            return _failure("refused", profile)
    if found.is_nothing:
        nothing: ErrorKind = "only_output" if found.has_output else "no_code"
        return _failure(found.fault or (nothing if text.strip() else "empty"), profile)
    blocks = _chosen(found.blocks, profile)
    return Success(Reply(blocks, found.answer, len(found.blocks) - len(blocks)))


def lone_block(text: str, profile: Profile) -> str | None:
    """The code of a reply that is one plain block and nothing else; None for any other reply.

    A short cut: most replies are that, and the rules give the same for them.
    """
    if not text.startswith("```") or not text.endswith("\n```"):
        return None
    end = text.find("\n")
    language, body = text[3:end], text[end + 1 : -4]
    if not language or language not in profile.fences or not body or body[0].isspace():
        return None
    if "```" in body or "FINAL" in body or any(mark in body for mark in _NOT_PLAIN):
        return None
    return body if not body[-1].isspace() else None


def visible(text: str) -> str:
    """A reply without the reasoning in it (rule 1); unchanged when there is none."""
    if not _THINK.search(text) and not _THINK_END.search(text):
        return text
    kept: list[str] = []
    opened: Fence | None = None
    start = _after_stray_end(text)
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        tag = _THINK.match(text, start, end) if opened is None else None
        if tag:
            closing = _THINK_END.search(text, tag.end())
            start = closing.end() if closing else len(text)
            continue
        opened = _still_open(opened, fence_at(text, start, end))
        kept.append(text[start : end + 1])
        start = end + 1
    seen = "".join(kept)
    return text if len(seen) == len(text) else seen.strip()


_NOT_PLAIN = ("~~~", "\r", "think")
"""What the rules look at besides backticks and FINAL."""


@dataclass(slots=True)
class _Found:
    """What a reply was found to hold, so far."""

    blocks: list[str] = field(default_factory=list[str])
    answer: Answer | None = None
    fault: ErrorKind | None = None
    faults: int = 0
    unfinished: bool = False
    """Whether the text ended within code or within a form of an answer."""
    has_output: bool = False
    """Whether there was a block of output, or in a language that is never run."""

    @property
    def is_nothing(self) -> bool:
        return not self.blocks and self.answer is None

    def take(self, final: Final) -> bool:
        """Note an answer or its fault; True when it is an answer."""
        if final.answer is None:
            self.fault = self.fault or final.fault
            self.faults += 1
            self.unfinished = self.unfinished or final.fault == "bad_answer"
            return False
        self.answer = self.answer or final.answer
        return True


def _read(text: str, profile: Profile) -> _Found:
    parts = split(text, frozenset(profile.fences))
    if profile.bare_code and all(isinstance(part, Prose) for part in parts):
        found = _read_bare(text, profile)
        if found is not None:
            return found
    return _read_parts(text, parts, profile)


def _read_parts(text: str, parts: tuple[Part, ...], profile: Profile) -> _Found:
    """Rules 2, 3 and 5: blocks and prose, in order."""
    found = _Found()
    answered = 0
    for part in parts:
        if part.start < answered:
            continue
        if isinstance(part, Block):
            found.unfinished = not part.closed
            if _is_answer(part, profile, found):
                continue
            if _runs(part, profile):
                found.blocks.append(part.code)
                continue
            if part.closed or part.language:
                found.has_output = found.has_output or part.language in OPAQUE
                continue
            found.unfinished = False
        if found.answer is None:
            answered = _read_prose(text, part.start, part.end, found)
    return found


def _read_prose(text: str, start: int, end: int, found: _Found) -> int:
    """Look for the first answer that begins in a part of the text; where it ends, or 0."""
    for final in finals(text, start, end):
        if found.take(final):
            return final.end
        if found.faults >= _FAULTS:
            break
    return 0


def _read_bare(text: str, profile: Profile) -> _Found | None:
    """Rule 4: the reply as code, or None when it isn't."""
    found = _Found()
    for start in lines_outside_strings(text) if "FINAL" in text else ():
        final = final_at(text, start)
        if final is None:
            continue
        head = _without_label(text[:start], profile)
        if not head:
            return None
        if not final.is_expression and _is_code(head):
            found.take(final)
            found.blocks.append(head)
            return found
        break
    code = _without_label(text, profile)
    if not _is_code(code):
        return None
    found.blocks.append(code)
    found.unfinished = True
    return found


def _without_label(text: str, profile: Profile) -> str:
    """Code without a first line that only names a language of the profile."""
    label, _, rest = text.strip().partition("\n")
    return shift_left(rest if label and label.strip().lower() in profile.fences else text)


def _is_answer(block: Block, profile: Profile, found: _Found) -> bool:
    """Rule 5: whether a block holds nothing but an answer; the answer is noted."""
    final = final_at(block.code, 0)
    if final is None or final.end < len(block.code):
        return False
    if block.language and block.language in profile.fences:
        if final.is_expression:
            return False
        if "\n" in block.code and python_tree(block.code) is not None:
            return False
    found.take(final)
    return True


def _runs(block: Block, profile: Profile) -> bool:
    """Rule 2: whether a block is code to run."""
    if not block.code or block.language not in profile.fences:
        return False
    if block.language or _is_code(block.code):
        return True
    return _CODE_LINE.search(block.code) is not None and python_tree(block.code) is None


def _is_code(text: str) -> bool:
    """Whether a text is Python that does something, and not prose that happens to parse."""
    tree = python_tree(text)
    if tree is None:
        return False
    if len(tree.body) == 1 and _ASIDE.match(text):
        # "Paris (France)" is a call to the parser.
        return False
    return any(_does_something(node) for node in ast.walk(tree))


def _does_something(node: ast.AST) -> bool:
    match node:
        case ast.AnnAssign(value=value):
            return value is not None
        case ast.BinOp(left=left):
            # "1/0", but not "follow-up" or "B-52".
            return isinstance(left, ast.Constant)
        case _:
            return isinstance(node, _DOES)


def _after_stray_end(text: str) -> int:
    """Where the reply starts when its opening tag was lost: after the closing one."""
    end = _THINK_END_AT_EDGE.search(text)
    return end.end() if end and not _THINK.search(text, 0, end.start()) else 0


def _still_open(opened: Fence | None, fence: Fence | None) -> Fence | None:
    """The fence that is open after a line; strings are not looked at."""
    if fence is None:
        return opened
    if opened is None:
        return fence if fence.opens else None
    if not fence.ends(opened):
        return opened
    return None if fence.bare or not fence.opens else fence


def _chosen(blocks: list[str], profile: Profile) -> tuple[str, ...]:
    """The blocks to run (rule 8)."""
    match profile.blocks:
        case "all":
            return tuple(blocks)
        case "first":
            return tuple(blocks[:1])
        case "last":
            return tuple(blocks[-1:])


def _failure(kind: ErrorKind, profile: Profile) -> Result[Reply, ReplyError]:
    fault: str = getattr(profile, kind)
    if not fault:
        kind = _GENERAL[kind]
        fault = getattr(profile, kind)
    return Failure(ReplyError(kind, fill(profile.correction, fault=fault, forms=forms(profile))))
