"""The statements that write a log: a run's row, its events, their long texts.

All of them run in a transaction that the caller has begun and ends.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from effects.log.blobs import pack, unpack
from effects.log.chain import Row
from effects.log.heads import Head
from effects.log.schema import SCHEMA_VERSION
from effects.log.writing import chained, showable, standing
from rlm_fsm.codec import Encoded
from rlm_fsm.event import Event, RunStarted
from rlm_fsm.ids import RunId
from rlm_fsm.values import text_hash

BlobRow = tuple[str, int, str, bytes]
"""A long text as it is stored: hash, size, encoding, data."""

_NEW_EVENT: Final = f"""INSERT INTO events ({", ".join(Row._fields)})
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LAST_SLOT: Final = "SELECT coalesce(max(slot), 0) FROM runs"
_NEW_RUN: Final = """INSERT INTO runs (slot, run_id, parent_run_id, parent_seq, parent_hash,
  created_at, updated_at, schema_version, status, query, output, head_seq, head_hash, generation)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_NEW_HEAD: Final = """UPDATE runs SET head_seq = ?, head_hash = ?, updated_at = ?, status = ?,
  output = ? WHERE slot = ?"""
_NEW_QUERY: Final = "UPDATE runs SET query = ? WHERE slot = ?"
_HAS_BLOB: Final = "SELECT 1 FROM blobs WHERE hash = ?"
_NEW_BLOB: Final = "INSERT OR IGNORE INTO blobs (hash, size, encoding, data) VALUES (?, ?, ?, ?)"
_BLOB: Final = "SELECT size, encoding, data FROM blobs WHERE hash = ?"


def free_slot(cursor: sqlite3.Cursor, known: int) -> int:
    """The slot of the next run; `known` is the last one that the head file knows."""
    last: int = cursor.execute(_LAST_SLOT).fetchone()[0]
    return max(last, known) + 1


def insert_run(
    cursor: sqlite3.Cursor,
    slot: int,
    head: Head,
    events: Sequence[Event],
    at: str,
    *,
    parent: RunId | None,
    generation: int,
) -> None:
    """Make the row of a run with these events, of which it shares `head.seq`."""
    query = showable(events[0].query) if events and isinstance(events[0], RunStarted) else ""
    status, output = standing(events[-1]) if events else ("running", None)
    shared = (None, None, None) if parent is None else (parent, head.seq, head.hash)
    told = (at, at, SCHEMA_VERSION, status, query, output)
    cursor.execute(_NEW_RUN, (slot, head.run_id, *shared, *told, head.seq, head.hash, generation))


def name_question(cursor: sqlite3.Cursor, slot: int, first: RunStarted) -> None:
    """Give the row of a run that had no event yet its question."""
    cursor.execute(_NEW_QUERY, (showable(first.query), slot))


def insert_events(
    cursor: sqlite3.Cursor,
    slot: int,
    head: Head,
    at: str,
    events: Sequence[Event],
    encoded: Sequence[Encoded],
) -> Head:
    """Write the events that follow a run's head; its new head, which its row has then."""
    rows = chained(head.run_id, head.seq, head.hash, at, events, encoded)
    cursor.executemany(_NEW_EVENT, rows)
    new = Head(head.run_id, rows[-1].seq, rows[-1].hash)
    cursor.execute(_NEW_HEAD, (new.seq, new.hash, at, *standing(events[-1]), slot))
    return new


def new_blobs(cursor: sqlite3.Cursor, encoded: Sequence[Encoded]) -> list[BlobRow]:
    """The rows of the long texts that the log doesn't have yet."""
    texts = {digest: text for item in encoded for digest, text in item.blobs}
    return [
        (digest, *pack(text))
        for digest, text in texts.items()
        if cursor.execute(_HAS_BLOB, (digest,)).fetchone() is None
    ]


def insert_blobs(cursor: sqlite3.Cursor, blobs: Sequence[BlobRow]) -> None:
    """Write long texts; what is there already stays."""
    if blobs:
        cursor.executemany(_NEW_BLOB, blobs)


def insert_text(cursor: sqlite3.Cursor, text: str) -> str:
    """Keep a text by content and return its hash."""
    digest = text_hash(text)
    if cursor.execute(_HAS_BLOB, (digest,)).fetchone() is None:
        cursor.execute(_NEW_BLOB, (digest, *pack(text)))
    return digest


def sound_blob(cursor: sqlite3.Cursor, digest: str) -> str:
    """A kept text. `KeyError` when it is missing, `ValueError` when it was changed."""
    row = cursor.execute(_BLOB, (digest,)).fetchone()
    if row is None:
        raise KeyError(digest)
    return unpack(digest, *row)
