"""How the native front lets go of its clients: at a stop, of old connections, and so that no call is lost."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from abused import Abused
from conftest import Running
from grpc_health.v1 import health_pb2
from http2_peer import Peer, framed

from quota.client import QuotaClient, admit_request
from quota.v1 import quota_pb2, quota_pb2_grpc

Serve = Callable[..., Running]
ASK = framed(admit_request("demo-max", model="glm-4.7", tool="cline").SerializeToString())
HEALTH = "/grpc.health.v1.Health/Check"
NEVER_LAST = 2**31 - 1  # the stream that the first GOAWAY names
CALLERS = 6


def health(peer: Peer) -> int:
    return health_pb2.HealthCheckResponse.FromString(peer.ask(framed(b""), HEALTH).message).status


def stopping(running: Running) -> threading.Thread:
    thread = threading.Thread(target=running.server.stop)
    thread.start()
    return thread


def test_two_steps(serve: Serve) -> None:
    """first no new streams are asked for, and those that come all the same are served; then what was begun is ended."""
    running = serve(grace_ms=5000)
    statuses = health_pb2.HealthCheckResponse
    with Peer(running.addresses.data) as peer:
        assert statuses.SERVING == health(peer)
        begun = peer.begin()
        peer.say(begun, ASK[:9], end=False)
        thread = stopping(running)
        assert peer.read_until(lambda: bool(peer.goaways))
        assert [(0, NEVER_LAST)] == peer.goaways
        assert (statuses.NOT_SERVING, 0) == (health(peer), peer.ask(ASK).status)
        last = max(peer.replies)
        assert peer.read_until(lambda: len(peer.goaways) == 2)
        late = peer.begin()
        peer.say(late, ASK)
        peer.say(begun, ASK[9:])
        assert 0 == peer.reply(begun).status
        assert peer.read_to_end()
        thread.join()

    assert [(0, NEVER_LAST), (0, last)] == peer.goaways
    assert not peer.replies[late].headers


def test_nobody_new_is_let_in(serve: Serve) -> None:
    """from the first step on connections are refused, not left waiting."""
    running = serve(grace_ms=5000)
    host, _, port = running.addresses.data.rpartition(":")
    with Peer(running.addresses.data) as peer:
        assert health(peer)  # the connection has been accepted, and does not wait to be
        begun = peer.begin()
        thread = stopping(running)
        assert peer.read_until(lambda: bool(peer.goaways))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)
        peer.say(begun, ASK)
        assert 0 == peer.reply(begun).status
        thread.join()


def test_the_grace_is_over(serve: Serve) -> None:
    """what has not ended by then is cut off."""
    running = serve(grace_ms=300)
    with Peer(running.addresses.data) as peer:
        begun = peer.begin()
        peer.say(begun, ASK[:9], end=False)
        assert 0 == peer.ask(ASK).status
        began = time.monotonic()
        stopping(running).join()
        taken = time.monotonic() - began
        assert peer.read_to_end()

    assert not peer.replies[begun].headers
    assert 0.3 < taken < 2


def test_old_connections(serve: Serve) -> None:
    """at connection_age_ms_max a connection is asked to go; a client of grpcio notices nothing, but comes again."""
    running = serve(connection_age_ms_max=200, grace_ms=2000)
    until = time.monotonic() + 1.2
    calls = 0
    while time.monotonic() < until:
        running.data.peek(admit_request("demo-max", model="glm-4.7", tool="cline"))
        calls += 1

    assert calls > 100
    assert 4 <= running.metric("quotad_front_connections_opened_total") <= 10


class Callers:
    """Threads that charge through one channel to two servers, as fast as they are answered."""

    def __init__(self, addresses: list[str]) -> None:
        options = (("grpc.lb_policy_name", "round_robin"),)
        self.channel = grpc.insecure_channel("ipv4:" + ",".join(addresses), options)
        self.outcomes: Counter[str] = Counter()
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.call) for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def call(self) -> None:
        stub = quota_pb2_grpc.QuotaServiceStub(self.channel)
        request = admit_request("demo-max", model="glm-4.7", tool="cline", mode=quota_pb2.RECORD)
        outcomes: Counter[str] = Counter()
        while not self.done.is_set():
            try:
                outcomes[quota_pb2.Verdict.Name(stub.Admit(request, timeout=10).verdict)] += 1
            except grpc.RpcError as error:
                outcomes[f"{error.code()} {error.details()}"] += 1
        self.outcomes.update(outcomes)

    def end(self) -> int:
        """Let the calls that run end; the number of those that were allowed. Any other outcome is a failure."""
        self.done.set()
        for thread in self.threads:
            thread.join()
        self.channel.close()
        assert {"ALLOWED"} == set(self.outcomes)
        return self.outcomes["ALLOWED"]


def used(address: str) -> int:
    with QuotaClient(address) as client:
        return client.usage("demo-max").limits[0].used_micro // 1_000_000


@pytest.mark.parametrize("durability", ["strict", "interval:50ms"])
def test_sigterm_under_load(serve: Serve, tmp_path: Path, durability: str) -> None:
    """one of two servers is stopped: no call fails, none is charged twice, and its store has every charge that was answered."""
    with (
        Abused(data=tmp_path / "a", durability=durability) as first,
        Abused(data=tmp_path / "b", durability=durability) as second,
    ):
        callers = Callers([first.data, second.data])
        time.sleep(0.5)
        first.process.send_signal(signal.SIGTERM)
        assert 0 == first.process.wait(10)
        time.sleep(0.2)
        allowed, here = callers.end(), used(second.data)
        assert not [line for line in first.process.stderr if " level=info " not in line]
    restarted = serve(data=str(tmp_path / "a"), accept_clock=True)

    there = used(restarted.addresses.data)
    assert allowed == here + there
    assert min(here, there) > 50
