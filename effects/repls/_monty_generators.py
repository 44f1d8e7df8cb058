"""Generator functions in the sandbox, which has no ``yield``: those that a list can stand for.

The function fills a list and its caller gets an iterator over it: `_rlm_generator` is put above
it, as a line of its own, and ``yield x`` becomes ``_rlm_out.append((x))``. That is the same to
its caller if nothing can be told of *when* the function runs. So it is done only for a function
that reads nothing but its arguments, constants and `P`, changes nothing but its own variables,
calls nothing but functions and methods that compute values, and ends by itself as far as one can
see. Its arguments are looked at when it is called: they must be of types that don't change.

An error in the function comes after the items before it, as from a generator.
"""

import ast
import re
from collections.abc import Collection, Iterator

from effects.repls._edits import Edits

SOURCE = """
_rlm_constant = ("str", "bytes", "int", "float", "bool", "NoneType", "range", "Pattern")
def _rlm_is_constant(value):
    if type(value).__name__ in ("tuple", "frozenset"):
        return all([_rlm_is_constant(item) for item in value])
    return type(value).__name__ in _rlm_constant
class _rlm_Items:
    def __init__(self, items, error):
        self.items = iter(items)
        self.error = error
    def __iter__(self):
        return self
    def __next__(self):
        for item in self.items:
            return item
        error, self.error = self.error, None
        if error is None:
            raise StopIteration
        raise error
def _rlm_generator(function):
    def begin(*args, **options):
        for value in [*args, *options.values()]:
            if not _rlm_is_constant(value):
                raise NotImplementedError(
                    "yield isn't available here, except in functions of texts and numbers: "
                    f"this one was given a {type(value).__name__}"
                )
        items = []
        try:
            function(items, *args, **options)
        except Exception as error:
            return _rlm_Items(items, error)
        return iter(items)
    return begin
"""
"""What the changed functions need in the sandbox."""

_COMPUTING = (
    "abs all any bool bytes chr dict enumerate float frozenset int isinstance len list max min "
    "ord range repr reversed round set sorted str sum tuple zip"
)
_READING = (
    "count decode encode end endswith find findall finditer format fullmatch get group groupdict "
    "groups index isalnum isalpha isdigit islower isspace isupper items join keys ljust lower "
    "lstrip match partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit "
    "rstrip search span split splitlines start startswith strip title upper values zfill"
)
_FUNCTIONS = frozenset(_COMPUTING.split())
_METHODS = frozenset(_READING.split())
_CHANGING = frozenset({"append", "add", "extend", "pop"})
"""Methods that change what they belong to, which must be the function's own."""
_MODULES = frozenset({"re", "math"})
_REFUSED = (
    ast.Global,
    ast.Nonlocal,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.Await,
    ast.Try,
    ast.With,
    ast.Import,
    ast.ImportFrom,
    ast.Delete,
)


def bridge_generator(node: ast.FunctionDef, edits: Edits, taken: Collection[str]) -> bool:
    """Note the changes to a generator function; False where it is none, or can't be bridged."""
    yields = [n for n in _body(node) if isinstance(n, ast.Yield | ast.YieldFrom)]
    if not yields or not _is_replaceable(node, yields, edits, taken):
        return False
    edits.insert_line_above(node, "@_rlm_generator")
    opening = edits.end_of(node, f"def {node.name}(")
    has_arguments = any(isinstance(n, ast.arg) for n in ast.walk(node.args))
    edits.wrap(opening, opening, "_rlm_out, " if has_arguments else "_rlm_out", "")
    for found in yields:
        start, end = edits.start(found), edits.end(found)
        word = re.match(r"yield\s+from|yield", edits.text(start, end))
        assert word is not None
        method = "extend" if isinstance(found, ast.YieldFrom) else "append"
        edits.replace(start, start + len(word[0]), f"_rlm_out.{method}((")
        edits.wrap(end, end, "None))" if found.value is None else "))", "")
    return True


def _body(node: ast.FunctionDef) -> Iterator[ast.AST]:
    for statement in node.body:
        yield from ast.walk(statement)


def _is_replaceable(
    node: ast.FunctionDef,
    yields: list[ast.Yield | ast.YieldFrom],
    edits: Edits,
    taken: Collection[str],
) -> bool:
    nodes = list(_body(node))
    statements = {id(n.value) for n in nodes if isinstance(n, ast.Expr)}
    own = {n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)}
    made = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return (
        not node.decorator_list
        and all(id(found) in statements for found in yields)
        and not any(isinstance(n, _REFUSED) for n in nodes)
        and edits.starts_line(node)
        and edits.end_of(node, f"def {node.name}(") > 0
        and all(_is_calm(n, made) for n in nodes)
        and all(_is_known(n, own | made, taken) for n in nodes)
        and all(_ends(n) for n in nodes if isinstance(n, ast.While))
        and not any(isinstance(d, ast.Call) for d in ast.walk(node.args))
    )


def _is_calm(node: ast.AST, made: set[str]) -> bool:
    """Whether a node changes nothing but variables of the function."""
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in _FUNCTIONS
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner))) if owner in _MODULES:
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=attr)) if attr in _CHANGING:
            return owner in made
        case ast.Call(func=ast.Attribute(attr=attr)):
            return attr in _METHODS
        case ast.Call() | ast.Attribute(ctx=ast.Store()):
            return False
        case ast.Subscript(value=owner, ctx=ast.Store()):
            return isinstance(owner, ast.Name) and owner.id in made
        case _:
            return True


def _is_known(node: ast.AST, own: set[str], taken: Collection[str]) -> bool:
    """Whether a name is the function's own, or means the same at any time."""
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            constant = name in _FUNCTIONS or name in _MODULES or name == "P"
            return name in own or (constant and name not in taken)
        case _:
            return True


def _ends(loop: ast.While) -> bool:
    """Whether a loop has an end that one can see."""
    is_constant = isinstance(loop.test, ast.Constant)
    leaves = any(isinstance(n, ast.Break | ast.Return | ast.Raise) for n in ast.walk(loop))
    return leaves or not is_constant
