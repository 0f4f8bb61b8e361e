"""Every metric: its name, what it means, and where its value comes from.

The core counts decisions itself; they are read when somebody scrapes. Labels are bounded by the catalogs, and never
grow with accounts.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import grpc
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quota.clock import Clock
from quota.engine import Engine
from quota.ranges import MICRO
from quota.store import Store
from quota.version import VERSION

if TYPE_CHECKING:
    from quota.server.native import NativeFront

STATUS_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
RPC_SECONDS_BUCKETS: Final = (
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0,
)  # fmt: skip


class RpcTimer(Collector):
    """Observes how long calls take, by method: those of Python's handlers here, those of a native front when somebody scrapes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = Histogram(
            "quotad_rpc_seconds",
            "Time from the received message to the serialized answer, by method.",
            ["method"],
            buckets=RPC_SECONDS_BUCKETS,
            registry=None,
        )
        self._native: NativeFront | None = None
        registry.register(self)

    def observer(self, method: str) -> Callable[[float], None]:
        """Return the function that takes one call's seconds; looked up once, since that costs more than observing."""
        return self._histogram.labels(method).observe

    def observe_native(self, front: NativeFront) -> None:
        """Have the figures of a native front told as well."""
        self._native = front

    def collect(self) -> Iterator[Metric]:
        for metric in self._histogram.collect():
            if self._native is not None:
                _add_native_times(metric, self._native)
            yield metric
        if self._native is not None:
            yield from _native_metrics(self._native)


def _add_native_times(metric: Metric, front: NativeFront) -> None:
    bounds = [*map(repr, RPC_SECONDS_BUCKETS), "+Inf"]
    for path, counts, nanoseconds in front.times():
        labels = {"method": method_label(path)}
        cumulative = list(accumulate(counts))
        for bound, count in zip(bounds, cumulative, strict=True):
            metric.add_sample("quotad_rpc_seconds_bucket", {**labels, "le": bound}, count)
        metric.add_sample("quotad_rpc_seconds_count", labels, cumulative[-1])
        metric.add_sample("quotad_rpc_seconds_sum", labels, nanoseconds / 1e9)


def method_label(path: str) -> str:
    """`QuotaService/Admit` of `/quota.v1.QuotaService/Admit`; `other` for paths that are not served, whatever they are."""
    return path.rpartition(".")[2] or "other"


def _native_metrics(front: NativeFront) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "quotad_front_calls",
        "Calls answered by the native front, by method and gRPC status.",
        labels=["method", "status"],
    )
    for path, status, count in front.calls():
        calls.add_metric([method_label(path), STATUS_NAMES[status]], count)
    yield calls
    figures = front.figures()
    yield GaugeMetricFamily("quotad_front_connections", "Connections that are open.", value=figures["connections"])
    yield GaugeMetricFamily(
        "quotad_front_answers_waiting", "Answers that wait for the disk.", value=figures["answers_waiting"]
    )
    yield GaugeMetricFamily(
        "quotad_front_calls_handed", "Calls that the front has handed to Python.", value=figures["calls_handed"]
    )
    for name, meaning in (
        ("connections_opened", "Connections accepted."),
        ("connections_refused", "Connections closed at once, past connections_max."),
        ("connections_calmed", "Connections closed for too many control frames or headers."),
        ("calls_reset", "Calls that their client gave up before they were answered."),
        ("headers_refused", "Calls refused for a header list past header_bytes_max."),
        ("bytes_received", "Bytes received, without TLS."),
        ("bytes_sent", "Bytes sent, with TLS."),
    ):
        yield CounterMetricFamily(f"quotad_front_{name}", meaning, value=figures[name])


def commit_observer(registry: CollectorRegistry) -> Callable[[float], None]:
    """Return the function that takes the seconds of one commit to the store's journal."""
    histogram = Histogram(
        "quotad_store_commit_seconds",
        "Time of one commit to the journal, until it is on disk.",
        buckets=RPC_SECONDS_BUCKETS,
        registry=registry,
    )
    return histogram.observe


