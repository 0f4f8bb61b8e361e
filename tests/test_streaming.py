"""Calls that last: what happens to charges and places when callers race, repeat themselves, die, or do not hear the answer."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from conftest import Running

from quota.client import AdminClient, QuotaClient, admit_request
from quota.server.server import Server
from quota.settings import Settings
from quota.v1 import admin_pb2, quota_pb2

DEMO = Path(__file__).parent.parent / "docs/streaming.py"
CALLERS = 64
HOLD_MS = 1000

HOLDER = """
import sys, time
from quota.client import QuotaClient, admit_request

with QuotaClient(sys.argv[1]) as client:
    for number in range(4):
        answer = client.admit(admit_request(
            "ada", model="glm-4.7", tool="cline", request_id=f"doomed-{number}", hold_ms=1000))
        print(answer.verdict, answer.hold_expires_at_ms, flush=True)
    time.sleep(60)
"""


def ask(account: str = "demo-lite", **fields: object) -> quota_pb2.AdmitRequest:
    return admit_request(account, **{"model": "glm-4.7", "tool": "cline", **fields})


def put(admin: AdminClient, **overrides: int) -> None:
    """Put the account ada on lite, with limits of its own."""
    own = [admin_pb2.Override(limit_id=id.replace("_", "-"), limit=limit) for id, limit in overrides.items()]
    admin.put_account(admin_pb2.Account(id="ada", plan="lite", overrides=own))


def used(client: QuotaClient, account: str = "demo-lite") -> dict[str, int]:
    """What counts against each limit now, in units."""
    return {limit.id: limit.used_micro // 1_000_000 for limit in client.usage(account).limits}


@pytest.fixture
def live() -> Iterator[tuple[str, str]]:
    """A server that runs by the real clock: its data port and its control port."""
    server = Server(Settings(ephemeral=True, port=0, admin_port=0, http_port=0, demo=True, grace_ms=100))
    addresses = server.start()
    yield addresses.data, addresses.control
    server.stop()


# ---- The documented program ------------------------------------------------------------------------------------------


def test_the_documented_program_does_what_the_page_says(live: tuple[str, str]) -> None:
    """one call outlives its hold by renewing, one is cancelled, one is settled by what it got to use."""
    result = subprocess.run(
        [sys.executable, str(DEMO), live[0]], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (result.returncode, result.stderr)
    assert [
        "a call of two hold times",
        "  Four",
        "  tokens",
        "  and",
        "  more",
        "  .",
        "  COMMIT, in time: mcp +2",
        "one that fails before its first token",
        "  the model failed: reset by peer",
        "  CANCEL, in time: prompts -1",
        "one that fails in the middle",
        "  Only",
        "  the model failed: reset by peer",
        "  COMMIT, in time: as charged",
        "0 in flight; used: prompts-5h 2, prompts-week 2, mcp-month 2",
    ] == result.stdout.splitlines()


# ---- Many at once ----------------------------------------------------------------------------------------------------


class Caller:
    """One of many that admit, hold and settle at once until the limit is used up. The numbers are shared."""

    lock = threading.Lock()

    def __init__(self, running: Running, number: int, counts: dict[str, int]) -> None:
        self.running = running
        self.number = number
        self.counts = counts
        self.random = random.Random(number)

    def run(self) -> None:
        for turn in range(1000):
            request_id = f"{self.number}-{turn}"
            verdict = self.running.data.admit(ask("ada", request_id=request_id, hold_ms=600_000)).verdict
            if verdict == quota_pb2.LIMIT_EXHAUSTED:
                return
            if verdict == quota_pb2.CONCURRENCY:
                time.sleep(self.random.uniform(0.001, 0.02))
                continue
            assert verdict == quota_pb2.ALLOWED
            self.count(in_flight=1)
            time.sleep(self.random.uniform(0, 0.01))
            committed = self.random.random() < 0.8
            self.count(in_flight=-1, committed=int(committed))
            outcome = quota_pb2.COMMIT if committed else quota_pb2.CANCEL
            self.running.data.settle("ada", request_id, outcome)

    def count(self, in_flight: int, committed: int = 0) -> None:
        """Count a call from before it could end to after it had begun, so never more than there were."""
        with self.lock:
            self.counts["in_flight"] += in_flight
            self.counts["committed"] += committed
            self.counts["most"] = max(self.counts["most"], self.counts["in_flight"])


def test_callers_at_once_never_get_more_than_there_is(running: Running) -> None:
    """64 callers that admit and settle: never more in flight than places, never more charged than the limit."""
    put(running.admin, prompts_5h=150, calls=12)
    counts = {"in_flight": 0, "committed": 0, "most": 0}
    seen = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            usage = running.data.usage("ada")
            seen.append((usage.concurrency[0].in_flight, len(usage.holds), usage.limits[0].used_micro))

    with ThreadPoolExecutor(CALLERS + 1) as pool:
        watching = pool.submit(watch)
        list(pool.map(lambda number: Caller(running, number, counts).run(), range(CALLERS)))
        ended.set()
        watching.result()

    assert 1 < counts["most"] <= 12
    assert all(in_flight == holds <= 12 for in_flight, holds, _ in seen)
    assert all(used_micro <= 150_000_000 for _, _, used_micro in seen)
    assert counts["committed"] == used(running.data, "ada")["prompts-5h"] <= 150
    assert not running.data.usage("ada").holds


def test_places_are_counted_exactly(running: Running) -> None:
    """64 callers that hold at once get as many places as there are, and the others CONCURRENCY."""
    put(running.admin, calls=12)
    with ThreadPoolExecutor(CALLERS) as pool:
        verdicts = list(
            pool.map(
                lambda number: running.data.admit(ask("ada", request_id=f"{number}", hold_ms=60_000)).verdict,
                range(CALLERS),
            )
        )

    assert 12 == verdicts.count(quota_pb2.ALLOWED) == running.data.usage("ada").concurrency[0].in_flight
    assert CALLERS - 12 == verdicts.count(quota_pb2.CONCURRENCY)
    assert 12 == used(running.data, "ada")["prompts-5h"]


# ---- The same again --------------------------------------------------------------------------------------------------


def test_every_request_three_times_in_any_order_is_charged_once(running: Running) -> None:
    """100 ids for 80 prompts, each sent three times from 16 threads: 80 of them are allowed, each three times alike."""
    ids = [f"request-{number}" for number in range(100)] * 3
    random.Random(4).shuffle(ids)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda id: running.data.admit(ask(request_id=id)), ids))
    allowed: dict[str, list[quota_pb2.AdmitResponse]] = {}
    for id, answer in zip(ids, answers, strict=True):
        if answer.verdict == quota_pb2.ALLOWED:
            allowed.setdefault(id, []).append(answer)

    assert 80 == len(allowed) == used(running.data)["prompts-5h"]
    assert all(first == second == third for first, second, third in allowed.values())
    assert {quota_pb2.ALLOWED, quota_pb2.LIMIT_EXHAUSTED} == {answer.verdict for answer in answers}


def test_every_settlement_three_times_in_any_order_moves_once(running: Running) -> None:
    """20 requests settled for 3 prompts each, three times from 16 threads: 60 prompts, and the same answer each time."""
    ids = [f"request-{number}" for number in range(20)]
    for id in ids:
        running.data.admit(ask(request_id=id))
    draws = [quota_pb2.Draw(meter="prompt", amount=3)]
    order = ids * 3
    random.Random(4).shuffle(order)
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda id: running.data.settle("demo-lite", id, quota_pb2.COMMIT, draws), order),
        )

    assert 60 == used(running.data)["prompts-5h"]
    assert {(("prompts", 2_000_000),)} == {
        tuple((charge.pool, charge.micro) for charge in answer.charged) for answer in answers
    }


# ---- Clients that die, answers that are lost -------------------------------------------------------------------------


def test_places_of_a_killed_client_come_back(live: tuple[str, str]) -> None:
    """kill -9 with all places taken: they are free again within the hold time and a second."""
    with AdminClient(live[1]) as admin, QuotaClient(live[0]) as client:
        put(admin, calls=4)
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, live[0]], stdout=subprocess.PIPE, text=True)
        with holder:
            admitted = [holder.stdout.readline().split() for _ in range(4)]
            full = client.admit(ask("ada", request_id="full", hold_ms=HOLD_MS))
            holder.send_signal(signal.SIGKILL)
            killed_at = time.monotonic()
        number = 0
        while client.admit(ask("ada", request_id=f"next-{number}", hold_ms=HOLD_MS)).verdict != quota_pb2.ALLOWED:
            number += 1
            time.sleep(0.01)
        waited_ms = (time.monotonic() - killed_at) * 1000
        usage = client.usage("ada")

    assert [str(quota_pb2.ALLOWED)] * 4 == [verdict for verdict, _ in admitted]
    assert (quota_pb2.CONCURRENCY, "calls") == (full.verdict, full.rule)
    assert waited_ms <= HOLD_MS + 1000
    assert usage.holds[-1].admitted_at_ms >= int(admitted[0][1]) - 1
    assert 5 == usage.limits[0].used_micro // 1_000_000


@contextlib.contextmanager
def one_way(address: str) -> Iterator[tuple[str, threading.Event]]:
    """A way to a server on which every answer is lost once the event is set."""
    losing = threading.Event()
    host, _, port = address.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not lost.is_set():
                    sink.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection((host, int(port)))
                connections.extend((near, far))
                for way in ((near, far, threading.Event()), (far, near, losing)):
                    threading.Thread(target=pump, args=way, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", losing
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in (listener, *connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def test_a_lost_answer_is_found_by_its_id(running: Running) -> None:
    """Admit, Renew and Settle whose answers are lost have happened; sent again they answer, and happen no second time."""
    request = ask(request_id="r1", hold_ms=60_000, draws={"prompt": 2})
    draws = [quota_pb2.Draw(meter="prompt", amount=5)]
    with one_way(running.addresses.data) as (address, losing), QuotaClient(address, timeout_s=0.3) as deaf:
        deaf.peek(request)
        losing.set()
        lost = []
        for call in (
            lambda: deaf.admit(request),
            lambda: deaf.renew("demo-lite", "r1", 120_000),
            lambda: deaf.settle("demo-lite", "r1", quota_pb2.COMMIT, draws),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                call()
            lost.append(
                (raised.value.code(), used(running.data)["prompts-5h"], len(running.data.usage("demo-lite").holds))
            )
    again = running.data.admit(request)
    settled = running.data.settle("demo-lite", "r1", quota_pb2.COMMIT, draws)

    deadline = grpc.StatusCode.DEADLINE_EXCEEDED
    assert [(deadline, 2, 1), (deadline, 2, 1), (deadline, 5, 0)] == lost
    assert (quota_pb2.ALLOWED, 2_000_000) == (again.verdict, again.charged[0].micro)
    assert running.time.now_ms + 120_000 == again.hold_expires_at_ms
    assert (3_000_000, False) == (settled.charged[0].micro, settled.late)
    assert 5 == used(running.data)["prompts-5h"]


def test_impatient_callers_are_charged_once(running: Running) -> None:
    """60 requests with deadlines too short to tell, each repeated until an answer comes: 60 prompts."""

    def insist(number: int) -> int:
        dice = random.Random(number)
        while True:
            client = QuotaClient(running.addresses.data, timeout_s=dice.uniform(0.0001, 0.02))
            with client, contextlib.suppress(grpc.RpcError):
                return client.admit(ask(request_id=f"request-{number}")).verdict

    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(insist, range(60)))

    assert [quota_pb2.ALLOWED] * 60 == verdicts
    assert 60 == used(running.data)["prompts-5h"]
