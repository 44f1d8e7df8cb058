"""The views: a log as people read it, in Datasette, sqlite-utils or any other tool.

They are no part of what is promised of the events: a later version may add columns and views.
`docs/reference/log.md` describes them, and a test compares it with the database.

A fork's rows begin behind the events that it shares, so everything here stands on `v_events`,
which gives each run its whole history.
"""

from typing import Final

_EVENTS = """CREATE VIEW v_events AS
WITH RECURSIVE line(run_id, owner, last_seq) AS (
  SELECT run_id, run_id, head_seq FROM runs
  UNION
  SELECT line.run_id, runs.parent_run_id, min(line.last_seq, runs.parent_seq)
  FROM line JOIN runs ON runs.run_id = line.owner WHERE runs.parent_run_id IS NOT NULL
)
SELECT line.run_id, e.seq, e.kind, e.version, e.at, e.frame, e.call_id, e.data,
  e.run_id AS written_by, e.run_id <> line.run_id AS is_shared
FROM line JOIN events e ON e.run_id = line.owner AND e.seq <= line.last_seq"""
"""Every event of every run, those included that a fork shares with its parents."""

_STEPS = """CREATE VIEW v_steps AS
SELECT s.run_id, s.seq, s.at, s.frame, s.call_id, s.kind,
  CASE WHEN b.hash IS NULL THEN s.text WHEN b.encoding = 'utf-8' THEN CAST(b.data AS TEXT)
    ELSE '(' || b.size || ' bytes, compressed: blob ' || b.hash || ')' END AS text,
  s.calls, s.tokens, s.cost_usd, s.elapsed_s, s.is_shared
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
      WHEN 'HistoryCompacted' THEN '$.failure'
      WHEN 'LimitReached' THEN '$.limit' WHEN 'RunFinished' THEN '$.output'
      WHEN 'ToolReturned' THEN '$.value' WHEN 'ApprovalAsked' THEN '$.tool'
      WHEN 'ApprovalGiven' THEN '$.reason'
      ELSE '$.message' END AS path
    FROM v_events WHERE kind <> 'EffectStarted')
) s LEFT JOIN blobs b ON b.hash = s.blob
ORDER BY s.run_id, s.seq"""
"""What a person reads, one row per step: the outcome's main text, short or long."""

# In a group, SQLite takes the plain columns from the row that holds the max().
_CALLS = """CREATE VIEW v_calls AS
SELECT i.run_id, i.frame, i.call_id, i.effect, i.seq, i.begun,
  i.begun - (o.kind IS NOT NULL AND json_extract(o.data, '$.error') IS NOT 'uncertain')
    AS uncertain,
  i.started_at, o.at AS ended_at, coalesce(o.kind, 'uncertain') AS outcome,
  json_extract(o.data, '$.model_id') AS model_id,
  json_extract(o.data, '$.usage.prompt_tokens') AS prompt_tokens,
  json_extract(o.data, '$.usage.completion_tokens') AS completion_tokens,
  json_extract(o.data, '$.usage.total_tokens') AS total_tokens,
  json_extract(o.data, '$.cost_usd') AS cost_usd,
  json_extract(o.data, '$.elapsed_s') AS elapsed_s,
  coalesce(json_extract(o.data, '$.cache_hit'), 0) AS cache_hit,
  json_extract(o.data, '$.error') AS error,
  coalesce(o.is_shared, i.is_shared) AS is_shared
FROM (
  SELECT run_id, frame, call_id, json_extract(data, '$.effect') AS effect, count(*) AS begun,
    min(seq) AS seq, min(at) AS started_at, min(is_shared) AS is_shared
  FROM v_events WHERE kind = 'EffectStarted' GROUP BY run_id, call_id
) i LEFT JOIN (
  SELECT run_id, call_id, max(seq) AS seq, kind, at, data, is_shared
  FROM v_events WHERE kind IN ('ModelReplied', 'ModelFailed', 'ToolReturned', 'ToolFailed')
  GROUP BY run_id, call_id
) o ON o.run_id = i.run_id AND o.call_id = i.call_id
ORDER BY i.run_id, i.seq"""
"""Calls of models and tools: begun so often, and how each ended. `uncertain`: begun, no outcome in
the log."""

