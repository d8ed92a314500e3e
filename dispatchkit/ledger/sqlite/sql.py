"""The tables and the larger statements of a ledger in SQLite."""

from __future__ import annotations

from dispatchkit.ledger.blocks import BLOCK, TALLIED

__all__ = [
    "ANSWER",
    "BATCH",
    "CLAIMS_OF_TARGET",
    "COUNTS",
    "COUNTS_OF_BLOCKS",
    "COUNTS_OF_CHUNK",
    "FIRST_BATCH",
    "FRESH",
    "IS_FINAL",
    "IS_PRUNABLE",
    "LAUNCHED",
    "OTHERS",
    "OTHERS_OF_PLAN",
    "OUTCOMES_OF_BATCH",
    "OUTCOMES_OF_TARGET",
    "REPEATS",
    "REPEATS_IN_SMALLER",
    "RIVAL",
    "SERIES",
    "SERIES_OF_RUN",
    "STATE",
    "STATES_OF_BATCH",
    "TALLY",
    "TARGETS",
    "UNSETTLED",
]

# An outcome has the `send_no` of the latest sending at its write. A sending with a higher number is in flight.
STATE = """
CASE WHEN o.state IN ('done', 'rejected') THEN o.state
     WHEN s.send_no > coalesce(o.send_no, 0) THEN 'sending'
     ELSE coalesce(o.state, 'planned') END
"""
IS_FINAL = "coalesce(o.final AND o.send_no >= coalesce(s.send_no, 0), 0)"
"""Whether an unknown outcome is final: nothing can settle it."""
TARGETS = """
FROM target t
LEFT JOIN outcome o ON o.run = t.run AND o."index" = t."index"
LEFT JOIN sending s ON s.run = t.run AND s."index" = t."index"
  AND s.send_no = (SELECT max(send_no) FROM sending l WHERE l.run = t.run AND l."index" = t."index")
"""

# Seconds for which a request claimed at {wall} and {booted}, in the boot {boot}, may still act. Negative once that
# time has passed. If the wall clock was set back, the age is unknown, and the full time counts.
_ACTING_FOR = """
:age + r.attempt_timeout - max(0, CASE
    WHEN {boot} = :boot AND {booted} <= :boot_now THEN :boot_now - {booted} ELSE :now - {wall} END)
"""
_BY_CLAIM = _ACTING_FOR.format(boot="s.boot", booted="s.claimed_boot", wall="s.claimed_at")
_BY_HOLD = _ACTING_FOR.format(boot="h.boot", booted="h.since_boot", wall="h.since")
UNSETTLED = f"""
SELECT "index", command, CASE WHEN unclear THEN request_id END,
       CASE WHEN unclear THEN since WHEN restored THEN created END,
       max(CASE WHEN unclear THEN coalesce(by_claim, -1e9) ELSE -1e9 END,
           CASE WHEN restored THEN by_hold ELSE -1e9 END),
       CASE WHEN unclear THEN repeats ELSE 0 END, key
FROM (
  SELECT t."index", t.command, t.key, {STATE} IN ('sending', 'unknown') AS unclear,
         r.database_id <> (SELECT database_id FROM about) AS restored,
         coalesce(s.request_id, o.request_id) AS request_id, coalesce(s.since, o.at) AS since, r.created,
         {_BY_CLAIM} AS by_claim, coalesce({_BY_HOLD}, :age + r.attempt_timeout) AS by_hold,
         CASE WHEN s.send_no IS NULL OR (o.send_no >= s.send_no AND o.attempts = 0) THEN 0 ELSE max(0, (
           SELECT count(*) FROM sending l WHERE l.run = t.run AND l."index" = t."index" AND l.since = s.since) - 1) END
           AS repeats
  {TARGETS} JOIN chunk h ON h.run = t.run AND h.number = :chunk JOIN run r ON r.number = t.run
  WHERE t.run = :run AND t."index" >= :start AND t."index" < :end
    AND coalesce(o.state, '') NOT IN ('done', 'rejected') AND NOT {IS_FINAL}
  ORDER BY t."index" LIMIT :limit)
"""

