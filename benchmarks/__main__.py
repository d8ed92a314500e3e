"""``python -m benchmarks``: every measurement of the project, one table after another. ``--quick``: under a minute.

It needs what the tests need (``pip install -e '.[test]'``) and starts its own server on loopback.
"""

from __future__ import annotations

import argparse

from benchmarks import calls, facade


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["all", "calls", "facade"], default="all")
    parser.add_argument("--quick", action="store_true", help="fewer turns: under a minute")
    options = parser.parse_args()
    if options.what in {"all", "calls"}:
        calls.main(quick=options.quick)
    if options.what in {"all", "facade"}:
        facade.main([])


if __name__ == "__main__":
    main()
