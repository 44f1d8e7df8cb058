"""The layers of the sandbox: what each keeps from code alone, and that code could do it without.

Every attempt is made twice: with one layer, or with all, and without any. The second is the
positive control: it must succeed, else the first says nothing.
"""

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from repl_driving import answer_all
from repl_python import PythonDriving

from effects.context import Context
from effects.repls.base import ReplLimits, ReplSettings, ReplUnavailable
from effects.repls.python import PythonRepl
from effects.sandbox.report import LAYERS, Report, report_of
from rlm_fsm.errors import UsageError
from rlm_fsm.values import CodeResult

REFUSALS = ("PermissionError", "FileNotFoundError", "ConnectionRefusedError", "OSError")
NAMESPACES = tuple(name for name in LAYERS if name.endswith("namespace"))


def report_with(*without: str) -> Report:
    """What this machine gives, less some layers."""

    async def main() -> Report:
        repl = PythonRepl(Context.from_text(""), ReplSettings(without_layers=without))
        try:
            await repl.open()
            assert repl.report is not None
            return repl.report
        finally:
            await repl.close()

    return asyncio.run(main())


@pytest.fixture(scope="module")
def offered() -> Report:
    return report_with()


class Layered(PythonDriving):
    """Cells in a session with some layers only."""

    @pytest.fixture(autouse=True)
    def _offered(self, offered: Report) -> None:
        self.offered = offered

    def only(self, *names: str) -> tuple[str, ...]:
        """What to leave out so that these stay. Skips where the machine lacks one."""
        for name in names:
            if name in self.offered.missing:
                pytest.skip(f"no {name} here: {self.offered.missing[name]}")
        needed = {*names, "death signal"}
        if {"own root"} & needed:
            needed.add("mount namespace")
        if needed & {"own root", *NAMESPACES}:
            needed.add("user namespace")
        if "landlock" in needed or "system call filter" in needed:
            needed |= {"no new privileges"}
        return tuple(name for name in LAYERS if name not in needed)

    def tried(self, code: str, *without: str, **options: object) -> CodeResult:
        """What becomes of an attempt without some layers."""
        [result] = self.cells(code, without_layers=without, **options)
        return result

    def refused(self, code: str, *without: str, **options: object) -> str:
        """The attempt fails with an OSError; its message."""
        error = self.tried(code, *without, **options).error
        assert error is not None, "it worked"
        assert error.kind in REFUSALS, error
        return error.message

    def works_bare(self, code: str) -> str:
        """The positive control: what the attempt prints without any layer."""
        result = self.tried(code, *LAYERS)
        assert result.error is None, result.error
        return result.stdout


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that every user of this machine could read, at a path that all can follow."""
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    path = tmp_path / "canary.txt"
    path.write_text("tweet")
    path.chmod(0o666)
    tmp_path.chmod(0o777)
    return path


@pytest.mark.parametrize("layer", ["own root", "landlock"])
class TestFiles(Layered):
    def test_files_of_the_host_can_not_be_read(self, layer: str, canary: Path) -> None:
        code = f"print(open({str(canary)!r}).read())"
        assert self.works_bare(code) == "tweet\n"
        self.refused(code, *self.only(layer))

    def test_folders_of_the_host_can_not_be_listed(self, layer: str, canary: Path) -> None:
        code = f"import os\nprint(os.listdir({str(canary.parent)!r}))"
        assert self.works_bare(code) == "['canary.txt']\n"
        self.refused(code, *self.only(layer))

    def test_nothing_can_be_written_outside(self, layer: str, canary: Path) -> None:
        place = canary.parent / "egg"
        code = f"open({str(place)!r}, 'w').write('laid')"
        self.refused(code, *self.only(layer))
        assert not place.exists()
        self.works_bare(code)
        assert place.read_text() == "laid"

    @pytest.mark.parametrize(
        "change",
        [
            "os.unlink(path)",
            "os.rename(path, path + '2')",
            "os.truncate(path, 0)",
            "os.mkdir(path + 'd')",
            "os.symlink('x', path + 's')",
            "open(path, 'a').write('x')",
        ],
    )
    def test_nothing_of_the_host_can_be_changed(
        self, layer: str, canary: Path, change: str
    ) -> None:
        code = f"import os\npath = {str(canary)!r}\n{change}"
        self.refused(code, *self.only(layer))
        assert os.listdir(canary.parent) == ["canary.txt"]
        assert canary.read_text() == "tweet"
        self.works_bare(code)
        changed = canary.exists() and canary.read_text() == "tweet"
        assert not (changed and os.listdir(canary.parent) == ["canary.txt"])

    def test_the_library_can_be_read_and_not_written(self, layer: str) -> None:
        code = "import sqlite3, statistics, json, ctypes\nprint(statistics.mean([1, 3]))"
        without = self.only(layer)
        assert self.output(code, without_layers=without) == "2\n"
        write = "import os\nopen(os.__file__, 'a')"
        self.refused(write, *without)

    def test_packages_of_others_can_not_be_read(self, layer: str) -> None:
        code = (
            "import os\nfolder = os.path.join(os.path.dirname(os.__file__), 'site-packages')\n"
            "print(len(os.listdir(folder)))"
        )
        bare = self.tried(code, *LAYERS)
        if bare.error is not None or bare.stdout == "0\n":
            pytest.skip("this Python has no folder of packages beside its library")
        kept_out = self.tried(code, *self.only(layer))
        assert kept_out.error is not None or kept_out.stdout == "0\n"

    def test_the_scratch_folder_can_be_used(self, layer: str) -> None:
        code = (
            "import os, tempfile, shutil\n"
            "os.makedirs('a/b')\nopen('a/b/f', 'w').write('x')\nos.rename('a/b/f', 'g')\n"
            "shutil.rmtree('a')\n"
            "with tempfile.NamedTemporaryFile() as file:\n    file.write(b'x')\n"
            "print(open('g').read(), os.listdir())"
        )
        assert self.output(code, without_layers=self.only(layer)) == "x ['g']\n"


class TestAttributes(Layered):
    def test_files_of_the_host_can_not_be_seen(self, canary: Path) -> None:
        code = f"import os\nprint(os.stat({str(canary)!r}).st_size)"
        assert self.works_bare(code) == "5\n"
        self.refused(code, *self.only("own root"))

    @pytest.mark.parametrize("change", ["os.chmod(path, 0)", "os.utime(path, (0, 0))"])
    def test_attributes_can_not_be_changed(self, canary: Path, change: str) -> None:
        code = f"import os\npath = {str(canary)!r}\n{change}"
        before = canary.stat()
        self.refused(code, *self.only("own root"))
        self.refused(code, *self.only("landlock", "system call filter"))
        after = canary.stat()
        assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)
        self.works_bare(code)
        after = canary.stat()
        assert (after.st_mode, after.st_mtime) != (before.st_mode, before.st_mtime)


@pytest.fixture
def server() -> Iterator[int]:
    """A port of this machine at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    taken, _ = listening.accept()
                except TimeoutError:
                    continue
                taken.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        over.set()
        thread.join()


