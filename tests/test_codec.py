"""The codec: every event comes back as it was, and what can't be right is refused."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, NewType, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_fsm.codec import BLOB_CHARS, UPCASTERS, VERSIONS, Encoded, decode, encode
from rlm_fsm.errors import LogCorrupt, LogNewer, UsageError
from rlm_fsm.event import (
    EVENTS,
    Cancelled,
    CodeExecuted,
    CodePaused,
    Event,
    LimitReached,
    ModelReplied,
    RunFinished,
    RunStarted,
)
from rlm_fsm.ids import ROOT, CallId
from rlm_fsm.numbers import LARGEST
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.price import Price, PriceTier
from rlm_fsm.profiles import PROFILES
from rlm_fsm.values import ContextInfo, Usage, text_hash

LONG = "0123456789abcdef" * (BLOB_CHARS // 16) + "!"
PAIR = "\ud83d\ude00"
"""Two lone surrogates that JSON would read as one character."""
CALL = CallId("0.m1")


def back(encoded: Encoded) -> Event:
    return decode(encoded.kind, encoded.version, encoded.data, dict(encoded.blobs).__getitem__)


def changed(event: Event, **values: Any) -> str:
    """The event's data with some fields replaced by other plain data."""
    return json.dumps(json.loads(encode(event).data) | values)


def no_blob(digest: str) -> str:
    raise KeyError(digest)


def started() -> RunStarted:
    options = Options(
        system_prompt=LONG, subcall_system_prompt="", recursive_subcall_system_prompt=""
    )
    context = ContextInfo(kind="string", chars=40, documents=1)
    return RunStarted(query="How many?", context=context, options=options)


# Any event

characters = st.characters(exclude_categories=())
short_texts = st.text(characters, max_size=30)
long_texts = st.builds(
    lambda text, count: text * count, st.text(characters, min_size=1, max_size=4), st.just(600)
)
marker_texts = st.sampled_from(
    [
        f'{{"$blob":"{"a" * 64}","chars":5}}',
        '"$blob"',
        "$blob",
        LONG,
        PAIR,
        "x" + PAIR,
        "\0",
        "null",
    ]
)
texts = short_texts | marker_texts | long_texts
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.just("$blob")
counts = st.integers(min_value=1)
amounts = st.floats(min_value=0, allow_nan=False) | st.integers(min_value=0)
finite = st.floats(min_value=0, max_value=1e9)
profiles = st.builds(
    lambda profile, words: replace(profile, **words),
    st.sampled_from(list(PROFILES.values())),
    st.fixed_dictionaries({"system": texts, "no_output": texts, "batch_error": texts}),
)
TIER = PriceTier(above_tokens=2, prompt_usd_per_mtok=1, completion_usd_per_mtok=0.5)
SPECIAL: dict[tuple[type, str], st.SearchStrategy[Any]] = {
    (Options, "auto_finalize_var"): st.none() | st.just("answer"),
    (Options, "auto_finalize_reject_patterns"): st.sampled_from([(), ("^no",), ("a|b", "c$")]),
    (Options, "compaction"): st.sampled_from([0.0, 0, 0.8, 1]),
    (Options, "loop_limit"): st.none() | st.integers(min_value=2),
    (Options, "profile"): profiles,
    (Price, "prompt_usd_per_mtok"): finite,
    (Price, "completion_usd_per_mtok"): finite,
    (Price, "cached_usd_per_mtok"): st.none() | finite,
    (Price, "tiers"): st.sampled_from([(), (TIER,), (TIER, replace(TIER, above_tokens=9))]),
}


def possible_options(**values: Any) -> Options:
    """Options that go together: without history there is none to be compacted."""
    if not values["conversation_history"]:
        values["compaction"] = 0.0
    return Options(**values)


