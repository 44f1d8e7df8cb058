"""Sessions of the sandbox written down and had again: the contract, and what is refused."""

import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from repl_contract_snapshots import SnapshotsContract, saves
from repl_driving import HAYSTACK, context_of, settings_of

from effects.context import Context
from effects.repls import _monty_saved, _monty_session
from effects.repls._monty_saved import Saved, pack, unpack
from effects.repls.base import (
    Paused,
    Repl,
    ReplLimits,
    SavesSessions,
    SnapshotRefused,
    SnapshotRule,
)
from effects.repls.monty import MontyRepl
from effects.repls.python import PythonRepl
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeResult


class TestMontySnapshots(SnapshotsContract):
    keeps_lone_surrogates = False
    keeps_variables_after_timeout = False

    async def make(self, source: str | list[str] | Context, **settings: Any) -> Repl:
        return MontyRepl(context_of(source), settings_of(**settings))

    async def refused(self, data: bytes, reason: str) -> None:
        """A new session refuses a snapshot, and is then as new."""
        other = await self.make(HAYSTACK)
        with pytest.raises(SnapshotRefused, match=reason):
            await saves(other).restore(data)
        done = await other.start("print('on')")
        assert isinstance(done, CodeResult)
        assert done.stdout == "on\n"
        await other.close()

    def test_a_snapshot_of_another_version_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.start("x = 1")
            data = await saves(repl).snapshot()
            assert data is not None
            for where in (_monty_saved, _monty_saved.pydantic_monty):
                with monkeypatch.context() as patch:
                    patch.setattr(where, "__version__", "9.9.9")
                    await self.refused(data, r"9\.9\.9")

        self.session(scenario)

    def test_a_snapshot_that_the_sandbox_does_not_take_is_refused(self) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.start("x = 1")
            idle, maker = opened(await saves(repl).snapshot())
            await repl.start("x = llm_query('a')")
            paused, _ = opened(await saves(repl).snapshot())
            for saved in (
                replace(idle, dump=b"no dump"),
                replace(idle, dump=idle.dump[:-9]),
                replace(idle, dump=paused.dump),
                replace(paused, dump=idle.dump),
            ):
                await self.refused(pack(saved, maker), "the sandbox doesn't take it")

        self.session(scenario)

    def test_a_snapshot_of_another_format_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario(repl: Repl) -> None:
            await repl.start("x = 1")
            with monkeypatch.context() as patch:
                patch.setattr(_monty_saved, "FORMAT", _monty_saved.FORMAT + 1)
                data = await saves(repl).snapshot()
            assert data is not None
            known = _monty_saved.FORMAT
            await self.refused(data, f"it has format {known + 1}, this one reads {known}")

        self.session(scenario)

    def test_a_session_that_is_too_large_is_not_written_down(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_monty_session, "MOST_DUMP_BYTES", 100_000)

        async def scenario(repl: Repl) -> list[bool]:
            found: list[bool] = []
            for code in ("x = 'a' * 1_000", "x = 'a' * 200_000", "x = None", "len(P)"):
                await repl.start(code)
                found.append(await saves(repl).snapshot() is not None)
            return found

        assert self.session(scenario) == [True, False, True, True]
        assert self.session(scenario, source="hay " * 50_000) == [True, False, True, False]

    def test_a_session_of_a_context_that_code_does_not_copy_is_small(self) -> None:
        async def scenario(repl: Repl) -> int:
            await repl.start("found = ctx.find('needle')\nx = llm_query(ctx.slice(0, 100))")
            return len(await saves(repl).snapshot() or b"")

        assert 0 < self.session(scenario, source="hay " * 1_000_000) < 20_000

    def test_a_session_that_was_lost_has_nothing_to_write_down(self) -> None:
        async def scenario(repl: Repl) -> bytes | None:
            done = await repl.start("while True:\n    pass")
            assert isinstance(done, CodeResult)
            assert done.repl_lost
            return await saves(repl).snapshot()

        assert self.session(scenario, cell_timeout_s=0.2) is None

    def test_the_time_that_a_cell_has_left_is_carried_over(self) -> None:
        async def scenario(repl: Repl) -> float:
            assert isinstance(await repl.start("llm_query('a')"), Paused)
            saved, _ = opened(await saves(repl).snapshot())
            return saved.left_s

        assert 0.0 < self.session(scenario, cell_timeout_s=30.0) < 30.0


def opened(data: bytes | None) -> tuple[Saved, dict[str, Any]]:
    """A snapshot and what it says made it."""
    assert data is not None
    content = zlib.decompress(data[len(_monty_saved.MAGIC) + 32 :])
    end = 8 + int.from_bytes(content[:8], "little")
    maker = json.loads(content[8:end])["maker"]
    return unpack(data, maker), maker


def test_the_python_backend_writes_no_sessions_down() -> None:
    assert not isinstance(PythonRepl(context_of(HAYSTACK), settings_of()), SavesSessions)
    assert isinstance(MontyRepl(context_of(HAYSTACK), settings_of()), SavesSessions)


@pytest.mark.parametrize(
    "wrong", [{"after_s": -1.0}, {"after_s": float("nan")}, {"most_share": 0.0}, {"most_bytes": -1}]
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ReplLimits(snapshots=SnapshotRule(**wrong))
