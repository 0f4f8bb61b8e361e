"""A server in a process of its own, to be abused: its memory, its figures, and a bystander who wants to be served meanwhile."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from http2_peer import Peer, framed

from quota.client import admit_request

PEEK = "/quota.v1.QuotaService/Peek"
ASK = framed(admit_request("demo-max", model="glm-4.7", tool="cline").SerializeToString())
BYSTANDER_SECONDS_MAX = 1.0  # for one call, on a machine that is busy with tests
MEMORY_BYTES_MAX = 24_000_000  # that one abuse may add


class Abused:
    """`quotad serve --demo` with the settings given, and no store unless `data` is among them; use as a context."""

    def __init__(self, environment: Mapping[str, str] | None = None, **settings: object) -> None:
        ports = ("--port", "0", "--admin-port", "0", "--http-port", "0")
        flags = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        if "data" not in settings:
            flags.append("--ephemeral")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quota.cli", "serve", "--demo", *ports, *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        line = self.process.stdout.readline()
        self.data, self.control, self.http = re.findall(r"127\.0\.0\.1:\d+", line)

    def __enter__(self) -> Abused:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def peer(self, **how: object) -> Peer:
        return Peer(self.data, **how)

    @property
    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def figure(self, name: str) -> int:
        """One metric without labels."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as response:
            text = response.read().decode()
        return int(float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1]))

    def wait_for(self, name: str, value: int, seconds: float = 10) -> int:
        """Wait until a metric is the value, for so long at most; what it is then."""
        until = time.monotonic() + seconds
        while (found := self.figure(name)) != value and time.monotonic() < until:
            time.sleep(0.02)
        return found

    @contextmanager
    def bystander(self, memory_bytes_max: int = MEMORY_BYTES_MAX) -> Iterator[None]:
        """Somebody else makes calls all the while: each is answered in time. Then the memory is looked at."""
        before = self.resident_bytes
        done = threading.Event()
        calls: list[tuple[float, int | None]] = []

        def ask() -> None:
            with self.peer() as peer:
                while not done.is_set() or not calls:
                    began = time.monotonic()
                    status = peer.ask(ASK, PEEK).status
                    calls.append((time.monotonic() - began, status))
                    done.wait(0.002)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        assert {0} == {status for _, status in calls}
        assert max(seconds for seconds, _ in calls) < BYSTANDER_SECONDS_MAX
        assert self.resident_bytes - before < memory_bytes_max
