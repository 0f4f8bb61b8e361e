"""Build another commit beside this tree and time both in turn.

    python benchmarks/compare.py REF [--pairs 9] [--accounts 1000,100000]

A is REF, B is this tree as it lies here, uncommitted changes and all. Both are built alike, in a temporary directory, with the
compiler and the packages of this environment and nothing from the network; both run this tree's workload, in fresh processes,
A B A B. Each pair yields one ratio B / A: below 1 this tree is faster. Look at the spread before you believe the median.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import machine

TIMING = Path(__file__).with_name("timing.py")


def copy_tree(target: Path) -> None:
    """What git knows of this tree, or would be told of: no build products."""
    for name in machine.git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        source = machine.ROOT / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def build(source: Path, target: Path) -> Path:
    """Install the package of `source` into `target`. Raises SystemExit with what the build said."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{source.name} does not build:\n{done.stdout}{done.stderr}")
    return target


def run(installed: Path, accounts_count: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, str(TIMING), str(installed), "--accounts", str(accounts_count), "--rounds", str(rounds)]
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the timing fails in {installed.name}:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def compare(a: Path, b: Path, accounts_count: int, pairs: int, rounds: int) -> None:
    runs = [(run(a, accounts_count, rounds), run(b, accounts_count, rounds)) for _ in range(pairs)]
    print(
        f"\n{accounts_count:,} accounts, uniform, full logs, {pairs} pairs of processes, median of {rounds} rounds in each"
    )
    for way in runs[0][0]:
        ratios = [here[way] / there[way] for there, here in runs]
        print(
            f"  {way:26}A {statistics.median(there[way] for there, _ in runs):7.0f} ns   "
            f"B {statistics.median(here[way] for _, here in runs):7.0f} ns   "
            f"B / A {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ref", help="Commit, tag or branch to compare with.")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--accounts", default="1000,100000")
    options = parser.parse_args()
    try:
        commit = machine.git("rev-parse", "--short=10", "--verify", f"{options.ref}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{options.ref} is no commit here: {error.stderr.strip()}") from None
    machine.announce()
    print(f"A: {options.ref} ({commit})\nB: this tree ({machine.commit()})")
    with tempfile.TemporaryDirectory(prefix="quotad-compare-") as name:
        place = Path(name)
        machine.git("worktree", "add", "--quiet", "--detach", str(place / "source-a"), commit)
        try:
            (place / "source-b").mkdir()
            copy_tree(place / "source-b")
            a, b = build(place / "source-a", place / "a"), build(place / "source-b", place / "b")
            for accounts in options.accounts.split(","):
                compare(a, b, int(accounts), options.pairs, options.rounds)
        finally:
            machine.git("worktree", "remove", "--force", str(place / "source-a"))


if __name__ == "__main__":
    main()
