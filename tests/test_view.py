"""What the views show of a run, and what they must not: markup, escapes, whole prompts."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_driving import ROOT_DIR, on_terminal
from rich.cells import cell_len
from rich.console import Console

from effects.view.blocks import TerminalConsole
from effects.view.cut import clean, cut, head
from effects.view.follow import Follower
from effects.view.items import CallsBegan, CallsEnded, CellBegan, Item, Turned
from effects.view.live import LiveView
from effects.view.plain import PlainView, line
from effects.view.show import show_run
from effects.view.table import ago
from rlm_fsm import Appended, FakeAdapter, FileCache, Policy, fold, run
from rlm_fsm.adapters import AdapterError
from rlm_fsm.event import Event
from rlm_fsm.trace import trace

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
BATCH = "replies = llm_batch(['one: ' + P, 'two: ' + P, 'one: ' + P])\nprint(replies)"


def fenced(code: str, said: str = "") -> str:
    return f"{said}\n```python\n{code}\n```"


class Kept:
    """Keeps the events of a run, and looks at a follower after each."""

    def __init__(self, look: Callable[[Follower], Any] = lambda _: None) -> None:
        self.follower = Follower()
        self.appended: list[Appended] = []
        self.items: list[Item] = []
        self.seen: list[Any] = []
        self._look = look

    def handle(self, event: Appended) -> None:
        self.appended.append(event)
        self.items += self.follower.see(event)
        self.seen.append(self._look(self.follower))

    @property
    def events(self) -> list[Event]:
        return [appended.event for appended in self.appended]


def events_of(script: list[Any], text: str = "the text", **options: Any) -> Kept:
    """The events of a run that a script makes."""
    kept = options.pop("kept", None) or Kept()
    sub = options.pop("sub", ["first", "second"])
    run(
        options.pop("query", "What?"),
        text,
        adapter=FakeAdapter(script, model="root"),
        subcall_adapter=FakeAdapter(sub, model="sub"),
        event_listener=kept,
        log=":memory:",
        repl_backend="monty",
        **options,
    )
    return kept


def live(kept: Kept, *, width: int = 80, color: bool = False) -> str:
    """What the live view writes of these events."""
    stream = io.StringIO()
    console = TerminalConsole(
        file=stream, force_terminal=True, width=width, height=24, no_color=not color
    )
    with LiveView(console, clock=lambda: 0.0, auto_refresh=False) as view:
        for appended in kept.appended:
            view.handle(appended)
    return stream.getvalue()


def plain(kept: Kept) -> list[str]:
    lines: list[str] = []
    with PlainView(lines.append) as view:
        for appended in kept.appended:
            view.handle(appended)
    return lines


def shown(kept: Kept, *, full: bool = False) -> str:
    console = Console(file=io.StringIO(), width=80)
    show_run(console, "the-run", fold(kept.events), trace(kept.events), full=full)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def colours(written: str) -> set[int]:
    """The codes of the colours that are set."""
    codes = {int(n) for sgr in re.findall(r"\x1b\[([\d;]+)m", written) for n in sgr.split(";")}
    return codes & {*range(30, 39), *range(40, 49), *range(90, 98), *range(100, 108)}


# Following a run


def test_a_follower_knows_how_many_calls_of_a_batch_are_answered() -> None:
    kept = Kept(lambda follower: (follower.calls_done, follower.calls_made))
    events_of([fenced(BATCH), "FINAL: x"], kept=kept, max_concurrent_subcalls=1)
    batch = [seen for seen, before in zip(kept.seen[1:], kept.seen, strict=False) if seen != before]
    assert batch == [(0, 2), (1, 2), (0, 0)]
    began = next(item for item in kept.items if isinstance(item, CallsBegan))
    assert (began.fn, began.asked, began.made) == ("llm_batch", 3, 2)
    ended = next(item for item in kept.items if isinstance(item, CallsEnded))
    assert (ended.made, ended.failed) == (2, 0)


def test_what_a_cache_answered_is_told(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache")
    for _ in range(2):
        kept = events_of([fenced(BATCH), "FINAL: x"], cache=cache)
    batch, *_, end = [text for text in plain(kept) if "cache" in text]
    assert re.fullmatch(r"2 subcalls answered in .* s, 2 from the cache", batch)
    assert re.match(r"finished: 2 turns, 2 cache hits, .* tokens, .* s", end)
    assert "2 from the cache" in live(kept)
    assert "2 of 2 from the cache" in shown(kept)
    assert shown(kept, full=True).count("from the cache") == 2


def test_a_follower_tells_each_block_of_a_reply_as_a_cell() -> None:
    kept = events_of([fenced("x = 1") + fenced("print(x)"), "FINAL: x"])
    cells = [(item.number, item.code) for item in kept.items if isinstance(item, CellBegan)]
    assert cells == [(1, "x = 1"), (2, "print(x)")]


def test_a_follower_says_what_the_run_is_doing() -> None:
    kept = Kept(lambda follower: follower.activity)
    events_of([fenced("answer = llm_query('a')"), "FINAL_VAR: answer"], kept=kept)
    assert list(dict.fromkeys(kept.seen)) == [
        "asking the model, turn 1 of 40",
        "running code",
        "waiting for subcalls",
        "asking the model, turn 2 of 40",
        "reading the answer",
        "ending",
        "finished",
    ]


def test_a_follower_holds_no_more_of_a_prompt_than_its_head() -> None:
    kept = events_of([fenced("llm_query(P)"), "FINAL: x"], "prompt " * 10_000)
    heads = [item.prompt_head for item in kept.items if isinstance(item, CallsBegan)]
    assert [len(head) for head in heads] == [400]


def test_sub_runs_are_told_with_their_name() -> None:
    kept = events_of(
        [fenced("answer = llm_query('piece')"), "FINAL_VAR: answer"],
        sub=[fenced("print(P)"), "FINAL: from below"],
        recursive_subcalls=True,
    )
    assert [(i.frame, i.number) for i in kept.items if isinstance(i, Turned)] == [
        ("0", 1),
        ("0.1", 1),
        ("0.1", 2),
        ("0", 2),
    ]
    told = "\n".join(plain(kept))
    assert "  0.1: turn 2: ~" in told
    assert "1 subcall answered" in told
    assert "  0.1: turn 1: ~" in live(kept)
    assert "from below" in shown(kept)


# What is shown


def test_the_plain_view_is_a_line_for_each_step() -> None:
    lines = plain(events_of([fenced(BATCH), fenced("1 / 0"), "Hm.", "FINAL: x"]))
    patterns = [
        r"run \S+: 8 characters",
        r"turn 1: ~\d+ tokens, 0\.\d s",
        r"cell 1: 2 lines of code",
        r"llm_batch: 2 subcalls \(3 asked, equal ones once\)",
        r"2 subcalls answered in 0\.\d s",
        r"printed \d+ characters",
        r"turn 2: .*",
        r"cell 2: 1 line of code",
        r"printed 0 characters, raised ZeroDivisionError: division by zero",
        r"turn 3: .*",
        r"refused: .*",
        r"turn 4: .*",
        r"finished: 4 turns, 2 subcalls, ~[\d,]+ tokens, 0\.\d s",
    ]
    assert len(lines) == len(patterns)
    for text, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("view", [live, shown])
def test_a_reader_sees_question_code_output_and_replies(view: Callable[[Kept], str]) -> None:
    kept = events_of([fenced(BATCH, "I ask twice."), fenced("1 / 0"), "FINAL: forty-two"])
    text = ESCAPE.sub("", view(kept))
    for part in (
        "What?",
        "8 characters",
        "turn 1 · ~",
        "I ask twice.",
        "replies = llm_batch(",
        "→ first",
        "→ second",
        "│ ['first', 'second', 'first']",
        "│ ZeroDivisionError: division by zero",
        "finished · 3 turns, 2 subcalls",
    ):
        assert part in text, part


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    wide = "漢字" * 100 + "x" * 300
    kept = events_of([fenced(f"print({wide!r})", wide), f"FINAL: {wide}"], query=wide)
    lines = ESCAPE.sub("", live(kept, width=width)).splitlines()
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("view", [live, shown])
def test_huge_outputs_are_cut(view: Callable[[Kept], str]) -> None:
    many = events_of([fenced("for i in range(20000):\n    print('line', i)"), "FINAL: x"])
    assert "more lines …" in view(many)
    long = events_of([fenced("print('x' * 900_000)"), "FINAL: x"])
    assert "more characters …" in view(long)
    assert max(len(view(many)), len(view(long))) < 6_000


def test_a_failed_call_and_a_limit_are_told() -> None:
    failing = AdapterError("the service is down", kind="server", status=503)
    kept = events_of(
        [fenced("print(llm_batch(['a', 'b'], on_error='return'))"), fenced("2"), "FINAL: x"],
        sub=["fine", failing],
        policy=Policy(max_steps=2),
    )
    text = ESCAPE.sub("", live(kept))
    assert "✗ server: the service is down" in text
    assert "2 subcalls answered in 0.0 s, 1 failed" in text
    assert "limit: max_steps: 3 of 2" in text
    assert "partial · " in text
    assert "partial (max_steps): " in plain(kept)[-1]
    assert "limit: max_steps" in shown(kept)


def summed_up(summary: Any) -> Kept:
    """A run whose conversation is summed up before its third turn, or can't be."""
    printed = [fenced(f"print('{n}' * 1_500)") for n in "12"]
    script = [*printed, summary, "FINAL: x"]
    options = {"max_history_tokens": 1_000, "compaction": 0.7, "system_prompt": "Look."}
    return events_of(script, **options)


