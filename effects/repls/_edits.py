"""Changes to a source by the places of its syntax tree.

A source is never written anew from its tree: text is put in and replaced within lines, so every
line keeps its number. Whole lines may be put in, too; `Edits.inserted` knows where.

Texts that wrap an expression nest as the expressions do, also where they begin or end at the same
place: a wrap that was asked for first lies outside.
"""

import ast
import re
from itertools import count

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")

Located = ast.stmt | ast.expr
"""Nodes that know their place."""


class Edits:
    """Changes to one source."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.inserted: list[int] = []
        """Numbers of the lines above which a line was put in."""
        self._data = source.encode()
        self._starts = [0, *(match.end() for match in _LINE_ENDS.finditer(self._data))]
        self._order = count()
        self._changes: list[tuple[int, int, int, str]] = []
        """Start and end in bytes; the rank among those at the same place; text."""

    def __bool__(self) -> bool:
        return bool(self._changes)

    def start(self, node: Located) -> int:
        """Where a node begins, in bytes."""
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: Located) -> int:
        """Where it ends: the byte after its last one."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, start: int, end: int) -> str:
        """The source between two places."""
        return self._data[start:end].decode(errors="replace")

    def is_exact(self, node: ast.expr) -> bool:
        """Whether the place of a node is right: within f-strings Python 3.11 errs at times."""
        try:
            part = ast.parse(f"({self.text(self.start(node), self.end(node))})", mode="eval").body
        except (SyntaxError, ValueError, IndexError):
            return False
        return ast.dump(part) == ast.dump(node)

    def wrap(self, start: int, end: int, before: str, after: str) -> None:
        """Put a text before and one after what lies between two places."""
        rank = next(self._order)
        self._changes.append((start, start, rank, before))
        self._changes.append((end, end, -1 - rank, after))

    def replace(self, start: int, end: int, text: str) -> None:
        """Put a text in the place of another, which no other change may touch."""
        self._changes.append((start, end, next(self._order), text))

    def starts_line(self, node: Located) -> bool:
        """Whether nothing but space stands before a node in its line."""
        return not self.text(self._starts[node.lineno - 1], self.start(node)).strip()

    def end_of(self, node: Located, words: str) -> int:
        """Where the words end that a node begins with; 0 where it doesn't."""
        start = self.start(node)
        size = len(words.encode())
        return start + size if self.text(start, start + size) == words else 0

    def insert_line_above(self, node: Located, text: str) -> None:
        """Put a line before that of a node, with the same indentation."""
        start = self._starts[node.lineno - 1]
        indent = self.text(start, self.start(node))
        self.replace(start, start, f"{indent}{text}\n")
        self.inserted.append(node.lineno)

    def lines(self, start: int, end: int) -> str:
        """Line ends, as many as lie between two places."""
        return "\n" * len(_LINE_ENDS.findall(self._data[start:end]))

    def result(self) -> str:
        """The source with all changes."""
        pieces: list[bytes] = []
        at = 0
        for start, end, _, text in sorted(self._changes):
            pieces += [self._data[at:start], text.encode()]
            at = end
        return b"".join([*pieces, self._data[at:]]).decode()
