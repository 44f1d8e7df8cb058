"""The database's tables, triggers and views; how a file is recognised, made and migrated.

Rules:

1. A file is ours when `application_id` says so. Any other is left untouched, unless it is empty.
2. `user_version` is the version of the schema. A newer one is refused; an older one is migrated in
   one transaction. Migrations are `sqlite_utils.Migrations`: steps are added, never edited.
3. Events and blobs can't be updated or deleted, and an event must follow the one before it:
   triggers say so, also to other programs.
4. sqlite-utils is imported when a file must be made or migrated, and only then: it takes longer to
   import than a log takes to open.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rlm_fsm.errors import LogForeign, LogNewer

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID: Final = 0x524C4D46
"""``RLMF`` in ASCII, in the file's header: also what ``file`` shows."""
SCHEMA_VERSION: Final = 1

_TABLES = (
    """CREATE TABLE runs (
  slot INTEGER PRIMARY KEY,   -- creation order, and the run's line in the head file
  run_id TEXT NOT NULL UNIQUE,
  parent_run_id TEXT REFERENCES runs(run_id),   -- a fork: the run it shares its beginning with,
  parent_seq INTEGER,                           -- up to this event
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

_VIEWS = (
    # What a person reads, one row per step: the outcome's main text, short or long.
    """CREATE VIEW v_steps AS
SELECT s.run_id, s.seq, s.at, s.frame, s.call_id, s.kind,
  CASE WHEN b.hash IS NULL THEN s.text WHEN b.encoding = 'utf-8' THEN CAST(b.data AS TEXT)
    ELSE '(' || b.size || ' bytes, compressed: blob ' || b.hash || ')' END AS text,
  s.calls, s.tokens, s.cost_usd, s.elapsed_s
FROM (
  SELECT *, json_extract(data, path) AS text, json_extract(data, path || '."$blob"') AS blob,
    json_array_length(data, '$.calls') AS calls,
    json_extract(data, '$.usage.total_tokens') AS tokens,
    json_extract(data, '$.cost_usd') AS cost_usd,
    json_extract(data, '$.elapsed_s') AS elapsed_s
  FROM (
    SELECT *, CASE kind WHEN 'RunStarted' THEN '$.query' WHEN 'ModelReplied' THEN '$.text'
      WHEN 'CodePaused' THEN '$.calls[0].prompt' WHEN 'VariableRead' THEN '$.text'
      WHEN 'CodeExecuted' THEN
        CASE WHEN json_extract(data, '$.error.kind') IS NULL THEN '$.stdout'
        ELSE '$.error.message' END
      WHEN 'GuardTripped' THEN '$.reason' WHEN 'Cancelled' THEN '$.reason'
      WHEN 'LimitReached' THEN '$.limit' WHEN 'RunFinished' THEN '$.output'
      ELSE '$.message' END AS path
    FROM events WHERE kind <> 'EffectStarted')
) s LEFT JOIN blobs b ON b.hash = s.blob""",
    # Paid calls: begun so often, and how each ended. `uncertain`: begun, no outcome in the log.
    """CREATE VIEW v_calls AS
SELECT i.run_id, i.frame, i.call_id, i.effect, i.begun, i.started_at,
  o.at AS ended_at, coalesce(o.kind, 'uncertain') AS outcome,
  json_extract(o.data, '$.model_id') AS model_id,
  json_extract(o.data, '$.usage.prompt_tokens') AS prompt_tokens,
  json_extract(o.data, '$.usage.completion_tokens') AS completion_tokens,
  json_extract(o.data, '$.usage.total_tokens') AS total_tokens,
  json_extract(o.data, '$.cost_usd') AS cost_usd,
  json_extract(o.data, '$.elapsed_s') AS elapsed_s,
  coalesce(json_extract(o.data, '$.cache_hit'), 0) AS cache_hit,
  json_extract(o.data, '$.error') AS error
FROM (
  SELECT run_id, frame, call_id, json_extract(data, '$.effect') AS effect, count(*) AS begun,
    min(at) AS started_at
  FROM events WHERE kind = 'EffectStarted' GROUP BY run_id, call_id
) i LEFT JOIN events o
  ON o.run_id = i.run_id AND o.call_id = i.call_id AND o.kind IN ('ModelReplied', 'ModelFailed')""",
    """CREATE VIEW v_costs AS
SELECT r.run_id, r.query, r.status, count(c.call_id) AS calls,
  coalesce(sum(c.outcome = 'ModelFailed'), 0) AS failed,
  coalesce(sum(c.outcome = 'uncertain'), 0) AS uncertain,
  coalesce(sum(c.prompt_tokens), 0) AS prompt_tokens,
  coalesce(sum(c.completion_tokens), 0) AS completion_tokens,
  coalesce(sum(c.total_tokens), 0) AS total_tokens,
  sum(c.cost_usd) AS cost_usd, coalesce(sum(c.elapsed_s), 0) AS model_s
FROM runs r LEFT JOIN v_calls c ON c.run_id = r.run_id GROUP BY r.slot""",
)


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """The file's schema version, 0 for an empty file.

    Raises `LogForeign` and `LogNewer`, and `sqlite3.Error`; nothing is written.
    """
    owner = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if owner == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise LogNewer(
                f"{path}: the log has schema version {version}, this rlm-fsm knows up to "
                f"{SCHEMA_VERSION}. Upgrade rlm-fsm to read it.",
                path=path,
            )
        return version
    if owner or version or _number(connection, "SELECT count(*) FROM sqlite_master"):
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
    for statement in (*_TABLES, *_TRIGGERS, *_VIEWS):
        db.conn.execute(statement)


_STEPS: tuple[Callable[["Database"], None], ...] = (_v1_tables,)
"""The migrations, oldest first."""


def _number(connection: sqlite3.Connection, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])