def test_a_compaction_is_told_with_what_it_saved_and_took() -> None:
    kept = summed_up("Two digits were printed.")
    told = r"history: 2 messages summed up, 8\d\d to \d\d\d tokens \(~\d+ tokens, 0\.\d s\)"
    assert [text for text in plain(kept) if re.fullmatch(told, text)]
    assert "1 compaction, " in plain(kept)[-1]
    assert "history: 2 messages summed up" in ESCAPE.sub("", live(kept))
    assert "history · 2 messages summed up: 8" in shown(kept)
    assert "Two digits were printed." not in shown(kept)
    assert "Two digits were printed." in shown(kept, full=True)
    follower, seen = Follower(), list[str]()
    for appended in kept.appended:
        follower.see(appended)
        seen.append(follower.activity)
    assert "summing up the conversation" in seen


def test_a_compaction_that_came_to_nothing_says_why() -> None:
    kept = summed_up(AdapterError("the service is down", kind="server", status=503))
    assert "history: no summary: server: the service is down" in plain(kept)
    assert "no summary: server: the service is down" in ESCAPE.sub("", live(kept))
    assert "server: the service is down" in shown(kept)
    assert "compaction" not in plain(kept)[-1]


# What must not be shown


def test_a_whole_prompt_is_never_shown() -> None:
    text = "secret " * 2_000
    kept = events_of([fenced("print(len(llm_query(P)))"), "FINAL: x"], text)
    for written in (live(kept), "\n".join(plain(kept)), shown(kept)):
        assert written.count("secret") < 20


