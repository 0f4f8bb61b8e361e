"""The chart: what Helm makes of it, for clusters of several kinds, and what it refuses."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import helm_python
import kubernetes_validate
import pytest
from certificates import Authority
from conftest import Running
from ruamel.yaml import YAML

from gateways.chart import (
    CASES,
    CHART,
    GOLDEN,
    LIVE,
    MADE,
    OPERATOR,
    ROOT,
    SCHEMA,
    Manifest,
    golden,
    live_settings,
    manifests,
    of_kind,
    read_values,
    render,
    settings_schema,
)  # fmt: skip
from gateways.pod_security import violations
from quota import settings
from quota.cli import main
from quota.client import AdminClient, Secrets, admit_request
from quota.settings import SETTINGS, Settings
from quota.v1 import admin_pb2, quota_pb2
from quota.version import VERSION

VERSIONS = ("1.27.0", "1.29.4", "1.31.0", "1.33.2", "1.35.0", "1.37.0")
OPERATORS_OWN = {"ServiceMonitor", "PrometheusRule"}
VALUES = read_values(CHART / "values.yaml")
SECURED = read_values(CASES["secured"])
LOOPBACK = "127.0.0.1"
TOKEN = "VXqB1m0cK3r8dZp5JtLw"
SHARDED: Manifest = {"store": {"ephemeral": True}, "sharded": True}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Manifest:
    """The values of one file in tests/helm."""
    return read_values(CASES[request.param])


def merged(*parts: Manifest) -> Manifest:
    """Values laid over one another, as Helm does."""
    whole: Manifest = {}
    for part in parts:
        for key, value in copy.deepcopy(part).items():
            nested = isinstance(value, dict) and isinstance(whole.get(key), dict)
            whole[key] = merged(whole[key], value) if nested else value
    return whole


def at(path: str, value: Any) -> Manifest:
    """Values in which only one is said: `store.size`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def pod_specs(found: list[Manifest]) -> list[Manifest]:
    """The spec of every pod that would run."""
    return [
        one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
        for one in found
        if one["kind"] in ("Pod", "StatefulSet")
    ]


# ---- What it makes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_lint_is_silent(case, version):
    """`helm lint --strict` has nothing to say beyond that there is no icon."""
    report = helm_python.lint(
        CHART, merged(case, at("serviceMonitor.enabled", False), at("rules.enabled", False)), strict=True, kube_version=f"v{version}"
    )  # fmt: skip

    assert ["icon is recommended"] == [message["error"] for message in report["messages"]]
    assert [] == report["errors"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_manifest(case, version):
    """Each object is what the schemas of that Kubernetes allow, with no field that they do not know."""
    found = manifests(render(case, kubernetes=version))

    assert {"StatefulSet", "Service", "ConfigMap", "Pod"} <= {manifest["kind"] for manifest in found}
    for manifest in found:
        if manifest["kind"] not in OPERATORS_OWN:
            kubernetes_validate.validate(manifest, version, strict=True)
        assert manifest["metadata"]["labels"]["helm.sh/chart"] == f"quotad-{VERSION}"


def test_validation_can_fail():
    """A field that Kubernetes does not know is found, so that the test above means something."""
    stateful = of_kind("StatefulSet")
    stateful["spec"]["replica"] = 1

    with pytest.raises(kubernetes_validate.ValidationError, match="'replica' was unexpected"):
        kubernetes_validate.validate(stateful, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", CASES)
def test_golden_files(name):
    """What a case makes is what was looked at last; `make golden` writes it anew."""
    assert (GOLDEN / f"{name}.txt").read_text() == golden(read_values(CASES[name]))


def test_pods_are_restricted(case):
    """Every pod keeps the Pod Security Standard "restricted", and what we ask beyond it."""
    specs = pod_specs(manifests(render(case)))

    assert len(specs) == 2
    for spec in specs:
        assert [] == violations(spec)
        assert spec["automountServiceAccountToken"] is False
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in spec["containers"])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"hostNetwork": True}, ["hostNetwork"]),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, ["volume host: hostPath"]),
        ({"securityContext": {}}, ["container quotad: runAsNonRoot", "container quotad: seccompProfile"]),
        ({"containers": [{"name": "bare"}]}, ["container bare: allowPrivilegeEscalation", "container bare: capabilities.drop"]),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_is_not_restricted_is_found(change, found):
    """The check sees what would break the standard."""
    spec = of_kind("StatefulSet")["spec"]["template"]["spec"]

    assert found == violations(spec | change)


