"""The database's tables and triggers; how a file is recognised, made and migrated.

Rules:

1. A file is ours when `application_id` says so. Any other is left untouched, unless it is empty.
2. `user_version` is the version of the schema. A newer one is refused; an older one is migrated in
   one transaction. Migrations are `sqlite_utils.Migrations`: steps are added, never edited.
3. An older file that may only be read is read as it is.
4. Events and blobs can't be updated or deleted, and an event must follow the one before it:
   triggers say so, also to other programs.
5. sqlite-utils is imported when a file must be made or migrated, and only then: it takes longer to
   import than a log takes to open.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from effects.log.views import VIEWS
from rlm_fsm.errors import LogForeign, LogNewer

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID: Final = 0x524C4D46
"""``RLMF`` in ASCII, in the file's header: also what ``file`` shows."""
SCHEMA_VERSION: Final = 2

_TABLES = (
    """CREATE TABLE runs (
  slot INTEGER PRIMARY KEY,   -- creation order, and the run's line in the head file
  run_id TEXT NOT NULL UNIQUE,
  parent_run_id TEXT REFERENCES runs(run_id),   -- a fork: the run it shares its beginning with,
  parent_seq INTEGER,                           -- up to this event,
  parent_hash TEXT,                             -- which has this hash
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  schema_version INTEGER NOT NULL,   -- of the log when the run began
  status TEXT NOT NULL,
  query TEXT NOT NULL,   -- copies for lists; the exact texts are in the events
  output TEXT,
  head_seq INTEGER NOT NULL,
  head_hash TEXT NOT NULL,
  generation INTEGER NOT NULL DEFAULT 0   -- counts the processes that led the run
) STRICT""",
    """CREATE TABLE events (
  pos INTEGER PRIMARY KEY,   -- order over all runs
  run_id TEXT NOT NULL REFERENCES runs(run_id),
  seq INTEGER NOT NULL,
  kind TEXT NOT NULL,
  version INTEGER NOT NULL,
  at TEXT NOT NULL,
  frame TEXT NOT NULL,
  call_id TEXT,
  data TEXT NOT NULL,   -- canonical JSON; long texts are {"$blob": hash, "chars": n}
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL,
  UNIQUE (run_id, seq)
) STRICT""",
    """CREATE TABLE blobs (
  hash TEXT NOT NULL PRIMARY KEY,   -- SHA-256 of the text in UTF-8
  size INTEGER NOT NULL,   -- bytes of the text in UTF-8
  encoding TEXT NOT NULL CHECK (encoding IN ('utf-8', 'zlib')),
  data BLOB NOT NULL
) STRICT""",
)
_SNAPSHOTS = """CREATE TABLE snapshots (   -- a cache: may be emptied at any time
  run_id TEXT NOT NULL REFERENCES runs(run_id),
  frame TEXT NOT NULL,
  seq INTEGER NOT NULL,   -- the event whose state of the frame's session this is
  event_hash TEXT NOT NULL,   -- that event's hash
  at TEXT NOT NULL,
  digest TEXT NOT NULL,   -- SHA-256 over these and the data
  data BLOB NOT NULL,   -- compressed; only the session's backend understands it
  PRIMARY KEY (run_id, frame, seq)
) STRICT"""
_KEY_AT = 'instr(substr(data, 1, 31), \'"cache_key":"\')'
"""Where the key of a reply is named, 0 for nowhere: JSON is canonical, so only ``cache_hit`` may
stand before it. Not `json_extract`: in an index, SQLite before 3.41 takes it for unsafe, and it
fails where a damaged row is no JSON, which is for the one who reads its run to say."""
HAS_KEY: Final = f"kind = 'ModelReplied' AND {_KEY_AT} > 0"
CACHE_KEY: Final = f"substr(data, {_KEY_AT} + 13, 64)"
_ANSWERS = f"""CREATE INDEX events_answers   -- replies that a cache may give again
ON events ({CACHE_KEY}) WHERE {HAS_KEY}"""

_TRIGGERS = (
    # A fork's first event follows the last one that it shares.
    """CREATE TRIGGER events_follow BEFORE INSERT ON events
WHEN NEW.seq <> 1 + coalesce((SELECT max(seq) FROM events WHERE run_id = NEW.run_id),
  (SELECT parent_seq FROM runs WHERE run_id = NEW.run_id), 0)
BEGIN SELECT RAISE(ABORT, 'an event must follow the last one of its run'); END""",
    *(
        f"""CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} can only be added to'); END"""
        for table in ("events", "blobs")
        for verb in ("UPDATE", "DELETE")
    ),
)


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """The file's schema version, 0 for an empty file.

    Raises `LogForeign` and `LogNewer`, and `sqlite3.Error`; nothing is written.
    """
    # In this order: another process may make the file meanwhile, and it does all three at once.
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    version = _number(connection, "PRAGMA user_version")
    owner = _number(connection, "PRAGMA application_id")
    if owner == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise LogNewer(
                f"{path}: the log has schema version {version}, this rlm-fsm knows up to "
                f"{SCHEMA_VERSION}. Upgrade rlm-fsm to read it.",
                path=path,
            )
        return version
    if owner or version or tables:
        raise foreign(path, "it is a SQLite database of another program")
    return 0


def foreign(path: str, reason: str) -> LogForeign:
    """The refusal of a file that isn't ours."""
    return LogForeign(
        f"{path}: not a log of rlm-fsm: {reason}. Nothing was changed; give another path for the "
        "log.",
        path=path,
    )


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Make or migrate the schema, in one transaction. Another process may have done it by now."""
    from sqlite_utils import Database, Migrations

    migrations = Migrations("rlm_fsm")
    for step in _STEPS:
        migrations(name=step.__name__.strip("_"))(step)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version_of(connection, path) < SCHEMA_VERSION:
            migrations.apply(Database(connection, recursive_triggers=False, execute_plugins=False))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _v1_tables(db: "Database") -> None:
    for statement in (*_TABLES, *_TRIGGERS, *VIEWS):
        db.conn.execute(statement)


def _v2_snapshots(db: "Database") -> None:
    db.conn.execute(_SNAPSHOTS)


def _v2_answers(db: "Database") -> None:
    db.conn.execute(_ANSWERS)


_STEPS: tuple[Callable[["Database"], None], ...] = (_v1_tables, _v2_snapshots, _v2_answers)
"""The migrations, oldest first."""


def _number(connection: sqlite3.Connection, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])
