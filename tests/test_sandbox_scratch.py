"""The folders of sessions on the host: none is left, also by hosts that were killed."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effects.sandbox.scratch import MIN_AGE_S, PREFIX, Scratch, sweep

ROOT = Path(__file__).parent.parent


def aged(path: Path) -> Path:
    """A folder with something in it that looks as if it was made a while ago."""
    path.mkdir()
    (path / "f").write_text("x")
    then = time.time() - 2 * MIN_AGE_S
    os.utime(path, (then, then))
    return path


def test_a_folder_is_deleted_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch = Scratch()
    (Path(scratch.path) / "d").mkdir(mode=0)
    scratch.delete()
    scratch.delete()
    assert not list(tmp_path.iterdir())


def test_folders_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    left = aged(tmp_path / f"{PREFIX}left")
    assert sweep(str(tmp_path)) == 1
    assert not left.exists()


def test_a_folder_in_use_is_kept(tmp_path: Path) -> None:
    held = aged(tmp_path / f"{PREFIX}held")
    lock = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweep(str(tmp_path)) == 0
        assert (held / "f").exists()
    finally:
        os.close(lock)


def test_a_young_folder_and_those_of_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}young").mkdir()
    aged(tmp_path / "rlm-fsm-other")
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(aged(tmp_path / "target"))
    assert sweep(str(tmp_path)) == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_the_folder_of_a_killed_host_is_swept_by_the_next_one(tmp_path: Path) -> None:
    program = (
        "import signal, sys\n"
        "from effects.sandbox.scratch import Scratch\n"
        "scratch = Scratch()\nprint(scratch.path, flush=True)\nsignal.pause()\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout is not None
        folder = Path(host.stdout.readline().strip())
        then = time.time() - 2 * MIN_AGE_S
        os.utime(folder, (then, then))
        assert sweep(str(tmp_path)) == 0
        host.send_signal(signal.SIGKILL)
    assert sweep(str(tmp_path)) == 1
    assert not list(tmp_path.iterdir())