# The same of targets that are all planned, in a third of the time; nothing if one of them is not. Between them and the
# end lie no others, since indexes have no gaps.
_PAGE = '"index" >= :start AND "index" < min(:end, :start + :limit)'
FRESH = f"""
SELECT "index", command, NULL, NULL, -1e9, 0, key FROM target
WHERE run = :run AND {_PAGE}
  AND NOT EXISTS (SELECT 1 FROM sending WHERE run = :run AND {_PAGE})
  AND NOT EXISTS (SELECT 1 FROM outcome WHERE run = :run AND {_PAGE})
  AND (SELECT database_id FROM run WHERE number = :run) = (SELECT database_id FROM about)
ORDER BY "index"
"""
IS_PRUNABLE = """
SELECT (:whole AND stopped) OR (plan_complete AND total <= (
  SELECT coalesce(sum(done + rejected + final), 0) FROM tally WHERE run = :run)) FROM run WHERE number = :run
"""

# Only a claim that was written at :now is granted: the run may have been stopped since an earlier claim.
ANSWER = f"""
SELECT h.token IS :token AND NOT r.stopped, {STATE} IN ('done', 'rejected'),
       {STATE} = 'sending' AND s.token = :token AND s.claimed_at = :now AND s.claimed_boot = :boot_now
{TARGETS} LEFT JOIN chunk h ON h.run = t.run AND h.number = :chunk JOIN run r ON r.number = t.run
WHERE t.run = :run AND t."index" = :index
"""
# What a batch usually is: the first claims of planned targets, and the first outcomes of targets in flight. Each row is
# one such group of one chunk. The number of written rows proves it; otherwise the whole statement changes nothing, and
# `BATCH` follows. `rows` is a JSON object by index. Of a claim, it has the request id. Of an outcome, it has the time,
# or time, request id, summary, code and attempts. `blocks` has the number of targets by block. `since` is the start of
# a claim, or of the outcomes' bucket in the series. `slots` has the number of outcomes by slot of their latency.
FIRST_BATCH = """
CREATE TEMP VIEW first_batch (
  kind, run, chunk, token, rows, count, blocks, since, slots, state, final, now, boot_now, boot) AS
SELECT '', 0, 0, '', '', 0, '', '', '', '', 0, 0, 0, 0;
CREATE TEMP TRIGGER write_first_claims INSTEAD OF INSERT ON first_batch WHEN NEW.kind = 'claim' BEGIN
  INSERT INTO sending (run, "index", send_no, token, request_id, since, claimed_at, claimed_boot, boot)
  SELECT NEW.run, j.key, 1, NEW.token, j.value, NEW.since, NEW.now, NEW.boot_now, NEW.boot FROM json_each(NEW.rows) j
  WHERE EXISTS (SELECT 1 FROM chunk h JOIN run r ON r.number = h.run
                WHERE h.run = NEW.run AND h.number = NEW.chunk AND h.token = NEW.token AND NOT r.stopped)
    AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.run = NEW.run AND o."index" = j.key);
  SELECT RAISE(ABORT, 'no first claims') WHERE changes() <> NEW.count;
  INSERT INTO tally (run, chunk, block, sending)
  SELECT NEW.run, NEW.chunk, key, value FROM json_each(NEW.blocks) WHERE true
  ON CONFLICT (run, chunk, block) DO UPDATE SET sending = sending + excluded.sending;
END;
CREATE TEMP TRIGGER write_first_outcomes INSTEAD OF INSERT ON first_batch WHEN NEW.kind = 'outcome' BEGIN
  INSERT INTO outcome (run, "index", send_no, state, summary, code, request_id, attempts, final, at)
  SELECT NEW.run, j.key,
         (SELECT send_no FROM sending l WHERE l.run = NEW.run AND l."index" = j.key ORDER BY send_no DESC LIMIT 1),
         NEW.state, iif(j.type = 'array', json_extract(j.value, '$[2]'), ''),
         iif(j.type = 'array', json_extract(j.value, '$[3]'), NULL),
         iif(j.type = 'array', json_extract(j.value, '$[1]'), NULL),
         iif(j.type = 'array', json_extract(j.value, '$[4]'), 1), NEW.final,
         iif(j.type = 'array', json_extract(j.value, '$[0]'), j.value)
  FROM json_each(NEW.rows) j
  WHERE EXISTS (SELECT 1 FROM chunk h WHERE h.run = NEW.run AND h.number = NEW.chunk AND h.token = NEW.token);
  SELECT RAISE(ABORT, 'no first outcomes') WHERE changes() <> NEW.count;
  INSERT INTO tally (run, chunk, block, sending, done, rejected, not_sent, unknown, final)
  SELECT NEW.run, NEW.chunk, key, -value, value * (NEW.state = 'done'), value * (NEW.state = 'rejected'),
         value * (NEW.state = 'not_sent'), value * (NEW.state = 'unknown'), value * NEW.final
  FROM json_each(NEW.blocks) WHERE true
  ON CONFLICT (run, chunk, block) DO UPDATE SET
    sending = sending + excluded.sending, done = done + excluded.done, rejected = rejected + excluded.rejected,
    not_sent = not_sent + excluded.not_sent, unknown = unknown + excluded.unknown, final = final + excluded.final;
  INSERT INTO series (run, start, chunk, state, slot, count)
  SELECT NEW.run, NEW.since, NEW.chunk, NEW.state, key, value FROM json_each(NEW.slots) WHERE true
  ON CONFLICT (run, start, chunk, state, slot) DO UPDATE SET count = count + excluded.count;
END;
"""
# Any other batch. The caller compares the states before and after it (`STATES_OF_BATCH`), and writes the difference.
# One statement for a whole batch, in a transaction of its own. Between two statements, the thread would wait for the
# GIL, and the whole batch with it. An existing claim gets a new time.
BATCH = """
CREATE TEMP VIEW batch (claims, records, now, boot_now, boot) AS SELECT '', '', 0, 0, 0;
CREATE TEMP TRIGGER write_batch INSTEAD OF INSERT ON batch BEGIN
  INSERT INTO sending (run, "index", send_no, token, request_id, since, claimed_at, claimed_boot, boot)
  SELECT a.run, a."index",
         coalesce((SELECT m.send_no FROM sending m WHERE m.run = a.run AND m."index" = a."index" AND m.token = a.token
                   AND m.send_no > coalesce(o.send_no, 0)),
                  1 + (SELECT max(send_no) FROM sending l WHERE l.run = a.run AND l."index" = a."index"), 1),
         a.token, a.request_id, a.since, NEW.now, NEW.boot_now, NEW.boot
  FROM (SELECT json_extract(value, '$[0]') AS run, json_extract(value, '$[1]') AS chunk,
               json_extract(value, '$[2]') AS "index", json_extract(value, '$[3]') AS token,
               json_extract(value, '$[4]') AS request_id, json_extract(value, '$[5]') AS since
        FROM json_each(NEW.claims)) a
  CROSS JOIN chunk h ON h.run = a.run AND h.number = a.chunk AND h.token = a.token
  CROSS JOIN run r ON r.number = a.run AND NOT r.stopped
  LEFT JOIN outcome o ON o.run = a.run AND o."index" = a."index"
  WHERE coalesce(o.state, '') NOT IN ('done', 'rejected')
  ON CONFLICT (run, "index", send_no) DO UPDATE SET
    claimed_at = excluded.claimed_at, claimed_boot = excluded.claimed_boot, boot = excluded.boot;
  INSERT INTO outcome (run, "index", send_no, state, summary, code, request_id, attempts, final, at)
  SELECT c.run, c."index",
         coalesce((SELECT max(send_no) FROM sending l WHERE l.run = c.run AND l."index" = c."index"), 0),
         c.state, c.summary, c.code, c.request_id, c.attempts, c.final, c.at
  FROM (SELECT json_extract(value, '$[0]') AS run, json_extract(value, '$[1]') AS chunk,
               json_extract(value, '$[2]') AS "index", json_extract(value, '$[3]') AS token,
               json_extract(value, '$[4]') AS state, json_extract(value, '$[5]') AS summary,
               json_extract(value, '$[6]') AS code, json_extract(value, '$[7]') AS request_id,
               json_extract(value, '$[8]') AS attempts, json_extract(value, '$[9]') AS final,
               json_extract(value, '$[10]') AS at
        FROM json_each(NEW.records)) c
  CROSS JOIN chunk h ON h.run = c.run AND h.number = c.chunk
  WHERE h.token IS c.token OR c.state = 'done'
  ON CONFLICT (run, "index") DO UPDATE SET
    send_no = excluded.send_no, state = excluded.state, summary = excluded.summary, code = excluded.code,
    request_id = excluded.request_id, attempts = excluded.attempts, final = excluded.final, at = excluded.at
  WHERE outcome.state NOT IN ('done', 'rejected');
END;
"""