class TestNetwork(Layered):
    @pytest.mark.parametrize("layer", ["network namespace", "system call filter"])
    def test_nobody_can_be_reached(self, layer: str, server: int) -> None:
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {server}), 2)\nprint('in')"
        assert self.works_bare(code) == "in\n"
        self.refused(code, *self.only(layer))

    def test_landlock_closes_tcp(self, server: int) -> None:
        from effects.sandbox._layers import landlock_version

        if landlock_version() < 4:
            pytest.skip("Landlock closes TCP since its version 4 (Linux 6.7)")
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {server}), 2)\nprint('in')"
        assert self.works_bare(code) == "in\n"
        assert "Permission denied" in self.refused(code, *self.only("landlock"))

    @pytest.mark.parametrize("layer", ["network namespace", "system call filter"])
    def test_abstract_sockets_of_the_host_can_not_be_reached(self, layer: str) -> None:
        name = f"\0rlm-fsm-test-{os.getpid()}"
        code = f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({name!r})\nprint('in')"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
            listening.listen()
            assert self.works_bare(code) == "in\n"
            self.refused(code, *self.only(layer))

    @pytest.mark.parametrize(
        "make",
        [
            "socket.socket(socket.AF_INET)",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            "socket.socket(socket.AF_UNIX)",
            "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        ],
    )
    def test_no_socket_can_be_made_that_leads_out(self, make: str) -> None:
        code = f"import socket\nmade = {make}\nprint('made')"
        assert self.works_bare(code) == "made\n"
        assert "not permitted" in self.refused(code)

    def test_an_event_loop_runs_all_the_same(self) -> None:
        code = (
            "import asyncio\n"
            "async def work():\n    await asyncio.sleep(0.01)\n    return 'done'\n"
            "asyncio.run(asyncio.wait_for(work(), 5))"
        )
        assert self.output(code) == "'done'\n"


class TestProcesses(Layered):
    @pytest.mark.parametrize(
        "start",
        [
            "os.fork() or os._exit(0)",
            "subprocess.run(['/bin/true'])",
            "os.posix_spawn('/bin/true', ['true'], {})",
        ],
    )
    def test_no_process_can_be_started(self, start: str) -> None:
        code = f"import os, subprocess\n{start}\nprint('started')"
        assert self.works_bare(code) == "started\n"
        assert "not permitted" in self.refused(code, *self.only("system call filter"))

    def test_no_program_can_take_its_place(self) -> None:
        code = "import os\nos.execv('/bin/true', ['true'])"
        assert self.tried(code, *LAYERS).repl_lost
        assert "not permitted" in self.refused(code, *self.only("system call filter"))

    @pytest.mark.parametrize("layer", ["process namespace", "system call filter"])
    def test_others_can_not_be_signalled(self, layer: str) -> None:
        with subprocess.Popen(["sleep", "60"]) as victim:
            code = f"import os\nos.kill({victim.pid}, 9)\nprint('shot')"
            error = self.tried(code, *self.only(layer)).error
            assert error is not None
            assert error.kind in ("PermissionError", "ProcessLookupError")
            assert victim.poll() is None
            assert self.works_bare(code) == "shot\n"
            assert victim.wait(5) == -9

    def test_limits_of_others_can_not_be_changed(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as victim:
            try:
                code = (
                    "import resource as r\n"
                    f"r.prlimit({victim.pid}, r.RLIMIT_NOFILE, (7, 7))\nprint('lowered')"
                )
                assert "not permitted" in self.refused(code, *self.only("system call filter"))
                assert self.works_bare(code) == "lowered\n"
            finally:
                victim.kill()

    def test_signals_can_not_be_sent_through_a_descriptor(self) -> None:
        code = "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, 1)\nprint('set')"
        assert self.works_bare(code) == "set\n"
        assert "not permitted" in self.refused(code, *self.only("system call filter"))

    def test_what_the_host_knows_of_processes_can_not_be_read(self) -> None:
        code = f"print(len(open('/proc/{os.getpid()}/cmdline').read()) > 0)"
        assert self.works_bare(code) == "True\n"
        self.refused(code)
        self.refused(code, *self.only("landlock"))

    def test_a_process_has_a_number_of_its_own_world(self) -> None:
        code = "import os\nprint(os.getpid(), os.getppid())"
        without = self.only("process namespace")
        assert self.output(code, without_layers=without) == "1 0\n"
        assert self.works_bare(code) != "1 0\n"


class TestRights(Layered):
    STATUS = (
        "print(dict(line.split(':\\t', 1) for line in open('/proc/self/status'))[{!r}].strip())"
    )

    def status(self, field: str, *layers: str) -> str:
        code = self.STATUS.format(field)
        return self.output(code, without_layers=self.only(*layers)).strip()

    def test_no_right_of_root_is_left(self) -> None:
        for field in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(self.status(field, "no capabilities"), 16) == 0
        if os.geteuid() == 0:
            assert int(self.works_bare(self.STATUS.format("CapEff")), 16) != 0

    def test_no_new_privileges_can_be_had(self) -> None:
        assert self.status("NoNewPrivs", "no new privileges") == "1"
        assert self.works_bare(self.STATUS.format("NoNewPrivs")) == "0\n"

    def test_the_filter_is_on(self) -> None:
        assert self.status("Seccomp", "system call filter") == "2"
        assert self.works_bare(self.STATUS.format("Seccomp")) == "0\n"

    def test_code_does_not_run_as_root(self) -> None:
        code = "import os\nprint(0 in (os.getuid(), os.geteuid(), os.getgid()), os.getgroups())"
        if os.geteuid() == 0 and "own user" in self.offered.missing:
            pytest.skip(self.offered.missing["own user"])
        result = self.output(code)
        assert result.startswith("False ")
        if os.geteuid() == 0:
            assert self.works_bare(code).startswith("True")

    def test_memory_can_not_be_looked_into(self) -> None:
        code = "import ctypes\nprint(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
        assert self.output(code, without_layers=self.only("not dumpable")) == "0\n"
        assert self.works_bare(code) == "1\n"

    def test_the_host_name_is_not_told(self) -> None:
        code = "import ctypes\nprint(ctypes.CDLL(None).sethostname(b'other', 5))"
        assert self.output(code) == "-1\n"


class TestLimits(Layered):
    def test_a_session_has_so_many_bytes_of_files(self) -> None:
        code = (
            "import errno\n"
            "try:\n"
            "    for n in range(9):\n"
            "        with open(str(n), 'wb') as file:\n            file.write(bytes(1 << 19))\n"
            "except OSError as error:\n    print(errno.errorcode[error.errno], n)"
        )
        size = {"scratch_bytes": 1 << 20}
        without = self.only("own root", "limits")
        assert self.output(code, without_layers=without, **size) == "ENOSPC 2\n"
        assert self.works_bare(code) == ""

    def test_a_file_has_so_many_bytes(self) -> None:
        code = (
            "import errno\n"
            "try:\n    print(open('f', 'wb').write(bytes(1 << 21)))\n"
            "except OSError as error:\n    print(errno.errorcode[error.errno])"
        )
        limited = self.only("limits")
        assert self.output(code, without_layers=limited, scratch_bytes=1 << 20) == "EFBIG\n"
        assert self.works_bare(code) == "2097152\n"

    def test_a_session_has_so_many_threads(self) -> None:
        code = (
            "import threading\n"
            "threading.stack_size(1 << 16)\n"
            "gate, made = threading.Event(), []\n"
            "try:\n"
            "    while len(made) < 1000:\n"
            "        t = threading.Thread(target=gate.wait)\n        t.start()\n"
            "        made.append(t)\n"
            "except RuntimeError as error:\n    print(error)\n"
            "gate.set()\n[t.join() for t in made]\nprint(len(made) < 300)"
        )
        if os.geteuid() == 0 and "own user" in self.offered.missing:
            pytest.skip("the system doesn't limit root")
        first, after = self.cells(code, "print('on')")
        assert first.stdout == "can't start new thread\nTrue\n"
        assert after.stdout == "on\n"

    def test_memory_can_not_be_had_by_other_ways(self) -> None:
        code = "import os\nos.memfd_create('more')\nprint('had')"
        assert self.works_bare(code) == "had\n"
        assert "not permitted" in self.refused(code, *self.only("system call filter"))


class TestStrict(Layered):
    OPEN = ("network namespace", "system call filter", "landlock", "own root", "mount namespace")

    def test_a_session_with_one_layer_for_each_may_start(self) -> None:
        without = self.only("landlock", "system call filter")
        assert self.output("1", isolation="strict", without_layers=without) == "1\n"

    def test_a_session_that_is_open_does_not_start(self) -> None:
        with pytest.raises(ReplUnavailable) as refused:
            self.output("1", isolation="strict", without_layers=self.OPEN)
        for word in ("files and network", "landlock", "left out by request", "5.13", "doctor"):
            assert word in str(refused.value)

    def test_best_effort_starts_all_the_same(self) -> None:
        assert self.output("1", without_layers=self.OPEN) == "1\n"

    def test_what_is_open_is_reported(self) -> None:
        report = report_with(*self.OPEN)
        assert report.summary == "files OPEN, network OPEN"
        assert set(self.OPEN) <= set(report.missing)
        assert "landlock (left out by request)" in report.environment()["sandbox.missing"]

    def test_all_that_is_offered_is_closed(self) -> None:
        assert self.offered.summary == "files closed, network closed"
        assert self.offered.refusal() is None

    def test_a_session_that_lacks_what_the_first_had_does_not_start(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = {(*self.OPEN, "limits"): report_of(dict.fromkeys(LAYERS, ""))}
        monkeypatch.setattr("effects.repls._isolation._first", first)
        with pytest.raises(ReplUnavailable, match="earlier sessions had"):
            self.output("1", without_layers=(*self.OPEN, "limits"))

    @pytest.mark.parametrize(
        "wrong", [{"isolation": "none"}, {"scratch_bytes": 0}, {"isolation": "Strict"}]
    )
    def test_limits_that_make_no_sense_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ReplLimits(**wrong)  # type: ignore[arg-type]


class TestHostileCode(PythonDriving):
    @pytest.mark.parametrize(
        "code",
        [
            "import builtins\nfor name in ('print', 'len', 'compile', 'exec', 'isinstance'):\n"
            "    setattr(builtins, name, None)",
            "import builtins\nbuiltins.__dict__.clear()",
            "import sys\nsys.modules.clear()",
            "import sys\nsys.modules = None",
            "import json\njson.dumps = json.loads = json.JSONEncoder = json.JSONDecoder = None",
            "import os\nos.write = os.read = os._exit = os.getpid = None",
            "import signal\nfor n in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):\n"
            "    signal.signal(n, signal.SIG_IGN)",
            "import sys\nsys.settrace(lambda *_: 1 / 0)\nsys.setprofile(lambda *_: 1 / 0)",
            "import sys\nsys.setrecursionlimit(50)\nraise ValueError",
            "import gc\nfor o in gc.get_objects():\n"
            "    if type(o).__name__ in ('Session', 'Wire', 'Guard', 'Sink', 'Compiler'):\n"
            "        try:\n            o.__dict__.clear()\n"
            "        except Exception:\n            pass",
            "import sys\nfor name, m in list(sys.modules.items()):\n"
            "    if name.startswith('_') and getattr(m, '__file__', None):\n"
            "        m.__dict__.clear()",
            "import os\nos.closerange(0, 512)",
            "import threading, time, os\n"
            "threading.Thread(target=lambda: (time.sleep(.05), os._exit(1))).start()",
            "raise SystemExit",
            "llm_query = P = ctx = SHOW_VARS = None",
            "import atexit\natexit.register(lambda: 1 / 0)\nraise KeyboardInterrupt",
        ],
    )
    def test_code_harms_no_session_but_its_own(self, code: str) -> None:
        async def main() -> list[CodeResult]:
            mine, other = await self.make("one"), await self.make("two")
            try:
                await answer_all(other, "x = 1")
                results = [await answer_all(mine, code)]
                await asyncio.sleep(0.1)
                results += [await answer_all(mine, "print(len(P), llm_query('a'))")]
                if results[-1].error is not None:  # it was told that the session is gone
                    assert results[-1].repl_lost or results[0].error is None
                    results += [await answer_all(mine, "print(len(P), llm_query('a'))")]
                return [*results, await answer_all(other, "print(x, P)")]
            finally:
                await mine.close()
                await other.close()

        *_, last, beside = asyncio.run(asyncio.wait_for(main(), 30))
        assert last.stdout == "3 A\n", last.error
        assert beside.stdout == "1 two\n"
