"""Where the code is in a text: fenced blocks, and whether a text is Python at all.

A model's fences are not Markdown's. The rules, each with its reason:

1. A fence is a line that begins, after any indentation, with three or more backticks or tildes.
   The first word after them, in any case, is the block's language; the rest is ignored.
   Backticks after backticks make a line prose: that is inline code.
2. A fence of the same character and at least the same length ends a block. If words follow it, it
   also opens the next block: models forget to close a block before they open another one, and
   write junk after a closing fence. A block that junk opened is read as prose.
3. A fence inside a triple-quoted string doesn't end a block of code. Strings are told by their
   quotes, as Python's tokenizer does. When that gives code that doesn't parse, or no end at all, a
   quote was left open by mistake, and the first fence ends the block.
4. Backticks outside strings and comments end a block of code wherever they stand, since Python has
   no use for them: models glue the closing fence to their last line.
5. The end of the text ends the last block.
6. Code that is indented as a whole, as in a list, is shifted to the left.

Every function takes any text, never raises, and does work linear in the text's length: no pattern
here backtracks, and rule 3 may look ahead in vain only `_MISSES` times in one text.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})([^\n]*)", re.MULTILINE)
_LANGUAGE = re.compile(r"[\w+#-]+")
_TOKEN = re.compile(r"\\.|'''|\"\"\"|['\"#]|`{3,}")
_ESCAPE = re.compile(r"\\[^\n]")
_MISSES = 8

OPAQUE = frozenset(
    {"text", "txt", "plain", "plaintext", "output", "out", "stdout", "console", "result", "log"}
    | {"traceback", "error", "diff", "json", "yaml", "xml", "html", "csv", "markdown", "md", "sql"}
    | {"bash", "sh", "shell", "javascript", "js", "typescript", "ts"}
)
"""Languages that are surely meant, so that rule 2 doesn't take them for junk. None of them runs."""


@dataclass(frozen=True, slots=True)
class Prose:
    """Text outside blocks: ``text[start:end]``, half-open."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ``text[start:end]``, half-open, fences included."""

    start: int
    end: int
    language: str
    """In lower case; empty when the fence names none."""
    code: str
    """What stands between the fences, without blank lines around it, shifted to the left."""
    closed: bool
    """False when the text ended first."""


Part = Prose | Block


def split(text: str, languages: frozenset[str]) -> tuple[Part, ...]:
    """The blocks of a text and the prose between them, in order.

    `languages` are those whose blocks are read as Python (rules 3 and 4).
    Lines must end in ``\\n`` alone.
    """
    return tuple(part for part in _Splitter(text, languages).parts() if part.end > part.start)


def lines_outside_strings(text: str) -> Iterator[int]:
    """Where the lines start that don't begin inside a string, if the text is Python."""
    state: str | None = None
    for start, end in _lines(text, 0):
        if state is None:
            yield start
        state, _ = _lex(text, start, end, state)


def python_tree(code: str) -> ast.Module | None:
    """The syntax tree of a text, or None when it isn't Python.

    Escapes are blanked first: the parser would warn of those it doesn't know, on stderr or by
    raising, and what strings say doesn't matter here.
    """
    try:
        return ast.parse(_ESCAPE.sub("::", code))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        # Null bytes and lone surrogates give a ValueError, deep nesting one of the last three.
        return None


def shift_left(code: str) -> str:
    """Code without blank lines around it; the first line's indentation is taken off every line."""
    lines = code.rstrip().split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    lines = lines[first:]
    if not lines:
        return ""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip(" \t"))]
    return "\n".join(line.removeprefix(indent) for line in lines) if indent else "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Fence:
    """A line that may open or close a block."""

    start: int
    """Where its line starts."""
    body: int
    """Where the next line starts."""
    mark: str
    """Its backticks or tildes."""
    language: str
    bare: bool
    """Whether nothing follows the mark."""
    opens: bool
    """Whether it may open a block (rule 1)."""

    def ends(self, opening: "Fence") -> bool:
        """Whether it ends the block that the other one opened."""
        return self.mark[0] == opening.mark[0] and len(self.mark) >= len(opening.mark)


