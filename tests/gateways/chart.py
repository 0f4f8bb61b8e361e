"""The chart, rendered by Helm itself.

Run as a program, it writes what is generated: golden files, the schema of `settings`, and which of them are live.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import helm_python
from helm_python import _native
from ruamel.yaml import YAML

from quota.settings import SETTINGS, Setting

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm/quotad"
SCHEMA: Final = CHART / "values.schema.json"
LIVE: Final = CHART / "files/live-settings.txt"
CASES: Final = {path.stem: path for path in sorted(ROOT.glob("tests/helm/*.yaml"))}
GOLDEN: Final = ROOT / "tests/helm/golden"
OPERATOR: Final = "monitoring.coreos.com/v1"
# What the templates make of other values, and a person must not say a second time; and the demo, which is for a desk.
MADE: Final = frozenset({
    "listen", "http_listen", "admin_listen", "port", "http_port", "admin_port", "catalogs", "envoy_domains", "data",
    "ephemeral", "tokens", "tls_cert", "tls_key", "tls_client_ca", "tls_client_names",
    "admin_tls_cert", "admin_tls_key", "admin_tls_client_ca", "admin_tls_client_names", "demo",
})  # fmt: skip

Manifest = dict[str, Any]


def render(
    values: Manifest | None = None, *, kubernetes: str = "1.31.0", operator: bool = True, name: str = "quotad"
) -> dict[str, str]:
    """Return what each template becomes, by its path in the chart. Raises HelmError, as `helm install` would."""
    options = {
        "name": name,
        "namespace": "quota",
        "is_install": True,
        "kube_version": f"v{kubernetes}",
        "api_versions": [OPERATOR] if operator else [],
    }
    with helm_python.Chart.load(CHART) as chart:
        # Chart.render passes on neither the cluster's version nor what it serves, which the library beneath knows.
        rendered = _native.call_string("helm_render", chart._raw(), json.dumps(values or {}), json.dumps(options))
    return {path.removeprefix("quotad/"): text for path, text in json.loads(rendered).items()}


def manifests(rendered: dict[str, str]) -> list[Manifest]:
    """Return every object that would be made, as Kubernetes reads it."""
    return [
        document
        for path, text in rendered.items()
        if path.endswith(".yaml")
        for document in YAML(typ="safe", pure=True).load_all(text)
        if document is not None
    ]


def of_kind(kind: str, values: Manifest | None = None, name: str = "") -> Manifest:
    """Return the only object of a kind, or the one of that kind and name."""
    found = [
        manifest
        for manifest in manifests(render(values))
        if manifest["kind"] == kind and name in ("", manifest["metadata"]["name"])
    ]
    assert len(found) == 1, (kind, name, len(found))
    return found[0]


def read_values(path: Path) -> Manifest:
    """Return a file of values."""
    return helm_python.values_from_yaml(path.read_text())


def golden(values: Manifest) -> str:
    """Return all that a release makes, as one text.

    Rules and dashboard are left out: they are whole files, which have tests of their own.
    """
    kept = {
        path: text
        for path, text in sorted(render(values).items())
        if text.strip() and path != "templates/monitoring.yaml"
    }
    return "".join(f"# ---- {path}\n{text.strip()}\n\n" for path, text in kept.items())


# ---- The schema of `settings` ---------------------------------------------------------------------------------------


def settings_schema() -> Manifest:
    """Return what `settings` may hold: every setting that no other value makes."""
    properties = {setting.key: _schema(setting) for setting in SETTINGS if setting.key not in MADE}
    return {"type": "object", "additionalProperties": False, "required": ["grace_ms"], "properties": properties}


def live_settings() -> str:
    """Return the settings that a pod need not be started anew for, a line each."""
    return "".join(f"{setting.key}\n" for setting in SETTINGS if setting.live and setting.key not in MADE)


def _schema(setting: Setting) -> Manifest:
    told: Manifest = {"description": setting.help}
    if whole := re.fullmatch(r"a whole number from (\d+) to (\d+)", setting.allowed):
        return told | {"type": "integer", "minimum": int(whole[1]), "maximum": int(whole[2])}
    if setting.allowed == "true or false":
        return told | {"type": "boolean"}
    if setting.allowed.startswith("a list of"):
        return told | {"type": "array", "items": {"type": "string"}}
    if re.fullmatch(r"\w+(, \w+)+", setting.allowed):
        return told | {"enum": setting.allowed.split(", ")}
    return told | {"type": "string"}


def main() -> None:
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n")
    LIVE.write_text(live_settings())
    for case, path in CASES.items():
        (GOLDEN / f"{case}.txt").write_text(golden(read_values(path)))


if __name__ == "__main__":
    main()
