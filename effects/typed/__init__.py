"""Types of answers and replies: what fits, and what doesn't.

`reading` finds the values that a text may mean, `answers` checks them against a Python type
(pydantic), `schemas` against a JSON schema (jsonschema); `checking` is what the interpreter calls.
Both libraries are extras, loaded on use. Nothing here raises for what a model has written: that is
a `Checked` with its problems.
"""

from effects.typed.answers import AnswerType, answer_type
from effects.typed.checking import checked, judged

__all__ = ["AnswerType", "answer_type", "checked", "judged"]
