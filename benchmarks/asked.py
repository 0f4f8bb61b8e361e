"""What front.py sends: files of request messages for the generator, ours and the rivals', of like size.

The accounts of a population are asked for in the same random order everywhere. Rivals' messages are put together by hand, field by
field: two strings and three numbers do not need their protos here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from quota.client import admit_request
from quota.v1 import quota_pb2

ACCOUNTS = 10_000  # of each population
ORDER = 50_000  # messages in a file; after the last comes the first again
ID_DIGITS = 16  # of a request id, which is a number of the generator's
# Whose names begin so -> their plan. Those that ask with ids are apart: accounts that remember 256 ids each are slower from then on.
POPULATIONS = {"one": "one", "five": "five", "five-id": "five"}
BATCHES = (10, 100, 1000)
BATCH_BYTES = 1_500_000  # of a file of batches, about
RIVAL_LIMIT = 1_000_000_000
RIVAL_LIMIT_MS = 18_000_000


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request. `expect` is how an answer that allows begins, for the generator's --expect."""

    name: str
    path: str
    expect: str
    messages: Callable[[], Iterable[bytes]]
    digits: int = 0  # the last bytes of a message, that are its number
    items: int = 1  # decisions in a message

    def write(self, file: Path) -> None:
        """Write what the generator reads: each message behind its length."""
        with file.open("wb") as out:
            for message in self.messages():
                out.write(len(message).to_bytes(4, "big") + message)


def account_id(population: str, i: int) -> str:
    return f"{population}.account.{i:05d}"


def asks() -> dict[str, Ask]:
    """Every kind by name."""
    admit, admit_batch = "/quota.v1.QuotaService/Admit", "/quota.v1.QuotaService/AdmitBatch"
    envoy = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    gubernator = "/pb.gubernator.V1/GetRateLimits"
    found = [Ask(name, admit, "0801", partial(admits, name)) for name in ("one", "five")]
    found.append(Ask("five, id", admit, "0801", partial(admits, "five-id", "0" * ID_DIGITS), digits=ID_DIGITS))
    found += [Ask(f"batch {size}", admit_batch, "0a..0a..0801", partial(batches, size), items=size) for size in BATCHES]
    found += [Ask("descriptor", envoy, "0801", descriptors), Ask("rate limit", gubernator, "0a..10", rate_limits)]
    return {ask.name: ask for ask in found}


# ---- Ours ----


def order(population: str) -> list[str]:
    return [account_id(population, i) for i in random.Random(1).choices(range(ACCOUNTS), k=ORDER)]


def admits(population: str, request_id: str = "") -> Iterable[bytes]:
    for account in order(population):
        yield admit_request(account, model="large", tool="bench", request_id=request_id).SerializeToString()


def batches(size: int) -> Iterable[bytes]:
    accounts = order("five")
    requests = [admit_request(account, model="large", tool="bench") for account in accounts]
    count = max(1, BATCH_BYTES // (size * (requests[0].ByteSize() + 2)))
    for begin in range(0, count * size, size):
        items = (requests[(begin + i) % len(requests)] for i in range(size))
        yield quota_pb2.AdmitBatchRequest(requests=items).SerializeToString()


# ---- Rivals' ----


def text(number: int, value: bytes) -> bytes:
    """A field of bytes, shorter than 128."""
    return bytes((number << 3 | 2, len(value))) + value


def whole(number: int, value: int) -> bytes:
    """A field of a number."""
    digits = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes((number << 3, *(digit | 128 for digit in digits[:-1]), digits[-1]))


def descriptors() -> Iterable[bytes]:
    """Envoy's RateLimitRequest, which limitador and ratelimit serve."""
    for account in order("one"):
        entry = text(1, b"account") + text(2, account.encode())
        yield text(1, b"bench") + text(2, text(1, entry))


def rate_limits() -> Iterable[bytes]:
    """Gubernator's GetRateLimitsReq, which brings the limit along."""
    for account in order("one"):
        limit = whole(3, 1) + whole(4, RIVAL_LIMIT) + whole(5, RIVAL_LIMIT_MS)
        yield text(1, text(1, b"bench") + text(2, account.encode()) + limit)
