"""Chat completions: what is sent, what is made of the answer, and what is never shown."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from adapter_contract import MESSAGES
from adapter_driving import GOOD, KEY, PACKED, adapter_for, failing
from loopback import ChatServer, LoopbackServer, Request, Respond, chat, completion, error

from effects.adapters import OpenAICompatAdapter, Usage
from effects.adapters.chat_completions import usage_of
from effects.adapters.faults import Redactor
from rlm_fsm.errors import UsageError

VARIABLES = ("LLM_API_KEY", "OPENAI_API_KEY", "LLM_BASE_URL", "OPENAI_BASE_URL")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_request_is_a_chat_completion_with_the_key() -> None:
    with LoopbackServer([chat("x")]) as server:
        adapter = adapter_for(server, headers={"X-Team": "blue"}, extra={"seed": 7, "top_p": None})
        adapter.complete([{"role": "user", "content": "漢"}], max_tokens=9, temperature=0.5)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-team"] == "blue"
    assert request.json == {
        "model": "loop-1",
        "messages": [{"role": "user", "content": "漢"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 7,
    }


def test_extra_wins_over_our_fields_and_none_leaves_one_out() -> None:
    with LoopbackServer([chat("x")]) as server:
        extra = {"temperature": None, "max_completion_tokens": 50}
        adapter_for(server, extra=extra).complete(MESSAGES)
    body = server.requests[0].json
    assert body["max_completion_tokens"] == 50
    assert not {"max_tokens", "temperature"} & set(body)


def test_facts_of_the_reply_go_into_meta() -> None:
    document = completion("Lima", reasoning_content="Peru, so") | {"model": "loop-1-2026"}
    document["choices"][0]["finish_reason"] = "length"
    document["usage"] = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 30},
        "cost": 0.0125,
    }
    with LoopbackServer([Respond(body=document)]) as server:
        response = adapter_for(server).complete(MESSAGES)
    assert response.text == "Lima"
    assert response.model_id == "loop-1-2026"
    assert response.usage == Usage(100, 50, 150, cached_tokens=80, reasoning_tokens=30)
    assert response.meta == {
        "finish_reason": "length",
        "request_id": "chatcmpl-1",
        "reasoning": "Peru, so",
        "cost_usd": 0.0125,
    }


CONTENTS = [
    ("text", {}, "text", None),
    (None, {}, "", None),
    (None, {"refusal": "I can't help with that."}, "I can't help with that.", None),
    ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"], {}, "a\nb\nc", None),
    ([{"type": "image"}, 5, {"type": "text", "text": None}], {}, "", None),
    (
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": "a"}],
        {},
        "a",
        "hm",
    ),
    ("a", {"reasoning": "because"}, "a", "because"),
    ("a", {"reasoning_content": "", "reasoning": None}, "a", None),
    ("half \ud83e pair", {}, "half \ud83e pair", None),
]


@pytest.mark.parametrize(("content", "more", "text", "reasoning"), CONTENTS)
def test_contents_in_every_shape_are_read(
    content: Any, more: dict[str, Any], text: str, reasoning: str | None
) -> None:
    with LoopbackServer([Respond(body=completion(content, **more))]) as server:
        response = adapter_for(server).complete(MESSAGES)
    assert response.text == text
    assert (response.meta or {}).get("reasoning") == reasoning


def test_a_packed_reply_is_read() -> None:
    body = gzip.compress(json.dumps(GOOD).encode())
    with LoopbackServer([Respond(body=body, headers=PACKED)]) as server:
        assert adapter_for(server).complete(MESSAGES).text == "hello"


USAGES = [
    (b"null", None),
    (b"[]", None),
    (b"{}", None),
    (b'{"prompt_tokens": NaN, "completion_tokens": 5}', None),
    (b'{"prompt_tokens": Infinity, "completion_tokens": 5}', None),
    (b'{"prompt_tokens": -1, "completion_tokens": 5}', None),
    (b'{"prompt_tokens": "11", "completion_tokens": "7"}', None),
    (b'{"prompt_tokens": true, "completion_tokens": 5}', None),
    (b'{"prompt_tokens": 1.5, "completion_tokens": 5}', None),
    (b'{"prompt_tokens": 1e300, "completion_tokens": 5}', None),
    (b'{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}', None),
    (b'{"prompt_tokens": 11}', None),
    (b'{"total_tokens": 18}', None),
    (b'{"prompt_tokens": 11, "total_tokens": 18}', Usage(11, 7, 18)),
    (b'{"prompt_tokens": 11.0, "completion_tokens": 7}', Usage(11, 7, 18)),
    (b'{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 3}', Usage(11, 7, 18)),
    (b'{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": null}', Usage(11, 7, 18)),
    (
        b'{"prompt_tokens": 11, "completion_tokens": 7, "prompt_tokens_details": null}',
        Usage(11, 7, 18),
    ),
    (
        b'{"prompt_tokens": 11, "completion_tokens": 7, "prompt_cache_hit_tokens": 4}',
        Usage(11, 7, 18, cached_tokens=4),
    ),
    (
        b'{"prompt_tokens": 11, "completion_tokens": 7,'
        b' "prompt_tokens_details": {"cached_tokens": 400},'
        b' "completion_tokens_details": {"reasoning_tokens": -3}}',
        Usage(11, 7, 18, cached_tokens=11),
    ),
    (
        b'{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 118,'
        b' "completion_tokens_details": {"reasoning_tokens": 100}}',
        Usage(11, 107, 118, reasoning_tokens=100),
    ),
]


@pytest.mark.parametrize(("reported", "usage"), USAGES)
def test_usage_is_believed_only_when_it_can_be_right(reported: bytes, usage: Usage | None) -> None:
    assert usage_of(json.loads(reported)) == usage


def test_usage_that_is_nonsense_is_estimated_and_marked() -> None:
    body = json.dumps(completion("y" * 40)).encode()
    body = body.replace(b'"prompt_tokens": 11', b'"prompt_tokens": NaN')
    with LoopbackServer([Respond(body=body)]) as server:
        response = adapter_for(server).complete([{"role": "user", "content": "x" * 80}])
    assert response.usage == Usage(20, 10, 30, estimated=True)


# Parameters that a model refuses


def refusing(request: Request) -> Respond:
    """A model as OpenAI's reasoning models answer."""
    body = request.json
    if "max_tokens" in body:
        return error(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if "temperature" in body:
        return error(
            400,
            "Unsupported value: 'temperature' does not support 0.0 with this model. "
            "Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        )
    return chat("adapted")


def test_refused_parameters_are_adapted_and_remembered() -> None:
    with LoopbackServer(refusing) as server:
        adapter = adapter_for(server, max_retries=0)
        texts = [adapter.complete(MESSAGES, max_tokens=33).text for _ in range(2)]
    assert texts == ["adapted", "adapted"]
    assert len(server.requests) == 4  # refused, refused, adapted; then adapted at once
    for request in server.requests[2:]:
        assert request.json["max_completion_tokens"] == 33
        assert not {"max_tokens", "temperature"} & set(request.json)


def test_first_calls_that_run_at_once_are_all_adapted() -> None:
    async def many(adapter: OpenAICompatAdapter) -> set[str]:
        calls = (adapter.acomplete(MESSAGES) for _ in range(10))
        return {response.text for response in await asyncio.gather(*calls)}

    with LoopbackServer(refusing) as server:
        assert asyncio.run(many(adapter_for(server, max_retries=0))) == {"adapted"}


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "max_tokens is too large: 512. At most 100 are allowed.", param="max_tokens"),
        error(400, "temperature must be between 0 and 2", param="temperature"),
        error(400, "Unsupported parameter: 'messages[0].name'", param="messages[0].name"),
    ],
    ids=["too large", "out of range", "another parameter"],
)
def test_a_bad_value_is_not_taken_for_a_refused_parameter(refusal: Respond) -> None:
    with LoopbackServer([refusal]) as server:
        assert failing(adapter_for(server)).kind == "bad_request"
    assert len(server.requests) == 1


