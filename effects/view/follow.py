"""Events -> what a view shows, as they happen.

A `Follower` folds the events of a run with the reducer itself, so that a view knows what the
machine knows: the code that runs, the calls in flight, what was spent. It tells what is new as
`Item`s; how they look is the views' business. It holds no more of a prompt than its head.

A run that is resumed or forked doesn't begin with its first event: what came before is read from
the log when the first new event arrives, and folded without a word.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from effects.view.items import (
    Began,
    CallEnded,
    CallsBegan,
    CallsEnded,
    CellBegan,
    CellEnded,
    Compacted,
    Ended,
    Item,
    Noted,
    Turned,
    WentOn,
)
from rlm_fsm.event import (
    ApprovalAsked,
    ApprovalGiven,
    Cancelled,
    CodeExecuted,
    CodePaused,
    DeadlinePassed,
    Event,
    GuardTripped,
    HistoryCompacted,
    LimitReached,
    ModelFailed,
    ModelReplied,
    ReplFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    ToolFailed,
    ToolReturned,
    VariableRead,
)
from rlm_fsm.ids import CallId, FrameId, RunId, host_call_id
from rlm_fsm.numbers import number
from rlm_fsm.reducer import step
from rlm_fsm.state import INITIAL, Phase, RunState
from rlm_fsm.tool_calls import answered
from rlm_fsm.values import HostCall, Usage

if TYPE_CHECKING:
    from effects.listeners import Appended

_HEAD_CHARS = 400
"""Characters of a prompt or reply that an item holds: more than a line of any terminal."""


Earlier = Callable[[RunId, int], Iterable[Event]]
"""What finds the events of a run up to one, included."""


@dataclass(slots=True)
class _Batch:
    """The calls that a frame's cell waits for."""

    what: str
    made: int
    began_s: float
    failed: int = 0
    cache_hits: int = 0


