"""What a view shows of a run, item by item; `effects.view.follow` makes them of events."""

from dataclasses import dataclass

from rlm_fsm.event import CodeExecuted, HistoryCompacted, RunFinished, RunResumed, RunStarted
from rlm_fsm.ids import CallId, FrameId
from rlm_fsm.state import RunState
from rlm_fsm.values import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """The run began."""

    run_id: str
    event: RunStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class WentOn:
    """A run goes on that had stopped; or a fork begins where it leaves the other run."""

    run_id: str
    after: int
    """The last event before."""
    event: RunResumed
    state: RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """A model took a turn, or failed to (`error`)."""

    frame: FrameId
    number: int
    text: str
    usage: Usage
    elapsed_s: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """A conversation was summed up, or could not be (`event.failure`)."""

    frame: FrameId
    event: HistoryCompacted
    usage: Usage
    """Of the call; nothing where none was made."""
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellBegan:
    """A cell runs."""

    frame: FrameId
    number: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsBegan:
    """A cell asked sub-models, or called tools, and waits."""

    frame: FrameId
    what: str
    """``subcall``, ``tool call``, or ``call`` where there are both."""
    fn: str
    asked: int
    made: int
    """Calls that are made: equal ones once, none when a limit forbids them."""
    prompt_head: str
    """Of the first call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """A plain subcall, or a call of a tool, ended."""

    frame: FrameId
    call_id: CallId
    prompt_head: str
    reply_head: str
    failed: bool
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsEnded:
    """All calls that a cell waited for are in."""

    frame: FrameId
    what: str
    """As in `CallsBegan`."""
    made: int
    failed: int
    elapsed_s: float
    cache_hits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEnded:
    """A cell ended."""

    frame: FrameId
    event: CodeExecuted


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something a reader should know: a refusal, a limit, a failure."""

    frame: FrameId
    what: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run ended."""

    event: RunFinished
    state: RunState


Item = (
    Began
    | WentOn
    | Turned
    | Compacted
    | CellBegan
    | CallsBegan
    | CallEnded
    | CallsEnded
    | CellEnded
    | Noted
    | Ended
)
