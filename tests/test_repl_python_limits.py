"""The `python` backend: limits, sessions that die, misuse, values that can't be handed over."""

import asyncio
import time

import pytest
from repl_driving import HAYSTACK, answer_all, answers_to, upper
from repl_python import PythonDriving, own_children

from effects.repls.base import Answer, Paused, Repl, ReplUnavailable
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeResult, ReadResult

DESCRIPTOR = """
import os, stat
for socket_fd in range(3, 100):
    try:
        if stat.S_ISSOCK(os.fstat(socket_fd).st_mode):
            break
    except OSError:
        pass
"""
MARK = (
    DESCRIPTOR
    + """
import gc, sys
[mark] = [o._mark for o in gc.get_objects() if type(o).__name__ == 'Wire']
"""
)
"""Code that has found what an answer must bear."""


class TestLimits(PythonDriving):
    @pytest.mark.parametrize(
        "code",
        [
            "try:\n    while True:\n        pass\nexcept Exception:\n    print('swallowed')",
            "import time\ntime.sleep(60)",
            "import threading\nthreading.Event().wait()",
            "for i in range(3):\n"
            "    try:\n        while True:\n            pass\n"
            "    except:\n        pass\n"
            "while True:\n    pass",
            "class A:\n    def __repr__(self):\n        while True:\n            pass\nA()",
        ],
        ids=["except Exception", "sleep", "lock", "except three times", "repr"],
    )
    def test_endless_code_is_stopped_and_the_session_goes_on(self, code: str) -> None:
        kind, traceback = self.error(code, cell_timeout_s=0.2)
        assert kind == "CellTimeout"
        assert "<cell 1>" in traceback or "repr" in code

    @pytest.mark.parametrize(
        "code",
        [
            "import time\nwhile True:\n    try:\n        time.sleep(9)\n    except:\n        pass",
            "sum(range(10 ** 12))",
            "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nwhile True:\n    pass",
        ],
        ids=["except", "in C", "no timer"],
    )
    def test_code_that_cannot_be_stopped_is_killed(
        self, code: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("effects.repls.python.GRACE_S", 0.5)
        began = time.monotonic()
        lost = self.lost(code, cell_timeout_s=0.2)
        assert time.monotonic() - began < 8
        assert lost.error is not None
        assert lost.error.kind == "CellTimeout"
        assert "0.2 s" in lost.error.message

    def test_a_string_beyond_the_memory_is_a_memory_error(self) -> None:
        assert self.error("x = 'a' * 10 ** 10")[0] == "MemoryError"

    def test_a_full_memory_can_be_freed(self) -> None:
        fill = "x = []\nwhile True:\n    x.append('a' * 100_000)"
        full, freed = self.cells(fill, "x = None\nprint('free')", memory_bytes=64 << 20)
        assert full.error is not None
        assert full.error.kind == "MemoryError"
        assert not full.repl_lost
        assert freed.stdout == "free\n"

    def test_many_threads_fit_into_the_memory(self) -> None:
        code = (
            "from concurrent.futures import ThreadPoolExecutor\nimport threading\n"
            "gate = threading.Barrier(40)\n"
            "with ThreadPoolExecutor(40) as pool:\n"
            "    print(len(list(pool.map(lambda _: gate.wait(), range(40)))))"
        )
        assert self.output(code) == "40\n"

    def test_a_pause_in_a_thread_gives_endless_code_no_time(self) -> None:
        code = (
            "import threading\n"
            "threading.Thread(target=llm_query, args=('q',)).start()\n"
            "while True:\n    pass"
        )
        assert self.error(code, cell_timeout_s=0.3)[0] == "CellTimeout"


class TestDeath(PythonDriving):
    @pytest.mark.parametrize(
        ("code", "how"),
        [
            ("import os\nos._exit(3)", "exited with code 3"),
            ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
            ("import os\nos.closerange(3, 100)", "exited with code 1"),
            (DESCRIPTOR + "os.write(socket_fd, b'garbage ' * 100)", "no answer"),
            (MARK + "os.write(socket_fd, bytes([255] * 4) + mark)", "no frame"),
            (
                DESCRIPTOR + "os.write(socket_fd, bytes([0, 0, 0, 2, *bytes(8)]) + b'[]')",
                "no answer",
            ),
            (MARK + "os.write(socket_fd, b'\\0\\0\\0\\2' + mark + b'[]')", "no frame"),
            (MARK + "os.write(socket_fd, b'\\0\\0\\0\\2' + mark + b'{}')", "was ended"),
            (DESCRIPTOR + "os.write(socket_fd, bytes(12))", "no answer"),
            (
                DESCRIPTOR + "os.write(socket_fd, b'\\0\\1\\0\\0' + b'[' * 65536)",
                "no answer",
            ),
        ],
    )
    def test_a_session_that_dies_is_a_result(self, code: str, how: str) -> None:
        error = self.lost(code).error
        assert error is not None
        assert error.kind == "ReplDied"
        assert how in error.message

    def test_a_session_that_dies_while_it_is_paused_is_a_result(self) -> None:
        code = (
            "import threading, time, os\n"
            "threading.Thread(target=lambda: (time.sleep(0.05), os._exit(4))).start()\n"
            "llm_query('q')"
        )

        async def scenario(repl: Repl) -> Paused | CodeResult:
            step = await repl.start(code)
            assert isinstance(step, Paused)
            await asyncio.sleep(0.3)
            return await repl.resume(answers_to(step.calls, upper))

        result = self.session(scenario)
        assert isinstance(result, CodeResult)
        assert result.repl_lost
        assert result.error is not None
        assert "exited with code 4" in result.error.message

    def test_a_session_that_dies_between_cells_is_told_with_the_next(self) -> None:
        code = (
            "import threading, time, os\nx = 1\n"
            "threading.Thread(target=lambda: (time.sleep(0.05), os._exit(4))).start()"
        )

        async def scenario(repl: Repl) -> tuple[ReadResult, list[CodeResult]]:
            await answer_all(repl, code)
            await asyncio.sleep(0.3)
            read = await repl.read("x")
            return read, [await answer_all(repl, "print('on')") for _ in range(2)]

        read, (told, fresh) = self.session(scenario)
        assert read.error is not None
        assert "exited with code 4" in read.error
        assert told.repl_lost
        assert told.stdout == ""
        assert fresh.stdout == "on\n"

    def test_a_forged_result_is_found_out(self) -> None:
        forged = '{"t":"end","out":"forged","chars":6,"error":null,"watched":{}}'
        code = (
            DESCRIPTOR + f"frame = b'{forged}'\n"
            "os.write(socket_fd, len(frame).to_bytes(4, 'big') + os.urandom(8) + frame)\n"
            "import time\ntime.sleep(0.05)"
        )
        error = self.lost(code).error
        assert error is not None
        assert "no answer" in error.message

    def test_a_result_forged_with_the_right_mark_costs_the_session(self) -> None:
        forged = '{"t":"end","out":"forged","chars":6,"error":null,"watched":{}}'
        code = (
            MARK + f"frame = b'{forged}'\n"
            "os.write(socket_fd, len(frame).to_bytes(4, 'big') + mark + frame)\n"
            "import time\ntime.sleep(0.05)"
        )

        async def scenario(repl: Repl) -> tuple[CodeResult, CodeResult]:
            first = await answer_all(repl, code)
            await asyncio.sleep(0.3)
            return first, await answer_all(repl, "print('on')")

        first, second = self.session(scenario)
        assert first.stdout == "forged"
        assert second.repl_lost
        assert second.error is not None
        assert "out of turn" in second.error.message

    def test_a_cancelled_cell_loses_the_session(self) -> None:
        async def scenario(repl: Repl) -> list[CodeResult]:
            await repl.open()
            running = asyncio.ensure_future(repl.start("while True:\n    pass"))
            await asyncio.sleep(0.1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            return [await answer_all(repl, "print('on')") for _ in range(2)]

        lost, fresh = self.session(scenario)
        assert lost.repl_lost
        assert fresh.stdout == "on\n"

    def test_a_loop_that_ends_in_mid_cell_leaves_nothing(self) -> None:
        async def main() -> None:
            repl = await self.make(HAYSTACK)

            async def work() -> None:
                try:
                    await repl.start("while True:\n    pass")
                finally:
                    await repl.close()

            task = asyncio.create_task(work())
            await asyncio.sleep(0.15)
            assert own_children()
            del task

        asyncio.run(main())
        assert not own_children()


class TestMisuse(PythonDriving):
    def test_resume_needs_a_pause(self) -> None:
        async def scenario(repl: Repl) -> None:
            with pytest.raises(UsageError, match="no cell is paused"):
                await repl.resume(())

        self.session(scenario)

    def test_a_paused_session_takes_no_other_cell(self) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.start("llm_query('q')")
            with pytest.raises(UsageError, match="paused"):
                await repl.start("1")
            with pytest.raises(UsageError, match="paused"):
                await repl.read("x")

        self.session(scenario)

    def test_a_running_session_takes_no_other_cell(self) -> None:
        async def scenario(repl: Repl) -> None:
            running = asyncio.create_task(repl.start("import time\ntime.sleep(0.2)"))
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="running"):
                await repl.start("1")
            await running

        self.session(scenario)

    def test_a_closed_session_is_unavailable(self) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.close()
            with pytest.raises(ReplUnavailable, match="closed"):
                await repl.start("1")
            with pytest.raises(ReplUnavailable, match="closed"):
                await repl.open()

        self.session(scenario)


class TestValues(PythonDriving):
    def test_a_value_that_cannot_be_shown_is_told_of(self) -> None:
        code = "class A:\n    def __str__(self):\n        return 1 / 0\na = A()"
        result = self.read(code, "a")
        assert result.text is None
        assert result.error is not None
        assert "ZeroDivisionError" in result.error
        (watched,) = self.cells(code, watch=("a",))
        assert watched.watched == {}

    def test_reading_is_limited_in_time(self) -> None:
        code = "class A:\n    def __str__(self):\n        while True:\n            pass\na = A()"
        result = self.read(code, "a", cell_timeout_s=0.2)
        assert result.error is not None
        assert "CellTimeout" in result.error

    def test_reading_cannot_ask(self) -> None:
        code = "class A:\n    def __str__(self):\n        return llm_query('q')\na = A()"
        result = self.read(code, "a")
        assert result.error is not None
        assert "no cell is running" in result.error

    def test_functions_of_the_runtime_are_no_variables(self) -> None:
        result = self.read("x = 1", "llm_query")
        assert result == ReadResult(names=("x",))
        assert self.read("x = 1", "__name__").text is None
        assert self.read("x = 1", "P").text == HAYSTACK

    def test_a_value_longer_than_a_frame_is_told_of(self) -> None:
        result = self.read("x = '\\x01' * (12 << 20)", "x")
        assert result.text is None
        assert result.error is not None
        assert "shorter" in result.error

    def test_a_prompt_of_ten_megabytes_passes(self) -> None:
        sizes: list[int] = []

        def answerer(prompt: str) -> str:
            sizes.append(len(prompt))
            return "short"

        assert self.output("print(llm_query('x' * 10_000_000))", answerer=answerer) == "short\n"
        assert sizes == [10_000_000]

    def test_prompts_longer_than_a_frame_are_an_error_of_the_cell(self) -> None:
        kind, _ = self.error("llm_batch(['x' * (5 << 20)] * 14, dedupe=False)")
        assert kind == "ValueError"

    def test_an_answer_beyond_the_memory_is_an_error_of_the_cell(self) -> None:
        huge = Answer(kind="text", text="x" * (50 << 20))
        kind, _ = self.error("llm_query('q')", answerer=lambda _: huge, memory_bytes=16 << 20)
        assert kind == "MemoryError"