STATES_OF_BATCH = f"""
SELECT a.run, a.chunk, a."index" / {BLOCK}, {STATE}, {IS_FINAL}, count(*)
FROM (SELECT DISTINCT json_extract(value, '$[0]') AS run, json_extract(value, '$[1]') AS chunk,
                      json_extract(value, '$[2]') AS "index" FROM json_each(?)) a
CROSS JOIN target t ON t.run = a.run AND t."index" = a."index"
{TARGETS.replace("FROM target t", "")}
GROUP BY 1, 2, 3, 4, 5
"""
TALLY = """
INSERT INTO tally (run, chunk, block, sending, done, rejected, not_sent, unknown, final)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, chunk, block) DO UPDATE SET
  sending = sending + excluded.sending, done = done + excluded.done, rejected = rejected + excluded.rejected,
  not_sent = not_sent + excluded.not_sent, unknown = unknown + excluded.unknown, final = final + excluded.final
"""
# The latest outcomes of a batch's targets, before and after it. Those that differ are new in the series.
OUTCOMES_OF_BATCH = """
SELECT a.run, a."index", o.state, o.at
FROM (SELECT DISTINCT json_extract(value, '$[0]') AS run, json_extract(value, '$[2]') AS "index" FROM json_each(?)) a
CROSS JOIN outcome o ON o.run = a.run AND o."index" = a."index"
"""
SERIES = """
INSERT INTO series (run, start, chunk, state, slot, count) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (run, start, chunk, state, slot) DO UPDATE SET count = count + excluded.count
"""
SERIES_OF_RUN = """
SELECT start, state, slot, sum(count) FROM series WHERE run = ? AND start > ?
GROUP BY start, state, slot ORDER BY start
"""
_SUMS = ", ".join(f"coalesce(sum({name}), 0)" for name in TALLIED)
COUNTS = f"SELECT (SELECT total FROM run WHERE number = :run), {_SUMS} FROM tally WHERE run = :run"
COUNTS_OF_CHUNK = f"""
SELECT (SELECT end_index - start_index FROM chunk WHERE run = :run AND number = :chunk), {_SUMS}
FROM tally WHERE run = :run AND chunk = :chunk
"""
CLAIMS_OF_TARGET = """
SELECT send_no, request_id, since, claimed_at FROM sending WHERE run = ? AND "index" = ? ORDER BY send_no
"""
OUTCOMES_OF_TARGET = """
SELECT send_no, state, summary, code, request_id, attempts, at, final FROM outcome WHERE run = ? AND "index" = ?
"""
COUNTS_OF_BLOCKS = f"SELECT block, {_SUMS} FROM tally WHERE run = ? GROUP BY block ORDER BY block"

