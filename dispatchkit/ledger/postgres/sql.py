"""The statements of a ledger in PostgreSQL.

Two look-ups give the state of a target: its latest `sending` and its latest `outcome`. A final outcome goes first. The
`sending` rows of a target are numbered from 1. An outcome has the number of its `sending`, or 0 if nothing was sent. A
target is in flight if it has neither a final outcome nor one of its latest `sending`.
"""

from __future__ import annotations

from dispatchkit.ledger.blocks import BLOCK, TALLIED
from dispatchkit.ledger.series import BUCKET_SECONDS

__all__ = [
    "ACQUIRE",
    "BEGIN",
    "CHUNKS",
    "CLAIM",
    "CLAIMABLE_CHUNKS",
    "CLAIMS_OF_TARGET",
    "CONTENTS",
    "COUNTS",
    "COUNTS_OF_BLOCKS",
    "COUNTS_OF_CHUNK",
    "HEARTBEAT",
    "HOLDER",
    "INDEXES_OF_TARGET",
    "IS_PRUNABLE",
    "KNOWN_CONTENTS",
    "LAUNCHED",
    "LIFT_PAUSES",
    "LOCK_CHUNKS",
    "LOCK_RUN",
    "OTHERS",
    "OTHERS_OF_PLAN",
    "OUTCOMES_OF_TARGET",
    "OVER",
    "PAUSES",
    "PIECE",
    "PLAN",
    "PLAN_CONTENTS",
    "PLAN_PART",
    "RAISE_TIMEOUT",
    "RECORD",
    "RECORD_LATE",
    "RELEASE",
    "REPEATS",
    "REPEATS_IN_SMALLER",
    "RIVAL",
    "RUNS",
    "SERIES",
    "TARGETS",
    "UNSETTLED",
]

# $target is a row with `run` and `index`.
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
_STATE = "coalesce(o.state, CASE WHEN s.send_no IS NULL THEN 'planned' ELSE 'sending' END)"

# Add to the tally what a statement changed. A version tells whether a concurrent statement of the same part changed the
# block. The states in this statement's snapshot are then not the latest. Then `_CHECK` divides by zero, so that the
# whole statement is undone, and its caller repeats it. Claims and outcomes have different parts, and do not wait for
# each other.
_TALLY = """
counted AS (
    INSERT INTO dispatchkit.tally AS t (
        run, chunk, block, part, sending, done, rejected, not_sent, unknown, final, version
    )
    SELECT c.run, c.chunk, c.block, p.part, c.sending * (p.part = $own)::int, c.done * (p.part = $own)::int,
        c.rejected * (p.part = $own)::int, c.not_sent * (p.part = $own)::int, c.unknown * (p.part = $own)::int,
        c.final * (p.part = $own)::int, coalesce(y.version, 0) + 1
    FROM changed c CROSS JOIN unnest(ARRAY[$parts]) AS p(part)
    LEFT JOIN dispatchkit.tally y ON y.run = c.run AND y.chunk = c.chunk AND y.block = c.block AND y.part = p.part
    ORDER BY c.run, c.chunk, c.block, p.part
    ON CONFLICT (run, chunk, block, part) DO UPDATE SET
        sending = t.sending + excluded.sending, done = t.done + excluded.done,
        rejected = t.rejected + excluded.rejected,
        not_sent = t.not_sent + excluded.not_sent, unknown = t.unknown + excluded.unknown,
        final = t.final + excluded.final, version = excluded.version
    WHERE t.version = excluded.version - 1
    RETURNING 1
)
""".replace("$own", "(SELECT max(part) FROM unnest(ARRAY[$parts]) AS m(part))").strip()
_CHECK = """
1 / ((SELECT count(*) FROM counted) = (SELECT count(*) * cardinality(ARRAY[$parts]) FROM changed))::int AS counted
""".strip()

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

PLAN = """
WITH fresh AS (
    SELECT g.key, g.command, g.log_key, row_number() OVER (ORDER BY g.place) - 1 AS place
    FROM unnest($2::bytea[], $3::text[], $5::bigint[]) WITH ORDINALITY AS g(key, command, log_key, place)
    WHERE NOT EXISTS (SELECT 1 FROM dispatchkit.target t WHERE t.run = $1 AND t.key = g.key)
), planned AS (
    INSERT INTO dispatchkit.target (run, index, key, command, log_key)
    SELECT $1, $4::int + place, key, command, log_key FROM fresh ORDER BY place RETURNING 1
)
UPDATE dispatchkit.run SET total = total + (SELECT count(*) FROM planned) WHERE number = $1
"""