class StoreCollector(Collector):
    """Reads the store at every scrape; without one it says so."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        store = self._store
        info = GaugeMetricFamily(
            "quotad_store_info", "How durable an answer is: strict, interval:Nms, or none; always 1.",
            labels=["durability"],
        )  # fmt: skip
        info.add_metric([str(store.durability) if store else "none"], 1)
        yield info
        if store is None:
            return
        writer, folder = store.writer, store.folder
        yield GaugeMetricFamily(
            "quotad_store_failed", "1 if nothing can be kept any more: nothing is charged, and the process ends.",
            value=1 if writer.failure else 0,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "quotad_store_waiting", "Answers that wait for the disk.", value=writer.waiting_count
        )  # fmt: skip
        yield GaugeMetricFamily(
            "quotad_store_unwritten_seconds", "Age of the oldest change that was answered and is not on disk.",
            value=writer.unwritten_seconds(),
        )  # fmt: skip
        yield CounterMetricFamily(
            "quotad_store_written_bytes", "Bytes of records written to the journal.", value=writer.written_bytes_count
        )
        yield CounterMetricFamily(
            "quotad_store_folded_bytes", "Bytes of records folded into the snapshot.", value=folder.folded_bytes_count
        )
        yield GaugeMetricFamily(
            "quotad_store_journal_bytes", "Bytes of records in the journal, not yet folded.", value=folder.journal_bytes
        )
        yield GaugeMetricFamily("quotad_store_file_bytes", "Bytes on disk, all told.", value=store.file_bytes)


class EngineCollector(Collector):
    """Reads the engine and the clock at every scrape."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        yield self._decisions()
        yield CounterMetricFamily(
            "quotad_replays", "Requests answered again by their request_id; they are no decisions.",
            value=self._engine.replays_count,
        )  # fmt: skip
        yield CounterMetricFamily(
            "quotad_request_ids_forgotten", "Request ids forgotten before their 120 s, past request_ids_max.",
            value=self._engine.forgotten_ids_count,
        )  # fmt: skip
        yield CounterMetricFamily(
            "quotad_prompts_forgotten", "Open prompts forgotten, past prompts_max; their next call pays anew.",
            value=self._engine.forgotten_prompts_count,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "quotad_capacity_factor", "Part of their concurrency that accounts may have, 0 to 1.",
            value=self._engine.capacity_micro / MICRO,
        )  # fmt: skip
        yield GaugeMetricFamily("quotad_accounts", "Accounts that exist.", value=self._engine.accounts_count)
        yield GaugeMetricFamily(
            "quotad_accounts_demoted", "Accounts that only the store has whole, until somebody asks for them.",
            value=self._engine.ledger.demoted_count,
        )  # fmt: skip
        catalogs = GaugeMetricFamily(
            "quotad_catalog_info", "Catalogs that decide, by name and version; always 1.", labels=["name", "version"]
        )
        for catalog in self._engine.catalogs():
            catalogs.add_metric([catalog.name, catalog.version], 1)
        yield catalogs
        yield CounterMetricFamily(
            "quotad_clock_alarms", "Steps of the wall clock over 5 s, which are not followed.",
            value=self._clock.alarms_count,
        )  # fmt: skip
        yield CounterMetricFamily(
            "quotad_clock_behind", "Decisions whose time was over 5 s before the account's last one.",
            value=self._engine.clock_behind_count,
        )  # fmt: skip
        build = GaugeMetricFamily(
            "quotad_build_info", "The program that runs, by version; always 1.", labels=["version", "python"]
        )
        build.add_metric([VERSION, platform.python_version()], 1)
        yield build

    def _decisions(self) -> Metric:
        decisions = CounterMetricFamily(
            "quotad_decisions",
            "Decisions of Admit, by what they were made on and what they said.",
            labels=["catalog", "plan", "model", "verdict", "rule"],
        )
        for catalog, plan, model, verdict, rule, count in self._engine.decisions():
            decisions.add_metric([catalog, plan, model, verdict, rule], count)
        return decisions


def build_registry(engine: Engine, clock: Clock, store: Store | None) -> CollectorRegistry:
    """Make a registry of its own for one server, so that several can live in one process."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine, clock))
    registry.register(StoreCollector(store))
    ProcessCollector(registry=registry)
    return registry
