"""All that is known of a run: `RunState`, a tree of `Frame`s in their `Phase`s.

Immutable: frozen classes that hold pyrsistent collections where a collection grows. They have no
slots, for `evolve`.
A state is a function of the events that led to it and of nothing else.

Invariants, checked by the property tests:

1. `calls` holds the model calls whose intent was derived and whose outcome isn't known;
   `queue` those that wait for a free place. No call is in both.
2. `in_flight` counts the calls of `calls` below the root's own turns; it never exceeds
   `options.max_concurrent_subcalls`.
3. `owed` holds the derived events that the next appends must be, in order. Between two commits
   it is empty. While it isn't, no other event is legal.
4. `spent.reservations` are those of `calls`, and `spent.reserved_*` their sums.
5. A frame in WAITING has a `pause` with at least one answer missing; in no other phase has it one.
6. A child frame exists exactly as long as the call that opened it is unanswered.
7. A frame in COMPACTING has one call, of the purpose ``compaction``, in `calls` or in `queue`,
   or else a `HistoryCompacted` is owed.
8. When `status` isn't ``running``, no event is legal but the owed ones, `RunResumed`, and
   `ApprovalGiven` for a call of `approvals`; when it is ``finished``, none at all.
9. `tools` holds the calls of tools in flight, at most `options.max_concurrent_tools`; `tool_queue`
   those that wait for a place; `approvals` those that wait for a person. No call is in two.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from pyrsistent import PDeque, PMap, PVector, pdeque, pmap, pvector

from rlm_fsm.effect import CallModel, CallTool, Lost
from rlm_fsm.event import ApprovalGiven, Derived, Status
from rlm_fsm.ids import ROOT, CallId, FrameId
from rlm_fsm.options import Options
from rlm_fsm.policy import Spent
from rlm_fsm.reply import Answer
from rlm_fsm.values import ContextInfo, GivenFinal, Message, Outcome


class Phase(Enum):
    """Where a frame stands."""

    NEW = "new"
    """Nothing has happened."""
    ASKING = "asking"
    """A model call is in flight, waits for a place, or is about to be derived."""
    COMPACTING = "compacting"
    """The model is asked to sum up the conversation before the next turn."""
    RUNNING = "running"
    """A cell runs."""
    WAITING = "waiting"
    """A cell is paused at host calls."""
    READING = "reading"
    """A variable is read for the answer."""
    CHECKING = "checking"
    """The answer is checked against the type that was asked for."""
    CLOSING = "closing"
    """A limit was reached: the last call for the best answer."""
    DONE = "done"
    """Answered."""
    FAILED = "failed"
    """Can't go on."""


LIVE = frozenset(Phase) - {Phase.NEW, Phase.DONE, Phase.FAILED}
"""Phases in which the world still owes an answer."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The cell that a frame runs or has paused."""

    id: CallId
    code: str
    outcomes: tuple[Outcome, ...] | None = None
    """What it was last resumed with; None before its first pause."""
    idle: int = 0
    """The weight of the pauses in a row that began nothing: refused, or answered by what the state
    knows."""


@dataclass(frozen=True, kw_only=True)
class TypedCall:
    """A host call whose reply must fit a schema, until it is answered."""

    schema: str
    asked: str
    """The prompt of the first attempt, the schema in it."""
    prompt: str
    """The prompt of the newest attempt."""
    attempts: int = 1
    replied: CallModel | None = None
    """The attempt whose reply is being checked."""
    reply: str = ""
    """That reply."""
    paid: bool = False
    """Whether any attempt was answered by a model, and not by a cache."""


