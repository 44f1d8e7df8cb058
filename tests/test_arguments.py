"""Bad arguments are refused before anything is started, in words."""

import traceback
from pathlib import Path
from typing import Any

import pytest

from rlm_fsm import (
    RLM,
    FakeAdapter,
    OpenAICompatAdapter,
    approve,
    fork,
    replay,
    resume,
    run,
    runs,
)
from rlm_fsm.errors import ModelError, RunNotFound, UsageError


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"log": 123}, "log=123: give the path of a file, ':memory:', an EventLog or None"),
        ({"policy": 5}, "policy=5: give a Policy"),
        ({"repl_limits": 5}, "repl_limits=5: give ReplLimits"),
        ({"adapters": 5}, "adapters=5: give adapters by name"),
        ({"adapters": {"subcall": FakeAdapter()}}, "this one is given as subcall_adapter="),
        ({"adapters": {"root": FakeAdapter()}}, "this one is given as adapter="),
        ({"system_prompt": 5}, "system_prompt=5: give a text"),
        ({"system_prompt_supplement": None}, "system_prompt_supplement=None: give a text"),
        ({"fallback_code": 5}, "fallback_code=5: give a text"),
        ({"fallback_code": "def ("}, "fallback_code is no Python"),
        ({"conversation_history": "no"}, "conversation_history='no': give True or False"),
        ({"recursive_subcalls": 1}, "recursive_subcalls=1: give True or False"),
        ({"event_listener": 5}, "event_listener=5: give an object with a method handle(event)"),
        ({"on_approval": 5}, "on_approval=5: give a function"),
        ({"adapters": {3: FakeAdapter()}}, "adapters={3: ...}: the name is no text"),
        ({"adapters": {"": FakeAdapter()}}, "adapters={'': ...}: the name is no text"),
        ({"adapters": ""}, "adapters='': give adapters by name"),
        ({"logger": "x"}, "logger='x': give a logging.Logger, or None"),
        ({"auto_finalize_reject_patterns": 3}, "=3: give a list of patterns"),
        ({"auto_finalize_reject_patterns": {"a": 1}}, "give a list of patterns"),
        ({"prices": 5}, "prices=5: give prices by the names of models"),
        ({"profile": [3]}, "profile=[3]: give the name of a profile"),
        ({"adapter": None, "model": 3}, "model=3: give the name of a model"),
        ({"store_context_chars": "x"}, "store_context_chars='x': give a number of characters"),
        ({"store_context_chars": -1}, "store_context_chars=-1: give a number of characters"),
        ({"compaction": True, "max_tokens": "x"}, "max_tokens='x': give a whole number"),
    ],
)
def test_a_run_refuses_what_it_cannot_use(given: dict[str, Any], told: str, tmp_path: Path):
    log = tmp_path / "log.sqlite"
    adapter = FakeAdapter(script=["FINAL: 1"])
    with pytest.raises(UsageError) as refused:
        run("What?", "text", **{"adapter": adapter, "log": log, **given})
    assert told in str(refused.value)
    assert not log.exists()
    assert not adapter.call_log


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (3, "query=3: give the question as a text"),
        (None, "query=None: give the question as a text"),
        (" ", "the query is empty"),
    ],
)
def test_what_is_no_question_is_refused(query: Any, told: str, tmp_path: Path):
    log = tmp_path / "log.sqlite"
    with pytest.raises(UsageError, match=told):
        run(query, "text", adapter=FakeAdapter(), log=log)
    assert not log.exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"timeout": None}, "timeout=None: give seconds above 0"),
        ({"timeout": "1"}, "timeout='1': give seconds above 0"),
        ({"deadline": "1"}, "deadline='1': give seconds above 0, or None"),
        ({"max_retries": None}, "max_retries=None: give 0 or more"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "a port is a number from 1 to 65535"),
    ],
)
def test_an_adapter_refuses_what_it_cannot_use(given: dict[str, Any], told: str):
    with pytest.raises(UsageError, match=told):
        OpenAICompatAdapter("m", **{"base_url": "http://127.0.0.1:1/v1", **given})


@pytest.mark.parametrize("run_id", [5, None, ""])
def test_what_is_no_name_of_a_run_is_refused(run_id: Any, tmp_path: Path):
    log, adapter = tmp_path / "log.sqlite", FakeAdapter()
    for act in (
        lambda: resume(run_id, log=log, adapter=adapter),
        lambda: fork(run_id, at=1, log=log, adapter=adapter),
        lambda: replay(run_id, log=log),
        lambda: approve(run_id, log=log),
        lambda: RLM(adapter, log=log).resume(run_id),
    ):
        with pytest.raises(UsageError, match="give the id of a run"):
            act()


def test_looking_for_a_run_makes_no_log(tmp_path: Path):
    log, adapter = tmp_path / "missing.sqlite", FakeAdapter()
    for act in (
        lambda: resume("a", log=log, adapter=adapter),
        lambda: fork("a", at=1, log=log, adapter=adapter),
        lambda: replay("a", log=log),
        lambda: approve("a", log=log),
    ):
        with pytest.raises(RunNotFound, match="there is no such log"):
            act()
    assert runs(log) == []
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_run_has_no_cause_that_is_none():
    with pytest.raises(ModelError) as failed:
        run("What?", "text", adapter=FakeAdapter(script=[]), log=":memory:")
    told = "".join(traceback.format_exception(failed.value))
    assert "no running event loop" not in told


def test_a_run_whose_log_was_in_memory_is_not_said_to_be_resumable():
    with pytest.raises(ModelError, match="had its log in memory, which is gone"):
        run("What?", "text", adapter=FakeAdapter(script=[]), log=":memory:")


@pytest.mark.parametrize("argument", ["on_uncertain", "on_changed_output"])
def test_how_a_run_goes_on_is_checked_before_the_log_is_opened(argument: str, tmp_path: Path):
    log, bad = tmp_path / "log", {argument: "perhaps"}
    rlm = RLM(FakeAdapter(), log=log)
    ways = [lambda: rlm.resume("x", **bad), lambda: resume("x", log=log, **bad)]
    if argument == "on_changed_output":
        ways.append(lambda: fork("x", at=1, log=log, **bad))
    for way in ways:
        with pytest.raises(UsageError, match=f"{argument}='perhaps': choose"):
            way()
