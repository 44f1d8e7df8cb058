"""Everything that decides a run besides its question, context and adapters.

Recorded in `RunStarted`, so that a run that is resumed, replayed or forked needs nothing that
its log doesn't hold. Plain data only: adapters, REPL objects and listeners belong to the shell.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from keyword import iskeyword
from typing import cast

from rlm_fsm.errors import UsageError
from rlm_fsm.numbers import LARGEST
from rlm_fsm.policy import Policy
from rlm_fsm.price import AdapterPrice
from rlm_fsm.profile import Profile
from rlm_fsm.profiles import PYRLM
from rlm_fsm.toolspec import ToolSpec

RULES = 2
"""Version of the machine's rules that new runs follow, see `Options.rules`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The recorded half of `RLM`'s keyword arguments; the meanings are those of `RLM`."""

    policy: Policy = field(default_factory=Policy)
    """Limits of the whole tree of a run, see below."""
    profile: Profile = PYRLM
    """Protocol: words, fences, forms of answers, what is shown of output. `RLM` takes a name too:
    ``pyrlm``, ``rlms``, ``paper``, ``dspy``, or ``auto``, by the name of the model."""
    max_tokens: int = 512
    """Completion limit of a turn, in tokens: the root's, or a sub-run's, whose call may allow it
    more."""
    subcall_max_tokens: int = 256
    """Completion limit of a subcall, unless the code gives its own."""
    system_prompt: str | None = None
    """What the root is told first; None: the profile's words."""
    subcall_system_prompt: str | None = None
    """What a plain subcall is told first; None: the profile's words."""
    recursive_subcall_system_prompt: str | None = None
    """What a recursive sub-run is told first; None: the profile's words."""
    system_prompt_supplement: str = ""
    """Text put after the root's system prompt. Sub-runs have one of their own, which is to say what
    holds for them (`recursive_subcall_system_prompt`)."""
    conversation_history: bool = True
    """False: each turn sees only the task and the newest result."""
    max_history_tokens: int = 0
    """Estimated tokens of history to send; 0 for all. System, task and newest result stay. Older
    exchanges are dropped in steps, so that most requests begin with the whole one before."""
    compaction: float = 0.0
    """Share of `max_history_tokens` at which the model is asked to sum up the conversation, instead
    of dropping what is oldest: 0 for never, ``True`` for 0.8. The summary is sent after the task,
    and the newest exchanges as they are. Without `max_history_tokens`, `RLM` takes three quarters
    of the model's window, where it is known."""
    compaction_limit: int = 10
    """Summaries that may be asked for in one frame; after that, what is oldest is dropped."""
    compaction_max_tokens: int = 800
    """Completion limit of a summary, in tokens. (The seed runtime's default.)"""
    repl_backend: str = "python"
    """Name of the REPL backend, for the log."""
    recursive_subcalls: bool = False
    """Whether a plain subcall becomes a run of its own."""
    max_recursion_depth: int = 2
    """Deepest sub-run, with `recursive_subcalls`; deeper subcalls are plain calls."""
    recursive_subcall_max_steps: int = 3
    """Turns of each recursive sub-run."""
    parallel_subcalls: bool = False
    """Whether `ask_chunks` and `llm_query_batch` are parallel unless told otherwise."""
    max_concurrent_subcalls: int = 10
    """Model calls below the root in flight at once, for the whole tree."""
    require_repl_before_final: bool = False
    """Refuse an answer before any code has run."""
    require_subcall_before_final: bool = False
    """Refuse an answer before any subcall was made. One that a limit forbade doesn't count. As long
    as the limits leave no room for any subcall, none is asked for."""
    min_steps: int = 0
    """Turns before an answer is accepted."""
    invalid_response_limit: int | None = None
    """Invalid replies in a row before the run gives up: replies without code that hold no answer,
    or one that is refused, such as ``FINAL_VAR`` of a variable that doesn't exist."""
    repl_error_limit: int | None = None
    """Cells that raised, in all, before the run gives up."""
    loop_limit: int | None = 5
    """Times that the same code may come in a row before the run gives up; it is told from the
    second time on. (The seed runtime's later versions have a limit of 5 too, on replies in a row
    that come to nothing: those are for `invalid_response_limit` here.)"""
    fallback_code: str | None = None
    """Code that is run at most once: when the run would give up, when a guard on steps asks for it,
    or when `auto_finalize_var` says NO_ANSWER. Its final answer is the run's; without one, the
    value of `auto_finalize_var`, or else of a variable ``answer``; without any, a run that would
    have given up fails, and another goes on."""
    auto_finalize_var: str | None = None
    """The run ends when this variable is set and not empty, and its cell did not raise. What a cell
    left in it that raised counts once it changes, or once an answer names the variable."""
    auto_finalize_min_length: int = 0
    """Characters below which the variable doesn't count yet, blanks around its value aside."""
    auto_finalize_reject_patterns: tuple[str, ...] = ()
    """Regular expressions, searched in any case: a value of `auto_finalize_var` that one matches is
    no answer, also when ``FINAL_VAR`` names the variable. The model is told, and what was refused
    isn't judged again until it changes or is named. An answer in words (``FINAL: ...``, ``SUBMIT``)
    is judged neither by this nor by `auto_finalize_min_length`."""
    auto_finalize_reject_limit: int | None = 3
    """Values that may be refused in this way before the run gives up."""
    auto_finalize_reject_feedback: str | None = None
    """What the model is told of such a value: ``{var} {pattern} {count} {limit} {remaining}``, the
    last three in refusals; other braces stay. None: the profile's words."""
    subcall_guard_steps: int | None = None
    """Turns without any subcall before `fallback_code` is run, with `require_subcall_before_final`;
    without such code, or when it has run, the model is told once that a subcall is due."""
    fallback_guard_steps: int | None = None
    """Turns without a value of `auto_finalize_var` before `fallback_code` is run, or the model is
    told once. Then NO_ANSWER, ``none`` and ``0`` are no value. Without `auto_finalize_var` of no
    effect."""
    tell_budget: bool = True
    """Whether the model is told each turn, in a line, what is left of limits that matter."""
    prices: tuple[AdapterPrice, ...] = ()
    """What the run's models charge, as far as it is known; made from the argument `prices`."""
    answer_schema: str | None = None
    """JSON schema that the root's answer must fit; made from the argument `output_type`."""
    tools: tuple[ToolSpec, ...] = ()
    """Functions of the caller's program that code may call; made from the argument `tools`."""
    max_concurrent_tools: int = 10
    """Calls of tools in flight at once, for the whole tree. A limit of their own: a tool that is
    slow takes no place from subcalls, and a person who thinks takes none at all."""
    output_retries: int = 3
    """Answers that don't fit before the run gives up is this number and one more."""
    rules: int = RULES
    """No argument: version of the machine's own rules; a run keeps those that it began with.
    1: a cost limit sets nothing aside for calls, a sub-run ignores the model that was named for it,
    a run gives up without a `GuardTripped` that says so, and history is trimmed anew each turn."""

    def __post_init__(self) -> None:
        if not isinstance(self.profile, Profile):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"profile={self.profile!r}: give a Profile, such as PYRLM")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name}={getattr(self, name)!r}: give True or False")
        for name in _TEXTS:
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name not in _OPTIONAL):
                raise UsageError(f"{name}={value!r}: give a text (str)")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name}={value!r}: give a whole number, {least} or more")
            if value > LARGEST:
                raise UsageError(f"{name}: give a whole number up to 2**53")
        _check_compaction(self)
        if self.auto_finalize_var is not None and not self.auto_finalize_var.isidentifier():
            raise UsageError(
                f"auto_finalize_var={self.auto_finalize_var!r}: give the name of a variable"
            )
        for pattern in _patterns(self.auto_finalize_reject_patterns):
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(
                    f"auto_finalize_reject_patterns: {pattern!r} is no regular expression: {error}"
                ) from None

    def price_of(self, adapter: str) -> AdapterPrice | None:
        """The price of one of the run's adapters, if it is known."""
        return next((item for item in self.prices if item.adapter == adapter), None)

    @property
    def root_system(self) -> str:
        """The root's system prompt."""
        return self.profile.system if self.system_prompt is None else self.system_prompt

    @property
    def subcall_system(self) -> str:
        """A plain subcall's system prompt."""
        given = self.subcall_system_prompt
        return self.profile.subcall_system if given is None else given

    @property
    def recursive_system(self) -> str:
        """A recursive sub-run's system prompt."""
        given = self.recursive_subcall_system_prompt
        return self.profile.recursive_system if given is None else given

    @property
    def depth_limit(self) -> int:
        """Depth of the deepest frame that may be opened; the root's is 0."""
        cap = self.policy.max_recursion_depth
        own = self.max_recursion_depth if self.recursive_subcalls else cap
        return own if cap == 1 else min(own, cap)


