"""Every fact that can happen in a run, in the past tense, one frozen class each.

Rules:

1. An event holds what the world answered, never what the state already knows.
   No full prompt stands in an event; a cell's code doesn't either (the reply holds it).
2. Events carry texts; the codec moves long ones to blobs on the way to disk.
3. Two kinds. *Outcomes* come from the world. *Derived* events (`DERIVED`) are decided by the
   reducer itself and appended in the same commit as the event that caused them: an intent,
   a guard's refusal, a limit, a compaction, the end. They are facts of the log like any other, and
   a log in which they differ from what the reducer derives has diverged.
4. A field is never removed or given another meaning: raise the kind's version in
   `codec.VERSIONS` and add an upcaster.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from rlm_fsm.ids import ROOT, CallId, FrameId
from rlm_fsm.options import Options
from rlm_fsm.values import CodeError, ContextInfo, GivenFinal, HostCall, Problem, Usage, Variable

Status = Literal["running", "finished", "partial", "failed", "cancelled", "waiting"]
"""How a run stands; see `RunFinished.status`."""

OnUncertain = Literal["retry", "fail"]
"""``retry``: the call is made again, and may be paid twice. ``fail``: it counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run was asked for. The first event of every run."""

    query: str
    """The question."""
    context: ContextInfo
    """What is known of the context; the text itself is the shell's."""
    options: Options
    """Everything that decides the run, so that a resumed run needs nothing else."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What ran it, for people: versions, models, REPL backend and its active isolation."""
    seed: str = ""
    """Where chance and the calendar of its sessions begin, so that cells that are run again do the
    same: the id that it was begun under. Empty in old logs, whose sessions had the system's."""
    frame: FrameId = ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectStarted:
    """An effect that costs money or touches the world is about to start. Derived."""

    frame: FrameId
    call_id: CallId
    effect: str
    """Kind of the effect, such as ``CallModel``."""
    effect_hash: str
    """`codec.effect_hash` of the whole effect: replay compares it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReplied:
    """A model call ended with a reply."""

    frame: FrameId
    """The frame that asked: the one whose turn it is, or the one whose code made the call."""
    call_id: CallId
    text: str
    """The visible reply, whole."""
    usage: Usage = Usage()
    model_id: str | None = None
    """The model as the provider names it."""
    finish_reason: str | None = None
    """``stop``, ``length``, ``content_filter`` or what else the provider said."""
    reasoning: str | None = None
    """Reasoning that the provider returned apart from the reply: stored, never parsed."""
    cost_usd: float | None = None
    """What the call cost, if known; never a guess. None when a cache answered."""
    request_id: str | None = None
    """The provider's name for the call."""
    cache_hit: bool = False
    """True when a cache answered, or another call in flight that asked the same: nothing was
    spent, and `usage` is nought."""
    cache_key: str = ""
    """Under which key caches know the reply; empty when none was asked."""
    elapsed_s: float = 0.0
    """Seconds from the start of the call to its outcome."""
    clock_s: float = 0.0
    """Seconds that this run has been worked on when the outcome arrived."""


