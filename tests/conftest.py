"""What several test files share: a clock turned by hand, and a server on loopback that runs by it."""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from quota.client import AdminClient, QuotaClient
from quota.clock import Clock
from quota.server.config_file import ConfigFile
from quota.server.server import Addresses, Server
from quota.settings import Settings, load

MONDAY_15_SHANGHAI = datetime.fromisoformat("2026-07-06T15:00:00+08:00")


@dataclass
class HandTime:
    """Boot time and wall time that stand still until told otherwise."""

    boot_ns: int = 1_000_000_000_000
    wall_ns: int = int(MONDAY_15_SHANGHAI.timestamp()) * 1_000_000_000

    def clock(self) -> Clock:
        return Clock(lambda: self.boot_ns, lambda: self.wall_ns)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.boot_ns += round(seconds * 1e9)
        self.wall_ns += round(seconds * 1e9)

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self.wall_ns += round(seconds * 1e9)

    @property
    def now_ms(self) -> int:
        return self.wall_ns // 1_000_000


@dataclass
class Running:
    """A server that answers, with a client for each of its ports."""

    server: Server
    addresses: Addresses
    time: HandTime
    data: QuotaClient = field(init=False)
    admin: AdminClient = field(init=False)

    def __post_init__(self) -> None:
        self.data = QuotaClient(self.addresses.data)
        self.admin = AdminClient(self.addresses.control)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET on the HTTP port."""
        return get(self.addresses.http, path)

    def metric(self, name: str) -> int:
        """Return a metric that has no labels."""
        found = re.search(rf"^{name} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert found, name
        return int(float(found[1]))

    def reloads(self, what: str) -> tuple[int, int]:
        """Return how often something was read again, and how often that was refused."""
        text = self.get("/metrics")[1]
        counts = dict(re.findall(rf'^quotad_reloads_total{{result="(\w+)",what="{what}"}} (\S+)$', text, re.MULTILINE))
        return int(float(counts["ok"])), int(float(counts["refused"]))

    def reload(self, what: str) -> str:
        """Have all files read again, and return how that went with one kind of them: ok or refused."""
        before = self.reloads(what)
        self.server.reload()
        return self.reloaded(what, before)

    def reloaded(self, what: str, before: tuple[int, int]) -> str:
        """Return once something has been read again since it was `before`, and how it went."""
        until = time.monotonic() + 10
        while (found := self.reloads(what)) == before:
            assert time.monotonic() < until, f"{what} is not read again"
            time.sleep(0.01)
        return "ok" if found[0] > before[0] else "refused"

    def wait_for(self, name: str, value: int) -> None:
        """Return once a metric is the value."""
        until = time.monotonic() + 10
        while (found := self.metric(name)) != value:
            assert time.monotonic() < until, f"{name} is {found}"
            time.sleep(0.01)


def get(address: str, path: str) -> tuple[int, str]:
    """Return status and body of a GET."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the developer's own shell says of a server, and what their own server keeps, is not the tests' concern."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    for variable in [name for name in os.environ if name.startswith("QUOTAD_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def hand_time() -> HandTime:
    return HandTime()


@pytest.fixture
def serve(hand_time: HandTime) -> Iterator[Callable[..., Running]]:
    """Start servers with the settings given, on free ports; they stop with the test. Without `data` they keep no store.

    `config` is a configuration file, made if absent; the settings given are flags, and hold over what it says.
    """
    with ExitStack() as stack:

        def start(*, config: Path | None = None, **settings: object) -> Running:
            chosen = {
                "port": 0, "admin_port": 0, "http_port": 0, "demo": True, "grace_ms": 100,
                "ephemeral": "data" not in settings, **settings,
            }  # fmt: skip
            config_file = ConfigFile(config, partial(load, chosen, {}, config)) if config else None
            if config is not None:
                config.touch()
            server = Server(
                load(chosen, {}, config).settings if config else Settings(**chosen),
                clock=hand_time.clock(),
                config_file=config_file,
            )
            running = Running(server, server.start(), hand_time)
            stack.callback(server.stop)
            stack.callback(running.data.close)
            stack.callback(running.admin.close)
            return running

        yield start


@pytest.fixture
def running(serve: Callable[..., Running]) -> Running:
    """A server with the demo accounts and default settings."""
    return serve()
