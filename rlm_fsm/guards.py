"""Pure refusals: may this frame end with an answer now? If not, why.

A refusal becomes a `GuardTripped` event and the model is told the reason. Guards hold for the
root only: a sub-run answers its parent, which has guards of its own.
"""

import re
from dataclasses import dataclass

from rlm_fsm.ids import ROOT
from rlm_fsm.options import Options
from rlm_fsm.profile import Profile, fill
from rlm_fsm.state import Frame
from rlm_fsm.values import FinalForm
from rlm_fsm.wording import forms

NO_ANSWER = "NO_ANSWER"
"""What models are told to say when they found nothing."""
NOT_OF_REPLIES = frozenset(
    {
        "missing_variable",
        "unreadable_variable",
        "answer_type",
        "auto_finalize_min_length",
        "auto_finalize_reject_patterns",
        "subcall_guard_steps",
        "fallback_guard_steps",
    }
)
"""Guards that refuse what code left, not a reply: `invalid_response_limit` doesn't count them."""


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


def value_refusal(frame: Frame, options: Options, value: str) -> Refusal | None:
    """Why the watched variable's value is no answer, or None.

    NO_ANSWER is one when there is no fallback code left that might find another.
    """
    words, name = options.profile, options.auto_finalize_var
    if options.fallback_code is not None and not frame.has_fallen_back and says_no_answer(value):
        return Refusal("no_answer", fill(words.no_value_yet, turn=frame.turns_used, name=name))
    least = options.auto_finalize_min_length
    if len(value) < least:
        told = fill(words.short_variable, name=name, chars=f"{len(value):,}", least=f"{least:,}")
        return Refusal("auto_finalize_min_length", told)
    for pattern in options.auto_finalize_reject_patterns:
        if re.search(pattern, value, re.IGNORECASE):
            feedback = options.auto_finalize_reject_feedback
            told = feedback or fill(words.rejected_variable, name=name, pattern=pattern)
            return Refusal("auto_finalize_reject_patterns", told)
    return None


def pressing(frame: Frame, options: Options, value: str) -> Refusal | None:
    """The first guard on steps that trips after a turn's code; each does so once. `value` is the
    watched variable's, empty without one."""
    words, turn, name = options.profile, frame.turns_used, options.auto_finalize_var

    def due(guard: str, steps: int | None) -> bool:
        return steps is not None and turn >= steps and guard not in frame.pressed

    lacks_value = name is not None and (not value.strip() or says_nothing(value))
    if lacks_value and due("fallback_guard_steps", options.fallback_guard_steps):
        return Refusal("fallback_guard_steps", fill(words.no_value_yet, turn=turn, name=name))
    lacks_subcall = options.require_subcall_before_final and frame.subcalls == 0
    if lacks_subcall and due("subcall_guard_steps", options.subcall_guard_steps):
        return Refusal("subcall_guard_steps", fill(words.no_subcall_yet, turn=turn))
    return None


def says_no_answer(value: str) -> bool:
    """Whether a value is the word by which models say that they found nothing."""
    return value.strip().upper() == NO_ANSWER


def says_nothing(value: str) -> bool:
    """Whether a value stands for no value: as the seed runtime's guard has it."""
    return says_no_answer(value) or value.strip().lower() in ("none", "0")


def too_many_rejects(frame: Frame, options: Options) -> bool:
    """Whether a pattern refused so many values of the watched variable that the frame gives up."""
    limit = options.auto_finalize_reject_limit
    return limit is not None and frame.rejects >= limit


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
