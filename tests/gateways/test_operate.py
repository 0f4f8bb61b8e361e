"""docs/operate.md: its commands, run in their order as one shell session, on free ports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from gateways.envoy import ROOT
from gateways.quotad import free_ports

PAGE = ROOT / "docs/operate.md"
SECTION = "## One machine, by copy and paste"
PORTS = (
    "DATA_PORT", "CONTROL_PORT", "HTTP_PORT", "GATEWAY_PORT", "GATEWAY_ADMIN_PORT", "MODEL_PORT", "PROMETHEUS_PORT",
)  # fmt: skip
SECONDS_MAX = 600  # pip may have to fetch Envoy
ERRORS_END_IT = "set -eu\n"


def commands() -> list[str]:
    """The shell blocks of the section that promises that they work."""
    section = PAGE.read_text().split(f"{SECTION}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What the page's commands print."""
    work = tmp_path_factory.mktemp("operate")
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    environment = {**os.environ, **ports, "WORK": str(work)}
    output = work / "output"  # a file: what the page leaves running in the background keeps a pipe open
    with output.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-c", ERRORS_END_IT + "".join(commands())],
            cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(SECONDS_MAX)
        finally:
            with suppress(ProcessLookupError):  # the page ends what it started; after an error this does
                os.killpg(shell.pid, signal.SIGTERM)
    return subprocess.CompletedProcess("bash", code, output.read_text() + _logs(work))


def _logs(work: Path) -> str:
    return "".join(f"\n--- {log.name}\n{log.read_text()}" for log in sorted(work.glob("*.log")))


def test_commands_succeed(session: subprocess.CompletedProcess[str]) -> None:
    """every one of them, to the end."""
    assert 0 == session.returncode, session.stdout


def test_requests_are_refused_as_the_page_says(session: subprocess.CompletedProcess[str]) -> None:
    """five pass, the sixth does not."""
    assert ["200"] * 5 + ["429"] == re.findall(r"\} (\d{3})$", session.stdout, re.MULTILINE)
    assert 1 == session.stdout.count('"rate_limit_error"')


def test_prometheus_has_seen_it(session: subprocess.CompletedProcess[str]) -> None:
    """the decisions, by verdict."""
    [answer] = re.findall(r'^\{"status":"success".*\}$', session.stdout, re.MULTILINE)
    found = {each["metric"]["verdict"]: each["value"][1] for each in json.loads(answer)["data"]["result"]}

    assert ("5", "1") == (found["ALLOWED"], found["BURST"])


@pytest.mark.parametrize("name", PORTS)
def test_every_port_can_be_chosen(name: str) -> None:
    """by a variable that the first block sets only where it is not set."""
    assert f"{name}=${{{name}:-" in commands()[0].replace('"', "")
