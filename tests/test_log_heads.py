"""The head file: a log that lost its end, or a whole run, says so."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from effects.log import RunCheck, SqliteLog
from effects.log.heads import Head, HeadFile
from rlm_fsm.errors import LogCorrupt
from rlm_fsm.ids import RunId
from tests.log_contract import RUN, a_run, events_in, fill, intent, replied, started
from tests.log_files import heads_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(path) as log:
        yield log


# The head file


def copy_of(path: Path, to: Path) -> None:
    """Copy the database as a crash leaves it, write-ahead file included, without the heads."""
    for ending in ("", "-wal"):
        if path.with_name(path.name + ending).exists():
            shutil.copy(path.with_name(path.name + ending), to.with_name(to.name + ending))


def test_the_head_file_is_a_line_per_run_that_a_person_can_read(path: Path, log: SqliteLog) -> None:
    log.append(RunId("a"), 0, [started()])
    log.append(RunId("b"), 0, [started(), intent(1)])
    log.append(RunId("a"), 1, [intent(1), replied(1)])
    lines = heads_of(path).read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["a", "3"], ["b", "2"]]
    assert len({len(line) for line in lines}) == 1


def test_heads_are_found_by_the_beginning_of_their_runs_ids(tmp_path: Path) -> None:
    heads = HeadFile(str(tmp_path / "heads"))
    for slot, name in enumerate(("ab", "abc", "b", "0" * 64), 1):
        heads.write(slot, Head(name, slot, "0" * 64))
    with (tmp_path / "heads").open("r+b") as file:
        file.seek(160)
        file.write(b"\0")  # the second line is damaged
    names = ("ab", "abc", "b", "0" * 64)
    for prefix in ("", "a", "ab", "abc", "ab ", "b", "0", "é", "\ud800", "00000000 "):
        expected = [head for head in heads.all() if head.run_id.startswith(prefix)]
        assert heads.beginning(prefix) == expected
    assert [head.run_id for head in heads.all()] == ["ab", "b", "0" * 64]
    assert [name for name in names if heads.find(name)] == ["ab", "b", "0" * 64]
    heads.close()


def test_a_log_that_is_shorter_than_its_heads_is_refused(path: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.db"
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started(), intent(1)])
        copy_of(path, older)
        log.append(RUN, 2, [replied(1)])
    os.replace(heads_of(path), heads_of(older))
    with SqliteLog(older) as log:
        assert events_in(log, until=2) == [started(), intent(1)]
        with pytest.raises(LogCorrupt, match=r"lost its end: the log holds 2 .* knows of 3") as e:
            events_in(log)
        assert (e.value.last_good_seq, e.value.run_id) == (2, RUN)
        assert log.verify()[0].events == 2
    heads_of(older).unlink()
    with SqliteLog(older) as log:
        assert events_in(log) == [started(), intent(1)]


def test_a_run_that_was_lost_whole_is_known_to_be_lost(path: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.db"
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started()])
        copy_of(path, older)
        log.append(RunId("late"), 0, [started(), intent(1)])
    os.replace(heads_of(path), heads_of(older))
    with SqliteLog(older) as log:
        for action in (lambda: log.load(RunId("late")), lambda: log.find("la")):
            with pytest.raises(LogCorrupt, match=r"run late is lost: .* knows 2 events"):
                action()
        assert [(check.run_id, check.events) for check in log.verify()] == [(RUN, 1), ("late", 0)]
        log.append(RunId("new"), 0, [started()])
        assert events_in(log, RunId("new")) == [started()]
        with pytest.raises(LogCorrupt, match="run late is lost"):
            log.load(RunId("late"))


def test_a_log_without_heads_is_judged_by_its_chain(path: Path, log: SqliteLog) -> None:
    fill(log, RUN, a_run())
    heads_of(path).unlink()
    assert events_in(log) == a_run()
    with SqliteLog(path) as again:
        assert events_in(again) == a_run()


def test_heads_that_are_behind_by_a_commit_are_fine(path: Path) -> None:
    with SqliteLog(path) as log:
        log.append(RUN, 0, [started()])
        behind = heads_of(path).read_bytes()
        log.append(RUN, 1, [intent(1), replied(1)])
    heads_of(path).write_bytes(behind)
    with SqliteLog(path) as log:
        assert events_in(log) == [started(), intent(1), replied(1)]
        assert log.append(RUN, 3, [intent(2)]) == 4
    assert heads_of(path).read_text().split()[1] == "4"


def test_a_history_that_was_replaced_is_noticed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    for file, text in ((path, "one"), (other, "another")):
        with SqliteLog(file) as log:
            log.append(RUN, 0, [started(), intent(1), replied(1, text)])
    shutil.copy(heads_of(other), heads_of(path))
    with SqliteLog(path) as log, pytest.raises(LogCorrupt, match="isn't the one that was first"):
        events_in(log)


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 152, b"run-1 " * 50])
def test_a_damaged_head_file_says_nothing(path: Path, damage: bytes) -> None:
    with SqliteLog(path) as log:
        fill(log, RUN, a_run())
    heads_of(path).write_bytes(damage)
    with SqliteLog(path) as log:
        assert events_in(log) == a_run()
        log.append(RunId("next"), 0, [started()])
        assert log.verify()[-1] == RunCheck(run_id=RunId("next"), events=1, problem=None)


def test_every_changed_byte_of_a_head_makes_it_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "heads"
    heads = HeadFile(str(file))
    heads.write(1, Head("run-1", 12, "ab" * 32))
    assert heads.all() == [Head("run-1", 12, "ab" * 32)]
    sound = file.read_bytes()
    for at in range(len(sound)):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        assert heads.all() == []
    heads.close()


def test_an_emptied_log_is_not_begun_anew_over_its_heads(path: Path) -> None:
    with SqliteLog(path) as log:
        fill(log, RUN, a_run())
    path.write_bytes(b"")
    with pytest.raises(LogCorrupt, match=r"empty, but .* knows 1 runs"):
        SqliteLog(path)
