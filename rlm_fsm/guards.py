"""Pure refusals: may this frame end with an answer now, is what a variable holds one, and has it
gone on for too long? If not, why.

A refusal becomes a `GuardTripped` event and the model is told the reason. Guards on answers, values
and steps hold for the root only: a sub-run answers its parent, which has guards of its own. The
limits on invalid replies, errors and loops hold for sub-runs too.
"""

import re
from dataclasses import dataclass

from rlm_fsm.effect import CallModel
from rlm_fsm.ids import ROOT, CallId
from rlm_fsm.needs import breach
from rlm_fsm.options import Options
from rlm_fsm.policy import breach_by_subcalls
from rlm_fsm.profile import Profile, fill
from rlm_fsm.state import Frame, RunState
from rlm_fsm.values import FinalForm, GivenFinal, TextRef, text_hash
from rlm_fsm.wording import forms

NO_ANSWER = "NO_ANSWER"
"""What models are told to say when they found nothing."""
PRESSES = frozenset({"subcall_guard_steps", "fallback_guard_steps", "no_answer"})
"""Guards that run the fallback code of a run that could go on."""
OF_VALUES = frozenset(
    {
        "no_answer",
        "fallback_guard_steps",
        "auto_finalize_min_length",
        "auto_finalize_reject_patterns",
    }
)
"""Guards that refuse what the watched variable holds."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard's no."""

    guard: str
    reason: str


def refusal(state: RunState, frame: Frame, form: FinalForm) -> Refusal | None:
    """The first guard that refuses an answer of this frame, or None. `form` is how it was given."""
    options, words = state.options, state.options.profile
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
    if lacks_subcall(state, frame):
        return Refusal("require_subcall", words.require_subcall)
    return None


def final_refusal(state: RunState, frame: Frame, final: GivenFinal) -> Refusal | None:
    """The first guard that refuses an answer which code gave, or None."""
    if not final.text.strip():
        return empty_answer(state.options.profile)
    return refusal(state, frame, final.form)


def lacks_subcall(state: RunState, frame: Frame) -> bool:
    """Whether a subcall is still to be made before an answer. Where the limits leave no room for
    any, nothing that the model could do would help."""
    is_due = state.options.require_subcall_before_final and frame.subcalls == 0
    return is_due and _has_room_for_subcall(state)


def _has_room_for_subcall(state: RunState) -> bool:
    least = CallModel(
        frame=ROOT,
        call_id=CallId(""),
        purpose="subcall",
        prompt=TextRef.of(""),
        max_tokens=state.options.subcall_max_tokens,
        adapter="subcall",
    )
    has_place = breach_by_subcalls(state.options.policy, state.spent, 1) is None
    return has_place and breach(state, least) is None


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


def named_refusal(frame: Frame, options: Options, name: str, value: str) -> Refusal | None:
    """Why a variable that an answer named is none: the watched one is judged by its value."""
    is_watched = frame.id == ROOT and name == options.auto_finalize_var
    return value_refusal(frame, options, value) if is_watched else None


def is_judged(frame: Frame) -> bool:
    """Whether what the watched variable holds was refused already."""
    return text_hash(frame.watched) == frame.refused_value


def has_value(frame: Frame, options: Options) -> bool:
    """Whether what the watched variable holds is an answer, as far as its value goes."""
    if not frame.watched or frame.id != ROOT or is_judged(frame):
        return False
    return value_refusal(frame, options, frame.watched) is None


def value_refusal(frame: Frame, options: Options, value: str) -> Refusal | None:
    """Why the watched variable's value is no answer, or None. Blanks around it don't count.

    NO_ANSWER is one when there is no fallback code left that might find another, and so are other
    texts that say nothing when no guard on steps asks for a value.
    """
    words, name, value = options.profile, options.auto_finalize_var, value.strip()
    none_yet = fill(words.no_value_yet, turn=frame.turns_used, name=name)
    if options.fallback_code is not None and not frame.has_fallen_back and says_no_answer(value):
        return Refusal("no_answer", none_yet)
    if says_nothing(value) and _is_value_due(frame, options):
        return Refusal("fallback_guard_steps", none_yet)
    least = options.auto_finalize_min_length
    if len(value) < least:
        told = fill(words.short_variable, name=name, chars=f"{len(value):,}", least=f"{least:,}")
        return Refusal("auto_finalize_min_length", told)
    for pattern in options.auto_finalize_reject_patterns:
        if re.search(pattern, value, re.IGNORECASE):
            return Refusal("auto_finalize_reject_patterns", _rejected(frame, options, pattern))
    return None


def _rejected(frame: Frame, options: Options, pattern: str) -> str:
    """What the model is told of a value that a pattern matches."""
    name, count = options.auto_finalize_var, frame.rejects + 1
    limit, feedback = options.auto_finalize_reject_limit, options.auto_finalize_reject_feedback
    if not feedback:
        return fill(options.profile.rejected_variable, name=name, pattern=pattern)
    return fill(
        feedback,
        var=name,
        pattern=pattern,
        count=count,
        limit="any number" if limit is None else limit,
        remaining="any number" if limit is None else max(limit - count, 0),
    )


def pressing(state: RunState, frame: Frame) -> Refusal | None:
    """The first guard on steps that trips after a turn; each does so once."""
    options, words, turn = state.options, state.options.profile, frame.turns_used
    lacks_value = not frame.watched.strip() or says_nothing(frame.watched)
    if lacks_value and _is_value_due(frame, options):
        told = fill(words.no_value_yet, turn=turn, name=options.auto_finalize_var)
        return Refusal("fallback_guard_steps", told)
    is_due = _is_due(frame, "subcall_guard_steps", options.subcall_guard_steps)
    if is_due and lacks_subcall(state, frame):
        return Refusal("subcall_guard_steps", fill(words.no_subcall_yet, turn=turn))
    return None


def _is_value_due(frame: Frame, options: Options) -> bool:
    is_due = _is_due(frame, "fallback_guard_steps", options.fallback_guard_steps)
    return is_due and options.auto_finalize_var is not None


def _is_due(frame: Frame, guard: str, steps: int | None) -> bool:
    return steps is not None and frame.turns_used >= steps and guard not in frame.pressed


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
