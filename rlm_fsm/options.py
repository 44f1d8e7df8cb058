"""Everything that decides a run besides its question, context and adapters.

Recorded in `RunStarted`, so that a run that is resumed, replayed or forked needs nothing that
its log doesn't hold. Plain data only: adapters, REPL objects and listeners belong to the shell.
"""

from dataclasses import dataclass, field

from rlm_fsm.errors import UsageError
from rlm_fsm.policy import Policy
from rlm_fsm.price import AdapterPrice
from rlm_fsm.prompts import PYRLM

RULES = 2
"""Version of the machine's rules that new runs follow, see `Options.rules`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The recorded half of `RLM`'s keyword arguments; the meanings are those of `RLM`."""

    policy: Policy = field(default_factory=Policy)
    """Limits of the whole tree of a run, see below."""
    profile: str = "pyrlm"
    """Protocol profile: prompts, fences, bound names, truncation."""
    max_tokens: int = 512
    """Completion limit of a root turn, in tokens."""
    subcall_max_tokens: int = 256
    """Completion limit of a subcall, unless the code gives its own."""
    system_prompt: str = PYRLM.system
    """What the root is told first; the profile's words unless given."""
    subcall_system_prompt: str = PYRLM.subcall_system
    """What a plain subcall is told first."""
    recursive_subcall_system_prompt: str = PYRLM.recursive_system
    """What a recursive sub-run is told first."""
    system_prompt_supplement: str = ""
    """Text put after the system prompt."""
    conversation_history: bool = True
    """False: each turn sees only the task and the newest result."""
    max_history_tokens: int = 0
    """Estimated tokens of history to send; 0 for all. System, task and newest result stay."""
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
    """Refuse an answer before any subcall was made."""
    min_steps: int = 0
    """Turns before an answer is accepted."""
    invalid_response_limit: int | None = None
    """Invalid replies in a row before the run gives up."""
    repl_error_limit: int | None = None
    """Cells that raised, in all, before the run gives up."""
    auto_finalize_var: str | None = None
    """The run ends when this variable is set and not empty, and its cell did not raise."""
    auto_finalize_min_length: int = 0
    """Characters below which the variable doesn't count yet."""
    tell_budget: bool = True
    """Whether the model is told each turn, in a line, what is left of limits that matter."""
    prices: tuple[AdapterPrice, ...] = ()
    """What the run's models charge, as far as it is known; made from the argument `prices`."""
    rules: int = RULES
    """No argument: version of the machine's own rules; a run keeps those that it began with.
    1: a cost limit sets nothing aside for calls, and a sub-run ignores the model that was named
    for it."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name}={value!r}: give a whole number, {least} or more")
        if self.auto_finalize_var is not None and not self.auto_finalize_var.isidentifier():
            raise UsageError(
                f"auto_finalize_var={self.auto_finalize_var!r}: give the name of a variable"
            )

    def price_of(self, adapter: str) -> AdapterPrice | None:
        """The price of one of the run's adapters, if it is known."""
        return next((item for item in self.prices if item.adapter == adapter), None)

    @property
    def depth_limit(self) -> int:
        """Depth of the deepest frame that may be opened; the root's is 0."""
        cap = self.policy.max_recursion_depth
        own = self.max_recursion_depth if self.recursive_subcalls else cap
        return min(own, cap) if cap > 1 else own


_LEAST = {
    "max_tokens": 1,
    "subcall_max_tokens": 1,
    "max_history_tokens": 0,
    "max_recursion_depth": 0,
    "recursive_subcall_max_steps": 1,
    "max_concurrent_subcalls": 1,
    "min_steps": 0,
    "invalid_response_limit": 1,
    "repl_error_limit": 1,
    "auto_finalize_min_length": 0,
    "rules": 1,
}
_OPTIONAL = frozenset({"invalid_response_limit", "repl_error_limit"})
