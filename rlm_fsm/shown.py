"""What the model is shown of a cell: its output, what was cut, its error, its variables.

Output keeps its head and its tail, an error keeps its tail: the last lines of a traceback say what
went wrong. How much, and in which words, is the profile's. The whole output stays in the log.
"""

from rlm_fsm.event import CodeExecuted
from rlm_fsm.profile import Profile, fill
from rlm_fsm.values import Variable

PENDING_CHARS = 500
"""Characters that are shown of an answer that wasn't accepted."""


def render(event: CodeExecuted, profile: Profile) -> str:
    """A cell's result as the model reads it."""
    parts: list[str] = []
    stdout = event.stdout.rstrip("\n")
    if stdout:
        parts.append(_output(stdout, _total(event, stdout, profile), profile))
    if event.error is not None:
        parts.append(_error(str(event.error), profile))
        if event.final is not None:
            answer = event.final.text[:PENDING_CHARS]
            parts.append(fill(profile.pending, form=event.final.form, answer=answer))
    if event.rebuilt:
        parts.append(profile.session_rebuilt)
    elif event.repl_lost:
        parts.append(profile.session_lost)
    if not parts:
        parts.append(profile.no_output)
    if event.variables:
        parts.append(_variables(event.variables, event.more_variables, profile))
    return "\n".join(parts)


def _total(event: CodeExecuted, shown: str, profile: Profile) -> int:
    """How much was printed, as the model is told."""
    if profile.blank_end_counts:
        return max(event.stdout_chars, len(shown))
    return max(event.stdout_chars - len(event.stdout), 0) + len(shown)


def _output(text: str, total: int, profile: Profile) -> str:
    room = profile.output_head + profile.output_tail
    # The end is only known when the session kept all of it. One line feed more is no loss.
    is_whole = total <= len(text) + 1
    if len(text) <= room and is_whole:
        return text
    head = text[: profile.output_head if is_whole else room]
    tail = text[-profile.output_tail :] if is_whole and profile.output_tail else ""
    seen = len(head) + len(tail)
    cut = f"{total - seen:,}"
    told = fill(
        profile.output_cut, head=head, tail=tail, shown=f"{seen:,}", cut=cut, total=f"{total:,}"
    )
    return told.rstrip("\n")


def _error(text: str, profile: Profile) -> str:
    limit = profile.error_chars
    if len(text) <= limit:
        return text
    return fill(profile.error_cut, tail=text[-limit:], shown=f"{limit:,}", total=f"{len(text):,}")


def _variables(variables: tuple[Variable, ...], more: int, profile: Profile) -> str:
    lines = [
        fill(
            profile.variable_line,
            name=variable.name,
            mark=profile.variable_new if variable.is_new else profile.variable_changed,
            summary=variable.summary,
        )
        for variable in variables
    ]
    if more:
        lines.append(fill(profile.variables_more, count=f"{more:,}"))
    between = ", " if profile.variables == "names" else "\n"
    return fill(profile.variables_shown, list=between.join(lines))
