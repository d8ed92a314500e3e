"""How a statement finds the state of a target in PostgreSQL, and the statements of `store`.

Two look-ups give the state of a target: its latest `sending` and its latest `outcome`. A final outcome goes first. The
`sending` rows of a target are numbered from 1. An outcome has the number of its `sending`, or 0 if nothing was sent. A
target is in flight if it has neither a final outcome nor one of its latest `sending`.
"""

from __future__ import annotations

from dispatchkit.ledger.blocks import TALLIED
from dispatchkit.ledger.series import BUCKET_SECONDS

__all__ = [
    "BEGIN",
    "CLAIMS_OF_TARGET",
    "CONTENTS",
    "COUNTS",
    "COUNTS_OF_BLOCKS",
    "COUNTS_OF_CHUNK",
    "INDEXES_OF_TARGET",
    "LIFT_PAUSES",
    "OUTCOMES_OF_TARGET",
    "OVER",
    "PAUSES",
    "PIECE",
    "RIVAL",
    "RUNS",
    "SERIES",
    "STATE",
    "TARGETS",
    "UNSETTLED",
    "latest_of",
]

_LATEST = """
LEFT JOIN LATERAL (
    SELECT send_no, token, request_id, since, claimed_at FROM dispatchkit.sending
    WHERE run = $target.run AND index = $target.index ORDER BY send_no DESC LIMIT 1
) s ON true
LEFT JOIN LATERAL (
    SELECT send_no, state, summary, code, request_id, attempts, at, state IN ('done', 'rejected') AS final,
        final AS for_good
    FROM dispatchkit.outcome WHERE run = $target.run AND index = $target.index
    ORDER BY state IN ('done', 'rejected') DESC, send_no DESC LIMIT 1
) o ON o.final OR o.send_no >= coalesce(s.send_no, 0)
"""
STATE = "coalesce(o.state, CASE WHEN s.send_no IS NULL THEN 'planned' ELSE 'sending' END)"


def latest_of(target: str) -> str:
    """The joins that add the latest `sending` and outcome, as ``s`` and ``o``, to a row with ``run`` and ``index``."""
    return _LATEST.replace("$target", target)


_IS_RESTORED = """
EXISTS (SELECT FROM unnest(r.database_id, (SELECT id FROM identity)) AS p(planned, found) WHERE planned <> found)
"""

RUNS = f"""
WITH identity AS MATERIALIZED (SELECT $identity AS id)
SELECT number, name, settings, created, total, plan_complete, stopped, account, fingerprint, attempt_timeout,
    {_IS_RESTORED} AS restored, stops, repeat_window, canary, contents_pruned, planned_by, planned_on, profile,
    launch_options
FROM dispatchkit.run r
"""

BEGIN = """
INSERT INTO dispatchkit.run (
    name, settings, created, host, account, fingerprint, attempt_timeout, repeat_window, canary, planned_by, planned_on,
    profile, launch_options, database_id
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $identity) ON CONFLICT DO NOTHING
"""

CONTENTS = """
SELECT hash, piece FROM dispatchkit.content WHERE run = $1 AND hash = ANY($2::text[]) ORDER BY hash, number
"""
PIECE = "SELECT piece FROM dispatchkit.content WHERE run = $1 AND hash = $2 AND number = $3"

# Seconds for which a request claimed at $at may still act; negative once that time has passed.
_ACTING_FOR = "least(h.acting, h.acting - extract(epoch FROM clock_timestamp() - $at)::float8)"

UNSETTLED = f"""
WITH identity AS MATERIALIZED (SELECT $identity AS id), hold AS MATERIALIZED (
    SELECT c.start_index, c.end_index, c.since, r.created, r.attempt_timeout + $5::float8 AS acting,
        {_IS_RESTORED} AS restored
    FROM dispatchkit.chunk c JOIN dispatchkit.run r ON r.number = c.run WHERE c.run = $1 AND c.number = $2
)
SELECT t.index, t.command, CASE WHEN unclear THEN coalesce(s.request_id, o.request_id) END AS request_id,
    CASE WHEN unclear THEN coalesce(s.since, o.at) WHEN h.restored THEN h.created END AS since,
    greatest(
        CASE WHEN unclear THEN {_ACTING_FOR.replace("$at", "s.claimed_at")} ELSE -1e9 END,
        CASE WHEN h.restored THEN {_ACTING_FOR.replace("$at", "coalesce(h.since, clock_timestamp())")} ELSE -1e9 END
    ) AS acting_for,
    CASE WHEN NOT unclear OR o.attempts = 0 THEN 0 ELSE greatest(0, (
        SELECT count(*) FROM dispatchkit.sending l WHERE l.run = t.run AND l.index = t.index AND l.since = s.since
    ) - 1) END AS repeats, t.key
FROM dispatchkit.target t
CROSS JOIN hold h
{latest_of("t")}
CROSS JOIN LATERAL (SELECT {STATE} IN ('sending', 'unknown') AS unclear) u
WHERE t.run = $1 AND t.index >= $3 AND t.index < $6
    AND o.final IS NOT TRUE AND o.for_good IS NOT TRUE
ORDER BY t.index LIMIT $4
"""

