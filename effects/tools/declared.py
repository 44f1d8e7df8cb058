"""What a tool is: a function with what a run has to know of it."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast, overload

from rlm_fsm.errors import UsageError
from rlm_fsm.toolspec import ParameterKind, ToolParameter, ToolSpec

Function = Callable[..., Any]
MAX_CHARS = 1_000_000
"""As much as a cell may print, by default."""

_KINDS: dict[Any, ParameterKind] = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "any",
    inspect.Parameter.VAR_POSITIONAL: "rest",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "options",
}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_OPTIONS: dict[str, tuple[Callable[[object], bool], str]] = {
    "name": (lambda value: isinstance(value, str | None), "a text, or None"),
    "description": (lambda value: isinstance(value, str | None), "a text, or None"),
    "needs_approval": (lambda value: isinstance(value, bool), "True or False"),
    "timeout_s": (lambda value: value is None or _is_time(value), "seconds above 0, or None"),
    "idempotent": (lambda value: isinstance(value, bool | None), "True, False or None"),
    "max_chars": (lambda value: type(value) is int and value >= 2, "a whole number, 2 or more"),
}
"""What each option of a tool may be, and how that is said."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function of the caller's program that code may call; made by `tool`. Can still be called
    as the function that it is."""

    fn: Function
    """Plain or ``async``."""
    name: str
    description: str
    needs_approval: bool = False
    timeout_s: float | None = None
    idempotent: bool | None = None
    max_chars: int = MAX_CHARS

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.fn(*args, **options)

    @cached_property
    def signature(self) -> inspect.Signature:
        """That of the function. `UsageError` when Python doesn't know it."""
        try:
            return inspect.signature(self.fn)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"tool {self.name}: its parameters aren't known ({error}): wrap it in a function "
                "of your own, def name(...)"
            ) from None

    @cached_property
    def spec(self) -> ToolSpec:
        """What is recorded of it with a run."""
        parameters = [
            ToolParameter(
                name=parameter.name,
                kind=_KINDS[parameter.kind],
                is_required=parameter.default is parameter.empty
                and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD),
            )
            for parameter in self.signature.parameters.values()
        ]
        return ToolSpec(
            name=self.name,
            # Addresses in defaults would be others in each process.
            signature=_ADDRESS.sub("", str(self.signature)),
            doc=self.description,
            parameters=tuple(parameters),
            needs_approval=self.needs_approval,
            idempotent=self.idempotent,
            max_chars=self.max_chars,
        )


@overload
def tool(
    fn: Function,
    /,
    *,
    name: str | None = ...,
    description: str | None = ...,
    needs_approval: bool = ...,
    timeout_s: float | None = ...,
    idempotent: bool | None = ...,
    max_chars: int = ...,
) -> Tool: ...
@overload
def tool(
    fn: None = None,
    /,
    *,
    name: str | None = ...,
    description: str | None = ...,
    needs_approval: bool = ...,
    timeout_s: float | None = ...,
    idempotent: bool | None = ...,
    max_chars: int = ...,
) -> Callable[[Function], Tool]: ...
def tool(
    fn: Function | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    needs_approval: bool = False,
    timeout_s: float | None = None,
    idempotent: bool | None = None,
    max_chars: int = MAX_CHARS,
) -> Tool | Callable[[Function], Tool]:
    """A function as a tool, where more is to be said of it than its name, signature and docstring.

    `needs_approval`: a person has to agree to each call. `timeout_s`: seconds for one call; None:
    no limit. `idempotent`: whether a call that was in flight when the run stopped may be made
    again; None: ``on_uncertain`` of `resume` decides, and one that a person has agreed to is not.
    `max_chars`: most characters of a call's arguments, and of its result, as JSON. Also a
    decorator: ``@tool(needs_approval=True)``.

    Raises `UsageError` for what can't be a tool.
    """
    if fn is not None and not callable(cast(object, fn)):
        raise UsageError(f"{fn!r} is no tool: give a function")
    source: Any = getattr(fn, "func", fn) if issubclass(type(fn), partial) else fn
    called = "" if fn is None else getattr(source, "__name__", "") or type(fn).__name__
    _check(
        f"tool {name or called}".rstrip(),
        name=name,
        description=description,
        needs_approval=needs_approval,
        timeout_s=timeout_s,
        idempotent=idempotent,
        max_chars=max_chars,
    )
    if fn is None:

        def declare(found: Function) -> Tool:
            return tool(
                found,
                name=name,
                description=description,
                needs_approval=needs_approval,
                timeout_s=timeout_s,
                idempotent=idempotent,
                max_chars=max_chars,
            )

        return declare
    words = inspect.getdoc(source) if description is None else inspect.cleandoc(description)
    made = Tool(
        fn=fn,
        name=name or called,
        description=(words or "").strip(),
        needs_approval=needs_approval,
        timeout_s=timeout_s,
        idempotent=idempotent,
        max_chars=max_chars,
    )
    assert made.spec, "its signature is known"
    return made


def _check(what: str, **given: object) -> None:
    """`UsageError` for an option that isn't what `_OPTIONS` says."""
    for name, value in given.items():
        fits, wanted = _OPTIONS[name]
        if not fits(value):
            raise UsageError(f"{what}: {name}={value!r}: give {wanted}")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