# Other runs on the same account that a process held in the last :within seconds. Accounts are compared by name, or by
# token if one of them has no name.
_IS_RECENT = """
EXISTS (
  SELECT 1 FROM chunk h WHERE h.run = x.number
  AND (h.token IS NOT NULL OR h.seen >= :now - :within OR h.boot = :boot AND h.seen_boot >= :boot_now - :within))
"""
OTHERS = f"""
SELECT x.number, x.name, x.total FROM run r JOIN run x
  ON x.number <> r.number AND x.host = r.host
  AND CASE WHEN x.account IS NULL OR r.account IS NULL THEN x.fingerprint = r.fingerprint
           ELSE x.account = r.account END
WHERE r.number = :run AND {_IS_RECENT}
ORDER BY x.number
"""
OTHERS_OF_PLAN = f"""
SELECT x.number, x.name FROM run x
WHERE x.name <> :name AND x.host = :host
  AND CASE WHEN x.account IS NULL OR :account IS NULL THEN x.fingerprint = :fingerprint ELSE x.account = :account END
  AND {_IS_RECENT}
ORDER BY x.number DESC
"""
_HELD = """
WITH held AS MATERIALIZED (SELECT json_extract(value, '$[0]') AS start_index, json_extract(value, '$[1]') AS end_index
                           FROM json_each(:held))
"""
_COLUMNS_OF_ACT = f"""
{STATE} AS state, s.claimed_at, s.claimed_boot, s.boot, (julianday(o.at) - 2440587.5) * 86400 AS told,
EXISTS (SELECT 1 FROM held WHERE t."index" >= held.start_index AND t."index" < held.end_index) AS held
"""
_HAS_ACTED = """
WHERE state = 'planned' AND held
   OR state IN ('done', 'sending', 'unknown') AND (
      claimed_at >= :now - :within OR told >= :now - :within
      OR boot = :boot AND claimed_boot >= :boot_now - :within)
"""
# Targets of another run, by key, that it launched in the last :within seconds.
LAUNCHED = f"""{_HELD}
SELECT key, state, max(coalesce(claimed_at, 0), coalesce(told, 0), held * :now) FROM (
  SELECT t.key, {_COLUMNS_OF_ACT} {TARGETS} WHERE t.run = :other AND t.key > :low AND t.key < :high)
{_HAS_ACTED} ORDER BY key LIMIT :limit
"""

