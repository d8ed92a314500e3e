"""Migration 1: all tables."""

from __future__ import annotations

__all__ = ["POSTGRES", "SQLITE"]

POSTGRES = """
CREATE TABLE dispatchkit.about (version int NOT NULL, release text);
CREATE TABLE dispatchkit.run (
    number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    settings text NOT NULL,
    created timestamptz NOT NULL,
    total int NOT NULL DEFAULT 0,
    plan_complete boolean NOT NULL DEFAULT false,
    stopped boolean NOT NULL DEFAULT false,
    stops int NOT NULL DEFAULT 0, -- how often it was stopped
    repeat_window double precision, -- seconds
    canary int, -- the number of targets that go first
    rate double precision, -- what all workers together may use of the account
    concurrency int,
    host text NOT NULL,
    account text, -- its name, where the client has one
    fingerprint text NOT NULL,
    attempt_timeout double precision NOT NULL, -- the longest of all holders
    contents_pruned timestamptz,
    planned_by text, -- user, machine and profile, for people
    planned_on text,
    profile text,
    launch_options text, -- JSON: of the command line, for the line that resumes the run
    database_id text[] NOT NULL -- see IDENTITY
);
CREATE TABLE dispatchkit.chunk (
    run int NOT NULL,
    number int NOT NULL,
    start_index int NOT NULL,
    end_index int NOT NULL,
    token text,
    pid int,
    host text,
    boot_id text,
    process_started bigint, -- in clock ticks since the boot
    pid_namespace bigint,
    since timestamptz, -- when it was taken
    seen timestamptz, -- the latest heartbeat
    PRIMARY KEY (run, number)
);
CREATE TABLE dispatchkit.target (
    run int NOT NULL,
    index int NOT NULL,
    key bytea NOT NULL,
    command text NOT NULL,
    log_key bigint, -- the log in which alone it shows, if that is so
    PRIMARY KEY (run, index),
    UNIQUE (run, key) -- not (key, run): all runs would share its pages, and each more would make planning slower
);
CREATE INDEX target_of_log ON dispatchkit.target (log_key) WHERE log_key IS NOT NULL;
CREATE TABLE dispatchkit.content ( -- the long fields and files of a run's commands, by hash, in pieces
    run int NOT NULL,
    hash text NOT NULL,
    number int NOT NULL, -- of the piece, from 0
    piece bytea NOT NULL,
    PRIMARY KEY (run, hash, number)
);
CREATE TABLE dispatchkit.sending (
    run int NOT NULL,
    index int NOT NULL,
    send_no int NOT NULL,
    token text NOT NULL,
    request_id text,
    since timestamptz NOT NULL,
    claimed_at timestamptz NOT NULL, -- of the latest claim
    PRIMARY KEY (run, index, send_no)
);
CREATE TABLE dispatchkit.outcome (
    run int NOT NULL,
    index int NOT NULL,
    send_no int NOT NULL,
    state text NOT NULL,
    summary text NOT NULL,
    code text, -- as JSON: a number or a text
    request_id text,
    attempts int NOT NULL,
    at timestamptz NOT NULL,
    final boolean NOT NULL DEFAULT false, -- of an unknown one: nothing can settle it any more
    PRIMARY KEY (run, index, send_no)
);
CREATE TABLE dispatchkit.tally ( -- targets by state, of each block of a chunk; those that it does not count are planned
    run int NOT NULL,
    chunk int NOT NULL,
    block int NOT NULL,
    part int NOT NULL, -- 0: changed by claims, 1: by outcomes; the sum of both counts
    sending int NOT NULL,
    done int NOT NULL,
    rejected int NOT NULL,
    not_sent int NOT NULL,
    unknown int NOT NULL,
    final int NOT NULL, -- unknown ones that nothing can settle
    version int NOT NULL, -- of concurrent changes, the later one is refused
    PRIMARY KEY (run, chunk, block, part)
) WITH (fillfactor = 50);
CREATE TABLE dispatchkit.series ( -- outcomes over time, see `series`
    run int NOT NULL,
    start timestamptz NOT NULL, -- of ten seconds
    chunk int NOT NULL,
    state text NOT NULL,
    slot int NOT NULL, -- of the latency histogram
    count int NOT NULL,
    PRIMARY KEY (run, start, chunk, state, slot)
) WITH (fillfactor = 50);
CREATE TABLE dispatchkit.plan_part ( -- the commands of each part of a plan, as they were given
    run int NOT NULL,
    number int NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (run, number)
);
CREATE TABLE dispatchkit.account (
    key text PRIMARY KEY, -- a hash
    paused_until timestamptz NOT NULL DEFAULT 'epoch'
);
CREATE TABLE dispatchkit.lease (
    account text NOT NULL,
    worker text NOT NULL,
    rate double precision, -- what this worker may use; null: as much as it likes
    concurrency int,
    wanted_rate double precision, -- what all workers together may use, as this one was told
    wanted_concurrency int,
    expires timestamptz NOT NULL,
    PRIMARY KEY (account, worker)
);
"""

