"""Replies of subcalls against JSON schemas that model-written code has passed.

The schema is a stranger's: it is refused, before anything is asked, when it could take the host's
time or reach out. So there are no references (they can nest exponentially, and may be addresses)
and no regular expressions (they can take for ever). What is left costs no more than its size times
the reply's.
"""

import json
from functools import lru_cache
from typing import Any, cast

from effects.typed.answers import INSTALL
from effects.typed.reading import first_fit, path_of, problem, read_json, refused
from rlm_fsm.values import Checked, Problem

MOST_SCHEMA_CHARS = 20_000
"""Longest schema: it stands in every prompt."""

_REFUSED = {
    "$ref": "write the schema out where it is used",
    "$dynamicRef": "write the schema out where it is used",
    "$recursiveRef": "write the schema out where it is used",
    "pattern": "check texts in code",
    "patternProperties": "check names in code",
}
_NAMED = ("properties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value has a schema for each name."""
_PLAIN = ("enum", "const", "default", "examples", "required")
"""Keywords whose value holds no schema."""


@lru_cache(maxsize=256)
def fault_of(schema: str) -> str:
    """Why a schema can't be used; empty when it can."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
    except ImportError:
        return f"schema= needs jsonschema where the run's program is: {INSTALL}"
    if len(schema) > MOST_SCHEMA_CHARS:
        return f"the schema has {len(schema)} characters, more than the {MOST_SCHEMA_CHARS} allowed"
    try:
        value = read_json(schema)
        if (told := _refusal(value)) is not None:
            return told
        Draft202012Validator.check_schema(value)
    except SchemaError as error:
        where = path_of(tuple(error.absolute_path)) or "the schema"
        return f"this is no JSON schema: {where}: {error.message[:300]}"
    except Exception as error:  # whatever a stranger's schema may do to the library
        return f"this is no JSON schema: {type(error).__name__}: {str(error)[:300]}"
    return ""


def check_reply(schema: str, text: str) -> Checked:
    """Whether a reply holds a value that fits a schema. Never raises."""
    fault = fault_of(schema)
    if fault:
        return refused([problem("", fault, None)])
    from jsonschema import Draft202012Validator

    validator: Any = Draft202012Validator(read_json(schema))

    def judge(value: Any) -> tuple[Any] | list[Problem]:
        try:
            errors = sorted(
                validator.iter_errors(value),
                key=lambda error: [str(part) for part in error.absolute_path],
            )
            found = [
                problem(path_of(tuple(e.absolute_path)), _without_value(e.message), e.instance)
                for e in errors
            ]
        except Exception as error:  # numbers too large, nesting too deep
            return [problem("", f"{type(error).__name__}: {error}", value)]
        return found or (value,)

    found = first_fit(text, None, judge)
    if isinstance(found, list):
        return refused(found)
    kept = json.dumps(found[0], ensure_ascii=False, sort_keys=False, separators=(",", ":"))
    return Checked(value=kept)


def _refusal(schema: Any) -> str | None:
    """Why a keyword of a schema, or of one within it, isn't taken."""
    if isinstance(schema, list):
        found = (_refusal(item) for item in cast(list[Any], schema))
        return next((told for told in found if told is not None), None)
    if not isinstance(schema, dict):
        return None
    for name, value in cast(dict[str, Any], schema).items():
        if name in _REFUSED:
            return f"a schema can't have {name} here: {_REFUSED[name]}"
        if name in _PLAIN:
            continue
        if name in _NAMED and isinstance(value, dict):
            value = list(cast(dict[str, Any], value).values())
        if (told := _refusal(value)) is not None:
            return told
    return None


def _without_value(message: str) -> str:
    """The library begins its messages with the value, however long; its end says what is wrong."""
    return message if len(message) <= 300 else f"... {message[-290:]}"
