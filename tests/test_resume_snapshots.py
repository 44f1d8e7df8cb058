"""Resume, fork and replay of runs whose sessions were written down, in the sandbox backend."""

import asyncio
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from effects.repls.base import Paused, ReplSettings
from effects.repls.monty import MontyRepl
from rlm_fsm import (
    Context,
    ModelResponse,
    ReplayDiverged,
    ReplLimits,
    RunResult,
    SnapshotRule,
    SqliteLog,
    Usage,
    fork,
    replay,
    resume,
    run,
)
from rlm_fsm.event import CodeExecuted, CodePaused, Event
from rlm_fsm.ids import ROOT, RunId
from rlm_fsm.values import CodeResult
from tests.log_files import sql

TEXT = "one two three four"
CODE = [
    "import re\nwords = re.findall('[a-z]+', P)\n"
    "def shout(word):\n    return llm_query('shout ' + word)\n"
    "print(len(words), ctx.find('three'))",
    "print('a batch')\nprompts = [f'shout {n} {word}' for n in range(2) for word in words]\n"
    "found = llm_batch(prompts)\nprint(len(found))",
    "lines = [shout(word) for word in words]\nprint(lines)",
]
TURNS = [*(f"```python\n{code}\n```" for code in CODE), "FINAL_VAR: lines"]
ANSWER = "['ONE', 'TWO', 'THREE', 'FOUR']"
ALWAYS = SnapshotRule(after_s=0.0, most_share=math.inf)
NEVER = SnapshotRule(after_s=math.inf)


class Power(BaseException):
    """The process is gone."""


class Watched:
    """A log that knows when all that should be written down was, and may die at an append."""

    def __init__(self, path: Path, *, dies_at: int = 0, after: bool = True) -> None:
        self.log = SqliteLog(path, durability="process")
        self.appends = self.saves = 0
        self.dies_at, self.after = dies_at, after
        self.places = 0
        """Events after which a session rests."""
        self.all_saved = asyncio.Event()
        self.all_saved.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    def append(self, run_id: RunId, expected_seq: int, events: Sequence[Event]) -> int:
        self.appends += 1
        if self.appends == self.dies_at and not self.after:
            raise Power
        seq = self.log.append(run_id, expected_seq, events)
        if self.appends == self.dies_at:
            raise Power
        self.places += sum(isinstance(event, CodePaused | CodeExecuted) for event in events)
        if self.places > self.saves:
            self.all_saved.clear()
        return seq

    def save_snapshot(self, *args: Any) -> None:
        self.log.save_snapshot(*args)
        self.saves += 1
        if self.saves == self.places:
            self.all_saved.set()


class Model:
    """A deterministic model. With `waits`, it answers only when the log has all snapshots that it
    should have."""

    def __init__(self, log: Watched, *, waits: bool = True) -> None:
        self.log, self.waits = log, waits
        self.asked: list[str] = []

    async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
        if self.waits:
            await self.log.all_saved.wait()
        prompt = messages[-1]["content"]
        if "sub-LLM" in messages[0]["content"]:
            self.asked.append(prompt)
            said = prompt.removeprefix("shout ").upper()
        else:
            turn = sum(message["role"] == "assistant" for message in messages)
            self.asked.append(f"turn {turn}")
            said = TURNS[turn]
        return ModelResponse(said, Usage(1, 1, 2))


class Sessions:
    """Opens sessions of the sandbox and counts what they are given to do."""

    def __init__(self, rule: SnapshotRule = ALWAYS, **limits: Any) -> None:
        self.limits = ReplLimits(snapshots=rule, **limits)
        self.started: list[str] = []
        self.restored = 0

    def __call__(self, context: Context) -> MontyRepl:
        sessions = self

        class Counted(MontyRepl):
            async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused | CodeResult:
                sessions.started.append(code)
                return await super().start(code, watch)

            async def restore(self, data: bytes) -> Paused | None:
                paused = await super().restore(data)
                sessions.restored += 1
                return paused

        return Counted(context, ReplSettings(limits=self.limits))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def begun(path: Path, *, dies_at: int = 0, after: bool = True) -> tuple[str, list[str], Watched]:
    """A run, to its end or to its death: its id, what it asked, and its log, now closed."""
    log, sessions = Watched(path, dies_at=dies_at, after=after), Sessions()
    model = Model(log)
    try:
        run("q", TEXT, adapter=model, log=log, repl_backend=sessions, repl_limits=sessions.limits)
    except Power:
        pass
    finally:
        log.close()
    with SqliteLog(path) as closed:
        runs = closed.runs()
    return (runs[0].run_id if runs else ""), model.asked, log


