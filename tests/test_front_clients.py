"""The native front asked by Python's gRPC clients: grpcio, blocking and asyncio, and grpclib, which shares no code with it.

Those of other languages are asked by `make test-front`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import Running
from google.protobuf.message import Message
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from held_up import held_up

from quota.client import admit_request
from quota.v1 import quota_pb2

Serve = Callable[..., Running]
SERVICE = "/quota.v1.QuotaService/"
WAITING = "quotad_front_answers_waiting"
RESET = "quotad_front_calls_reset_total"
ASK = admit_request("demo-max", model="glm-4.7", tool="cline")
DEADLINE_EXCEEDED = 4
UNIMPLEMENTED = 12


class Failed(Exception):
    """How a call ended that had no answer: gRPC's number and text."""

    def __init__(self, status: int, text: str | None) -> None:
        super().__init__(f"{status} {text}")
        self.status, self.text = status, text


class Grpcio:
    """grpcio's asyncio client."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)

    async def close(self) -> None:
        await self.channel.close()

    async def call(self, method: str, request: Message, **more: Any) -> Message:
        answer = quota_pb2.Usage if method == "GetUsage" else quota_pb2.AdmitResponse
        multi = self.channel.unary_unary(SERVICE + method, type(request).SerializeToString, answer.FromString)
        try:
            return await multi(request, **more)
        except grpc.aio.AioRpcError as error:
            raise Failed(error.code().value[0], error.details()) from error


class BlockingGrpcio(Grpcio):
    """grpcio's client for threads, its futures awaited."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    async def close(self) -> None:
        self.channel.close()

    async def call(self, method: str, request: Message, **more: Any) -> Message:
        answer = quota_pb2.Usage if method == "GetUsage" else quota_pb2.AdmitResponse
        multi = self.channel.unary_unary(SERVICE + method, type(request).SerializeToString, answer.FromString)
        future = multi.future(request, **more)
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
        try:
            await done.wait()
        except asyncio.CancelledError:
            future.cancel()
            raise
        try:
            return future.result()
        except grpc.RpcError as error:
            raise Failed(error.code().value[0], error.details()) from error


class Grpclib:
    """grpclib, on h2."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.channel = Channel(host, int(port))

    async def close(self) -> None:
        self.channel.close()

    async def call(self, method: str, request: Message, **more: Any) -> Message:
        answer = quota_pb2.Usage if method == "GetUsage" else quota_pb2.AdmitResponse
        try:
            return await UnaryUnaryMethod(self.channel, SERVICE + method, type(request), answer)(request, **more)
        except GRPCError as error:
            raise Failed(error.status.value, error.message) from error
        except TimeoutError as error:
            raise Failed(Status.DEADLINE_EXCEEDED.value, None) from error


Client = Grpcio | Grpclib
CLIENTS = [Grpcio, BlockingGrpcio, Grpclib]
every_client = pytest.mark.parametrize("kind", CLIENTS)


def run(kind: type[Client], running: Running, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    """Have a client of that kind talk to the server."""

    async def whole() -> Any:
        client = kind(running.addresses.data)
        try:
            return await talk(client)
        finally:
            await client.close()

    return asyncio.run(whole())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.01)


@every_client
def test_answers_and_errors(running: Running, kind: type[Client]) -> None:
    """answers, errors with texts of any script, methods that there are not, metadata of all kinds."""

    async def talk(client: Client) -> None:
        metadata = {"x-name": "value", "x-bytes-bin": b"\0\xff"}
        answer = await client.call("Admit", ASK, metadata=tuple(metadata.items()))
        assert quota_pb2.ALLOWED == answer.verdict
        assert (
            1_000_000
            == (await client.call("GetUsage", quota_pb2.GetUsageRequest(account="demo-max"))).limits[0].used_micro
        )
        with pytest.raises(Failed) as raised:
            await client.call("Peek", admit_request("好%\n" * 100))
        assert 3 == raised.value.status
        assert raised.value.text.startswith("account: '好%\\n好%")
        with pytest.raises(Failed) as raised:
            await client.call("Refund", ASK)
        assert (UNIMPLEMENTED, "Method not found!") == (raised.value.status, raised.value.text)

    run(kind, running, talk)


@every_client
def test_deadlines(serve: Serve, tmp_path: Path, kind: type[Client]) -> None:
    """a call whose answer waits for the disk for too long ends with DEADLINE_EXCEEDED; its connection serves on."""
    running = serve(data=str(tmp_path), durability="strict")

    async def talk(client: Client) -> None:
        with held_up(tmp_path):
            with pytest.raises(Failed) as raised:
                await client.call("Admit", ASK, timeout=0.1)
            assert DEADLINE_EXCEEDED == raised.value.status
            assert quota_pb2.ALLOWED == (await client.call("Peek", ASK, timeout=10)).verdict
        assert quota_pb2.ALLOWED == (await client.call("Admit", ASK, timeout=10)).verdict

    run(kind, running, talk)
    running.wait_for("quotad_front_connections", 0)
    assert 1 == running.metric("quotad_front_connections_opened_total")


@every_client
def test_cancellation(serve: Serve, tmp_path: Path, kind: type[Client]) -> None:
    """a call that is given up is forgotten, whatever becomes of its charge; its connection serves on."""
    running = serve(data=str(tmp_path), durability="strict")

    async def talk(client: Client) -> None:
        with held_up(tmp_path):
            task = asyncio.create_task(client.call("Admit", ASK))
            await until(lambda: running.metric(WAITING) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: running.metric(RESET) == 1)
        assert quota_pb2.ALLOWED == (await client.call("Peek", ASK)).verdict

    run(kind, running, talk)
    running.wait_for(WAITING, 0)


@every_client
def test_a_thousand_streams(serve: Serve, tmp_path: Path, kind: type[Client]) -> None:
    """a thousand calls at once on one connection, all of them answered."""
    running = serve(data=str(tmp_path), durability="strict")

    async def talk(client: Client) -> None:
        await client.call("Peek", ASK)
        with held_up(tmp_path):
            tasks = [asyncio.create_task(client.call("Admit", ASK)) for _ in range(1000)]
            await until(lambda: running.metric(WAITING) == 1000)
        assert {quota_pb2.ALLOWED} == {answer.verdict for answer in await asyncio.gather(*tasks)}

    run(kind, running, talk)
    assert 1 == running.metric("quotad_front_connections_opened_total")


@pytest.mark.parametrize("kind", [Grpcio, BlockingGrpcio])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compression(running: Running, kind: type[Client], compression: grpc.Compression) -> None:
    """requests may be compressed; answers are not, which every client takes."""
    request = admit_request("demo-max", model="glm-4.7", tool="cline", client="c" * 256)  # long enough to be compressed

    async def talk(client: Client) -> None:
        assert quota_pb2.ALLOWED == (await client.call("Admit", request, compression=compression)).verdict

    run(kind, running, talk)
    assert 1 == running.data.usage("demo-max").limits[0].used_micro // 1_000_000
