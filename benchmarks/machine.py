"""Where and of what a figure was measured. Names of hosts, users and paths are left out: figures get published."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")  # of /proc/stat in a second
MEASURED = ("core", "quota", "pyproject.toml", "benchmarks/*.py", "benchmarks/catalog.yaml", "benchmarks/front/*.[ch]")
PACKAGES = ("quotad", "cython", "limits", "throttled-py", "pyrate-limiter", "pytest-benchmark")


def describe() -> dict[str, str]:
    """Return CPU, system, Python, versions, commit and date, in the order to print them."""
    return {
        "CPU": f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}",
        "Python": f"{platform.python_version()} ({platform.python_compiler()})",
        "packages": ", ".join(f"{name} {version_of(name)}" for name in PACKAGES),
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def lines() -> str:
    return "\n".join(f"{key:9}{value}" for key, value in describe().items())


def announce() -> None:
    print(lines(), flush=True)


class Others:
    """How much of the processors other processes used since this was made: what a figure that is off may be due to."""

    def __init__(self) -> None:
        self._begin = processor_seconds()

    def share(self) -> float:
        """0 to 1, of all processors."""
        all_, busy, own = (end - begin for begin, end in zip(self._begin, processor_seconds(), strict=True))
        return round(max(0.0, busy - own) / all_, 3) if all_ > 0 else 0.0


def processor_seconds() -> tuple[float, float, float]:
    """Seconds since the system's start of all processors, of those at work, and of this process and its children."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    used = os.times()
    return sum(ticks) / TICKS, (sum(ticks) - idle) / TICKS, sum(used[:4])


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit checked out, `+ changes` where what is measured differs from it; `unknown` outside a clone."""
    try:
        short = git("rev-parse", "--short=10", "HEAD")
        return short + (" + changes" if git("status", "--porcelain", "--", *MEASURED) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