KNOWN_CONTENTS = """
SELECT hash FROM dispatchkit.content WHERE run = $1 AND hash = ANY($2::text[]) AND number = 0
"""
PLAN_CONTENTS = """
INSERT INTO dispatchkit.content (run, hash, number, piece)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bytea[])
ON CONFLICT (run, hash, number) DO UPDATE SET piece = excluded.piece
"""

CONTENTS = """
SELECT hash, piece FROM dispatchkit.content WHERE run = $1 AND hash = ANY($2::text[]) ORDER BY hash, number
"""
PIECE = "SELECT piece FROM dispatchkit.content WHERE run = $1 AND hash = $2 AND number = $3"

PLAN_PART = """
INSERT INTO dispatchkit.plan_part (run, number, digest) VALUES ($1, $2, $3)
ON CONFLICT (run, number) DO UPDATE SET digest = excluded.digest
"""

# The lock on the chunk's row conflicts with `ACQUIRE`, not with `HEARTBEAT`. So the next holder sees every row written
# here, and a presumed-dead holder writes none. The statement may run concurrently with its own retry, after a lost
# answer. Rows are inserted by index, so that the two cannot deadlock. An existing claim gets a new time, also by index
# and after all inserts, for the same reason. The answer is one row: most often, all claims are granted. It tells of the
# others, by their place from 1.
CLAIM = f"""
WITH asked AS (
    SELECT $1::int AS run, coalesce(chunk, $3[1]) AS chunk, index, $2::text AS token, request_id,
        coalesce(since, $6[1]) AS since, $7::text AS account, place
    FROM unnest($3::int[], $4::text::int[], $5::text[], $6::timestamptz[])
    WITH ORDINALITY AS a(chunk, index, request_id, since, place)
), held AS MATERIALIZED (
    SELECT run, number, token FROM dispatchkit.chunk
    WHERE (run, number) IN (SELECT run, chunk FROM asked) FOR KEY SHARE
), judged AS MATERIALIZED (
    SELECT a.*, coalesce(s.send_no, 0) + 1 AS send_no, CASE
        WHEN h.token IS DISTINCT FROM a.token OR r.stopped IS NOT false THEN 'stopped'
        WHEN o.final THEN 'taken'
        WHEN s.token = a.token AND o.send_no IS NULL THEN 'granted'
        WHEN c.paused_until > clock_timestamp() THEN 'deferred'
        ELSE 'fresh' END AS result, {_STATE} AS state, coalesce(o.for_good, false) AS for_good,
        extract(epoch FROM c.paused_until - clock_timestamp())::float8 AS pause
    FROM asked a
    LEFT JOIN dispatchkit.run r ON r.number = a.run -- missing once the run is deleted
    LEFT JOIN held h ON h.run = a.run AND h.number = a.chunk
    LEFT JOIN dispatchkit.account c ON c.key = a.account
    {_LATEST.replace("$target", "a")}
), written AS (
    INSERT INTO dispatchkit.sending (run, index, send_no, token, request_id, since, claimed_at)
    SELECT run, index, send_no, token, request_id, since, clock_timestamp() FROM judged
    WHERE result = 'fresh' ORDER BY run, index
    ON CONFLICT DO NOTHING RETURNING run, index
), known AS MATERIALIZED (
    SELECT s.run, s.index, s.send_no FROM dispatchkit.sending s
    JOIN judged j ON s.run = j.run AND s.index = j.index AND s.send_no = j.send_no - 1
    WHERE j.result = 'granted' AND (SELECT count(*) FROM written) >= 0
    ORDER BY s.run, s.index FOR UPDATE OF s
), renewed AS (
    UPDATE dispatchkit.sending s SET claimed_at = clock_timestamp() FROM known k
    WHERE s.run = k.run AND s.index = k.index AND s.send_no = k.send_no
), changed AS MATERIALIZED (
    SELECT run, chunk, index / {BLOCK} AS block, (count(*) FILTER (WHERE state <> 'sending'))::int AS sending,
        0 AS done, 0 AS rejected, -(count(*) FILTER (WHERE state = 'not_sent'))::int AS not_sent,
        -(count(*) FILTER (WHERE state = 'unknown'))::int AS unknown,
        -(count(*) FILTER (WHERE for_good))::int AS final
    FROM judged JOIN written USING (run, index) GROUP BY 1, 2, 3
), {_TALLY}
SELECT array_agg(place::int) AS places, array_agg(result) AS results, max(pause) AS pause, {_CHECK}
FROM (
    SELECT place, pause,
        CASE WHEN result <> 'fresh' THEN result WHEN w.index IS NULL THEN 'again' ELSE 'granted' END AS result
    FROM judged j LEFT JOIN written w ON w.run = j.run AND w.index = j.index
) answered WHERE result <> 'granted'
""".replace("$parts", "0")

