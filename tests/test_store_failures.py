"""When the disk fails under a server: health says so first, nobody is told that a charge is kept, and the process ends."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quota import Engine
from quota.client import QuotaClient, admit_request
from quota.store import Store
from quota.v1 import quota_pb2

SOURCE = Path(__file__).with_name("bad_sync.c")
FILE_BYTES_MAX = 1_500_000  # the journal's first file and not the third, which is twice as large


class Served:
    """`quotad serve --data DIRECTORY --demo` as a process, its health watched."""

    def __init__(self, directory: Path, environment: dict[str, str], before: Callable[[], None] | None) -> None:
        ports = ("--port", "0", "--admin-port", "0", "--http-port", "0", "--grace-ms", "300")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quota.cli", "serve", *ports, "--demo", "--data", str(directory)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
            preexec_fn=before,
        )  # fmt: skip
        line = self.process.stdout.readline()
        found = re.search(r"data (\S+) control (\S+)", line)
        assert found, line + self.process.stderr.read()
        self.address, self.control = found[1], found[2]
        self.health: list[int] = []
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()

    def charge_until_it_fails(self) -> tuple[int, grpc.RpcError]:
        """Return how many charges were acknowledged, and how the next one was answered."""
        acknowledged = 0
        with QuotaClient(self.address) as data:
            for number in range(100_000):
                request = admit_request("demo-max", model="glm-4.7", tool="cline", mode=quota_pb2.RECORD)
                request.request_id = f"r{number}"
                try:
                    data.admit(request)
                except grpc.RpcError as error:
                    return acknowledged, error
                acknowledged += 1
        raise AssertionError("it never fails")

    def ended(self) -> tuple[int, str]:
        """Wait for its end; exit status and last line on stderr."""
        _, err = self.process.communicate(timeout=20)
        self._watching.join()
        return self.process.returncode, err.splitlines()[-1]

    def _watch(self) -> None:
        with grpc.insecure_channel(self.control) as channel:
            try:
                for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                    self.health.append(answer.status)
            except grpc.RpcError:
                return


@pytest.fixture
def served() -> Iterator[Callable[..., Served]]:
    """Start servers; what still runs after the test is killed."""
    started: list[Served] = []

    def start(
        directory: Path, environment: dict[str, str] | None = None, before: Callable[[], None] | None = None
    ) -> Served:
        started.append(Served(directory, environment or {}, before))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.communicate()


def drawn(directory: Path) -> int:
    """How many charges of demo-max a next start finds."""
    engine = Engine()
    store = Store.open(directory)
    store.restore(engine.ledger)
    store.close()
    return engine.usage("demo-max").limits[0].used_micro // 1_000_000


def test_a_full_disk(served: Callable[..., Served], tmp_path: Path) -> None:
    """a file that may not grow is a disk that is full: UNAVAILABLE, NOT_SERVING, status 1, nothing acknowledged lost."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))

    server = served(tmp_path, before=limit)
    acknowledged, error = server.charge_until_it_fails()
    status, last = server.ended()

    assert grpc.StatusCode.UNAVAILABLE == error.code()
    assert "the store has failed and takes nothing any more" in error.details()
    assert [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING] == [
        status for status, _ in groupby(server.health)
    ]
    assert 1 == status
    assert last.startswith("quotad: the store has failed and takes nothing any more: ")
    assert acknowledged > 0
    assert acknowledged <= drawn(tmp_path) <= acknowledged + 1


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_failing_fsync(served: Callable[..., Served], tmp_path: Path) -> None:
    """one failed sync ends it: no second try, the file is left as it was, and nothing acknowledged is lost."""
    library, trigger, directory = tmp_path / "bad_sync.so", tmp_path / "bad", tmp_path / "data"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    server = served(directory, {"LD_PRELOAD": str(library), "BAD_SYNC": str(trigger)})
    with QuotaClient(server.address) as data:
        for _ in range(10):
            data.admit(admit_request("demo-max", model="glm-4.7", tool="cline", mode=quota_pb2.RECORD))
    before = (directory / "quotad.db").read_bytes(), (directory / "quotad.db-wal").stat().st_ino
    trigger.touch()
    acknowledged, error = server.charge_until_it_fails()
    status, last = server.ended()

    assert (0, grpc.StatusCode.UNAVAILABLE) == (acknowledged, error.code())
    failure = "the store has failed and takes nothing any more"
    reason = f"{directory}: the journal cannot be written: Input/output error"
    assert (1, f"quotad: {failure}: {reason}") == (status, last)
    assert [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING] == [
        status for status, _ in groupby(server.health)
    ]
    assert before == ((directory / "quotad.db").read_bytes(), (directory / "quotad.db-wal").stat().st_ino)
    trigger.unlink()
    assert 10 <= drawn(directory) <= 11