def is_allowed(value: object) -> bool:
    """Whether a limit may be so large."""
    return not isinstance(value, int | float) or value <= LARGEST


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, NewType):
        return values_of(hint.__supertype__)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values_of(args[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(keys, texts, max_size=3)
    if type(None) in args:
        return st.none() | values_of(args[0])
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        kwargs = {
            field.name: SPECIAL.get((hint, field.name), values_of(hints[field.name]))
            for field in fields(hint)
        }
        if hint in (Options, Policy):
            kwargs = {name: strategy.filter(is_allowed) for name, strategy in kwargs.items()}
        return st.builds(possible_options if hint is Options else hint, **kwargs)
    simple = {str: texts, int: counts, float: amounts, bool: st.booleans()}
    return simple[hint]


any_event = st.one_of([values_of(cls) for cls in EVENTS])


@given(any_event)
def test_any_event_comes_back_as_it_was(event: Event) -> None:
    encoded = encode(event)
    assert back(encoded) == event
    assert encode(back(encoded)) == encoded


@given(any_event)
def test_encoded_data_is_canonical_json(event: Event) -> None:
    data = encode(event).data
    again = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert data == again
    assert data.isascii()


@given(any_event)
def test_no_text_above_the_limit_stays_in_the_row(event: Event) -> None:
    encoded = encode(event)

    def longest(value: Any) -> int:
        match value:
            case str():
                return len(value)
            case dict() | list():
                items = value.values() if isinstance(value, dict) else value
                return max(map(longest, items), default=0)
            case _:
                return 0

    assert longest(json.loads(encoded.data)) <= BLOB_CHARS
    for digest, text in encoded.blobs:
        assert digest == text_hash(text)


@given(texts)
def test_a_text_is_never_taken_for_a_marker(text: str) -> None:
    event = Cancelled(reason=text)
    encoded = encode(event)
    assert back(encoded) == event
    is_moved = isinstance(json.loads(encoded.data)["reason"], dict)
    assert is_moved is bool(encoded.blobs)


@given(st.dictionaries(keys, texts, max_size=4))
def test_a_mapping_is_never_taken_for_a_marker(watched: dict[str, str]) -> None:
    event = CodeExecuted(frame=ROOT, call_id=CALL, watched=watched)
    assert back(encode(event)) == event


@pytest.mark.parametrize("size", [BLOB_CHARS - 1, BLOB_CHARS, BLOB_CHARS + 1])
def test_a_text_is_moved_out_above_the_limit_and_not_at_it(size: int) -> None:
    encoded = encode(Cancelled(reason="é" * size))
    assert len(encoded.blobs) == (1 if size > BLOB_CHARS else 0)


def test_surrogates_that_json_would_join_are_moved_out() -> None:
    lone = encode(Cancelled(reason="\ud83d alone, \ude00 alone"))
    assert lone.blobs == ()
    pair = encode(Cancelled(reason=PAIR))
    assert [text for _, text in pair.blobs] == [PAIR]
    assert back(pair) == Cancelled(reason=PAIR)
    assert back(pair) != Cancelled(reason="\U0001f600")


def test_equal_events_are_equal_bytes_whatever_their_order() -> None:
    one = CodeExecuted(frame=ROOT, call_id=CALL, watched={"b": "2", "a": "1"})
    other = CodeExecuted(frame=ROOT, call_id=CALL, watched={"a": "1", "b": "2"})
    assert encode(one) == encode(other)


# Numbers


@pytest.mark.parametrize("value", [40, 40.0, 0, -0.0, 0.1, 1e300, 2**53 + 1, 10**30, math.inf])
def test_numbers_keep_their_type_and_value(value: float) -> None:
    event = back(encode(LimitReached(frame=ROOT, limit="max_steps", allowed=value, used=1)))
    assert isinstance(event, LimitReached)
    assert (type(event.allowed), repr(event.allowed)) == (type(value), repr(value))


def test_nan_is_spelled_and_comes_back() -> None:
    encoded = encode(ModelReplied(frame=ROOT, call_id=CALL, text="", cost_usd=math.nan))
    assert '"cost_usd":"NaN"' in encoded.data
    event = back(encoded)
    assert isinstance(event, ModelReplied)
    assert event.cost_usd is not None
    assert math.isnan(event.cost_usd)


# Defaults


def test_fields_at_their_default_take_no_room() -> None:
    encoded = encode(ModelReplied(frame=ROOT, call_id=CALL, text="hi"))
    assert encoded.data == '{"call_id":"0.m1","frame":"0","text":"hi"}'


def test_options_and_policy_are_written_in_full() -> None:
    payload = json.loads(encode(started()).data)
    assert payload["options"].keys() == {field.name for field in fields(Options)}
    assert payload["options"]["policy"].keys() == {field.name for field in fields(Policy)}


@pytest.mark.parametrize("name", ["max_tokens", "policy"])
def test_an_option_that_is_missing_is_not_filled_in(name: str) -> None:
    payload = json.loads(encode(started()).data)
    del payload["options"][name]
    with pytest.raises(LogCorrupt, match=f"options: it lacks {name}"):
        decode("RunStarted", 1, json.dumps(payload), lambda digest: LONG)


# Refusals


def test_every_kind_has_a_version_and_every_older_version_an_upcaster() -> None:
    assert list(VERSIONS) == [cls.__name__ for cls in EVENTS]
    older = {(kind, old) for kind, version in VERSIONS.items() for old in range(1, version)}
    assert older == UPCASTERS.keys()


def test_an_unknown_kind_is_from_a_newer_version() -> None:
    with pytest.raises(LogNewer, match="Upgrade rlm-fsm"):
        decode("PlanMade", 1, "{}", no_blob)


def test_a_newer_version_of_a_kind_is_refused() -> None:
    with pytest.raises(LogNewer, match="newer than version"):
        decode("Cancelled", VERSIONS["Cancelled"] + 1, '{"reason":"x"}', no_blob)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "null",
        "{",
        "{}",
        '{"reason":1}',
        '{"reason":null}',
        '{"reason":["x"]}',
        '{"reason":"x","extra":1}',
        '{"reason":{"$blob":"aa"}}',
        '{"reason":{"$blob":"aa","chars":1,"more":2}}',
        '{"reason":{"$blob":1,"chars":1}}',
        '{"reason":{"$blob":"missing","chars":1}}',
        '{"reason":NaN}',
        '{"reason":' + "[" * 100_000,
        '{"reason":' + "1" * 5000 + "}",
    ],
)
def test_data_that_no_version_has_written_is_refused(data: str) -> None:
    with pytest.raises(LogCorrupt, match="event Cancelled version 1"):
        decode("Cancelled", 1, data, no_blob)


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_never_was_is_refused(version: int) -> None:
    with pytest.raises(LogCorrupt):
        decode("Cancelled", version, '{"reason":"x"}', no_blob)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cache_hit", 1),
        ("usage", None),
        ("usage", {"prompt_tokens": 1.5}),
        ("usage", {"prompt_tokens": True}),
        ("elapsed_s", "soon"),
        ("elapsed_s", True),
        ("cost_usd", "nan"),
        ("text", False),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(field: str, value: object) -> None:
    data = changed(ModelReplied(frame=ROOT, call_id=CALL, text="hi"), **{field: value})
    with pytest.raises(LogCorrupt, match=field):
        decode("ModelReplied", 1, data, no_blob)


