"""What fits a type and what doesn't: readings of a text, Python types, JSON schemas."""

import enum
import json
import sys
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

from effects.repls._schemas import schema_text
from effects.typed.answers import answer_type
from effects.typed.reading import FOUND_CHARS, MESSAGE_CHARS, MOST_PROBLEMS, PATH_CHARS
from effects.typed.schemas import MOST_SCHEMA_CHARS, check_reply, fault_of
from rlm_fsm import UsageError


class Item(BaseModel):
    name: str
    price: float


class Bill(BaseModel):
    items: list[Item]
    total: float
    note: str = "none"


@dataclass
class Point:
    x: int
    y: int = 0


class Entry(TypedDict):
    key: str
    count: int


class Colour(enum.Enum):
    RED = "red"


class Odd(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def is_odd(cls, n: int) -> int:
        if n == 2:
            raise KeyError("two")
        if n % 2 == 0:
            raise ValueError("must be odd")
        return n


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (int, "42", 42),
        (float, " 2 ", 2.0),
        (bool, "True", True),
        (bool, "true", True),
        (str, "42", "42"),
        (str, "plain words", "plain words"),
        (str, '"quoted"', "quoted"),
        (list[str], "['a', 'b']", ["a", "b"]),
        (list[int], "```json\n[1, 2]\n```", [1, 2]),
        (dict[str, int], 'It is {"a": 1}, I think.', {"a": 1}),
        (Literal["yes", "no"], "yes", "yes"),
        (int | None, "None", None),
        (int | str, "seven", "seven"),
        (Point, "{'x': 1}", Point(1)),
        (Entry, '{"key": "k", "count": 2}', {"key": "k", "count": 2}),
        (Colour, "red", Colour.RED),
        (Bill, '{"items": [], "total": 1}', Bill(items=[], total=1)),
        (tuple[int, str], "(1, 'a')", (1, "a")),
    ],
    ids=str,
)
def test_a_text_is_read_as_the_type_asks(kind: Any, text: str, expected: object) -> None:
    asked = answer_type(kind)
    checked = asked.check(text)
    assert checked.value is not None, checked.problems
    assert asked.value_of(checked.value) == expected
    assert checked.problems == ()


def test_what_code_hands_over_goes_before_how_it_prints() -> None:
    assert answer_type(list[float]).check("an array of 3", "[1,2,3]").value == "[1.0,2.0,3.0]"
    assert answer_type(str).check("7", None).value == '"7"'


def test_a_single_field_may_stand_for_its_value() -> None:
    assert answer_type(int).check("7", '{"answer":7}').value == "7"
    assert answer_type(dict[str, int]).check("7", '{"answer":7}').value == '{"answer":7}'


def test_problems_name_the_path_and_the_value() -> None:
    checked = answer_type(Bill).check('{"items": [{"name": "a", "price": "dear"}], "total": 1}')
    (problem,) = checked.problems
    assert (problem.path, problem.found) == ("items[0].price", '"dear"')
    assert "number" in problem.message
    assert checked.value is None


def test_problems_are_bounded() -> None:
    rows = [{"name": "x" * 10_000, "price": "y" * 10_000} for _ in range(50)]
    checked = answer_type(Bill).check(json.dumps({"items": rows, "total": 1}))
    assert len(checked.problems) == MOST_PROBLEMS
    assert checked.more_problems == 50 - MOST_PROBLEMS
    for item in checked.problems:
        assert len(item.found) <= FOUND_CHARS
        assert len(item.message) <= MESSAGE_CHARS
        assert len(item.path) <= PATH_CHARS


def test_a_validator_that_raises_anything_is_a_problem() -> None:
    asked = answer_type(Odd)
    assert "must be odd" in asked.check('{"n": 4}').problems[0].message
    assert "KeyError" in asked.check('{"n": 2}').problems[0].message
    assert asked.check('{"n": 3}').value == '{"n":3}'


def test_a_value_whose_rendering_cant_be_read_back_is_kept_as_it_was_given() -> None:
    class Upper(BaseModel):
        name: Literal["a"]

        def model_dump_json(self) -> str:  # pragma: no cover - not what is used
            return ""

    class NoEquality:
        def __init__(self, n: int) -> None:
            self.n = n

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            from pydantic_core import core_schema

            return core_schema.no_info_after_validator_function(cls, core_schema.int_schema())

    asked = answer_type(NoEquality)
    kept = asked.check("5").value
    assert kept == "5"
    assert asked.value_of(kept).n == 5
    assert answer_type(Upper).check('{"name": "a"}').value == '{"name":"a"}'