SQLITE = """
CREATE TABLE about (database_id TEXT NOT NULL, file TEXT NOT NULL, born TEXT, renewals INTEGER, release TEXT);
CREATE TABLE boot (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE run (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, created TEXT NOT NULL,
    total INTEGER NOT NULL DEFAULT 0, plan_complete INTEGER NOT NULL DEFAULT 0, stopped INTEGER NOT NULL DEFAULT 0,
    stops INTEGER NOT NULL DEFAULT 0, repeat_window REAL, canary INTEGER,
    host TEXT NOT NULL, account TEXT, fingerprint TEXT NOT NULL, attempt_timeout REAL NOT NULL,
    contents_pruned TEXT, planned_by TEXT, planned_on TEXT, profile TEXT, launch_options TEXT,
    database_id TEXT NOT NULL);
CREATE TABLE chunk (
    run INTEGER NOT NULL, number INTEGER NOT NULL, start_index INTEGER NOT NULL, end_index INTEGER NOT NULL,
    token TEXT, pid INTEGER, host TEXT, process_started INTEGER, pid_namespace INTEGER,
    since REAL, since_boot REAL, seen REAL, seen_boot REAL, boot INTEGER, PRIMARY KEY (run, number)) WITHOUT ROWID;
CREATE TABLE target (
    run INTEGER NOT NULL, "index" INTEGER NOT NULL, key BLOB NOT NULL, command TEXT NOT NULL, log_key INTEGER,
    PRIMARY KEY (run, "index"), UNIQUE (run, key)) WITHOUT ROWID;
CREATE INDEX target_of_log ON target (log_key) WHERE log_key IS NOT NULL;
CREATE TABLE content (
    run INTEGER NOT NULL, hash TEXT NOT NULL, number INTEGER NOT NULL, piece BLOB NOT NULL,
    PRIMARY KEY (run, hash, number));
CREATE TABLE sending (
    run INTEGER NOT NULL, "index" INTEGER NOT NULL, send_no INTEGER NOT NULL, token TEXT NOT NULL, request_id TEXT,
    since TEXT NOT NULL, claimed_at REAL NOT NULL, claimed_boot REAL NOT NULL, boot INTEGER NOT NULL,
    PRIMARY KEY (run, "index", send_no)) WITHOUT ROWID;
CREATE TABLE outcome (
    run INTEGER NOT NULL, "index" INTEGER NOT NULL, send_no INTEGER NOT NULL, state TEXT NOT NULL,
    summary TEXT NOT NULL, code, request_id TEXT, attempts INTEGER NOT NULL, at TEXT NOT NULL,
    final INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, "index")) WITHOUT ROWID;
CREATE TABLE tally (
    run INTEGER NOT NULL, chunk INTEGER NOT NULL, block INTEGER NOT NULL, sending INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0, rejected INTEGER NOT NULL DEFAULT 0, not_sent INTEGER NOT NULL DEFAULT 0,
    unknown INTEGER NOT NULL DEFAULT 0, final INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, chunk, block)) WITHOUT ROWID;
CREATE TABLE series (
    run INTEGER NOT NULL, start TEXT NOT NULL, chunk INTEGER NOT NULL, state TEXT NOT NULL, slot INTEGER NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (run, start, chunk, state, slot)) WITHOUT ROWID;
CREATE TABLE plan_part (
    run INTEGER NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
"""
