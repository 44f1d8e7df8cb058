"""The profiles that come with rlm-fsm, and which one suits a model.

All of them understand each other's words: every name is bound and every form of an answer is
accepted under each. They differ in what the model is told, in how much it is shown, and in how a
failed subcall looks to its code.
"""

from fnmatch import fnmatchcase

from rlm_fsm.errors import UsageError
from rlm_fsm.profile import Profile
from rlm_fsm.profiles.dspy import DSPY
from rlm_fsm.profiles.paper import PAPER
from rlm_fsm.profiles.pyrlm import PYRLM
from rlm_fsm.profiles.rlms import RLMS

__all__ = ["AUTO", "DSPY", "PAPER", "PROFILES", "PYRLM", "RLMS", "profile_for", "profile_of"]

PROFILES: dict[str, Profile] = {p.name: p for p in (PYRLM, RLMS, PAPER, DSPY)}
"""By name. ``pyrlm`` is the default."""

AUTO: tuple[tuple[str, str], ...] = (
    ("*rlm-qwen3-8b*", "paper"),
    ("*skyrl*", "paper"),
    ("*rlm-*", "rlms"),
    ("*-rlm", "rlms"),
)
"""``profile="auto"``: patterns of model names in lower case, the first that fits. Models that were
trained for a protocol get it: RLM-Qwen3-8B and SkyRL's models learned to write ``FINAL(...)``, the
later checkpoints (such as rlm-qwen3-30b-a3b) to fill the ``answer`` dict. Others get `PYRLM`."""


def profile_of(profile: str | Profile, model: str | None = None) -> Profile:
    """A profile from its name; one that is a value already is given back.

    ``auto`` picks by the model's name. Raises `UsageError` for a name that there isn't.
    """
    if isinstance(profile, Profile):
        return profile
    if profile == "auto":
        return profile_for(model)
    if profile not in PROFILES:
        raise UsageError(
            f"profile={profile!r}: choose one of {', '.join(PROFILES)}, auto, or pass a Profile"
        )
    return PROFILES[profile]


def profile_for(model: str | None) -> Profile:
    """The profile that suits a model of this name."""
    name = (model or "").lower()
    for pattern, found in AUTO:
        if fnmatchcase(name, pattern):
            return PROFILES[found]
    return PYRLM
