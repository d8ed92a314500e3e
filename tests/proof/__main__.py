"""Explore the decisions of a call, and print the number of states. See `python -m tests.proof --help`."""

from __future__ import annotations

import argparse
import time

from tests.proof.explore import explore_all

parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
parser.add_argument("--attempts", type=int, default=5, help="attempts of a call (default: 5)")
parser.add_argument("--probes", type=int, default=6, help="state reads of a call (default: 6)")
parser.add_argument("--surprises", type=int, default=1, help="stops, pauses, rivals, odd wake-ups (default: 1)")
given = parser.parse_args()
began = last = time.perf_counter()
total = 0
print(f"{'states':>12} {'merged':>12} {'outcomes':>12} {'s':>6}")
for name, explored in explore_all(attempts=given.attempts, probes=given.probes, surprises=given.surprises):
    now = time.perf_counter()
    print(
        f"{explored.states:>12,} {explored.merged:>12,} {explored.outcomes:>12,} {now - last:>6.0f}  {name}", flush=True
    )
    total, last = total + explored.states, now
print(f"{total:,} states in {time.perf_counter() - began:.0f} s: nothing violated")
