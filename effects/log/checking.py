"""Verifying runs: whether each can be read whole, and is what the list of runs says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from effects.log.base import Logged, RunInfo
from effects.log.writing import showable, standing
from rlm_fsm.errors import LogError
from rlm_fsm.event import Event, RunStarted
from rlm_fsm.ids import RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheck:
    """What `SqliteLog.verify` found of one run."""

    run_id: RunId
    events: int
    """Events that are good, from the first one on."""
    problem: str | None
    """What is wrong, with what to do; None for a sound run."""


def check_run(
    run_id: RunId, info: RunInfo | None, load: Callable[[RunId], Iterable[Logged]]
) -> RunCheck:
    """Read a whole run and compare it with its line in the list of runs."""
    events = 0
    problem: str | None = None
    event: Event | None = None
    try:
        for logged in load(run_id):
            events, event = logged.seq, logged.event
            if isinstance(event, RunStarted) and info and info.query != showable(event.query):
                problem = "the list of runs shows another question than its first event"
    except LogError as error:
        problem = str(error)
    else:
        if info and event and (info.status, info.output) != standing(event):
            problem = "the list of runs shows another end than its last event"
    return RunCheck(run_id=run_id, events=events, problem=problem)