def fence_at(text: str, start: int, end: int) -> Fence | None:
    """The fence on the line ``text[start:end]``, or None."""
    found = _FENCE.match(text, start, end)
    return _fence(found) if found else None


@dataclass(frozen=True, slots=True)
class _End:
    """How a block ends."""

    code: int
    """Where its code ends."""
    next: int
    """Where reading goes on."""
    fence: Fence | None = None
    """The line that ends it, if it is a line of its own."""
    closed: bool = True


class _Splitter:
    """One pass over a text. An object only for the count of vain looks ahead."""

    def __init__(self, text: str, languages: frozenset[str]) -> None:
        self.text = text
        self.languages = languages
        self.misses = 0

    def parts(self) -> Iterator[Part]:
        text, start, position = self.text, 0, 0
        while (found := _FENCE.search(text, position)) is not None:
            fence = _fence(found)
            if not fence.opens:
                position = fence.body
                continue
            yield Prose(start, fence.start)
            blocks, position = self._blocks(fence)
            yield from blocks
            start = position
        yield Prose(start, len(text))

    def _blocks(self, fence: Fence) -> tuple[list[Part], int]:
        """The block that a fence opens, and those that are opened by the end of another one."""
        found: list[Part] = []
        by_junk = False
        while True:
            end = self._end(fence)
            if by_junk:
                found.append(Prose(fence.body, end.code))
            else:
                code = shift_left(self.text[fence.body : end.code])
                found.append(Block(fence.start, end.next, fence.language, code, end.closed))
            if end.fence is None or end.fence.bare or not end.fence.opens:
                return found, end.next
            fence = end.fence
            by_junk = not fence.language or fence.language not in self.languages | OPAQUE

    def _end(self, opening: Fence) -> _End:
        """Where the block that a fence opens ends (rules 2 to 5)."""
        text, state, inside = self.text, None, None
        is_code = opening.language in self.languages
        for start, line_end in _lines(text, opening.body):
            fence = fence_at(text, start, line_end)
            if fence is not None and fence.ends(opening):
                end = _End(code=start, next=min(fence.body, len(text)), fence=fence)
                if state is None:
                    return self._checked(opening, inside, end)
                inside = inside or end
                if self.misses >= _MISSES:
                    return inside
            if is_code:
                state, ticks = _lex(text, start, line_end, state)
                if ticks and ticks[1] - ticks[0] >= len(opening.mark) and opening.mark[0] == "`":
                    return self._checked(opening, inside, _End(code=ticks[0], next=ticks[1]))
        return self._checked(opening, inside, _End(len(text), len(text), closed=False))

    def _checked(self, opening: Fence, inside: _End | None, end: _End) -> _End:
        """The end, unless fences were skipped as parts of strings and the code doesn't parse."""
        if inside is None or python_tree(shift_left(self.text[opening.body : end.code])):
            return end
        self.misses += 1
        return inside


def _fence(found: re.Match[str]) -> Fence:
    mark, info = found[1], found[2].strip()
    language = _LANGUAGE.search(info.lower())
    return Fence(
        start=found.start(),
        body=found.end() + 1,
        mark=mark,
        language=language[0] if language else "",
        bare=not info,
        opens=mark[0] == "~" or "`" not in info,
    )


def _lex(
    text: str, start: int, end: int, state: str | None
) -> tuple[str | None, tuple[int, int] | None]:
    """Read one line of Python: the quotes of the string it ends in, and its first backticks.

    `state` is the string that it begins in. Backticks in strings and comments don't count.
    """
    for token in _TOKEN.finditer(text, start, end):
        quotes = token[0]
        if quotes[0] == "\\":
            continue
        if state is not None:
            if quotes.startswith(state):
                state = None
        elif quotes[0] == "#":
            return None, None
        elif quotes[0] == "`":
            return None, token.span()
        else:
            state = quotes
    if state is not None and len(state) == 1 and not text.endswith("\\", start, end):
        state = None
    return state, None


def _lines(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Start and end of each line from `start` on; the end is where its line feed stands."""
    while start < len(text):
        end = _line_end(text, start)
        yield start, end
        start = end + 1


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
