"""The sandbox's process: what a feed does to the program around it."""

import sys
from collections.abc import Generator
from types import ModuleType
from typing import Any

import pytest

from effects.repls._monty_values import Output
from effects.repls._monty_worker import TELEMETRY, Unsearched, Worker
from effects.repls.base import ReplLimits

ABSENT = "a_package_that_is_not_installed"


class Searches:
    """Notes which modules are looked for; finds none."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        self.names.append(name)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Searches:
    found = Searches()
    monkeypatch.setattr(sys, "meta_path", [found, *sys.meta_path])
    return found


@pytest.fixture
def worker() -> Generator[Worker]:
    worker = Worker(ReplLimits(), room_bytes=0)
    worker.feed("x = 1", None, Output(0))
    yield worker
    worker.close()


def test_a_feed_looks_for_no_module(worker: Worker, searches: Searches):
    worker.feed("x = 2", None, Output(0))
    assert not searches.names


def test_after_a_feed_a_package_that_was_installed_meanwhile_is_found(worker: Worker):
    before = sys.modules.get(TELEMETRY)
    worker.feed("x = 2", None, Output(0))
    assert sys.modules.get(TELEMETRY, "not there") is (before or "not there")


def test_an_import_fails_at_once_within_and_is_searched_for_again_after(searches: Searches):
    with Unsearched(ABSENT), pytest.raises(ModuleNotFoundError):
        __import__(ABSENT)
    assert not searches.names
    with pytest.raises(ModuleNotFoundError):
        __import__(ABSENT)
    assert searches.names == [ABSENT]


def test_a_feed_that_ends_within_another_one_takes_nothing_away_twice():
    with Unsearched(ABSENT):
        with Unsearched(ABSENT):
            pass
        with Unsearched(ABSENT):
            assert sys.modules[ABSENT] is None
    assert ABSENT not in sys.modules


def test_a_package_that_was_imported_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    module = ModuleType(ABSENT)
    monkeypatch.setitem(sys.modules, ABSENT, module)
    with Unsearched(ABSENT):
        assert sys.modules[ABSENT] is module
    assert sys.modules[ABSENT] is module