_LEAST = {
    "max_tokens": 1,
    "subcall_max_tokens": 1,
    "max_history_tokens": 0,
    "compaction_limit": 1,
    "compaction_max_tokens": 1,
    "max_recursion_depth": 0,
    "recursive_subcall_max_steps": 1,
    "max_concurrent_subcalls": 1,
    "max_concurrent_tools": 1,
    "min_steps": 0,
    "invalid_response_limit": 1,
    "repl_error_limit": 1,
    "loop_limit": 2,
    "auto_finalize_min_length": 0,
    "output_retries": 0,
    "auto_finalize_reject_limit": 1,
    "subcall_guard_steps": 1,
    "fallback_guard_steps": 1,
    "rules": 1,
}
_FLAGS = tuple(item.name for item in fields(Options) if isinstance(item.default, bool))
_TEXTS = (
    "system_prompt",
    "subcall_system_prompt",
    "recursive_subcall_system_prompt",
    "system_prompt_supplement",
    "fallback_code",
    "auto_finalize_var",
    "auto_finalize_reject_feedback",
)
_OPTIONAL = frozenset(
    {
        *(name for name in _TEXTS if name != "system_prompt_supplement"),
        "invalid_response_limit",
        "repl_error_limit",
        "loop_limit",
        "auto_finalize_reject_limit",
        "subcall_guard_steps",
        "fallback_guard_steps",
    }
)


