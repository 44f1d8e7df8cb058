"""When sessions are written down: the rule, and what a run does with it."""

import asyncio
import logging
import math
from collections.abc import Sequence

import pytest

from effects.log.memory import MemoryLog
from effects.repls.base import Paused, SnapshotRule
from effects.saving import Saver
from rlm_fsm import FakeAdapter, ReplLimits, run
from rlm_fsm.effect import Effect, ResumeCode, RunCode
from rlm_fsm.event import CodeExecuted, CodePaused, Event
from rlm_fsm.ids import ROOT, CallId, FrameId
from rlm_fsm.values import CodeResult, HostCall, ReadResult
from tests.log_contract import RUN, intent, started

CELL = CallId("0.c1")


class Session:
    """A session whose snapshot takes a told time by a clock that stands still otherwise."""

    def __init__(self, data: bytes | None = b"session", takes_s: float = 0.0) -> None:
        self.data, self.takes_s = data, takes_s
        self.now_s = 0.0
        self.taken = 0

    async def snapshot(self) -> bytes | None:
        self.taken += 1
        await asyncio.sleep(0)
        self.now_s += self.takes_s
        if self.data == b"broken":
            raise RuntimeError("the backend is broken")
        return self.data

    async def restore(self, data: bytes) -> Paused | None:
        raise NotImplementedError

    async def open(self) -> None:
        raise NotImplementedError

    async def start(self, code: str, watch: tuple[str, ...] = ()) -> Paused | CodeResult:
        raise NotImplementedError

    async def resume(self, answers: object) -> Paused | CodeResult:
        raise NotImplementedError

    async def read(self, name: str) -> ReadResult:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Desk:
    """A saver at work: a log, a session, and events that are committed one by one."""

    def __init__(self, session: Session, **rule: float) -> None:
        self.session, self.log = session, MemoryLog()
        self.log.append(RUN, 0, [started()])
        self.saver = Saver(
            run_id=RUN,
            log=self.log,
            rule=SnapshotRule(**rule),  # type: ignore[arg-type]
            clock=lambda: session.now_s,
        )

    def commit(self, event: Event, effects: Sequence[Effect] = ()) -> int:
        seq = len(list(self.log.load(RUN)))
        self.log.append(RUN, seq, [event])
        self.saver.note(seq, [event])
        self.saver.start({ROOT: self.session}, effects)
        return seq + 1

    async def settle(self) -> None:
        for _ in range(9):
            await asyncio.sleep(0)

    def saved(self) -> int | None:
        """The event whose snapshot is the newest."""
        found = self.log.snapshot(RUN, ROOT)
        return found and found.seq


def ended(elapsed_s: float, *, lost: bool = False) -> CodeExecuted:
    return CodeExecuted(frame=ROOT, call_id=CELL, elapsed_s=elapsed_s, repl_lost=lost)


def paused(elapsed_s: float) -> CodePaused:
    calls = (HostCall(fn="llm_query", prompt="q"),)
    return CodePaused(frame=ROOT, call_id=CELL, calls=calls, elapsed_s=elapsed_s)


def test_a_snapshot_is_due_when_the_cells_have_computed_for_long_enough() -> None:
    async def main() -> list[int | None]:
        desk = Desk(Session(), after_s=1.0)
        seen: list[int | None] = []
        for event in (ended(0.4), paused(0.4), ended(0.3), ended(0.9), ended(0.2)):
            desk.commit(event)
            await desk.settle()
            seen.append(desk.saved())
        return seen

    assert asyncio.run(main()) == [None, None, 4, 4, 6]


def test_a_snapshot_that_took_long_makes_the_next_one_wait() -> None:
    async def main() -> list[int | None]:
        desk = Desk(Session(takes_s=0.5), after_s=1.0, most_share=0.1)
        seen: list[int | None] = []
        for elapsed_s in (1.0, 4.9, 0.2, 5.1):
            desk.commit(ended(elapsed_s))
            await desk.settle()
            seen.append(desk.saved())
        return seen

    assert asyncio.run(main()) == [2, 2, 4, 5]


def test_a_rule_can_say_never() -> None:
    async def main() -> int:
        desk = Desk(Session(), after_s=math.inf)
        desk.commit(ended(1e9))
        await desk.settle()
        return desk.session.taken

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("effect", [RunCode, ResumeCode])
def test_a_session_that_goes_on_at_once_is_not_written_down(effect: type) -> None:
    async def main() -> tuple[int, int | None]:
        desk = Desk(Session(), after_s=1.0)
        next_ = (
            RunCode(frame=ROOT, call_id=CELL, code="x = 1")
            if effect is RunCode
            else ResumeCode(frame=ROOT, call_id=CELL, outcomes=())
        )
        desk.commit(paused(2.0), [next_])
        await desk.settle()
        taken = desk.session.taken
        desk.commit(paused(0.0))
        await desk.settle()
        return taken, desk.saved()

    assert asyncio.run(main()) == (0, 3)


