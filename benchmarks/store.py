"""Durable acknowledged charges a second, how long their answers take, and what that costs over keeping nothing.

    python benchmarks/store.py --json store.json [--turns 11] [--logs light full] [--restart-accounts 1000000]

A charge counts once `Store.wait` has returned for it. How its callers wait decides what is measured: WAITING has threads that
each have one charge in flight, which with many of them measures how Python hands over its lock; and threads that each ask for
a batch with `Engine.admit_many` and wait for its last ticket, as AdmitBatch does, which measures the store.

Every turn times the disk's own fdatasync, then one round of every way to wait in every mode, on one disk and in one process, each
mode with a world of its own. Folding goes on meanwhile. CPU is what the process's threads spend until everything of a round is on
disk and what it made due is folded. At the end the strict store is opened again and compared with memory.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
from pathlib import Path
from typing import Any

import disk
import machine
import restart
from lane import Lane, Round, Waiting
from workload import LOGS

from quota.store.fold import FOLD_BYTES

ACCOUNTS = 100_000
RATIO_MIN, RATE_MIN = 10, 50_000  # a bar is met with either: times the disk's fdatasync rate, charges a second
SYNCS = 300  # of each kind in a turn
MODES = ("ephemeral", "interval:50ms", "strict")

WAITING = (
    Waiting("one at a time", 1, 1, 2_000),
    Waiting("64 threads", 64, 1, 80, barred=True),
    Waiting("one batch of 64", 1, 64, 160, barred=True),
    Waiting("two batches of 32", 2, 32, 160, barred=True),
    Waiting("one batch of 1024", 1, 1024, 20),
    Waiting("two batches of 512", 2, 512, 20),
)


def measure(logs: str, turns: int, accounts_count: int, directory: Path, journal_bytes: int) -> dict[str, Any]:
    """Time everything in turn, with accounts whose logs are alike."""
    lanes = [Lane(mode, logs, accounts_count, directory / f"{logs}-{i}") for i, mode in enumerate(MODES)]
    for lane in lanes:
        lane.warm_up(journal_bytes)
        lane.check()
    ways = [(lane, waiting) for waiting in WAITING for lane in lanes]
    rounds: dict[tuple[str, str], list[Round]] = {(lane.mode, waiting.name): [] for lane, waiting in ways}
    syncs: dict[str, list[list[int]]] = {disk.APPEND: [], disk.IN_PLACE: []}
    with disk.files(directory) as opened:
        for turn in range(turns):
            for name, found in syncs.items():
                found.append(disk.sync_often(opened, name, SYNCS))
            begin = turn * 5 % len(ways)
            for lane, waiting in ways[begin:] + ways[:begin]:
                rounds[lane.mode, waiting.name].append(lane.time(waiting))
    snapshot = {lane.mode: lane.store.folder.folded_bytes_count for lane in lanes if lane.store}
    kept = {lane.mode: lane.compare_kept() for lane in lanes if lane.store}
    lanes[0].close()
    fastest = [SYNCS * 1e9 / min(map(sum, pair)) for pair in zip(*syncs.values(), strict=True)]
    return {
        "logs": logs,
        "accounts": accounts_count,
        "turns": turns,
        "folded_bytes": snapshot,
        "kept": kept,
        "disk": [disk.row_of(name, found) for name, found in syncs.items()],
        "rows": [row_of(lane.mode, waiting, rounds[lane.mode, waiting.name], fastest) for lane, waiting in ways],
    }


def row_of(mode: str, waiting: Waiting, rounds: list[Round], syncs: list[float]) -> dict[str, Any]:
    """Medians of the turns; `ratio` is how many times the disk's fdatasync rate of the same turn."""
    ratios = [round_.rate / sync for round_, sync in zip(rounds, syncs, strict=True)]
    row: dict[str, Any] = {"mode": mode, "waiting": waiting.name, "in_flight": waiting.threads * waiting.batch}
    row |= {name: statistics.median(getattr(it, name) for it in rounds) for name in Round.__slots__}
    row |= {"rate_min": min(it.rate for it in rounds), "rate_max": max(it.rate for it in rounds)}
    row |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    return row | {"decisions": waiting.decisions, "barred": waiting.barred and mode == "strict"}


def show(part: dict[str, Any]) -> None:
    print(f"{part['logs']} logs, {part['accounts']:,} accounts, {part['turns']} turns")
    for it in part["disk"]:
        print(f"  fdatasync: {it['name']:20}{it['rate']:10,.0f}/s   p50 {it['p50_ms']:.3f}  p99 {it['p99_ms']:.3f} ms")
    for it in part["rows"]:
        per_commit = f"{it['decisions'] / it['commits']:8.1f} a commit" if it["commits"] else " " * 17
        print(
            f"  {it['mode']:14}{it['waiting']:20}{it['rate']:10,.0f}/s ({it['settled_rate']:9,.0f}/s all told)   p50 "
            f"{it['p50_ms']:7.3f}  p99 {it['p99_ms']:7.3f} ms   {it['cpu_ns']:8,.0f} ns CPU{per_commit}"
            + (f"   {it['ratio']:.1f}x ({it['ratio_min']:.1f} to {it['ratio_max']:.1f})" if it["barred"] else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--logs", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--restart-accounts", type=int, default=1_000_000)
    parser.add_argument("--starts", type=int, default=3, help="With each kind of cache.")
    parser.add_argument("--directory", type=Path, default=machine.ROOT / ".benchmarks", help="On the disk to measure.")
    options = parser.parse_args()
    options.directory.mkdir(exist_ok=True)
    machine.announce()
    described = {"disk": disk.describe(options.directory), "SQLite": sqlite3.sqlite_version}
    print("\n".join(f"{key:9}{value}" for key, value in described.items()), flush=True)
    others = machine.Others()
    with tempfile.TemporaryDirectory(prefix="store-", dir=options.directory) as name:
        parts = []
        for logs in options.logs:
            parts.append(measure(logs, options.turns, options.accounts, Path(name), FOLD_BYTES))
            show(parts[-1])
        started = restart.measure(Path(name) / "restart", options.restart_accounts, options.starts)
    restart.show(started)
    if options.json:
        extra = {"described": machine.describe(), "others_share": others.share()} | described
        extra |= {"ratio_min": RATIO_MIN, "rate_min": RATE_MIN}
        options.json.write_text(json.dumps(extra | {"parts": parts, "restart": started}, indent=1))


if __name__ == "__main__":
    main()