def test_no_variables_for_services():
    """A Service named quotad would become $QUOTAD_PORT=tcp://..., and the server would refuse to start."""
    with pytest.raises(settings.SettingsError, match=r"\$QUOTAD_PORT: 'tcp://10.0.0.1:50051' is not allowed"):
        settings.load({}, {"QUOTAD_PORT": "tcp://10.0.0.1:50051"})

    for spec in pod_specs(manifests(render())):
        assert spec["enableServiceLinks"] is False


def test_time_to_stop():
    """The pod may end as slowly as the server does: whole seconds, rounded up, and 30 for what is left to write."""
    found = [
        of_kind("StatefulSet", at("settings.grace_ms", grace_ms))["spec"]["template"]["spec"]
        for grace_ms in (0, 5_000, 5_001, 600_000)
    ]

    assert [30, 35, 36, 630] == [spec["terminationGracePeriodSeconds"] for spec in found]
    assert Settings().grace_ms == VALUES["settings"]["grace_ms"]


def test_probes():
    """Asked by gRPC; over TLS, which the kubelet's gRPC does not speak, by HTTP."""
    plain, secured = (
        of_kind("StatefulSet", values)["spec"]["template"]["spec"]["containers"][0] for values in ({}, SECURED)
    )
    probes = ("startupProbe", "readinessProbe", "livenessProbe")

    assert [{"port": 50051}] * 3 == [plain[probe]["grpc"] for probe in probes]
    assert ["/readyz", "/readyz", "/healthz"] == [secured[probe]["httpGet"]["path"] for probe in probes]


def test_restarts_only_where_it_must():
    """A setting that holds until a restart makes another pod; what is read again while one runs does not."""

    def pod(*parts: Manifest) -> Manifest:
        made: Manifest = of_kind("StatefulSet", merged(*parts))["spec"]["template"]
        return made

    catalogs = read_values(CASES["catalogs"])

    assert pod(catalogs) == pod(catalogs, at("catalogs.files", {"lumen.yaml": "catalog: other"}))
    assert pod(catalogs) == pod(catalogs, at("settings.log_level", "info"), at("settings.holds_max", 7))
    assert pod(catalogs) != pod(catalogs, at("settings.durability", "strict"))


def test_one_pod_has_no_disruption_budget():
    """A budget for a single pod would keep its node from being drained."""
    kinds = [
        {manifest["kind"] for manifest in manifests(render(values))}
        for values in ({}, SHARDED, SHARDED | {"replicas": 2})
    ]

    assert [False, False, True] == ["PodDisruptionBudget" in each for each in kinds]


def test_sharded_pods_have_no_service_that_spreads_calls():
    """Calls for one account would reach pods that do not know of one another."""
    found = [one for one in manifests(render(SHARDED | {"replicas": 3})) if one["kind"] == "Service"]

    assert ["None"] == [service["spec"]["clusterIP"] for service in found]


def test_control_port_is_closed_unless_opened():
    """Closed, it listens inside the pod only and no Service knows it; opened, only those named may connect."""

    def ports(found: list[Manifest], kind: str) -> list[int]:
        return [port["port"] for one in found if one["kind"] == kind for port in one["spec"]["ports"]]

    closed, opened = manifests(render()), manifests(render(SECURED))
    policy = of_kind("NetworkPolicy", SECURED)

    assert 50052 not in ports(closed, "Service")
    assert 'admin_listen: "127.0.0.1"' in of_kind("ConfigMap")["data"]["quotad.yaml"]
    assert 2 == ports(opened, "Service").count(50052)
    assert [
        {"ports": [{"port": "grpc", "protocol": "TCP"}, {"port": "http", "protocol": "TCP"}]},
        {"ports": [{"port": "control", "protocol": "TCP"}], "from": SECURED["control"]["allowFrom"]},
    ] == policy["spec"]["ingress"]


