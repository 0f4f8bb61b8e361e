"""What whoever restarts and routes is told: grpc.health.v1 on both ports, /healthz and /readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from conftest import HandTime, Running, get
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quota.errors import StoreError
from quota.server.http import open_http
from quota.server.server import SERVICES, Server
from quota.settings import Settings

Serve = Callable[..., Running]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ("", *(service.full_name for service in SERVICES))


def check(address: str, service: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status


def told(running: Running) -> set[int]:
    """What both ports say of every service."""
    return {check(address, name) for address in (running.addresses.data, running.addresses.control) for name in NAMES}


@contextmanager
def call_on_its_way(running: Running) -> Iterator[None]:
    """A call on the control port that goes on until the end of the block."""
    begun, over = threading.Event(), threading.Event()

    def requests() -> Iterator[bytes]:
        yield b""
        begun.set()
        over.wait(10)

    with grpc.insecure_channel(running.addresses.control) as channel:
        call = channel.stream_unary("/quota.v1.AdminService/ImportAccounts").future(requests(), timeout=10)
        begun.wait(10)
        yield
        over.set()
        call.exception()


def test_while_it_serves(running: Running) -> None:
    """everybody is told so; who asks for a service that there is not, that there is none."""
    assert {SERVING} == told(running)
    assert [(200, "ok\n"), (200, "ready\n")] == [running.get("/healthz"), running.get("/readyz?verbose")]
    assert 404 == running.get("/")[0]
    for address in (running.addresses.data, running.addresses.control):
        with pytest.raises(grpc.RpcError) as raised:
            check(address, "quota.v1.Nobody")
        assert grpc.StatusCode.NOT_FOUND == raised.value.code()


def test_while_it_loads(tmp_path: Path, hand_time: HandTime) -> None:
    """HTTP answers from the beginning: alive, not ready, and nothing measured; then as ever, and no more once it has ended."""
    settings = Settings(port=0, admin_port=0, http_port=0, data=str(tmp_path))
    http = open_http(settings)
    address = f"127.0.0.1:{http.server_port}"
    server = Server(settings, clock=hand_time.clock(), http=http)
    early = [get(address, path) for path in ("/healthz", "/readyz", "/metrics")]
    addresses = server.start()
    late = [get(address, path)[0] for path in ("/healthz", "/readyz")]
    measured = "quotad_build_info{" in get(address, "/metrics")[1]
    server.stop()

    assert [(200, "ok\n"), (503, "loading\n"), (200, "")] == early
    assert (address, [200, 200], True) == (addresses.http, late, measured)
    with pytest.raises(OSError, match="Connection refused"):
        get(address, "/healthz")


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_while_it_drains(serve: Serve, front: str) -> None:
    """those who watch are told at once, and HTTP answers until the last call has ended."""
    running = serve(grace_ms=10_000, front=front)
    with grpc.insecure_channel(running.addresses.control) as channel, call_on_its_way(running):
        watching = {
            name: health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=10)
            for name in NAMES
        }
        before = {next(it).status for it in watching.values()}
        stopping = threading.Thread(target=running.server.stop)
        stopping.start()
        after = {next(it).status for it in watching.values()}
        http = [running.get("/healthz"), running.get("/readyz")]
        for it in watching.values():
            it.cancel()
    stopping.join()

    assert ({SERVING}, {NOT_SERVING}) == (before, after)
    assert [(200, "ok\n"), (503, "draining\n")] == http


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_after_the_store_has_failed(serve: Serve, tmp_path: Path, front: str) -> None:
    """nothing is served any more, and the reason is told; also while it stops for that."""
    running = serve(data=str(tmp_path), front=front, grace_ms=10_000)
    running.server._store.writer._fail(OSError("unplugged"))
    failed = told(running), running.get("/readyz"), running.get("/healthz")
    with call_on_its_way(running):
        stopping = ThreadPoolExecutor(1).submit(running.server.stop)
        while_stopping = running.get("/readyz")
    with pytest.raises(StoreError, match="unplugged"):
        stopping.result()

    reason = "the store has failed and takes nothing any more: unplugged\n"
    assert ({NOT_SERVING}, (503, reason), (200, "ok\n")) == failed
    assert (503, reason) == while_stopping
