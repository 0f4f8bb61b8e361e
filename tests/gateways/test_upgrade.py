"""A new quotad takes the old one's place while requests come in: how long nobody is answered, and that nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways.envoy import envoy
from gateways.load import by_grpcio, by_http, load
from gateways.quotad import Quotad
from gateways.upstream import Upstream, serving
from quota.client import AdminClient, QuotaClient
from quota.v1 import admin_pb2

HERE = Path(__file__).parent
UPGRADES = 3
SECONDS_BETWEEN = 1
REPORT_SECONDS_MAX = 10  # what a stream used is told after its end
GAP_MS_MAX = 10_000  # a process that starts on a busy machine; what is usual stands in docs/away.md


@pytest.fixture
def quotad(tmp_path: Path) -> Iterator[Quotad]:
    """One with an account for each way of asking, whom nothing is refused."""
    running = Quotad(tmp_path, "--catalogs", str(HERE / "wide.yaml"), "--request-ids-max", "10000")
    with AdminClient(running.control) as admin:
        for account in ("ann", "bob"):
            admin.put_account(admin_pb2.Account(id=account, catalog="wide", plan="open"))
    yield running
    running.stop()


def used(quotad: Quotad, account: str) -> tuple[int, int, int]:
    """How many calls and tokens have been charged, and how many holds are open."""
    with QuotaClient(quotad.data) as data:
        usage = data.usage(account)
    units = {limit.id: limit.used_micro // 1_000_000 for limit in usage.limits}
    return units["calls-day"], units["tokens-day"], len(usage.holds)


def test_upgrade_under_load(quotad: Quotad, tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    """every acknowledged charge is there, once; nothing is refused; both clients go on by themselves."""
    with (
        serving(Upstream()) as upstream,
        envoy(quotad.data, upstream.port, tmp_path) as gateway,
        load(by_http(gateway.url, "key-of-ann")) as by_envoy,
        load(by_grpcio(quotad.data, "bob")) as by_client,
    ):
        for _ in range(UPGRADES):
            time.sleep(SECONDS_BETWEEN)
            quotad.stop()
            quotad.start()
        time.sleep(SECONDS_BETWEEN)

    for name, answers in (("Envoy", by_envoy), ("grpcio", by_client)):
        print(f"{name}: {dict(answers.counts)}, longest gap {answers.gap_ms} ms")
        record_property(f"gap_ms {name}", answers.gap_ms)
    assert ["good"] == list(by_client.counts)
    assert ["good"] == list(by_envoy.counts)
    assert (by_client.counts["good"], 0, 0) == used(quotad, "bob")
    calls = by_envoy.counts["good"]
    until = time.monotonic() + REPORT_SECONDS_MAX
    while used(quotad, "ann") != (calls, 42 * calls, 0) and time.monotonic() < until:
        time.sleep(0.05)
    assert (calls, 42 * calls, 0) == used(quotad, "ann")
    assert max(by_client.gap_ms, by_envoy.gap_ms) < GAP_MS_MAX
