"""The statements of an account's shared pace: its pause and its leases."""

from __future__ import annotations

__all__ = ["FORGET", "ISOLATION", "PAUSED", "RENEW", "TELL"]

TELL = """
INSERT INTO dispatchkit.account (key, paused_until)
VALUES ($1, clock_timestamp() + make_interval(secs => $2::float8))
ON CONFLICT (key) DO UPDATE SET paused_until = least(
    greatest(account.paused_until, excluded.paused_until), clock_timestamp() + make_interval(secs => $3::float8)
)
RETURNING extract(epoch FROM paused_until - clock_timestamp())::float8
"""
PAUSED = """
SELECT extract(epoch FROM paused_until - clock_timestamp())::float8 FROM dispatchkit.account WHERE key = $1
"""
# Each renewal updates the account's row. With this isolation, the database refuses the later one of two concurrent
# renewals. So each renewal sees the leases of all earlier ones, without a lock that outlasts a slow network.
ISOLATION = "SET default_transaction_isolation TO 'repeatable read'"
# The fair share, in SQL. A lease keeps the share that its worker may still use ($5, $6, $7). This answer tells the
# worker of a smaller share, and its next renewal writes it. So the leases together cover what all workers use.
RENEW = f"""
WITH account AS ({TELL.rstrip().replace("$3", "$10")} AS paused), others AS MATERIALIZED (
    SELECT count(*)::int AS number, (count(*) FILTER (WHERE worker < $3))::int AS rank,
        coalesce(sum(coalesce(rate, 'Infinity')), 0) AS rate,
        coalesce(sum(coalesce(concurrency, 'Infinity'::float8)), 0) AS concurrency,
        least(min(wanted_rate), $8::float8) AS wanted_rate,
        least(min(wanted_concurrency), $9::int) AS wanted_concurrency
    FROM dispatchkit.lease WHERE account = $1 AND worker <> $3 AND expires > clock_timestamp()
), fair AS MATERIALIZED (
    SELECT *, wanted_rate / (number + 1) AS fair_rate,
        wanted_concurrency / (number + 1) + (rank < wanted_concurrency % (number + 1))::int AS fair_concurrency
    FROM others
), share AS MATERIALIZED (
    SELECT fair_rate, fair_concurrency,
        -- 1e-9: a rounding error must not exceed the rest.
        CASE WHEN number = 0 OR wanted_rate IS NULL THEN wanted_rate
            ELSE greatest(0, least(fair_rate, wanted_rate - rate - 1e-9 * wanted_rate)) END AS rate,
        CASE WHEN wanted_concurrency IS NOT NULL
            THEN greatest(0, least(fair_concurrency, wanted_concurrency - concurrency))::int END AS concurrency
    FROM fair
), renewed AS (
    INSERT INTO dispatchkit.lease
    SELECT $1, $3, CASE WHEN rate IS NOT NULL AND $5::float8 IS NOT NULL THEN greatest(rate, $5) END,
        CASE WHEN concurrency IS NOT NULL AND $6::int IS NOT NULL THEN greatest(concurrency, $6, $7::int) END,
        $8, $9, clock_timestamp() + make_interval(secs => $4::float8)
    FROM share
    ON CONFLICT (account, worker) DO UPDATE SET rate = excluded.rate, concurrency = excluded.concurrency,
        wanted_rate = excluded.wanted_rate, wanted_concurrency = excluded.wanted_concurrency, expires = excluded.expires
)
SELECT rate, concurrency, rate IS NOT DISTINCT FROM fair_rate AND concurrency IS NOT DISTINCT FROM fair_concurrency,
    paused
FROM share CROSS JOIN account
"""  # noqa: S608 - put together from constants
FORGET = "DELETE FROM dispatchkit.lease WHERE account = $1 AND (worker = $2 OR expires < clock_timestamp())"
