"""Events -> `Trace`: the steps that a person reads. A projection of the log, nothing more.

Which event becomes which step (turns, cells and calls of a sub-run have ``sub_`` before their kind,
its other steps the kinds of the root's):

| event | step |
|---|---|
| `ModelReplied`, `ModelFailed` of a turn | ``root_call``: the reply, and the code found in it |
| ... of a call that code made | ``subcall`` |
| ... of a summary, and its `HistoryCompacted` | ``compaction``: the summary, or why there is none |
| the first event of a sub-run | ``recursive_subcall``, before the sub-run's own steps |
| `CodeExecuted`, `ReplFailed` of a cell | ``repl_exec``: the code, all that it printed, its error |
| `GuardTripped`, `LimitReached`, `Cancelled`, `DeadlinePassed` | ``guard`` |
| `ToolReturned`, `ToolFailed` | ``tool``: its arguments and its result, both as JSON |
| `ApprovalGiven` | ``approval``: who answered for a call of a tool, and how |

Rules:

1. Steps stand in the order in which they were completed and are counted from 1 in that order; a
   ``recursive_subcall`` stands where its sub-run began. What has not ended has no step.
2. A prompt is shown by its head (`PROMPT_CHARS`), once; its whole text by hash only. A turn's
   prompt says what is new in it: the question, the cells it shows, the refusal.
3. `usage` stands where it was billed and nowhere else, so that the steps add up to the run. A
   ``recursive_subcall`` has none: its sub-steps have it.
4. A reply that did not fit the schema of its call has a step, and so has the second attempt.
5. Merged calls were made once and have one step. A call that a limit forbade was never made: no
   event, no step.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rlm_fsm.event import (
    AnswerChecked,
    ApprovalAsked,
    ApprovalGiven,
    ApprovalPostponed,
    Cancelled,
    CodeExecuted,
    CodePaused,
    DeadlinePassed,
    EffectStarted,
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
from rlm_fsm.ids import ROOT, CallId, FrameId, depth_of, first_of, host_call_id
from rlm_fsm.options import Options
from rlm_fsm.reply import TextAnswer, parse, visible
from rlm_fsm.tool_calls import answered
from rlm_fsm.trace_step import Trace, TraceStep
from rlm_fsm.values import HostCall, text_hash

__all__ = ["PROMPT_CHARS", "Trace", "TraceStep", "trace"]

PROMPT_CHARS = 2_000
"""Characters of a prompt that a step shows: a screenful or two."""
_KINDS_OF_SUB_RUNS = ("root_call", "repl_exec", "subcall")
"""These have a name of their own in sub-runs. (The seed runtime's names.)"""


def trace(events: Iterable[Event], *, run_id: str = "") -> Trace:
    """The trace of a run, or of as much of it as the events tell."""
    projection = _Projection()
    for event in events:
        projection.see(event)
    steps = (replace(step, step_id=number) for number, step in enumerate(projection.steps, 1))
    return Trace(tuple(steps), run_id, projection.query)


@dataclass(slots=True)
class _Frame:
    """What has to be remembered of a frame."""

    id: FrameId
    place: int | None = None
    """Where in the steps its ``recursive_subcall`` is; None for the root."""
    began_s: float = 0.0
    news: list[str] = field(default_factory=list[str])
    """What the next turn's prompt will hold that is new."""
    todo: list[str] = field(default_factory=list[str])
    """Blocks of the newest reply that have not run."""
    cell: CallId | None = None
    code: str = ""
    pauses: int = 0
    elapsed_s: float = 0.0
    """Of the cell, so far."""
    host_calls: int = 0
    best: str | None = None
    """The newest output: what a closing turn without an answer falls back on."""
    is_closing: bool = False

    def step(self, kind: str) -> TraceStep:
        """A step of the frame's own; `step_id` comes last."""
        own = "sub_" + kind if self.id != ROOT and kind in _KINDS_OF_SUB_RUNS else kind
        return TraceStep(kind=own, depth=depth_of(self.id), frame=self.id)


class _Projection:
    """Reads events in order and drafts the steps."""

    def __init__(self) -> None:
        self.steps: list[TraceStep] = []
        self.query = ""
        self._options = Options()
        self._frames: dict[FrameId, _Frame] = {}
        self._asked: dict[CallId, tuple[HostCall, TraceStep, float]] = {}
        """Calls that code asked for, by id: the call, what its step will show of it, when."""

    def see(self, event: Event) -> None:
        """Take the next event."""
        frame = self._frames.get(event.frame) or self._open(event.frame)
        match event:
            case RunStarted():
                self.query = event.query
                self._options = event.options
                frame.news = [event.query]
            case ModelReplied() | ModelFailed() if _is_turn(event.call_id):
                self._turn_ended(frame, event)
            case ModelReplied() | ModelFailed() if _is_compaction(event.call_id):
                self.steps.append(_with_outcome(frame.step("compaction"), event))
            case HistoryCompacted():
                self._compacted(frame, event)
            case ModelReplied() | ModelFailed():
                self._subcall_ended(frame, event)
            case ToolReturned() | ToolFailed() | ApprovalGiven():
                self._of_tool(frame, event)
            case CodePaused():
                self._paused(frame, event)
            case CodeExecuted():
                self._executed(frame, event)
            case ReplFailed():
                step = frame.step("repl_exec")
                self.steps.append(replace(step, code=frame.code or None, error=event.message))
                self._may_end(frame, error=event.message)
            case VariableRead(text=None):
                error = event.error or f"there is no variable {event.name}"
                self._may_end(frame, error=None if frame.is_closing else error, output=frame.best)
            case VariableRead():
                self._may_end(frame, output=event.text)
            case GuardTripped():
                self._guarded(frame, event.guard, event.reason)
                frame.news.append(event.reason)
                frame.todo = []
            case LimitReached():
                told = f"{event.limit}: {event.used:,g} of {event.allowed:,g}"
                self._guarded(frame, event.limit, told)
                frame.news.append(f"limit reached: {event.limit}")
                frame.is_closing = True
            case Cancelled():
                self._guarded(frame, "cancelled", event.reason)
            case DeadlinePassed():
                self._guarded(
                    frame, "max_seconds", f"the deadline passed at {event.clock_s:,.1f} s"
                )
            case RunResumed():
                if event.options is not None:
                    self._options = event.options
            case EffectStarted() | AnswerChecked() | RunFinished():
                pass
            case ApprovalAsked() | ApprovalPostponed():
                pass

    def _open(self, frame_id: FrameId) -> _Frame:
        """A frame that is seen for the first time; a sub-run has its step from now on."""
        frame = self._frames[frame_id] = _Frame(frame_id)
        if frame_id != ROOT:
            frame.place = len(self.steps)
            step = TraceStep(kind="")
            question: str | None = None
            if CallId(frame_id) in self._asked:
                call, step, frame.began_s = self._asked[CallId(frame_id)]
                question = call.question
            frame.news = [question or self._options.profile.child_query]
            kind, depth = "recursive_subcall", depth_of(frame_id)
            self.steps.append(replace(step, kind=kind, depth=depth, frame=frame_id))
        return frame

    def _may_end(
        self,
        frame: _Frame,
        *,
        output: str | None = None,
        error: str | None = None,
        clock_s: float = 0.0,
    ) -> None:
        """Note how a sub-run ends, should this be its last event: there is no event for its end."""
        if frame.place is None:
            return
        step = self.steps[frame.place]
        output = None if error else output
        self.steps[frame.place] = replace(
            step,
            output=output,
            output_hash=None if output is None else text_hash(output),
            error=error,
            elapsed=max(0.0, clock_s - frame.began_s) if clock_s else step.elapsed,
        )

    def _guarded(self, frame: _Frame, name: str, told: str) -> None:
        self.steps.append(replace(frame.step("guard"), prompt_summary=name, output=told))
        self._may_end(frame, error=told)

    def _compacted(self, frame: _Frame, event: HistoryCompacted) -> None:
        """Say what became of the summary; where no call was made, this is all there is of it."""
        own = frame.step("compaction")
        last = self.steps[-1] if self.steps else own
        was_asked = (last.kind, last.frame) == (own.kind, own.frame) and not last.prompt_summary
        step = self.steps.pop() if was_asked else own
        told = (
            f"{event.messages} messages summed up: "
            f"{event.tokens_before:,} -> {event.tokens_after:,} tokens"
        )
        summary = "no summary" if event.failure else told
        error = event.failure or None
        self.steps.append(replace(step, prompt_summary=summary, error=error))

    def _subcall_ended(self, frame: _Frame, event: ModelReplied | ModelFailed) -> None:
        known = self._asked.get(first_of(event.call_id))
        step = known[1] if known else TraceStep(kind="")
        own = frame.step("subcall")
        step = replace(step, kind=own.kind, depth=own.depth + 1, frame=frame.id)
        self.steps.append(_with_outcome(step, event))

    def _of_tool(self, frame: _Frame, event: ToolReturned | ToolFailed | ApprovalGiven) -> None:
        call, step, _ = self._asked[event.call_id]
        summary, depth = f"{call.fn}({call.prompt})"[:PROMPT_CHARS], depth_of(frame.id) + 1
        step = replace(step, kind="tool", depth=depth, frame=frame.id, prompt_summary=summary)
        match event:
            case ToolReturned(value=value, elapsed_s=elapsed_s):
                digest = text_hash(value)
                step = replace(step, output=value, output_hash=digest, elapsed=elapsed_s)
            case ToolFailed():
                step = replace(step, error=event.message, elapsed=event.elapsed_s)
            case ApprovalGiven():
                step = replace(step, kind="approval", output=answered(event))
        self.steps.append(step)

    def _turn_ended(self, frame: _Frame, event: ModelReplied | ModelFailed) -> None:
        step = _with_outcome(frame.step("root_call"), event)
        frame.todo, frame.cell = [], None
        output = frame.best if frame.is_closing else None
        if isinstance(event, ModelReplied):
            reply = parse(event.text, self._options.profile, event.finish_reason).value_or(None)
            frame.todo = list(reply.blocks) if reply else []
            step = replace(step, code="\n\n".join(frame.todo) or None)
            if reply is not None and isinstance(reply.answer, TextAnswer):
                output = reply.answer.text
            elif frame.is_closing:
                output = (frame.best if reply else None) or visible(event.text)
        error = None if frame.is_closing else step.error
        self._may_end(frame, output=output, error=error, clock_s=event.clock_s)
        self.steps.append(replace(step, prompt_summary="\n".join(frame.news)[:PROMPT_CHARS]))
        frame.news = []

    def _enter(self, frame: _Frame, cell: CallId) -> None:
        """A cell runs the next block of the newest reply, whichever event shows it first."""
        if frame.cell != cell:
            frame.cell, frame.pauses, frame.elapsed_s = cell, 0, 0.0
            # A cell that no reply asked for is the fallback code.
            frame.code = frame.todo.pop(0) if frame.todo else self._options.fallback_code or ""

    def _paused(self, frame: _Frame, event: CodePaused) -> None:
        self._enter(frame, event.call_id)
        frame.pauses += 1
        frame.elapsed_s += event.elapsed_s
        for index, call in enumerate(event.calls):
            frame.host_calls += 1
            step = TraceStep(
                kind="",
                prompt_summary=call.prompt[:PROMPT_CHARS],
                input_hash=text_hash(call.prompt),
                parallel_group_id=f"{event.call_id}#{frame.pauses}",
                parallel_index=index,
                parallel_total=len(event.calls),
            )
            call_id = host_call_id(frame.id, frame.host_calls)
            self._asked[call_id] = (call, step, event.clock_s)

    def _executed(self, frame: _Frame, event: CodeExecuted) -> None:
        self._enter(frame, event.call_id)
        step = replace(
            frame.step("repl_exec"),
            code=frame.code or None,
            stdout=event.stdout,
            error=str(event.error) if event.error else None,
            elapsed=frame.elapsed_s + event.elapsed_s,
        )
        self.steps.append(step)
        frame.news.append(f"output of {event.call_id}")
        frame.best = event.stdout.strip() or frame.best
        if event.error is not None:
            self._may_end(frame, error=step.error, clock_s=event.clock_s)
        elif frame.place is not None:
            given = event.final.text if event.final else self.steps[frame.place].output
            self._may_end(frame, output=given, clock_s=event.clock_s)


def _is_turn(call_id: CallId) -> bool:
    return call_id.rpartition(".")[2].startswith("m")


def _is_compaction(call_id: CallId) -> bool:
    return call_id.rpartition(".")[2].startswith("s")


def _with_outcome(step: TraceStep, event: ModelReplied | ModelFailed) -> TraceStep:
    if isinstance(event, ModelFailed):
        error = f"{event.error}: {event.message}"
        return replace(step, error=error, elapsed=event.elapsed_s)
    return replace(
        step,
        output=event.text,
        output_hash=text_hash(event.text),
        usage=event.usage,
        model=event.model_id,
        elapsed=event.elapsed_s,
        cache_hit=event.cache_hit,
    )
