"""The `python` backend: when host and child wait awake, and that nothing else differs."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from repl_driving import answer_all
from repl_python import PythonDriving

from effects.repls import _pace
from effects.repls._pace import CHILD_SPIN_S, MOST_SKIPPED, TURN_S, Pace
from effects.repls.base import Repl
from rlm_fsm.values import CodeResult

ROOT = Path(__file__).parent.parent
SOON_S = CHILD_SPIN_S / 2
NEITHER, CHILD_ONLY, BOTH = (False, False), (False, True), (True, True)


class Exchanges:
    """Requests and answers of a `Pace` at times of our choosing."""

    def __init__(self, processors: int = 2) -> None:
        self.pace = Pace(processors)
        self.now_s = 100.0

    def exchange(self, gap_s: float = SOON_S, *, in_vain: bool = False) -> tuple[bool, bool]:
        """A request after a gap, answered at once. Who spins: the host for it, the child after."""
        self.now_s += gap_s
        spins, child_spins = self.pace.asks(self.now_s)
        if spins:
            self.pace.spun(in_vain=in_vain)
        self.pace.answered(self.now_s)
        return spins, child_spins

    def blocks(self, gap_s: float = SOON_S, *, in_vain: bool = False) -> bool:
        """The same where nobody spins. Whether the host waits beside its event loop."""
        self.now_s += gap_s
        self.pace.asks(self.now_s)
        blocks = self.pace.blocks()
        if blocks:
            self.pace.blocked(in_vain=in_vain)
        self.pace.answered(self.now_s)
        return blocks


class TestPace:
    def test_spinning_begins_with_a_request_that_follows_an_answer_quickly(self) -> None:
        driven = Exchanges()
        assert [driven.exchange() for _ in range(4)] == [NEITHER, CHILD_ONLY, BOTH, BOTH]

    def test_nobody_spins_around_a_slow_model(self) -> None:
        driven = Exchanges()
        assert {driven.exchange(gap_s=1.0) for _ in range(9)} == {NEITHER}

    def test_the_host_does_not_spin_for_a_child_that_has_gone_to_sleep(self) -> None:
        driven = Exchanges()
        for _ in range(3):
            driven.exchange()
        assert driven.exchange(gap_s=1.0) == NEITHER
        assert driven.exchange() == CHILD_ONLY
        assert driven.exchange() == BOTH

    def test_nobody_spins_with_one_processor(self) -> None:
        driven = Exchanges(processors=1)
        assert {driven.exchange() for _ in range(9)} == {NEITHER}

    def test_nobody_spins_while_another_session_waits(self) -> None:
        driven, other = Exchanges(), Pace(2)
        for _ in range(3):
            driven.exchange()
        other.sleeps()
        try:
            assert [driven.exchange() for _ in range(2)] == [NEITHER, NEITHER]
        finally:
            other.wakes(0.0)
        assert [driven.exchange() for _ in range(2)] == [CHILD_ONLY, BOTH]

    def test_a_host_that_does_not_spin_waits_beside_its_loop_while_answers_are_quick(self) -> None:
        driven = Exchanges(processors=1)
        assert [driven.blocks() for _ in range(4)] == [False, True, True, True]
        assert not driven.blocks(gap_s=1.0)
        assert driven.blocks()

    def test_waiting_beside_the_loop_in_vain_becomes_rare(self) -> None:
        driven = Exchanges(processors=1)
        found = [driven.blocks(in_vain=True) for _ in range(100)]
        at = [number for number, blocked in enumerate(found) if blocked]
        gaps = [later - earlier - 1 for earlier, later in pairwise(at)]
        assert gaps[:4] == [1, 3, 7, MOST_SKIPPED]

    def test_nobody_waits_beside_the_loop_while_another_session_waits(self) -> None:
        driven, other = Exchanges(processors=1), Pace(1)
        assert [driven.blocks(), driven.blocks()] == [False, True]
        other.sleeps()
        try:
            assert not driven.blocks()
        finally:
            other.wakes(0.0)
        assert driven.blocks()

    def test_spins_in_vain_become_rare_but_do_not_end(self) -> None:
        driven = Exchanges()
        spins = [driven.exchange(in_vain=True)[0] for _ in range(200)]
        at = [number for number, spun in enumerate(spins) if spun]
        gaps = [later - earlier - 1 for earlier, later in pairwise(at)]
        assert gaps[:4] == [1, 3, 7, MOST_SKIPPED]
        assert set(gaps[4:]) == {MOST_SKIPPED}

    def test_the_child_is_awake_when_spinning_is_tried_again(self) -> None:
        driven = Exchanges()
        seen = [driven.exchange(in_vain=True) for _ in range(100)]
        for before, after in pairwise(seen):
            assert before[1] or not after[0]

    def test_a_spin_that_finds_its_answer_forgets_those_in_vain(self) -> None:
        driven = Exchanges()
        for _ in range(50):
            driven.exchange(in_vain=True)
        seen = [driven.exchange()[0] for _ in range(MOST_SKIPPED + 5)]
        assert all(seen[-4:])

    def test_the_event_loop_is_due_a_turn_now_and_then(self) -> None:
        pace = Pace(2)
        assert [pace.answered(s) for s in (10.0, 10.0 + TURN_S / 2, 10.0 + 2 * TURN_S)] == [
            True,
            False,
            True,
        ]

    def test_a_request_that_slept_has_given_the_loop_its_turn(self) -> None:
        pace = Pace(2)
        pace.sleeps()
        pace.wakes(10.0)
        assert not pace.answered(10.0 + TURN_S / 2)


@pytest.fixture
def spins(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each spin of this process was in vain, as they happen."""
    seen: list[bool] = []
    spun: Callable[..., None] = Pace.spun

    def noted(self: Pace, *, in_vain: bool) -> None:
        seen.append(in_vain)
        spun(self, in_vain=in_vain)

    monkeypatch.setattr(Pace, "spun", noted)
    return seen


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch, spins: list[bool]) -> list[bool]:
    """Make the host spin for every answer but the first two, long enough to find most."""

    def processors(_: int) -> set[int]:
        return {0, 1}

    monkeypatch.setattr(os, "sched_getaffinity", processors)
    monkeypatch.setattr(_pace, "CHILD_SPIN_S", 60.0)
    monkeypatch.setattr(_pace, "MOST_SKIPPED", 0)
    monkeypatch.setattr("effects.repls._process.HOST_SPIN_S", 0.5)
    return spins


