"""Chance and the calendar of sessions: the same each time, for both backends."""

import asyncio
import datetime
from collections.abc import Sequence

import pytest
from repl_driving import Driving, context_of, settings_of
from repl_python import PythonDriving

from effects.context import Context
from effects.repls._fixed import DEFAULT_START_S, number_of, start_of
from effects.repls.base import Paused, Repl
from effects.repls.monty import MontyRepl
from rlm_fsm.values import CodeResult, Outcome

SEED = "20261122-181500-abcdefgh"
OTHER = "20261122-181500-abcdefgi"
NOW_S = 1795371300.25
"""22 November 2026, 18:15 UTC."""
Told = list[tuple[str, list[str]]]
"""What cells printed, and the kinds of what they asked."""


class FixedContract(Driving):
    """What holds for a session with a seed."""

    CHANCE = "import random\nprint(random.random(), random.randint(1, 10**9))"
    CALENDAR = "import datetime\nprint(datetime.datetime.now(), datetime.date.today())"

    def test_chance_is_the_same_for_the_same_seed(self) -> None:
        first = self.output(self.CHANCE, seed=SEED)
        assert self.output(self.CHANCE, seed=SEED) == first
        assert self.output(self.CHANCE, seed=OTHER) != first

    def test_the_calendar_begins_when_the_run_did(self) -> None:
        first = self.output(self.CALENDAR, seed=SEED)
        assert first.startswith("2026-11-22 18:15:00")
        assert "2026-11-22\n" in first
        assert self.output(self.CALENDAR, seed=SEED) == first


class ClockContract(Driving):
    """What holds for a session whose code is told the true time."""

    def told(self, *codes: str, times: Sequence[float], **settings: object) -> Told:
        """Run cells whose questions for the time get these answers; what they printed, and the
        kinds of what each of them asked."""
        left = list(times)

        async def scenario(repl: Repl) -> Told:
            shown: Told = []
            for code in codes:
                kinds: list[str] = []
                step = await repl.start(code)
                while isinstance(step, Paused):
                    kinds += [call.kind for call in step.calls]
                    given = [
                        f"{left.pop(0):.6f}" if call.kind == "clock" else call.prompt.upper()
                        for call in step.calls
                    ]
                    step = await repl.resume(tuple(Outcome("text", text) for text in given))
                assert step.error is None, step.error
                shown.append((step.stdout, kinds))
            return shown

        options = {"seed": SEED, "asks_clock": True, **settings}
        shown = self.session(scenario, **options)
        assert not left
        return shown

    def test_a_cell_asks_once_and_goes_on_from_there(self) -> None:
        code = "import time\nprint(time.time(), time.time(), time.time())"
        assert self.told(code, times=[NOW_S]) == [
            (f"{NOW_S} {NOW_S + 0.001} {NOW_S + 0.002}\n", ["clock"])
        ]

    def test_each_cell_that_asks_is_told_anew_and_others_ask_nothing(self) -> None:
        cells = ("import time\nprint(time.time())", "x = 1", "print(time.time())")
        assert self.told(*cells, times=[NOW_S, NOW_S + 60]) == [
            (f"{NOW_S}\n", ["clock"]),
            ("", []),
            (f"{NOW_S + 60}\n", ["clock"]),
        ]

    @pytest.mark.parametrize(
        ("code", "printed"),
        [
            ("from datetime import datetime\ndatetime.now()", "datetime.datetime(2026, 11, 22, 18"),
            ("from datetime import date\ndate.today()", "datetime.date(2026, 11, 22)"),
            (
                "import datetime as d\nprint(d.datetime.now(d.timezone.utc))",
                "2026-11-22 18:15:00.250000+00:00",
            ),
            ("import time\ntime.time_ns() // 10**6", "1795371300250"),
            ("import time\ntime.localtime().tm_year", "2026"),
            ("import time\ntime.gmtime()[:5]", "(2026, 11, 22, 18, 15)"),
            ("import time\nprint(time.ctime())", "Sun Nov 22 18:15:00 2026"),
            ("import time\nprint(time.strftime('%H:%M'))", "18:15"),
        ],
    )
    def test_all_that_asks_for_the_time_is_told(self, code: str, printed: str) -> None:
        [(output, kinds)] = self.told(code, times=[NOW_S])
        assert output.startswith(printed)
        assert kinds == ["clock"]

    def test_the_time_never_goes_back(self) -> None:
        first, second = self.told(
            "import time\na = time.time()", "time.time() - a > 0", times=[NOW_S, NOW_S - 3600]
        )
        assert (first[1], second) == (["clock"], ("True\n", ["clock"]))

    def test_what_measures_how_long_something_took_asks_nothing(self) -> None:
        code = "import time\nbegan = time.perf_counter()\nprint(time.perf_counter() > began)"
        assert self.told(code, times=[]) == [("True\n", [])]

    def test_the_time_is_asked_between_subcalls_and_in_callbacks(self) -> None:
        code = (
            "import time\ndef stamp(x):\n    return (x, time.time())\n"
            "first = llm_query('a')\n"
            "print(list(map(stamp, [first, llm_query('b')])))\n"
            "print(sorted([2, 1], key=lambda n: time.time()))"
        )
        [(output, kinds)] = self.told(code, times=[NOW_S])
        assert output == f"[('A', {NOW_S}), ('B', {NOW_S + 0.001})]\n[2, 1]\n"
        assert kinds == ["subcall", "subcall", "clock"]

    def test_a_session_that_does_not_ask_is_never_paused_for_it(self) -> None:
        code = "import time, datetime\nprint(datetime.date.today(), time.time())"
        [(output, kinds)] = self.told(code, times=[], asks_clock=False)
        assert (output[:10], kinds) == ("2026-11-22", [])

    def test_without_a_seed_nothing_is_asked(self) -> None:
        assert self.told("import time\nx = time.time()", times=[], seed="") == [("", [])]


