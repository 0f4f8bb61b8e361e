"""The HTTP port, and the metrics on it."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from collections.abc import Callable

import pytest
from conftest import Running
from prometheus_client.parser import text_string_to_metric_families

from quota import __version__
from quota.client import admit_request
from quota.server import http


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, /, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


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

    assert 3 == value(text, "quotad_accounts")
    assert 1 == value(text, "quotad_catalog_info", name=catalog.name, version=catalog.version)
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
