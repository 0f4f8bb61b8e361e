"""quotad as a process of its own, to be stopped, started anew and held still, always on the same ports."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from gateways.envoy import ROOT

EXAMPLES = ROOT / "docs/envoy"
START_SECONDS_MAX = 30


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listened on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Quotad:
    """A server with the example's plan, its domain file, and a store in `directory`."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self._port, self._admin_port, self._http_port = free_ports(3)
        self.data = f"127.0.0.1:{self._port}"
        self.control = f"127.0.0.1:{self._admin_port}"
        self._log = directory / "quotad.log"
        self._command = [
            sys.executable, "-m", "quota.cli", "serve", "--data", str(directory / "data"),
            "--port", str(self._port), "--admin-port", str(self._admin_port), "--http-port", str(self._http_port),
            "--catalogs", str(EXAMPLES / "plans.yaml"), *flags,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start, and return once it is ready."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + START_SECONDS_MAX
        while not self._ready():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop as an orchestrator does, and return once the process has ended."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        assert 0 == self.process.wait(30), self._log.read_text()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}{path}", timeout=5) as response:
            return str(response.read().decode())

    def metric(self, name: str, labels: str = "") -> int:
        """Return a metric, 0 where nothing was counted. `labels` are those that the line must have, in its order."""
        found = re.findall(
            rf"^{name}(?:\{{[^}}]*{re.escape(labels)}[^}}]*\}})? (\S+)$", self.get("/metrics"), re.MULTILINE
        )
        return sum(int(float(count)) for count in found)

    def _ready(self) -> bool:
        try:
            return self.get("/readyz").strip() != ""
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
