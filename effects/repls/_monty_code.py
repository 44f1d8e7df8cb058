"""What becomes of a cell's source before the sandbox runs it.

CPython's own parser reads the source and says where to change text. Nearly all changes are made
within lines (`_edits`), and lines that are put in are counted, so that line numbers stay true:

1. A trailing expression is wrapped in a call of `ECHO`: the sandbox prints it there. Handed over
   as a value, a function or a regular expression would arrive as a text.
2. `SHOW_VARS()` at the top level is given the names and types there are. A function can't see
   the globals from within, so calls inside functions get what there was when the cell began.
3. Gaps of the sandbox's Python are bridged where that is safe (`_monty_bridges`).

A source that this parser can't read (a mistake, or syntax newer than this Python) is passed on as
it is: the sandbox has the last word.
"""

import ast
import re
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from effects.repls._edits import Edits
from effects.repls._monty_bridges import bridge
from effects.repls._monty_shims import in_order

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
_NAMING = (
    ast.Name,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.ExceptHandler,
    ast.alias,
    ast.pattern,
)
"""Nodes that read or bind names."""
_parsing = threading.Lock()


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
    modules: frozenset[str] = frozenset()
    """Those of them that are modules under their own names."""
    shims: tuple[str, ...] = ()
    """What must be there of the library that the sandbox lacks, in the order of feeding it."""
    wants_text: bool = False
    """It reads `P`, so the text must be in the sandbox."""
    inserted: tuple[int, ...] = ()
    """Numbers of the source's lines above which a line was put into the code, in their order."""
    is_parsed: bool = False
    """False: the source is fed unchanged, and nothing is known of its names."""

    @property
    def lines(self) -> list[str]:
        """The source's lines, as the parser counts them."""
        return _LINE_ENDS.split(self.source)

    def line(self, number: int) -> int:
        """The number in the source of a line of the code."""
        return number - sum(at + i < number for i, at in enumerate(self.inserted))


def prepare(
    source: str, number: int, asking: Collection[str] = (), owned: frozenset[str] = frozenset()
) -> Cell:
    """Read a cell's source; never raises.

    `asking` are the functions that ask sub-models, `owned` names that earlier cells bound.
    """
    tree = _parsed(source)
    if tree is None:
        return Cell(number, source, source)
    nodes = list(ast.walk(tree))
    names, bound = _names(nodes)
    modules = _modules(nodes)
    edits = Edits(source)
    _echo(tree, edits)
    if "SHOW_VARS" in names:
        _show_vars(tree, edits)
    try:
        bridged = bridge(tree, edits, asking, (owned | bound | _arguments(nodes)) - modules)
    except RecursionError:  # nested more deeply than anyone writes
        return Cell(number, source, source)
    texts = 0
    if "P" in names:
        texts = sum(isinstance(node, ast.Name) and node.id == "P" for node in nodes)
    return Cell(
        number,
        source,
        edits.result(),
        names,
        bound,
        modules,
        shims=in_order(sorted(bridged.shims)),
        wants_text=texts > bridged.own_text_uses or "globals" in bridged.shims,
        inserted=tuple(sorted(edits.inserted)),
        is_parsed=True,
    )


def _parsed(source: str) -> ast.Module | None:
    # Python's warnings about the model's code are nobody's business. The filters are global to
    # the process, hence the lock.
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _echo(tree: ast.Module, edits: Edits) -> None:
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        edits.wrap(edits.start(last), edits.end(last), f"{ECHO}((", "))")


def _show_vars(tree: ast.Module, edits: Edits) -> None:
    for call in _top_level_calls(tree.body):
        match call:
            case ast.Call(func=ast.Name(id="SHOW_VARS"), args=[], keywords=[]):
                edits.wrap(edits.end(call) - 1, edits.end(call) - 1, VARIABLES, "")
            case _:
                pass


def _top_level_calls(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    for node in nodes:
        if not isinstance(node, _SCOPES):
            if isinstance(node, ast.Call):
                yield node
            yield from _top_level_calls(ast.iter_child_nodes(node))


def _modules(nodes: Iterable[ast.AST]) -> frozenset[str]:
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    return frozenset(alias.name for node in imports for alias in node.names if not alias.asname)


def _arguments(nodes: Iterable[ast.AST]) -> frozenset[str]:
    return frozenset(node.arg for node in nodes if isinstance(node, ast.arg))


def _names(nodes: Iterable[ast.AST]) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a source reads or binds, and those that it binds."""
    names, bound = set[str](), set[str]()
    for node in nodes:
        if not isinstance(node, _NAMING):
            continue
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
