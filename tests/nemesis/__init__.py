"""Fault injection: real processes, a provider at its worst, and a judge. Run it with ``python -m tests.nemesis``."""
