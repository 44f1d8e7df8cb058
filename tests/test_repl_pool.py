"""Processes that were started before a session needs them: who gets them, and that none is left."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

from repl_driving import answer_all, settings_of
from repl_python import comes_true, descendants, is_running, own_children, sessions

from effects.context import Context
from effects.repls._pool import POOL, Keeper, Pool
from effects.repls._process import Started
from effects.repls.python import PythonRepl
from rlm_fsm.values import CodeResult

ROOT = Path(__file__).parent.parent
PLAN = {"without": (), "scratch_bytes": 1 << 20}


class Made:
    """Counts what is started and ended; it takes no process to see how many are wanted."""

    def __init__(self) -> None:
        self.living = list["Spare"]()
        self.started = 0

    def __call__(self) -> "Spare":
        self.started += 1
        self.living.append(Spare(self))
        return self.living[-1]


class Spare:
    def __init__(self, made: Made) -> None:
        self._made = made
        self.dies = False

    def is_alive(self) -> bool:
        return not self.dies

    def end(self) -> None:
        self._made.living.remove(self)


def started() -> Started:
    return Started(PLAN)


async def session(code: str, text: str = "some text") -> CodeResult:
    """The result of a cell in a session of its own."""
    repl = PythonRepl(Context.from_text(text), settings_of())
    try:
        return await answer_all(repl, code)
    finally:
        await repl.close()


def test_a_keeper_has_as_many_spares_as_were_asked_for_and_no_more_than_it_may() -> None:
    made = Made()
    keeper = Keeper(made, most=2)
    assert keeper.take() is None
    assert comes_true(lambda: keeper.spares == 1)
    assert keeper.take() is not None
    assert comes_true(lambda: keeper.spares == 2)
    assert keeper.take() is not None
    assert comes_true(lambda: keeper.spares == 2)
    assert made.started == 4
    keeper.stop()
    keeper.join()
    assert len(made.living) == 2  # those that were taken


def test_spares_that_nobody_takes_are_ended_and_come_back_with_use() -> None:
    made = Made()
    keeper = Keeper(made, most=2, idle_s=0.2)
    keeper.take()
    assert comes_true(lambda: made.started == 1)
    assert comes_true(lambda: not made.living)
    keeper.take()
    assert comes_true(lambda: made.started == 2)
    keeper.stop()
    keeper.join()
    assert not made.living


def test_a_spare_that_has_died_is_given_to_nobody() -> None:
    made = Made()
    keeper = Keeper(made, most=1)
    keeper.take()
    assert comes_true(lambda: keeper.spares == 1)
    made.living[0].dies = True
    assert keeper.take() is None
    assert comes_true(lambda: [spare.dies for spare in made.living] == [False])
    keeper.stop()
    keeper.join()


def test_a_system_that_refuses_processes_is_not_asked_again_until_the_next_session() -> None:
    asked = list[int]()

    def refuse() -> Spare:
        asked.append(1)
        raise OSError("no more processes")

    keeper = Keeper(refuse, most=4)
    for times in (1, 2):
        assert keeper.take() is None
        assert comes_true(lambda times=times: len(asked) == times)
    keeper.stop()
    keeper.join()
    assert len(asked) == 2


def test_a_pool_keeps_nothing_for_a_single_session_nor_while_it_is_not_in_use() -> None:
    made, pool = Made(), Pool[Spare](most=2)

    async def use() -> None:
        assert pool.take("a", made) is None
        async with pool.in_use():
            assert pool.take("a", made) is None
            assert pool.take("b", made) is None
            assert threads() == 0
            assert pool.take("a", made) is None
            assert comes_true(lambda: made.started == 1)
            async with pool.in_use():
                pass
            assert made.living
        assert not made.living
        assert pool.take("a", made) is None

    def threads() -> int:
        return sum(thread.name == "rlm-pool" for thread in threading.enumerate())

    asyncio.run(use())
    assert threads() == 0


def test_sessions_of_any_event_loop_get_processes_that_were_started_before() -> None:
    before = set(own_children())
    plan = {"without": (), "scratch_bytes": settings_of().limits.scratch_bytes}

    async def use() -> None:
        async with POOL.in_use():
            for number in range(4):
                code = "print('left' in dir(), P); left = 1; open('left', 'x').close()"
                result = await session(code, f"text {number}")
                assert result.stdout == f"False text {number}\n", result.error
            spares = list[Started]()

            def takes_one() -> bool:
                spare = None if spares else POOL.take(repr(plan), lambda: Started(plan))
                spares.extend([] if spare is None else [spare])
                return bool(spares)

            assert comes_true(takes_one)
            spares[0].end()

    for _ in range(2):
        asyncio.run(use())
    assert set(own_children()) <= before


def test_a_spare_process_ends_with_a_host_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from effects.repls._pool import Keeper\n"
        "from effects.repls._process import Started\n"
        f"keeper = Keeper(lambda: Started({PLAN}), most=1)\n"
        "keeper.take()\n"
        "while not keeper.spares: time.sleep(0.01)\n"
        "print('kept', flush=True)\n"
        "time.sleep(60)\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "kept\n"
        pids = descendants(host.pid)
        assert pids
        host.kill()
    assert comes_true(lambda: not any(map(is_running, pids)))


def test_a_spare_process_that_is_ended_leaves_no_folder_and_no_process() -> None:
    spare = started()
    folder, pid = Path(spare.scratch.path), spare.process.pid
    assert spare.is_alive()
    assert folder.is_dir()
    spare.end()
    assert not folder.exists()
    assert comes_true(lambda: pid not in sessions())


def test_a_forked_copy_of_the_program_does_not_use_its_parents_spares() -> None:
    program = (
        "import asyncio, os, time\n"
        "from effects.repls._pool import Pool\n"
        "from effects.repls._process import Started\n"
        "def take(): return pool.take('a', made)\n"
        f"def made(): return Started({PLAN})\n"
        "pool = Pool()\n"
        "async def use():\n"
        "    async with pool.in_use():\n"
        "        take(), take()\n"
        "        while not pool._keepers['a'].spares: time.sleep(0.01)\n"
        "        copy = os.fork()\n"
        "        if not copy: os._exit(0 if take() is None else 1)\n"
        "        print(os.waitpid(copy, 0)[1])\n"
        "        spare = take()\n"
        "        print(spare.is_alive())\n"
        "        spare.end()\n"
        "asyncio.run(use())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\nTrue\n", "")
