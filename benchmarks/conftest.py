"""What the suites share: how many accounts, the worlds, and the machine's description in every report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import machine
import pytest
from workload import World


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accounts", default="1000,100000", help="Numbers of accounts, separated by commas.")
    parser.addoption("--rounds", type=int, default=15, help="Timed rounds of every way to ask.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" not in metafunc.fixturenames:
        return
    sizes = [int(size) for size in metafunc.config.getoption("--accounts").split(",")]
    # Accounts with a light past are timed at the smallest number alone: more of them say nothing new.
    worlds = [(size, "full") for size in sizes] + [(min(sizes), "light")]
    metafunc.parametrize(
        "world", worlds, indirect=True, scope="module", ids=[f"{size}-{logs}" for size, logs in worlds]
    )


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The world of one size and past, checked before and after all that is timed in it."""
    world = World(*request.param)
    world.check()
    yield world
    world.verify()
    world.close()


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    count: int = request.config.getoption("--rounds")
    return count


OTHERS = machine.Others()


def pytest_report_header() -> list[str]:
    return machine.lines().splitlines()


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    output_json["described"] = machine.describe()
    output_json["others_share"] = OTHERS.share()
    output_json["machine_info"].pop("node", None)