def resumed(
    path: Path, run_id: str, sessions: Sessions, *, waits: bool = False
) -> tuple[RunResult, list[str]]:
    """Go on with a run; its result and what was asked."""
    log = Watched(path)
    model = Model(log, waits=waits)
    try:
        limits = sessions.limits
        result = resume(run_id, adapter=model, log=log, repl_backend=sessions, repl_limits=limits)
        return result, model.asked
    finally:
        log.close()


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that has died in the loop of the third cell, before the answer to its last question."""
    path = tmp_path_factory.mktemp("dead") / "log.sqlite"
    for dies_at in range(2, 99):
        run_id, _, log = begun(path, dies_at=dies_at, after=False)
        pauses = [event for _, event in places(path, run_id) if isinstance(event, CodePaused)]
        if len(pauses) == 5 and log.saves == log.places:
            return path, run_id
        for file in path.parent.iterdir():
            file.unlink()
    raise AssertionError("the run has no such place")


@pytest.fixture
def killed(dead: tuple[Path, str], path: Path) -> str:
    """A copy of that run, at `path`; its id."""
    shutil.copytree(dead[0].parent, path.parent, dirs_exist_ok=True)
    return dead[1]


def places(path: Path, run_id: str) -> list[tuple[int, Event]]:
    """The events after which the session rested, with their numbers."""
    with SqliteLog(path) as log:
        logged = list(log.load(RunId(run_id)))
    return [(e.seq, e.event) for e in logged if isinstance(e.event, CodePaused | CodeExecuted)]


def saved_at(path: Path) -> list[int]:
    """The events that snapshots stand for."""
    return [int(str(seq)) for (seq,) in sql(path, "SELECT seq FROM snapshots ORDER BY seq")]


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The appends of a whole run."""
    _, _, log = begun(tmp_path_factory.mktemp("whole") / "log.sqlite")
    return log.appends


def test_a_run_that_dies_at_any_commit_needs_no_cell_again(commits: int, tmp_path: Path) -> None:
    restored = 0
    for number in range(2, commits + 1):
        path = tmp_path / f"{number}.sqlite"
        run_id, asked, _ = begun(path, dies_at=number, after=number % 2 == 0)
        there = places(path, run_id)
        cells = sum(isinstance(event, CodeExecuted) for _, event in there)
        # A process that dies with an event can't save what it says: the place before is used.
        last_is_unsaved = bool(there) and there[-1][0] not in saved_at(path)
        sessions = Sessions()
        result, again = resumed(path, run_id, sessions)
        assert result.output == ANSWER
        assert len(set(again) & set(asked)) <= 8, "only what was in flight is asked again"
        repeated = [code for code in sessions.started if code in CODE[:cells]]
        assert len(repeated) <= last_is_unsaved, number
        restored += sessions.restored
    assert restored > commits / 2


def test_a_batch_of_many_subcalls_is_one_snapshot(path: Path) -> None:
    run_id, _, log = begun(path)
    there = places(path, run_id)
    assert log.saves == len(there) == 8
    assert saved_at(path) == [seq for seq, _ in there[-2:]]