# Targets of this run (g) that the other run (t) launched in the last :within seconds. Planned targets in held chunks
# (:held) count, too. The smaller run goes first: each of its targets costs one look-up in the index of the other.
_REPEATS = f"""{_HELD}
SELECT "index", command, max(coalesce(claimed_at, 0), coalesce(told, 0), held * :now) FROM (
  SELECT g."index", g.command, {_COLUMNS_OF_ACT}
  FROM target {{first}} CROSS JOIN target {{second}} ON t.key = g.key
  LEFT JOIN outcome final ON final.run = g.run AND final."index" = g."index"
    AND (final.state IN ('done', 'rejected') OR final.final)
  {TARGETS.replace("FROM target t", "")}
  WHERE g.run = :run AND t.run = :other AND g."index" >= :start AND g."index" < :end AND final.run IS NULL
)
{_HAS_ACTED} ORDER BY "index"
"""
REPEATS = _REPEATS.format(first="g", second="t")
REPEATS_IN_SMALLER = _REPEATS.format(first="t", second="g")

# Whether another target of the log :log_key may have acted in the last :within seconds. Its request may arrive as late
# as :age and the attempt timeout after its claim.
RIVAL = """
SELECT EXISTS (
  SELECT 1 FROM target t JOIN run r ON r.number = t.run JOIN sending s ON s.run = t.run AND s."index" = t."index"
  LEFT JOIN outcome o ON o.run = t.run AND o."index" = t."index"
  WHERE t.log_key = :log_key AND r.host = (SELECT host FROM run WHERE number = :run)
    AND NOT (t.run = :run AND t."index" = :index)
    AND NOT (coalesce(o.state, '') IN ('rejected', 'not_sent') AND o.send_no >= s.send_no)
    AND (s.claimed_at >= :now - :within - :age - r.attempt_timeout
         OR s.boot = :boot AND s.claimed_boot >= :boot_now - :within - :age - r.attempt_timeout))
"""
