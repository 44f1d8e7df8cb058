"""The exceptions of rlm-fsm. The leaf names the culprit.

    RLMError
    +-- UsageError (also ValueError)       the caller: bad arguments, before anything starts
    +-- IllegalEvent                       us: an event that the machine has no row for
    +-- ReplayDiverged                     us or a changed log: a fold that differs from the log
    +-- RunError                           a run that can't go on; `run_id`, `trace`, `output`
    |   +-- ModelError                     the model service
    |   |   +-- ModelAuthError             ... refuses the key
    |   |   +-- ModelTimeoutError          ... doesn't answer in time
    |   +-- ReplError                      no REPL could be had
    |   +-- PolicyError (also RuntimeError)   a limit, with on_limit="raise"
    |       +-- MaxStepsExceeded  MaxSubcallsExceeded  MaxRecursionExceeded  MaxTokensExceeded
    |       +-- MaxCostExceeded  MaxSecondsExceeded
    +-- LogError                           the log; `path`
        +-- LogForeign                     not one of ours
        +-- LogNewer                       written by a newer version
        +-- LogCorrupt                     damaged; `last_good_seq`
        +-- LogConflict                    another process appended first
        +-- RunNotFound                    no such run
        +-- RunBusy                        another process leads the run; nothing was spent

Failures that are part of a run (a model call that fails, code that raises, a limit) are events.
Exceptions are for misuse and for the edge of the world; every one says what to do next.
"""

from typing import Any


class RLMError(Exception):
    """Base of all exceptions that rlm-fsm raises on purpose."""


class UsageError(RLMError, ValueError):
    """The caller passed something that can't work. Nothing was started."""


class IllegalEvent(RLMError):
    """An event arrived in a phase that has no row for it. The state is untouched."""

    def __init__(self, message: str, *, phase: str, kind: str, frame: str) -> None:
        super().__init__(message)
        self.phase = phase
        self.kind = kind
        self.frame = frame


class ReplayDiverged(RLMError):
    """Folding a log derives something else than the log holds."""

    def __init__(
        self, *, run_id: str | None, seq: int, expected: object, found: object, hint: str = ""
    ) -> None:
        run = f"run {run_id}" if run_id else "the run"
        super().__init__(
            f"{run} diverges at event {seq}: expected {expected!r}, found {found!r}. "
            + (hint or "The log was changed, or was written by a version with other rules.")
        )
        self.run_id = run_id
        self.seq = seq
        self.expected = expected
        self.found = found
        self.hint = hint


class RunError(RLMError):
    """A run that can't go on. It stays in the log and can be resumed."""

    def __init__(
        self, message: str, *, run_id: str | None = None, trace: Any = None, output: str = ""
    ) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.trace = trace
        self.output = output
        """The best answer there was, or an empty text."""


class ModelError(RunError):
    """The model service failed, after the adapter's retries."""


class ModelAuthError(ModelError):
    """The model service refused the key."""


class ModelTimeoutError(ModelError):
    """The model service didn't answer in time."""


class ReplError(RunError):
    """No REPL could be had to run code in."""


class PolicyError(RunError, RuntimeError):
    """A limit was reached and the policy says ``on_limit="raise"``."""

    limit: str = ""
    value: float = 0.0
    """What the limit allowed."""


class MaxStepsExceeded(PolicyError):
    """`Policy.max_steps` was reached."""


class MaxSubcallsExceeded(PolicyError):
    """`Policy.max_subcalls` was reached."""


class MaxRecursionExceeded(PolicyError):
    """Never raised: below the deepest sub-run that `Policy.max_recursion_depth` allows, subcalls
    are plain calls. The name is kept for programs that catch it."""


class MaxTokensExceeded(PolicyError):
    """`Policy.max_total_tokens` or `Policy.max_subcall_tokens` was reached."""


class MaxCostExceeded(PolicyError):
    """`Policy.max_cost_usd` was reached."""


class MaxSecondsExceeded(PolicyError):
    """`Policy.max_seconds` was reached."""


class LogError(RLMError):
    """Something is wrong with a log file."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class LogForeign(LogError):
    """The file isn't a log of rlm-fsm."""


class LogNewer(LogError):
    """The log was written by a newer version."""


class LogCorrupt(LogError):
    """The log is damaged."""

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        run_id: str | None = None,
        last_good_seq: int = 0,
    ) -> None:
        super().__init__(message, path=path)
        self.run_id = run_id
        self.last_good_seq = last_good_seq


class LogConflict(LogError):
    """Another process appended to the run first."""


class RunNotFound(LogError):
    """The log holds no such run."""


class RunBusy(LogError):
    """Another process, or another call in this one, leads the run. Nothing was spent."""


LIMIT_ERRORS: dict[str, type[PolicyError]] = {
    "max_steps": MaxStepsExceeded,
    "recursive_subcall_max_steps": MaxStepsExceeded,
    "max_subcalls": MaxSubcallsExceeded,
    "max_recursion_depth": MaxRecursionExceeded,
    "max_total_tokens": MaxTokensExceeded,
    "max_subcall_tokens": MaxTokensExceeded,
    "max_cost_usd": MaxCostExceeded,
    "max_seconds": MaxSecondsExceeded,
}
"""Which exception a limit raises, by the name that `LimitReached` carries."""
