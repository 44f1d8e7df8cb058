"""Pure refusals: may this frame end with an answer now? If not, why.

A refusal becomes a `GuardTripped` event and the model is told the reason. Guards hold for the
root only: a sub-run answers its parent, which has guards of its own.
"""

from dataclasses import dataclass

from rlm_fsm.ids import ROOT
from rlm_fsm.options import Options
from rlm_fsm.state import Frame


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard's no."""

    guard: str
    reason: str


def refusal(frame: Frame, options: Options) -> Refusal | None:
    """The first guard that refuses an answer of this frame, or None."""
    if frame.id != ROOT:
        return None
    if frame.turns_used < options.min_steps:
        return Refusal(
            "min_steps",
            f"Not yet: this was turn {frame.turns_used} of at least {options.min_steps}. "
            "Look further before you answer.",
        )
    if options.require_repl_before_final and frame.cells == 0:
        return Refusal(
            "require_repl", "Not yet: run code on the text before you answer, in a ```python block."
        )
    if options.require_subcall_before_final and frame.subcalls == 0:
        return Refusal(
            "require_subcall",
            "Not yet: ask a sub-model (llm_query, llm_batch, ask_chunks) before you answer.",
        )
    return None


def missing_variable(name: str, names: tuple[str, ...], error: str | None) -> Refusal:
    """The refusal of ``FINAL_VAR`` with a variable that can't be read."""
    if error is not None:
        return Refusal("unreadable_variable", f"FINAL_VAR: {name} can't be used: {error}")
    known = f"Your variables: {', '.join(names)}." if names else "You have set no variables yet."
    return Refusal(
        "missing_variable",
        f"There is no variable {name!r}. {known} Set it with code first, then finish.",
    )


def too_many_invalid(frame: Frame, options: Options) -> bool:
    """Whether so many replies in a row were refused that the frame gives up."""
    limit = options.invalid_response_limit
    return limit is not None and frame.invalid >= limit


def too_many_errors(frame: Frame, options: Options) -> bool:
    """Whether so many cells raised that the frame gives up."""
    limit = options.repl_error_limit
    return limit is not None and frame.errors >= limit
