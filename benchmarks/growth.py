"""How long an insert takes while the table grows: every single one of three million is timed.

    python benchmarks/growth.py --json growth.json

What matters is the tail: a table that doubles in one go would stop all decisions for a tenth of a second.
"""

from __future__ import annotations

import argparse
import json
import time
from array import array
from pathlib import Path

import machine
from quota import Engine
from workload import CATALOG, START_US, WorkloadError, account_id

RATIO_MAX = 10  # p99.9 to median
GROUP = 10_000


def measure(accounts_count: int) -> dict[str, float]:
    engine = Engine([CATALOG])
    put, clock_ns = engine._ledger.put, time.perf_counter_ns
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--accounts", type=int, default=3_000_000)
    options = parser.parse_args()
    machine.announce()
    figures = measure(options.accounts)
    ratio = figures["p999_ns"] / figures["median_ns"]
    print(
        f"{options.accounts:,} inserts: median {figures['median_ns']:,} ns, p99 {figures['p99_ns']:,} ns, "
        f"p99.9 {figures['p999_ns']:,} ns, max {figures['max_ns']:,} ns; p99.9 is {ratio:.1f}x the median   bar: at most {RATIO_MAX}x"
    )
    if options.json:
        options.json.write_text(
            json.dumps({"described": machine.describe(), "ratio_max": RATIO_MAX} | figures, indent=1)
        )


if __name__ == "__main__":
    main()