_RECORD = f"""
WITH told AS (
    SELECT $1::int AS run, coalesce(chunk, $3[1]) AS chunk, index, $2::text AS token, coalesce(state, $5[1]) AS state,
        coalesce(summary, $6[1]) AS summary, code, request_id, coalesce(attempts, $9[1]) AS attempts,
        $13::timestamptz + at * interval '1 microsecond' AS at, coalesce(final, $11[1]) AS final, slot
    FROM unnest(
        $3::int[], $4::text::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[], $10::text::bigint[],
        $11::boolean[], $12::text::int[]
    ) AS g(chunk, index, state, summary, code, request_id, attempts, at, final, slot)
), held AS MATERIALIZED (
    SELECT run, number, token FROM dispatchkit.chunk
    WHERE (run, number) IN (SELECT run, chunk FROM told) FOR KEY SHARE
), judged AS MATERIALIZED (
    SELECT g.*, coalesce(h.token = g.token, false) AS mine, {_STATE} AS before, coalesce(o.for_good, false) AS for_good,
        o.state IS NOT DISTINCT FROM g.state AND o.at IS NOT DISTINCT FROM g.at AS known
    FROM told g LEFT JOIN held h ON h.run = g.run AND h.number = g.chunk
    {_LATEST.replace("$target", "g")}
    WHERE o.final IS NOT TRUE
), written AS (
    INSERT INTO dispatchkit.outcome AS o (run, index, send_no, state, summary, code, request_id, attempts, at, final)
    SELECT g.run, g.index, coalesce((
        -- The latest sending of the same hold. If that hold sent nothing, its outcome settles an earlier sending.
        SELECT send_no FROM dispatchkit.sending s WHERE s.run = g.run AND s.index = g.index
        ORDER BY s.token = g.token DESC, send_no DESC LIMIT 1
    ), 0), g.state, g.summary, g.code, g.request_id, g.attempts, g.at, g.final
    FROM judged g WHERE $whose
    ORDER BY g.run, g.index
    ON CONFLICT (run, index, send_no) DO UPDATE SET
        state = excluded.state, summary = excluded.summary, code = excluded.code, request_id = excluded.request_id,
        attempts = excluded.attempts, at = excluded.at, final = excluded.final
    WHERE o.state NOT IN ('done', 'rejected')
    RETURNING run, index
), changed AS MATERIALIZED (
    SELECT run, chunk, index / {BLOCK} AS block,
        ((count(*) FILTER (WHERE state = 'sending')) - count(*) FILTER (WHERE before = 'sending'))::int AS sending,
        ((count(*) FILTER (WHERE state = 'done')) - count(*) FILTER (WHERE before = 'done'))::int AS done,
        ((count(*) FILTER (WHERE state = 'rejected')) - count(*) FILTER (WHERE before = 'rejected'))::int AS rejected,
        ((count(*) FILTER (WHERE state = 'not_sent')) - count(*) FILTER (WHERE before = 'not_sent'))::int AS not_sent,
        ((count(*) FILTER (WHERE state = 'unknown')) - count(*) FILTER (WHERE before = 'unknown'))::int AS unknown,
        ((count(*) FILTER (WHERE final)) - count(*) FILTER (WHERE for_good))::int AS final
    FROM judged JOIN written USING (run, index) GROUP BY 1, 2, 3
), timed AS (
    -- Not those that the same statement has written before, whose answer was lost.
    INSERT INTO dispatchkit.series AS x (run, start, chunk, state, slot, count)
    SELECT run, to_timestamp(floor(extract(epoch FROM at)::float8 / {BUCKET_SECONDS}) * {BUCKET_SECONDS}), chunk,
        state, slot, count(*)
    FROM judged JOIN written USING (run, index) WHERE NOT known GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (run, start, chunk, state, slot) DO UPDATE SET count = x.count + excluded.count
), {_TALLY}
SELECT (SELECT count(*) FROM judged WHERE NOT mine AND state = 'done') AS late, {_CHECK}
"""
RECORD = _RECORD.replace("$whose", "g.mine").replace("$parts", "1")
"""Outcomes of the current holder. It returns the number of *done* outcomes of another one, for `RECORD_LATE`."""
RECORD_LATE = _RECORD.replace("$whose", "NOT g.mine AND g.state = 'done'").replace("$parts", "0, 1")
"""Outcomes of a holder that lost its chunk. Concurrent claims and outcomes of the same blocks are repeated."""

