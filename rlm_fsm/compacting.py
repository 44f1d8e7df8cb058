"""What follows from asking for a summary: the rows of COMPACTING. See `compaction` for the rules.

No handler lets out other calls here: the frame's next turn goes before them, and lets them out.
"""

from rlm_fsm import calls, compaction, frames
from rlm_fsm.calls import Step
from rlm_fsm.event import EffectStarted, HistoryCompacted, ModelFailed, ModelReplied
from rlm_fsm.evolve import evolve
from rlm_fsm.reply import visible
from rlm_fsm.state import Frame, RunState


def on_compacting_effect_started(state: RunState, _: Frame, __: EffectStarted) -> Step:
    """The intent to ask for a summary is on record; the call may start."""
    return state, ()


def on_compacting_model_replied(state: RunState, frame: Frame, event: ModelReplied) -> Step:
    """The summary takes the place of the middle of the conversation, if it saves enough."""
    state, call = calls.ended(state, event)
    return compaction.summed_up(state, frame, call, visible(event.text).strip())


def on_compacting_model_failed(state: RunState, _: Frame, event: ModelFailed) -> Step:
    """There is no summary; the frame goes on without."""
    state, call = calls.ended(state, event)
    return compaction.failed(state, call, f"{event.error}: {event.message}")


def on_compacting_history_compacted(state: RunState, frame: Frame, event: HistoryCompacted) -> Step:
    """The turn that waited is taken; without a summary, what is oldest is dropped where it must be.

    After a failure no other summary is asked for until then.
    """
    if not event.failure:
        state = evolve(state, compactions=state.compactions + 1)
    elif not frame.no_compaction:
        frame = evolve(frame, no_compaction="until_trimmed")
    return frames.ask(state, evolve(frame, compacting="", compacted_at=len(frame.messages)))
