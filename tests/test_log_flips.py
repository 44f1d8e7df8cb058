"""Bits flipped and files cut at random places: exact, or refused after the events that are good.

`test_log_damage` says what particular damage comes to; here nothing but the rule itself is asked,
of many places.
"""

import random
import shutil
from pathlib import Path

import pytest

from effects.log import SqliteLog
from tests.log_files import heads_of
from tests.test_log_damage import EXACT, WRITTEN, verdict, write


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a log that was killed before SQLite could tidy up, and of the same closed."""
    path = tmp_path_factory.mktemp("sound") / "log.db"
    log = write(path)
    files = {ending: path.with_name("log.db" + ending).read_bytes() for ending in ("", "-wal")}
    log.close()
    return {
        "killed": files[""],
        "killed-wal": files["-wal"],
        "closed": path.read_bytes(),
        "heads": heads_of(path).read_bytes(),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def put(path: Path, main: bytes, heads: bytes | None, wal: bytes | None = None) -> None:
    """Lay out a log's files."""
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    path.write_bytes(main)
    if heads is not None:
        heads_of(path).write_bytes(heads)
    if wal is not None:
        path.with_name(path.name + "-wal").write_bytes(wal)


def outcome(path: Path) -> str:
    """Whether all runs are read exactly; `verdict` fails when one gives another history."""
    return EXACT if {verdict(path, run_id) for run_id in WRITTEN} == {EXACT} else "refused"


def flipped(content: bytes, dice: random.Random) -> bytes:
    """The content with one bit changed."""
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def test_a_sound_log_is_exact(path: Path, sound: dict[str, bytes]) -> None:
    put(path, sound["killed"], sound["heads"], sound["killed-wal"])
    assert outcome(path) == EXACT
    put(path, sound["closed"], None)
    assert outcome(path) == EXACT
    with SqliteLog(path) as log:
        assert [check.problem for check in log.verify()] == [None] * 3


@pytest.mark.parametrize("has_heads", [True, False], ids=["with-heads", "without"])
def test_any_changed_bit_is_recovered_from_or_refused(
    path: Path, sound: dict[str, bytes], has_heads: bool
) -> None:
    dice = random.Random(20)
    seen: dict[str, int] = {EXACT: 0, "refused": 0}
    for _ in range(60):
        put(path, flipped(sound["closed"], dice), sound["heads"] if has_heads else None)
        seen[outcome(path)] += 1
    assert min(seen.values()) > 10


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
        assert outcome(path) == EXACT


def test_a_database_cut_short_is_refused(path: Path, sound: dict[str, bytes]) -> None:
    main = sound["closed"]
    for share in range(10):
        put(path, main[: len(main) * share // 10], sound["heads"])
        assert outcome(path) == "refused"
