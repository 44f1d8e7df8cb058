"""A session of the sandbox as bytes.

The sandbox writes down its heap, and where a paused cell stands. What the host knows of the
session beside that goes with it: what the cell printed, the sources of the cells for tracebacks,
the answers of the program that waits, the calls that are awaited.

Layout: `MAGIC`, 32 bytes of SHA-256 over the rest, and the rest compressed: 8 bytes with the
length of a header, little-endian; the header, which is JSON; the sandbox's dump.

1. A dump is only given to a sandbox of the version that wrote it, under the limits that it was
   written under (they are part of it), and to a runtime with the same functions: the header says
   all of this (`Maker`), and any difference refuses the snapshot.
2. The digest shows damage. It is no signature: who can write the log can write a snapshot.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Final

import pydantic_monty

from effects.repls._monty_calls import Given
from effects.repls._monty_later import SavedCall
from effects.repls._text import TextView
from effects.repls.base import ReplSettings, SnapshotRefused, SnapshotRule
from rlm_fsm._version import __version__

FORMAT: Final = 4
"""Of the header and the layout; a reader refuses all others."""
MAGIC: Final = b"RLMMONTY"
MOST_DUMP_BYTES: Final = 64 << 20
"""A session that is larger isn't written down: 10 MB take 0.1 s and 0.2 s more to compress
(November 2026). The sandbox itself gives up at 256 MiB."""
_DIGEST_BYTES: Final = 32
_LENGTH_BYTES: Final = 8

Maker = Mapping[str, Any]
"""What wrote a snapshot, by what must be equal in what reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A session that was written down. Plain data, but for the dump."""

    dump: bytes
    feeds: int
    """Sources fed to the sandbox so far."""
    next_cell: int
    cells: dict[str, tuple[int, str, list[int]]]
    """Number and source of each cell, and above which lines some were put in, by the file name
    that the sandbox gave it."""
    spoiled: list[str]
    """Names of the runtime that the last cell bound."""
    taken: list[str]
    """Those that code has taken for good."""
    owned: list[str]
    """Names that code has bound and keeps."""
    shims: list[str]
    """What was added to the sandbox's library."""
    may_answer: bool
    bound: list[str]
    """Names of values that the sandbox keeps."""
    seen: dict[str, str]
    """How the variables looked after the last cell."""
    history: list[dict[str, str]]
    """The conversation, as the paused cell knows it."""
    given: Given | None
    """At a pause, the answers so far of the program that waits; None between two cells."""
    later: list[SavedCall]
    """At a pause, the calls that are awaited."""
    printed: str = ""
    printed_chars: int = 0
    """What the paused cell printed: what was kept, and how much it was in all."""
    left_s: float = 0.0
    watch: list[str]
    types: dict[str, str]
    raised: dict[str, tuple[str, dict[str, Any]]]
    """The runtime's errors that the paused cell has met, see `Raised.saved`."""
    clock: list[int]
    """The calendar, see `Clock.saved`."""


def maker_of(settings: ReplSettings, view: TextView, functions: str) -> Maker:
    """What writes snapshots here. `functions` stands for all that the sandbox is given."""
    limits = replace(settings.limits, snapshots=SnapshotRule())  # this alone may differ
    return {
        "rlm_fsm": __version__,
        "monty": pydantic_monty.__version__,
        "functions": sha256(functions.encode()).hexdigest(),
        "settings": repr(replace(settings, limits=limits)),
        "context": [view.len_chars(), view.num_documents()],
    }


def pack(saved: Saved, maker: Maker) -> bytes:
    """The bytes of a session."""
    facts = asdict(saved)
    del facts["dump"]
    header = json.dumps({"format": FORMAT, "maker": dict(maker), "session": facts}).encode()
    content = len(header).to_bytes(_LENGTH_BYTES, "little") + header + saved.dump
    packed = zlib.compress(content, 1)
    return MAGIC + sha256(packed).digest() + packed


def unpack(data: bytes, maker: Maker) -> Saved:
    """The session again. Raises `SnapshotRefused` unless it is whole and by the same maker."""
    start = len(MAGIC) + _DIGEST_BYTES
    packed = data[start:]
    if data[: len(MAGIC)] != MAGIC:
        raise SnapshotRefused("it is no snapshot of a monty session")
    if sha256(packed).digest() != data[len(MAGIC) : start]:
        raise SnapshotRefused("it was damaged")
    try:
        content = zlib.decompress(packed)
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        header: dict[str, Any] = json.loads(content[_LENGTH_BYTES:end])
    except (ValueError, zlib.error) as error:
        raise SnapshotRefused(f"it can't be read: {error}") from error
    if header.get("format") != FORMAT:
        raise SnapshotRefused(f"it has format {header.get('format')}, this one reads {FORMAT}")
    there = header.get("maker")
    if there != dict(maker):
        raise SnapshotRefused(f"it was made by {there}, this is {dict(maker)}")
    return Saved(dump=content[end:], **header["session"])
