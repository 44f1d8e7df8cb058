"""The view for logs, pipes and dumb terminals: one plain line per step."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self, assert_never

from effects.view.cut import clean, dollars, head, seconds, tokens
from effects.view.events import compacted
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
from rlm_fsm.ids import ROOT, FrameId
from rlm_fsm.numbers import counted
from rlm_fsm.state import RunState

if TYPE_CHECKING:
    from effects.listeners import Appended

_TEXT_CHARS = 100
"""How much of a text stands in a line."""


class PlainView:
    """A listener that writes a line per step."""

    def __init__(self, write: Callable[[str], None], earlier: Earlier | None = None) -> None:
        """`write` is given one line at a time, without its newline. `earlier`: see `Follower`."""
        self.follower = Follower(earlier)
        self._write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back: lines stay."""

    def handle(self, event: "Appended") -> None:
        """Tell what is new."""
        for item in self.follower.see(event):
            if text := line(item):
                self._write(text)


def line(item: Item) -> str | None:
    """An item as a line; None for those that would be too many."""
    match item:
        case Began(run_id=run_id, event=event):
            return f"run {run_id}: {size(event.context.chars, event.context.documents)}"
        case WentOn():
            return went_on(item)
        case Turned():
            return _of(item.frame, f"turn {item.number}: {_turn(item)}")
        case Compacted(event=event):
            return _of(item.frame, f"history: {head(compacted(event), _TEXT_CHARS)}{_paid(item)}")
        case CellBegan():
            count = counted(len(item.code.splitlines()), "line")
            return _of(item.frame, f"cell {item.number}: {count} of code")
        case CallsBegan():
            return _of(item.frame, f"{item.fn}: {calls(item)}")
        case CallEnded():
            return None
        case CallsEnded():
            return _of(item.frame, answered(item))
        case CellEnded(event=event):
            printed = f"printed {counted(event.stdout_chars, 'character')}"
            if event.error is not None:
                printed += f", raised {event.error.kind}: {head(event.error.message, _TEXT_CHARS)}"
            return _of(item.frame, printed)
        case Noted():
            return _of(item.frame, f"{item.what}: {head(item.text, _TEXT_CHARS)}")
        case Ended(event=event):
            why = f" ({event.limit})" if event.limit else ""
            return f"{event.status}{why}: {totals(item.state)}"
        case _:
            assert_never(item)


def size(chars: int, documents: int) -> str:
    """The size of a context in words."""
    in_documents = "" if documents == 1 else f" in {counted(documents, 'document')}"
    return f"{counted(chars, 'character')}{in_documents}"


def went_on(item: WentOn) -> str:
    """Which run goes on, and where."""
    fork = ", a fork," if item.event.is_fork else ""
    return f"run {item.run_id}{fork} goes on after event {item.after:,}"


def calls(item: CallsBegan) -> str:
    """How many calls a cell asked for, and how many are made."""
    if item.made == 0 and item.asked:
        return f"{counted(item.asked, item.what)} asked, refused by a limit"
    merged = f" ({item.asked:,} asked, equal ones once)" if item.made != item.asked else ""
    return f"{counted(item.made, item.what)}{merged}"


def answered(item: CallsEnded) -> str:
    """How a cell's calls ended."""
    failed = f", {item.failed:,} failed" if item.failed else ""
    cached = f", {item.cache_hits:,} from the cache" if item.cache_hits else ""
    made = counted(item.made, item.what)
    return f"{made} answered in {seconds(item.elapsed_s)}{cached}{failed}"


def totals(state: RunState) -> str:
    """What a run used, in a line."""
    spent = state.spent
    facts = [counted(spent.steps, "turn")]
    if spent.subcalls:
        facts.append(counted(spent.subcalls, "subcall"))
    if spent.tool_calls:
        facts.append(counted(spent.tool_calls, "tool call"))
    if spent.cache_hits:
        facts.append(counted(spent.cache_hits, "cache hit"))
    if state.compactions:
        facts.append(counted(state.compactions, "compaction"))
    facts.append(tokens(spent.usage))
    if spent.cost_usd is not None:
        facts.append(dollars(spent.cost_usd))
    return ", ".join([*facts, seconds(spent.seconds)])


def _turn(item: Turned) -> str:
    if item.error is not None:
        return f"the model call failed: {head(item.error, _TEXT_CHARS)}"
    return f"{tokens(item.usage)}, {seconds(item.elapsed_s)}"


def _paid(item: Compacted) -> str:
    """What the call for a summary took; nothing where none was made."""
    if not item.usage.total_tokens:
        return ""
    return f" ({tokens(item.usage)}, {seconds(item.elapsed_s)})"


def _of(frame: FrameId, text: str) -> str:
    return clean(text if frame == ROOT else f"  {frame}: {text}")
