"""Replay: fold a log, without a network and at no cost.

The fold itself compares: every derived event, intents with the hashes of their effects included,
must be what the machine derives now. With `run_code` the cells are run again as well, in new
sessions, and what they ask and print is compared with what the log has.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Protocol

from effects import kept
from effects.backends import repl_factory
from effects.context import Context
from effects.jobs import open_log
from effects.log.base import EventLog, Logged
from effects.refusals import no_such_event
from effects.repls.base import ReplLimits
from effects.result import RunResult, result_of
from effects.sessions import bring_back
from effects.typed import AnswerType
from effects.waiting import run_job
from rlm_fsm.cells import Recorder
from rlm_fsm.effect import Effect
from rlm_fsm.errors import IllegalEvent, ReplayDiverged
from rlm_fsm.event import CodePaused, Event, RunStarted
from rlm_fsm.ids import ROOT, RunId
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, RunState
from rlm_fsm.values import text_hash


def replayed(
    target: str | EventLog,
    run_id: str,
    *,
    run_code: bool,
    context: Context | None,
    repl_limits: ReplLimits,
    answer_type: AnswerType | None = None,
) -> RunResult:
    """The result of a run as its log gives it; ``running`` for one that hasn't ended."""
    with ExitStack() as stack:
        log = open_log(target, stack)
        name = log.find(run_id)
        recorder = Recorder(keeps_closed=True)
        events: list[Event] = []
        state = folded(log.load(name), name, recorder, events)
        if run_code:
            root = _context(log, state, context)  # here, since a log is for one thread
            run_job(lambda: _run_again(name, state, recorder, events, root, repl_limits))
    return result_of(name, state, lambda: events, answer_type)


class Taker(Protocol):
    """Takes the steps of a fold."""

    def take(self, state: RunState, event: Event, effects: tuple[Effect, ...]) -> None:
        """The state after a step, the event, and what it caused."""
        ...


def folded(
    logged: Iterable[Logged],
    run_id: RunId,
    taker: Taker | None = None,
    events: list[Event] | None = None,
) -> RunState:
    """The state after these events, of which `taker` is told.

    `ReplayDiverged` names the run and the first event that differs.
    """
    state = INITIAL
    for item in logged:
        try:
            state, effects = step(state, item.event)
        except ReplayDiverged as diverged:
            raise ReplayDiverged(
                run_id=run_id, seq=item.seq, expected=diverged.expected, found=diverged.found
            ) from None
        except IllegalEvent as illegal:
            raise ReplayDiverged(
                run_id=run_id, seq=item.seq, expected=str(illegal), found=item.event
            ) from illegal
        if taker is not None:
            taker.take(state, item.event, effects)
        if events is not None:
            events.append(item.event)
    return state


def state_after(target: str | EventLog, run_id: str, at: int) -> RunState:
    """The state of a run after event number `at`, counted from 1."""
    with ExitStack() as stack:
        log = open_log(target, stack)
        name = log.find(run_id)
        state = folded(log.load(name, until=at), name)
        if at < 1 or state.seq != at:
            raise no_such_event(log, name, at)
    return state


def _context(log: EventLog, state: RunState, given: Context | None) -> Context:
    """What the run worked on."""
    assert state.context is not None, "a run that has started has a context"
    if given is None:
        return kept.reopen(log, state.context)
    return kept.checked(given, state.context, "other texts were passed")


async def _run_again(
    run_id: RunId,
    state: RunState,
    recorder: Recorder,
    events: list[Event],
    root: Context,
    repl_limits: ReplLimits,
) -> None:
    """Run the cells of every frame again, each frame in a session of its own."""
    options = state.options
    seed = next((event.seed for event in events if isinstance(event, RunStarted)), "")
    sessions = repl_factory(options.repl_backend, repl_limits, options, seed)
    prompts = _prompts(events)
    for frame, cells in recorder.cells.items():
        info = recorder.contexts.get(frame)
        over = root if frame == ROOT or info is None else Context.from_text(prompts[info.digest])
        repl = sessions(over)
        try:
            await bring_back(repl, cells, run_id=run_id, frame=frame, on_changed="raise")
        finally:
            await repl.close()


def _prompts(events: list[Event]) -> dict[str, str]:
    """What all host calls ask about, by hash: the contexts of sub-runs are among them."""
    return {
        text_hash(call.text): call.text
        for event in events
        if isinstance(event, CodePaused)
        for call in event.calls
    }
