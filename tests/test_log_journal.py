"""Room for the write-ahead log: it changes nothing but how long a commit takes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effects.log import SqliteLog, journal
from effects.log.journal import AFTER_APPENDS, ROOM_BYTES, make_room
from rlm_fsm.event import Event
from tests.log_contract import RUN, events_in, intent, replied, started

REPOSITORY = Path(__file__).parents[1]
EVENTS: list[Event] = [started()]
for number in range(1, 40):
    EVENTS += [intent(number), replied(number, f"reply {number}")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def filled(log: SqliteLog, count: int) -> list[Event]:
    """Append so many events, one a commit."""
    for seq in range(count):
        log.append(RUN, seq, [EVENTS[seq]])
    return EVENTS[:count]


def test_a_log_that_is_written_to_a_few_times_is_spared_it(path: Path) -> None:
    with SqliteLog(path) as log:
        filled(log, AFTER_APPENDS - 1)
        assert wal(path).stat().st_size < ROOM_BYTES
        log.append(RUN, AFTER_APPENDS - 1, [EVENTS[AFTER_APPENDS - 1]])
        assert wal(path).stat().st_size == ROOM_BYTES


@pytest.mark.parametrize("count", [AFTER_APPENDS, AFTER_APPENDS + 1, 30])
def test_others_read_what_was_committed_and_so_does_a_copy(path: Path, count: int) -> None:
    with SqliteLog(path) as log:
        events = filled(log, count)
        with SqliteLog(path) as other:
            assert events_in(other) == events
        copy = path.parent / "copy"
        copy.mkdir()
        for file in path.parent.glob("log.db*"):  # as after kill -9: nobody has closed it
            if file.is_file() and not file.name.endswith("-shm"):
                shutil.copy(file, copy / file.name)
    with SqliteLog(copy / "log.db") as copied:
        assert events_in(copied) == events
        assert copied.verify()[0].problem is None
        copied.append(RUN, count, [EVENTS[count]])
        assert events_in(copied) == EVENTS[: count + 1]


def test_a_closed_log_is_one_plain_file(path: Path) -> None:
    with SqliteLog(path) as log:
        events = filled(log, 20)
    assert not wal(path).exists()
    with SqliteLog(path) as log:
        assert events_in(log) == events


def test_two_writers_take_turns_and_neither_loses_anything(path: Path) -> None:
    with SqliteLog(path) as one, SqliteLog(path) as other:
        for seq, event in enumerate(EVENTS):
            (one if seq % 2 else other).append(RUN, seq, [event])
        assert events_in(one) == events_in(other) == EVENTS


def test_a_log_that_need_not_be_on_the_disk_has_no_use_for_it(path: Path) -> None:
    with SqliteLog(path, durability="process") as log:
        filled(log, AFTER_APPENDS + 4)
        assert wal(path).stat().st_size < ROOM_BYTES


def test_room_is_made_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(journal, "make_room", asked.append)
    with SqliteLog(path) as log:
        filled(log, 30)
    assert asked == [str(path)]


def test_what_has_no_journal_is_left_alone(path: Path) -> None:
    make_room(str(path))
    assert not list(path.parent.iterdir())


FULL = """
import resource, sys
from pathlib import Path
from effects.log import SqliteLog
from tests.test_log_journal import EVENTS, RUN, filled, wal
path = Path(sys.argv[1])
with SqliteLog(path) as log:
    filled(log, 3)
    before = wal(path).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    for seq in range(3, 12):
        log.append(RUN, seq, [EVENTS[seq]])
    assert before < wal(path).stat().st_size < 400_000
"""


def test_where_there_is_no_room_none_is_taken(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with SqliteLog(path) as log:
        assert events_in(log) == EVENTS[:12]