def test_a_server_that_refuses_everything_is_not_asked_for_ever() -> None:
    def refuse(request: Request) -> Respond:
        names = "max_tokens, max_completion_tokens and temperature"
        return error(400, f"Unsupported parameters: {names}")

    with LoopbackServer(refuse) as server:
        assert failing(adapter_for(server)).kind == "bad_request"
    assert len(server.requests) == 3


# Construction and secrets


def test_without_key_and_address_the_error_says_what_to_set() -> None:
    with pytest.raises(UsageError, match=r"set LLM_API_KEY or OPENAI_API_KEY.*LLM_BASE_URL"):
        OpenAICompatAdapter("gpt-4")


def test_an_own_server_needs_no_key() -> None:
    with ChatServer(lambda _: "hi") as server:
        assert OpenAICompatAdapter("m", server.base_url).complete(MESSAGES).text == "hi"
    assert "authorization" not in server.requests[0].headers


def test_the_environment_gives_what_the_arguments_leave_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ChatServer(lambda _: "hi") as server:
        monkeypatch.setenv("LLM_BASE_URL", f" {server.base_url}/ ")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
        monkeypatch.setenv("LLM_API_KEY", " ")
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        adapter = OpenAICompatAdapter("m")
        monkeypatch.setenv("LLM_API_KEY", "changed-later")
        adapter.complete(MESSAGES)
        OpenAICompatAdapter("m").complete(MESSAGES)
        OpenAICompatAdapter("m", api_key="given-key").complete(MESSAGES)
        OpenAICompatAdapter("m", api_key="").complete(MESSAGES)
    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == [f"Bearer {KEY}", "Bearer changed-later", "Bearer given-key", None]


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("", "/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1?api-version=1", "/v1/chat/completions?api-version=1"),
    ],
)
def test_base_urls_are_understood_as_people_write_them(suffix: str, path: str) -> None:
    with LoopbackServer([chat("x")]) as server:
        OpenAICompatAdapter("m", server.url + suffix).complete(MESSAGES)
    assert server.requests[0].path == path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": " "}, "name of a model"),
        ({"base_url": "localhost:11434/v1"}, "http:// or https://"),
        ({"base_url": "ftp://host/v1"}, "http:// or https://"),
        ({"base_url": "http://[::1/v1"}, "base_url"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"deadline": -1}, "deadline=-1"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"api_key": "sk-a\nb"}, "'Authorization' has characters"),
        ({"api_key": "sk-ключ"}, "'Authorization' has characters"),
        ({"extra": {"stream": True}}, "stream"),
        ({"extra": {"messages": []}}, "messages"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(
    arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        OpenAICompatAdapter(**{"model": "m", "base_url": "http://127.0.0.1/v1", **arguments})
    assert "sk-" not in str(caught.value)


def test_what_json_cannot_hold_is_refused_before_anything_is_sent() -> None:
    with LoopbackServer([chat("x")]) as server:
        with pytest.raises(UsageError, match="JSON"):
            adapter_for(server, extra={"bias": {1, 2}}).complete(MESSAGES)
        with pytest.raises(UsageError, match="JSON"):
            adapter_for(server).complete(MESSAGES, temperature=float("nan"))
    assert server.requests == []


def test_no_secret_shows_in_a_repr_or_in_the_message_of_an_error() -> None:
    secrets = [KEY, "pass%20word-1", "pass word-1", "query-token-1", "team-secret-1"]
    with LoopbackServer([error(401, f"refused: {', '.join(secrets)}")]) as server:
        url = server.base_url.replace("http://", "http://ada:pass%20word-1@")
        adapter = OpenAICompatAdapter(
            "m", f"{url}?access_token=query-token-1", KEY, headers={"X-Api-Key": "team-secret-1"}
        )
        failure = failing(adapter)
    shown = str(failure) + repr(failure) + repr(adapter) + repr(vars(adapter))
    assert "ada" not in shown
    for secret in secrets:
        assert secret not in shown
    assert "access_token" not in shown
    assert f"url='{server.base_url}/chat/completions'" in repr(adapter)


def test_a_secret_is_never_cut_in_half() -> None:
    redact = Redactor([KEY])
    for start in range(470, 510):
        shown = redact.shown("x" * start + KEY + "y" * 100)
        assert KEY[:6] not in shown


def test_a_short_placeholder_key_is_replaced_as_a_word_only() -> None:
    assert Redactor(["none"])("none of nonesuch") == "[key] of nonesuch"
    assert Redactor(["", KEY])(f"{KEY.upper()}!") == "[key]!"