def test_markup_and_escapes_of_a_model_are_text() -> None:
    tricks = "[bold red]loud[/] :smile: \x1b[2J\x1b]0;title\x07 \x9b31m \u202ereversed \ud800"
    script = [
        fenced(f"print({tricks!r})\nllm_query({tricks!r})\nraise ValueError({tricks!r})", tricks),
        tricks,
        f"FINAL: {tricks}",
    ]
    kept = events_of(script, sub=[tricks], query=tricks)
    allowed = {"h", "l", "A", "K", "m"}  # the cursor, its line, and styles: rich's own
    for written in (live(kept, color=True), "\n".join(plain(kept)), shown(kept)):
        assert {found[-1] for found in ESCAPE.findall(written)} <= allowed
        rest = ESCAPE.sub("", written)
        assert "[bold red]loud[/] :smile:" in rest
        assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e\ud800]", rest)


def test_a_console_whose_reader_is_gone_falls_silent() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    console = TerminalConsole(file=Gone(), force_terminal=True)
    console.print("x")
    console.print("y")
    assert console.quiet


# On a real terminal


def test_the_demo_is_shown_live_on_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    written = on_terminal("demo", "--fast", "--size", "0.2", log=log)
    assert "\x1b[?25l" in written  # the cursor is hidden while the bottom line is drawn
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert {94, 95, 96} <= colours(written)  # keywords and names of the code
    text = ESCAPE.sub("", written)
    assert "36 subcalls answered" in text
    assert "the answer is right" in text
    assert max(cell_len(row) for row in re.split(r"[\r\n]+", text)) <= 80