@dataclass(frozen=True, kw_only=True)
class Checking:
    """The answer of a frame that is being checked."""

    call_id: CallId
    text: str
    data: str | None = None


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A call of a tool that a person has to agree to."""

    call: CallTool
    is_put_off: bool = False
    """Whether nobody was there to answer."""
    given: ApprovalGiven | None = None
    """The answer, where it came while the run stood: what follows from it waits for the resume."""


@dataclass(frozen=True, kw_only=True)
class Pause:
    """The host calls that a paused cell waits for."""

    asked: tuple[CallId, ...]
    """The call that answers each position; merged calls share one."""
    answers: PMap[CallId, Outcome] = field(default_factory=lambda: pmap())
    """The outcomes that are in."""
    missing: int
    """How many calls are unanswered."""
    weight: int = 1
    """What it counts for, should none of its calls be made, see `calls.IDLE_PAUSES`."""
    is_vain: bool = True
    """Whether none of its calls was made so far: limits or persons forbade those that ended."""
    backlog: tuple[CallModel, ...] = ()
    """Calls that wait for the one before them, when the code asked for one after the other."""
    typed: PMap[CallId, TypedCall] = field(default_factory=lambda: pmap())
    """The unanswered calls that have a schema, by the host call's id."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One loop of turns: the root or a recursive sub-run."""

    id: FrameId
    phase: Phase
    max_steps: int
    adapter: str = "root"
    """Which of the run's adapters takes its turns."""
    max_tokens: int | None = None
    """Completion limit of a sub-run's turns, in tokens; None for the run's `max_tokens`. A call may
    allow more than that, and no less: a turn holds code."""
    is_begun: bool = False
    """Whether the first turn of a sub-run has left the queue."""
    context: ContextInfo | None = None
    """What its REPL works on."""
    messages: PVector[Message] = field(default_factory=lambda: pvector())
    """The conversation, append-only; what is sent of it is for `history` to say."""
    skipped: int = 0
    """Messages after the first two that aren't sent any more, see `history.trimmed`."""
    summary: tuple[Message, ...] = ()
    """What is sent in the place of skipped messages, after the first two: a summary, and what is
    said of it. None of `messages`, see `compaction`."""
    compacting: str = ""
    """What asks for the summary, in COMPACTING."""
    compactions: int = 0
    """Summaries that were asked for, or would have been if the budget had allowed it."""
    compacted_at: int = 0
    """Messages that there were at the newest one: it takes more for another."""
    no_compaction: Literal["", "until_trimmed", "for_good"] = ""
    """Why no other is due: after a failure, until trimming has made room; after one that saved too
    little, for good."""
    digest: str = ""
    """Chained hash over the messages that are sent: names the prompt without holding it."""
    chars: int = 0
    """Characters in them."""
    bytes: int = 0
    """Bytes in them."""
    head_bytes: int = 0
    """Bytes in the first of them, which are always sent, see `history.HEAD`."""
    news: str = ""
    """What the next message to the model will say; not yet in `messages`."""
    turns: int = 0
    """Model turns asked for; the last one's number."""
    lost_turns: int = 0
    """Turns that are not used up: those whose call failed and was asked again, and the last one
    for the best answer."""
    cells: int = 0
    reads: int = 0
    checks: int = 0
    host_calls: int = 0
    """Counters from which ids are made."""
    cell: Cell | None = None
    """The cell of RUNNING and WAITING."""
    pause: Pause | None = None
    """What the cell of WAITING waits for."""
    todo: tuple[str, ...] = ()
    """Blocks of the newest reply that are still to run."""
    answer: Answer | None = None
    """The answer that came with them; counts when no cell raised."""
    final: GivenFinal | None = None
    """The answer that the reply's code gave; it stays when a guard refuses it, as long as blocks
    are still to run."""
    shown: tuple[str, ...] = ()
    """What the model will see of this turn's cells."""
    reading: str | None = None
    """The variable of READING, or of CLOSING when its answer named one."""
    checking: Checking | None = None
    """The answer of CHECKING, or of CLOSING when its answer is being checked."""
    misfits: int = 0
    """Answers that did not fit the type that was asked for."""
    limit: str | None = None
    """The limit that led to CLOSING."""
    best: str = ""
    """The best answer so far, should a limit end the run: the watched variable, else the newest
    output."""
    subcalls: int = 0
    """Subcalls that this frame's code has made."""
    errors: int = 0
    """Cells that raised."""
    invalid: int = 0
    """Refused replies in a row."""
    notice: str = ""
    """What is to be said of the newest reply besides what its code showed."""
    code_digest: str = ""
    """Hash of the code of the newest reply that had any."""
    repeats: int = 0
    """Replies in a row with that code."""
    stalled: str = ""
    """Why `fallback_code` runs: the frame would have given up, or a guard asked for it."""
    goes_on: bool = False
    """Whether the frame goes on when that code gives no answer."""
    has_fallen_back: bool = False
    """Whether `fallback_code` was run: it runs once."""
    rejects: int = 0
    """Values of the watched variable that a pattern refused."""
    watched: str = ""
    """What the watched variable held after the newest cell; empty for nothing."""
    refused_value: str = ""
    """Hash of the value of the watched variable that was refused last, or that a cell left which
    raised: it isn't judged until it changes, or until an answer names the variable."""
    pressed: tuple[str, ...] = ()
    """Guards on steps that have tripped: each does so once."""

    @property
    def turns_used(self) -> int:
        """Turns that count against `max_steps`."""
        return self.turns - self.lost_turns

    @property
    def turns_left(self) -> int:
        """Turns that the frame may still take."""
        return self.max_steps - self.turns_used