def test_selectors_never_change():
    """No label that an upgrade changes selects anything, and the test's pod is nobody's backend."""
    stateful, test = of_kind("StatefulSet"), of_kind("Pod")
    selectors = [stateful["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in manifests(render()) if one["kind"] == "Service"]

    for selector in selectors:
        assert {"app.kubernetes.io/name": "quotad", "app.kubernetes.io/instance": "quotad"} == selector
        assert not selector.items() <= test["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("quotad", {}, "quotad"),
        ("prod", {}, "prod-quotad"),
        ("my-quotad", {}, "my-quotad"),
        ("r" * 53, {}, "r" * 50),
        ("prod", {"nameOverride": "quotas"}, "prod-quotas"),
        ("prod", {"fullnameOverride": "q"}, "q"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_names(release, values, name):
    """Names come from the release, and leave room for what Kubernetes adds to a StatefulSet's."""
    found = [one for one in manifests(render(values, name=release)) if one["kind"] == "StatefulSet"]

    assert [name] == [stateful["metadata"]["name"] for stateful in found]


def test_notes_name_what_exists():
    """What the notes tell to type or to call are names of objects that were made."""
    for values in ({}, SECURED, SHARDED | {"replicas": 3}):
        rendered = render(values)
        names = {manifest["metadata"]["name"] for manifest in manifests(rendered)}
        notes = rendered["templates/NOTES.txt"]

        hosts = set(re.findall(r"([a-z-]+)\.quota\.svc", notes))
        assert hosts
        assert hosts <= names
        assert {"quotad"} == set(re.findall(r"(?:exec |port-forward |statefulset/)([a-z]+)(?:-0|\n)", notes))


def test_helm_test_tells_a_server_from_none(running):
    """What the test's pod runs ends well before a server that answers, and badly once it is gone."""
    (script,) = of_kind("Pod")["spec"]["containers"][0]["args"]
    script = script.replace("quotad-headless.quota.svc:8080", running.addresses.http)
    script = script.replace("quotad.quota.svc:50051", running.addresses.data)
    assert ".svc" not in script
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run() -> subprocess.CompletedProcess[str]:
        command = ["sh", "-euc", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    answered = run()
    running.server.stop()

    assert (0, True) == (answered.returncode, "ACCOUNT_UNKNOWN" in answered.stdout), answered
    assert 0 != run().returncode


# ---- Beside the Prometheus Operator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["serviceMonitor.enabled", "rules.enabled"])
def test_without_the_operator_its_objects_are_refused(path):
    """Where the cluster does not know them, Helm says which values ask for them and what to do."""
    with pytest.raises(helm_python.HelmRenderError, match=f"serviceMonitor.enabled and rules.enabled need.*{OPERATOR}"):
        render(at(path, True), operator=False)


def test_without_the_operator_the_rest_is_the_same():
    """Neither its presence nor the version of Kubernetes changes what is made by default."""
    clusters = itertools.product(VERSIONS, (True, False))
    made = {json.dumps(render(kubernetes=version, operator=operator)) for version, operator in clusters}

    assert 1 == len(made)


def test_scraped_once():
    """The ServiceMonitor selects one Service, by a port that it has."""
    values = read_values(CASES["operator"])
    monitor = of_kind("ServiceMonitor", values)
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [one for one in manifests(render(values)) if one["kind"] == "Service"]
    chosen = [service for service in services if wanted <= service["metadata"]["labels"].items()]

    assert ["quotad-headless"] == [service["metadata"]["name"] for service in chosen]
    assert [{"port": "http", "interval": "15s"}] == monitor["spec"]["endpoints"]
    assert "quotad" == chosen[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    assert "http" in [port["name"] for port in chosen[0]["spec"]["ports"]]


def test_rules_and_dashboard_are_the_files():
    """Neither Helm nor YAML changes a letter of what promtool and Grafana are given; `{{ $labels }}` is Prometheus's own."""
    values = read_values(CASES["operator"])
    rules = of_kind("PrometheusRule", values)
    dashboard = of_kind("ConfigMap", values, "quotad-dashboard")

    assert YAML(typ="safe", pure=True).load(CHART / "files/rules.yaml") == rules["spec"]
    assert json.loads((CHART / "files/dashboard.json").read_text()) == json.loads(dashboard["data"]["quotad.json"])


# ---- What quotad is told --------------------------------------------------------------------------------------------


def config_of(values: Manifest) -> str:
    """The configuration file that a case makes."""
    text: str = of_kind("ConfigMap", values, values.get("fullnameOverride", "quotad"))["data"]["quotad.yaml"]
    return text


def test_quotad_takes_the_configuration(case, tmp_path, capsys):
    """`quotad check` finds nothing in what a case makes."""
    file = tmp_path / "quotad.yaml"
    file.write_text(config_of(case))

    assert 0 == main(["check", str(file)])
    assert "good" in capsys.readouterr().out


def test_numbers_stay_numbers(tmp_path):
    """Helm reads numbers as floating point; a large one still arrives as it was said."""
    file = tmp_path / "quotad.yaml"
    file.write_text(config_of(read_values(CASES["catalogs"])))

    assert 4_294_967_296 == settings.load({}, {}, file).settings.input_bytes_max


def test_every_setting_has_one_place():
    """A setting is either made of other values or allowed in `settings`, whose schema is generated."""
    schema = json.loads(SCHEMA.read_text())["properties"]["settings"]

    assert settings_schema() == schema  # else: make golden
    assert live_settings() == LIVE.read_text()
    assert {setting.key for setting in SETTINGS} == schema["properties"].keys() | MADE


def test_domains_are_the_file_that_quotad_reads():
    """What Envoy's descriptors mean is said as in the file of `envoy_domains`."""
    values = read_values(CASES["envoy"])
    text = of_kind("ConfigMap", values, "quotad-envoy")["data"]["domains.yaml"]

    assert {"domains": values["envoy"]["domains"]} == YAML(typ="safe", pure=True).load(text)
    assert "hold_ms: 600000\n" in text
    assert "envoy_domains: /etc/quotad/envoy/domains.yaml\n" in config_of(values)


def as_mounted(directory: Path, files: dict[str, str]) -> None:
    """Lay files out as a volume of a ConfigMap or Secret does: links, through `..data`, to a directory named by its time."""
    (directory / "..2026_11_24").mkdir(parents=True)
    (directory / "..data").symlink_to("..2026_11_24")
    for name, text in files.items():
        (directory / "..2026_11_24" / name).write_text(text)
        (directory / name).symlink_to(f"..data/{name}")


@pytest.fixture
def installed(serve, tmp_path: Path) -> Callable[..., Running]:
    """Start a server with the configuration of a case, and its volumes: their files by the volume's name."""

    def start(values: Manifest, **volumes: dict[str, str]) -> Running:
        for volume, files in volumes.items():
            as_mounted(tmp_path / volume.replace("_", "-"), files)
        text = config_of(values).replace("/etc/quotad", str(tmp_path)).replace("/var/lib/quotad", f"{tmp_path}/data")
        as_mounted(tmp_path / "config", {"quotad.yaml": text})
        told = settings.load({}, {}, tmp_path / "config/quotad.yaml")
        own = {key: getattr(told.settings, key) for key, origin in told.origins.items() if origin != "default"}
        return serve(**own | {"demo": False, "listen": LOOPBACK, "admin_listen": LOOPBACK, "http_listen": LOOPBACK})

    return start


def test_a_server_runs_with_its_catalogs(installed):
    """A release's own catalog is served, and is the default."""
    values = read_values(CASES["catalogs"])
    running = installed(values, catalogs=of_kind("ConfigMap", values, "quotad-catalogs")["data"])

    running.admin.put_account(admin_pb2.Account(id="ada", plan="basic"))
    decided = running.data.admit(admit_request("ada", model="lumen-1"))

    assert ("lumen-2026", quota_pb2.ALLOWED) == (decided.catalog.name, decided.verdict)


def test_a_server_runs_with_its_secrets(installed, tmp_path):
    """With a release's certificates and tokens, who was named puts accounts from outside; who was not does not."""
    authority = Authority(tmp_path)
    ca = authority.pair.cert.read_text()
    server = authority.sign("server", "IP:127.0.0.1")
    shown = {"tls.crt": server.cert.read_text(), "tls.key": server.key.read_text(), "ca.crt": ca}
    tokens = f"[{{name: billing, token: {TOKEN}, role: write}}]"
    running = installed(SECURED, tls=shown, control_tls=shown, tokens={"tokens.yaml": tokens})

    def status(name: str, token: str = TOKEN) -> str:
        own = authority.sign(name, f"DNS:{name}")
        secrets = Secrets(token=token, ca=ca.encode(), cert=own.cert.read_bytes(), key=own.key.read_bytes())
        with AdminClient(running.addresses.control, secrets=secrets) as client:
            try:
                client.put_account(admin_pb2.Account(id="ada", plan="pro"))
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    assert "OK" == status("billing.example.org")
    assert "UNAUTHENTICATED" == status("gateway.example.org")
    assert "UNAUTHENTICATED" == status("billing.example.org", token="")


# ---- Values ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "typo": ({"replica": 2}, "additional properties 'replica' not allowed"),
    "more replicas with a store": ({"replicas": 2}, "at '/replicas': maximum: got 2, want 1"),
    "more ephemeral replicas unknowingly": (
        {"replicas": 2, "store": {"ephemeral": True}},
        "at '/replicas': maximum: got 2, want 1",
    ),
    "sharded with a store": ({"sharded": True}, "at '/sharded': value must be false"),
    "root": ({"userId": 0}, "at '/userId': minimum: got 0, want 1"),
    "unknown setting": (at("settings.pot", 1), "additional properties 'pot' not allowed"),
    "setting that is made": (at("settings.port", 1), "additional properties 'port' not allowed"),
    "setting out of range": (at("settings.grace_ms", 600_001), "at '/settings/grace_ms': maximum: got 600,001, want 600,000"),
    "setting of another kind": (at("settings.log_level", "loud"), "at '/settings/log_level': value must be one of"),
    "setting in the environment": (
        {"extraEnv": [{"name": "QUOTAD_PORT", "value": "1"}]},
        "at '/extraEnv/0/name': 'not' failed",
    ),
    "control port for everybody": (
        {"control": {"open": True, "secret": "s"}},
        "at '/control/allowFrom': minItems: got 0, want 1",
    ),
    "control port without certificates": (
        {"control": {"open": True, "allowFrom": [{}]}},
        "at '/control/secret': minLength: got 0, want 1",
    ),
    "control port without those of clients": (
        {"control": {"open": True, "allowFrom": [{}], "secret": "s", "clientCaKey": ""}},
        "at '/control/clientCaKey': minLength: got 0, want 1",
    ),
    "closed port for somebody": ({"control": {"allowFrom": [{}]}}, "at '/control/allowFrom': maxItems: got 1, want 0"),
    "client certificates without TLS": (at("tls.clientCaKey", "ca.crt"), "at '/tls/clientCaKey': value must be ''"),
    "client names without certificates": (
        {"tls": {"secret": "s", "clientNames": ["a"]}},
        "at '/tls/clientNames': maxItems: got 1, want 0",
    ),
    "catalog that is no YAML file": (at("catalogs.files", {"mine.txt": "x"}), "invalid propertyName 'mine.txt'"),
    "size without a unit": (at("store.size", "10"), "at '/store/size': '10' does not match pattern"),
    "size as a number": (at("store.size", 10), "at '/store/size': got number, want string"),
    "shared volume": (at("store.accessMode", "ReadWriteMany"), "at '/store/accessMode': value must be one of"),
    "half a digest": (at("image.digest", "sha256:12"), "at '/image/digest': 'sha256:12' does not match pattern"),
    "interval without a unit": (at("serviceMonitor.interval", "30"), "at '/serviceMonitor/interval': '30' does not match"),
    "address of one interface": (at("listen", "10.0.0.1"), "at '/listen': value must be one of '0.0.0.0', '::'"),
    "name in capitals": ({"fullnameOverride": "Quotad"}, "at '/fullnameOverride': 'Quotad' does not match pattern"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_values_are_refused(name):
    """Helm names the value and what is allowed, before anything is made."""
    values, message = REFUSED[name]

    with pytest.raises(helm_python.HelmError, match=re.escape(message)):
        render(values)


# Each value of values.yaml, another one that is allowed, and what else has to be said for it to matter.
USED: dict[str, tuple[Any, Manifest]] = {
    "image.repository": ("other", {}),
    "image.tag": ("9", {}),
    "image.digest": ("sha256:" + "0" * 64, {}),
    "image.pullPolicy": ("Never", {}),
    "imagePullSecrets": ([{"name": "registry"}], {}),
    "nameOverride": ("other", {}),
    "fullnameOverride": ("other", {}),
    "replicas": (2, SHARDED),
    "sharded": (True, at("store.ephemeral", True)),
    "userId": (4711, {}),
    "resources": ({"limits": {"memory": "1Gi"}}, {}),
    "labels": ({"a": "b"}, {}),
    "podLabels": ({"a": "b"}, {}),
    "podAnnotations": ({"a": "b"}, {}),
    "serviceAccountName": ("other", {}),
    "priorityClassName": ("other", {}),
    "nodeSelector": ({"a": "b"}, {}),
    "tolerations": ([{"key": "a"}], {}),
    "affinity": ({"podAffinity": {}}, {}),
    "extraEnv": ([{"name": "A", "value": "b"}], {}),
    "extraVolumes": ([{"name": "a", "emptyDir": {}}], {}),
    "extraVolumeMounts": ([{"name": "a", "mountPath": "/a"}], {}),
    "settings.grace_ms": (1, {}),
    "catalogs.files": ({"a.yaml": "catalog: a"}, {}),
    "catalogs.configMap": ("other", {}),
    "envoy.domains": ({"other": {}}, {}),
    "envoy.configMap": ("other", {}),
    "store.ephemeral": (True, {}),
    "store.size": ("1Ti", {}),
    "store.storageClassName": ("fast", {}),
    "store.accessMode": ("ReadWriteOncePod", {}),
    "tokens.secret": ("other", {}),
    "tokens.key": ("other", at("tokens.secret", "s")),
    "listen": ("::", {}),
    "tls.secret": ("other", {}),
    "tls.clientCaKey": ("other", at("tls.secret", "s")),
    "tls.clientNames": (["a.example.org"], {"tls": {"secret": "s", "clientCaKey": "ca.crt"}}),
    "control.open": (True, {"control": {"secret": "s", "allowFrom": [{"podSelector": {}}]}}),
    "control.secret": ("other", {}),
    "control.clientCaKey": ("other", at("control.secret", "s")),
    "control.clientNames": (["a.example.org"], at("control.secret", "s")),
    "control.allowFrom": ([{"podSelector": {}}], SECURED),
    "service.type": ("NodePort", {}),
    "service.annotations": ({"a": "b"}, {}),
    "service.appProtocol": ("kubernetes.io/h2c", {}),
    "serviceMonitor.enabled": (True, {}),
    "serviceMonitor.interval": ("1m", at("serviceMonitor.enabled", True)),
    "serviceMonitor.labels": ({"a": "b"}, at("serviceMonitor.enabled", True)),
    "rules.enabled": (True, {}),
    "rules.labels": ({"a": "b"}, at("rules.enabled", True)),
    "dashboard.enabled": (True, {}),
    "dashboard.labels": ({"a": "b"}, at("dashboard.enabled", True)),
}


def leaves(values: Manifest, prefix: str = "") -> list[str]:
    """Every value's path; a map that is empty, or one of labels, is a value itself."""
    return [
        leaf
        for key, value in values.items()
        for leaf in (
            leaves(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value and key != "labels"
            else [prefix + key]
        )
    ]


def test_every_value_is_in_the_table():
    """A new value needs a line in the table of the next test."""
    assert sorted(leaves(VALUES)) == sorted(USED)


@pytest.mark.parametrize("path", USED)
def test_every_value_is_used(path):
    """Another value makes another release."""
    value, beside = USED[path]
    without = {"control": {"open": False, "allowFrom": []}} if path == "control.open" else {}

    assert render(merged(beside, without)) != render(merged(beside, at(path, value)))


def test_every_value_is_told():
    """Each value in values.yaml stands under a sentence, and each group under one or a heading."""
    lines = (CHART / "values.yaml").read_text().splitlines()

    assert 250 >= len(lines)
    for number, line in enumerate(lines):
        if re.match(r" *[a-zA-Z_]+:", line) and not line.startswith("    "):
            is_group = re.fullmatch(r"[a-zA-Z]+:", line) is not None
            above = lines[number - 1].strip()
            assert is_group or above.startswith("# ") or above == "labels:", line
    for comment in re.findall(r"(?:^ *# [^-\n].*\n)+(?= *[a-zA-Z])", "\n".join(lines), re.MULTILINE):
        assert comment.rstrip().endswith("."), comment


def test_versions_are_one():
    """Chart and application are released together."""
    chart = YAML(typ="safe", pure=True).load(CHART / "Chart.yaml")

    assert (VERSION, VERSION) == (chart["version"], str(chart["appVersion"]))


def test_values_in_the_documentation_are_taken():
    """Every example of values makes a release, and so do all of them together."""
    examples = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/kubernetes.md").read_text(), re.MULTILINE | re.DOTALL)
    told = [helm_python.values_from_yaml(example) for example in examples]

    assert 5 <= len(told)
    for values in (*told, merged(*told)):
        assert manifests(render(values))
