"""Environment -> frozen `Settings`: read by `api`, `rlm` and the commands, once per call."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOG_NAME = "log.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says."""

    model: str | None
    """``RLM_FSM_MODEL``: the model to use when the caller names none."""
    log: str
    """``RLM_FSM_LOG``, else a file in the user's data directory."""
    has_endpoint: bool
    """Whether a key or a base URL is set, so that an adapter can be built from a model's name."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings that these environment variables give. Empty values count as unset."""

    def get(name: str) -> str | None:
        return environment.get(name, "").strip() or None

    endpoint = ("LLM_API_KEY", "OPENAI_API_KEY", "LLM_BASE_URL", "OPENAI_BASE_URL")
    return Settings(
        model=get("RLM_FSM_MODEL"),
        log=get("RLM_FSM_LOG")
        or str(_data_directory(get("XDG_DATA_HOME"), get("HOME")) / LOG_NAME),
        has_endpoint=any(get(name) for name in endpoint),
    )


def _data_directory(data_home: str | None, home: str | None) -> Path:
    """The XDG base directory for data, with this project's folder."""
    if data_home and Path(data_home).is_absolute():
        return Path(data_home) / "rlm-fsm"
    return (Path(home) if home else Path.home()) / ".local" / "share" / "rlm-fsm"
