"""Texts made fit for a terminal: cut to size, and without what would act on the terminal.

What models and files say is shown, never obeyed: control characters, among them the escapes that
move cursors and set colours, become visible signs.
"""

import re

from rlm_fsm.numbers import counted, usd
from rlm_fsm.values import Usage

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls but tab and newline, signs that reverse the direction of writing, and lone
surrogates, which no terminal can be sent."""
_LINE_CHARS = 500
"""Longest line that is shown; a terminal folds it into some lines."""


def clean(text: str) -> str:
    """The text with each control character made visible; tabs become spaces."""
    text = text.replace("\r\n", "\n").expandtabs(4)
    return _CONTROLS.sub(_visible, text)


def head(text: str, chars: int) -> str:
    """The beginning of a text on one line, at most `chars` characters, with … where it is cut."""
    # Four times as much is looked at, since runs of blanks shrink to one.
    line = " ".join(clean(text[: 4 * chars]).split())
    if len(line) <= chars and len(text) <= 4 * chars:
        return line
    return line[: max(0, chars - 1)].rstrip() + "…"


def cut(text: str, *, first: int, last: int) -> str:
    """The first and last lines of a text, saying how many are left out; long lines are cut too."""
    lines = text.rstrip("\n").split("\n")
    if len(lines) > first + last + 1:
        hidden = len(lines) - first - last
        tail = lines[-last:] if last else []
        lines = [*lines[:first], f"… {hidden:,} more lines …", *tail]
    return clean("\n".join(map(_short, lines)))


def seconds(value: float) -> str:
    """``0.2 s``, ``42.0 s``, ``3 min 05 s``."""
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02} s"


def dollars(value: float) -> str:
    """``$0.0012``, ``$3.20``: more digits for small amounts."""
    return f"${value:,.2f}" if value >= 1 else usd(value)


def tokens(usage: Usage) -> str:
    """``1,234 tokens``; with ``~`` where they are estimates."""
    sign = "~" if usage.estimated else ""
    return sign + counted(usage.total_tokens, "token")


def _short(line: str) -> str:
    if len(line) <= _LINE_CHARS:
        return line
    half = _LINE_CHARS // 2
    hidden = len(line) - 2 * half
    return f"{line[:half]} … {counted(hidden, 'more character')} … {line[-half:]}"


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "�"
