"""What is sent turn after turn: prefixes for prompt caches, trimming in steps, and the log's bytes.

Whole runs with real sessions; the model is scripted, and its requests are looked at as sent.
"""

import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest
from machine import Machine, code

from rlm_fsm import FakeAdapter, Policy, fold, run
from rlm_fsm.history import HEAD, messages, prompt
from rlm_fsm.values import estimate_tokens

TURNS = 20
OUTPUT = "print(' '.join(str({n} * 7919 + i * i) for i in range(300))[:1800])"
Request = list[dict[str, str]]


def requests(turns: int = TURNS, **options: object) -> list[Request]:
    """What a run of so many turns sends: cells that print 1,800 characters each, then an answer."""
    script = [code(OUTPUT.format(n=n)) for n in range(turns - 1)] + ["FINAL: done"]
    adapter = FakeAdapter(script=script)
    policy = Policy(max_subcalls=10, max_total_tokens=None)
    options = {"policy": policy, "log": ":memory:", **options}
    result = run("q", "some text", adapter=adapter, **options)
    assert result.output == "done"
    return [list(sent) for sent in adapter.call_log]


def size(some: Request) -> int:
    return sum(len(message["content"]) for message in some)


def shared(before: Request, after: Request) -> float:
    """The share of a request that is a prefix of the next one, by characters of whole messages."""
    same = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        same += len(old["content"])
    return same / size(before)


def shares(sent: list[Request]) -> list[float]:
    return [shared(before, after) for before, after in pairwise(sent)]


def test_each_request_is_a_prefix_of_the_next_one():
    sent = requests()
    assert len(sent) == TURNS
    assert "Left of the budget: 10 of 10 subcalls" in sent[-1][-1]["content"]
    assert min(shares(sent)) == 1.0, "more than 95 % is asked for"


def test_trimming_in_steps_keeps_most_requests_prefixes_of_the_next():
    limit = 6_000
    sent = requests(max_history_tokens=limit)
    assert all(estimate_tokens(size(request)) <= limit for request in sent)
    broken = [share for share in shares(sent) if share < 1.0]
    assert 1 <= len(broken) <= 4
    assert sum(shares(sent)) / len(shares(sent)) > 0.85


def test_trimming_keeps_system_task_and_the_newest_exchange_even_where_they_are_too_long():
    sent = requests(max_history_tokens=1)
    whole = requests()
    for trimmed, full in zip(sent[1:], whole[1:], strict=True):
        assert trimmed[:HEAD] == full[:HEAD]
        assert trimmed[HEAD:] == full[-2:]


def trimming(**options: object) -> Machine:
    machine = Machine()
    machine.start(max_history_tokens=1_500, loop_limit=None, **options)
    for number in range(12):
        machine.reply(code(f"print({number})"))
        machine.ran("x" * 1_000)
    return machine


@pytest.mark.parametrize("options", [{}, {"rules": 1}, {"conversation_history": False}])
def test_a_prompt_is_named_by_what_is_sent(options: dict):
    machine = trimming(**options)
    frame, chosen = machine.frame(), machine.state.options
    sent = messages(frame, chosen)
    assert prompt(frame, chosen).chars == sum(len(message.content) for message in sent)
    assert machine.call().prompt == prompt(frame, chosen)
    assert len(sent) < len(frame.messages)


def test_what_was_trimmed_is_still_in_the_conversation():
    frame = trimming().frame()
    assert frame.skipped > 0
    assert len(frame.messages) == HEAD + 2 * 12
    assert "print(0)" in frame.messages[HEAD].content


def test_a_run_that_trims_folds_to_the_prompts_that_it_sent():
    """The hash of each prompt is in the log: `fold` compares it."""
    machine = trimming()
    assert fold(machine.log) == machine.state


def stored_bytes(path: Path) -> int:
    with sqlite3.connect(path) as database:
        (events,) = database.execute(
            "SELECT sum(length(CAST(data AS BLOB))) FROM events"
        ).fetchone()
        (blobs,) = database.execute("SELECT coalesce(sum(size), 0) FROM blobs").fetchone()
    database.close()
    return events + blobs


@pytest.mark.parametrize("options", [{}, {"max_history_tokens": 4_000}])
def test_the_log_holds_each_message_once(options: dict, tmp_path: Path):
    """Bytes grow by what is new in a turn, though what is sent grows with its square."""
    sizes: dict[int, int] = {}
    for turns in (10, 20):
        path = tmp_path / f"{turns}.sqlite"
        requests(turns, log=path, **options)
        sizes[turns] = stored_bytes(path)
    per_turn = (sizes[20] - sizes[10]) / 10
    whole = requests(20)
    new = size(whole[-1]) - size(whole[-2])
    assert new < per_turn < 1.5 * new