HOLDER = """
SELECT token, pid, host, since, boot_id, process_started, pid_namespace,
    $3::float8 - extract(epoch FROM clock_timestamp() - seen)::float8 AS lease_left
FROM dispatchkit.chunk WHERE run = $1 AND number = $2
"""

RAISE_TIMEOUT = "UPDATE dispatchkit.run SET attempt_timeout = $2 WHERE number = $1 AND attempt_timeout < $2"

ACQUIRE = """
WITH locked AS MATERIALIZED (
    SELECT run, number FROM dispatchkit.chunk
    WHERE run = $1 AND number = $2 AND token IS NOT DISTINCT FROM $9 FOR UPDATE
)
UPDATE dispatchkit.chunk c SET token = $3, pid = $4, host = $5, boot_id = $6, process_started = $7, pid_namespace = $8,
    seen = clock_timestamp(), since = CASE WHEN c.token = $3 THEN c.since ELSE clock_timestamp() END
FROM locked l WHERE c.run = l.run AND c.number = l.number RETURNING 1
"""

HEARTBEAT = """
WITH mine AS (
    UPDATE dispatchkit.chunk SET seen = clock_timestamp() WHERE run = $1 AND number = $2 AND token = $3 RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM mine) AS mine, stopped FROM dispatchkit.run WHERE number = $1
"""

# Its locks keep other processes from taking the run, from adding targets, and from clearing its stop.
LOCK_RUN = "SELECT FROM dispatchkit.run WHERE number = $1 FOR UPDATE"
LOCK_CHUNKS = "SELECT FROM dispatchkit.chunk WHERE run = $1 FOR UPDATE"
IS_PRUNABLE = """
SELECT (($2 AND stopped) OR (plan_complete AND total <= (
    SELECT coalesce(sum(done + rejected + final), 0) FROM dispatchkit.tally WHERE run = $1
))) AND NOT EXISTS (
    SELECT FROM dispatchkit.chunk
    WHERE run = $1 AND token IS NOT NULL AND seen >= clock_timestamp() - make_interval(secs => $3)
) FROM dispatchkit.run WHERE number = $1
"""

RELEASE = "UPDATE dispatchkit.chunk SET token = NULL WHERE run = $1 AND number = $2 AND token = $3"

# Whether a chunk has a target that is neither done nor rejected.
_UNFINISHED = """
c.end_index - c.start_index > (
    SELECT coalesce(sum(y.done + y.rejected), 0) FROM dispatchkit.tally y WHERE y.run = c.run AND y.chunk = c.number
)
""".strip()

CHUNKS = f"""
SELECT number, start_index, end_index, token, pid, host, since, boot_id, process_started, pid_namespace,
    $2::float8 - extract(epoch FROM clock_timestamp() - seen)::float8 AS lease_left
FROM dispatchkit.chunk c WHERE run = $1 AND {_UNFINISHED} ORDER BY number
"""

# A target that was claimed but not tried, because its worker was stopped, counts as planned.
CLAIMABLE_CHUNKS = f"""
SELECT r.name, c.number
FROM dispatchkit.run r JOIN dispatchkit.chunk c ON c.run = r.number
WHERE r.plan_complete AND NOT r.stopped AND r.name <> ALL($3::text[])
    AND (c.token IS NULL OR c.seen < clock_timestamp() - make_interval(secs => $1)) AND {_UNFINISHED}
    AND EXISTS (
        SELECT 1 FROM dispatchkit.target t {_LATEST.replace("$target", "t")}
        WHERE t.run = c.run AND t.index >= c.start_index AND t.index < c.end_index
            AND (o.state IS NULL OR (o.state = 'not_sent' AND o.send_no > 0 AND o.attempts = 0))
    )
ORDER BY c.run, c.number LIMIT $2
"""

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
{_LATEST.replace("$target", "t")}
CROSS JOIN LATERAL (SELECT {_STATE} IN ('sending', 'unknown') AS unclear) u
WHERE t.run = $1 AND t.index >= $3 AND t.index < $6
    AND o.final IS NOT TRUE AND o.for_good IS NOT TRUE
ORDER BY t.index LIMIT $4
"""

# Other runs on the same account that a process held in the last $2 seconds. Accounts are compared by name, or by token
# if one of them has no name.
OTHERS = """
SELECT x.number, x.name, x.total FROM dispatchkit.run r JOIN dispatchkit.run x
    ON x.number <> r.number AND x.host = r.host
    AND CASE WHEN x.account IS NULL OR r.account IS NULL THEN x.fingerprint = r.fingerprint
        ELSE x.account = r.account END
