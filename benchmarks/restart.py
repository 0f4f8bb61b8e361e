"""How long a start takes that finds accounts on disk, and the bytes they take there.

The accounts are those of memory.py: 9 of 10 with three charges alive, 1 of 10 with a full log. They are put, kept, charged in
time's order, all mixed, and kept again, so that their records come to the snapshot in no order and grow there, as in life. Then
everything is folded. A start is a process of its own, timed from before it until it would answer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from array import array
from contextlib import closing
from pathlib import Path
from typing import Any

import memory
from workload import CATALOG, START_US, WINDOW_US, WorkloadError, account_id, request_of

from quota import Engine
from quota._core import PackedRequests
from quota.errors import Unavailable
from quota.store import Store
from quota.store.format import FILE

KIND = "mixed"
SECONDS_MAX = 5.0
BYTES_RATIO_MAX = 3.0
CACHES = ("cold", "warm")  # whether the system still has the file in memory


def stop(reason: str) -> None:
    print(reason, file=sys.stderr, flush=True)


def keep(store: Store) -> None:
    """Return once all changes are on disk, however long that takes."""
    while True:
        try:
            return store.wait_all()
        except Unavailable:
            store.check()


def build(directory: Path, accounts_count: int) -> None:
    """Make the store, and fold all of it into the snapshot."""
    engine = Engine([CATALOG])
    store = Store.open(directory)
    store.start(engine.ledger, lambda: START_US, on_failure=stop)
    for i in range(accounts_count):
        engine.ledger.put(account_id(i), "bench", "five", START_US - 40 * 86_400_000_000, 0, 0)
    keep(store)
    order = array("I", (i for i in range(accounts_count) for _ in range(memory.charges_of(KIND, i))))
    random.Random(1).shuffle(order)
    step_us = (WINDOW_US - 1_000_000) / len(order)
    for begin in range(0, len(order), memory.GROUP):
        packed = PackedRequests([request_of(account_id(i)) for i in order[begin : begin + memory.GROUP]])
        engine.ledger.admit_packed(packed, START_US - WINDOW_US + 1_000_000 + int(begin * step_us))
    keep(store)
    store.close()
    with closing(Store.open(directory)) as store:
        while store.folder.journal_bytes:
            store.folder.fold()


def sizes(directory: Path) -> dict[str, int]:
    with closing(sqlite3.connect(directory / FILE)) as database:
        rows, blobs, ids = database.execute(
            "SELECT count(*), sum(length(blob)), sum(length(id)) FROM snapshot"
        ).fetchone()
        free = database.execute("PRAGMA freelist_count").fetchone()[0] * 4096
    file_bytes = sum(path.stat().st_size for path in files_of(directory))
    return {"rows": rows, "blob_bytes": blobs, "id_bytes": ids, "free_bytes": free, "file_bytes": file_bytes}


def files_of(directory: Path) -> list[Path]:
    return [*directory.glob(f"{FILE}*"), *directory.glob("journal-*")]


def forget(file: Path) -> None:
    """Have the system drop what it holds of a file in memory."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def start(directory: Path, accounts_count: int) -> None:
    """Start on the store and say when, as a process of its own: seconds that opening and restoring took, and the moment."""
    begin = time.monotonic()
    engine = Engine([CATALOG])
    store = Store.open(directory)
    opened = time.monotonic()
    store.restore(engine.ledger)
    store.start(engine.ledger, lambda: START_US, on_failure=stop)
    ready = time.monotonic()
    memory.check(engine, KIND, accounts_count)
    store.close()
    print(json.dumps({"open_s": opened - begin, "restore_s": ready - opened, "ready_at": ready}))


def measure(directory: Path, accounts_count: int, starts: int) -> dict[str, Any]:
    """Build a store and start on it `starts` times with each kind of cache, in turn."""
    command = [sys.executable, __file__, str(directory), "--accounts", str(accounts_count)]
    subprocess.run([*command, "--build"], check=True)
    figures: dict[str, Any] = {"accounts": accounts_count} | sizes(directory)
    if figures["rows"] != accounts_count:
        raise WorkloadError(f"{figures['rows']} accounts are in the snapshot, not {accounts_count}")
    runs: dict[str, list[dict[str, float]]] = {cache: [] for cache in CACHES}
    for _ in range(starts):
        for cache in CACHES:
            if cache == "cold":
                for file in files_of(directory):
                    forget(file)
            begin = time.monotonic()
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            runs[cache].append(
                {"s": told["ready_at"] - begin, "open_s": told["open_s"], "restore_s": told["restore_s"]}
            )
    for cache in CACHES:
        seconds = [run["s"] for run in runs[cache]]
        figures[cache] = {key: statistics.median(run[key] for run in runs[cache]) for key in runs[cache][0]}
        figures[cache] |= {"s_min": min(seconds), "s_max": max(seconds)}
    return figures | {"starts": starts, "seconds_max": SECONDS_MAX, "ratio_max": BYTES_RATIO_MAX}


def show(it: dict[str, Any]) -> None:
    starts = (
        f"{it[cache]['s']:.2f} s ({it[cache]['s_min']:.2f} to {it[cache]['s_max']:.2f}) {cache}" for cache in CACHES
    )
    print(
        f"restart with {it['accounts']:,} accounts: {', '.join(starts)}; {it['file_bytes'] / it['accounts']:.0f} bytes each on "
        f"disk, blobs {it['blob_bytes'] / it['accounts']:.0f}: {it['file_bytes'] / it['blob_bytes']:.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--build", action="store_true", help="Make the store instead of starting on it.")
    options = parser.parse_args()
    if options.build:
        build(options.directory, options.accounts)
    else:
        start(options.directory, options.accounts)


if __name__ == "__main__":
    main()
