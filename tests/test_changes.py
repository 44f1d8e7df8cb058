"""What a fork is given to change: in the forms of `RLM`, checked before anything is started."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlm_fsm import FakeAdapter, Policy, Price, SqliteLog, fork, replay, resume, run, runs
from rlm_fsm.errors import UsageError
from rlm_fsm.event import Event, RunResumed, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.options import Options


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def model() -> FakeAdapter:
    return FakeAdapter(script=["x = 1", "FINAL: 1"])


def begun(log: Path, **options: Any) -> str:
    return run("What?", "text", adapter=model(), log=log, **options).run_id


def events_of(log: Path, run_id: str) -> list[Event]:
    with SqliteLog(log) as opened:
        return [item.event for item in opened.load(RunId(run_id))]


def options_of(log: Path, run_id: str) -> Options:
    """The options that hold at a run's end."""
    return replay(run_id, log=log, at=len(events_of(log, run_id))).options


# -- the number of an event ----------------------------------------------------------------------


@pytest.mark.parametrize("at", [1.5, "3", True, 2.0])
def test_what_is_no_number_of_an_event_is_refused(at: Any, log: Path):
    run_id, adapter = begun(log), model()
    for act in (
        lambda: fork(run_id, at=at, log=log, adapter=adapter),
        lambda: replay(run_id, at=at, log=log),
    ):
        with pytest.raises(UsageError, match="give the number of an event") as refused:
            act()
        assert f"at={at!r}" in str(refused.value)
    assert (len(runs(log)), adapter.call_log) == (1, [])


def test_a_fork_needs_a_number_of_an_event(log: Path):
    at: Any = None
    with pytest.raises(UsageError, match="at=None: give the number of an event"):
        fork(begun(log), at=at, log=log, adapter=model())


@pytest.mark.parametrize("at", [0, -1, 99, 2**70])
def test_which_events_there_are_is_told_of_the_whole_run(at: int, log: Path):
    run_id = begun(log)
    last = len(events_of(log, run_id))
    for act in (
        lambda: fork(run_id, at=at, log=log, adapter=model()),
        lambda: replay(run_id, at=at, log=log),
    ):
        with pytest.raises(UsageError, match=f"at={at}: .* has events 1 to {last}$"):
            act()
    assert len(runs(log)) == 1


def test_a_state_is_not_shown_where_cells_are_to_be_run_again(log: Path):
    both: dict[str, Any] = {"at": 2, "run_code": True}
    with pytest.raises(UsageError, match="at= shows a state"):
        replay(begun(log), log=log, **both)


# -- options in the forms of `RLM` ---------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4])
def test_a_fork_takes_patterns_as_a_list(at: int, log: Path):
    forked = fork(
        begun(log), at=at, log=log, adapter=model(), auto_finalize_reject_patterns=["^unknown"]
    )
    assert options_of(log, forked.run_id).auto_finalize_reject_patterns == ("^unknown",)


@pytest.mark.parametrize("at", [1, 4])
def test_a_fork_takes_compaction_as_a_flag(at: int, log: Path):
    forked = fork(
        begun(log), at=at, log=log, adapter=model(), compaction=True, max_history_tokens=9_000
    )
    options = options_of(log, forked.run_id)
    assert (options.compaction, options.max_history_tokens) == (0.8, 9_000)


class Wide(FakeAdapter):
    """A model whose window is known."""

    context_window = 10_000


@pytest.mark.parametrize("at", [1, 4])
def test_a_fork_has_the_room_of_its_models_window(at: int, log: Path):
    adapter = Wide(script=["x = 1", "FINAL: 1"])
    forked = fork(begun(log), at=at, log=log, adapter=adapter, compaction=0.5, max_tokens=1_000)
    options = options_of(log, forked.run_id)
    assert (options.compaction, options.max_history_tokens) == (0.5, 6_500)


@pytest.mark.parametrize("at", [1, 4])
def test_a_fork_sums_up_in_the_room_that_its_run_had(at: int, log: Path):
    run_id = begun(log, max_history_tokens=9_000)
    forked = fork(run_id, at=at, log=log, adapter=model(), compaction=0.8)
    options = options_of(log, forked.run_id)
    assert (options.compaction, options.max_history_tokens) == (0.8, 9_000)


def test_a_fork_keeps_a_compaction_that_it_does_not_change(log: Path):
    run_id = begun(log, compaction=0.6, max_history_tokens=9_000)
    forked = fork(run_id, at=4, log=log, adapter=model())
    options = options_of(log, forked.run_id)
    assert (options.compaction, options.max_history_tokens) == (0.6, 9_000)