def test_a_policy_that_its_own_check_refuses_is_corrupt() -> None:
    payload = json.loads(encode(started()).data)
    payload["options"]["policy"]["max_steps"] = -1
    with pytest.raises(LogCorrupt, match=r"options\.policy.*max_steps=-1"):
        decode("RunStarted", 1, json.dumps(payload), lambda digest: LONG)


def test_a_blob_of_another_length_is_refused() -> None:
    encoded = encode(Cancelled(reason=LONG))
    with pytest.raises(LogCorrupt, match=f"has not its {len(LONG)} characters"):
        decode("Cancelled", 1, encoded.data, lambda digest: "short")


@pytest.mark.parametrize(
    "event",
    [
        ModelReplied(frame=ROOT, call_id=CALL, text=None),  # type: ignore[arg-type]
        ModelReplied(frame=ROOT, call_id=CALL, text=b"x" * 2000),  # type: ignore[arg-type]
        ModelReplied(frame=ROOT, call_id=CALL, text="", usage=Usage(1.5)),  # type: ignore[arg-type]
        ModelReplied(frame=ROOT, call_id=CALL, text="", usage={}),  # type: ignore[arg-type]
        ModelReplied(frame=ROOT, call_id=CALL, text="", cost_usd="1"),  # type: ignore[arg-type]
        ModelReplied(frame=ROOT, call_id=CALL, text="", cache_hit=1),  # type: ignore[arg-type]
        ModelReplied(frame=ROOT, call_id=CALL, text="", usage=Usage(10**5000)),
        CodePaused(frame=ROOT, call_id=CALL, calls=[]),  # type: ignore[arg-type]
        CodeExecuted(frame=ROOT, call_id=CALL, watched=[]),  # type: ignore[arg-type]
        CodeExecuted(frame=ROOT, call_id=CALL, watched={1: "x"}),  # type: ignore[dict-item]
        CodeExecuted(frame=ROOT, call_id=CALL, watched={PAIR: "x"}),
        RunFinished(status="done"),  # type: ignore[arg-type]
    ],
)
def test_what_could_not_be_read_again_is_not_written(event: Event) -> None:
    with pytest.raises(UsageError, match="can't be recorded"):
        encode(event)


def test_an_encoding_error_names_the_field_and_not_the_value() -> None:
    usage = Usage("secret")  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        encode(ModelReplied(frame=ROOT, call_id=CALL, text="", usage=usage))
    assert "usage.prompt_tokens: expected a whole number, found str" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(UsageError, match="Usage is no kind of event"):
        encode(Usage())  # type: ignore[arg-type]


# Upcasters


@pytest.fixture
def third_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format in which Cancelled is at version 3: `why` became `cause`, which became `reason`."""

    def rename(old: str, new: str) -> Any:
        return lambda payload: {new if key == old else key: payload[key] for key in payload}

    monkeypatch.setitem(VERSIONS, "Cancelled", 3)
    monkeypatch.setitem(UPCASTERS, ("Cancelled", 1), rename("why", "cause"))
    monkeypatch.setitem(UPCASTERS, ("Cancelled", 2), rename("cause", "reason"))


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize(("version", "name"), [(1, "why"), (2, "cause"), (3, "reason")])
def test_old_versions_are_cast_up_one_by_one(version: int, name: str) -> None:
    event = decode("Cancelled", version, json.dumps({name: "Ctrl-C"}), no_blob)
    assert event == Cancelled(reason="Ctrl-C")
    assert encode(event).version == 3


@pytest.mark.usefixtures("third_version")
@pytest.mark.parametrize("data", ["[]", '"why"', '{"because":"x"}'])
def test_an_upcaster_that_meets_damage_is_no_crash(data: str) -> None:
    with pytest.raises(LogCorrupt):
        decode("Cancelled", 1, data, no_blob)
