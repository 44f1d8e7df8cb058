"""What the world does to a log: full disks, files that can't be written, clocks, two writers.

As in `test_log_damage`: what was committed is read exactly, or it is refused; and an append that
failed has written nothing.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from effects.log import SqliteLog, sqlite
from rlm_fsm.errors import LogConflict, LogCorrupt, LogError, RunBusy
from rlm_fsm.ids import ROOT, RunId
from tests.log_contract import LONG, RUN, a_run, events_in, fill, intent, replied, started
from tests.log_files import sql

REPOSITORY = Path(__file__).parents[1]
NOBODY = 65534
FIRST_VERSION = (Path(__file__).parent / "data" / "logs" / "v1.db").read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(path) as log:
        yield log


# Full


def test_a_full_disk_is_an_error_that_says_so_and_loses_nothing(log: SqliteLog) -> None:
    log.append(RUN, 0, [started()])
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    log._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    noise = random.Random(1).randbytes(50_000).hex()
    with pytest.raises(LogError, match=r"disk is full.*resume the run") as caught:
        log.append(RUN, 1, [intent(1), replied(1, noise)])
    assert not isinstance(caught.value, LogCorrupt)
    assert events_in(log) == [started()]
    log._connection.execute("PRAGMA max_page_count = 100000")
    assert log.append(RUN, 1, [intent(1), replied(1, noise)]) == 3
    assert log.verify()[0].problem is None


LIMITED = """
import resource, sys
from effects.log import SqliteLog
from rlm_fsm.errors import LogCorrupt, LogError
from tests.log_contract import RUN, intent, replied, started
log = SqliteLog(sys.argv[1], durability="process")
seq = log.append(RUN, 0, [started()])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    while True:
        seq = log.append(RUN, seq, [intent(seq), replied(seq, f"{seq} " * 1000)])
except LogCorrupt:
    raise
