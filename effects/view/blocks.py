"""The pieces of which the rich views are made. Texts are never markup here."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from effects.view.cut import clean, cut, head
from rlm_fsm.numbers import counted

_INDENT = (0, 0, 0, 2)
_DEEP = (0, 0, 0, 4)
_BAR = "  │ "
_THEME = "ansi_dark"
"""Of the terminal's own sixteen colours, so that it is readable on any background."""

WHOLE = 1_000_000
"""Lines: as many as there are."""


def rule(title: str, facts: str = "") -> RenderableType:
    """A line across the screen, with a title and what is to be said of it."""
    text = Text(clean(title), style="bold")
    if facts:
        text.append(f" · {clean(facts)}", style="not bold dim")
    return Rule(text, align="left", style="dim", characters="─")


def beside_code(reply: str, *, has_code: bool) -> str:
    """What a reply says before its code; all of it when it has none."""
    if not has_code:
        return reply.strip()
    before, fence, _ = reply.partition("```")
    return before.strip() if fence else ""


def said(text: str, *, first: int = 4) -> RenderableType:
    """What a model said beside its code."""
    return Padding(Text(cut(text, first=first, last=0), style="italic"), _INDENT, expand=False)


def code(source: str, *, first: int = 24, last: int = 6) -> RenderableType:
    """Python, coloured."""
    shown = cut(source, first=first, last=last)
    syntax = Syntax(shown, "python", theme=_THEME, background_color="default", word_wrap=True)
    return Padding(syntax, _INDENT, expand=False)


def output(text: str, *, chars: int | None = None, first: int = 8, last: int = 4) -> RenderableType:
    """What a cell printed: its first and last lines. `chars`: how much it printed in all."""
    if not text.strip():
        return _Barred(Text("(nothing printed)", style="dim"))
    lines = Text(cut(text, first=first, last=last))
    if chars is not None and chars > len(text):
        lines.append(f"\n… {counted(chars - len(text), 'more character')} not kept", style="dim")
    return _Barred(lines)


def error(text: str, *, first: int = 2, last: int = 6) -> RenderableType:
    """What a cell raised, or why a call failed."""
    return _Barred(Text(cut(text, first=first, last=last), style="red"), "red")


def note(what: str, text: str, *, first: int = 4) -> RenderableType:
    """A refusal, a limit, a failure."""
    line = Text(f"{clean(what)}: ", style="bold yellow")
    line.append(cut(text, first=first, last=0), style="not bold")
    return Padding(line, _INDENT, expand=False)


def aside(text: str, *, deep: bool = False) -> RenderableType:
    """Something said in passing, on one line."""
    line = Text(clean(text), style="dim", no_wrap=True, overflow="ellipsis")
    return Padding(line, _DEEP if deep else _INDENT, expand=False)


def mark(text: str) -> RenderableType:
    """Something that is to be noticed, whole."""
    return Padding(Text(clean(text), style="yellow"), _INDENT, expand=False)


def call(name: str, reply: str, *, failed: bool, width: int) -> RenderableType:
    """A subcall and the head of its reply, on one line."""
    line = Text(f"{name} ", style="cyan", no_wrap=True, overflow="ellipsis")
    line.append("✗ " if failed else "→ ", style="red" if failed else "dim")
    line.append(head(reply, max(20, width)) or "(empty)", style="red" if failed else "not bold")
    return Padding(line, _DEEP, expand=False)


def question(text: str) -> RenderableType:
    """The question of a run, its beginning."""
    return Text(head(text, 300), style="bold")


def stack(*parts: RenderableType) -> RenderableType:
    """One below the other."""
    return Group(*parts)


@dataclass(frozen=True, slots=True)
class _Barred:
    """Something behind a bar that goes down its left side, folded lines included."""

    content: RenderableType
    style: str = "dim"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.update(width=max(1, options.max_width - len(_BAR)))
        for line in console.render_lines(self.content, room, pad=False):
            yield Segment(_BAR, Style.parse(self.style))
            yield from line
            yield Segment.line()


class TerminalConsole(Console):
    """A console that falls silent when nobody reads it any more, in place of ending the program."""

    def on_broken_pipe(self) -> None:
        """Called by rich when its stream is closed."""
        self.quiet = True
