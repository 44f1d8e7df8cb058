"""Replies by their key: the log as a cache of itself.

An event that holds a reply under a key is the entry; an index over the events finds it. So nothing
is written beside the history, nothing can be missing from it, and an entry is appended in the
commit of its event. A log that has no index (an old file that may only be read) has no entries:
its events are never searched one by one.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from effects.log.chain import Row, event_hash
from effects.log.schema import CACHE_KEY, HAS_KEY
from rlm_fsm.codec import decode
from rlm_fsm.errors import LogError
from rlm_fsm.event import ModelReplied

_HAS_INDEX: Final = "SELECT 1 FROM sqlite_master WHERE name = 'events_answers'"
_NEWEST: Final = f"""SELECT {", ".join(Row._fields)} FROM events INDEXED BY events_answers
  WHERE {HAS_KEY} AND {CACHE_KEY} = ? ORDER BY pos DESC LIMIT 3"""
"""Three: should the newest be damaged, an older one may be sound."""


def newest(cursor: sqlite3.Cursor, key: str, blob: Callable[[str], str]) -> ModelReplied | None:
    """The newest sound reply under a key. Raises `sqlite3.Error`."""
    if cursor.execute(_HAS_INDEX).fetchone() is None:
        return None
    for columns in cursor.execute(_NEWEST, (key,)).fetchall():
        reply = _sound(Row(*columns), blob)
        if reply is not None and reply.cache_key == key:
            return reply
    return None


def _sound(row: Row, blob: Callable[[str], str]) -> ModelReplied | None:
    """The event, when it is what was written."""
    if type(row.version) is not int or row.hash != event_hash(row.prev_hash, *row[:8]):
        return None
    try:
        event = decode(row.kind, row.version, row.data, blob)
    except LogError:  # damaged, or written by a newer version
        return None
    return event if isinstance(event, ModelReplied) else None