def test_a_session_that_moves_before_its_snapshot_begins_is_not_written_down() -> None:
    async def main() -> int:
        desk = Desk(Session(), after_s=1.0)
        desk.commit(paused(2.0))
        desk.saver.moves(ROOT)
        await desk.settle()
        return desk.session.taken

    assert asyncio.run(main()) == 0


def test_a_snapshot_bears_the_event_at_which_it_was_begun() -> None:
    async def main() -> tuple[int | None, int]:
        desk = Desk(Session(), after_s=0.0)
        seq = desk.commit(paused(2.0))
        await asyncio.sleep(0)  # it has begun; the session's own queue comes after it
        desk.saver.moves(ROOT)
        desk.commit(ended(2.0))
        await desk.settle()
        return desk.saved(), seq

    saved, seq = asyncio.run(main())
    assert saved == seq


def test_a_pause_is_written_down_once_whatever_is_committed_while_it_lasts() -> None:
    async def main() -> int:
        desk = Desk(Session(), after_s=0.0)
        desk.commit(paused(2.0))
        for number in range(9):
            desk.commit(intent(number))
            if number % 3 == 0:
                await desk.settle()
        return desk.session.taken

    assert asyncio.run(main()) == 1


def test_a_session_that_was_lost_is_not_written_down() -> None:
    async def main() -> int:
        desk = Desk(Session(), after_s=1.0)
        desk.commit(ended(9.0, lost=True))
        await desk.settle()
        return desk.session.taken

    assert asyncio.run(main()) == 0


def test_a_snapshot_that_is_too_large_or_impossible_is_not_kept_nor_soon_tried_again() -> None:
    async def main(data: bytes | None) -> tuple[int, int | None]:
        desk = Desk(Session(data, takes_s=1.0), after_s=0.0, most_share=0.5, most_bytes=10)
        for _ in range(3):
            desk.commit(ended(0.9))
            await desk.settle()
        return desk.session.taken, desk.saved()

    assert asyncio.run(main(bytes(11))) == (1, None)
    assert asyncio.run(main(None)) == (1, None)
    assert asyncio.run(main(bytes(10))) == (1, 2)


def test_a_snapshot_that_fails_is_logged_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> int | None:
        desk = Desk(Session(b"broken"), after_s=1.0)
        desk.commit(ended(2.0))
        await desk.settle()
        return desk.saved()

    assert asyncio.run(main()) is None
    assert "no snapshot of frame 0: the backend is broken" in caplog.text


def test_the_snapshots_of_a_frame_that_has_ended_are_dropped() -> None:
    async def main() -> list[int | None]:
        desk = Desk(Session(), after_s=1.0)
        desk.commit(ended(2.0))
        await desk.settle()
        seen = [desk.saved()]
        desk.saver.forget(FrameId("0.1"))
        seen.append(desk.saved())
        desk.saver.forget(ROOT)
        return [*seen, desk.saved()]

    assert asyncio.run(main()) == [2, 2, None]


def test_a_frame_that_ends_during_its_snapshot_leaves_none() -> None:
    async def main() -> tuple[int, int | None]:
        desk = Desk(Session(), after_s=1.0)
        desk.commit(ended(2.0))
        await asyncio.sleep(0)
        desk.saver.forget(ROOT)
        await desk.settle()
        return desk.session.taken, desk.saved()

    assert asyncio.run(main()) == (1, None)


def test_stopping_gives_up_what_is_under_way() -> None:
    async def main() -> int | None:
        desk = Desk(Session(), after_s=1.0)
        desk.commit(ended(2.0))
        await asyncio.sleep(0)
        await desk.saver.stop()
        await desk.settle()
        return desk.saved()

    assert asyncio.run(main()) is None


@pytest.mark.parametrize("backend", ["python", "monty"])
def test_a_short_run_writes_nothing_down(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()
    script = ["x = llm_query('a')", "yes", "FINAL_VAR: x"]
    with caplog.at_level(logging.INFO):
        result = run("q", "text", adapter=FakeAdapter(script=script), log=log, repl_backend=backend)
    assert result.output == "yes"
    assert log.snapshot(result.run_id, ROOT) is None
    assert ReplLimits().snapshots.after_s >= 0.5
