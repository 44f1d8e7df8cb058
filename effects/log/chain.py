"""The hash chain of a run: what makes damage visible.

SQLite finds broken pages, not wrong bytes in sound ones. So each event carries a hash over all
that is stored of it and over the hash of the event before it: a changed, missing, moved or added
event is found when the run is read.
"""

from hashlib import sha256
from typing import NamedTuple

GENESIS = "0" * 64
"""What stands in the place of a hash before a run's first event."""


class Row(NamedTuple):
    """An event as it is stored, in the order of the columns."""

    run_id: str
    seq: int
    kind: str
    version: int
    at: str
    frame: str
    call_id: str | None
    data: str
    prev_hash: str
    hash: str


def event_hash(
    prev_hash: str,
    run_id: str,
    seq: int,
    kind: str,
    version: int,
    at: str,
    frame: str,
    call_id: str | None,
    data: str,
) -> str:
    """SHA-256 over an event's columns and the hash before it, as 64 hex digits.

    One column per line: none of them can hold a line break, since ids are checked when they are
    made and JSON escapes it. An absent call is a dash.
    """
    text = (
        f"{prev_hash}\n{run_id}\n{seq}\n{kind}\n{version}\n{at}\n{frame}\n"
        f"{'-' if call_id is None else call_id}\n{data}"
    )
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def problem_of(row: Row, run_id: str, seq: int, prev_hash: str) -> str | None:
    """What is wrong with the row that should be event `seq` of a run, or None.

    Types are compared too: a damaged row may give a text where a number was stored.
    """
    if row.seq != seq:
        return f"event {seq} is missing"
    if type(row.version) is not int or row.run_id != run_id or row.prev_hash != prev_hash:
        return f"event {seq} doesn't follow from the event before it"
    if row.hash != event_hash(prev_hash, *row[:8]):
        return f"event {seq} was changed after it was written"
    return None
