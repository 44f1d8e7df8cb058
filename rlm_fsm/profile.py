"""`Profile`: one protocol between runtime and model, as data.

A profile holds every word that a model is told and every rule by which its replies are read. It is
a plain value: to have one of your own, `dataclasses.replace` one of `profiles`. The whole value is
recorded with a run, so that a log folds with the words it was made with, whatever the words have
become since.

Rules:

1. A template is a text with places such as ``{output}``, filled by `fill`. A name in braces that
   isn't a place of the template stays as it is: prompts show code.
2. What varies between protocols is a field here, never a branch on a profile's name.
3. There are no defaults: a profile that forgets something can't be made, and what a log holds
   doesn't depend on defaults. A new field needs a line in `upcast` that says what runs did before.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args

from rlm_fsm.errors import UsageError
from rlm_fsm.values import FinalForm, text_hash

Blocks = Literal["all", "first", "last"]
Variables = Literal["changed", "names", "none"]

_PLACE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Profile:
    """One protocol, as data. Bad values raise `UsageError`."""

    name: str
    """What it is called, in the log and by ``--profile``."""
    version: int
    """Counted up by hand whenever the words or the rules change."""

    # The prompts.

    system: str
    """System prompt of the root."""
    subcall_system: str
    """System prompt of a plain subcall. Programs match on its first words."""
    recursive_system: str
    """System prompt of a recursive sub-run."""

    # The conversation.

    first_text: str
    """The task over a text: ``{query} {kind} {chars} {turns}``."""
    first_documents: str
    """The task over several documents: also ``{documents} {lengths}``."""
    child_query: str
    """Query of a recursive sub-run that was given only a prompt."""
    shown: str
    """What the cells of a turn showed: ``{output}``."""
    block_shown: str
    """One cell's part of it, where a turn had several: ``{number} {output}``."""
    next_action: str
    """Ends each message after the first: ``{left} {turn} {turns}``."""
    turn_left: str
    """``{left}`` when one turn is left."""
    turns_left: str
    """``{left}`` otherwise: ``{count}``."""
    closing: str
    """Asks for the last reply when a limit forbids more turns: ``{limit}``."""
    limit_raised: str
    """News of a run that a limit ended and that is resumed."""
    compact: str
    """Asks for a summary of the conversation: ``{words}`` at most."""
    summary: str
    """The summary, as the model's own message: ``{summary}``."""
    compacted: str
    """Said after it, in place of ``{count}`` messages."""
    empty_reply: str
    """What the conversation keeps of a reply that says nothing."""

    # What a cell showed.

    output_head: int
    """Characters of a cell's output that are shown from its beginning."""
    output_tail: int
    """Characters that are shown from its end."""
    output_cut: str
    """Output that was cut: ``{head} {tail} {shown} {cut} {total}``."""
    blank_end_counts: bool
    """Whether blank lines at the end of output count as cut when they aren't shown."""
    no_output: str
    """Stands for a cell that showed nothing."""
    error_chars: int
    """Characters of an error that are shown, from its end."""
    error_cut: str
    """An error that was cut: ``{tail} {shown} {total}``."""
    session_rebuilt: str
    """Put after the output of a cell that its session died with; its variables were brought back
    as they were before the cell."""
    session_lost: str
    """Said when the session died with the cell."""
    pending: str
    """Said when a cell gave a final answer and then raised: ``{form} {answer}``."""
    variables: Variables
    """Which variables are listed: new and changed ones, the names of all simple ones, or none."""
    variables_shown: str
    """The list: ``{list}``. A line each, or names with commas between them."""
    variable_line: str
    """One variable: ``{name} {mark} {summary}``."""
    variable_new: str
    """``{mark}`` of a new variable."""
    variable_changed: str
    """``{mark}`` of one that has changed."""
    variables_more: str
    """Said when there are more than are listed: ``{count}``."""
    repeated: str
    """Said when the same code was run again: ``{count}`` times in a row."""
    not_run: str
    """Said when a reply had more blocks than are run: ``{count} {which}``."""

    # Refusals: answers that aren't accepted.

    min_steps: str
    """Before the turn from which answers are accepted: ``{turn} {least}``."""
    require_repl: str
    """Before any code was run."""
    require_subcall: str
    """Before any subcall was made."""
    missing_variable: str
    """A variable that doesn't exist was named: ``{name} {known}``."""
    known_variables: str
    """``{known}``: ``{names}``."""
    no_variables: str
    """``{known}`` when there are none."""
    unreadable_variable: str
    """A variable that can't be an answer was named: ``{name} {error}``."""
    other_form: str
    """An answer in a form that this profile doesn't accept: ``{form} {forms}``."""
    short_variable: str
    """The watched variable holds too little yet: ``{name} {chars} {least}``."""
    rejected_variable: str
    """What it holds is no answer: ``{name} {pattern}``."""
    no_subcall_yet: str
    """So many turns without a subcall: ``{turn}``."""
    no_value_yet: str
    """So many turns without a value of the watched variable: ``{turn} {name}``."""
    fallback_shown: str
    """The fallback code ran without giving an answer, and the run goes on: ``{output}``."""

    # Corrections: replies that are neither code nor an answer.

    correction: str
    """``{fault} {forms}``."""
    forms: str
    """``{forms}``: what a reply should look like: ``{fence}``."""
    empty: str
    """The reply is empty."""
    no_code: str
    """There is text, but neither code nor an answer."""
    only_output: str
    """There are blocks, but only of output. Empty: as `no_code`."""
    cut: str
    """The token limit cut it before it came to anything."""
    cut_code: str
    """The token limit cut it within its code. Empty: as `cut`."""
    refused: str
    """The provider's filter stopped it."""
    empty_answer: str
    """The answer is empty."""
    bad_name: str
    """What should name a variable doesn't."""
    bad_answer: str
    """The parenthesis of an answer is never closed."""

    # Types: answers and replies that must fit a JSON schema.

    answer_shape: str
    """Put after the task when the answer has a type: ``{schema}``."""
    answer_misfit: str
    """The refusal of an answer that doesn't fit: ``{problems}``."""
    problem: str
    """One place that doesn't fit: ``{path} {message} {found}``."""
    more_problems: str
    """Said when there are more than are listed: ``{count}``."""
    subcall_shape: str
    """A subcall's prompt that has a schema: ``{prompt} {schema}``."""
    subcall_misfit: str
    """The prompt that asks again, after a reply that doesn't fit: ``{prompt} {reply} {problems}``,
    with the prompt as it was asked the first time."""

    # Tools: functions of the caller's program.

    tools: str
    """Put after the system prompt when the run has tools: ``{tools}``."""
    tool: str
    """One of them: ``{name} {signature}``; its docstring follows, indented."""
    tool_approval: str
    """Put after the docstring of a tool whose calls a person has to agree to."""

    # Rules.

    fences: tuple[str, ...]
    """Languages of fenced blocks that are run; the empty text is a fence without a language. The
    first is the one that corrections show."""
    bare_code: bool
    """Whether a reply without any fence may be code as a whole."""
    blocks: Blocks
    """Which blocks of a reply are run."""
    finals: tuple[FinalForm, ...]
    """Forms of a final answer that are accepted, see `values.FinalForm`."""
    subcall_error: str
    """What a failed `llm_query` returns: ``{message}``. Empty: it raises `SubcallError`."""
    batch_error: str
    """What stands for a failed subcall in the list of a batch: ``{message}``. Empty: the batch
    raises."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UsageError(f"Profile({name}={value!r}): give a whole number, {least} or more")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"Profile({name}={getattr(self, name)!r}): choose one of {', '.join(known)}"
                )
        unknown = [form for form in self.finals if form not in get_args(FinalForm)]
        if unknown or not self.finals:
            raise UsageError(
                f"Profile(finals={self.finals!r}): name one or more of "
                f"{', '.join(get_args(FinalForm))}"
            )
        if not self.fences:
            raise UsageError("Profile(fences=()): name the languages of blocks that are run")
        for name, place in _PLACES_NEEDED.items():
            if place not in getattr(self, name):
                raise UsageError(f"Profile({name}=...): the template lacks {place}")

    def __repr__(self) -> str:
        return f"<Profile {self.name} {self.version} {self.hash}>"

    @property
    def hash(self) -> str:
        """Names this profile: 16 hex digits of the hash over all its fields."""
        return text_hash(json.dumps(asdict(self), sort_keys=True))[:16]


def fill(template: str, **values: object) -> str:
    """A template with its places filled. Braces around anything else stay."""
    filled = list(_parts(template))
    for at in range(1, len(filled), 2):
        name = filled[at]
        filled[at] = str(values[name]) if name in values else f"{{{name}}}"
    return "".join(filled)


@lru_cache(maxsize=256)
def _parts(template: str) -> tuple[str, ...]:
    """Texts and, at odd positions, the names of the places between them."""
    return tuple(_PLACE.split(template))


def texts_of(profile: Profile) -> dict[str, str]:
    """Its words by field."""
    found = {item.name: getattr(profile, item.name) for item in fields(profile)}
    return {name: text for name, text in found.items() if isinstance(text, str)}


_LEAST = {"version": 1, "output_head": 0, "output_tail": 0, "error_chars": 1}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "blocks": get_args(Blocks),
    "variables": get_args(Variables),
}
_PLACES_NEEDED = {
    "first_text": "{query}",
    "first_documents": "{query}",
    "shown": "{output}",
    "block_shown": "{output}",
    "output_cut": "{head}",
    "error_cut": "{tail}",
    "summary": "{summary}",
    "correction": "{fault}",
    "answer_shape": "{schema}",
    "answer_misfit": "{problems}",
    "tools": "{tools}",
    "tool": "{name}",
    "subcall_shape": "{prompt}",
    "subcall_misfit": "{prompt}",
}
"""Templates that would lose what they are for."""