def check_guards(options: Options, taken: Collection[str] = ()) -> None:
    """Refuse guards that no run could satisfy. `taken`: names that are bound in every session.

    For a run that begins, and no part of `Options`: a log of another one still loads, and a run
    may go on under other limits. Raises `UsageError`.
    """
    policy, name = options.policy, options.auto_finalize_var
    if options.min_steps > policy.max_steps > 0:
        raise UsageError(
            f"min_steps={options.min_steps} with Policy(max_steps={policy.max_steps}): no turn is "
            "left from which an answer is accepted; give a smaller min_steps or a larger max_steps"
        )
    if options.require_subcall_before_final and policy.max_subcalls == 0:
        raise UsageError(
            "require_subcall_before_final=True with Policy(max_subcalls=0): no subcall may be "
            "made; leave out one of them"
        )
    why = None
    if name in {tool.name for tool in options.tools}:
        why = "is the name of a tool"
    elif name is not None and iskeyword(name):
        why = "is a word of Python's own"
    elif name in taken and name != "answer":
        why = "is a name of the runtime's own, which code can't keep a value in"
    if why is not None:
        raise UsageError(
            f"auto_finalize_var={name!r} {why}: give the name of a variable, such as 'answer'"
        )


def _check_compaction(options: Options) -> None:
    """Refuse a share that is none, and one of nothing."""
    share = options.compaction
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"compaction={share!r}: give a share of the room, such as 0.8; 0 for none")
    if share and not options.max_history_tokens:
        raise UsageError(
            f"compaction={share!r} is a share of max_history_tokens: give that too, such as "
            "max_history_tokens=100_000"
        )
    if share and not options.conversation_history:
        raise UsageError(
            f"compaction={share!r} needs conversation_history=True: without it, each turn is sent "
            "the task and the newest result only"
        )


def _patterns(given: object) -> tuple[str, ...]:
    """The patterns of an option, checked: a lone text would be read as one pattern a letter."""
    items = cast(tuple[object, ...], given) if isinstance(given, tuple) else (None,)
    patterns = tuple(item for item in items if isinstance(item, str))
    if len(patterns) != len(items):
        raise UsageError(
            f"auto_finalize_reject_patterns={given!r}: give a tuple of texts, such as ('^unknown',)"
        )
    return patterns
