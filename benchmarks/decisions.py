"""Nanoseconds per decision: ours over five limits, all or nothing, and the PyPI limiters' over one.

    pytest benchmarks/decisions.py --accounts=1000,100000,1000000 --benchmark-json=decisions.json

A round is thousands of decisions, laid out before it is timed; `decisions` in the JSON's extra_info is what to divide its time by.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from workload import CHOICES, Way, World

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # as workload.cpu_time_ns

WAYS = {
    "Engine.admit": World.admit_clock,
    "Engine.admit, time given": World.admit,
    "Engine.admit_many": World.admit_many,
    "Ledger.admit_packed": World.admit_packed,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("choice", CHOICES)
def test_five_limits(benchmark: Any, world: World, choice: str, way: str, rounds: int) -> None:
    """Ours: five limits a decision, thousands of accounts, time rising."""
    logs = "full" if world.entries == 64 else "light"
    measure(
        benchmark, WAYS[way](world, choice), rounds, accounts=world.accounts_count, choice=choice, logs=logs, limits=5
    )


@pytest.mark.parametrize("name", ["limits", "throttled-py", "pyrate-limiter"])
def test_one_limit(benchmark: Any, name: str, rounds: int) -> None:
    """The others: one limit a decision, the fewest accounts, time as it is."""
    peers = pytest.importorskip("peers", reason="the limiters to compare with are not installed", exc_type=ImportError)
    accounts_count = 1000
    with peers.peer(name, accounts_count) as peer:
        way = peer.way(accounts_count, "full")
        measure(benchmark, way, rounds, accounts=accounts_count, choice="uniform", logs="full", limits=1)


def measure(benchmark: Any, way: Way, rounds: int, **extra: Any) -> None:
    way.check()
    benchmark.extra_info.update(extra, way=way.name, decisions=way.decisions)
    benchmark.pedantic(way.run, setup=lambda: ((way.prepare(),), {}), rounds=rounds)
