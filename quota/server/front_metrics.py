"""What the fronts are asked and how long it takes: metrics of calls, connections and bytes.

Calls that Python serves are observed as they end. The native front counts for itself, and is read when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import grpc
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from quota.server.native import NativeFront

STATUS_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
RPC_SECONDS_BUCKETS: Final = (
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0,
)  # fmt: skip
DECISION_SECONDS_BUCKETS: Final = (
    100e-9, 250e-9, 500e-9, 1e-6, 1.5e-6, 2e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 2.5e-3, 10e-3,
)  # fmt: skip
"""As core/serving.pxd has them in nanoseconds."""


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
    for path, counts, nanoseconds in front.times():
        labels = {"method": method_label(path)}
        buckets = _buckets(RPC_SECONDS_BUCKETS, counts)
        for bound, count in buckets:
            metric.add_sample("quotad_rpc_seconds_bucket", {**labels, "le": bound}, count)
        metric.add_sample("quotad_rpc_seconds_count", labels, buckets[-1][1])
        metric.add_sample("quotad_rpc_seconds_sum", labels, nanoseconds / 1e9)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Return each upper bound, and how many are at or below it."""
    return list(zip([*map(repr, bounds), "+Inf"], accumulate(counts), strict=True))


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
    counts, nanoseconds = front.decision_times()
    yield HistogramMetricFamily(
        "quotad_decision_seconds",
        "Time of a decision of Admit, from message to answer: of one group in about 1,024 decisions, the mean.",
        buckets=_buckets(DECISION_SECONDS_BUCKETS, counts),
        sum_value=nanoseconds / 1e9,
    )
    ended = CounterMetricFamily(
        "quotad_front_connections_ended",
        "Connections that the front ended, by reason: handshake, stalled, silent, grace, idle, age.",
        labels=["reason"],
    )
    for reason, count in front.ended().items():
        ended.add_metric([reason], count)
    yield ended
    yield from _native_figures(front.figures())


def _native_figures(figures: dict[str, int]) -> Iterator[Metric]:
    for name, meaning in (
        ("connections", "Connections that are open."),
        ("connections_max", "Connections that may be open; more are closed at once."),
        ("streams", "Calls that have begun and not ended, over all connections."),
        ("answers_waiting", "Answers that wait for the disk."),
        ("calls_handed", "Calls that the front has handed to Python."),
    ):
        yield GaugeMetricFamily(f"quotad_front_{name}", meaning, value=figures[name])
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
