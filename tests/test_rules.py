"""Rules and dashboard: every metric and label that they name is one that a server shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Running
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML
from test_metrics import exercise

ROOT = Path(__file__).parent.parent
RULES = ROOT / "helm/quotad/files/rules.yaml"
DASHBOARD = ROOT / "helm/quotad/files/dashboard.json"
TESTS = ROOT / "tests/gateways/rules_test.yaml"
TARGET_LABELS = frozenset({"job", "instance"})  # Prometheus' own
METRIC = re.compile(r"\b(?:quotad|process|job)_[\w:]+")
SELECTED = re.compile(r"\b([\w:]+)\{([^}]*)\}")
GROUPED = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")
SHOWN = re.compile(r"\{\{ ?(?:\$labels\.)?(\w+)[^}]*\}\}")  # but not $value


@pytest.fixture
def shown(serve: Callable[..., Running], tmp_path: Path) -> dict[str, frozenset[str]]:
    """The labels of every sample that a server with a store shows, by name, and of those that the rules record."""
    running = serve(data=str(tmp_path / "data"))
    exercise(running)
    labels = {
        sample.name: frozenset(sample.labels) | TARGET_LABELS
        for family in text_string_to_metric_families(running.get("/metrics")[1])
        for sample in family.samples
    }
    for rule in rules():
        if "record" in rule:
            labels[rule["record"]] = frozenset(rule["record"].partition(":")[0].split("_"))
    return labels


def rules() -> list[dict[str, Any]]:
    return [rule for group in YAML(typ="safe").load(RULES)["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def check(expression: str, text: str, shown: dict[str, frozenset[str]]) -> None:
    """Assert that the metrics exist, and have the labels that are selected, grouped by, or shown in the text."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    known = labels_of(bare, shown)
    for name, matchers in SELECTED.findall(bare):
        assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers)) <= shown[name], expression
    for labels in GROUPED.findall(bare):
        assert set(re.findall(r"\w+", labels)) <= known, expression
    left = bare.partition(" and on ")[0]  # what follows only says where it holds
    kept = {label for labels in re.findall(r"\bby \(([^)]*)\)", left) for label in re.findall(r"\w+", labels)}
    assert set(SHOWN.findall(text)) <= (kept or labels_of(left, shown)), (expression, text)


def labels_of(expression: str, shown: dict[str, frozenset[str]]) -> frozenset[str]:
    """All labels of the metrics in it."""
    names = METRIC.findall(SELECTED.sub(r"\1", GROUPED.sub("", expression)))
    assert names, expression
    assert set(names) <= shown.keys(), expression
    return frozenset().union(*(shown[name] for name in names))


def test_rules_name_what_there_is(shown: dict[str, frozenset[str]]) -> None:
    """expressions and annotations alike."""
    for rule in rules():
        check(rule["expr"], " ".join(rule.get("annotations", {}).values()), shown)


def test_records_are_named_by_their_labels(shown: dict[str, frozenset[str]]) -> None:
    """the name of a record begins with the labels that it keeps, as Prometheus advises."""
    for rule in rules():
        if "record" in rule:
            by = set(re.findall(r"\w+", re.search(r"\bby \(([^)]*)\)", rule["expr"])[1])) - {"le"}
            assert by == set(rule["record"].partition(":")[0].split("_")), rule["record"]


def test_every_alert_can_be_acted_on_and_is_tested() -> None:
    """each has a severity, a summary and what to do, a name of its own, and a case in the rules' tests."""
    alerts = [rule for rule in rules() if "alert" in rule]
    names = [alert["alert"] for alert in alerts]

    assert len(names) == len(set(names)) > 10
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} == alert["annotations"].keys()
        assert alert["alert"] in TESTS.read_text(), alert["alert"]


def test_the_dashboard_names_what_there_is(shown: dict[str, frozenset[str]]) -> None:
    """expressions of all panels, what their legends show, and the variables above them."""
    for panel in panels():
        for target in panel["targets"]:
            check(re.sub(r"\[\$\w+\]", "[5m]", target["expr"]), target["legendFormat"], shown)
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["query"]["query"]).groups()
            assert label in shown[name]


def test_the_dashboard_is_well_made() -> None:
    """panels have a title, a description that is a sentence, a unit and an id of their own, and do not overlap."""
    every = json.loads(DASHBOARD.read_text())["panels"]
    cells = [cell for panel in every for cell in cells_of(panel["gridPos"])]

    assert len(cells) == len(set(cells))
    assert len(every) == len({panel["id"] for panel in every})
    for panel in panels():
        assert panel["title"]
        assert re.fullmatch(r"[A-Z0-9].*\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def cells_of(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    assert place["x"] + place["w"] <= 24
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("quotad_holdz", ""),
        ('quotad_holds{color="red"}', ""),
        ("sum by (color) (quotad_holds)", ""),
        ("sum by (plan) (quotad_accounts)", "{{catalog}}"),
        ("quotad_holds", "{{ $labels.plan }}"),
        ("job:quotad_holds:sum", ""),
    ],
)
def test_what_there_is_not_is_noticed(expression: str, text: str, shown: dict[str, frozenset[str]]) -> None:
    """a metric or label that no server shows fails the check above."""
    with pytest.raises(AssertionError):
        check(expression, text, shown)
