"""What becomes of a cell's source before the sandbox runs it.

CPython's own parser reads the source and says where to insert text. Only insertions within a line
are made, so that line numbers stay true:

1. A trailing expression is wrapped in a call of `ECHO`: the sandbox prints it there. Handed over
   as a value, a function or a regular expression would arrive as a text.
2. `SHOW_VARS()` at the top level is given the names and types there are. A function can't see
   the globals from within, so calls inside functions get what there was when the cell began.

A source that this parser can't read (a mistake, or syntax newer than this Python) is passed on as
it is: the sandbox has the last word.
"""

import ast
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ECHO = "_rlm_echo"
"""Function of the sandbox that prints a value as an interactive session would."""
READ = "_rlm_read"
"""Function of the sandbox that gives a value's text, None where it is too long, and its length."""
VARIABLES = "{k: type(v).__name__ for k, v in locals().items()}"
"""Expression for the types of all variables by name; true at the top level only."""

_LINE_ENDS = re.compile("\r\n|\r|\n")
_SCOPES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
_parsing = threading.Lock()

Insertion = tuple[int, int, str]
"""Line, counted from 1; column in bytes of UTF-8; text."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's source and what was learned of it."""

    number: int
    """Counted from 1 over the cells of a session."""
    source: str
    """As the model wrote it."""
    code: str
    """What the sandbox is fed."""
    names: frozenset[str] = frozenset()
    """Names that it reads or binds, in whatever scope."""
    bound: frozenset[str] = frozenset()
    """Names that it binds, in whatever scope."""
    is_parsed: bool = False
    """False: the source is fed unchanged, and nothing is known of its names."""

    @property
    def lines(self) -> list[str]:
        """The source's lines, as the parser counts them."""
        return _LINE_ENDS.split(self.source)


def prepare(source: str, number: int) -> Cell:
    """Read a cell's source; never raises."""
    tree = _parsed(source)
    if tree is None:
        return Cell(number, source, source)
    names, bound = _names(tree)
    insertions = _echo(tree) + (_show_vars(tree) if "SHOW_VARS" in names else [])
    return Cell(number, source, _inserted(source, insertions), names, bound, True)


def _parsed(source: str) -> ast.Module | None:
    # Python's warnings about the model's code are nobody's business. The filters are global to
    # the process, hence the lock.
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _echo(tree: ast.Module) -> list[Insertion]:
    if not tree.body or not isinstance(last := tree.body[-1], ast.Expr):
        return []
    return [(last.lineno, last.col_offset, f"{ECHO}(("), (*_end(last), "))")]


def _show_vars(tree: ast.Module) -> list[Insertion]:
    made: list[Insertion] = []
    for call in _top_level_calls(tree.body):
        match call:
            case ast.Call(func=ast.Name(id="SHOW_VARS"), args=[], keywords=[]):
                line, column = _end(call)
                made.append((line, column - 1, VARIABLES))
            case _:
                pass
    return made


def _end(node: ast.stmt | ast.expr) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


def _top_level_calls(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    for node in nodes:
        if not isinstance(node, _SCOPES):
            if isinstance(node, ast.Call):
                yield node
            yield from _top_level_calls(ast.iter_child_nodes(node))


def _inserted(source: str, insertions: list[Insertion]) -> str:
    if not insertions:
        return source
    data = source.encode()
    starts = [0, *(match.end() for match in re.finditer(rb"\r\n|\r|\n", data))]
    # From the end, so that offsets stay true. Equal ones don't occur: a call of SHOW_VARS ends
    # with a parenthesis, which lies before the end of its statement.
    for line, column, text in sorted(insertions, reverse=True):
        at = starts[line - 1] + column
        data = data[:at] + text.encode() + data[at:]
    return data.decode()


def _names(tree: ast.Module) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a source reads or binds, and those that it binds."""
    names, bound = set[str](), set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=context):
                (names if isinstance(context, ast.Load) else bound).add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound.add(name)
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.alias(name=name, asname=asname):
                bound.add(asname or name.partition(".")[0])
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case _:
                pass
    return frozenset(names | bound), frozenset(bound)