# Whether a target of the log $3 may have acted in the last $4 seconds. The target $2 of the run $1 does not count. A
# request may arrive as late as $5 and the attempt timeout after its claim.
RIVAL = """
SELECT EXISTS (
    SELECT FROM dispatchkit.target t
    JOIN dispatchkit.run r ON r.number = t.run
    JOIN dispatchkit.sending s ON s.run = t.run AND s.index = t.index
    WHERE t.log_key = $3 AND r.host = (SELECT host FROM dispatchkit.run WHERE number = $1)
        AND (t.run, t.index) <> ($1, $2)
        AND s.claimed_at >= clock_timestamp() - make_interval(secs => $4::float8 + $5::float8 + r.attempt_timeout)
        AND NOT EXISTS (
            SELECT FROM dispatchkit.outcome o WHERE o.run = s.run AND o.index = s.index
                AND o.state IN ('rejected', 'not_sent') AND o.send_no >= s.send_no
        )
)
"""

_SUMS = ", ".join(f"coalesce(sum({name}), 0)::int AS {name}" for name in TALLIED)
COUNTS = f"""
SELECT (SELECT total FROM dispatchkit.run WHERE number = $1) AS total, {_SUMS} FROM dispatchkit.tally WHERE run = $1
"""
COUNTS_OF_CHUNK = f"""
SELECT (SELECT end_index - start_index FROM dispatchkit.chunk WHERE run = $1 AND number = $2) AS total, {_SUMS}
FROM dispatchkit.tally WHERE run = $1 AND chunk = $2
"""
SERIES = f"""
SELECT start, state, slot, sum(count)::int AS count FROM dispatchkit.series
WHERE run = $1 AND start > $2::timestamptz - interval '{BUCKET_SECONDS} s' GROUP BY start, state, slot ORDER BY start
"""
COUNTS_OF_BLOCKS = f"SELECT block, {_SUMS} FROM dispatchkit.tally WHERE run = $1 GROUP BY block ORDER BY block"
OVER = """
SELECT c.start_index, c.end_index, y.block, y.over FROM dispatchkit.chunk c LEFT JOIN (
    SELECT block, sum(done + rejected + final)::int AS over FROM dispatchkit.tally
    WHERE run = $1 AND chunk = $2 AND block >= $3 GROUP BY block
) y ON true
WHERE c.run = $1 AND c.number = $2
"""
"""The bounds of a chunk, with the number of targets that nothing changes any more, by block."""

TARGETS = f"""
SELECT t.index, t.command, {STATE} AS state, coalesce(o.summary, '') AS summary, o.code,
    coalesce(o.request_id, s.request_id) AS request_id, coalesce(o.attempts, 0) AS attempts,
    coalesce(o.at, s.since) AS at, coalesce(o.for_good, false) AS is_final, s.since
FROM dispatchkit.target t {latest_of("t")}
WHERE t.run = $1 AND t.index >= $2 AND t.index < $5 AND (cardinality($3::text[]) = 0 OR {STATE} = ANY($3))
ORDER BY t.index LIMIT $4
"""

INDEXES_OF_TARGET = """
SELECT index FROM dispatchkit.target WHERE run = $1 AND key >= $2 AND key < $3 ORDER BY key LIMIT $4
"""
CLAIMS_OF_TARGET = """
SELECT send_no, request_id, since, claimed_at FROM dispatchkit.sending WHERE run = $1 AND index = $2 ORDER BY send_no
"""
OUTCOMES_OF_TARGET = """
SELECT send_no, state, summary, code, request_id, attempts, at, final FROM dispatchkit.outcome
WHERE run = $1 AND index = $2 ORDER BY at, send_no
"""

PAUSES = """
SELECT key, paused_until FROM dispatchkit.account WHERE paused_until > clock_timestamp() ORDER BY paused_until DESC, key
"""
LIFT_PAUSES = """
UPDATE dispatchkit.account SET paused_until = 'epoch' WHERE key = ANY($1::text[]) AND paused_until > clock_timestamp()
RETURNING key
"""
