"""The native front asked by grpc-js, grpc-go, h2load and curl. `make test-front` has them there, and runs this.

$FRONT is the directory where they were built. Nothing is skipped: what is missing fails.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Running
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from held_up import held_up
from http2_peer import framed

from quota.client import admit_request
from quota.v1 import quota_pb2

Serve = Callable[..., Running]
HERE = Path(__file__).parent
BUILT = Path(os.environ["FRONT"])
CLIENTS = {"grpc-js": ("node", str(HERE / "node/client.js")), "grpc-go": (str(BUILT / "go-client"),)}
SECONDS_MAX = 60
ASK = admit_request("demo-max", model="glm-4.7", tool="cline")
WAITING = "quotad_front_answers_waiting"
GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")
CALLS = 200_000


@pytest.fixture(params=CLIENTS)
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Running, str], subprocess.Popen[str]]:
    """Start a client with a scenario of its own."""
    descriptor = FileDescriptorProto()
    quota_pb2.DESCRIPTOR.CopyToProto(descriptor)
    descriptors = tmp_path / "descriptors"
    descriptors.write_bytes(FileDescriptorSet(file=[descriptor]).SerializeToString())
    environment = {**os.environ, "DESCRIPTORS": str(descriptors), "NODE_PATH": str(BUILT / "node/node_modules")}

    def start(running: Running, scenario: str) -> subprocess.Popen[str]:
        command = (*CLIENTS[request.param], running.addresses.data, scenario)
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    return start


Begin = Callable[[Running, str], "subprocess.Popen[str]"]


def end(client: subprocess.Popen[str]) -> None:
    output, _ = client.communicate(timeout=SECONDS_MAX)
    assert (0, "") == (client.returncode, output)


def statuses(running: Running, method: str) -> dict[str, int]:
    """How often each status was answered."""
    found = re.findall(
        rf'quotad_front_calls_total{{method="{method}",status="(\w+)"}} (\S+)', running.get("/metrics")[1]
    )
    return {status: int(float(count)) for status, count in found}


@pytest.mark.parametrize("scenario", ["answers", "compression"])
def test_answers(serve: Serve, begin: Begin, scenario: str) -> None:
    """answers, errors, metadata, compressed requests."""
    end(begin(serve(), scenario))


@pytest.mark.parametrize("scenario", ["deadline", "cancellation"])
def test_given_up(serve: Serve, begin: Begin, scenario: str, tmp_path: Path) -> None:
    """a call whose answer waits for the disk is given up by its deadline or its caller; the connection serves on."""
    running = serve(data=str(tmp_path / "store"), durability="strict")
    with held_up(tmp_path / "store"):
        end(begin(running, scenario))
    running.wait_for(WAITING, 0)

    assert 1 == running.metric("quotad_front_connections_opened_total")


def test_a_thousand_streams(serve: Serve, begin: Begin, tmp_path: Path) -> None:
    """a thousand calls at once on one connection."""
    running = serve(data=str(tmp_path / "store"), durability="strict")
    with held_up(tmp_path / "store"):
        client = begin(running, "thousand")
        running.wait_for(WAITING, 1000)
    end(client)

    assert 1 == running.metric("quotad_front_connections_opened_total")
    assert {"OK": 1000} == statuses(running, "QuotaService/Admit")


def test_old_connections(serve: Serve, begin: Begin) -> None:
    """a client is asked to go four times in a second, and loses no call."""
    running = serve(connection_age_ms_max=200, grace_ms=2000)
    end(begin(running, "age"))

    assert running.metric("quotad_front_connections_opened_total") >= 4
    assert {"OK"} == set(statuses(running, "QuotaService/Admit"))


@pytest.mark.parametrize(("connections", "streams"), [(1, 1), (8, 4), (16, 100)])
def test_h2load(running: Running, tmp_path: Path, connections: int, streams: int) -> None:
    """as fast as it can, every call with status OK by the server's own count: h2load takes an error for a success."""
    body = tmp_path / "body"
    body.write_bytes(framed(ASK.SerializeToString()))
    calls = CALLS if connections > 1 else CALLS // 10
    command = ("h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams), "-d", str(body), *GRPC)
    url = f"http://{running.addresses.data}/quota.v1.QuotaService/Peek"
    done = subprocess.run([*command, url], text=True, capture_output=True, timeout=SECONDS_MAX, check=True)

    assert f"{calls} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert {"OK": calls} == statuses(running, "QuotaService/Peek")
    assert connections == running.metric("quotad_front_connections_opened_total")


def curl(running: Running, *words: str, path: str = "/quota.v1.QuotaService/Peek") -> bytes:
    command = ("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "10", *words)
    return subprocess.run([*command, f"http://{running.addresses.data}{path}"], capture_output=True, check=True).stdout


def test_curl(running: Running, tmp_path: Path) -> None:
    """a call by hand has its answer and its trailers; what is no gRPC is told so by HTTP."""
    body, head = tmp_path / "body", tmp_path / "head"
    body.write_bytes(framed(ASK.SerializeToString()))
    answer = curl(running, *GRPC, "--data-binary", f"@{body}", "--dump-header", str(head))
    refused = curl(running, *GRPC, "--data-binary", "x", "--dump-header", str(tmp_path / "refused"))
    code = ("--output", os.devnull, "--write-out", "%{http_code}")

    assert quota_pb2.ALLOWED == quota_pb2.AdmitResponse.FromString(answer[5:]).verdict
    assert "grpc-status: 0" in head.read_text()
    assert (b"", True) == (refused, "grpc-status: 13" in (tmp_path / "refused").read_text())
    assert [b"405", b"415"] == [curl(running, *code), curl(running, *code, "--request", "POST")]
