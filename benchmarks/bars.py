"""How many times faster: what the bars compare, timed in turn within one process.

    python benchmarks/bars.py --json bars.json [--turns 41] [--packed-accounts 1000000]

A machine's speed changes while it is measured. So every turn times one round of each contestant, begins with another one each
time, and yields one ratio for every comparison; the median of those counts, and the least and greatest are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import peers
from workload import LOGS, Way, World

ACCOUNTS = 1000

COMPARISONS = [  # of what, with what, on which side the bar is at least how many times faster
    ("Engine.admit", "limits, moving window", 20),
    ("Engine.admit", "throttled-py, GCRA", 10),
    ("Engine.admit", "pyrate-limiter, sliding log", None),
    ("Engine.admit, time given", "limits, moving window", 20),
    ("Engine.admit, time given", "throttled-py, GCRA", 10),
    ("Engine.admit_many", "limits, moving window", 60),
    ("Engine.admit_many", "throttled-py, GCRA", 30),
    ("Engine.admit_many", "pyrate-limiter, sliding log", None),
]
PACKED = [("Ledger.admit_packed", "Engine.admit, time given", 2)]


def take_turns(ways: list[Way], turns: int, quiet: Callable[[], object]) -> dict[str, list[float]]:
    """Time every way in every turn: name to nanoseconds per decision. `quiet` is called after each round."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for way in ways:
        way.check()
    for turn in range(turns):
        begin = turn % len(ways)
        for way in ways[begin:] + ways[:begin]:
            quiet()
            times[way.name].append(way.time_ns())
    return times


def compare(comparisons: list[Any], times: dict[str, list[float]], world: World) -> list[dict[str, Any]]:
    rows = []
    for fast, slow, bar in comparisons:
        ratios = [b / a for a, b in zip(times[fast], times[slow], strict=True)]
        rows.append(
            {
                "fast": fast,
                "slow": slow,
                "accounts": world.accounts_count,
                "logs": world.logs,
                "bar": bar,
                "turns": len(ratios),
            }
            | {"fast_ns": statistics.median(times[fast]), "slow_ns": statistics.median(times[slow])}
            | {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
        )
    return rows


def beside_peers(turns: int, logs: str) -> list[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(peers.peer(name, ACCOUNTS)) for name in peers.NAMES]
        ways = [other.way(ACCOUNTS, logs) for other in others]
        world = stack.enter_context(contextlib.closing(World(ACCOUNTS, logs)))
        world.check()
        ways += [world.admit_clock("uniform"), world.admit("uniform"), world.admit_many("uniform")]
        times = take_turns(ways, turns, lambda: [other.quiet() for other in others])
        world.verify()
        return compare(COMPARISONS, times, world)


def packed(turns: int, accounts_count: int) -> list[dict[str, Any]]:
    with contextlib.closing(World(accounts_count)) as world:
        world.check()
        times = take_turns([world.admit("uniform"), world.admit_packed("uniform")], turns, lambda: None)
        world.verify()
        return compare(PACKED, times, world)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--packed-accounts", type=int, default=1_000_000)
    options = parser.parse_args()
    machine.announce()
    others = machine.Others()
    rows = [row for logs in LOGS for row in beside_peers(options.turns, logs)] + packed(
        options.turns, options.packed_accounts
    )
    for row in rows:
        bar = f"   bar {row['bar']}x" if row["bar"] else ""
        print(
            f"{row['logs']:6}{row['fast']:25}{row['fast_ns']:6.0f} ns   {row['slow']:28}{row['slow_ns']:6.0f} ns   "
            f"{row['ratio']:5.1f}x ({row['ratio_min']:.1f} to {row['ratio_max']:.1f}){bar}"
        )
    if options.json:
        extra = {"described": machine.describe(), "others_share": others.share()}
        options.json.write_text(json.dumps(extra | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
