"""``schema=``: from what code passes to the text of a JSON schema.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself. Whether the schema is a good one is the host's to say.

Taken are a dict (a JSON schema itself), a text that holds one, and Python's types: int, float, str,
bool, None, list, dict, ``list[...]``, ``dict[str, ...]``, ``tuple[...]``, ``Literal[...]``, unions,
dataclasses, typed dicts and enums of plain values. A sandbox that hands types over as texts
(``'list[str]'``) is understood too.
"""

import enum
import json
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import ast

_SIMPLE: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    None: {"type": "null"},
    type(None): {"type": "null"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
    object: {},
}
_NAMES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "None": None,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "Any": Any,
    "object": object,
    "List": list,
    "Dict": dict,
    "Tuple": tuple,
    "Literal": typing.Literal,
    "Optional": typing.Optional,
    "Union": typing.Union,
}
_ACCEPTED = (
    "schema takes a JSON schema (dict) or a type: int, list[str], Literal['a', 'b'], a dataclass, "
    "a TypedDict"
)
_MOST_DEPTH = 20


def schema_text(schema: object) -> str | None:
    """The JSON schema that an argument means, as JSON; None for None. `TypeError` says what is
    accepted, `ValueError` what can't be said in JSON."""
    if schema is None:
        return None
    if isinstance(schema, str):
        schema = _of_text(schema)
    if not isinstance(schema, dict):
        schema = _of_type(schema, 0)
    try:
        return json.dumps(schema, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the schema is no plain data: {error}") from None


def _of_text(text: str) -> object:
    """The schema in a text: JSON, or a type as Python writes it."""
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            return cast(object, found)
    except ValueError:
        pass
    import ast  # not at the start of a session, see `_child`

    shown = text.removeprefix("<class '").removesuffix("'>")
    try:
        return _of_node(ast.parse(shown.strip(), mode="eval").body)
    except (SyntaxError, KeyError, TypeError, ValueError, RecursionError, MemoryError):
        raise TypeError(f"{_ACCEPTED}; not the text {text[:80]!r}") from None


def _of_node(node: "ast.expr") -> Any:
    """A type from its syntax. Nothing is evaluated but what is looked up in `_NAMES`."""
    import ast

    match node:
        case ast.Name(id=name):
            return _NAMES[name]
        case ast.Attribute(attr=name):
            return _NAMES[name]
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=items):
            return tuple(_of_node(item) for item in items)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_of_node(left), _of_node(right)]  # noqa: UP007 - made at run time
        case ast.Subscript(value=value, slice=inner):
            return _of_node(value)[_of_node(inner)]
        case _:
            raise TypeError("no type")


def _of_type(kind: Any, depth: int) -> dict[str, Any]:
    """The schema of a type."""
    if depth > _MOST_DEPTH:
        raise ValueError("the type is nested too deeply, or holds itself")
    try:
        simple = _SIMPLE.get(kind)
    except TypeError:
        simple = None
    if simple is not None:
        return simple
    if (origin := typing.get_origin(kind)) is not None:
        return _of_generic(origin, typing.get_args(kind), depth + 1)
    if isinstance(cast(object, kind), type):
        if hasattr(kind, "__dataclass_fields__"):
            return _object(kind, _needed(kind), depth + 1)
        if typing.is_typeddict(kind):
            return _object(kind, sorted(cast(Any, kind).__required_keys__), depth + 1)
        if issubclass(kind, enum.Enum):
            return {"enum": [member.value for member in kind]}
    name = getattr(kind, "__name__", type(kind).__name__)
    raise TypeError(f"{_ACCEPTED}; not {name}")


def _of_generic(origin: Any, args: tuple[Any, ...], depth: int) -> dict[str, Any]:
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin in (typing.Required, typing.NotRequired, typing.Annotated):
        return _of_type(args[0], depth)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of_type(arg, depth) for arg in args]}
    if origin is list:
        return {"type": "array", "items": _of_type(args[0], depth)}
    if origin is dict:
        if args[0] is not str:
            raise TypeError("the keys of a dict are texts in JSON: dict[str, ...]")
        return {"type": "object", "additionalProperties": _of_type(args[1], depth)}
    if origin is tuple:
        if len(args) == 2 and args[1] is ...:
            return {"type": "array", "items": _of_type(args[0], depth)}
        items = [_of_type(arg, depth) for arg in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    raise TypeError(f"{_ACCEPTED}; not {origin}")


def _needed(kind: Any) -> list[str]:
    """The fields of a dataclass that have no default."""
    module = sys.modules["dataclasses"]  # the class was made with it; loading it takes a while
    missing = module.MISSING
    return [f.name for f in module.fields(kind) if f.default is f.default_factory is missing]


def _object(kind: Any, required: list[str], depth: int) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {
        "type": "object",
        "properties": {name: _of_type(hint, depth) for name, hint in hints.items()},
        "required": [name for name in hints if name in required],
        "additionalProperties": False,
    }
