"""Time the installed `quota` for compare.py and print nanoseconds per decision as JSON. Runs with either of two builds.

PYTHONPATH=<build> python benchmarks/timing.py <where quota must come from> --accounts 1000 --rounds 15
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from workload import World

import quota


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    if not Path(quota.__file__).is_relative_to(options.build):
        raise SystemExit(f"this is {quota.__file__}, not the build in {options.build}")
    world = World(options.accounts)
    world.check()
    figures = {}
    for way in (
        world.admit_clock("uniform"),
        world.admit("uniform"),
        world.admit_many("uniform"),
        world.admit_packed("uniform"),
    ):
        way.check()
        figures[way.name] = statistics.median(way.time_ns() for _ in range(options.rounds))
    world.verify()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
