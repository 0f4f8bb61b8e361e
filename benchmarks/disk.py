"""The disk that a store is measured on: what it is, and how often a second it makes something durable by itself."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workload import WorkloadError

IN_MEMORY = ("tmpfs", "ramfs")
APPEND_BYTES = 256
PAGE_BYTES = 4096
REGION_BYTES = 4_194_304  # what the writes in place go round in, as SQLite's log does

APPEND, IN_PLACE = "append 256 bytes", "write 4 KB in place"


def describe(directory: Path) -> str:
    """File system, device and its cache. Raises WorkloadError if it is none that survives a power cut."""
    major_minor = directory.stat().st_dev
    number = f"{os.major(major_minor)}:{os.minor(major_minor)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        if before.split()[2] == number:
            kind, device = after.split()[:2]
            break
    else:
        raise WorkloadError(f"no mount has the device {number} of {directory}")
    if kind in IN_MEMORY:
        raise WorkloadError(f"{directory} is in memory ({kind}): give --directory on a disk")
    cache = Path(f"/sys/dev/block/{number}/queue/write_cache")
    return f"{kind} on {device}" + (f", cache: {cache.read_text().strip()}" if cache.exists() else "")


@contextmanager
def files(directory: Path) -> Iterator[dict[str, int]]:
    """Yield a file to append to and one to write in, by name of what is done."""
    opened = {
        name: os.open(directory / f"fdatasync-{i}", os.O_RDWR | os.O_CREAT) for i, name in enumerate((APPEND, IN_PLACE))
    }
    try:
        os.pwrite(opened[IN_PLACE], os.urandom(REGION_BYTES), 0)
        os.fsync(opened[IN_PLACE])
        yield opened
    finally:
        for fd in opened.values():
            os.close(fd)


def sync_often(opened: dict[str, int], name: str, count: int) -> list[int]:
    """Write and fdatasync `count` times: how long each took, in nanoseconds."""
    fd, size = opened[name], APPEND_BYTES if name == APPEND else PAGE_BYTES
    content, at = os.urandom(size), os.fstat(fd).st_size if name == APPEND else 0
    times_ns = []
    for _ in range(count):
        begin_ns = time.perf_counter_ns()
        os.pwrite(fd, content, at)
        os.fdatasync(fd)
        times_ns.append(time.perf_counter_ns() - begin_ns)
        at += size
        if name == IN_PLACE:
            at %= REGION_BYTES
    return times_ns


def row_of(name: str, turns: list[list[int]]) -> dict[str, Any]:
    """The rate, median of the turns, and percentiles of all."""
    percentiles = statistics.quantiles([one for times_ns in turns for one in times_ns], n=100)
    rate = statistics.median(len(times_ns) * 1e9 / sum(times_ns) for times_ns in turns)
    return {"name": name, "rate": rate, "p50_ms": percentiles[49] / 1e6, "p99_ms": percentiles[98] / 1e6}
