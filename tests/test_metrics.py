"""The HTTP port, and the metrics on it."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Running
from http2_peer import Peer
from plans import START_MS, engine_with
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from quota import Request, __version__
from quota.client import admit_request
from quota.server import http
from quota.v1 import quota_pb2

COMMIT, CANCEL, RECORD = quota_pb2.COMMIT, quota_pb2.CANCEL, quota_pb2.RECORD


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, /, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def exercise(running: Running) -> None:
    """Let everything happen that makes a series: a charge, a refund, a refusal."""
    ask = {"model": "glm-4.7", "tool": "cline"}
    running.data.admit(admit_request("demo-lite", **ask, request_id="a"))
    running.data.settle("demo-lite", "a", CANCEL)
    running.data.admit(admit_request("demo-lite", **ask, draws={"prompt": 1000}))


def test_decisions_are_counted(running: Running) -> None:
    """by catalog, plan, model, verdict and rule; Peek is not counted, batches are."""
    ask = admit_request("demo-lite", model="sonnet", tool="cline")
    for _ in range(40):
        running.data.admit(ask)
        running.data.peek(ask)
    running.data.admit_batch([ask] * 50)
    text = running.get("/metrics")[1]

    labels = {"catalog": "glm-2026", "plan": "lite", "model": "GLM-4.7"}
    assert 80 == value(text, "quotad_decisions_total", **labels, verdict="ALLOWED", rule="")
    assert 10 == value(text, "quotad_decisions_total", **labels, verdict="LIMIT_EXHAUSTED", rule="prompts-5h")


def test_labels_do_not_grow_with_what_callers_say(running: Running) -> None:
    """unknown accounts and unknown models have one series each, whatever they are called."""
    for number in range(100):
        running.data.admit(admit_request(f"nobody-{number}", model=f"m{number}"))
        running.data.admit(admit_request("demo-lite", model=f"m{number}", tool="cline"))
    decisions = [key for key in samples(running.get("/metrics")[1]) if key[0] == "quotad_decisions_total"]

    assert 2 == len(decisions)


def test_answers_given_again_are_no_decisions(running: Running) -> None:
    """replays are counted apart; what is forgotten early and the capacity factor have metrics of their own."""
    ask = admit_request("demo-lite", model="sonnet", tool="cline", request_id="r1")
    for _ in range(4):
        running.data.admit(ask)
    running.admin.set_capacity(250_000)
    text = running.get("/metrics")[1]
    labels = {"catalog": "glm-2026", "plan": "lite", "model": "GLM-4.7"}

    assert 1 == value(text, "quotad_decisions_total", **labels, verdict="ALLOWED", rule="")
    assert 3 == value(text, "quotad_replays_total")
    assert 0 == value(text, "quotad_request_ids_forgotten_total")
    assert 0 == value(text, "quotad_prompts_forgotten_total")
    assert 0.25 == value(text, "quotad_capacity_factor")


def prompts(amount: int) -> list[quota_pb2.Draw]:
    return [quota_pb2.Draw(meter="prompt", amount=amount)]


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_units_are_counted(serve: Callable[..., Running], front: str) -> None:
    """charged: admissions, records, what settlements top up, what is taken by hand; refunded: what goes back; nothing twice."""
    running = serve(front=front)
    common = {"model": "glm-4.7", "tool": "cline"}
    steps = [
        # what is done, units charged and refunded by it
        (lambda: running.data.admit(admit_request("demo-lite", **common, draws={"prompt": 5}, request_id="a")), 5, 0),
        (lambda: running.data.admit(admit_request("demo-lite", **common, draws={"prompt": 5}, request_id="a")), 0, 0),
        (lambda: running.data.peek(admit_request("demo-lite", **common, draws={"prompt": 3})), 0, 0),
        (lambda: running.data.settle("demo-lite", "a", COMMIT, prompts(2)), 0, 3),
        (lambda: running.data.settle("demo-lite", "a", COMMIT, prompts(2)), 0, 0),
        (lambda: running.data.admit(admit_request("demo-lite", **common, draws={"prompt": 1}, request_id="b")), 1, 0),
        (lambda: running.data.settle("demo-lite", "b", COMMIT, prompts(4)), 3, 0),
        (lambda: running.data.admit(admit_request("demo-lite", **common, draws={"prompt": 7}, request_id="c")), 7, 0),
        (lambda: running.data.settle("demo-lite", "c", CANCEL), 0, 7),
        (lambda: running.data.admit(admit_request("demo-lite", **common, draws={"prompt": 1000})), 0, 0),
        (lambda: running.data.admit(admit_request("demo-lite", **common, draws={"prompt": 90}, mode=RECORD)), 90, 0),
        (lambda: running.admin.adjust_usage("demo-lite", pool="prompts", micro=2_500_000, reason="test"), 2.5, 0),
        (lambda: running.admin.adjust_usage("demo-lite", pool="prompts", micro=-1_500_000, reason="test"), 0, 1.5),
        (lambda: running.data.admit(admit_request("demo-lite", **common, draws={"web_search": 4})), 0, 0),
    ]
    labels = {"catalog": "glm-2026", "plan": "lite", "pool": "prompts"}

    def moved() -> tuple[float, float]:
        found = samples(running.get("/metrics")[1])
        charged, refunded = (
            found.get((f"quotad_{way}_units_total", frozenset(labels.items())), 0.0) for way in ("charged", "refunded")
        )
        return charged, refunded

    before = moved()
    for number, (step, charged, refunded) in enumerate(steps):
        step()
        after = moved()
        assert (charged, refunded) == (after[0] - before[0], after[1] - before[1]), f"step {number}"
        before = after
    assert 4 == value(running.get("/metrics")[1], "quotad_charged_units_total", **{**labels, "pool": "mcp"})


def test_units_of_token_pools_do_not_wrap(running: Running) -> None:
    """sums past 64 bits of micro-units are exact."""
    for _ in range(40):
        running.admin.adjust_usage("demo-max", pool="prompts", micro=10**18, reason="tokens")

    labels = {"catalog": "glm-2026", "plan": "max", "pool": "prompts"}
    assert 40 * 10**12 == value(running.get("/metrics")[1], "quotad_charged_units_total", **labels)


def test_what_is_open_is_counted(running: Running) -> None:
    """holds until they are settled or their time has come, prompts until they are idle, ids until they are forgotten."""
    ask = {"model": "glm-4.7", "tool": "cline"}

    def figures() -> list[float]:
        text = running.get("/metrics")[1]
        return [value(text, f"quotad_{name}") for name in ("holds", "prompts", "request_ids")]

    running.data.admit(admit_request("demo-lite", **ask, request_id="a", hold_ms=10_000))
    running.data.admit(admit_request("demo-max", **ask, request_id="b", hold_ms=60_000, prompt_id="p"))
    assert [2, 1, 2] == figures()
    running.data.settle("demo-max", "b", COMMIT)
    assert [1, 1, 2] == figures()
    running.time.advance(11)
    assert [0, 1, 2] == figures()
    running.time.advance(120)
    assert [0, 1, 0] == figures()
    running.time.advance(86_400)
    assert [0, 0, 0] == figures()


def test_a_growing_population_is_counted_once() -> None:
    """the census is exact at every size, also while the table moves; deleted accounts are not in it."""
    engine = engine_with("[{id: l, limit: 10, window: {sliding: 5h}}]")
    for number in range(1500):
        engine.put_account(f"a{number}", plan="only", subscribed_at_ms=START_MS, now_ms=START_MS)
        engine.admit(Request(f"a{number}", model="m", request_id="r", hold_ms=60_000), now_ms=START_MS)
        assert (number + 1, 0, number + 1) == engine.census(now_ms=START_MS)
    engine.delete_account("a7", now_ms=START_MS)

    assert (1499, 0, 1499) == engine.census(now_ms=START_MS)


def test_decisions_are_timed_now_and_then(running: Running) -> None:
    """one sample for about a thousand decisions of Admit, and none before."""
    ask = admit_request("demo-max", model="glm-4.7", tool="cline")

    def timed() -> float:
        return value(running.get("/metrics")[1], "quotad_decision_seconds_count")

    for _ in range(1023):
        running.data.admit(ask)
    assert 0 == timed()
    running.data.admit(ask)
    assert 1 == timed()
    text = running.get("/metrics")[1]
    assert 0 < value(text, "quotad_decision_seconds_sum") < 1
    assert 1 == value(text, "quotad_decision_seconds_bucket", le="+Inf")


def test_connections_tell_why_they_ended(serve: Callable[..., Running]) -> None:
    """who says nothing is out for the handshake, who asks for nothing for being idle; both are seen while they are there."""
    running = serve(handshake_ms_max=100, idle_ms_max=100, connections_max=77)
    host, port = running.addresses.data.split(":")
    ended = {"handshake": 0.0, "stalled": 0.0, "silent": 0.0, "grace": 0.0, "idle": 0.0, "age": 0.0}

    def reasons() -> dict[str, float]:
        found = samples(running.get("/metrics")[1])
        return {
            reason: found["quotad_front_connections_ended_total", frozenset({("reason", reason)})] for reason in ended
        }

    assert ended == reasons()
    assert 77 == running.metric("quotad_front_connections_max")
    with socket.create_connection((host, int(port)), timeout=5) as mute:
        assert b"" == mute.recv(100)
    assert {**ended, "handshake": 1.0} == reasons()
    running.data.peek(admit_request("demo-lite"))
    running.wait_for("quotad_front_connections", 0)
    assert {**ended, "handshake": 1.0, "idle": 1.0} == reasons()


def test_streams_are_seen_while_they_are_open(running: Running) -> None:
    """calls that have begun count, until they end or their client gives them up."""
    with Peer(running.addresses.data) as peer:
        for _ in range(3):
            peer.begin()
        peer.flush()
        running.wait_for("quotad_front_streams", 3)
    running.wait_for("quotad_front_streams", 0)


def test_calls_are_timed(running: Running) -> None:
    """by method, from 10 µs up, also those that fail."""
    running.data.admit(admit_request("demo-lite"))
    list(running.admin.list_accounts())
    text = running.get("/metrics")[1]
    bounds = [dict(labels)["le"] for name, labels in samples(text) if name == "quotad_rpc_seconds_bucket"]

    assert 1 == value(text, "quotad_rpc_seconds_count", method="QuotaService/Admit")
    assert 1 == value(text, "quotad_rpc_seconds_count", method="AdminService/ListAccounts")
    assert 0 == value(text, "quotad_rpc_seconds_count", method="QuotaService/Peek")
    assert "1e-05" == min(bounds, key=float)


def test_the_state_is_shown(running: Running) -> None:
    """accounts, catalogs, clock alarms, version."""
    running.time.set_wall(100)
    running.admin.get_clock()
    text = running.get("/metrics")[1]
    catalog = running.admin.list_catalogs()[0]

    assert [1, 1, 1] == [
        value(text, "quotad_accounts", catalog="glm-2026", plan=plan) for plan in ("lite", "pro", "max")
    ]
    assert 3 == sum(count for (name, _), count in samples(text).items() if name == "quotad_accounts")
    assert 1 == value(text, "quotad_catalog_info", name=catalog.name, version=catalog.version)
    assert catalog.loaded_at_ms / 1000 == value(text, "quotad_catalog_loaded_timestamp_seconds", name=catalog.name)
    assert 1 == value(text, "quotad_clock_alarms_total")
    assert 0 == value(text, "quotad_clock_behind_total")
    assert __version__ in {dict(labels).get("version") for name, labels in samples(text) if name == "quotad_build_info"}


def test_metrics_follow_the_conventions(running: Running) -> None:
    """every family of ours has help that is a sentence, and a name that does not repeat its type."""
    families = [
        family
        for family in text_string_to_metric_families(running.get("/metrics")[1])
        if family.name.startswith("quotad_")
    ]

    assert len(families) >= 7
    for family in families:
        assert re.fullmatch(r"[A-Z].*\.", family.documentation), family.name
        assert family.type in {"counter", "gauge", "histogram"}
        assert not re.search(r"_(counter|gauge|histogram|total|ms|millis)$", family.name)
        assert not re.search(r"[A-Z]", family.name)


def test_every_metric_is_documented(serve: Callable[..., Running], tmp_path: Path) -> None:
    """docs/metrics.md lists name, type, labels and meaning of what a server with a store shows, and nothing else."""
    running = serve(data=str(tmp_path / "data"))
    exercise(running)
    families = text_string_to_metric_families(running.get("/metrics")[1])
    shown = sorted(row_of(family) for family in families if family.name.startswith("quotad_"))
    page = (Path(__file__).parent.parent / "docs/metrics.md").read_text()

    assert "\n".join(shown) == "\n".join(sorted(re.findall(r"^\| `quotad_.*$", page, re.MULTILINE)))


def row_of(family: Metric) -> str:
    """A family as a line of the page's tables."""
    suffix = "_total" if family.type == "counter" else ""
    labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
    return f"| `{family.name}{suffix}` | {family.type} | {', '.join(labels)} | {family.documentation} |"


