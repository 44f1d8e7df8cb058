"""Tools in the REPL: functions of the caller's program, which run on the host.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself, with `_functions`, whose rules hold here too.

A call is bound to the tool's parameters here, as Python would, and its arguments go to the host as
plain data. The host has the function; here is only what it is called and which parameters it has.

1. A call that the function can't take, or whose arguments aren't plain data, is a `TypeError` or
   `ValueError` at once: the host is not asked.
2. A call that failed is a `ToolError`, one that a person refused a `ToolDenied`; both name the
   tool.
"""

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING or __package__:
    from effects.repls import _functions
else:
    import _functions

PLAIN = "plain data: None, True, False, numbers, str, lists, and dicts with str as keys"

Tool = Mapping[str, Any]
"""``name``, ``signature``, ``doc``, ``max_chars``, and ``parameters``: a list of (name, kind,
whether it is required), with the kinds of `rlm_fsm.toolspec.ParameterKind`."""
Parameters = Sequence[Sequence[Any]]
Program = Generator["_functions.Ask", "list[_functions.Answer]", Any]


class ToolError(RuntimeError):
    """A call of a tool failed. `tool` is its name."""

    def __init__(self, message: str, tool: str = "") -> None:
        super().__init__(message)
        self.tool = tool


class ToolDenied(ToolError):
    """A person refused the call. Making it again won't help."""


ERRORS = {"ToolError": ToolError, "ToolDenied": ToolDenied}
"""By the names that code knows them by."""


def programs(tools: Iterable[Tool]) -> dict[str, Callable[..., Program]]:
    """The functions, by name."""
    return {tool["name"]: _program(tool) for tool in tools}


def bound(name: str, parameters: Parameters, args: Sequence[Any], options: Any) -> dict[str, Any]:
    """The arguments of a call by the names of the parameters. `TypeError` as Python words it."""
    by_place = [p for p in parameters if p[1] in ("positional", "any")]
    rest = next((p[0] for p in parameters if p[1] == "rest"), None)
    more = next((p[0] for p in parameters if p[1] == "options"), None)
    if len(args) > len(by_place) and rest is None:
        given = "was" if len(args) == 1 else "were"
        takes = f"{len(by_place)} positional argument{'' if len(by_place) == 1 else 's'}"
        raise TypeError(f"{name}() takes {takes} but {len(args)} {given} given")
    found: dict[str, Any] = {p[0]: value for p, value in zip(by_place, args, strict=False)}
    by_name = {p[0] for p in parameters if p[1] in ("any", "keyword")}
    others: dict[str, Any] = {}
    for key, value in options.items():
        if key in by_name and key in found:
            raise TypeError(f"{name}() got multiple values for argument {key!r}")
        if key not in by_name and more is None:
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
        (found if key in by_name else others)[key] = value
    missing = [p[0] for p in parameters if p[2] and p[0] not in found]
    if missing:
        told = " and ".join(map(repr, missing))
        what = "argument" if len(missing) == 1 else "arguments"
        raise TypeError(f"{name}() missing {len(missing)} required {what}: {told}")
    if rest is not None and len(args) > len(by_place):
        found[rest] = list(args[len(by_place) :])
    if more is not None and others:
        found[more] = others
    return {p[0]: found[p[0]] for p in parameters if p[0] in found}


def plain(value: object, where: str) -> Any:
    """A value as plain data: tuples become lists. `TypeError` says what isn't, and where it is."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise ValueError(f"{where} is {value}, which JSON can't say")
            return float(value)
        case list() | tuple():
            items = cast(Sequence[object], value)
            return [plain(item, f"{where}[{place}]") for place, item in enumerate(items)]
        case dict():
            fields = cast(dict[object, object], value)
            wrong = [type(key).__name__ for key in fields if not isinstance(key, str)]
            if wrong:
                raise TypeError(f"{where} has a key of type {wrong[0]}; it must be {PLAIN}")
            return {str(key): plain(item, f"{where}[{key!r}]") for key, item in fields.items()}
        case _:
            raise TypeError(f"{where} is of type {type(value).__name__}; it must be {PLAIN}")


def as_json(value: object, where: str, max_chars: int) -> str:
    """A value as JSON, keys in the order of the value. `TypeError` and `ValueError` say why not."""
    try:
        text = json.dumps(plain(value, where), allow_nan=False)
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply, or holds itself") from None
    if len(text) > max_chars:
        raise ValueError(
            f"{where} has {len(text):,} characters as JSON, more than the {max_chars:,} allowed"
        )
    return text


def _program(tool: Tool) -> Callable[..., Program]:
    name: str = tool["name"]
    errors = {"error": ToolError, "denied": ToolDenied}

    def call(*args: Any, **options: Any) -> Program:
        arguments = bound(name, tool["parameters"], args, options)
        for key, value in arguments.items():
            arguments[key] = plain(value, f"{name}(): {key}")
        text = as_json(arguments, f"{name}(): what it was given", tool["max_chars"])
        [(kind, reply)] = yield _functions.Ask([_call(name, text)], False)
        if kind != "text":
            what = "was refused" if kind == "denied" else "failed"
            raise errors.get(kind, ToolError)(f"{name} {what}: {reply}", name)
        return json.loads(reply)

    def begin(*args: Any, **options: Any) -> Program:
        return call(*args, **options)

    begin.__name__ = begin.__qualname__ = name
    begin.__doc__ = f"{name}{tool['signature']}\n\n{tool['doc']}".rstrip()
    return begin


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {
        "fn": name,
        "prompt": arguments,
        "question": None,
        "model": None,
        "max_tokens": None,
        "recursive": None,
        "dedupe": False,
        "kind": "tool",
    }