except LogError as error:
    print(seq, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if sys.argv[2] == "go on":
    print(log.append(RUN, seq, [intent(seq), replied(seq)]))
log.close()
"""


@pytest.mark.parametrize("then", ["go on", "stop"])
def test_a_file_that_may_not_grow_is_an_error_that_says_so_and_loses_nothing(
    path: Path, then: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path, then],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    first, *more = done.stdout.splitlines()
    seq = int(first.split()[0])
    assert "What was committed before is intact" in first
    assert "limit on the size of files" in first
    assert more == ([str(seq + 2)] if then == "go on" else [])
    with SqliteLog(path) as log:
        assert len(events_in(log)) == seq + 2 * len(more) > 3
        assert log.verify()[0].problem is None


def test_leading_and_forking_on_a_full_disk_change_nothing(log: SqliteLog) -> None:
    fill(log, RUN, a_run())
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    log._connection.execute(f"PRAGMA max_page_count = {pages}")

    def fork_without_end() -> None:
        for number in range(1000):
            log.fork(RunId(f"fork-{number:050}"), RUN, 6)

    with pytest.raises(LogError, match=r"disk is full.*What was committed before is intact"):
        fork_without_end()
    assert {check.problem for check in log.verify()} == {None}
    with log.lead(RUN):
        pass


# Not to be written


def test_a_read_only_log_can_be_read_and_says_what_it_is(path: Path, log: SqliteLog) -> None:
    log.append(RUN, 0, [started()])
    log._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LogError, match="read-only"):
        log.append(RUN, 1, [intent(1)])
    assert events_in(log) == [started()]


@pytest.fixture
def ours() -> Iterator[Path]:
    """A directory of a user who may not write everywhere, as who the test then runs."""
    SqliteLog(":memory:").close()  # All is imported before: the libraries may be root's own.
    directory = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.chown(directory, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield directory
    finally:
        if is_root:
            os.seteuid(0)
        directory.chmod(0o700)
        shutil.rmtree(directory)


def test_a_file_that_may_only_be_read_is_read_exactly_and_refuses_appends(ours: Path) -> None:
    path = ours / "log.db"
    with SqliteLog(path) as log:
        fill(log, RUN, a_run()[:-1])
    path.chmod(0o400)
    with SqliteLog(path) as log:
        assert events_in(log) == a_run()[:-1]
        for action in (
            lambda: log.append(RUN, 13, a_run()[-1:]),
            lambda: log.lead(RUN),
            lambda: log.fork(RunId("fork"), RUN, 3),
            lambda: log.put_blob(LONG),
        ):
            with pytest.raises(LogError, match=r"the log is read-only.*Check the permissions"):
                action()
        assert events_in(log) == a_run()[:-1]
    for file in ours.glob("log.db*"):  # SQLite gave the files beside it the same permissions.
        file.chmod(0o600)
    with SqliteLog(path) as log:
        assert log.append(RUN, 13, a_run()[-1:]) == 14
        log.lead(RUN).release()


def test_an_older_log_that_may_only_be_read_is_read_as_it_is(ours: Path) -> None:
    path = ours / "log.db"
    path.write_bytes(FIRST_VERSION)
    path.chmod(0o400)
    with SqliteLog(path) as log:
        runs = log.runs()
        assert len(runs) == 3
        assert [check.problem for check in log.verify()] == [None] * 3
        assert log.snapshot(runs[0].run_id, ROOT) is None
        with pytest.raises(LogError, match="the log is read-only"):
            log.lead(runs[-1].run_id)
    assert sql(path, "PRAGMA user_version") == [(1,)]


def test_a_directory_that_may_only_be_read_is_refused_and_nothing_is_lost(ours: Path) -> None:
    path = ours / "log.db"
    with SqliteLog(path) as log:
        fill(log, RUN, a_run())
    ours.chmod(0o500)
    with pytest.raises(LogError, match=r"read-only.*or copy the log elsewhere"):
        SqliteLog(path)
    ours.chmod(0o700)
    with SqliteLog(path) as log:
        assert events_in(log) == a_run()


def test_a_new_log_in_a_directory_without_permission_is_an_error(ours: Path) -> None:
    ours.chmod(0o500)
    with pytest.raises(LogError, match=r"can't be made: Permission denied"):
        SqliteLog(ours / "log.db")


def test_a_file_that_may_not_be_read_is_refused(ours: Path) -> None:
    path = ours / "log.db"
    SqliteLog(path).close()
    path.chmod(0)
    with pytest.raises(LogError, match="can't be opened"):
        SqliteLog(path)


# Two writers


def test_of_two_writers_without_a_lease_the_later_is_told(path: Path, log: SqliteLog) -> None:
    fill(log, RUN, a_run()[:-1])
    with SqliteLog(path) as other:
        other.append(RUN, 13, [intent(99)])
        with pytest.raises(LogConflict, match="has 14 events, 13 were expected"):
            log.append(RUN, 13, a_run()[-1:])
        assert events_in(log) == events_in(other) == [*a_run()[:-1], intent(99)]


def test_of_two_leaders_the_later_is_refused_before_it_reads(path: Path, log: SqliteLog) -> None:
    fill(log, RUN, a_run()[:-1])
    with log.lead(RUN), SqliteLog(path) as other, pytest.raises(RunBusy):
        other.lead(RUN)


# Clocks


@pytest.mark.parametrize("step_s", [-3600, -86_400 * 365 * 60, 0, 86_400 * 365 * 100])
def test_a_clock_that_jumps_changes_no_history(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    class Jumping(datetime):
        """A clock that is set between two readings."""

        passed = 0

        @classmethod
        def now(cls, tz=None):
            cls.passed += 1
            return datetime(2026, 1, 1, tzinfo=tz) + timedelta(seconds=step_s) * (cls.passed > 3)

    monkeypatch.setattr(sqlite, "datetime", Jumping)
    fill(log, RUN, a_run())
    assert events_in(log) == a_run()
    assert len({logged.at for logged in log.load(RUN)}) == (1 if step_s == 0 else 2)
    assert [info.run_id for info in log.runs()] == [RUN]
    assert log.verify()[0].problem is None


def test_runs_are_listed_in_the_order_of_their_making_whatever_the_clock_said(
    path: Path, log: SqliteLog
) -> None:
    for number in range(3):
        log.append(RunId(f"r{number}"), 0, [started()])
    sql(path, "UPDATE runs SET created_at = '1970-01-0' || (4 - slot)")
    assert [info.run_id for info in log.runs()] == ["r2", "r1", "r0"]