def test_a_fork_that_changes_nothing_records_no_options(log: Path):
    run_id = begun(log)
    forked = fork(run_id, at=4, log=log, adapter=model())
    (resumed,) = [e for e in events_of(log, forked.run_id) if isinstance(e, RunResumed)]
    assert resumed.options is None


@pytest.mark.parametrize("at", [1, 4])
def test_a_fork_in_another_backend_says_so_and_is_resumed_in_it(at: int, log: Path):
    adapter = FakeAdapter(script=["x = 1"])
    forked = fork(
        begun(log),
        at=at,
        log=log,
        adapter=adapter,
        repl_backend="monty",
        policy=Policy(max_steps=1),
    )
    assert options_of(log, forked.run_id).repl_backend == "monty"
    more = FakeAdapter(script=["print(x)", "FINAL_VAR: x"])
    result = resume(forked.run_id, log=log, adapter=more, policy=Policy(max_steps=9))
    assert result.output == "1"
    assert options_of(log, forked.run_id).repl_backend == "monty"


def test_options_of_an_edited_first_event_hold_for_the_fork(log: Path):
    def edit(event: Event) -> Event:
        assert isinstance(event, RunStarted)
        return replace(event, options=replace(event.options, max_history_tokens=7_000))

    forked = fork(begun(log), at=1, log=log, adapter=model(), edit=edit, compaction=0.8)
    options = options_of(log, forked.run_id)
    assert (options.compaction, options.max_history_tokens) == (0.8, 7_000)


# -- what a fork refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rules": 1}, "rules=1: this is no argument: a run keeps the rules that it began with"),
        ({"answer_schema": "{}"}, "answer_schema='{}': .*: give the type, as output_type="),
        ({"prices": 5}, "prices=5: give prices by the names of models"),
        ({"prices": [Price(prompt_usd_per_mtok=1, completion_usd_per_mtok=1)]}, "give prices by"),
        ({"tools": (Options(),)}, "is no tool: give a function"),
        ({"tools": 5}, "tools=5: give a list of functions"),
        ({"auto_finalize_reject_patterns": "x"}, "='x': give a list of patterns"),
        ({"auto_finalize_reject_patterns": 3}, "=3: give a list of patterns"),
        ({"auto_finalize_reject_patterns": [3]}, "auto_finalize_reject_patterns=.*3.*: give a"),
        ({"auto_finalize_reject_patterns": ["("]}, "is no regular expression"),
        ({"compaction": "much"}, "compaction='much': give True, or a share"),
        ({"compaction": True}, "nobody knows this model's window: give max_history_tokens"),
        ({"compaction": 0.8, "max_tokens": "many"}, "max_tokens='many': give a whole number"),
        ({"profile": [3]}, r"profile=\[3\]: give the name of a profile"),
        ({"profile": "old"}, "profile='old': choose one of"),
        ({"policy": 3}, "policy=3: give a Policy"),
        ({"fallback_code": "def ("}, "fallback_code is no Python"),
        ({"repl_backend": "perl"}, "repl_backend='perl': choose 'python' or 'monty'"),
        ({"logger": "x"}, "logger='x': give a logging.Logger"),
        ({"adapters": {3: model()}}, "adapters={3: ...}: "),
        ({"recursive_subcalls": 1}, "recursive_subcalls=1: give True or False"),
    ],
)
@pytest.mark.parametrize("at", [1, 4])
def test_a_fork_refuses_what_it_cannot_change(at: int, given: dict[str, Any], told: str, log: Path):
    run_id, adapter = begun(log), model()
    with pytest.raises(UsageError, match=told):
        fork(run_id, at=at, log=log, adapter=adapter, **given)
    assert (len(runs(log)), adapter.call_log) == (1, [])


def test_a_fork_refuses_options_that_there_are_not(log: Path):
    with pytest.raises(TypeError, match=r"fork\(\) has no option max_step"):
        fork(begun(log), at=1, log=log, adapter=model(), max_step=3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"logger": "x"}, "logger='x': give a logging.Logger"),
        ({"prices": 5}, "prices=5: give prices"),
        ({"adapters": {3: model()}}, "adapters={3: ...}: "),
        ({"adapter": None, "model": 3}, "model=3: give the name of a model"),
    ],
)
def test_a_resume_refuses_what_it_cannot_use(given: dict[str, Any], told: str, log: Path):
    run_id = begun(log)
    options: dict[str, Any] = {"log": log, "adapter": model(), **given}
    with pytest.raises(UsageError, match=told):
        resume(run_id, **options)
