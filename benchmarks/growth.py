"""How long an insert takes while the table grows: every single one of three million is timed.

    python benchmarks/growth.py --json growth.json [--runs 3]

What matters is the tail: a table that doubles in one go would stop all decisions for a tenth of a second. Whoever else
wants the processor is in the tail too, so several processes do it in turn and the one in the middle counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from array import array
from pathlib import Path

import machine
from workload import CATALOG, START_US, WorkloadError, account_id

from quota import Engine

RATIO_MAX = 10  # p99.9 to median
GROUP = 10_000


def measure(accounts_count: int) -> dict[str, int]:
    engine = Engine([CATALOG])
    put, clock_ns = engine.ledger.put, time.perf_counter_ns
    times_ns = array("q", bytes(8 * accounts_count))
    for begin in range(0, accounts_count, GROUP):
        ids = [account_id(i) for i in range(begin, min(begin + GROUP, accounts_count))]
        for i, id in enumerate(ids, begin):
            begin_ns = clock_ns()
            put(id, "bench", "five", START_US, 0, 0)
            times_ns[i] = clock_ns() - begin_ns
    if engine.accounts_count != accounts_count:
        raise WorkloadError(f"{engine.accounts_count} accounts, not {accounts_count}")
    ordered = sorted(times_ns)
    return {"accounts": accounts_count} | {
        name: ordered[min(int(share * accounts_count), accounts_count - 1)]
        for name, share in (("median_ns", 0.5), ("p99_ns", 0.99), ("p999_ns", 0.999), ("max_ns", 1.0))
    }


def ratio_of(figures: dict[str, int]) -> float:
    return figures["p999_ns"] / figures["median_ns"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--accounts", type=int, default=3_000_000)
    parser.add_argument("--runs", type=int, default=3, help="Processes that do it in turn; 0: do it in this one.")
    options = parser.parse_args()
    if options.runs == 0:
        print(json.dumps(measure(options.accounts)))
        return
    machine.announce()
    others = machine.Others()
    command = [sys.executable, __file__, "--runs", "0", "--accounts", str(options.accounts)]
    runs = []
    for _ in range(options.runs):
        runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        print(
            "   ".join(f"{key} {value:,}" for key, value in runs[-1].items()),
            f"  p99.9 / median {ratio_of(runs[-1]):.1f}x",
        )
    figures = sorted(runs, key=ratio_of)[len(runs) // 2]
    print(f"p99.9 is {ratio_of(figures):.1f}x the median; bar: at most {RATIO_MAX}x")
    if options.json:
        extra = {"described": machine.describe(), "others_share": others.share(), "ratio_max": RATIO_MAX}
        options.json.write_text(json.dumps(extra | figures, indent=1))


if __name__ == "__main__":
    main()
