"""Explore the decisions of a call deeper than the suite does. See `python -m tests.proof --help`."""

from __future__ import annotations

import argparse
import time

from tests.proof.explore import explore_all

parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
parser.add_argument("--attempts", type=int, default=5, help="attempts of a call (default: 5)")
parser.add_argument("--probes", type=int, default=6, help="state reads of a call (default: 6)")
parser.add_argument("--surprises", type=int, default=1, help="stops, pauses, rivals, late wake-ups (default: 1)")
given = parser.parse_args()
began = time.perf_counter()
states = explore_all(attempts=given.attempts, probes=given.probes, surprises=given.surprises)
for name, count in states.items():
    print(f"{count:>10,}  {name}")
print(f"{sum(states.values()):>10,}  states in {time.perf_counter() - began:.0f} s")
