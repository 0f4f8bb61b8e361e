"""Traces sent by OpenTelemetry. Where they go, how many are kept and what the service is called say its own variables, OTEL_*."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from quota.server.status import STATUS, status_number
from quota.server.traces import Metadata, NativeCall
from quota.version import VERSION

PARENT: Final = ("traceparent", "tracestate")
UNKNOWN: Final = 2  # of gRPC's statuses, that of a bug


class OpenTelemetry:
    """Sends spans over OTLP/gRPC, from a thread of the library's own; what it cannot get rid of it drops."""

    def __init__(self) -> None:
        own = {"service.version": VERSION}
        if "OTEL_SERVICE_NAME" not in os.environ:
            own["service.name"] = "quotad"
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("quota", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def call(self, path: str, metadata: Metadata) -> Iterator[None]:
        carrier = {name: value for name, value in metadata if name in PARENT and isinstance(value, str)}
        with self._tracer.start_as_current_span(
            path[1:],
            self._parent(carrier),
            kind=SpanKind.SERVER,
            attributes=_attributes(path),
            record_exception=False,  # its words may name an account
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                _end(span, status_number(error) if type(error) in STATUS else UNKNOWN)
                raise
            _end(span, 0)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if not get_current_span().is_recording():
            yield
            return
        with self._tracer.start_as_current_span(name, record_exception=False):
            yield

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        with self._tracer.start_as_current_span(name, Context(), record_exception=False):
            yield

    def native(self, calls: Iterable[NativeCall]) -> None:
        unix_ns = time.time_ns() - time.monotonic_ns()
        for path, traceparent, status, came_ns, answered_ns in calls:
            parent = self._parent({"traceparent": traceparent})
            if not path or not get_current_span(parent).get_span_context().is_valid:
                continue
            span = self._tracer.start_span(
                path[1:],
                parent,
                kind=SpanKind.SERVER,
                attributes=_attributes(path),
                start_time=came_ns + unix_ns,
            )
            _end(span, status)
            span.end(answered_ns + unix_ns)

    def close(self) -> None:
        self._provider.shutdown()

    def _parent(self, carrier: dict[str, str]) -> Context:
        return self._propagator.extract(carrier, Context())


def _attributes(path: str) -> dict[str, str]:
    _, service, method = path.split("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def _end(span: Span, status: int) -> None:
    span.set_attribute("rpc.grpc.status_code", status)
    if status:
        span.set_status(StatusCode.ERROR)
