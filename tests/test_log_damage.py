"""Damage of every kind: what is read is what was written, or it is refused."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from effects.log import SqliteLog
from rlm_fsm.errors import LogCorrupt, LogError
from rlm_fsm.event import Event
from rlm_fsm.ids import RunId
from tests.log_contract import RUN, a_run, fill
from tests.log_files import heads_of, rewrite, sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(path) as log:
        yield log


# Damage


@pytest.mark.parametrize(
    ("statement", "good"),
    [
        ("UPDATE events SET data = replace(data, '0.m1', '0.m2') WHERE seq = 2", 1),
        ("UPDATE events SET data = '{}' WHERE seq = 3", 2),
        ("UPDATE events SET kind = 'ModelFailed' WHERE seq = 3", 2),
        ("UPDATE events SET at = '2020-01-01' WHERE seq = 3", 2),
        ("UPDATE events SET frame = '0.1' WHERE seq = 3", 2),
        ("UPDATE events SET call_id = NULL WHERE seq = 3", 2),
        ("UPDATE events SET prev_hash = hash WHERE seq = 3", 2),
        ("DELETE FROM events WHERE seq = 3", 2),
        ("DELETE FROM events WHERE seq = 1", 0),
        ("DELETE FROM events WHERE seq >= 5", 4),
        ("UPDATE runs SET head_seq = head_seq - 1", 14),
        ("UPDATE runs SET head_hash = 'x'", 14),
        ("DELETE FROM blobs", 0),
        ("UPDATE blobs SET data = x'00' WHERE encoding = 'zlib'", 3),
        ("UPDATE blobs SET size = size - 1 WHERE encoding = 'zlib'", 3),
        ("UPDATE blobs SET encoding = 'utf-8'", 3),
    ],
)
def test_a_change_is_found_where_it_is(path: Path, statement: str, good: int) -> None:
    with SqliteLog(path) as log:
        fill(log, RUN, a_run())
    rewrite(path, statement)
    with SqliteLog(path) as log:
        got: list[Event] = []
        with pytest.raises(LogCorrupt) as caught:
            got.extend(logged.event for logged in log.load(RUN))
        assert caught.value.last_good_seq == good == log.verify(RUN)[0].events


def test_a_damaged_text_is_refused_by_hash(path: Path) -> None:
    with SqliteLog(path) as log:
        digest = log.put_blob("the truth")
    rewrite(path, "UPDATE blobs SET data = ?", b"the trout")
    with SqliteLog(path) as log, pytest.raises(LogCorrupt, match="was changed"):
        log.blob(digest)


def test_verify_also_reads_the_list_of_runs(path: Path) -> None:
    with SqliteLog(path) as log:
        fill(log, RunId("a"), a_run())
        fill(log, RunId("b"), a_run())
    sql(path, "UPDATE runs SET query = 'Else?' WHERE run_id = 'a'")
    sql(path, "UPDATE runs SET status = 'failed' WHERE run_id = 'b'")
    with SqliteLog(path) as log:
        assert [check.problem for check in log.verify()] == [
            "the list of runs shows another question than its first event",
            "the list of runs shows another end than its last event",
        ]


RUNS: dict[RunId, list[Event]] = {RunId(f"r{n}"): a_run(4 + n, f"query {n}") for n in range(3)}


def outcome(path: Path) -> str:
    """What opening a damaged log and reading all its runs comes to."""
    try:
        with SqliteLog(path) as log:
            wholes = [is_read_whole(log, run_id) for run_id in RUNS]
    except LogError:
        return "refused"
    return "exact" if all(wholes) else "refused"


def is_read_whole(log: SqliteLog, run_id: RunId) -> bool:
    """Whether a run could be read to its end; what is read must be what was written."""
    good: list[Event] = []
    problem: LogCorrupt | None = None
    try:
        good.extend(logged.event for logged in log.load(run_id))
    except LogCorrupt as error:
        problem = error
    if problem is None:
        assert good == RUNS[run_id], "a damaged log was read as if it were sound"
        return True
    assert good == RUNS[run_id][: len(good)]
    assert problem.last_good_seq == len(good)
    return False


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a log that was killed before SQLite could tidy up, and of the same closed."""
    path = tmp_path_factory.mktemp("sound") / "log.db"
    log = SqliteLog(path, durability="process")
    for run_id, events in RUNS.items():
        fill(log, run_id, events)
    files = {ending: path.with_name("log.db" + ending).read_bytes() for ending in ("", "-wal")}
    log.close()
    heads = heads_of(path).read_bytes()
    return {
        "killed": files[""],
        "killed-wal": files["-wal"],
        "closed": path.read_bytes(),
        "heads": heads,
    }


def put(path: Path, main: bytes, heads: bytes, wal: bytes | None = None) -> None:
    """Lay out a log's files."""
    for item in path.parent.iterdir():
        item.unlink()
    path.write_bytes(main)
    heads_of(path).write_bytes(heads)
    if wal is not None:
        path.with_name(path.name + "-wal").write_bytes(wal)


def flipped(content: bytes, dice: random.Random) -> bytes:
    """The content with one bit changed."""
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def test_a_killed_log_is_recovered_exactly(path: Path, sound: dict[str, bytes]) -> None:
    put(path, sound["killed"], sound["heads"], sound["killed-wal"])
    assert outcome(path) == "exact"
    put(path, sound["closed"], sound["heads"])
    assert outcome(path) == "exact"


def test_any_changed_bit_is_recovered_from_or_refused(path: Path, sound: dict[str, bytes]) -> None:
    dice = random.Random(20)
    seen: dict[str, int] = {"exact": 0, "refused": 0}
    for _ in range(100):
        put(path, flipped(sound["closed"], dice), sound["heads"])
        seen[outcome(path)] += 1
    assert min(seen.values()) > 25


def test_any_changed_bit_of_the_write_ahead_file_is_recovered_from_or_refused(
    path: Path, sound: dict[str, bytes]
) -> None:
    dice = random.Random(21)
    for _ in range(25):
        put(path, sound["killed"], sound["heads"], flipped(sound["killed-wal"], dice))
        outcome(path)


def test_a_write_ahead_file_cut_anywhere_is_refused(path: Path, sound: dict[str, bytes]) -> None:
    wal = sound["killed-wal"]
    for share in range(25):
        put(path, sound["killed"], sound["heads"], wal[: len(wal) * share // 25])
        assert outcome(path) == "refused"


def test_any_changed_bit_of_the_head_file_leaves_the_log_exact(
    path: Path, sound: dict[str, bytes]
) -> None:
    dice = random.Random(22)
    for _ in range(10):
        put(path, sound["closed"], flipped(sound["heads"], dice))
        assert outcome(path) == "exact"


def test_a_database_cut_short_is_refused(path: Path, sound: dict[str, bytes]) -> None:
    main = sound["closed"]
    for share in range(10):
        put(path, main[: len(main) * share // 10], sound["heads"])
        assert outcome(path) == "refused"