def test_a_session_comes_back_in_the_middle_of_a_cell(
    killed: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions()
    pause = saved_at(path)[-1]
    with caplog.at_level(logging.INFO):
        result, asked = resumed(path, killed, sessions)
    assert (result.output, sessions.started, sessions.restored) == (ANSWER, [], 1)
    assert asked == ["shout four", "turn 3"]
    assert f"is back from its snapshot at event {pause}; cells run again: 0" in caplog.text
    assert replay(killed, log=path).output == ANSWER


def damage_newest(path: Path) -> None:
    sql(path, "UPDATE snapshots SET digest = 'x' WHERE seq = (SELECT max(seq) FROM snapshots)")


def damage_all(path: Path) -> None:
    sql(path, "UPDATE snapshots SET data = zeroblob(9)")


def delete_all(path: Path) -> None:
    sql(path, "DELETE FROM snapshots")


def write_other_bytes(path: Path) -> None:
    """As if another version had written them: whole, and not understood."""
    rows = sql(path, "SELECT run_id, frame, seq FROM snapshots")
    with SqliteLog(path) as log:
        for run_id, _, seq in rows:
            log.save_snapshot(RunId(str(run_id)), ROOT, int(str(seq)), b"another version's")


@pytest.mark.parametrize(
    ("harm", "restored", "again"),
    [(damage_newest, 1, 0), (damage_all, 0, 3), (delete_all, 0, 3), (write_other_bytes, 0, 3)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_without_a_good_snapshot_the_cells_are_run_again(
    killed: str, path: Path, harm: Callable[[Path], None], restored: int, again: int
) -> None:
    harm(path)
    sessions = Sessions()
    result, asked = resumed(path, killed, sessions)
    assert result.output == ANSWER
    assert (sessions.restored, len(sessions.started)) == (restored, again)
    assert asked == ["shout four", "turn 3"]


def test_a_snapshot_from_under_other_limits_is_not_used(
    killed: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions(cell_timeout_s=60.0)
    result, asked = resumed(path, killed, sessions)
    assert (result.output, sessions.restored, len(sessions.started)) == (ANSWER, 0, 3)
    assert asked == ["shout four", "turn 3"]
    assert "isn't used: it was made by" in caplog.text


def test_a_session_that_stands_elsewhere_than_its_snapshot_says_diverges(
    killed: str, path: Path
) -> None:
    older, newer = saved_at(path)
    with SqliteLog(path) as log:
        earlier = log.snapshot(RunId(killed), ROOT, until=older)
        assert earlier is not None
        log.save_snapshot(RunId(killed), ROOT, newer, earlier.data)
    with pytest.raises(ReplayDiverged) as caught:
        resumed(path, killed, Sessions())
    assert (caught.value.seq, caught.value.expected, caught.value.found) == (
        newer,
        ["shout four"],
        ["shout three"],
    )


def test_a_session_between_two_cells_is_not_taken_for_a_paused_one(killed: str, path: Path) -> None:
    there = places(path, killed)

    async def written() -> bytes | None:
        repl = Sessions()(Context.from_text(TEXT))
        await repl.start(CODE[0])
        data = await repl.snapshot()
        await repl.close()
        return data

    data = asyncio.run(written())
    assert data is not None
    with SqliteLog(path) as log:
        log.save_snapshot(RunId(killed), ROOT, there[-1][0], data)
    with pytest.raises(ReplayDiverged, match="another one than its event says"):
        resumed(path, killed, Sessions())


def test_a_replay_runs_the_code_and_uses_no_snapshot(path: Path) -> None:
    log = Watched(path)
    options: dict[str, Any] = {"repl_backend": "monty", "repl_limits": ReplLimits(snapshots=ALWAYS)}
    with log.log:
        result = run("q", TEXT, adapter=Model(log), log=log, **options)
    assert saved_at(path)
    write_other_bytes(path)
    again = replay(result.run_id, log=path, run_code=True, repl_limits=options["repl_limits"])
    assert again.output == result.output == ANSWER


def test_a_fork_uses_the_snapshots_of_what_it_shares(path: Path) -> None:
    # A commit is shared whole or not at all: a pause and the intents of its calls are one.
    parent, _, _ = begun(path)
    *_, (older, _), (newest, _) = places(path, parent)
    for at, restored, again in (
        (newest + 1, 1, 0),
        (newest, 1, 0),
        (older + 1, 1, 0),
        (older, 0, 3),
    ):
        log, sessions = Watched(path), Sessions(NEVER)
        model = Model(log, waits=False)
        with log.log:
            result = fork(
                parent,
                at=at,
                log=log,
                adapter=model,
                repl_backend=sessions,
                repl_limits=sessions.limits,
            )
        assert result.output == ANSWER
        assert (sessions.restored, len(sessions.started)) == (restored, again), at
        assert len(model.asked) == (1 if at >= newest else 2)


def test_a_resumed_run_writes_its_sessions_down_again(killed: str, path: Path) -> None:
    before = saved_at(path)
    result, _ = resumed(path, killed, Sessions(), waits=True)
    assert result.output == ANSWER
    assert saved_at(path)[-1] > before[-1]


def test_the_sessions_of_sub_runs_are_written_down_and_forgotten_with_them(path: Path) -> None:
    log = Watched(path)

    class Nested(Model):
        async def acomplete(self, messages: Any, *, max_tokens: int, temperature: float) -> Any:
            inner = messages[0]["content"].startswith("You are a sub-LLM that")
            if "sub-LLM" in messages[0]["content"] and not inner:
                return await super().acomplete(messages, max_tokens=1, temperature=0.0)
            await self.log.all_saved.wait()
            frames.update(str(frame) for (frame,) in sql(path, "SELECT frame FROM snapshots"))
            turn = sum(message["role"] == "assistant" for message in messages)
            mine = ["word = llm_query('shout ' + P)", "FINAL_VAR: word"]
            return ModelResponse((mine if inner else OUTER)[turn], Usage(1, 1, 2))

    frames: set[str] = set()
    outer = ["found = llm_batch(['look into the word ' + word for word in P.split()])"]
    OUTER = [*outer, "FINAL_VAR: found"]
    sessions = Sessions()
    with log.log:
        result = run(
            "q",
            "fig plum",
            adapter=Nested(log),
            log=log,
            repl_backend=sessions,
            repl_limits=sessions.limits,
            recursive_subcalls=True,
            max_recursion_depth=1,
        )
    assert "FIG" in result.output
    assert frames == {"0", "0.1", "0.2"}
    assert {str(frame) for (frame,) in sql(path, "SELECT DISTINCT frame FROM snapshots")} == {"0"}
