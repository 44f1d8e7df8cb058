"""How values of annotated types are written as canonical JSON and read back.

`shape_of` builds a `Shape`, a writer and a reader, from a type hint: once, at import, so that no
event is looked at by reflection. Known are texts, numbers, truth values, literals, optionals,
tuples, mappings of texts, and frozen dataclasses of these. The rules of the format stand in
`codec`; here is how each type keeps them.

Writers and readers refuse what the type forbids with `IllTyped`. They never look at a value's own
methods beyond those of its type, and readers make nothing but the annotated classes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from json.encoder import encode_basestring_ascii
from math import isfinite
from operator import attrgetter
from types import NoneType
from typing import (
    Any,
    Final,
    Literal,
    NewType,
    NoReturn,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from rlm_fsm.values import text_hash

BLOB_CHARS: Final = 1024
"""Characters above which a text is moved out. A quarter of SQLite's page of 4,096 bytes: longer
rows would spill over, and shorter texts aren't worth a row of their own."""

Blobs = list[tuple[str, str]]
"""(hash, text) of the texts that a writer moved out."""
Find = Callable[[str], str]
"""Text by hash, for a reader; raises `KeyError`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One type's way to JSON and back."""

    write: Callable[[Any, Blobs], str]
    """Value to JSON text; appends the texts that it moves out."""
    read: Callable[[Any, Find], Any]
    """Parsed JSON to value."""


class IllTyped(Exception):
    """A value of the wrong type. Says where and what was expected, never the value."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.path = ""
        self.problem = problem

    def within(self, name: str) -> "IllTyped":
        """The same, seen from one object further out."""
        self.path = f"{name}.{self.path}" if self.path else name
        return self

    def __str__(self) -> str:
        return f"{self.path or 'payload'}: {self.problem}"


def shape_of(hint: Any, full: frozenset[type] = frozenset()) -> Shape:
    """The shape of a type hint. Dataclasses named in `full` are written with all their fields.

    Raises `TypeError` for a hint that has no shape: a mistake in an event's class.
    """
    simple = _SIMPLE.get(hint)
    if simple is not None:
        return simple
    if isinstance(hint, NewType):
        return shape_of(hint.__supertype__, full)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _choice(args)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return _array(shape_of(args[0], full))
    if len(args) == 2 and args[1] is NoneType:
        return _optional(shape_of(args[0], full))
    if isinstance(hint, type) and is_dataclass(hint):
        return _object(hint, full)
    raise TypeError(f"no shape for {hint!r}")


def _expected(what: str, found: Any) -> IllTyped:
    return IllTyped(f"expected {what}, found {type(found).__name__}")


@dataclass(frozen=True, slots=True)
class _Field:
    head: str
    """The field's name as JSON, with its colon."""
    shape: Shape
    default: Any
    default_text: str | None


def _object(cls: type[Any], full: frozenset[type]) -> Shape:
    """A dataclass, as an object of the fields that differ from their defaults."""
    items = _fields(cls, full)
    required = frozenset(name for name, item in items.items() if item.default_text is None)
    readers = {name: item.shape.read for name, item in items.items()}
    rows = [
        (item.head, item.default, item.default_text, item.shape.write) for item in items.values()
    ]
    values: Callable[[Any], tuple[Any, ...]] = attrgetter(*items)
    if len(items) == 1:
        raise TypeError(f"{cls.__name__} has a single field: attrgetter gives no tuple")

    def write(value: Any, blobs: Blobs) -> str:
        if type(value) is not cls:
            raise _expected(cls.__name__, value)
        parts: list[str] = []
        head = ""
        try:
            for (head, default, default_text, write_item), item in zip(rows, values(value)):  # noqa: B905 - hot
                if item is not default:
                    text = write_item(item, blobs)
                    if text != default_text:
                        parts.append(head + text)
        except IllTyped as error:
            raise error.within(head[1:-2]) from None
        return "{" + ",".join(parts) + "}"

    def read(value: Any, find: Find) -> Any:
        if type(value) is not dict:
            raise _expected("an object", value)
        found: dict[str, Any] = {}
        name = ""
        try:
            for name, item in cast(dict[str, Any], value).items():
                found[name] = readers.get(name, _read_unknown)(item, find)
        except IllTyped as error:
            raise error.within(name) from None
        if not found.keys() >= required:
            raise IllTyped("it lacks " + ", ".join(sorted(required - found.keys())))
        try:
            return cls(**found)
        except ValueError as error:  # A class that checks its values, such as `Policy`.
            raise IllTyped(str(error)) from error

    return Shape(write, read)


_NEVER: Final = object()