_COSTS = """CREATE VIEW v_costs AS
SELECT r.run_id, r.query, r.status, count(c.call_id) AS calls,
  coalesce(sum(c.outcome = 'ModelFailed'), 0) AS failed,
  coalesce(sum(c.uncertain), 0) AS uncertain,
  coalesce(sum(c.prompt_tokens), 0) AS prompt_tokens,
  coalesce(sum(c.completion_tokens), 0) AS completion_tokens,
  coalesce(sum(c.total_tokens), 0) AS total_tokens,
  sum(c.cost_usd) AS cost_usd, coalesce(sum(c.elapsed_s), 0) AS model_s
FROM runs r LEFT JOIN v_calls c
  ON c.run_id = r.run_id AND NOT c.is_shared AND c.effect = 'CallModel' GROUP BY r.slot"""
"""What each run spent itself: what a fork shares was paid by its parent."""

# A frame's id is its parent's, a dot and a number; a call's is its frame's, a dot and a name.
_TREE = """CREATE VIEW v_tree AS
WITH RECURSIVE frames(run_id, node, seq, is_shared) AS (
  SELECT run_id, frame, min(seq), max(is_shared) FROM v_events GROUP BY run_id, frame
),
nested(run_id, node, parent, depth, seq, is_shared, place) AS (
  SELECT run_id, node, NULL, 0, seq, is_shared, printf('%012d', seq) FROM frames WHERE node = '0'
  UNION ALL
  SELECT f.run_id, f.node, n.node, n.depth + 1, f.seq, f.is_shared,
    n.place || printf('/%012d', f.seq)
  FROM nested n JOIN frames f
    ON f.run_id = n.run_id AND rtrim(rtrim(f.node, '0123456789'), '.') = n.node
),
nodes AS (
  SELECT n.run_id, n.place, n.depth, n.node, n.parent, 'frame' AS what, n.seq,
    count(c.call_id) AS calls, coalesce(sum(c.uncertain), 0) AS uncertain, NULL AS outcome,
    NULL AS model_id, coalesce(sum(c.total_tokens), 0) AS total_tokens,
    sum(c.cost_usd) AS cost_usd, coalesce(sum(c.elapsed_s), 0) AS model_s, n.is_shared
  FROM nested n LEFT JOIN v_calls c
    ON c.run_id = n.run_id AND (c.frame = n.node OR c.frame GLOB n.node || '.*')
  GROUP BY n.run_id, n.node
  UNION ALL
  SELECT c.run_id, n.place || printf('/%012d', c.seq), n.depth + 1, c.call_id, c.frame,
    CASE WHEN c.effect = 'CallTool' THEN 'tool' WHEN c.call_id GLOB '*.m*' THEN 'turn'
      WHEN c.call_id GLOB '*.s*' THEN 'compaction'
      ELSE 'subcall' END, c.seq,
    1, c.uncertain, c.outcome, c.model_id, c.total_tokens, c.cost_usd, c.elapsed_s, c.is_shared
  FROM v_calls c JOIN nested n ON n.run_id = c.run_id AND n.node = c.frame
)
SELECT run_id, printf('%*s%s', 2 * depth, '', node) AS tree, what, calls, uncertain, outcome,
  model_id, total_tokens, cost_usd, model_s, node, parent, depth, seq, is_shared
FROM nodes ORDER BY run_id, place"""
"""Frames and their paid calls, indented, each under what began it; a frame's sums are of all that
is below it."""

VIEWS: Final = (_EVENTS, _STEPS, _CALLS, _COSTS, _TREE)
"""In the order in which they build on each other."""
