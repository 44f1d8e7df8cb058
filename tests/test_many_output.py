"""Where `rlm-fsm many` writes rows: files, pipes, devices, tables, a terminal; and reads jobs."""

import json
import os
import sqlite3
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cli_driving import KEY, PROGRAM, ROOT_DIR, environment, on_terminal, set_up, type_in
from loopback import ChatServer

from effects.cli import main
from rlm_fsm import FakeAdapter, UsageError, run, run_many, runs


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that commands use unless told otherwise, with a key, as a user would have them."""
    monkeypatch.chdir(tmp_path)
    return set_up(tmp_path, monkeypatch)


def jobs_file(folder: Path, count: int = 2) -> Path:
    path = folder / "jobs.jsonl"
    lines = [{"query": f"Q{n}?", "id": f"j{n}", "context": f"text {n}"} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def many(server: ChatServer, *arguments: str) -> int:
    return main(["many", *arguments, "--model", "m", "--base-url", server.base_url])


def answer_all(*arguments: str) -> int:
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server:
        return many(server, *arguments)


def ids(text: str) -> list[str]:
    return [json.loads(line)["id"] for line in text.splitlines()]


# -- files


def test_a_pipe_is_written_not_replaced(log: Path, tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    try:
        assert answer_all(str(jobs_file(tmp_path)), "--output", str(pipe), "--quiet") == 0
    finally:
        if not read:  # so that the reader ends whatever happens
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        reader.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert ids(read[0]) == ["j0", "j1"]


def test_a_device_that_is_full_is_one_message_at_the_end(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    assert answer_all(str(jobs_file(tmp_path)), "--output", str(full)) == 1
    err = capsys.readouterr().err
    assert "2 finished" in err
    assert "the results can't be written: No space left on device\nThe results are in" in err
    assert full.readlink() == Path("/dev/full")


def test_a_link_stays_and_a_file_keeps_its_permissions(log: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "out.jsonl", tmp_path / "link.jsonl"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert answer_all(str(jobs_file(tmp_path)), "--output", str(link), "--quiet") == 0
    assert link.is_symlink()
    assert ids(target.read_text()) == ["j0", "j1"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in target.parent.iterdir()] == ["out.jsonl"]


def test_a_dash_is_stdout(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = str(jobs_file(tmp_path))
    assert answer_all(jobs, "--output", "-", "--quiet") == 0
    assert sorted(ids(capsys.readouterr().out)) == ["j0", "j1"]
    assert not (tmp_path / "-").exists()
    assert answer_all(jobs, "--output", "-", "--json") == 2


NO_DATABASE = "file is not a database"


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("--output", "jobs.jsonl", "jobs.jsonl is the file of the jobs"),
        ("--output", "link.jsonl", "link.jsonl is the file of the jobs"),
        ("--sqlite", "link.jsonl", "link.jsonl is the file of the jobs"),
        ("--output", "/proc/out.jsonl", "no file can be written there"),
        ("--output", "folder", "no file can be written there"),
        ("--sqlite", "/proc/out.db", "unable to open database file"),
        ("--sqlite", "folder", "unable to open database file"),
        ("--sqlite", "text.db", NO_DATABASE),
        ("--sqlite", "view.db", "results is a view there"),
        ("--sqlite", "other.db", "rows of a batch don't fit"),
    ],
)
def test_a_file_that_rows_cannot_go_to_is_refused_before_anything_starts(
    option: str,
    path: str,
    message: str,
    log: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = jobs_file(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(jobs)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("no database, but a text that is long enough " * 20)
    make(tmp_path / "view.db", "CREATE VIEW results AS SELECT 1 AS run_id")
    make(tmp_path / "other.db", "CREATE TABLE results (a, b)")
    before = jobs.read_text()
    assert answer_all(str(jobs), option, path) == 2
    assert message in capsys.readouterr().err
    assert not log.exists()
    assert jobs.read_text() == before


LOG = "is the log of the runs: give the results another file"


@pytest.mark.parametrize("option", ["--output", "--sqlite"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("log.sqlite", LOG),
        ("../HERE/log.sqlite", LOG),
        ("link", LOG),
        ("linked.sqlite-locks", "is a file of the log"),
        ("log.sqlite-wal", "is a file of the log"),
        ("log.sqlite-shm", "is a file of the log"),
        ("log.sqlite-heads", "is a file of the log"),
        ("log.sqlite-locks", "is a file of the log"),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_rows_never_go_into_the_log(
    option: str,
    path: str,
    message: str,
    is_there: bool,
    log: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("link", "linked.sqlite"):
        (tmp_path / name).symlink_to(log)
    if "linked" in path:
        monkeypatch.setenv("RLM_FSM_LOG", str(tmp_path / "linked.sqlite"))
    if is_there:
        run("q", "text", adapter=FakeAdapter(["FINAL: x"]), log=log)
    before = {file: file.read_bytes() for file in tmp_path.glob("log.sqlite*")}
    jobs = jobs_file(tmp_path)
    assert answer_all(str(jobs), option, path.replace("HERE", tmp_path.name)) == 2
    assert message in capsys.readouterr().err
    assert {file: file.read_bytes() for file in tmp_path.glob("log.sqlite*")} == before


def test_rows_never_go_into_a_file_of_the_context(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("alpha")
    jobs = str(jobs_file(tmp_path))
    assert answer_all(jobs, "text.txt", "--output", "text.txt") == 2
    assert "text.txt is a file of the context" in capsys.readouterr().err
    assert (tmp_path / "text.txt").read_text() == "alpha"


def test_rows_may_go_beside_a_log_in_memory(log: Path, tmp_path: Path) -> None:
    jobs = str(jobs_file(tmp_path))
    assert answer_all(jobs, "--log", ":memory:", "--output", "out.jsonl", "--quiet") == 0
    assert ids((tmp_path / "out.jsonl").read_text()) == ["j0", "j1"]


def test_the_rows_of_a_program_do_not_replace_their_log(tmp_path: Path) -> None:
    adapter = FakeAdapter(["FINAL: x"])
    result = run_many([("q", "text")], adapter=adapter, log=tmp_path / "log", progress=False)
    for write in (result.to_jsonl, result.to_sqlite):
        with pytest.raises(UsageError, match="is the log of the runs"):
            write(tmp_path / "log")
    assert len(runs(tmp_path / "log")) == 1


def make(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


def test_both_files_of_results_must_not_be_one(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = str(jobs_file(tmp_path))
    assert answer_all(jobs, "--output", "x", "--sqlite", "./x") == 2
    assert "x is the file of --sqlite" in capsys.readouterr().err


def test_asking_leaves_no_file(log: Path, tmp_path: Path) -> None:
    jobs = str(jobs_file(tmp_path))
    assert answer_all(jobs, "--output", "o", "--sqlite", "t.db", "--batch", "a b") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.jsonl"]


def test_a_table_of_another_batch_takes_rows_too(log: Path, tmp_path: Path) -> None:
    jobs, table = str(jobs_file(tmp_path)), tmp_path / "t.db"
    for batch in ("a", "b", "b"):
        assert answer_all(jobs, "--sqlite", str(table), "--batch", batch, "--quiet") == 0
    connection = sqlite3.connect(table)
    assert connection.execute("SELECT count(*) FROM results").fetchone() == (4,)
    connection.close()


def test_a_table_that_is_spoilt_meanwhile_is_told_and_the_other_file_written(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, table, output = str(jobs_file(tmp_path)), tmp_path / "t.db", tmp_path / "out.jsonl"

    def spoil(_: object) -> str:
        table.write_text("no database, but a text that is long enough " * 20)
        return "FINAL: yes"

    with ChatServer(spoil, key=KEY) as server:
        assert many(server, jobs, "--sqlite", str(table), "--output", str(output)) == 1
    assert NO_DATABASE in capsys.readouterr().err
    assert ids(output.read_text()) == ["j0", "j1"]


# -- streams


def test_rows_that_stdout_does_not_take_are_told_at_the_end(log: Path, tmp_path: Path) -> None:
    jobs = str(jobs_file(tmp_path))
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server, open("/dev/full", "w") as full:
        command = [*PROGRAM, "many", jobs, "--model", "m", "--base-url", server.base_url]
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT_DIR,
            env=environment(log),
            check=False,
        )
        assert len(server.requests) == 2
    assert done.returncode == 1
    assert "2 finished" in done.stderr
    assert "standard output can't be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_stand_above_the_bar_on_a_terminal(log: Path, tmp_path: Path) -> None:
    jobs = str(jobs_file(tmp_path, 4))
    with ChatServer(lambda _: "FINAL: yes", key=KEY) as server:
        arguments = ("many", jobs, "--model", "m", "--batch", "b")
        shown = on_terminal(*arguments, "--base-url", server.base_url, log=log)
    rows = [line for line in shown.split("\r\n") if '"id"' in line]
    assert len(rows) == 4
    for line in rows:
        before, _, row = line.partition("{")
        assert before.endswith("\x1b[2K")  # the bar's line was cleared
        assert json.loads("{" + row)["output"] == "yes"


def test_jobs_come_from_standard_input(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    type_in(monkeypatch, b'{"query": "Q?", "id": "in", "paths": ["a.txt"]}\r\n')
    assert answer_all("-", "--quiet") == 0
    assert ids(capsys.readouterr().out) == ["in"]
    type_in(monkeypatch, b"{}\n")
    assert answer_all("-") == 2
    assert "standard input, line 1" in capsys.readouterr().err
    assert answer_all("-", "-") == 2
    assert "standard input is read once" in capsys.readouterr().err