def test_no_color_keeps_the_view_and_drops_the_colours(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    written = on_terminal(
        "demo", "--fast", "--size", "0.2", log=log, extra={"NO_COLOR": "1"}
    ) + on_terminal("show", "last", "--no-color", log=log)
    assert "\x1b[?25l" in written
    assert not colours(written)
    assert not colours(on_terminal("runs", log=log, extra={"NO_COLOR": "1"}))
    assert 32 in colours(on_terminal("runs", log=log))


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    written = on_terminal("demo", "--fast", "--size", "0.2", log=log, extra={"TERM": "dumb"})
    assert "\x1b" not in written
    assert "llm_batch: 36 subcalls" in written


# Small parts


def test_texts_are_cut_in_the_middle_and_say_how_much_is_missing() -> None:
    text = "\n".join(map(str, range(100)))
    assert cut(text, first=2, last=1) == "0\n1\n… 97 more lines …\n99"
    assert cut("a\nb\nc\nd\n", first=2, last=1) == "a\nb\nc\nd"
    assert cut("ab" * 1_000, first=1, last=0).startswith("abab")
    assert "… 1,500 more characters …" in cut("ab" * 1_000, first=1, last=0)


def test_a_head_is_one_line() -> None:
    assert head("  a \n\n b\t c ", 80) == "a b c"
    assert head("word " * 100, 12) == "word word w…"
    assert head(" " * 1_000 + "late", 10) == "…"


def test_controls_become_visible() -> None:
    assert clean("a\x1b[31m\r\n\x00\x7f\u202e\ud83d") == "a␛[31m\n␀���"


def test_how_long_ago_a_run_was_is_told_in_one_unit() -> None:
    now = datetime(2026, 3, 31, 12, tzinfo=UTC)
    told = [
        ago(f"2026-03-{at}+00:00", now)
        for at in ("31T11:59:55", "31T11:57:00", "31T09:00:00", "27T12:00:00", "01T00:00:00")
    ]
    assert told == ["5 s ago", "3 min ago", "3 h ago", "4 d ago", "2026-03-01"]
    assert ago("2026-04-01T00:00:00+00:00", now) == "2026-04-01"
    assert ago("unknown", now) == "unknown"


def test_following_and_plain_lines_need_no_rich() -> None:
    code = (
        "import sys, effects.view, effects.view.plain, effects.view.follow, effects.cli\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('rich', 'httpx', 'sqlite3')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT_DIR, check=True)


def test_items_that_would_be_too_many_have_no_line() -> None:
    kept = events_of([fenced(BATCH), "FINAL: x"])
    silent = {type(item).__name__ for item in kept.items if line(item) is None}
    assert silent == {"CallEnded"}
