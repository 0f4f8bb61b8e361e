"""The real Envoy, run with the example of docs/envoy: the tests change its ports, and what a scenario names."""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "docs/envoy/envoy.yaml"
BUILT = Path(os.environ["GATEWAYS"])
START_SECONDS_MAX = 20


@dataclass(frozen=True)
class Envoy:
    """One that runs: `url` for clients, `admin` for its own page."""

    url: str
    admin: str

    def stat(self, name: str) -> int:
        """Return a counter by its whole name, 0 while Envoy has not counted it."""
        with urllib.request.urlopen(f"{self.admin}/stats?filter=^{re.escape(name)}$", timeout=5) as response:
            found = re.search(r": (\d+)$", response.read().decode().strip())
        return int(found[1]) if found else 0


@contextmanager
def envoy(quotad: str, upstream: int, directory: Path, changes: dict[str, str] | None = None) -> Iterator[Envoy]:
    """Run Envoy before an upstream's port, asking quotad at `host:port`. `changes` maps lines of the example to others."""
    text = EXAMPLE.read_text()
    ports = {"port_value: 10000": "port_value: 0", "port_value: 9901": "port_value: 0",
             "port_value: 8000": f"port_value: {upstream}", "port_value: 50051": f"port_value: {quotad.split(':')[1]}"}  # fmt: skip
    for old, new in (ports | (changes or {})).items():
        assert 1 == text.count(old), f"{old!r} stands {text.count(old)} times in {EXAMPLE}"
        text = text.replace(old, new)
    (directory / "envoy.yaml").write_text(text)
    admin_file = directory / "admin"
    log = directory / "envoy.log"
    command = [
        str(BUILT / "venv/bin/envoy"), "--config-path", str(directory / "envoy.yaml"), "--use-dynamic-base-id",
        "--concurrency", "1", "--log-level", "warning", "--admin-address-path", str(admin_file),
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield _ready(process, admin_file, log)
    finally:
        process.terminate()
        process.wait(10)


def _ready(process: subprocess.Popen[bytes], admin_file: Path, log: Path) -> Envoy:
    until = time.monotonic() + START_SECONDS_MAX
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        if admin_file.exists() and (address := admin_file.read_text().strip()):
            try:
                with urllib.request.urlopen(f"http://{address}/listeners", timeout=5) as response:
                    if listener := re.search(r"clients::(\S+)", response.read().decode()):
                        return Envoy(f"http://{listener[1]}", f"http://{address}")
            except urllib.error.URLError:
                pass
        time.sleep(0.05)
