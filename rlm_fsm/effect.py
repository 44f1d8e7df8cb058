"""Every request that the core makes of the world, in the imperative, one frozen class each.

Effects hold references to texts (`TextRef`), so that they are small, can be compared and hashed.
The interpreter starts them in the order in which `step` returned them, and only after the events
that caused them are durable. Each ends in exactly one outcome event:

| effect | ends in |
|---|---|
| `CallModel` | `ModelReplied` or `ModelFailed` |
| `RunCode`, `ResumeCode` | `CodePaused`, `CodeExecuted` or `ReplFailed` |
| `ReadVariable` | `VariableRead` or `ReplFailed` |
| `CheckAnswer` | `AnswerChecked` |
| `CallTool` | `ToolReturned` or `ToolFailed` |
| `AskApproval` | `ApprovalGiven` or `ApprovalPostponed` |
| `Record` | its own event, in the commit of the event that caused it |
"""

from dataclasses import dataclass
from typing import Literal

from rlm_fsm.event import Derived, ModelFailed, ToolFailed
from rlm_fsm.ids import CallId, FrameId
from rlm_fsm.values import Outcome, TextRef

Purpose = Literal["turn", "closing", "subcall", "compaction"]
Lost = ModelFailed | ToolFailed
"""How a call ends that was in flight when the run stopped, and isn't made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallModel:
    """Ask a model. Costs money: always announced by a recorded `EffectStarted`."""

    frame: FrameId
    call_id: CallId
    purpose: Purpose
    """``turn`` of a frame, its ``closing`` turn, a plain ``subcall`` of its code, or the summary of
    its conversation, see `compaction`."""
    prompt: TextRef
    """A turn: the digest and size of the messages, see `history.messages`.
    A compaction: the same of the conversation and the words that ask for its summary.
    A subcall: the prompt that the code passed."""
    max_tokens: int
    """Completion limit in tokens."""
    adapter: str
    """Which of the run's adapters: ``root``, ``subcall``, or a name that code asked for."""
    sample: int = 0
    """How many equal calls stand before it in its pause, when code asked for a reply to each:
    caches keep them apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCode:
    """Run a cell in the frame's REPL. Free and repeatable."""

    frame: FrameId
    call_id: CallId
    code: str
    watch: tuple[str, ...] = ()
    """Variables whose values are wanted back with the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeCode:
    """Hand the outcomes of its host calls to a paused cell."""

    frame: FrameId
    call_id: CallId
    outcomes: tuple[Outcome, ...]
    """In the order of the calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadVariable:
    """Read a variable of the frame's REPL for a final answer."""

    frame: FrameId
    call_id: CallId
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckAnswer:
    """Check whether an answer fits the type that was asked for. Free and repeatable."""

    frame: FrameId
    call_id: CallId
    """A check of the frame's, or the subcall whose reply is checked."""
    text: str
    data: str | None = None
    """The value itself as JSON, where code has handed it over; `text` is how it prints."""
    schema: str | None = None
    """JSON schema of a subcall; None for the root's answer, whose type the shell has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTool:
    """Call a function of the caller's program. Touches the world: always announced by a recorded
    `EffectStarted`."""

    frame: FrameId
    call_id: CallId
    tool: str
    """Its name."""
    arguments: TextRef
    """A JSON object: the arguments by the names of the parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskApproval:
    """Ask whether a call of a tool may be made. Free and repeatable."""

    frame: FrameId
    call_id: CallId
    tool: str
    arguments: TextRef
    """As in `CallTool`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Append an event that the reducer derived, in the commit of the event that caused it."""

    event: Derived | Lost
    """A failure only of a call that was in flight when the run stopped, see `RunResumed`."""


Effect = (
    CallModel | RunCode | ResumeCode | ReadVariable | CheckAnswer | CallTool | AskApproval | Record
)
EFFECTS: tuple[type[Effect], ...] = (
    CallModel,
    RunCode,
    ResumeCode,
    ReadVariable,
    CheckAnswer,
    CallTool,
    AskApproval,
    Record,
)
"""Every kind."""
