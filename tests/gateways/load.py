"""Load that goes on until it is told to end: threads that ask, ask again after a failure, and note when they were answered."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field

import grpc

from quota.client import admit_request
from quota.v1 import quota_pb2, quota_pb2_grpc

WORKERS = 4
PAUSE_S = 0.002  # some hundred requests a second: the machine is to have time for a new process
RETRY_S = 0.02
# A channel waits ever longer before it tries to connect again: as long as the server takes to start is enough.
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@dataclass
class Answers:
    """What came of it: how often each outcome, and when the good ones came."""

    counts: Counter[str] = field(default_factory=Counter)
    good: list[float] = field(default_factory=list)

    @property
    def gap_ms(self) -> int:
        """The longest time without a good answer."""
        times = sorted(self.good)
        return round(1000 * max(later - sooner for sooner, later in itertools.pairwise(times)))


Ask = Callable[[int, int], str]
Begin = Callable[[], AbstractContextManager[Ask]]


@contextmanager
def load(begin: Begin) -> Iterator[Answers]:
    """Ask from several threads until the block ends. `begin` gives each thread its way of asking, by thread and number."""
    answers = Answers()
    ended = threading.Event()
    begun = threading.Barrier(WORKERS + 1)

    def work(worker: int) -> None:
        with begin() as ask:
            begun.wait(10)
            number = 0
            while not ended.is_set():
                outcome = ask(worker, number)
                if outcome == "good":
                    answers.good.append(time.monotonic())
                answers.counts[outcome] += 1
                number += 1
                time.sleep(PAUSE_S)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)


def by_grpcio(address: str, account: str) -> Begin:
    """Admit with an id, and again with the same id for as long as it is not known whether it was served."""

    @contextmanager
    def begin() -> Iterator[Ask]:
        with grpc.insecure_channel(address, options=CHANNEL) as channel:
            stub = quota_pb2_grpc.QuotaServiceStub(channel)
            yield lambda worker, number: _admit(stub, admit_request(account, request_id=f"{worker}-{number}"))

    return begin


def _admit(stub: quota_pb2_grpc.QuotaServiceStub, request: quota_pb2.AdmitRequest) -> str:
    while True:
        try:
            answer = stub.Admit(request, timeout=1)
        except grpc.RpcError as error:
            if error.code() not in AGAIN:
                return str(error.code())
            time.sleep(RETRY_S)
        else:
            return "good" if answer.verdict == quota_pb2.ALLOWED else quota_pb2.Verdict.Name(answer.verdict)


def by_http(url: str, key: str) -> Begin:
    """Ask a model through the gateway, once each."""
    body = json.dumps({"model": "claude-sonnet", "max_tokens": 100, "messages": []})
    headers = {"x-api-key": key, "content-type": "application/json"}

    @contextmanager
    def begin() -> Iterator[Ask]:
        with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:

            def ask(worker: int, number: int) -> str:
                connection.request("POST", "/v1/messages", body, headers)
                response = connection.getresponse()
                response.read()
                return "good" if response.status == 200 else str(response.status)

            yield ask

    return begin
