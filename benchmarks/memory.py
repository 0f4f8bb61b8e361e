"""Bytes per account, all told: how much more memory a process holds, divided by its accounts.

    python benchmarks/memory.py --json memory.json

Three figures, each from a process of its own: `mixed` (9 of 10 accounts with three charges alive, 1 of 10 with a full log), `full`
(every log full) and `idle` (put, never charged). The charges come in time's order, all accounts mixed, so that records grow
and are given back as in life, and the allocator's waste is counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
from array import array
from pathlib import Path

import machine
from workload import CATALOG, COST_MICRO, LOGS, START_US, WINDOW_US, WorkloadError, account_id, request_of

from quota import Engine
from quota._core import PackedRequests

FULL, LIGHT = LOGS["full"][0], LOGS["light"][0]
KINDS = {"mixed": 1.0, "full": 0.1, "idle": 1.0}  # kind to its share of --accounts: full ones are large, and all alike
BYTES_MAX = 450
GROUP = 4096


def charges_of(kind: str, i: int) -> int:
    """How many charges account i gets."""
    if kind == "mixed":
        return FULL if i % 10 == 0 else LIGHT
    return FULL if kind == "full" else 0


def rss_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(kind: str, accounts_count: int) -> dict[str, float]:
    engine = Engine([CATALOG])
    order = array("I", (i for i in range(accounts_count) for _ in range(charges_of(kind, i))))
    random.Random(1).shuffle(order)
    step_us = (WINDOW_US - 1_000_000) / max(1, len(order))
    before = rss_bytes()
    for i in range(accounts_count):
        engine.ledger.put(account_id(i), "bench", "five", START_US - 40 * 86_400_000_000, 0, 0)
    for begin in range(0, len(order), GROUP):
        packed = PackedRequests([request_of(account_id(i)) for i in order[begin : begin + GROUP]])
        engine.ledger.admit_packed(packed, START_US - WINDOW_US + 1_000_000 + int(begin * step_us))
    after = rss_bytes()
    check(engine, kind, accounts_count)
    return {"accounts": accounts_count, "charges": len(order), "bytes_per_account": (after - before) / accounts_count}


def check(engine: Engine, kind: str, accounts_count: int) -> None:
    """All charges are there and alive. Raises WorkloadError."""
    if engine.accounts_count != accounts_count:
        raise WorkloadError(f"{engine.accounts_count} accounts, not {accounts_count}")
    for i in range(0, accounts_count, 997):
        used_micro = engine.usage(account_id(i), now_ms=START_US // 1000).limits[0].used_micro
        if used_micro != charges_of(kind, i) * COST_MICRO:
            raise WorkloadError(
                f"{account_id(i)}: {used_micro} micro-units, not {charges_of(kind, i)} charges of {COST_MICRO}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=KINDS, help="Measure this one, in this process.")
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options.kind, options.accounts)))
        return
    machine.announce()
    others = machine.Others()
    figures = {}
    for kind, share in KINDS.items():
        command = [sys.executable, __file__, "--kind", kind, "--accounts", str(int(options.accounts * share))]
        figures[kind] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        bar = f"   bar: at most {BYTES_MAX}" if kind == "mixed" else ""
        print(
            f"{kind:6}{figures[kind]['accounts']:10,} accounts{figures[kind]['bytes_per_account']:8.0f} bytes each{bar}"
        )
    if options.json:
        extra = {"described": machine.describe(), "others_share": others.share(), "bytes_max": BYTES_MAX}
        options.json.write_text(json.dumps(extra | {"kinds": figures}, indent=1))


if __name__ == "__main__":
    main()