@dataclass(frozen=True, kw_only=True)
class RunState:
    """All that is known of a run."""

    query: str = ""
    context: ContextInfo | None = None
    options: Options = field(default_factory=Options)
    status: Status = "running"
    frames: PMap[FrameId, Frame] = field(
        default_factory=lambda: pmap({ROOT: Frame(id=ROOT, phase=Phase.NEW, max_steps=0)})
    )
    """The frames that are open; the root always is."""
    calls: PMap[CallId, CallModel] = field(default_factory=lambda: pmap())
    """Model calls in flight."""
    queue: PDeque[CallModel] = field(default_factory=lambda: pdeque())
    """Calls below the root that wait for a place."""
    in_flight: int = 0
    """Calls of `calls` that take a place."""
    tools: PMap[CallId, CallTool] = field(default_factory=lambda: pmap())
    """Calls of tools in flight."""
    tool_queue: PDeque[CallTool] = field(default_factory=lambda: pdeque())
    """Calls of tools that wait for a place."""
    approvals: PMap[CallId, Approval] = field(default_factory=lambda: pmap())
    """Calls of tools that wait for a person's approval, or were judged while the run stood."""
    owed: tuple[Derived | Lost, ...] = ()
    """Derived events that must be appended next."""
    spent: Spent = field(default_factory=Spent)
    output: str = ""
    limit: str | None = None
    error: str | None = None
    cause: str | None = None
    """As in `RunFinished`."""
    value: str | None = None
    """As in `RunFinished`."""
    compactions: int = 0
    """Summaries that stand for a part of a conversation, of all frames."""
    not_made: frozenset[CallId] = frozenset()
    """Calls in flight that were not made before the run stopped, see `Cancelled.not_made`."""
    uncertain: int = 0
    """Calls that were in flight when the run stopped, in all its resumes: each may have been paid
    for without an outcome."""
    seq: int = 0
    """Number of events folded."""

    @property
    def root(self) -> Frame:
        """The root frame."""
        return self.frames[ROOT]

    @property
    def under_way(self) -> tuple[CallId, ...]:
        """Calls of models, then of tools, that may have been made and have no outcome."""
        ids = (*sorted(self.calls), *sorted(self.tools))
        return tuple(name for name in ids if name not in self.not_made)

    @property
    def is_over(self) -> bool:
        """True once the run has ended, in whatever way."""
        return self.status != "running"


INITIAL = RunState()
"""The state before the first event."""
