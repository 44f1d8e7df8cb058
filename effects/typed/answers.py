"""The type of a run's answer: a Python type, its JSON schema, and what fits it.

1. The log holds the schema and the accepted value as JSON; the type is the program's, and is
   passed again to `resume`, `fork` and `replay`. `RunResult.value` is made from the two.
2. The JSON that is kept makes an equal value when it is read again. It is pydantic's own rendering,
   defaults filled in; where that isn't read back as an equal value (a model with a serializer of
   its own, a class without equality), it is what the model answered.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effects.typed.reading import first_fit, path_of, problem, refused
from rlm_fsm.errors import UsageError
from rlm_fsm.values import Checked, Problem

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

INSTALL = "pip install 'rlm-fsm[typed]'"


@dataclass(frozen=True, kw_only=True)
class AnswerType:
    """A type that can be asked for; made by `answer_type`."""

    name: str
    """As Python names it."""
    schema: str
    """JSON schema, as JSON."""
    _adapter: "TypeAdapter[Any]"

    def check(self, text: str, data: str | None = None) -> Checked:
        """Whether an answer fits: a text, and its value as JSON where code gave one. Never
        raises."""
        found = first_fit(text, data, self._judge)
        if isinstance(found, list):
            return refused(found)
        given, (accepted,) = found
        return Checked(value=self._kept(given, accepted))

    def value_of(self, kept: str) -> Any:
        """The value of a JSON text that `check` has accepted. Raises `UsageError` when it doesn't
        fit this type: another one was asked for then."""
        judged = self._judge(json.loads(kept))
        if isinstance(judged, list):
            raise UsageError(
                f"the answer in the log doesn't fit output_type={self.name} "
                f"({judged[0].path or 'the value'}: {judged[0].message}): pass the type that the "
                "run was asked for, or none for the plain JSON value"
            )
        return judged[0]

    def _judge(self, value: Any) -> tuple[Any] | list[Problem]:
        from pydantic import ValidationError

        try:
            return (self._adapter.validate_python(value),)
        except ValidationError as error:
            return _problems(error)
        except Exception as error:  # a validator of the user's may raise anything
            return [problem("", f"{type(error).__name__}: {error}", value)]

    def _kept(self, given: Any, accepted: Any) -> str:
        try:
            text = self._adapter.dump_json(accepted, by_alias=True, warnings="error").decode()
            if bool(self._adapter.validate_json(text) == accepted):
                return text
        except Exception:
            pass  # it has a rendering that can't be read back: see rule 2
        return json.dumps(given, ensure_ascii=False, separators=(",", ":"))


def answer_type(output_type: Any) -> AnswerType:
    """What `output_type=` means. Raises `UsageError` without pydantic, and for what is no type."""
    try:
        from pydantic import TypeAdapter
    except ImportError as error:
        raise UsageError(f"output_type needs pydantic: {INSTALL}") from error
    name = getattr(output_type, "__name__", None) or repr(output_type)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(output_type)
        schema = adapter.json_schema()
    except Exception as error:  # pydantic raises many kinds, and so do the user's own hooks
        raise UsageError(
            f"output_type={name} can't be asked for: {error}. Pass a pydantic model, a dataclass, "
            "a TypedDict, or a type such as int, list[str] or Literal['yes', 'no']"
        ) from error
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return AnswerType(name=str(name), schema=text, _adapter=adapter)


def _problems(error: "ValidationError") -> list[Problem]:
    details = error.errors(include_url=False, include_context=False)
    found = [problem(path_of(item["loc"]), item["msg"], item["input"]) for item in details]
    return found or [problem("", str(error), None)]
