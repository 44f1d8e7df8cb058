"""Settings of hypothesis, and an environment without keys: no test may reach a real service."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", **COMMON)
settings.register_profile("ci", derandomize=True, print_blob=True, **COMMON)
settings.register_profile("thorough", max_examples=2_000, **COMMON)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell has it for what it starts in the background. Programs that the tests start would
    # inherit it, and Ctrl-C is among what is tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)

KEYS = (
    "LLM_API_KEY",
    "OPENAI_API_KEY",
    "LLM_BASE_URL",
    "OPENAI_BASE_URL",
    "RLM_FSM_MODEL",
    "RLM_FSM_LOG",
)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key and no endpoint from the machine; data goes to a folder of the test run."""
    for name in [*KEYS, *(name for name in os.environ if name.startswith("RLM_FSM_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))
