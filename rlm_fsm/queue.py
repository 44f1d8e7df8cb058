"""The queue of calls below the root: which one goes next.

1. Sub-runs end before others start: their turns, and what their cells ask for, go before calls that
   would begin something new, and those of frames that were opened earlier before others.
2. No more sub-runs are open at once at a depth than calls may be in flight. Else all of a batch
   would be, each with a session, and a limit would find none with an answer. A sub-run that only
   waits for people takes no such place, nor does one that has started before its run was resumed.
3. Plain calls don't wait for sub-runs to end: they pass those that do.
"""

from collections.abc import Iterable

from pyrsistent import PDeque

from rlm_fsm.effect import CallModel
from rlm_fsm.ids import CallId, FrameId, depth_of, order_of, turn_id
from rlm_fsm.state import Frame, RunState


def next_call(state: RunState) -> tuple[CallModel, PDeque[CallModel]] | None:
    """The call that may leave the queue, and the rest; None where all have to wait for sub-runs to
    end, by rule 3."""
    first = state.queue.left
    if not _begins_too_many(state, first):
        return first, state.queue.popleft()
    later = next((call for call in state.queue if not _begins(state, call)), None)
    return None if later is None else (later, state.queue.remove(later))


def _begins_too_many(state: RunState, call: CallModel) -> bool:
    """Whether a call would begin a sub-run that has to wait for others to end."""
    if not _begins(state, call):
        return False
    depth = depth_of(call.frame)
    begun = [
        frame
        for frame in state.frames.values()
        if frame.is_begun and depth_of(frame.id) == depth and not _waits_for_people(state, frame)
    ]
    return len(begun) >= state.options.max_concurrent_subcalls


def _begins(state: RunState, call: CallModel) -> bool:
    """Whether a call would begin a sub-run. One that is made again has begun it before."""
    return is_first_turn(call) and not state.frames[call.frame].is_begun


def _waits_for_people(state: RunState, frame: Frame) -> bool:
    """Whether nothing of a frame goes on before somebody has agreed to a call of a tool."""
    if not state.approvals or frame.pause is None:
        return False
    pause = frame.pause
    left = {name for name in pause.asked if name not in pause.answers}
    below = {name: state.frames.get(FrameId(name)) for name in left}
    return all(
        name in state.approvals or (child is not None and _waits_for_people(state, child))
        for name, child in below.items()
    )


def queued(
    state: RunState, calls: Iterable[CallModel], *, first: bool = False
) -> PDeque[CallModel]:
    """The queue with more calls: `first`, before all that is new, and after what frames that were
    opened earlier wait for."""
    more, queue = list(calls), state.queue
    if not first or not more:
        return queue.extend(more)
    older: list[CallModel] = []
    mine = order_of(more[0].frame)
    while queue and not is_first_turn(queue.left) and order_of(queue.left.frame) < mine:
        older.append(queue.left)
        queue = queue.popleft()
    return queue.extendleft(reversed([*older, *more]))


def is_first_turn(call: CallModel) -> bool:
    """Whether a call is the first turn of a sub-run."""
    return call.call_id == turn_id(call.frame, 1)


def in_order(state: RunState) -> list[CallModel]:
    """The calls in flight, those of frames that were opened earlier first."""
    return sorted(state.calls.values(), key=_place)


def _place(call: CallModel) -> tuple[tuple[int, ...], int, CallId]:
    return order_of(call.frame), len(call.call_id), call.call_id