def test_openmetrics_on_request(running: Running) -> None:
    """who accepts OpenMetrics gets it."""
    request = urllib.request.Request(
        f"http://{running.addresses.http}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert response.read().endswith(b"# EOF\n")


def test_only_reading_is_served(running: Running) -> None:
    """HEAD has no body, and POST is not known."""
    head = urllib.request.Request(f"http://{running.addresses.http}/healthz", method="HEAD")
    with urllib.request.urlopen(head, timeout=5) as response:
        assert (200, b"") == (response.status, response.read())
    host, port = running.addresses.http.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /healthz HTTP/1.0\r\n\r\n")
        assert b" 501 " in connection.recv(100)


def test_a_flood_of_idle_connections_ends(serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """those past the maximum are closed at once, the others when their time is over; then all is as before."""
    monkeypatch.setattr(http, "REQUEST_SECONDS_MAX", 0.2)
    running = serve()
    host, port = running.addresses.http.split(":")
    began = time.monotonic()
    connections = [socket.create_connection((host, int(port)), timeout=5) for _ in range(http.REQUESTS_MAX + 5)]
    ends = []
    for connection in reversed(connections):
        ends.append(connection.recv(1))
        connection.close()

    assert {b""} == set(ends)
    assert 0.2 <= time.monotonic() - began < 4
    assert (200, "ok\n") == running.get("/healthz")


def test_metrics_that_cannot_be_read_are_told(serve: Callable[..., Running], caplog: pytest.LogCaptureFixture) -> None:
    """500 and a reason in the log, not a connection that ends without a word; the next scrape is asked anew."""
    running = serve()
    failing = Failing()
    running.server._registry.register(failing)
    answer = running.get("/metrics")
    running.server._registry.unregister(failing)

    assert (500, "metrics cannot be read; the log says why\n") == answer
    assert "IndexError: no such row" in caplog.text
    assert 200 == running.get("/metrics")[0]


class Failing(Collector):
    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        raise IndexError("no such row")
