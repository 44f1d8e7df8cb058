"""What the tests of cached runs share: runs that ask subcalls, against a server that counts."""

from collections import Counter
from pathlib import Path
from typing import Any

from loopback import ChatServer, Respond

from effects.log import SqliteLog
from rlm_fsm import OpenAICompatAdapter
from rlm_fsm.event import Event, ModelReplied
from rlm_fsm.ids import RunId

BATCH = "found = llm_batch(['one ' + P, 'two ' + P, 'three ' + P])"
ONE = "found = llm_query('one ' + P)"


def server(
    code: str = BATCH, *, delay_s: float = 0.0, failures: int = 0, first_s: float | None = None
) -> ChatServer:
    """A model whose first turn is `code` and whose second gives ``found``. Subcalls are answered in
    capitals, after `delay_s` (the first one after `first_s`); the first `failures` of them with an
    error."""
    left = [failures]
    delays = [] if first_s is None else [first_s]

    def reply(messages: list[dict[str, str]]) -> str | Respond:
        last = messages[-1]["content"]
        if not messages[0]["content"].startswith("You are a sub-LLM"):
            turn = sum(message["role"] == "assistant" for message in messages)
            return "FINAL_VAR: found" if turn else f"```python\n{code}\n```"
        if left[0]:
            left[0] -= 1
            return Respond(status=500, body={"error": {"message": "down"}}, delay_s=delay_s)
        document = {
            "choices": [{"message": {"content": last.upper()}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
            "model": "loopback",
        }
        return Respond(body=document, delay_s=delays.pop() if delays else delay_s)

    return ChatServer(reply)


def adapter(at: ChatServer, **options: Any) -> OpenAICompatAdapter:
    """The adapter for a server, that gives up at once."""
    given = {"base_url": at.base_url, "api_key": "sk-any", "max_retries": 0, **options}
    return OpenAICompatAdapter("m", **given)


def subcalls(at: ChatServer) -> Counter[str]:
    """How often each subcall reached the server."""
    return Counter(
        messages[-1]["content"]
        for messages in at.conversations
        if messages[0]["content"].startswith("You are a sub-LLM")
    )


def events_of(log: Path, run_id: str) -> list[Event]:
    with SqliteLog(log) as opened:
        return [logged.event for logged in opened.load(RunId(run_id))]


def hits_of(log: Path, run_id: str) -> list[ModelReplied]:
    """The replies of a run that a cache gave."""
    found = (event for event in events_of(log, run_id) if isinstance(event, ModelReplied))
    return [event for event in found if event.cache_hit]
