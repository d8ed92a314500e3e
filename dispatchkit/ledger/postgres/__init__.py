"""Ledgers in PostgreSQL, for many machines."""

from importlib.util import find_spec

if find_spec("asyncpg") is None:
    raise ImportError("a ledger in PostgreSQL needs its extra: pip install 'dispatchkit[ledger]'")