class TestMonty(FixedContract, ClockContract):
    async def make(self, source: str | list[str] | Context, **settings: object) -> Repl:
        return MontyRepl(context_of(source), settings_of(**settings))


class TestPython(PythonDriving, FixedContract, ClockContract):
    def test_a_module_that_reads_the_time_when_it_is_imported_asks_nothing(self) -> None:
        cells = ("import logging, asyncio", "logging.getLogger().warning('x')")
        told = self.told(*cells, times=[NOW_S])
        assert [kinds for _, kinds in told] == [[], ["clock"]]

    def test_sleeping_moves_the_time_on(self) -> None:
        code = "import time\na = time.time()\ntime.sleep(0.02)\nround(time.time() - a, 6)"
        assert self.told(code, times=[NOW_S]) == [("0.021\n", ["clock"])]

    def test_code_that_runs_while_no_cell_does_is_not_told(self) -> None:
        async def scenario(repl: Repl) -> tuple[object, str | None]:
            code = "import time\nclass A:\n    def __str__(self): return str(time.time())\na = A()"
            return await repl.start(code), (await repl.read("a")).text

        ended, text = self.session(scenario, seed=SEED, asks_clock=True)
        assert isinstance(ended, CodeResult)
        assert text is not None
        assert start_of(SEED) < float(text) < start_of(SEED) + 60

    def test_time_spent_asking_is_not_the_cell_s(self) -> None:
        code = "import time\nfor n in range(3):\n    time.time()\nprint('on')"

        async def scenario(repl: Repl) -> CodeResult | Paused:
            step = await repl.start(code)
            assert isinstance(step, Paused)
            await asyncio.sleep(0.5)
            return await repl.resume((Outcome("text", f"{NOW_S}"),))

        ended = self.session(scenario, seed=SEED, asks_clock=True, cell_timeout_s=0.3)
        assert isinstance(ended, CodeResult)
        assert (ended.stdout, ended.error) == ("on\n", None)

    @pytest.mark.parametrize(
        "code",
        [
            "import random\nprint([random.Random().random() for _ in range(3)])",
            "import random\nx = list(range(50))\nrandom.shuffle(x)\nrandom.seed()\n"
            "print(x, random.random())",
            "from random import choice\nprint(''.join(choice('abc') for _ in range(50)))",
            "import time\nprint(time.time(), time.time_ns(), time.perf_counter(), time.ctime())",
            "from datetime import datetime, timezone\n"
            "print(datetime.now(timezone.utc), datetime.utcnow().year, datetime.today())",
            "from time import time, sleep\na = time()\nsleep(0.01)\nprint(time() - a)",
            "import time\nprint(time.strftime('%F %T'), time.localtime(), time.asctime())",
            "import logging, io\ns = io.StringIO()\n"
            "logging.basicConfig(stream=s, format='%(asctime)s %(message)s')\n"
            "logging.warning('x')\nprint(s.getvalue())",
            "print({f'word {n}' for n in range(50)})",
        ],
    )
    def test_what_is_printed_is_the_same(self, code: str) -> None:
        assert self.output(code, seed=SEED) == self.output(code, seed=SEED)

    def test_the_calendar_goes_on_when_it_is_read_and_by_what_code_sleeps(self) -> None:
        code = "import time\na = time.time()\ntime.sleep(0.02)\nround(time.time() - a, 6)"
        assert self.output(code, seed=SEED) == "0.021\n"

    def test_a_rate_can_be_computed(self) -> None:
        code = "import time\nbegan = time.time()\nround(1 / (time.time() - began))"
        assert self.output(code, seed=SEED) == "1000\n"

    def test_event_loops_and_timeouts_wait_by_the_system_s_clock(self) -> None:
        code = (
            "import asyncio, queue\n"
            "asyncio.run(asyncio.sleep(0.02))\n"
            "try:\n    queue.Queue().get(timeout=0.02)\nexcept queue.Empty:\n    print('empty')"
        )
        assert self.output(code, seed=SEED) == "empty\n"

    def test_dates_work_as_they_do_elsewhere(self) -> None:
        code = (
            "import datetime as d, pickle, zoneinfo, json\n"
            "t = d.datetime.strptime('2020-02-29 12:00', '%Y-%m-%d %H:%M')\n"
            "tokyo = t.replace(tzinfo=d.UTC).astimezone(d.timezone(d.timedelta(hours=9)))\n"
            "print(t + d.timedelta(1), tokyo, f'{t:%d %b}', pickle.loads(pickle.dumps(t)) == t)"
        )
        printed = "2020-03-01 12:00:00 2020-02-29 21:00:00+09:00 29 Feb True\n"
        assert self.output(code, seed=SEED) == printed

    def test_secrets_are_not_fixed(self) -> None:
        code = "import os, uuid, secrets\nprint(os.urandom(8), uuid.uuid4(), secrets.token_hex())"
        assert self.output(code, seed=SEED) != self.output(code, seed=SEED)

    def test_a_session_without_a_seed_has_the_system_s(self) -> None:
        assert self.output(self.CHANCE) != self.output(self.CHANCE)
        now = datetime.datetime.now().astimezone()
        year = int(self.output("import time\ntime.gmtime().tm_year"))
        assert abs(year - now.year) <= 1


@pytest.mark.parametrize("year", [1970, 1999, 2000, 2024, 2026, 2100, 2400])
@pytest.mark.parametrize("day", ["0101", "0228", "0301", "0630", "1231"])
def test_the_start_is_read_from_the_id(year: int, day: str) -> None:
    then = datetime.datetime.strptime(f"{year}{day}-235958 +0000", "%Y%m%d-%H%M%S %z")
    assert start_of(f"{year}{day}-235958-abc") == then.timestamp()


@pytest.mark.parametrize("seed", ["", "run", "20261322-181500-x", "2026112x-181500-x"])
def test_an_id_that_says_no_time_begins_in_2026(seed: str) -> None:
    assert start_of(seed) == DEFAULT_START_S


def test_a_number_of_a_seed_is_its_own() -> None:
    assert number_of(SEED) != number_of(OTHER)
    assert 0 <= number_of("\ud800") < 2**63
