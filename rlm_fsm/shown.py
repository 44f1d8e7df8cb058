"""What the model is shown of a cell: its output, what was cut, its error.

Output keeps its head, an error keeps its tail: the last lines of a traceback say what went wrong.
The whole output stays in the log.
"""

from rlm_fsm.event import CodeExecuted
from rlm_fsm.prompts import Profile

NOTHING = "(no output; print what you want to see)"


def render(event: CodeExecuted, profile: Profile) -> str:
    """A cell's result as the model reads it."""
    parts: list[str] = []
    stdout = event.stdout.rstrip("\n")
    if stdout:
        total = max(event.stdout_chars, len(stdout))
        parts.append(_head(stdout, total, profile.output_chars))
    if event.error is not None:
        parts.append(_tail(str(event.error), profile.error_chars))
    if event.rebuilt:
        parts.append("(the session was restarted: your variables are as before this code)")
    elif event.repl_lost:
        parts.append("(the session was restarted: your variables are gone)")
    return "\n".join(parts) or NOTHING


def _head(text: str, total: int, limit: int) -> str:
    if len(text) <= limit and total <= len(text) + 1:
        return text
    return f"{text[:limit]}\n... (the first {min(limit, len(text)):,} of {total:,} characters)"


def _tail(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"(the last {limit:,} of {len(text):,} characters) ...\n{text[-limit:]}"
