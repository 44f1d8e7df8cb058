"""One leader per run, also when processes are killed, taken for dead, or start children.

Each promise is tested for both kinds of locks: a byte per run (Linux), a file per run (elsewhere).
"""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from effects.log import SqliteLog, locks
from effects.log.locks import RunLocks
from rlm_fsm.errors import LogConflict, LogError, RunBusy
from rlm_fsm.ids import RunId
from tests.log_contract import RUN, events_in, intent, replied, started
from tests.log_files import sql

REPOSITORY = Path(__file__).parents[1]
OTHER = RunId("run-2")


@pytest.fixture(params=["byte", "file"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        monkeypatch.setattr(locks, "_OFD_SETLK", None)
    elif locks._OFD_SETLK is None:
        pytest.skip("needs locks of open file descriptions")
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path, way: str) -> Iterator[SqliteLog]:
    with SqliteLog(path, durability="process") as log:
        log.append(RUN, 0, [started()])
        yield log


def lock_files(path: Path) -> list[str]:
    return sorted(item.name for item in path.parent.iterdir() if "-lock" in item.name)


# In one process


def test_two_logs_of_one_process_exclude_each_other(path: Path, log: SqliteLog) -> None:
    with SqliteLog(path) as other:
        lease = log.lead(RUN)
        with pytest.raises(RunBusy, match=r"run run-1 .* by another log object of this process"):
            other.lead(RUN)
        other.lead(OTHER).release()
        with pytest.raises(RunBusy, match="this very log object"):
            log.lead(RUN)
        lease.release()
        assert other.lead(RUN).generation == 2
        with pytest.raises(RunBusy):
            log.lead(RUN)


def test_a_refused_leader_changes_nothing(path: Path, log: SqliteLog) -> None:
    with log.lead(RUN), SqliteLog(path) as other:
        for _ in range(3):
            with pytest.raises(RunBusy):
                other.lead(RUN)
        assert log.append(RUN, 1, [intent(1)]) == 2
    assert sql(path, "SELECT generation FROM runs") == [(1,)]


def test_releasing_twice_does_not_free_the_next_leader(path: Path, log: SqliteLog) -> None:
    old = log.lead(RUN)
    old.release()
    with log.lead(RUN), SqliteLog(path) as other:
        old.release()
        with pytest.raises(RunBusy):
            other.lead(RUN)


def test_closing_a_log_releases_its_runs(path: Path, log: SqliteLog) -> None:
    with SqliteLog(path) as other:
        other.lead(RUN)
        other.lead(OTHER)
    with log.lead(RUN), log.lead(OTHER):
        pass


def test_a_log_that_nobody_closed_keeps_no_run(path: Path, way: str) -> None:
    forgotten = RunLocks(str(path))
    assert forgotten.take(RUN) is None
    del forgotten
    with SqliteLog(path) as log:
        log.lead(RUN).release()


def test_a_log_has_one_lock_under_all_its_names(path: Path, log: SqliteLog) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with log.lead(RUN), SqliteLog(link) as other, pytest.raises(RunBusy):
        other.lead(RUN)


def test_a_closed_log_can_not_lead(path: Path, log: SqliteLog) -> None:
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.lead(RUN)
    with SqliteLog(path) as other:
        other.lead(RUN).release()


def test_lock_files_are_private_and_few(path: Path, log: SqliteLog, way: str) -> None:
    runs = [RunId(f"run-{number}") for number in range(5)]
    leases = [log.lead(run_id) for run_id in runs]
    names = lock_files(path)
    assert len(names) == (1 if way == "byte" else 5)
    for name in names:
        info = path.with_name(name).stat()
        assert (stat.S_IMODE(info.st_mode), info.st_size < 100_000) == (0o600, True)
    for lease in leases:
        lease.release()
    assert lock_files(path) == (["log.db-locks"] if way == "byte" else [])


def test_a_kernel_without_these_locks_gets_files(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_OFD_SETLK", 31_999)  # No command that a kernel knows.
    with SqliteLog(path) as log, SqliteLog(path) as other, log.lead(RUN):
        assert any("-lock-" in name for name in lock_files(path))
        with pytest.raises(RunBusy):
            other.lead(RUN)


def test_a_lock_that_can_not_be_made_is_an_error(path: Path, log: SqliteLog, way: str) -> None:
    log.lead(RUN)
    name = lock_files(path)[0]
    log.close()
    path.with_name(name).unlink(missing_ok=True)
    path.with_name(name).mkdir()
    with SqliteLog(path) as other:
        with pytest.raises(LogError, match=r"run-1 can't be locked: .* check the permissions"):
            other.lead(RUN)
        assert events_in(other) == [started()]


def test_logs_in_memory_need_no_files() -> None:
    with SqliteLog(":memory:") as one, SqliteLog(":memory:") as two:
        one.lead(RUN)
        two.lead(RUN)
        with pytest.raises(RunBusy):
            one.lead(RUN)


# The generation


def test_a_new_run_gets_its_generation_with_its_first_events(path: Path, log: SqliteLog) -> None:
    with log.lead(OTHER) as lease:
        assert lease.generation == 1
        assert sql(path, "SELECT count(*) FROM runs") == [(1,)]
        log.append(OTHER, 0, [started()])
    rows = sql(path, "SELECT run_id, generation FROM runs ORDER BY slot")
    assert rows == [(RUN, 0), (OTHER, 1)]


def test_a_leader_that_was_taken_for_dead_can_not_append(path: Path, log: SqliteLog) -> None:
    old = log.lead(RUN)
    for name in lock_files(path):
        path.with_name(name).unlink()  # As somebody does who thinks that the process hangs.
    with SqliteLog(path) as other, other.lead(RUN) as lease:
        assert lease.generation == 2
        with pytest.raises(RunBusy, match=r"was taken over: leader 2 works on it, this was 1"):
            log.append(RUN, 1, [intent(1)])
        assert other.append(RUN, 1, [intent(1), replied(1)]) == 3
        with pytest.raises(RunBusy, match="Nothing was written"):
            log.append(RUN, 3, [intent(2)])
        old.release()
        with pytest.raises(RunBusy):
            log.lead(RUN)
        assert events_in(log) == [started(), intent(1), replied(1)]


def test_two_that_begin_one_run_do_not_mix(path: Path, log: SqliteLog) -> None:
    log.lead(OTHER)
    for name in lock_files(path):
        path.with_name(name).unlink()
    with SqliteLog(path) as other, other.lead(OTHER):
        other.append(OTHER, 0, [started("theirs")])
        with pytest.raises(LogConflict):
            log.append(OTHER, 0, [started("ours")])
        assert events_in(log, OTHER) == [started("theirs")]


def test_a_lease_costs_an_append_no_statement(log: SqliteLog) -> None:
    def statements(seq: int) -> list[str]:
        seen: list[str] = []
        log._connection.set_trace_callback(seen.append)
        log.append(RUN, seq, [replied(seq), intent(seq + 1)])
        log._connection.set_trace_callback(None)
        return [statement.split()[0] for statement in seen if not statement.startswith("--")]

    without = statements(1)
    # Each of the two inserts is told twice, since it has a trigger.
    assert without == ["BEGIN", "SELECT", *["INSERT"] * 4, "UPDATE", "COMMIT"]
    with log.lead(RUN):
        assert statements(3) == without


# Several processes

LEADER = """
import os, signal, subprocess, sys
from effects.log import SqliteLog, locks
from rlm_fsm.errors import RunBusy
from rlm_fsm.ids import RunId
if sys.argv[2] == "file":
    locks._OFD_SETLK = None
log = SqliteLog(sys.argv[1], durability="process")
try:
    log.lead(RunId("run-1"))
except RunBusy as error:
    print("busy", flush=True)
    sys.exit()
children = []
if sys.argv[3] == "exec":
    children.append(subprocess.Popen(["sleep", "60"]).pid)
if sys.argv[3] == "fork":
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"x")  # The hooks of fork have run.
        signal.pause()
    os.read(reader, 1)
    children.append(pid)
print("leads", *children, flush=True)
sys.stdin.read()
"""


def leader(path: Path, way: str, child: str = "") -> "subprocess.Popen[str]":
    """A process that leads the run until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", LEADER, path, way, child],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_a_killed_leader_frees_its_run_at_once(path: Path, log: SqliteLog, way: str) -> None:
    with leader(path, way) as process:
        assert told(process) == ["leads"]
        with pytest.raises(RunBusy, match=f"run run-1 is being worked on by process {process.pid}"):
            log.lead(RUN)
        process.kill()
        process.wait()
        with log.lead(RUN) as lease:
            assert lease.generation == 2


@pytest.mark.parametrize("child", ["exec", "fork"])
def test_the_children_of_a_killed_leader_do_not_keep_its_run(
    path: Path, log: SqliteLog, way: str, child: str
) -> None:
    with leader(path, way, child) as process:
        said, pid = told(process)
        try:
            assert said == "leads"
            with pytest.raises(RunBusy):
                log.lead(RUN)
            process.kill()
            process.wait()
            os.kill(int(pid), 0)
            log.lead(RUN).release()
        finally:
            os.kill(int(pid), 9)


def test_of_several_processes_that_start_at_once_one_leads(
    path: Path, log: SqliteLog, way: str
) -> None:
    processes = [leader(path, way) for _ in range(4)]
    said = [told(process) for process in processes]
    for process in processes:
        process.communicate()
    assert sorted(said) == [["busy"]] * 3 + [["leads"]]
    assert sql(path, "SELECT generation FROM runs") == [(1,)]
