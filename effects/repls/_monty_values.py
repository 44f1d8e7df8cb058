"""Values on their way between the host and the sandbox."""

from collections.abc import Callable
from typing import Any, cast

from pydantic_monty import ClassInstance, FunctionSnapshot, MontyClassProxy

from effects.repls._text import METHODS, TextView

ATTRIBUTES = frozenset({"text", "spans", "kind", "names"})
"""What code may read of `ctx` besides its methods."""


class CtxPolicy(ClassInstance):
    """The host's view as the sandbox's `ctx`: it may call the methods, the text stays here.

    The sandbox prints the eager attributes: ``TextView(chars=..., documents=...)``.
    """

    def __init__(self, view: TextView) -> None:
        super().__init__(view, allowed_methods=METHODS)

    def get_eager_attrs(self) -> dict[str, Any]:
        return _eager(cast(TextView, self.value))


def arguments(call: FunctionSnapshot, view: TextView) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What code passes to a function of the host, by place and by name.

    The view is the host's again also where the sandbox was restored: there it arrives as a proxy.
    """
    args = tuple([_hosts(value, view) for value in call.args])
    return args, {name: _hosts(value, view) for name, value in call.kwargs.items()}


class Output:
    """Collects what a cell prints, in order; keeps the head and counts the rest."""

    def __init__(self, limit_chars: int) -> None:
        self.chars = 0
        """How much was printed in all."""
        self._room = limit_chars
        self._kept: list[str] = []

    def __call__(self, stream: str, text: str) -> None:
        """Take a piece of output; called by the sandbox."""
        del stream
        self.chars += len(text)
        if self._room:
            self._kept.append(text[: self._room])
            self._room -= len(self._kept[-1])

    def text(self) -> str:
        """What was kept."""
        return "".join(self._kept)


def stub(name: str) -> Callable[..., None]:
    """What stands for a host function in the sandbox; its calls arrive here by its name."""

    def function(*_: object, **__: object) -> None:
        raise AssertionError("the sandbox calls the host by name, never the stub")

    function.__name__ = name
    return function


def utf8_bytes(text: str) -> int:
    """Length of a text in the sandbox's memory."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def encodable(value: Any) -> Any:
    """The value with a question mark for each lone surrogate, which the sandbox can't hold."""
    match type(value).__name__:
        case "str":
            return value if value.isascii() else value.encode("utf-8", "replace").decode()
        case "list":
            return [encodable(item) for item in value]
        case "tuple":
            return tuple([encodable(item) for item in value])
        case "dict":
            return {encodable(key): encodable(item) for key, item in value.items()}
        case _:
            return value


def _eager(view: TextView) -> dict[str, Any]:
    return {"chars": view.len_chars(), "documents": view.num_documents()}


def _hosts(value: Any, view: TextView) -> Any:
    if not isinstance(value, MontyClassProxy):
        return value
    is_view = value.name == type(view).__name__ and value.attributes == _eager(view)
    return view if is_view else value
