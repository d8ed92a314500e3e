"""Ledgers in PostgreSQL, for many machines."""
