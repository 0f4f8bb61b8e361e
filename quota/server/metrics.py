"""Metrics of the engine, the clock and the store: names, what they mean, and where their values come from.

The core counts decisions and units itself; they are read when somebody scrapes. Labels are bounded by the catalogs, and
never grow with accounts. docs/metrics.md lists them all, with those of the fronts.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quota.clock import Clock
from quota.engine import Engine
from quota.ranges import MICRO
from quota.server.front_metrics import RPC_SECONDS_BUCKETS
from quota.store import Store
from quota.version import VERSION


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
            "quotad_store_journal_bytes",
            "Bytes that records of the journal take in its files, not yet folded.",
            value=folder.journal_bytes,
        )
        yield GaugeMetricFamily("quotad_store_file_bytes", "Bytes on disk, all told.", value=store.file_bytes)


class EngineCollector(Collector):
    """Reads the engine and the clock at every scrape."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        yield self._decisions()
        yield from self._units()
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
        yield from self._population()
        yield GaugeMetricFamily(
            "quotad_accounts_demoted", "Accounts that only the store has whole, until somebody asks for them.",
            value=self._engine.ledger.demoted_count,
        )  # fmt: skip
        yield from self._catalogs()
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

    def _units(self) -> Iterator[Metric]:
        labels = ["catalog", "plan", "pool"]
        charged = CounterMetricFamily(
            "quotad_charged_units", "Units charged by decisions, settlements and adjustments.", labels=labels
        )
        refunded = CounterMetricFamily(
            "quotad_refunded_units", "Units given back by settlements and adjustments.", labels=labels
        )
        for catalog, plan, pool, given_back, micro in self._engine.units():
            (refunded if given_back else charged).add_metric([catalog, plan, pool], micro / MICRO)
        yield charged
        yield refunded

    def _population(self) -> Iterator[Metric]:
        accounts = GaugeMetricFamily("quotad_accounts", "Accounts that exist.", labels=["catalog", "plan"])
        for (catalog, plan), count in self._engine.accounts_by_plan().items():
            accounts.add_metric([catalog, plan], count)
        yield accounts
        holds, prompts, request_ids = self._engine.census()
        yield GaugeMetricFamily("quotad_holds", "Holds that are open: requests in flight.", value=holds)
        yield GaugeMetricFamily("quotad_prompts", "Prompts that one more call may join.", value=prompts)
        yield GaugeMetricFamily("quotad_request_ids", "Request ids that are remembered.", value=request_ids)

    def _catalogs(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "quotad_catalog_info", "Catalogs that decide, by name and version; always 1.", labels=["name", "version"]
        )
        loaded = GaugeMetricFamily(
            "quotad_catalog_loaded_timestamp_seconds", "Unix time at which the catalog was loaded.", labels=["name"]
        )
        for catalog in self._engine.catalogs():
            info.add_metric([catalog.name, catalog.version], 1)
            loaded.add_metric([catalog.name], catalog.loaded_at_ms / 1000)
        yield info
        yield loaded


def build_registry(engine: Engine, clock: Clock, store: Store | None) -> CollectorRegistry:
    """Make a registry of its own for one server, so that several can live in one process."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge beside every histogram, which nobody asks for
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine, clock))
    registry.register(StoreCollector(store))
    ProcessCollector(registry=registry)
    return registry
