"""The escape corpus: what hostile code tries in a cell, on both backends, with a positive control.

A payload in `escape/payloads` names the canary that it would trip. Under bare `exec` it does; in a
session no canary is tripped, and the session, or the next one, goes on working.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from escape.canaries import Canaries
from escape.client import Host
from escape.corpus import Payload, load

PAYLOADS = pytest.mark.parametrize("payload", load(), ids=str)


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaries]:
    made = Canaries(tmp_path_factory.mktemp("escape"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def bare(canaries: Canaries) -> Iterator[Host]:
    host = Host("bare", canaries)
    yield host
    host.close()


@pytest.fixture(scope="module")
def host(canaries: Canaries) -> Iterator[Host]:
    host = Host("host", canaries)
    yield host
    host.close()


@PAYLOADS
def test_under_bare_exec_the_payload_trips_its_canary(payload: Payload, bare: Host) -> None:
    tripped = bare.try_out(payload)
    if payload.needs and payload.trips not in tripped:
        pytest.skip(f"it takes {payload.needs}, which this machine doesn't give")
    assert payload.trips in tripped, bare.last


@PAYLOADS
def test_in_a_python_session_the_payload_trips_nothing(payload: Payload, host: Host) -> None:
    assert not host.try_out(payload, "python"), host.last


@PAYLOADS
def test_in_a_monty_session_the_payload_trips_nothing(payload: Payload, host: Host) -> None:
    assert not host.try_out(payload, "monty"), host.last
