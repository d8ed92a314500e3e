"""What `sqlite` says to its database, where one statement does the work of a whole batch."""

from __future__ import annotations

__all__ = ["ANSWER", "BATCH", "STATE", "TABLES", "TARGETS"]

TABLES = """
CREATE TABLE run (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, created TEXT NOT NULL,
    total INTEGER NOT NULL DEFAULT 0, whole INTEGER NOT NULL DEFAULT 0, stopped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE chunk (
    run INTEGER NOT NULL, number INTEGER NOT NULL, first INTEGER NOT NULL, beyond INTEGER NOT NULL,
    token TEXT, pid INTEGER, host TEXT, since REAL, seen REAL, PRIMARY KEY (run, number)) WITHOUT ROWID;
CREATE TABLE target (
    run INTEGER NOT NULL, place INTEGER NOT NULL, key BLOB NOT NULL, command TEXT NOT NULL,
    PRIMARY KEY (run, place), UNIQUE (run, key)) WITHOUT ROWID;
CREATE TABLE sending (
    run INTEGER NOT NULL, place INTEGER NOT NULL, turn INTEGER NOT NULL, token TEXT NOT NULL, request_id TEXT,
    since TEXT NOT NULL, PRIMARY KEY (run, place, turn)) WITHOUT ROWID;
CREATE TABLE outcome (
    run INTEGER NOT NULL, place INTEGER NOT NULL, turn INTEGER NOT NULL, state TEXT NOT NULL, summary TEXT NOT NULL,
    code, request_id TEXT, attempts INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (run, place)) WITHOUT ROWID;
"""

# The turn of an outcome is that of the latest sending when it was written: a sending with a later turn is in flight.
STATE = """
CASE WHEN o.state IN ('done', 'rejected') THEN o.state
     WHEN s.turn > coalesce(o.turn, 0) THEN 'sending'
     ELSE coalesce(o.state, 'planned') END
"""
TARGETS = """
FROM target t
LEFT JOIN outcome o ON o.run = t.run AND o.place = t.place
LEFT JOIN sending s ON s.run = t.run AND s.place = t.place
  AND s.turn = (SELECT max(turn) FROM sending l WHERE l.run = t.run AND l.place = t.place)
"""

ANSWER = f"""
SELECT h.token IS :token, {STATE} IN ('done', 'rejected'), {STATE} = 'sending' AND s.token = :token
{TARGETS} LEFT JOIN chunk h ON h.run = t.run AND h.number = :chunk
WHERE t.run = :run AND t.place = :place
"""
# One statement for a whole batch, in a transaction of its own: between two statements the thread would have to wait for
# its turn in the interpreter, and so would all who wait for the batch.
BATCH = """
CREATE TEMP VIEW batch (claims, records) AS SELECT '', '';
CREATE TEMP TRIGGER write_batch INSTEAD OF INSERT ON batch BEGIN
  INSERT OR IGNORE INTO sending (run, place, turn, token, request_id, since)
  SELECT a.run, a.place,
         1 + coalesce((SELECT max(turn) FROM sending l WHERE l.run = a.run AND l.place = a.place), 0),
         a.token, a.request_id, a.since
  FROM (SELECT json_extract(value, '$[0]') AS run, json_extract(value, '$[1]') AS chunk,
               json_extract(value, '$[2]') AS place, json_extract(value, '$[3]') AS token,
               json_extract(value, '$[4]') AS request_id, json_extract(value, '$[5]') AS since
        FROM json_each(NEW.claims)) a
  CROSS JOIN chunk h ON h.run = a.run AND h.number = a.chunk AND h.token = a.token
  CROSS JOIN run r ON r.number = a.run AND NOT r.stopped
  LEFT JOIN outcome o ON o.run = a.run AND o.place = a.place
  WHERE coalesce(o.state, '') NOT IN ('done', 'rejected')
    AND NOT EXISTS (SELECT 1 FROM sending m WHERE m.run = a.run AND m.place = a.place AND m.token = a.token
                    AND m.turn > coalesce(o.turn, 0));
  INSERT INTO outcome (run, place, turn, state, summary, code, request_id, attempts, at)
  SELECT c.run, c.place, coalesce((SELECT max(turn) FROM sending l WHERE l.run = c.run AND l.place = c.place), 0),
         c.state, c.summary, c.code, c.request_id, c.attempts, c.at
  FROM (SELECT json_extract(value, '$[0]') AS run, json_extract(value, '$[1]') AS chunk,
               json_extract(value, '$[2]') AS place, json_extract(value, '$[3]') AS token,
               json_extract(value, '$[4]') AS state, json_extract(value, '$[5]') AS summary,
               json_extract(value, '$[6]') AS code, json_extract(value, '$[7]') AS request_id,
               json_extract(value, '$[8]') AS attempts, json_extract(value, '$[9]') AS at
        FROM json_each(NEW.records)) c
  CROSS JOIN chunk h ON h.run = c.run AND h.number = c.chunk
  WHERE h.token IS c.token OR c.state = 'done'
  ON CONFLICT (run, place) DO UPDATE SET
    turn = excluded.turn, state = excluded.state, summary = excluded.summary, code = excluded.code,
    request_id = excluded.request_id, attempts = excluded.attempts, at = excluded.at
  WHERE outcome.state NOT IN ('done', 'rejected');
END;
"""
