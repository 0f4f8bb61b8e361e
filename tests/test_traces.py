"""Spans, as a collector gets them: a real one, with OTLP's own messages, to which a server sends."""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import Running
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from quota.client import admit_request
from quota.errors import FailedPrecondition
from quota.server import rounds
from quota.server.server import Server
from quota.settings import Settings
from quota.v1 import admin_pb2, admin_pb2_grpc, quota_pb2_grpc

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
ASK = admit_request("demo-max", model="glm-4.7", tool="cline")

Serve = Callable[..., Running]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans. `wait_for` some by their name."""

    def __init__(self) -> None:
        self.service = ""
        self.spans: list[trace_pb2.Span] = []
        self._come = threading.Condition()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._come:
            for resource in request.resource_spans:
                named = {it.key: it.value.string_value for it in resource.resource.attributes}
                self.service = named["service.name"]
                self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self._come.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, name: str, count: int = 1) -> list[trace_pb2.Span]:
        """Return the spans of that name, once there are so many."""
        with self._come:
            assert self._come.wait_for(lambda: len(self.named(name)) >= count, 10), [it.name for it in self.spans]
            return self.named(name)

    def named(self, name: str) -> list[trace_pb2.Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setattr(rounds, "LOOK_SECONDS", 0.02)
    yield made
    server.stop(0).wait()


def attributes(span: trace_pb2.Span) -> dict[str, object]:
    return {it.key: it.value.string_value or it.value.int_value for it in span.attributes}


def admit(running: Running, *metadata: tuple[str, str], **ask: str) -> None:
    with grpc.insecure_channel(running.addresses.data) as channel:
        asked = admit_request(**ask) if ask else ASK
        quota_pb2_grpc.QuotaServiceStub(channel).Admit(asked, metadata=metadata, timeout=5)


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_a_call_is_part_of_its_callers_trace(serve: Serve, collector: Collector, front: str) -> None:
    """on either front: its parent, what was called, how it ended, and when, by the wall clock."""
    running = serve(traces=True, front=front)
    began = time.time_ns()
    admit(running, *SAMPLED)
    with pytest.raises(grpc.RpcError):
        admit(running, *SAMPLED, account="demo-max", client="c" * 300)
    ended = time.time_ns()
    good, bad = collector.wait_for("quota.v1.QuotaService/Admit", 2)

    assert "quotad" == collector.service
    for span, status in ((good, 0), (bad, 3)):
        assert (TRACE, PARENT) == (span.trace_id.hex(), span.parent_span_id.hex())
        assert trace_pb2.Span.SPAN_KIND_SERVER == span.kind
        assert (status, "grpc", "quota.v1.QuotaService", "Admit") == tuple(
            attributes(span)[f"rpc.{name}"] for name in ("grpc.status_code", "system", "service", "method")
        )
        assert bool(status) == (trace_pb2.Status.STATUS_CODE_ERROR == span.status.code)
        assert began - 50_000_000 < span.start_time_unix_nano <= span.end_time_unix_nano < ended + 50_000_000
    assert "demo-max" not in str(collector.spans)


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-0a",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"01-{TRACE}-{PARENT}-01",
        "no such thing",
    ],
)
def test_the_native_front_spans_what_its_caller_traces(serve: Serve, collector: Collector, header: str) -> None:
    """and nothing else: neither unsampled ones, nor malformed ones, nor those without a header."""
    running = serve(traces=True)
    admit(running, ("traceparent", header))
    admit(running)
    admit(running, ("traceparent", f"00-{TRACE}-{PARENT}-0b"))

    assert 1 == len(collector.wait_for("quota.v1.QuotaService/Admit"))
    running.server.stop()
    assert 1 == len(collector.named("quota.v1.QuotaService/Admit"))


def test_changes_and_what_they_wait_for(serve: Serve, collector: Collector, tmp_path: Path) -> None:
    """On the control port calls are spanned while they are served; a part of their time is the disk's."""
    running = serve(traces=True, data=str(tmp_path))
    with grpc.insecure_channel(running.addresses.control) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        stub.PutAccount(admin_pb2.PutAccountRequest(account=admin_pb2.Account(id="ada", plan="pro")), metadata=SAMPLED)
        parts = list(stub.DumpAccounts(admin_pb2.DumpAccountsRequest(), metadata=SAMPLED))
    put, dump = (collector.wait_for(f"quota.v1.AdminService/{name}")[0] for name in ("PutAccount", "DumpAccounts"))
    wait = collector.wait_for("store.wait")[0]

    assert parts
    assert {TRACE} == {it.trace_id.hex() for it in (put, dump, wait)}
    assert put.span_id == wait.parent_span_id
    assert put.start_time_unix_nano <= wait.start_time_unix_nano <= wait.end_time_unix_nano <= put.end_time_unix_nano


def test_reloads_are_spanned(serve: Serve, collector: Collector) -> None:
    """each by itself, under no call."""
    serve(traces=True).server.reload()

    assert b"" == collector.wait_for("reload catalogs")[0].parent_span_id


def test_what_is_left_is_sent_at_the_end(serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """No span waits for a round that does not come any more."""
    monkeypatch.setattr(rounds, "LOOK_SECONDS", 1000)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1000000")
    running = serve(traces=True)
    for _ in range(3):
        admit(running, *SAMPLED)
    running.server.stop()

    assert 3 == len(collector.named("quota.v1.QuotaService/Admit"))


def test_a_flood_is_left_out_and_told(
    serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What does not fit until the next round is counted, and every call is answered all the same."""
    monkeypatch.setattr(rounds, "LOOK_SECONDS", 1000)
    running = serve(traces=True)
    with grpc.insecure_channel(running.addresses.data) as channel:
        peek = quota_pb2_grpc.QuotaServiceStub(channel).Peek
        for _ in range(43):
            for call in [peek.future(ASK, metadata=SAMPLED, timeout=10) for _ in range(100)]:
                call.result()
    running.server.stop()

    assert [4300 - 4096] == [it.count for it in caplog.records if it.message == "traced calls left out"]


def test_nothing_is_traced_unless_asked_for(running: Running, collector: Collector) -> None:
    admit(running, *SAMPLED)
    running.server.stop()

    assert [] == collector.spans


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """the setting is refused, saying what to install."""
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith(("opentelemetry", "quota.server.otel")):
            raise ModuleNotFoundError("No module named 'opentelemetry'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(FailedPrecondition, match=r"setting traces: .*`pip install 'quotad\[otel\]'` installs it"):
        Server(Settings(traces=True, ephemeral=True))