class TestSpinning(PythonDriving):
    def test_quick_answers_are_found_awake(self, eager: list[bool]) -> None:
        cells = ["x = 0", *["x += 1\nprint(llm_query(str(x)))"] * 20]
        assert self.output(*cells) == "20\n"
        assert eager.count(False) >= 30

    def test_large_frames_pass_while_spinning(self, eager: list[bool]) -> None:
        large = "x = llm_query('ä' * 2_000_000)\nprint(len(x), x[-1])"
        output = self.output("1", "2", large, large, answerer=lambda p: p + "€")
        assert output == "2000001 €\n"
        assert False in eager

    def test_a_frame_that_arrives_in_pieces_is_put_together(self, eager: list[bool]) -> None:
        frame = b'{"t":"end","out":"whole","chars":5,"error":null,"watched":{}}'
        code = (
            "import gc, os, stat, time\n"
            "[mark] = [o._mark for o in gc.get_objects() if type(o).__name__ == 'Wire']\n"
            f"whole = {len(frame).to_bytes(4, 'big')!r} + mark + {frame!r}\n"
            "for fd in range(3, 100):\n"
            "    try:\n"
            "        if stat.S_ISSOCK(os.fstat(fd).st_mode):\n            break\n"
            "    except OSError:\n        pass\n"
            "for at in range(len(whole)):\n"
            "    os.write(fd, whole[at:at + 1])\n"
            "    time.sleep(0.001)\n"
            "os._exit(0)"
        )
        assert self.cells("1", "2", code)[-1].stdout == "whole"
        assert eager[-1] is False

    def test_a_child_that_dies_while_the_host_spins_is_a_result(self, eager: list[bool]) -> None:
        *_, lost, fresh = self.cells("1", "2", "import os\nos._exit(3)", "print('on')")
        assert lost.error is not None
        assert "exited with code 3" in lost.error.message
        assert fresh.stdout == "on\n"
        assert eager

    def test_nonsense_that_is_found_awake_ends_the_process(self, eager: list[bool]) -> None:
        code = (
            "import os\n"
            "for fd in range(3, 300):\n"
            "    try:\n        os.write(fd, b'\\0\\0\\0\\2[]')\n"
            "    except OSError:\n        pass"
        )
        lost = self.cells("1", "2", code)[-1]
        assert lost.error is not None
        assert "no answer" in lost.error.message
        assert eager

    @pytest.mark.usefixtures("eager")
    def test_code_that_cannot_be_stopped_is_killed_after_a_spin(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("effects.repls._process.HOST_SPIN_S", 0.01)
        monkeypatch.setattr("effects.repls.python.GRACE_S", 0.3)
        lost = self.cells("1", "2", "sum(range(10 ** 12))", cell_timeout_s=0.2)[-1]
        assert lost.error is not None
        assert lost.error.kind == "CellTimeout"

    @pytest.mark.usefixtures("eager")
    def test_answers_found_awake_leave_the_event_loop_its_turns(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_pace, "TURN_S", 0.0)

        async def scenario(repl: Repl) -> int:
            turns = 0

            async def turn() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            await answer_all(repl, "x = 1")
            turning = asyncio.create_task(turn())
            for _ in range(20):
                await answer_all(repl, "x = 1")
            turning.cancel()
            return turns

        assert self.session(scenario) >= 20

    @pytest.mark.usefixtures("eager")
    def test_cancelling_a_cell_whose_answer_was_found_awake_loses_the_session(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_pace, "TURN_S", 0.0)

        async def scenario(repl: Repl) -> list[CodeResult]:
            for _ in range(3):
                await answer_all(repl, "x = 1")
            running = asyncio.create_task(repl.start("x = 2"))
            asyncio.get_running_loop().call_soon(running.cancel)
            with pytest.raises(asyncio.CancelledError):
                await running
            return [await answer_all(repl, "print('on')") for _ in range(2)]

        lost, fresh = self.session(scenario)
        assert lost.repl_lost
        assert fresh.stdout == "on\n"

    def test_long_cells_are_rarely_spun_for(self, spins: list[bool]) -> None:
        self.cells(*["import time\ntime.sleep(0.002)"] * 40)
        # In vain, so after 1, 3, 7 and then 12 others each.
        assert len(spins) <= 7

    def test_a_session_on_one_processor_does_not_spin(self) -> None:
        program = (
            "import asyncio, os\n"
            "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
            "from effects.context import Context\n"
            "from effects.repls._pace import Pace\n"
            "from effects.repls.python import PythonRepl\n"
            "spins = []\n"
            "Pace.spun = lambda self, *, in_vain: spins.append(in_vain)\n"
            "async def main():\n"
            "    repl = PythonRepl(Context.from_text('x'))\n"
            "    await repl.start('x = 0')\n"
            "    for _ in range(50):\n"
            "        await repl.start('x += 1')\n"
            "    print((await repl.read('x')).text, spins)\n"
            "    await repl.close()\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("50 []\n", "")

    def test_many_sessions_side_by_side_answer_their_own(self) -> None:
        async def work(repl: Repl, number: int) -> str:
            try:
                for _ in range(30):
                    await answer_all(repl, f"x = {number}")
                return (await answer_all(repl, "print(x, llm_query(str(x)))")).stdout
            finally:
                await repl.close()

        async def main() -> list[str]:
            repls = [await self.make("text") for _ in range(4)]
            return await asyncio.gather(*(work(repl, i) for i, repl in enumerate(repls)))

        assert asyncio.run(main()) == [f"{i} {i}\n" for i in range(4)]