WHERE r.number = $1 AND EXISTS (
    SELECT FROM dispatchkit.chunk c
    WHERE c.run = x.number AND c.seen >= clock_timestamp() - make_interval(secs => $2)
) ORDER BY x.number
"""

OTHERS_OF_PLAN = """
SELECT x.number, x.name FROM dispatchkit.run x
WHERE x.name <> $1 AND x.host = $2
    AND CASE WHEN x.account IS NULL OR $3::text IS NULL THEN x.fingerprint = $4 ELSE x.account = $3 END
    AND EXISTS (
        SELECT FROM dispatchkit.chunk c
        WHERE c.run = x.number AND c.seen >= clock_timestamp() - make_interval(secs => $5)
    )
ORDER BY x.number DESC
"""

# Targets of a run ($1), by key after $2 and before $3, that it launched in the last $4 seconds. Those that are planned
# in a held chunk (lease of $5) count, too.
LAUNCHED = f"""
SELECT t.key, {_STATE} AS state, greatest(s.claimed_at, o.at, h.now) AS latest
FROM dispatchkit.target t
{_LATEST.replace("$target", "t")}
LEFT JOIN LATERAL (
    SELECT clock_timestamp() AS now FROM dispatchkit.chunk c
    WHERE c.run = t.run AND c.start_index <= t.index AND c.end_index > t.index AND c.token IS NOT NULL
        AND c.seen >= clock_timestamp() - make_interval(secs => $5)
) h ON {_STATE} = 'planned'
WHERE t.run = $1 AND t.key > $2 AND t.key < $3
    AND {_STATE} IN ('planned', 'sending', 'done', 'unknown')
    AND greatest(s.claimed_at, o.at, h.now) >= clock_timestamp() - make_interval(secs => $4)
ORDER BY t.key LIMIT $6
"""

# Targets (g) from $5 to $6 of this run that another run (t) launched in the last $7 seconds. Targets that are planned
# in a held chunk (lease of $8) count, too. A page ($2 to $3) of one run ($1) is looked up in the index of the other
# ($4).
_REPEATS = f"""
WITH page AS MATERIALIZED (
    SELECT run, index, key, command FROM dispatchkit.target WHERE run = $1 AND index >= $2 AND index < $3
), found AS MATERIALIZED (
    SELECT g.index, g.command, greatest(s.claimed_at, o.at, h.now) AS latest
    FROM page $first CROSS JOIN LATERAL (
        SELECT run, index, command FROM dispatchkit.target WHERE run = $4 AND key = $first.key OFFSET 0
    ) $second
    {_LATEST.replace("$target", "t")}
    LEFT JOIN LATERAL (
        SELECT clock_timestamp() AS now FROM dispatchkit.chunk c
        WHERE c.run = t.run AND c.start_index <= t.index AND c.end_index > t.index AND c.token IS NOT NULL
            AND c.seen >= clock_timestamp() - make_interval(secs => $8)
    ) h ON {_STATE} = 'planned'
    WHERE g.index >= $5 AND g.index < $6
        AND NOT EXISTS (
            SELECT FROM dispatchkit.outcome f
            WHERE f.run = g.run AND f.index = g.index AND (f.state IN ('done', 'rejected') OR f.final)
        )
        AND {_STATE} IN ('planned', 'sending', 'done', 'unknown')
        AND greatest(s.claimed_at, o.at, h.now) >= clock_timestamp() - make_interval(secs => $7)
)
SELECT array_agg(index ORDER BY index) AS indexes, max(latest) AS latest,
    (SELECT array_agg(command ORDER BY index) FROM (SELECT * FROM found ORDER BY index LIMIT $9) f) AS commands
FROM found HAVING count(*) > 0
"""
REPEATS = _REPEATS.replace("$first", "g").replace("$second", "t")
REPEATS_IN_SMALLER = _REPEATS.replace("$first", "t").replace("$second", "g")

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
SELECT t.index, t.command, {_STATE} AS state, coalesce(o.summary, '') AS summary, o.code,
    coalesce(o.request_id, s.request_id) AS request_id, coalesce(o.attempts, 0) AS attempts,
    coalesce(o.at, s.since) AS at, coalesce(o.for_good, false) AS is_final, s.since
FROM dispatchkit.target t {_LATEST.replace("$target", "t")}
WHERE t.run = $1 AND t.index >= $2 AND t.index < $5 AND (cardinality($3::text[]) = 0 OR {_STATE} = ANY($3))
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
