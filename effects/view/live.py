"""The view for terminals: steps scroll by, and a line at the bottom says what is going on.

The steps stay on the screen when the run is over; the line doesn't. The line is drawn by a
thread of rich's own, several times a second; it only reads plain values of the follower.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, assert_never

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from effects.view import blocks
from effects.view.cut import dollars, head, seconds, tokens
from effects.view.follow import Earlier, Follower
from effects.view.items import (
    Began,
    CallEnded,
    CallsBegan,
    CallsEnded,
    CellBegan,
    CellEnded,
    Compacted,
    Ended,
    Item,
    Noted,
    Turned,
    WentOn,
)
from effects.view.plain import answered, calls, line, size, totals, went_on
from rlm_fsm.ids import ROOT
from rlm_fsm.reply import parse

if TYPE_CHECKING:
    from effects.listeners import Appended

_CALLS_SHOWN = 4
"""Replies shown of one batch; the others are counted."""
_REFRESHES_PER_S = 10
_BAR_LEAVES = 64
"""Columns of the bottom line that its bar leaves to the rest."""


class LiveView:
    """A listener that shows a run on a terminal. Use it as a context manager around the run."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        auto_refresh: bool = True,
        earlier: Earlier | None = None,
    ) -> None:
        """`earlier`: see `Follower`."""
        self.follower = Follower(earlier)
        self._console = console
        self._clock = clock
        self._began_s = clock()
        self._calls_shown = 0
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            get_renderable=self._bottom_line,
            console=console,
            transient=True,
            auto_refresh=auto_refresh,
            refresh_per_second=_REFRESHES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._began_s = self._clock()
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def handle(self, event: "Appended") -> None:
        """Show what is new."""
        for item in self.follower.see(event):
            shown = self._show(item) if _is_root(item) else _of_sub_run(item)
            if shown is not None:
                self._console.print(shown)

    def _show(self, item: Item) -> RenderableType | None:
        match item:
            case Began():
                return self._header(item)
            case WentOn():
                return blocks.stack(blocks.question(item.state.query), blocks.aside(went_on(item)))
            case Turned():
                return self._turn(item)
            case Compacted():
                return blocks.aside(line(item) or "")
            case CellBegan():
                return blocks.code(item.code)
            case CallsBegan():
                self._calls_shown = 0
                return blocks.aside(f"{item.fn}: {calls(item)}  “{head(item.prompt_head, 200)}”")
            case CallEnded():
                return self._call(item)
            case CallsEnded():
                return blocks.aside(answered(item))
            case CellEnded(event=event):
                printed = blocks.output(event.stdout, chars=event.stdout_chars)
                if event.error is None:
                    return printed
                raised = blocks.error(str(event.error))
                return blocks.stack(printed, raised) if event.stdout.strip() else raised
            case Noted():
                return blocks.note(item.what, item.text)
            case Ended(event=event):
                return blocks.rule(event.status, totals(item.state))
            case _:
                assert_never(item)

    def _header(self, item: Began) -> RenderableType:
        event = item.event
        about = [
            size(event.context.chars, event.context.documents),
            _model_name(event.environment.get("adapter.root", "")),
            f"{event.options.repl_backend} REPL",
        ]
        return blocks.stack(
            blocks.question(event.query),
            blocks.aside(" · ".join(filter(None, about))),
            blocks.aside(f"run {item.run_id}"),
        )

    def _turn(self, item: Turned) -> RenderableType:
        title = f"turn {item.number}"
        if item.error is not None:
            failure = blocks.error(f"the model call failed: {item.error}")
            return blocks.stack(blocks.rule(title, seconds(item.elapsed_s)), failure)
        top = blocks.rule(title, f"{tokens(item.usage)} · {seconds(item.elapsed_s)}")
        profile = self.follower.state.options.profile
        reply = parse(item.text, profile).value_or(None)
        prose = blocks.beside_code(item.text, has_code=reply is not None and bool(reply.blocks))
        return blocks.stack(top, blocks.said(prose)) if prose else top

    def _call(self, item: CallEnded) -> RenderableType | None:
        self._calls_shown += 1
        if self._calls_shown <= _CALLS_SHOWN or item.failed:
            width = self._console.width - 12
            return blocks.call(item.call_id, item.reply_head, failed=item.failed, width=width)
        return blocks.aside("…", deep=True) if self._calls_shown == _CALLS_SHOWN + 1 else None

    def _bottom_line(self) -> RenderableType:
        """What is going on, on one line that fits the terminal."""
        follower, spent = self.follower, self.follower.state.spent
        grid = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [self._spinner]
        facts = [seconds(self._clock() - self._began_s), tokens(spent.usage)]
        if spent.cost_usd is not None:
            facts.append(dollars(spent.cost_usd))
        made, done = follower.calls_made, follower.calls_done
        if made:
            room = self._console.width - _BAR_LEAVES
            if room >= 8:
                cells.append(ProgressBar(total=made, completed=done, width=min(room, 40)))
            facts.insert(0, f"calls {done:,}/{made:,}, {follower.calls_in_flight:,} in flight")
        else:
            facts.insert(0, follower.activity)
        cells.append(Text(" · ".join(facts), no_wrap=True, overflow="ellipsis"))
        grid.add_row(*cells)
        return grid


def _model_name(adapter: str) -> str:
    """``gpt-5`` of ``OpenAICompatAdapter(gpt-5)``; an adapter without a model as it is."""
    return adapter.partition("(")[2].removesuffix(")") or adapter


def _is_root(item: Item) -> bool:
    return isinstance(item, Began | WentOn | Ended) or item.frame == ROOT


def _of_sub_run(item: Item) -> RenderableType | None:
    """A sub-run is told in asides, a line a step; its cells only when they fail."""
    if isinstance(item, CellBegan) or (isinstance(item, CellEnded) and item.event.error is None):
        return None
    text = line(item)
    return None if text is None else blocks.aside(text)
