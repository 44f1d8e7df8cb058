"""Replies as data: what is read from them, however a sub-model dresses it up."""

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effects.repls._functions import Ask, SubcallError, drive
from effects.repls._functions_json import RECORD_KEYS, parsed, programs, records
from rlm_fsm.values import HostCall

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("  [1, 2]\n", [1, 2]),
        ("7", 7),
        ("null", None),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1]\n```", [1]),
        ('Sure!\n```json\n{"a": "```"}\n```\nAnything else?', {"a": "```"}),
        ('The answer: {"a": {"b": []}}. Done {really}.', {"a": {"b": []}}),
        ("As in [1], the list is [10, 20, 30].", [10, 20, 30]),
        ('{"a": 1} {"b": 22}', {"b": 22}),
        ('result = ["x", "y"]  # two', ["x", "y"]),
        ("NaN", pytest.approx(float("nan"), nan_ok=True)),
    ],
)
def test_a_value_is_found_in_a_reply(said: str, value: Any) -> None:
    assert parsed(said) == value


@pytest.mark.parametrize("said", ["", "I don't know.", "{'a': 1}", "[1, 2", "[" * 100_000])
def test_a_reply_without_a_value_is_marked_and_kept(said: str) -> None:
    found = parsed(said)
    assert found["_raw"] == said
    assert "no JSON" in found["_parse_error"]


@given(VALUES, st.sampled_from(["{}", "```json\n{}\n```", "```\n{}\n```"]))
def test_whatever_json_says_comes_back(value: Any, dress: str) -> None:
    if isinstance(value, dict | list) or dress == "{}":
        assert parsed(dress.replace("{}", json.dumps(value))) == value


@given(st.text(alphabet='{}[]",:a1 `\n', max_size=60))
def test_no_reply_is_too_odd(said: str) -> None:
    parsed(said)
    assert all(isinstance(record, dict) for record in records(said))


@pytest.mark.parametrize("key", RECORD_KEYS)
def test_records_are_found_under_the_usual_keys(key: str) -> None:
    assert records(json.dumps({"count": 2, key: [{"n": 1}, "odd", {"n": 2}]})) == [
        {"n": 1},
        {"n": 2},
    ]


def test_one_object_is_one_record_and_no_object_is_marked() -> None:
    assert records('{"n": 1}') == [{"n": 1}]
    assert records("[]") == []
    assert set(records("5")[0]) == {"_parse_error", "_raw"}
    assert set(records("hm")[0]) == {"_parse_error", "_raw"}


def answered(name: str, *args: Any, said: str = "[1]", kind: str = "text", **more: Any) -> Any:
    """What a function returns when every call ends alike; and what it asked."""
    asks: list[Ask] = []

    def host(ask: Ask) -> list[tuple[str, str]]:
        asks.append(ask)
        return [(kind, said) for _ in ask.calls]

    return drive(programs()[name](*args, **more), host), asks


@pytest.mark.parametrize("name", sorted(programs()))
def test_every_call_has_the_fields_of_a_host_call_and_its_functions_name(name: str) -> None:
    arguments = {"budget": ()}.get(name, (["p"],) if "batch" in name else ("p",))
    _, asks = answered(name, *arguments)
    (call,) = asks[0].calls
    assert set(call) == {item.name for item in fields(HostCall)} - {"schema", "fault"}
    assert HostCall(**call).fn == name
    assert programs()[name].__doc__


def test_options_reach_the_calls() -> None:
    _, asks = answered(
        "llm_batch_json", ["p", "p"], model="small", max_tokens=9, dedupe=False, on_error="return"
    )
    assert asks[0].parallel
    assert [(c["model"], c["max_tokens"], c["dedupe"]) for c in asks[0].calls] == [
        ("small", 9, False)
    ] * 2


@pytest.mark.parametrize(
    ("name", "args"), [("llm_query_json", ("p",)), ("llm_batch_records", (["p"],))]
)
def test_a_failed_subcall_raises(name: str, args: Any) -> None:
    with pytest.raises(SubcallError, match="no route"):
        answered(name, *args, said="no route", kind="error")


@pytest.mark.parametrize(
    ("name", "value"), [("llm_batch_json", {"a": 1}), ("llm_batch_records", [{"a": 1}])]
)
def test_the_place_of_a_failed_subcall_is_never_data(name: str, value: Any) -> None:
    answers = [("text", '{"a": 1}'), ("error", '400: {"error": {}}'), ("limit", "of [1, 2]")]

    def drive_with(**options: Any) -> Any:
        return drive(programs()[name](["p", "q", "r"], **options), lambda _: answers)

    assert drive_with(on_error="return") == [
        value,
        '[ERROR] 400: {"error": {}}',
        "[ERROR] of [1, 2]",
    ]
    with pytest.raises(SubcallError) as caught:
        drive_with()
    assert caught.value.results == [value, None, None]


@pytest.mark.parametrize(
    ("name", "args"), [("llm_query_json", (5,)), ("llm_batch_json", ("p",)), ("budget", (1,))]
)
def test_wrong_arguments_are_type_errors(name: str, args: Any) -> None:
    with pytest.raises(TypeError):
        answered(name, *args)
