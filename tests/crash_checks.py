"""What must hold of a run that was killed, once it has ended.

1. It ended with the output and the state of the run that nobody killed, and `replay` agrees.
2. The events that the log held right after each kill are the beginning of the events at the end.
3. A call whose outcome was in the log at a kill was never made again.
4. A call reached the service only when its intent was in the log.
5. Calls made again are no more than those that the run counts as uncertain, and these are exactly
   the intents without an outcome at each resume.
6. With ``on_uncertain="fail"`` 1 doesn't hold, since code and model are told of failures. Instead
   the run has ended somehow, `replay` agrees, each uncertain call is a recorded failure, and no
   call was made again, but for the turn whose failure had ended the run: going on from there asks
   it again.
7. No process outlived its run's, and the process that ended the run left no folder behind.
"""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rlm_fsm import RLMError, fold, replay
from rlm_fsm.event import (
    EffectStarted,
    Event,
    ModelFailed,
    ModelReplied,
    RunFinished,
    RunResumed,
)
from tests.crash_cycle import Ending, Plan, Run, comparable


@dataclass(kw_only=True)
class Findings:
    """What a cycle showed."""

    plan: Plan
    kills: int = 0
    struck: list[str] = field(default_factory=list[str])
    """Where."""
    events: int = 0
    """Events that the log held at the kills, in all."""
    divergences: int = 0
    lost_events: int = 0
    repeated_committed: int = 0
    unannounced: int = 0
    """Calls that reached the service without an intent in the log."""
    uncertain: int = 0
    """As the run counts them."""
    repeated: int = 0
    """Calls that the service saw again: each must be an uncertain one."""
    refused: int = 0
    """Uncertain calls that were recorded as failed instead of being made again."""
    from_snapshots: int = 0
    """Sessions that were brought back from a snapshot."""
    from_cells: int = 0
    """Sessions that were brought back by their cells alone."""
    orphans: int = 0
    scratch_folders: int = 0
    """Folders of killed sessions: nobody is left to delete them."""
    details: list[str] = field(default_factory=list[str])
    """What must not be; empty when all is well."""


async def judged(run: Run, whole: Ending) -> Findings:
    """Compare a run that has ended with the run that nobody killed."""
    found = Findings(plan=run.plan, kills=len(run.snapshots), struck=run.struck)
    found.scratch_folders = run.scratch_left
    run_id, events = run.snapshot()
    assert run_id is not None, "a run that has ended is in its log"
    found.from_snapshots, found.from_cells = run.sessions_back()
    if run.plan.on_uncertain == "retry":
        _judge_ending(found, run, whole, run_id, events)
    else:
        _judge_refusals(found, run, run_id, events)
    _judge_log(found, run, events)
    _judge_calls(found, run, events)
    if run.scratch() > run.scratch_left:
        found.details.append("the process that ended the run left a folder")
    if orphans := await run.orphans():
        found.orphans = len(orphans)
        found.details.append(f"processes that outlived their run: {sorted(orphans)}")
        for pid, _ in orphans:
            os.kill(pid, signal.SIGKILL)
    return found


def _judge_ending(
    found: Findings, run: Run, whole: Ending, run_id: str, events: Sequence[Event]
) -> None:
    state, report = fold(events), run.reports[-1]
    found.uncertain = state.uncertain
    differences: list[str] = []
    if report["output"] != whole.output or state.output != whole.output:
        differences.append(f"the output {report['output']!r} is not {whole.output!r}")
    if comparable(state) != whole.state:
        differences.append("the state at the end is another one")
    if report["uncertain"] != state.uncertain:
        differences.append(f"{report['uncertain']} uncertain calls told, {state.uncertain} logged")
    try:
        again = replay(run_id, log=run.log)
    except RLMError as error:
        differences.append(f"replay: {error}")
    else:
        if (again.output, again.status) != (whole.output, "finished"):
            differences.append(f"replay gives {again.output!r}")
    found.divergences = bool(differences)
    found.details += differences


def _judge_refusals(found: Findings, run: Run, run_id: str, events: Sequence[Event]) -> None:
    state, report = fold(events), run.reports[-1]
    found.uncertain = state.uncertain
    found.refused = sum(isinstance(e, ModelFailed) and e.error == "uncertain" for e in events)
    if not state.is_over or report["output"] != state.output:
        found.details.append(f"it ended as {state.status} with {report['output']!r}")
    if found.refused != found.uncertain:
        found.details.append(f"{found.refused} of {found.uncertain} uncertain calls are failures")
    again = len(run.starts) - len({key for _, key in run.starts})
    if again > (gone_on := _resumes_after_a_failure(events)):
        found.details.append(f"{again} calls were made again, {gone_on} were allowed")
    try:
        replayed = replay(run_id, log=run.log)
    except RLMError as error:
        found.details.append(f"replay: {error}")
    else:
        if (replayed.output, replayed.status) != (state.output, state.status):
            found.details.append(f"replay gives {replayed.output!r}")


def _judge_log(found: Findings, run: Run, events: Sequence[Event]) -> None:
    for snapshot in run.snapshots:
        found.events += len(snapshot)
        kept = 0
        while kept < len(snapshot) and snapshot[kept] == events[kept]:
            kept += 1
        if kept < len(snapshot):
            found.lost_events += len(snapshot) - kept
            found.details.append(f"of {len(snapshot)} committed events {kept} are in the log")


def _judge_calls(found: Findings, run: Run, events: Sequence[Event]) -> None:
    names = {e.request_id: e.call_id for e in events if isinstance(e, ModelReplied)}
    for generation, snapshot in enumerate(run.snapshots):
        done = {e.request_id for e in snapshot if isinstance(e, ModelReplied)}
        again = [key for made_by, key in run.starts if made_by > generation and key in done]
        found.repeated_committed += len(again)
        found.details += [f"{names[key]} was made again, its outcome was known" for key in again]
        announced = {e.call_id for e in snapshot if isinstance(e, EffectStarted)}
        early = {key for made_by, key in run.starts if made_by <= generation}
        early = {key for key in early if names.get(key) not in announced}
        if run.plan.on_uncertain == "fail":  # a call that was refused has no reply to name it
            nameless = len(announced - set(names.values()))
            early = set(sorted(early)[nameless:])
        found.unannounced += len(early)
        found.details += [f"{names.get(key)} was made without an intent" for key in early]
    made = Counter(key for _, key in run.starts)
    found.repeated = sum(made.values()) - len(made)
    if found.repeated > found.uncertain:
        found.details.append(f"{found.repeated} calls made again, {found.uncertain} uncertain")
    if found.uncertain != (expected := _in_flight_at_resumes(events)):
        found.details.append(f"{found.uncertain} uncertain calls, {expected} were in flight")


def _in_flight_at_resumes(events: Sequence[Event]) -> int:
    """Intents without an outcome where the run was resumed, in all."""
    count, in_flight = 0, set[str]()
    for event in events:
        match event:
            case EffectStarted():
                in_flight.add(event.call_id)
            case ModelReplied() | ModelFailed():
                in_flight.discard(event.call_id)
            case RunResumed():
                count += len(in_flight)
            case _:
                pass
    return count


def _resumes_after_a_failure(events: Sequence[Event]) -> int:
    """How often the run had failed when it was resumed. A process that is killed right after that
    append can't say so, and the harness resumes the run."""
    return sum(
        isinstance(event, RunResumed) and isinstance(before, RunFinished)
        for before, event in pairwise(events)
    )