UNKNOWN_MODEL = "unknown_model"
"""The failure of a call that names none of the run's adapters: nobody was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFailed:
    """A model call ended without a reply, after the adapter's own retries."""

    frame: FrameId
    call_id: CallId
    error: str
    """What kind of failure: ``auth``, ``rate_limit``, ``timeout``, ``connection``, ``server``,
    ``bad_request``, ``bad_response``, ``adapter``, `UNKNOWN_MODEL`, or ``uncertain``: the process
    died while the call was in flight, and the run was resumed with ``on_uncertain="fail"``."""
    message: str
    """The provider's own words, without any key."""
    status: int | None = None
    """HTTP status, if there was one."""
    elapsed_s: float = 0.0
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReturned:
    """A tool, a function of the caller's program, returned."""

    frame: FrameId
    call_id: CallId
    value: str
    """What it returned, as JSON."""
    elapsed_s: float = 0.0
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFailed:
    """A call of a tool ended without a result."""

    frame: FrameId
    call_id: CallId
    error: str
    """``raised``, ``timeout``, ``result`` (it can't be handed over), ``arguments``, ``missing``, or
    ``uncertain``: the process died during the call, and it must not be made twice."""
    message: str
    """What code is told."""
    elapsed_s: float = 0.0
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAsked:
    """A call of a tool waits for a person to agree to it. Derived."""

    frame: FrameId
    call_id: CallId
    tool: str
    """Its name; the arguments stand in the `CodePaused` that asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGiven:
    """Somebody answered for a call that waited. When, says the log's envelope."""

    frame: FrameId
    call_id: CallId
    is_approved: bool
    """True: the call may be made. False: it is denied, and the code is told."""
    reason: str = ""
    """Why; the code is told of a refusal's."""
    by: str = ""
    """Who answered."""
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPostponed:
    """Nobody was there to answer for a call: it waits."""

    frame: FrameId
    call_id: CallId
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePaused:
    """A cell asks the host something and waits."""

    frame: FrameId
    call_id: CallId
    """The cell."""
    calls: tuple[HostCall, ...]
    """What it asks, in order; the outcomes go back in the same order."""
    parallel: bool = True
    """False: one after the other, since the code asked for that."""
    now_s: float | None = None
    """The time of day when it asked for that: seconds since 1970, UTC. None when it did not."""
    elapsed_s: float = 0.0
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeExecuted:
    """A cell ended, by finishing or by raising."""

    frame: FrameId
    call_id: CallId
    stdout: str = ""
    """What it printed, up to the REPL's limit."""
    stdout_chars: int = 0
    """How much it printed in all."""
    error: CodeError | None = None
    watched: Mapping[str, str] = field(default_factory=dict[str, str])
    """Watched variables that exist and are not empty, as text."""
    repl_lost: bool = False
    """True when the REPL died with the cell, and a new one was begun."""
    rebuilt: bool = False
    """True when the new REPL was given the variables that the lost one had before the cell, by
    running the cells before it again. When False, they are gone."""
    final: GivenFinal | None = None
    """The final answer that its code gave, also when it raised afterwards."""
    variables: tuple[Variable, ...] = ()
    """What it made and changed, or the names of all simple variables, as the profile has it."""
    more_variables: int = 0
    """How many more there are than `variables` lists."""
    elapsed_s: float = 0.0
    """Seconds of computing since the cell was started or resumed."""
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplFailed:
    """No REPL could be had: not the model's fault, and nothing that it could mend."""

    frame: FrameId
    call_id: CallId
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableRead:
    """A variable was read for a final answer."""

    frame: FrameId
    call_id: CallId
    name: str
    text: str | None = None
    """The value as Python prints it; None when it is missing or can't be read."""
    error: str | None = None
    """Why it can't be read, when it exists."""
    names: tuple[str, ...] = ()
    """The user's variables, when `text` is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerChecked:
    """An answer, or the reply of a subcall that has a schema, was checked against its type."""

    frame: FrameId
    call_id: CallId
    """The check, or the call whose reply was checked."""
    value: str | None = None
    """The value that was accepted, as JSON; None when nothing fits."""
    problems: tuple[Problem, ...] = ()
    """What doesn't fit, the first few."""
    more_problems: int = 0
    """How many more there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardTripped:
    """A reply or an answer was refused, with a reason for the model. Derived."""

    frame: FrameId
    guard: str
    """Name of the guard, see `guards`."""
    reason: str
    """What the model is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached:
    """A frame may not take another turn. Derived."""

    frame: FrameId
    limit: str
    """Name of the limit, a field of `Policy` or ``recursive_subcall_max_steps``."""
    allowed: float
    used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCompacted:
    """A summary stands for the middle of a conversation from here on, or none was to be had.
    Derived."""

    frame: FrameId
    call_id: CallId
    """The call that was asked for the summary; its reply holds it."""
    messages: int = 0
    """Messages that the summary stands for, those of earlier summaries included; 0 for none."""
    tokens_before: int = 0
    """What the next request would have been, by estimate."""
    tokens_after: int = 0
    """What it is now, by estimate."""
    failure: str = ""
    """Why nothing came of it; empty when something did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed:
    """Somebody went on with a run that was killed, cancelled, failed, or ended by a limit."""

    options: Options | None = None
    """The options from here on, when they changed; None: as they were."""
    on_uncertain: OnUncertain = "retry"
    """What becomes of calls that were in flight when the run stopped."""
    is_fork: bool = False
    """True at the beginning of a fork: calls in flight at that point are the other run's, and
    none is uncertain."""
    answered: tuple[CallId, ...] = ()
    """Calls in flight whose outcomes follow at once: a fork takes them over."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What runs it now, as in `RunStarted`."""
    frame: FrameId = ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Somebody stopped the run."""

    reason: str
    frame: FrameId = ROOT
    clock_s: float = 0.0
    """Seconds that this run had been worked on."""
    not_made: tuple[CallId, ...] = ()
    """Calls that were announced and not made yet: certainly not paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The time of `Policy.max_seconds` is over; what is in flight is given up."""

    clock_s: float
    """Seconds that this run has been worked on."""
    not_made: tuple[CallId, ...] = ()
    """As in `Cancelled`."""
    frame: FrameId = ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run ended. Derived."""

    status: Status
    """``finished``: answered. ``partial``: a limit was reached, the answer is the best so far.
    ``failed``: it couldn't go on. ``cancelled``: somebody stopped it. ``waiting``: it waits for
    approvals, and nothing else is left to do."""
    output: str = ""
    """The answer; for ``failed``, ``cancelled`` and ``waiting`` the best there was."""
    limit: str | None = None
    """The limit that ended it, for ``partial``, and for ``failed`` by a limit."""
    error: str | None = None
    """What ended it, for ``failed`` and ``cancelled``."""
    cause: str | None = None
    """Whose fault, for ``failed``: ``limit``, ``guard``, ``repl``, or a `ModelFailed.error`."""
    value: str | None = None
    """The answer as JSON, when a type was asked for and the answer fits it."""
    frame: FrameId = ROOT


Derived = (
    EffectStarted | ApprovalAsked | GuardTripped | LimitReached | HistoryCompacted | RunFinished
)
"""What the reducer makes."""
Event = (
    RunStarted
    | EffectStarted
    | ModelReplied
    | ModelFailed
    | CodePaused
    | ApprovalAsked
    | ApprovalGiven
    | ApprovalPostponed
    | ToolReturned
    | ToolFailed
    | CodeExecuted
    | ReplFailed
    | VariableRead
    | AnswerChecked
    | GuardTripped
    | LimitReached
    | HistoryCompacted
    | RunResumed
    | Cancelled
    | DeadlinePassed
    | RunFinished
)
"""What can happen, in the order of a run's life."""

CallOutcome = ModelReplied | ModelFailed | ToolReturned | ToolFailed
"""How a call of a model or a tool ends."""

DERIVED: tuple[type[Derived], ...] = get_args(Derived)
EVENTS: tuple[type[Event], ...] = get_args(Event)
