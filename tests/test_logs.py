"""The log of a real server, as whoever collects stderr gets it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Running

from quota.client import AdminClient, QuotaClient, Secrets, admit_request
from quota.server.logs import FIRST
from quota.server.refusal_log import RefusalLog
from quota.settings import Settings
from quota.v1 import admin_pb2

TOKEN = "VXqB1m0cK3r8dZp5JtLw"
FREE_PORTS = ("--port", "0", "--admin-port", "0", "--http-port", "0")


class Logging:
    """`quotad serve` as a process. `lines` are those of its log so far, `end` stops it and returns all."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._log = directory / "stderr"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quota.cli", "serve", *FREE_PORTS, *arguments],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        found = re.search(r"data (\S+) control (\S+) http (\S+)", self.process.stdout.readline())
        assert found, self._log.read_text()
        self.data, self.control, self.http = found.groups()

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def wait_for(self, words: str, count: int = 1) -> None:
        """Return once so many lines have these words."""
        until = time.monotonic() + 15
        while sum(words in line for line in self.lines) < count:
            assert time.monotonic() < until, self.lines
            time.sleep(0.02)

    def end(self) -> list[str]:
        self.process.send_signal(signal.SIGTERM)
        assert 0 == self.process.wait(10)
        return self.lines


Start = Callable[..., Logging]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Logging] = []

    def run(*arguments: str) -> Logging:
        started.append(Logging(tmp_path, *arguments))
        return started[-1]

    yield run
    for it in started:
        it.process.kill()
        it.process.communicate()


def live_through(server: Logging, config: Path, secrets: Secrets) -> None:
    """Refusals, changes by an operator, a good and a bad configuration."""
    with QuotaClient(server.data, secrets=secrets) as data, AdminClient(server.control, secrets=secrets) as admin:
        data.admit_batch([admit_request("sk-secret-of-ada", model=f"model-{number}") for number in range(5)])
        data.admit_batch([admit_request("demo-lite", model="glm-4.7", tool="unheard-of", client="prompt text")] * 5)
        admin.put_account(admin_pb2.Account(id="sk-secret-of-ben", plan="pro"))
        admin.import_accounts([admin_pb2.Account(id=f"sk-secret-{number}", plan="lite") for number in range(3)])
        admin.set_capacity(500_000)
        admin.adjust_usage("demo-lite", pool="prompts", micro=1_000_000, reason="for Ada Secret")
        admin.delete_account("sk-secret-of-ben")
    server.wait_for('"event": "refused"', 2)
    config.write_text("log_level: debug\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("log_level")
    config.write_text("\nlog_level: loud\n")
    server.wait_for("reload refused")


def test_as_json(start: Start, tmp_path: Path) -> None:
    """a line for the start, each class of refusals, each change, each reload and the stop, with fields and no secrets."""
    config, tokens = tmp_path / "quotad.yaml", tmp_path / "tokens.yaml"
    config.write_text("log_format: json\n")
    tokens.write_text(f"- {{name: gateway, token: {TOKEN}, role: write}}\n")
    flags = ("--config", str(config), "--log-format", "json", "--tokens", str(tokens), "--data", str(tmp_path / "data"))
    server = start(*flags, "--demo")
    live_through(server, config, Secrets(token=TOKEN))
    text = "\n".join(server.end())
    lines = [json.loads(line) for line in text.splitlines()]

    def said(event: str, *fields: str) -> list[dict[str, Any]]:
        return [{key: line[key] for key in fields if key in line} for line in lines if line["event"] == event]

    assert all(tuple(line)[:4] == FIRST and re.fullmatch(r"[\d-]{10}T[\d:.]{15}Z", line["time"]) for line in lines)
    assert [{"data": server.data, "http": server.http, "durability": "strict"}] == said(
        "serving", "data", "http", "durability"
    )
    assert sorted((it["plan"], it["verdict"], it["rule"]) for it in said("refused", "plan", "verdict", "rule")) == [
        ("", "ACCOUNT_UNKNOWN", "account"),
        ("lite", "TOOL_UNSUPPORTED", "tools"),
    ]
    assert {5} == {it["count"] for it in said("refused", "count")}
    assert [
        {"what": "PutAccount", "catalog": "glm-2026", "plan": "pro"},
        {"what": "ImportAccounts", "accounts": 3},
        {"what": "SetCapacity", "factor_micro": 500_000},
        {"what": "AdjustUsage", "pool": "prompts", "micro": 1_000_000},
        {"what": "DeleteAccount"},
    ] == said("changed", "what", "catalog", "plan", "accounts", "factor_micro", "pool", "micro")
    assert {"what": "settings", "changed": ["log_level"], "needs_restart": []} in said(
        "reloaded", "what", "changed", "needs_restart"
    )
    assert [f"{config}:2: log_level: 'loud' is not allowed; allowed: debug, info, warning, error"] == [
        it["problem"] for it in said("reload refused, what was read before stays", "problem")
    ]
    assert [{"signal": "SIGTERM"}] == said("stopping", "signal")
    assert "stopped" == lines[-1]["event"]
    assert not re.search(f"[Ss]ecret|{TOKEN}|model-|prompt text|unheard-of|demo-lite", text)


def test_as_text(start: Start) -> None:
    """each event is one line of key=value, the same fields in front; no line can be forged."""
    server = start("--ephemeral", "--log-level", "info")
    lines = server.end()

    assert len(lines) >= 3
    for line in lines:
        assert re.match(r"time=\S+ level=(info|warning) logger=quota\.\S+ event=", line), line


def test_less_is_logged_on_request(start: Start) -> None:
    """from a level on; refusals not at all."""
    assert [] == start("--ephemeral", "--log-level", "warning").end()
    server = start("--ephemeral", "--log-refusals-ms", "0")
    with QuotaClient(server.data) as data:
        data.admit(admit_request("nobody"))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("what=tokens")

    assert not [line for line in server.end() if "refused" in line]


# ---- Refusals, second by second ----


class Seconds:
    now = 1000.0


def test_refusals_are_sampled(serve: Callable[..., Running], caplog: pytest.LogCaptureFixture) -> None:
    """the first of a class at once, then a line every so often with their number since; nothing where nothing was refused."""
    caplog.set_level("INFO", "quota.server.refusal_log")
    running = serve(log_refusals_ms=0)  # its own does not log beside this one
    settings = {"now": Settings(log_refusals_ms=10_000)}
    log = RefusalLog(running.server.engine, lambda: settings["now"], seconds=lambda: Seconds.now)

    def after(seconds: float, *accounts: str) -> list[tuple[str, int]]:
        for account in accounts:
            running.data.admit(admit_request(account, model="glm-4.7", tool="no-such-tool"))
        Seconds.now += seconds
        caplog.clear()
        log.look()
        return [(it.verdict, it.count) for it in caplog.records]

    unknown, tool = "ACCOUNT_UNKNOWN", "TOOL_UNSUPPORTED"
    assert [] == after(1)
    assert [(unknown, 2)] == after(1, "ann", "ben")
    assert [(tool, 1)] == after(1, "ann", "demo-lite")
    assert [] == after(8, "ann", "demo-lite")
    assert [(unknown, 2)] == after(1)
    assert [(tool, 1)] == after(1)
    assert [] == after(100)
    settings["now"] = Settings(log_refusals_ms=0)
    assert [] == after(100, "ann", "demo-lite")
    settings["now"] = Settings(log_refusals_ms=1000)
    assert [(unknown, 1)] == after(1, "ann")
