"""A streaming call from its admission to its settlement, as a gateway makes it.

    make serve                                  # in one shell
    .venv/bin/python docs/streaming.py          # in another; HOST:PORT if the data port is not at 127.0.0.1:50051

docs/streaming.md explains each step. A gateway in another language does the same with stubs generated from proto/.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc

from quota.v1 import quota_pb2, quota_pb2_grpc

HOLD_MS = 1200  # so short to show that it is renewed; 60 s suit a gateway
DEADLINE_S = 0.5
ATTEMPTS = 6
UNANSWERED = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

Message = TypeVar("Message")
Answer = TypeVar("Answer")


def send(method: Callable[..., Answer], message: Message) -> Answer:
    """Send until an answer comes. The message stays the same, so its request_id makes one call of all copies."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return method(message, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if error.code() not in UNANSWERED or attempt == ATTEMPTS:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def held(quota: quota_pb2_grpc.QuotaServiceStub, request: quota_pb2.AdmitRequest) -> Iterator[None]:
    """Keep the request's place while the block runs: renewed at each third of the hold, so that one may get lost."""
    third_s = request.hold_ms / 3000
    done = threading.Event()

    def renew() -> None:
        message = quota_pb2.RenewRequest(
            account=request.account, request_id=request.request_id, hold_ms=request.hold_ms
        )
        while not done.wait(third_s):
            try:
                quota.Renew(message, timeout=third_s / 2)
            except grpc.RpcError as error:
                if error.code() not in UNANSWERED:
                    return  # the hold has ended; the call goes on, and Settle will say that it was late

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()


def serve(quota: quota_pb2_grpc.QuotaServiceStub, account: str, tokens: Iterator[tuple[str, int]]) -> None:
    """Serve one call. `tokens` are what the model sends: a text, and the web searches it has made so far."""
    request = quota_pb2.AdmitRequest(
        account=account, model="glm-4.7", tool="cline", request_id=str(uuid.uuid4()), hold_ms=HOLD_MS
    )
    admitted = send(quota.Admit, request)
    if admitted.verdict != quota_pb2.ALLOWED:
        print(f"  refused: {admitted.vendor.http_status} {admitted.vendor.code} {admitted.vendor.message}")
        return
    settlement = quota_pb2.SettleRequest(account=account, request_id=request.request_id, outcome=quota_pb2.CANCEL)
    try:
        with held(quota, request):
            for text, searches in tokens:
                print(f"  {text}", flush=True)
                # From the first token on the subscriber has got something, and pays for what was really used.
                settlement.outcome = quota_pb2.COMMIT
                del settlement.draws[:]
                settlement.draws.add(meter="prompt", amount=1)
                settlement.draws.add(meter="web_search", amount=searches)
    except ConnectionError as error:
        print(f"  the model failed: {error}")
    finally:
        settled = send(quota.Settle, settlement)
    moved = [f"{charge.pool} {charge.micro / 1e6:+g}" for charge in settled.charged]
    moved += [f"{charge.pool} {-charge.micro / 1e6:+g}" for charge in settled.refunded]
    ended = quota_pb2.Outcome.Name(settlement.outcome)
    print(f"  {ended}, {'late' if settled.late else 'in time'}: {', '.join(moved) or 'as charged'}")


def model(answer: list[str], *, fails_at: int = -1) -> Iterator[tuple[str, int]]:
    """Stand for a model that takes its time, searches the web every other token, and may fail."""
    for number, text in enumerate(answer):
        time.sleep(0.5)
        if number == fails_at:
            raise ConnectionError("reset by peer")
        yield text, number // 2


def main(address: str = "127.0.0.1:50051", account: str = "demo-pro") -> None:
    with grpc.insecure_channel(address) as channel:
        quota = quota_pb2_grpc.QuotaServiceStub(channel)
        print("a call of two hold times")
        serve(quota, account, model(["Four", "tokens", "and", "more", "."]))
        print("one that fails before its first token")
        serve(quota, account, model(["Never", "seen"], fails_at=0))
        print("one that fails in the middle")
        serve(quota, account, model(["Only", "this"], fails_at=1))
        usage = quota.GetUsage(quota_pb2.GetUsageRequest(account=account), timeout=DEADLINE_S)
        used = ", ".join(f"{limit.id} {limit.used_micro / 1e6:g}" for limit in usage.limits)
        print(f"{len(usage.holds)} in flight; used: {used}")


if __name__ == "__main__":
    main(*sys.argv[1:])
