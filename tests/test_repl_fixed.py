"""Chance and the calendar of sessions: the same each time, for both backends."""

import datetime

import pytest
from repl_driving import Driving, context_of, settings_of
from repl_python import PythonDriving

from effects.context import Context
from effects.repls._fixed import DEFAULT_START_S, number_of, start_of
from effects.repls.base import Repl
from effects.repls.monty import MontyRepl

SEED = "20261122-181500-abcdefgh"
OTHER = "20261122-181500-abcdefgi"


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


class TestMonty(FixedContract):
    async def make(self, source: str | list[str] | Context, **settings: object) -> Repl:
        return MontyRepl(context_of(source), settings_of(**settings))


class TestPython(PythonDriving, FixedContract):
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
