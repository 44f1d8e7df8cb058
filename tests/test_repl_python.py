"""The `python` backend: the contract of all backends, its process, what code finds in it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repl_contract import ReplContract
from repl_driving import answer_all
from repl_python import (
    BARE,
    PythonDriving,
    comes_true,
    descendants,
    is_running,
    own_children,
    sessions,
)

from effects.context import Context
from effects.repls.base import Answer, Repl, ReplUnavailable
from rlm_fsm.values import CodeResult

ROOT = Path(__file__).parent.parent


class TestPythonRepl(PythonDriving, ReplContract):
    """The contract."""


class TestProcess(PythonDriving):
    def test_code_runs_in_another_process_without_an_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET", "x")
        code = "import os\nprint(os.getpid(), dict(os.environ))"
        pid, rest = self.output(code).split(" ", 1)
        assert int(pid) != os.getpid()
        assert rest == "{}\n"

    def test_sets_of_texts_have_the_same_order_in_every_process(self) -> None:
        code = "print({f'word {n}' for n in range(50)})"
        assert self.output(code) == self.output(code)

    @pytest.mark.parametrize("without", [(), ("mount namespace",), BARE])
    def test_code_works_in_an_empty_folder_that_is_deleted(
        self, without: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        code = "import os\nprint(os.listdir())\nopen('f', 'w').write('é')\nprint(os.listdir())"
        assert self.output(code, without_layers=without) == "[]\n['f']\n"
        assert not list(tmp_path.iterdir())

    def test_locked_folders_are_deleted_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        self.output("import os\nos.makedirs('a/b')\nos.chmod('a', 0)", without_layers=BARE)
        assert not list(tmp_path.iterdir())

    def test_nothing_but_the_socket_is_open(self) -> None:
        code = (
            "import os, stat\n"
            "for fd in range(512):\n"
            "    try:\n"
            "        mode = os.fstat(fd).st_mode\n"
            "    except OSError:\n"
            "        continue\n"
            "    print(stat.S_ISCHR(mode) * 'device' + stat.S_ISSOCK(mode) * 'socket')"
        )
        assert self.output(code).split() == ["device"] * 3 + ["socket"]

    def test_input_finds_nothing(self) -> None:
        assert self.error("input('name? ')")[0] == "EOFError"

    def test_the_runtime_folder_is_not_on_the_path(self) -> None:
        code = "import sys\nprint([p for p in sys.path if 'repls' in p], sys.argv, sys.orig_argv)"
        assert self.output(code) == "[] [''] ['']\n"

    def test_limits_of_the_process_are_set(self) -> None:
        code = (
            "import resource as r\n"
            "print(r.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_AS)[0] > 0,\n"
            "      r.getrlimit(r.RLIMIT_FSIZE)[0] > 0, r.getrlimit(r.RLIMIT_NOFILE)[0] <= 512)"
        )
        assert self.output(code) == "(0, 0) True True True\n"

    def test_closing_kills_what_code_started(self) -> None:
        code = (
            "import subprocess\n"
            "plain = subprocess.Popen(['sleep', '60'])\n"
            "apart = subprocess.Popen(['sh', '-c', 'sleep 60 & sleep 60'], process_group=0)\n"
            "import os\nprint(os.getpid(), plain.pid, apart.pid)"
        )
        pids = [int(pid) for pid in self.output(code, without_layers=BARE).split()]
        assert comes_true(lambda: not any(map(is_running, pids)))
        assert comes_true(lambda: sessions().isdisjoint(pids))

    def test_the_process_ends_with_its_host(self, tmp_path: Path) -> None:
        program = (
            "import asyncio\n"
            "from effects.context import Context\n"
            "from effects.repls.python import PythonRepl\n"
            "async def main():\n"
            "    repl = PythonRepl(Context.from_text('x'))\n"
            "    print((await repl.start('1')).stdout, flush=True)\n"
            "    await repl.start('while True: pass')\n"
            "asyncio.run(main())\n"
        )
        # A killed host can't delete the session's folder.
        env = {**os.environ, "TMPDIR": str(tmp_path)}
        with subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
        ) as host:
            assert host.stdout is not None
            assert host.stdout.readline() == "1\n"
            pids = descendants(host.pid)
            assert pids
            host.kill()
        assert comes_true(lambda: not any(map(is_running, pids)))

    def test_a_host_that_cannot_start_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario(repl: Repl) -> None:
            with pytest.raises(ReplUnavailable, match="could not be started"):
                await repl.open()
            with pytest.raises(ReplUnavailable, match="could not be started"):
                await repl.start("1")

        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        self.session(scenario)

    def test_a_process_that_fails_at_once_is_told_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario(repl: Repl) -> None:
            with pytest.raises(ReplUnavailable, match="exited with code 1"):
                await repl.open()

        monkeypatch.setattr(sys, "executable", "/bin/false")
        self.session(scenario)

    def test_opening_early_and_starting_at_once_share_one_process(self) -> None:
        async def scenario(repl: Repl) -> CodeResult:
            warm = asyncio.create_task(repl.open())
            await asyncio.sleep(0)
            result = await answer_all(repl, "print('ready')")
            await warm
            return result

        assert self.session(scenario).stdout == "ready\n"

    def test_closing_while_it_opens_leaves_nothing(self) -> None:
        async def scenario(repl: Repl) -> None:
            warm = asyncio.create_task(repl.open())
            await asyncio.sleep(0.005)
            await repl.close()
            with pytest.raises(ReplUnavailable, match="closed while it started"):
                await warm

        self.session(scenario)
        assert not own_children()

    def test_a_context_of_documents_keeps_its_spans_and_names(self) -> None:
        context = Context.from_documents(["one", "zwölf"], names=["a", "b"])
        code = "print(ctx.get_document(1), ctx.metadata()['document_names'])"
        assert self.output(code, source=context) == "zwölf ['a', 'b']\n"

    def test_a_context_of_megabytes_arrives_whole(self) -> None:
        text = "".join(f"line {i} é😀\n" for i in range(300_000))
        code = "import hashlib\nprint(lenP(), ctx.find('line 299999')[0][2], hash(P) != 0)"
        assert self.output(code, source=text) == f"{len(text)} line 299999 True\n"


class TestNamespace(PythonDriving):
    def test_classes_work_and_can_be_pickled(self) -> None:
        define = "class Point:\n    def __init__(self, x):\n        self.x = x"
        use = "import pickle\nprint(pickle.loads(pickle.dumps(Point(3))).x, Point.__module__)"
        assert self.output(define, use) == "3 __main__\n"

    def test_dataclasses_and_type_hints_find_their_module(self) -> None:
        code = (
            "from __future__ import annotations\n"
            "from dataclasses import dataclass\n"
            "import typing\n"
            "@dataclass\nclass A:\n    n: int\n"
            "print(A(1), typing.get_type_hints(A))"
        )
        assert self.output(code) == "A(n=1) {'n': <class 'int'>}\n"

    def test_a_future_import_holds_for_later_cells(self) -> None:
        cells = "from __future__ import annotations", "def f(x: nowhere): pass", "print('on')"
        assert self.output(*cells) == "on\n"

    def test_the_standard_library_is_there(self) -> None:
        code = (
            "import re, json, collections, datetime\nprint(json.dumps(re.findall('a', 'banana')))"
        )
        assert self.output(code) == '["a", "a", "a"]\n'

    def test_a_generator_may_ask_while_it_is_consumed(self) -> None:
        code = "g = (llm_query(c) for c in 'ab')", "print(next(g))", "print(list(g))"
        assert self.output(*code) == "['B']\n"

    def test_a_coroutine_may_ask(self) -> None:
        code = "import asyncio\nasync def f():\n    return llm_query('a')\nprint(asyncio.run(f()))"
        assert self.output(code) == "A\n"

    def test_the_exceptions_are_classes_of_the_session(self) -> None:
        assert self.output(
            "SubcallLimitError.__mro__[1], issubclass(SubcallError, RuntimeError)"
        ) == ("(<class '__main__.SubcallError'>, True)\n")

    def test_functions_explain_themselves(self) -> None:
        code = (
            "import inspect\n"
            "print(llm_query.__name__, list(inspect.signature(llm_query).parameters)[0])"
        )
        assert self.output(code) == "llm_query text\n"

    def test_show_vars_leaves_out_modules_and_underscores(self) -> None:
        text = self.output("import re\n_private = 1\nvisible = 2", "SHOW_VARS()")
        assert "visible" in text
        assert "private" not in text
        assert "module" not in text

    def test_deleted_names_of_the_runtime_come_back(self) -> None:
        assert self.output("del P, ctx, llm_query, __builtins__", "print(P[:3])") == "The\n"

    def test_several_threads_may_ask(self) -> None:
        code = (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(8) as pool:\n"
            "    print(list(pool.map(llm_query, 'abcdefghijkl')))"
        )
        assert self.output(code) == f"{list('ABCDEFGHIJKL')}\n"

    def test_threads_that_are_to_stop_end_with_all_that_they_were_to_ask(self) -> None:
        code = (
            "from concurrent.futures import ThreadPoolExecutor, as_completed\nn = 1\n"
            "with ThreadPoolExecutor(4) as pool:\n"
            "    asked = [pool.submit(llm_query, 'q') for _ in range(100)]\n"
            "    for each in as_completed(asked):\n"
            "        try:\n            each.result()\n"
            "        except Exception:\n            pass"
        )
        stop = Answer(kind="stop", text="enough")
        first, second = self.cells(code, "print(n)", answerer=lambda _: stop)
        assert first.error is not None
        assert (first.error.kind, first.repl_lost) == ("CellStopped", False)
        assert second.stdout == "1\n"

    def test_code_that_awaits_and_catches_even_its_end_leaves_nothing_behind(self) -> None:
        code = (
            "import asyncio\nn = 1\nwhile True:\n    try:\n"
            "        await asyncio.gather(*[llm_query(p) for p in 'qq'])\n"
            "    except BaseException:\n        pass"
        )
        stop = Answer(kind="stop", text="enough")
        first, second = self.cells(
            code, "print(n, await llm_query('a'))", answerer=lambda p: stop if p == "q" else p
        )
        assert first.error is not None
        assert (first.error.kind, first.stdout) == ("CellStopped", "")
        assert (second.error, second.stdout) == (None, "1 a\n")

    def test_a_thread_that_asks_after_its_cell_is_refused(self) -> None:
        code = (
            "import threading, time\n"
            "told = []\n"
            "def late():\n"
            "    time.sleep(0.05)\n"
            "    try:\n        llm_query('x')\n"
            "    except RuntimeError as e:\n        told.append(str(e))\n"
            "t = threading.Thread(target=late)\nt.start()"
        )

        async def scenario(repl: Repl) -> CodeResult:
            await answer_all(repl, code)
            await asyncio.sleep(0.3)
            return await answer_all(repl, "t.join()\nprint(told)")

        assert "no cell is running" in self.session(scenario).stdout

    def test_a_forked_copy_disturbs_nothing(self) -> None:
        code = (
            "import os\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    try:\n        llm_query('from the copy')\n"
            "    except RuntimeError:\n        os._exit(7)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
        )
        assert self.output(code, "llm_query('x')", without_layers=BARE) == "'X'\n"
        copies = "import os\nif os.fork() == 0:\n    y = 1", "os.wait()\nprint('y' in dir())"
        assert self.output(*copies, without_layers=BARE) == "False\n"


class TestOutput(PythonDriving):
    def test_stderr_is_shown_in_its_place(self) -> None:
        code = "import sys\nprint(1)\nprint(2, file=sys.stderr)\nprint(3)"
        assert self.output(code) == "1\n2\n3\n"

    def test_threads_and_logging_print_into_the_running_cell(self) -> None:
        first = "import logging, threading\nlogging.basicConfig(format='%(message)s')"
        second = (
            "t = threading.Thread(target=print, args=('from a thread',))\n"
            "t.start()\nt.join()\nlogging.warning('logged')"
        )
        assert self.output(first, second) == "from a thread\nlogged\n"

    def test_a_stream_that_code_replaced_comes_back(self) -> None:
        assert (
            self.output("import sys, io\nsys.stdout = io.StringIO()", "print('here')") == "here\n"
        )

    def test_redirected_output_is_the_code_s(self) -> None:
        code = (
            "import io, contextlib\nb = io.StringIO()\n"
            "with contextlib.redirect_stdout(b):\n    print('x')\nprint(repr(b.getvalue()))"
        )
        assert self.output(code) == "'x\\n'\n"

    def test_bytes_written_to_the_buffer_are_shown(self) -> None:
        assert self.output("import sys\nsys.stdout.buffer.write(b'caf\\xc3\\xa9 \\xff\\n')") == (
            "café \\xff\n8\n"
        )

    def test_endless_printing_is_cut_and_stopped(self) -> None:
        endless, after = self.cells(
            "while True:\n    print('x' * 100_000)",
            "print('on')",
            cell_timeout_s=0.3,
            output_chars=1000,
        )
        assert endless.error is not None
        assert endless.error.kind == "CellTimeout"
        assert endless.stdout == "x" * 1000
        assert endless.stdout_chars > 100_000
        assert after.stdout == "on\n"


class TestErrors(PythonDriving):
    @pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
    def test_exceptions_that_end_programs_end_the_cell(self, name: str) -> None:
        assert self.error(f"raise {name}(3)")[0] == name

    def test_a_traceback_is_python_s_own(self) -> None:
        kind, traceback = self.error("def f():\n    return {}['k']\n\nf()")
        assert kind == "KeyError"
        lines = [line for line in traceback.splitlines() if set(line.strip()) - set("^~")]
        assert lines == [
            "Traceback (most recent call last):",
            '  File "<cell 1>", line 4, in <module>',
            "    f()",
            '  File "<cell 1>", line 2, in f',
            "    return {}['k']",
            "KeyError: 'k'",
        ]

    def test_frames_of_the_runtime_and_the_library_are_left_out(self) -> None:
        for code in ("llm_query(5)", "import json\njson.loads('{')", "import nowhere_to_be_found"):
            _, traceback = self.error(code)
            assert traceback.count("File ") == 1, traceback
            assert "<cell 1>" in traceback

    def test_causes_are_shown(self) -> None:
        code = "try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('outer') from e"
        kind, traceback = self.error(code)
        assert kind == "ValueError"
        assert "ZeroDivisionError" in traceback
        assert "direct cause" in traceback

    def test_a_syntax_error_shows_its_line_and_place(self) -> None:
        kind, traceback = self.error("x = 1\nif x\n    pass")
        assert kind == "SyntaxError"
        assert '  File "<cell 1>", line 2\n    if x\n        ^\n' in traceback
        assert "Traceback" not in traceback

    def test_an_error_that_cannot_be_shown_is_an_error_all_the_same(self) -> None:
        code = "class E(Exception):\n    def __str__(self):\n        1 / 0\nraise E()"
        assert self.error(code)[0] == "E"

    def test_a_huge_message_is_shortened(self) -> None:
        (result,) = self.cells("raise ValueError('x' * 10_000_000)")
        assert result.error is not None
        assert len(result.error.message) < 20_000
        assert len(result.error.traceback) < 40_000
        assert result.error.traceback.endswith("xxx")

    def test_code_that_cannot_be_compiled_is_an_error(self) -> None:
        for code in ("x = '\0'", "x = '\ud800'", "(" * 500 + ")" * 500, "1" + "+1" * 200_000):
            self.error(code)

    def test_a_recursion_that_asks_stays_in_step(self) -> None:
        code = "def f(n):\n    llm_query(str(n))\n    f(n + 1)\nf(0)"
        assert self.error(code)[0] == "RecursionError"

    def test_a_group_of_errors_is_shown(self) -> None:
        kind, traceback = self.error("raise ExceptionGroup('both', [ValueError(1), KeyError(2)])")
        assert kind == "ExceptionGroup"
        assert "ValueError: 1" in traceback