class Follower:
    """Follows one run."""

    def __init__(self, earlier: Earlier | None = None) -> None:
        """`earlier` finds what came before the first event that is seen, if that isn't the first
        of its run."""
        self.run_id = ""
        self._earlier = earlier
        self.state: RunState = INITIAL
        self._cells: dict[FrameId, CallId] = {}
        self._batches: dict[FrameId, _Batch] = {}
        self._prompts: dict[CallId, str] = {}
        self._summaries: dict[CallId, tuple[Usage, float]] = {}
        """What calls for summaries used, until it is known what became of them."""
        self._clock_s = 0.0

    def see(self, appended: "Appended") -> list[Item]:
        """Fold the next event; what there is to show of it."""
        self.run_id = appended.run_id
        if self._earlier is not None and self.state.seq < appended.seq - 1:
            for event in self._earlier(appended.run_id, appended.seq - 1):
                self._fold(event)
        return self._fold(appended.event)

    @property
    def calls_made(self) -> int:
        """Calls that cells wait for now, answered ones included."""
        return sum(batch.made for batch in self._batches.values())

    @property
    def calls_done(self) -> int:
        """Those of `calls_made` that are answered."""
        return self.calls_made - sum(self._missing(frame) for frame in self._batches)

    @property
    def calls_in_flight(self) -> int:
        """Calls below the root's own turns that are being made."""
        return self.state.in_flight + len(self.state.tools)

    @property
    def activity(self) -> str:
        """What the run is doing, in a few words."""
        state, root = self.state, self.state.root
        match root.phase:
            case Phase.ASKING:
                return f"asking the model, turn {root.turns} of {root.max_steps}"
            case Phase.COMPACTING:
                return "summing up the conversation"
            case Phase.CLOSING:
                return "asking for the best answer"
            case Phase.WAITING:
                return _awaited(state)
            case Phase.RUNNING:
                return "running code"
            case Phase.READING:
                return "reading the answer"
            case Phase.CHECKING:
                return "checking the answer"
            case Phase.NEW:
                return "starting"
            case Phase.DONE | Phase.FAILED:
                return state.status if state.is_over else "ending"

    def _fold(self, event: Event) -> list[Item]:
        before = self.state
        self._clock_s = max(self._clock_s, cast(float, getattr(event, "clock_s", 0.0)))
        self.state, _ = step(before, event)
        items = self._items(event, before)
        return [*items, *self._calls_ended(), *self._cell_began(event.frame)]

    def _items(self, event: Event, before: RunState) -> list[Item]:
        match event:
            case RunStarted():
                return [Began(run_id=self.run_id, event=event)]
            case RunResumed():
                after = before.seq
                return [WentOn(run_id=self.run_id, after=after, event=event, state=self.state)]
            case ModelReplied() | ModelFailed():
                return self._call_items(event, before)
            case ToolReturned() | ToolFailed():
                return [self._tool_ended(event)]
            case ApprovalAsked():
                call = self._prompts.get(event.call_id, "")
                return [Noted(frame=event.frame, what="approval", text=f"{call} waits")]
            case ApprovalGiven():
                return [Noted(frame=event.frame, what="approval", text=answered(event))]
            case CodePaused():
                asks = any(call.kind in ("subcall", "tool") for call in event.calls)
                return [self._paused(event, before)] if asks or not event.calls else []
            case CodeExecuted():
                return [CellEnded(frame=event.frame, event=event)]
            case GuardTripped():
                return [Noted(frame=event.frame, what="refused", text=event.reason)]
            case HistoryCompacted():
                usage, elapsed_s = self._summaries.pop(event.call_id, (Usage(), 0.0))
                return [Compacted(frame=event.frame, event=event, usage=usage, elapsed_s=elapsed_s)]
            case LimitReached():
                text = f"{event.limit}: {number(event.used)} of {number(event.allowed)}"
                return [Noted(frame=event.frame, what="limit", text=text)]
            case ReplFailed():
                return [Noted(frame=event.frame, what="no REPL", text=event.message)]
            case VariableRead() if event.error:
                return [Noted(frame=event.frame, what=f"reading {event.name}", text=event.error)]
            case Cancelled():
                return [Noted(frame=event.frame, what="cancelled", text=event.reason)]
            case DeadlinePassed():
                text = f"max_seconds: stopped at {event.clock_s:,.1f} s"
                return [Noted(frame=event.frame, what="limit", text=text)]
            case RunFinished():
                return [Ended(event=event, state=self.state)]
            case _:
                return []

    def _call_items(self, event: ModelReplied | ModelFailed, before: RunState) -> list[Item]:
        call = before.calls[event.call_id]
        text, usage, error = "", Usage(), None
        if isinstance(event, ModelReplied):
            text, usage = event.text, event.usage
        else:
            error = f"{event.error}: {event.message}"
        if call.purpose == "compaction":
            self._summaries[event.call_id] = (usage, event.elapsed_s)
            return []
        if call.purpose != "subcall":
            frame = before.frames[event.frame]
            return [
                Turned(
                    frame=event.frame,
                    number=frame.turns,
                    text=text,
                    usage=usage,
                    elapsed_s=event.elapsed_s,
                    error=error,
                )
            ]
        batch = self._batches.get(event.frame)
        if batch is not None:
            batch.failed += error is not None
            batch.cache_hits += isinstance(event, ModelReplied) and event.cache_hit
        return [
            CallEnded(
                frame=event.frame,
                call_id=event.call_id,
                prompt_head=self._prompts.pop(event.call_id, ""),
                reply_head=(error or text)[:_HEAD_CHARS],
                failed=error is not None,
                elapsed_s=event.elapsed_s,
            )
        ]

    def _tool_ended(self, event: ToolReturned | ToolFailed) -> CallEnded:
        failed = isinstance(event, ToolFailed)
        reply = event.message if isinstance(event, ToolFailed) else event.value
        if (batch := self._batches.get(event.frame)) is not None:
            batch.failed += failed
        return CallEnded(
            frame=event.frame,
            call_id=event.call_id,
            prompt_head=self._prompts.pop(event.call_id, ""),
            reply_head=reply[:_HEAD_CHARS],
            failed=failed,
            elapsed_s=event.elapsed_s,
        )

    def _paused(self, event: CodePaused, before: RunState) -> CallsBegan:
        number = before.frames[event.frame].host_calls
        made = 0
        pause = self.state.frames[event.frame].pause
        if pause is not None:
            made = pause.missing
            self._batches[event.frame] = _Batch(_what(event), made, self._clock_s)
            for position, call in enumerate(event.calls, number + 1):
                self._prompts[host_call_id(event.frame, position)] = _prompt_head(call)
        fns = dict.fromkeys(call.fn for call in event.calls)
        return CallsBegan(
            frame=event.frame,
            what=_what(event),
            fn=", ".join(fns),
            asked=len(event.calls),
            made=made,
            prompt_head=_prompt_head(event.calls[0]) if event.calls else "",
        )

    def _calls_ended(self) -> list[Item]:
        """The batches whose cell no longer waits."""
        items: list[Item] = []
        for frame in [frame for frame in self._batches if self._missing(frame) == 0]:
            batch = self._batches.pop(frame)
            items.append(
                CallsEnded(
                    frame=frame,
                    what=batch.what,
                    made=batch.made,
                    failed=batch.failed,
                    elapsed_s=self._clock_s - batch.began_s,
                    cache_hits=batch.cache_hits,
                )
            )
            if not self._batches:
                self._prompts.clear()
        return items

    def _missing(self, frame_id: FrameId) -> int:
        frame = self.state.frames.get(frame_id)
        return frame.pause.missing if frame is not None and frame.pause is not None else 0

    def _cell_began(self, frame_id: FrameId) -> list[Item]:
        frame = self.state.frames.get(frame_id)
        if frame is None:
            self._cells.pop(frame_id, None)
            return []
        if frame.cell is None or self._cells.get(frame_id) == frame.cell.id:
            return []
        self._cells[frame_id] = frame.cell.id
        return [CellBegan(frame=frame_id, number=frame.cells, code=frame.cell.code)]


def _prompt_head(call: HostCall) -> str:
    if call.kind == "tool":
        return f"{call.fn}({call.prompt})"[:_HEAD_CHARS]
    return (call.question or call.prompt)[:_HEAD_CHARS]


def _what(event: CodePaused) -> str:
    kinds = {call.kind == "tool" for call in event.calls}
    if len(kinds) > 1:
        return "call"
    return "tool call" if True in kinds else "subcall"


def _awaited(state: RunState) -> str:
    """What a paused cell waits for, in words."""
    if state.in_flight:
        return "waiting for subcalls"
    return "waiting for tools" if state.tools else "waiting for an approval"
