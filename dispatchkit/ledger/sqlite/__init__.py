"""Ledgers in one file, for one machine."""
