"""The escape corpus: what hostile code tries in a cell, on both backends, with a positive control.

A payload in `escape/payloads` names the canary that it would trip. Under bare `exec` it does; in a
session no canary is tripped, and the session, or the next one, goes on working.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from escape import trial
from escape.corpus import CANARIES, LAYERS, Payload, load, table

ROOT = Path(__file__).parent.parent
PAYLOADS = pytest.mark.parametrize("payload", load(), ids=str)
MOST_NEEDY = 0.15
"""The share of payloads that may need more than every machine gives."""


class Trials:
    """One process for each mode. They go on side by side, each as far as it is asked for."""

    def __init__(self, folder: Path, wanted: dict[str, list[int]]) -> None:
        self._found: dict[str, dict[int, tuple[dict[str, str], Any]]] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        for mode, numbers in wanted.items():
            place = folder / mode.replace(" ", "-")
            place.mkdir()
            self._found[mode] = {}
            self._processes[mode] = process = subprocess.Popen(
                [sys.executable, trial.__file__, mode, str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            )
            assert process.stdin is not None
            process.stdin.write(" ".join(map(str, numbers)))
            process.stdin.close()

    def of(self, mode: str, payload: Payload) -> tuple[dict[str, str], Any]:
        """What a payload tripped, and what its host said."""
        number, found = load().index(payload), self._found[mode]
        stdout = self._processes[mode].stdout
        assert stdout is not None
        while number not in found:
            line = stdout.readline()
            assert line, f"the trial {mode} broke off"
            tried, tripped, said = json.loads(line)
            found[tried] = tripped, said
        return found[number]

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes.values():
            with process:  # closes its pipes, and waits
                process.kill()


@pytest.fixture(scope="module")
def trials(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trials]:
    wanted: dict[str, list[int]] = {}
    for item in request.session.items:
        if item.path == request.path and (spec := getattr(item, "callspec", None)):
            mode = spec.params.get("mode", "bare")
            wanted.setdefault(mode, []).append(load().index(spec.params["payload"]))
    made = Trials(tmp_path_factory.mktemp("escape"), wanted)
    yield made
    made.close()


def missing(payload: Payload, said: dict[str, Any]) -> str:
    """The layer that would have stopped a payload, when the machine has none such."""
    layer = LAYERS[payload.layer]
    return f"no {layer} in this sandbox" if layer and layer not in said.get("active", ()) else ""


@PAYLOADS
def test_under_bare_exec_the_payload_trips_its_canary(payload: Payload, trials: Trials) -> None:
    tripped, said = trials.of("bare", payload)
    if payload.needs and payload.trips not in tripped:
        pytest.skip(f"it takes {payload.needs}, which this machine doesn't give")
    assert payload.trips in tripped, said


@pytest.mark.parametrize(
    ("payload", "mode"),
    [
        pytest.param(payload, mode, id=f"{mode}-{payload}")
        for mode in trial.MODES
        for payload in load()
        if mode != "bare" and (mode != "python without namespaces" or LAYERS[payload.layer])
    ],
)
def test_in_a_session_the_payload_trips_nothing(
    mode: str, payload: Payload, trials: Trials
) -> None:
    tripped, said = trials.of(mode, payload)
    if tripped and (why := missing(payload, said)):
        pytest.skip(f"{payload.trips}: {why}")
    assert not tripped, said


def test_every_canary_is_tripped_by_some_payload() -> None:
    assert {payload.trips for payload in load()} == CANARIES.keys()


def test_few_payloads_need_more_than_every_machine_gives() -> None:
    needy = [payload for payload in load() if payload.needs]
    assert len(needy) <= MOST_NEEDY * len(load())


def test_no_two_payloads_have_one_name() -> None:
    assert len({str(payload) for payload in load()}) == len(load()) >= 80


def test_the_page_on_security_has_the_right_numbers() -> None:
    page = (ROOT / "docs/explanation/security.md").read_text("utf-8")
    assert sum(payload.layer == "own root" for payload in load()) == 2
    assert "Two attempts of the corpus then succeed" in page
    assert table() in page, "write it anew: PYTHONPATH=tests python -m escape.corpus"
