"""Pure refusals: may this frame end with an answer now? If not, why.

A refusal becomes a `GuardTripped` event and the model is told the reason. Guards hold for the
root only: a sub-run answers its parent, which has guards of its own.
"""

from dataclasses import dataclass

from rlm_fsm.ids import ROOT
from rlm_fsm.options import Options
from rlm_fsm.profile import Profile, fill
from rlm_fsm.state import Frame
from rlm_fsm.values import FinalForm
from rlm_fsm.wording import forms


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard's no."""

    guard: str
    reason: str


def refusal(frame: Frame, options: Options, form: FinalForm) -> Refusal | None:
    """The first guard that refuses an answer of this frame, or None. `form` is how it was given."""
    words = options.profile
    if form not in words.finals:
        expected = forms(words)
        return Refusal("other_form", fill(words.other_form, form=form, forms=expected))
    if frame.id != ROOT:
        return None
    if frame.turns_used < options.min_steps:
        told = fill(words.min_steps, turn=frame.turns_used, least=options.min_steps)
        return Refusal("min_steps", told)
    if options.require_repl_before_final and frame.cells == 0:
        return Refusal("require_repl", words.require_repl)
    if options.require_subcall_before_final and frame.subcalls == 0:
        return Refusal("require_subcall", words.require_subcall)
    return None


def empty_answer(words: Profile) -> Refusal:
    """The refusal of an answer that says nothing."""
    told = fill(words.correction, fault=words.empty_answer, forms=forms(words))
    return Refusal("empty_answer", told)


def missing_variable(
    words: Profile, name: str, names: tuple[str, ...], error: str | None
) -> Refusal:
    """The refusal of ``FINAL_VAR`` with a variable that can't be read."""
    if error is not None:
        told = fill(words.unreadable_variable, name=name, error=error)
        return Refusal("unreadable_variable", told)
    known = fill(words.known_variables, names=", ".join(names)) if names else words.no_variables
    return Refusal("missing_variable", fill(words.missing_variable, name=name, known=known))


def too_many_invalid(frame: Frame, options: Options) -> bool:
    """Whether so many replies in a row were refused that the frame gives up."""
    limit = options.invalid_response_limit
    return limit is not None and frame.invalid >= limit


def too_many_misfits(frame: Frame, options: Options) -> bool:
    """Whether so many answers did not fit the type asked for that the frame gives up."""
    return frame.misfits > options.output_retries


def too_many_errors(frame: Frame, options: Options) -> bool:
    """Whether so many cells raised that the frame gives up."""
    limit = options.repl_error_limit
    return limit is not None and frame.errors >= limit


def is_looping(frame: Frame, options: Options) -> bool:
    """Whether the same code came so often in a row that the frame gives up."""
    limit = options.loop_limit
    return limit is not None and frame.repeats >= limit