def test_what_is_no_type_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(UsageError, match="Pass a pydantic model"):
        answer_type(object())


def test_without_the_libraries_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(UsageError, match=r"pip install 'rlm-fsm\[typed\]'"):
        answer_type(int)
    fault_of.cache_clear()
    assert "pip install 'rlm-fsm[typed]'" in fault_of('{"type":"integer"}')
    fault_of.cache_clear()


def test_another_type_than_the_logs_is_told() -> None:
    with pytest.raises(UsageError, match="doesn't fit output_type=int"):
        answer_type(int).value_of('"words"')


JUNK = st.one_of(
    st.text(),
    st.text(alphabet="[]{}\"':,0123456789eE.-+NaInfity \n`"),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(repr),
)
TYPES = [answer_type(kind) for kind in (int, str, list[int], dict[str, float], Bill, Point, Odd)]
SCHEMAS = ['{"type":"integer"}', "{}", '{"type":"object","required":["a"]}', '{"enum":[1,"a"]}']


@given(JUNK, st.none() | JUNK)
def test_no_answer_makes_a_check_raise(text: str, data: str | None) -> None:
    for asked in TYPES:
        checked = asked.check(text, data)
        assert (checked.value is None) == bool(checked.problems)
        if checked.value is not None:
            asked.value_of(checked.value)


@given(JUNK)
def test_no_reply_makes_a_check_raise(text: str) -> None:
    for schema in SCHEMAS:
        checked = check_reply(schema, text)
        assert (checked.value is None) == bool(checked.problems)
        if checked.value is not None:
            json.loads(checked.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{" * 100_000, "1" * 100_000, "(" * 5_000, "\ud83d"]
)
def test_hostile_texts_are_refused_like_others(text: str) -> None:
    assert answer_type(int).check(text).value is None
    assert check_reply('{"type":"object"}', text).value is None


# JSON schemas


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ('{"type":"intt"}', "no JSON schema"),
        ('{"pattern":"(a+)+$"}', "check texts in code"),
        ('{"items":{"anyOf":[{"$ref":"http://127.0.0.1/x"}]}}', "write the schema out"),
        ('{"properties":{"pattern":{"patternProperties":{"a":{}}}}}', "check names in code"),
        ("[1]", "no JSON schema"),
        ("{", "no JSON schema"),
        ('{"description":"' + "x" * MOST_SCHEMA_CHARS + '"}', "characters"),
    ],
)
def test_a_schema_that_cant_be_used_is_told_before_anything_is_asked(
    schema: str, told: str
) -> None:
    assert told in fault_of(schema)


def test_fields_may_have_the_names_of_keywords() -> None:
    assert (
        fault_of('{"properties":{"pattern":{"type":"string"},"$ref":{}},"enum":["pattern"]}') == ""
    )


def test_a_reply_that_fits_is_the_value_alone() -> None:
    assert check_reply('{"type":"object"}', 'Sure: {"b": 1, "a": [2]}').value == '{"b":1,"a":[2]}'
    assert check_reply('{"type":"string"}', "yes").value == '"yes"'


def test_a_reply_that_doesnt_fit_is_told_by_path() -> None:
    schema = schema_text(list[dict[str, int]])
    assert schema is not None
    (problem,) = check_reply(schema, '[{"a": 1}, {"a": "x"}]').problems
    assert (problem.path, problem.found) == ("[1].a", '"x"')


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (int, {"type": "integer"}),
        ("int", {"type": "integer"}),
        ("<class 'str'>", {"type": "string"}),
        ("list[str]", {"type": "array", "items": {"type": "string"}}),
        ("typing.Optional[int]", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("int | None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("Literal['a', 'b']", {"enum": ["a", "b"]}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (Colour, {"enum": ["red"]}),
        (
            Point,
            {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                "required": ["x"],
                "additionalProperties": False,
            },
        ),
        ({"type": "null"}, {"type": "null"}),
        ('{"type": "null"}', {"type": "null"}),
    ],
    ids=str,
)
def test_what_code_passes_becomes_a_schema(schema: object, expected: object) -> None:
    text = schema_text(schema)
    assert text is not None
    assert json.loads(text) == expected
    assert fault_of(text) == ""


@pytest.mark.parametrize("schema", [open, 7, "os.system('x')", "list[", dict[int, int], object()])
def test_what_is_no_schema_is_refused_with_what_is_accepted(schema: object) -> None:
    with pytest.raises(TypeError, match=r"schema takes|keys of a dict"):
        schema_text(schema)