def _fields(cls: type[Any], full: frozenset[type]) -> dict[str, _Field]:
    """The fields of a dataclass by name, sorted. What isn't compared isn't written."""
    hints = get_type_hints(cls)
    found: dict[str, _Field] = {}
    for field in sorted(fields(cls), key=lambda field: field.name):
        if not field.compare:
            continue
        shape = shape_of(hints[field.name], full)
        head = encode_basestring_ascii(field.name) + ":"
        default = _NEVER if cls in full else _default(field)
        text = None if default is _NEVER else shape.write(default, [])
        found[field.name] = _Field(head, shape, default, text)
    return found


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return _NEVER if field.default_factory is MISSING else field.default_factory()


def _read_unknown(value: Any, find: Find) -> NoReturn:
    raise IllTyped("there is no such field")


def _write_text(value: Any, blobs: Blobs) -> str:
    if not isinstance(value, str):
        raise _expected("a text", value)
    if len(value) <= BLOB_CHARS and (value.isascii() or _survives_json(value)):
        return encode_basestring_ascii(value)
    digest = text_hash(value)
    blobs.append((digest, value))
    return f'{{"$blob":"{digest}","chars":{len(value)}}}'


def _read_text(value: Any, find: Find) -> str:
    if type(value) is str:
        return value
    match value:
        case {"$blob": str(digest), "chars": int(chars), **rest} if not rest:
            try:
                text = find(digest)
            except KeyError:
                raise IllTyped(f"the text {digest[:12]}... is missing") from None
            if len(text) != chars:
                raise IllTyped(f"the text {digest[:12]}... has not its {chars} characters")
            return text
        case _:
            raise _expected("a text", value)


def _survives_json(text: str) -> bool:
    """Whether no high surrogate stands before a low one: JSON would join them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        units = text.encode("utf-16-le", "surrogatepass")
        return units.decode("utf-16-le", "surrogatepass") == text
    return True


def _write_int(value: Any, blobs: Blobs) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _expected("a whole number", value)
    try:
        return int.__repr__(value)
    except ValueError:  # Python's limit on digits, which reading has too.
        raise IllTyped("a number has at most 4,300 digits") from None


def _read_int(value: Any, find: Find) -> int:
    if type(value) is not int:
        raise _expected("a whole number", value)
    return value


def _write_number(value: Any, blobs: Blobs) -> str:
    if not isinstance(value, float):
        return _write_int(value, blobs)
    return float.__repr__(value) if isfinite(value) else f'"{json.dumps(float(value))}"'


def _read_number(value: Any, find: Find) -> float:
    if type(value) is float:
        return value
    if type(value) is str and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return _read_int(value, find)


def _write_bool(value: Any, blobs: Blobs) -> str:
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return "true" if value else "false"


def _read_bool(value: Any, find: Find) -> bool:
    if type(value) is not bool:
        raise _expected("true or false", value)
    return value


def _write_mapping(value: Any, blobs: Blobs) -> str:
    items: Any = value
    if type(value) is not dict and not isinstance(value, Mapping):
        raise _expected("a mapping", value)
    for key in items:
        if not isinstance(key, str) or not _survives_json(key):
            raise _expected("keys that are texts without surrogate pairs", key)
    parts = [f"{encode_basestring_ascii(k)}:{_write_text(items[k], blobs)}" for k in sorted(items)]
    return "{" + ",".join(parts) + "}"


def _read_mapping(value: Any, find: Find) -> dict[str, str]:
    if type(value) is not dict:
        raise _expected("an object", value)
    return {key: _read_text(item, find) for key, item in cast(dict[str, Any], value).items()}


_SIMPLE: dict[Any, Shape] = {
    str: Shape(_write_text, _read_text),
    int: Shape(_write_int, _read_int),
    float: Shape(_write_number, _read_number),
    bool: Shape(_write_bool, _read_bool),
    Mapping[str, str]: Shape(_write_mapping, _read_mapping),
}


def _choice(options: tuple[str, ...]) -> Shape:
    """A literal: one of a few texts."""
    expected = "one of " + ", ".join(options)
    texts = {option: encode_basestring_ascii(option) for option in options}

    def write(value: Any, blobs: Blobs) -> str:
        if not isinstance(value, str) or value not in texts:
            raise _expected(expected, value)
        return texts[value]

    def read(value: Any, find: Find) -> str:
        if type(value) is not str or value not in texts:
            raise _expected(expected, value)
        return value

    return Shape(write, read)


def _optional(inner: Shape) -> Shape:
    """The inner type or None."""
    write, read = inner.write, inner.read
    return Shape(
        lambda value, blobs: "null" if value is None else write(value, blobs),
        lambda value, find: None if value is None else read(value, find),
    )


def _array(inner: Shape) -> Shape:
    """A tuple of any length."""

    def write(value: Any, blobs: Blobs) -> str:
        items: Any = value
        if not isinstance(value, tuple):
            raise _expected("a tuple", value)
        return "[" + ",".join([inner.write(item, blobs) for item in items]) + "]"

    def read(value: Any, find: Find) -> tuple[Any, ...]:
        items: Any = value
        if type(value) is not list:
            raise _expected("an array", value)
        return tuple([inner.read(item, find) for item in items])

    return Shape(write, read)
