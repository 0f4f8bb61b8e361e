"""Servers under measurement: processes on the server's core, at a standstill while others have their turn."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from asked import ACCOUNTS, POPULATIONS, account_id
from generator import SERVER_CORE
from workload import ALLOWED_SHARE_MIN, CATALOG, WorkloadError

from quota.client import AdminClient, admit_request
from quota.v1 import admin_pb2, quota_pb2

START_S_MAX = 60
FILL_TURNS = 66  # charges of each account before the timing: a log of 64 entries is full
FILL_BATCH = 1000
DECISIONS = re.compile(r'^quotad_decisions_total\{[^}]*verdict="(\w+)"[^}]*\} (\S+)', re.M)
RSS_KB = re.compile(r"VmRSS:\s+(\d+) kB")
PENDING_MAX = 4000  # calls in flight on grpcio's server: 16x100 are more than its default


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """The processes of one server, of which the last listens at `port`."""

    def __init__(self, name: str, directory: Path, *, tls: bool = False) -> None:
        self.name = name
        self.port = free_port()
        self.tls = tls
        self._log = directory / f"{name}.log".replace(" ", "-")
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def rss_bytes(self) -> int:
        statuses = (Path(f"/proc/{pid}/status").read_text() for pid in self.pids)
        return sum(int(RSS_KB.findall(status)[0]) * 1024 for status in statuses)

    def start(
        self, command: Sequence[str], port: int | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        """Start a process and return once it listens. Raises WorkloadError if it does not."""
        environment = {**os.environ, **(variables or {})}
        with self._log.open("ab") as log:
            # Killed with us, however we end: one that stands still would stay for ever.
            pinned = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(SERVER_CORE), *command]
            self._processes.append(subprocess.Popen(pinned, stdout=log, stderr=log, env=environment))
        end_s = time.monotonic() + START_S_MAX
        while time.monotonic() < end_s and self._processes[-1].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port or self.port), timeout=1):
                return
            time.sleep(0.02)
        self.close()
        raise WorkloadError(f"{self.name} does not listen: {self._log.read_text()[-2000:]}")

    def pause(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def close(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Quotad(Served):
    """A server of ours with full logs: accounts on the plans of catalog.yaml, each charged often enough."""

    def __init__(
        self, name: str, directory: Path, *, front: str, strict: bool, tls: bool, populations: Sequence[str]
    ) -> None:
        super().__init__(name, directory, tls=tls)
        self._admin_port, self._http_port = free_port(), free_port()
        command = [sys.executable, "-m", "quota.cli", "serve", f"--front={front}", "--log-level=warning"]
        command += [f"--catalogs={CATALOG}", "--catalog-default=bench", f"--rpc-pending-max={PENDING_MAX}"]
        command += [f"--port={self.port}", f"--admin-port={self._admin_port}", f"--http-port={self._http_port}"]
        command += [f"--data={directory / name.replace(' ', '-')}"] if strict else ["--ephemeral"]
        if tls:
            command += [f"--tls-cert={directory / 'cert.pem'}", f"--tls-key={directory / 'key.pem'}"]
        self.start(command, variables={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})  # as `make serve`
        self._trusted = (directory / "cert.pem").read_bytes() if tls else None
        for population in populations:
            self._fill(population)

    def import_accounts(self, prefix: str, count: int, plan: str) -> None:
        accounts = (admin_pb2.Account(id=f"{prefix}{i:05d}", catalog="bench", plan=plan) for i in range(count))
        with AdminClient(f"127.0.0.1:{self._admin_port}") as admin:
            response = admin.import_accounts(accounts)
        if response.failed or response.loaded != count:
            raise WorkloadError(f"{self.name}: {response.failed} accounts were not imported, {response.loaded} were")

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def verify(self) -> None:
        """Look at all decisions that were made, timed or not. Raises WorkloadError unless nearly all were allowed."""
        counts = {True: 0.0, False: 0.0}
        for verdict, count in DECISIONS.findall(self.scrape()):
            counts[verdict == "ALLOWED"] += float(count)
        all_ = sum(counts.values())
        if not all_ or counts[True] < ALLOWED_SHARE_MIN * all_:
            raise WorkloadError(f"{self.name}: {counts[False]:.0f} of {all_:.0f} decisions were refused")

    def _fill(self, population: str) -> None:
        self.import_accounts(f"{population}.account.", ACCOUNTS, POPULATIONS[population])
        requests = [admit_request(account_id(population, i), model="large", tool="bench") for i in range(ACCOUNTS)]
        groups = [requests[i : i + FILL_BATCH] for i in range(0, ACCOUNTS, FILL_BATCH)]
        messages = [quota_pb2.AdmitBatchRequest(requests=group).SerializeToString() for group in groups]
        with self._channel() as channel:
            ask: Any = channel.unary_unary("/quota.v1.QuotaService/AdmitBatch")
            for _ in range(FILL_TURNS):
                answers = [ask(message, timeout=60) for message in messages]
        for answer in answers:
            results = quota_pb2.AdmitBatchResponse.FromString(answer).results
            if any(result.response.verdict != quota_pb2.ALLOWED for result in results):
                raise WorkloadError(f"{self.name}: a charge that fills the logs was not allowed")

    def _channel(self) -> grpc.Channel:
        address = f"localhost:{self.port}"
        options = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))
        if self._trusted is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(self._trusted), options)
