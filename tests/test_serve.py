"""`quotad serve` as a process: how it starts, what it says when it cannot, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from conftest import Running

from quota import Engine, __version__
from quota.client import QuotaClient, admit_request
from quota.errors import FailedPrecondition, InvalidArgument
from quota.server.server import Server, add_demo_accounts
from quota.settings import Settings
from quota.v1 import quota_pb2

Start = Callable[..., "subprocess.Popen[str]"]
FREE_PORTS = ("--port", "0", "--admin-port", "0", "--http-port", "0")
EPHEMERAL = (*FREE_PORTS, "--ephemeral")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `quotad serve`; what still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "quota.cli", "serve", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
        )  # fmt: skip
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(start: Start, number: signal.Signals) -> None:
    """it says where it listens, serves, and after a signal exits 0; its log has a line for each."""
    process = start(*EPHEMERAL, "--demo")
    line = process.stdout.readline()
    found = re.fullmatch(
        rf"quotad {re.escape(__version__)} data (127.0.0.1:\d+) control (127.0.0.1:\d+) http (127.0.0.1:\d+)\n", line
    )
    assert found, line
    with QuotaClient(found[1]) as client:
        verdict = client.admit(admit_request("demo-lite", model="glm-4.7", tool="cline")).verdict
    with urllib.request.urlopen(f"http://{found[3]}/readyz", timeout=5) as response:
        ready = response.read()
    process.send_signal(number)
    out, err = process.communicate(timeout=10)

    assert (quota_pb2.ALLOWED, b"ready\n") == (verdict, ready)
    assert (0, "") == (process.returncode, out)
    serving, stopping, stopped = err.splitlines()
    assert f"event=serving version={__version__} data={found[1]} control={found[2]} http={found[3]} " in serving
    assert stopping.endswith(f"level=info logger=quota.server.server event=stopping signal={number.name}")
    assert stopped.endswith("event=stopped")


@pytest.mark.parametrize("setting", ["port", "admin_port", "http_port"])
def test_a_taken_port_is_one_line(start: Start, setting: str) -> None:
    """exit 1, naming address and settings; no second server shares the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flag = "--" + setting.replace("_", "-")
        process = start(*EPHEMERAL, flag, str(port))
        out, err = process.communicate(timeout=20)

    listen = setting.replace("port", "listen")
    assert (1, "") == (process.returncode, out)
    assert (
        f"quotad: cannot listen on 127.0.0.1:{port} (settings {listen} and {setting}): Address already in use\n" == err
    )


def test_two_servers_do_not_share_a_port(running: Running) -> None:
    """the ports of a running server are taken for another one, all three."""
    for setting, address in zip(
        ("port", "admin_port", "http_port"),
        (running.addresses.data, running.addresses.control, running.addresses.http),
        strict=True,
    ):
        ports = {"port": 0, "admin_port": 0, "http_port": 0, setting: int(address.rpartition(":")[2])}
        server = Server(Settings(ephemeral=True, **ports))
        with pytest.raises(FailedPrecondition, match=rf"cannot listen on {address} .*: Address already in use"):
            server.start()
        server.stop()


def test_a_foreign_address_is_one_line() -> None:
    """an address that is not this machine's, and a name that nobody knows."""
    for host in ("192.0.2.1", "nosuch.invalid"):
        server = Server(Settings(ephemeral=True, listen=host, port=0, admin_port=0, http_port=0))
        with pytest.raises(FailedPrecondition, match=rf"cannot listen on {host}:0 \(settings listen and port\): "):
            server.start()
        server.stop()


def test_wrong_settings_are_told_before_anything_starts(start: Start, tmp_path: Path) -> None:
    """all of them, a line each; exit 1."""
    file = tmp_path / "quotad.yaml"
    file.write_text("prot: 1\n")
    process = start("--config", str(file), "--grace-ms", "soon")
    out, err = process.communicate(timeout=20)

    assert (1, "") == (process.returncode, out)
    assert [f"quotad: {file}:1: 'prot' is no setting", "quotad: --grace-ms: 'soon' is not allowed"] == [
        line.split(";")[0] for line in err.splitlines()
    ]


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    """a default catalog that is not served, a folder without catalogs, two files of one name."""
    text = Path(__file__).parent.joinpath("../quota/catalog/shipped/glm-2026.yaml").read_text()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text)
    (tmp_path / "empty").mkdir()

    with pytest.raises(InvalidArgument, match=r"catalog_default: 'nope' is not allowed; allowed: .*glm-2026"):
        Server(Settings(catalog_default="nope"))
    with pytest.raises(InvalidArgument, match=r"catalogs: .*empty' is not allowed; allowed: a directory with \*.yaml"):
        Server(Settings(catalogs=(str(tmp_path / "empty"),)))
    with pytest.raises(InvalidArgument, match=r"catalogs: .*b.yaml' is not allowed; allowed: .*glm-2026, as .*a.yaml"):
        Server(Settings(catalogs=(str(tmp_path),)))


def test_a_wrong_catalog_file_is_named(start: Start, tmp_path: Path) -> None:
    """with file and line; exit 1, and no port is opened."""
    file = tmp_path / "own.yaml"
    file.write_text("catalog: own\ntime_zoen: UTC\n")
    process = start(*EPHEMERAL, "--catalogs", str(file))
    out, err = process.communicate(timeout=20)

    assert (1, "") == (process.returncode, out)
    assert err.startswith(f"quotad: {file}:")
    assert f"quotad: {file}:2: " in err


def test_ipv6(serve: Callable[..., Running]) -> None:
    """addresses with colons are written in brackets, and work."""
    if not socket.has_ipv6 or not _has_loopback_6():
        pytest.skip("this machine has no IPv6 loopback")
    running = serve(listen="::1", admin_listen="::1", http_listen="::1")

    assert running.addresses.data.startswith("[::1]:")
    assert quota_pb2.ACCOUNT_UNKNOWN == running.data.admit(admit_request("nobody")).verdict
    assert (200, "ok\n") == running.get("/healthz")


def _has_loopback_6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_running_call_may_end(serve: Callable[..., Running]) -> None:
    """at a stop, a call in flight is answered within the grace, and new ones are turned away."""
    running = serve(grace_ms=5000)
    answers = []
    stopping = threading.Thread(target=running.server._control.stop)

    def requests() -> Iterator[bytes]:
        yield b""
        running.server._data.stop()
        stopping.start()
        yield b""

    with grpc.insecure_channel(running.addresses.control) as channel:
        call = channel.stream_unary("/quota.v1.AdminService/ImportAccounts")
        answers.append(call(requests(), timeout=5))
    stopping.join()
    with pytest.raises(grpc.RpcError) as raised:
        running.data.admit(admit_request("demo-lite"))

    assert [b""] == answers
    assert grpc.StatusCode.UNAVAILABLE == raised.value.code()


def test_demo_accounts_are_added_only_where_absent() -> None:
    """one for each plan; an account of that name that exists stays what it is."""
    engine = Engine(["glm-2026"])
    engine.put_account("demo-lite", plan="max", period="year")
    add_demo_accounts(engine)
    accounts = {account.id: (account.plan, account.period) for account in engine.list_accounts()[0]}

    assert {"demo-lite": ("max", "year"), "demo-pro": ("pro", "month"), "demo-max": ("max", "month")} == accounts
