"""Metrics as Prometheus has them: its own judge of their form, a real scrape and query, and rules that fire where they should."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import Running
from test_metrics import exercise
from test_rules import RULES, panels

from quota.client import admit_request

CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - {{job_name: quotad, static_configs: [{{targets: ["{target}"]}}]}}
"""
PATIENCE_S = 30.0
STARTING = 503


def promtool(*words: str, given: str = "") -> str:
    """Return what promtool says; what it finds fault with fails."""
    done = subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A Prometheus on loopback that scrapes one target every second."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query; none while it does not answer yet. Raises HTTPError for a bad one."""
        url = f"http://{self.address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return json.load(response)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code != STARTING:
                raise
        except (urllib.error.URLError, ConnectionError):
            pass
        return []

    def wait_for(self, expression: str, done: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Return the samples once they are as wanted."""
        until = time.monotonic() + PATIENCE_S
        while not done(found := self.query(expression)):
            assert time.monotonic() < until, f"{expression}: {found}"
            time.sleep(0.2)
        return found


@contextmanager
def prometheus(target: str, directory: Path) -> Iterator[Prometheus]:
    directory.mkdir()
    (directory / "prometheus.yml").write_text(CONFIGURATION.format(rules=RULES, target=target))
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Prometheus(listening(process.pid))
    finally:
        process.terminate()
        process.wait()


def listening(pid: int) -> str:
    """Where a process listens, once it does: Prometheus does not tell the port that it was given for 0."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in inodes:
                return f"127.0.0.1:{int(local.rpartition(':')[2], 16)}"
        time.sleep(0.05)
    raise AssertionError("Prometheus does not listen")


def test_promtool_finds_no_fault(serve: Callable[..., Running], tmp_path: Path) -> None:
    """names, types and help are as Prometheus wants them."""
    running = serve(data=str(tmp_path / "data"))
    exercise(running)

    assert "" == promtool("check", "metrics", given=running.get("/metrics")[1])


def test_rules_are_valid_and_fire_where_they_should() -> None:
    """the rules parse, and their own tests pass."""
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(Path(__file__).with_name("rules_test.yaml")))


def test_every_panel_shows_something(serve: Callable[..., Running], tmp_path: Path) -> None:
    """each expression of the dashboard is answered with samples by a Prometheus that scrapes a server with a store."""
    running = serve(data=str(tmp_path / "data"))
    exercise(running)
    with prometheus(running.addresses.http, tmp_path / "prometheus") as scraping:
        scraping.wait_for("count_over_time(quotad_build_info[1m]) >= 3", bool)
        for panel in panels():
            for target in panel["targets"]:
                expression = re.sub(r"\$(job|instance)", ".*", target["expr"]).replace("$__rate_interval", "1m")
                assert scraping.query(expression), (panel["title"], expression)


def test_prometheus_scrapes_what_was_decided(running: Running, tmp_path: Path) -> None:
    """it finds a server, tells decisions and units as they were, and evaluates every rule without a fault."""
    exercise(running)
    for _ in range(30):
        running.data.admit(admit_request("demo-max", model="glm-4.7", tool="cline"))
    with prometheus(running.addresses.http, tmp_path / "prometheus") as scraping:
        decided = scraping.wait_for('quotad_decisions_total{plan="max"}', bool)
        charged = scraping.query('quotad_charged_units_total{plan="max"}')
        p99 = scraping.query('histogram_quantile(0.99, quotad_rpc_seconds_bucket{method="QuotaService/Admit"})')
        recorded = scraping.wait_for('{__name__=~"job_.*"}', bool)
        firing = scraping.query('ALERTS{alertstate="firing"}')
        faults = scraping.query("prometheus_rule_evaluation_failures_total > 0")

    assert [("ALLOWED", "GLM-4.7", "30")] == [
        (sample["metric"]["verdict"], sample["metric"]["model"], sample["value"][1]) for sample in decided
    ]
    assert [("prompts", "30")] == [(sample["metric"]["pool"], sample["value"][1]) for sample in charged]
    assert 0 < float(p99[0]["value"][1]) < 5
    assert recorded
    assert [] == firing
    assert [] == faults
