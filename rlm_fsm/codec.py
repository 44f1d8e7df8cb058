"""Events as plain data, and back: what a log stores.

An event becomes a kind, a version and one line of canonical JSON: keys sorted, no spaces, ASCII
only, so that equal events are equal bytes wherever they are written and a hash over them means
something. How each type is written is `shapes`' business; which kinds there are is this module's.

Rules:

1. Positions are typed. A text is a JSON string, or, when it is longer than `BLOB_CHARS`, the
   marker ``{"$blob": hash, "chars": n}``: an object where only a text can stand. So no text can be
   taken for a marker, whatever it says. The long texts themselves come out beside the JSON, by
   hash. Keys of mappings stay where they are.
2. A text that JSON would not give back is moved out too: a high surrogate before a low one is two
   characters in Python and one in JSON.
3. A field that has its default is left out and filled in on the way back, so a default is part of
   the format: to change one, raise the kind's version and add an upcaster. The same goes for
   effects: their hashes are recorded, and a new field with a default leaves old hashes alone.
4. `Options`, `Policy` and `Profile` are written in full, and a field missing there is an error: a
   log decides its run, whatever the defaults have become. A new option therefore needs an upcaster
   that says what runs did before it (`upcast`).
5. Numbers keep their type: ``40`` and ``40.0`` stay apart, also where a float may stand.
   NaN and the infinities, which JSON lacks, are spelled as strings: what an adapter reported can
   always be logged.
6. Encoding refuses what decoding would refuse (`UsageError`); nothing unreadable is written.
7. Decoding makes the event classes and the value classes in their fields, and nothing else.
"""

from collections.abc import Callable
from hashlib import sha256
from json import JSONDecoder
from typing import Any, NamedTuple, NoReturn, cast

from rlm_fsm.effect import EFFECTS, CallModel, Effect, Record
from rlm_fsm.errors import LogCorrupt, LogNewer, UsageError
from rlm_fsm.event import EVENTS, Event
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.profile import Profile
from rlm_fsm.shapes import BLOB_CHARS, Blobs, IllTyped, Shape, shape_of
from rlm_fsm.upcast import UPCASTERS

__all__ = ["BLOB_CHARS", "UPCASTERS", "VERSIONS", "Encoded", "decode", "effect_hash", "encode"]

VERSIONS: dict[str, int] = {
    "RunStarted": 2,
    "EffectStarted": 1,
    "ModelReplied": 1,
    "ModelFailed": 1,
    "CodePaused": 1,
    "ApprovalAsked": 1,
    "ApprovalGiven": 1,
    "ApprovalPostponed": 1,
    "ToolReturned": 1,
    "ToolFailed": 1,
    "CodeExecuted": 1,
    "ReplFailed": 1,
    "VariableRead": 1,
    "AnswerChecked": 1,
    "GuardTripped": 1,
    "LimitReached": 1,
    "HistoryCompacted": 1,
    "RunResumed": 2,
    "Cancelled": 1,
    "DeadlinePassed": 1,
    "RunFinished": 1,
}
"""The closed table of kinds, each with the version that is written today."""

_FULL: frozenset[type] = frozenset({Options, Policy, Profile})
_EVENTS: dict[str, Shape] = {cls.__name__: shape_of(cls, _FULL) for cls in EVENTS}
_EFFECTS: dict[str, Shape] = {cls.__name__: shape_of(cls) for cls in EFFECTS if cls is not Record}


class Encoded(NamedTuple):
    """An event as a log stores it."""

    kind: str
    version: int
    data: str
    """Canonical JSON of its fields."""
    blobs: tuple[tuple[str, str], ...]
    """(hash, text) of each text that was moved out, in their order."""


def encode(event: Event) -> Encoded:
    """An event as plain data. `UsageError` when a field holds what its type forbids."""
    kind = type(event).__name__
    shape = _EVENTS.get(kind)
    if shape is None:
        raise UsageError(f"{kind} is no kind of event: the kinds are {', '.join(VERSIONS)}")
    blobs: Blobs = []
    return Encoded(kind, VERSIONS[kind], _write(shape, event, blobs), tuple(blobs))


def decode(kind: str, version: int, data: str, blob: Callable[[str], str]) -> Event:
    """The event that `encode` was given. `blob` finds a text by hash, or raises `KeyError`.

    Raises `LogNewer` for a kind or version that this version of rlm-fsm doesn't know, and
    `LogCorrupt` for data that no version has written.
    """
    current = VERSIONS.get(kind)
    if current is None or version > current:
        problem = "is an unknown kind" if current is None else f"is newer than version {current}"
        raise LogNewer(
            f"event {kind} version {version} {problem}: the log was written by a newer rlm-fsm. "
            "Upgrade rlm-fsm to read it."
        )
    try:
        payload = _upcast(kind, version, current, _parse(data))
        return cast(Event, _EVENTS[kind].read(payload, blob))
    except IllTyped as error:
        raise LogCorrupt(f"event {kind} version {version} is damaged: {error}") from error
    except (ValueError, RecursionError) as error:
        raise LogCorrupt(f"event {kind} version {version} can't be read: {error}") from error


def effect_hash(effect: Effect) -> str:
    """SHA-256 of an effect's kind and fields, as 64 hex digits: replay compares it.

    A call's fields are spelled by hand, in a fixed order: there is one for each of a thousand
    subcalls, and the general way took a sixth of a step. `sample` isn't among them: older hashes
    lack it, and the call's id, which is, decides it.
    """
    if isinstance(effect, CallModel):
        prompt = effect.prompt
        called = (effect.frame, effect.call_id, effect.purpose, prompt.hash, prompt.chars)
        said = ascii((*called, effect.max_tokens, effect.adapter))
        return sha256(f"CallModel\n{said}".encode("ascii")).hexdigest()
    if isinstance(effect, Record):
        kind, _, text, _ = encode(effect.event)
        return sha256(f"Record\n{kind}\n{text}".encode("ascii")).hexdigest()
    kind = type(effect).__name__
    return sha256(f"{kind}\n{_write(_EFFECTS[kind], effect, [])}".encode("ascii")).hexdigest()


def _write(shape: Shape, value: object, blobs: Blobs) -> str:
    try:
        return shape.write(value, blobs)
    except IllTyped as error:
        raise UsageError(f"{type(value).__name__} can't be recorded: {error}") from error


def _upcast(kind: str, version: int, current: int, payload: Any) -> Any:
    if version < 1:
        raise ValueError("versions begin at 1")
    try:
        for old in range(version, current):
            payload = UPCASTERS[kind, old](payload)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the upcaster met {error!r}") from error
    return payload


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_parse = JSONDecoder(parse_constant=_refuse_constant).decode
