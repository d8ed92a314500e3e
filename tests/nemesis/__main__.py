"""Run faults, and print what came of them.

    python -m tests.nemesis --list
    python -m tests.nemesis --sample                     # what CI runs: seeded, short times, at most four minutes
    python -m tests.nemesis --faults takeover,kill --stores postgres --runs 20 --seed 7 --scale 0.1 --json out.json
    python -m tests.nemesis --faults takeover --scale 1 --runs 3        # the product's own times

All of it runs in its own network namespace. No packet leaves this machine, and the packet filters are ours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys

from tests.nemesis.faults import FAULTS
from tests.nemesis.runner import Runner

_INSIDE = "NEMESIS_INSIDE"
_SAMPLE = "takeover,stop_run,network_away,kill,engine_retry,copied,pid_namespace,pause"
"""Those that are quick, and strike what breaks most easily: first those that matter most."""


def main() -> int:
    """The command line. The exit status is 1 if a promise was broken, or a fault never fired."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.nemesis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", default=",".join(FAULTS), metavar="A,B")
    parser.add_argument("--stores", default="sqlite,postgres", metavar="A,B")
    parser.add_argument("--kinds", default="command,worker", metavar="A,B")
    parser.add_argument("--provider", choices=["direct", "altcraft"], default="direct", help="which one is played")
    parser.add_argument(
        "--runs", type=int, default=20, metavar="N", help="for each fault, store and kind (default: 20)"
    )
    parser.add_argument("--seed", default="0")
    parser.add_argument(
        "--scale", type=float, default=0.05, help="of all times; 1 is the product's own (default: 0.05)"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at once (default: 2)")
    parser.add_argument("--json", metavar="FILE", help="write every run to a file, as soon as it is over")
    parser.add_argument("--sample", action="store_true", help="a few faults with short times, for CI")
    parser.add_argument(
        "--repeats", type=int, default=4, metavar="N", help="how often a run whose fault did not fire is repeated"
    )
    parser.add_argument("--deadline", type=float, metavar="S", help="begin nothing after so many seconds")
    parser.add_argument("--limit", type=float, metavar="S", help="end after so many seconds, with what there is")
    parser.add_argument("--allow-missing", action="store_true", help="leave out faults whose programs are not here")
    parser.add_argument("--list", action="store_true", help="list the faults, and run none")
    parser.add_argument("--verbose", action="store_true", help="print each run as soon as it is over")
    given = parser.parse_args()
    if given.list:
        for each in FAULTS.values():
            places = [f"{store}/{kind}" for store in each.stores for kind in each.kinds if each.fits(store, kind)]
            print(f"{each.name:<16} {' '.join(places):<48} {each.about}")
        return 0
    if given.sample:
        given.runs, given.scale, given.jobs, given.repeats = 1, 0.0, max(given.jobs, 3), 1
        given.deadline, given.limit = 130.0, 225.0
        if given.faults == ",".join(FAULTS):
            given.faults = _SAMPLE
    if unknown := set(given.faults.split(",")) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    _alone_on_loopback()
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(Runner(given).all())


def _new_loop() -> asyncio.AbstractEventLoop:
    """A fast one where there is one: the provider must keep up with the client."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _alone_on_loopback() -> None:
    """Go on in a network namespace of our own, if we are root and can make one."""
    if os.environ.get(_INSIDE) or os.geteuid() or shutil.which("unshare") is None:
        return
    loopback = ["ip", "link", "set", "lo", "up"]
    if subprocess.run(["unshare", "--net", *loopback], check=False, capture_output=True).returncode:
        return
    os.environ[_INSIDE] = "1"
    script = f'{" ".join(loopback)}; exec "$@"'
    line = ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-m", "tests.nemesis"]
    os.execvp("unshare", [*line, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
