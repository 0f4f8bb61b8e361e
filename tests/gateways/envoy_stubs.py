"""Asks a server by the Python stubs that Envoy's protos are published as, and prints each answer as a line of JSON.

For an interpreter that has them: `python envoy_stubs.py HOST:PORT`.
"""

from __future__ import annotations

import json
import sys

import grpc
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceStub
from envoy.type.v3.ratelimit_unit_pb2 import RateLimitUnit
from google.protobuf.json_format import MessageToDict


def descriptor(amount: int, **entries: str) -> RateLimitDescriptor:
    """A descriptor with an amount of its own, and an override that is to be passed over."""
    made = RateLimitDescriptor(
        entries=[RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries.items()],
        limit=RateLimitDescriptor.RateLimitOverride(requests_per_unit=1, unit=RateLimitUnit.HOUR),
    )
    made.hits_addend.value = amount
    return made


def main() -> None:
    account = {"account": "demo-lite", "model": "glm-4.7", "tool": "cline", "path": "/v1/messages"}
    asked = [
        [descriptor(80, **account, meter="prompt"), descriptor(0, **account, meter="web_search")],
        [descriptor(1, **account, meter="prompt"), descriptor(1, **account, meter="web_search")],
    ]
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = RateLimitServiceStub(channel)
        for descriptors in asked:
            answer = stub.ShouldRateLimit(RateLimitRequest(domain="quotad", descriptors=descriptors), timeout=10)
            print(json.dumps(MessageToDict(answer)))


if __name__ == "__main__":
    main()
