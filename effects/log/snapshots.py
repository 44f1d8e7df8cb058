"""Snapshots of REPL sessions: a cache in the log's file, and no part of the history.

A snapshot is what a frame's session is after one event of its run: bytes that only the backend
understands. It saves a resume from running the frame's cells again, and nothing else, so all of
them may be deleted at any time.

1. A snapshot bears the hash of its event. One whose event isn't the run's (it was never
   committed, or the row was moved) is never given.
2. A snapshot bears a digest over all that its row says. A damaged one is passed over with a
   warning, for an older one or none.
3. The newest `KEPT_SNAPSHOTS` of a frame stay.
4. A fork may be given those of its parents, up to the last event that it shares.
"""

import logging
import sqlite3
from hashlib import sha256
from typing import Any, Final

from effects.log.base import KEPT_SNAPSHOTS, Snapshot
from effects.log.stored import hash_at, line_of, run_row
from rlm_fsm.ids import FrameId, RunId

_NEW: Final = """INSERT OR REPLACE INTO snapshots
  (run_id, frame, seq, event_hash, at, digest, data)
  SELECT run_id, ?, seq, hash, ?, ?, ? FROM events WHERE run_id = ? AND seq = ?"""
_HASH: Final = "SELECT hash FROM events WHERE run_id = ? AND seq = ?"
_FORGET_OLD: Final = f"""DELETE FROM snapshots WHERE run_id = ?1 AND frame = ?2 AND seq NOT IN
  (SELECT seq FROM snapshots WHERE run_id = ?1 AND frame = ?2
  ORDER BY seq DESC LIMIT {KEPT_SNAPSHOTS})"""
_NEWEST: Final = """SELECT seq, event_hash, digest, data FROM snapshots
  WHERE run_id = ? AND frame = ? AND seq > ? AND seq <= ? ORDER BY seq DESC LIMIT 1"""
_IS_THERE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'snapshots'"
_DROP: Final = "DELETE FROM snapshots WHERE run_id = ? AND frame = ?"
_logger = logging.getLogger("rlm_fsm")


def insert(
    cursor: sqlite3.Cursor, run_id: RunId, frame: FrameId, seq: int, data: bytes, at: str
) -> bool:
    """Write a snapshot and forget old ones; in a transaction of the caller's.

    False, and nothing is written, when the run has no event `seq` of its own.
    """
    row = cursor.execute(_HASH, (run_id, seq)).fetchone()
    if row is None:
        return False
    digest = _digest(run_id, frame, seq, row[0], data)
    cursor.execute(_NEW, (frame, at, digest, data, run_id, seq))
    cursor.execute(_FORGET_OLD, (run_id, frame))
    return True


def newest(cursor: sqlite3.Cursor, run_id: RunId, frame: FrameId, until: int) -> Snapshot | None:
    """The newest snapshot of a frame, its parents' included, that is sound and not after `until`;
    None when there is none."""
    run = run_row(cursor, run_id)
    if run is None or cursor.execute(_IS_THERE).fetchone() is None:
        return None  # an old file that may only be read has no such table
    line, problem = line_of(cursor, run_id, run)
    if problem is not None:
        return None  # the history itself will be refused
    for older, (owner, member) in enumerate(line):
        last = min(until, member.head_seq)
        while row := cursor.execute(_NEWEST, (owner, frame, member.shared, last)).fetchone():
            seq, event_hash, _, data = row
            if _is_sound(owner, frame, row) and event_hash == hash_at(cursor, line[older:], seq):
                return Snapshot(seq=seq, data=data)
            _logger.warning(
                "run %s: a snapshot of frame %s, at event %s, is damaged and not used",
                owner,
                frame,
                seq,
            )
            last = seq - 1
        until = min(until, member.shared)
    return None


def drop(cursor: sqlite3.Cursor, run_id: RunId, frame: FrameId) -> None:
    """Delete the snapshots of a frame."""
    cursor.execute(_DROP, (run_id, frame))


def _is_sound(run_id: RunId, frame: FrameId, row: Any) -> bool:
    """Whether a row says what was written. Its types too: damage may change them."""
    seq, event_hash, digest, data = row
    if not isinstance(data, bytes) or type(seq) is not int:
        return False
    return bool(digest == _digest(run_id, frame, seq, event_hash, data))


def _digest(run_id: RunId, frame: FrameId, seq: int, event_hash: str, data: bytes) -> str:
    found = sha256(f"{run_id}\n{frame}\n{seq}\n{event_hash}\n".encode("utf-8", "surrogatepass"))
    found.update(data)
    return found.hexdigest()
