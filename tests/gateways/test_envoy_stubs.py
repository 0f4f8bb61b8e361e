"""The wire of Envoy's protocol: what its published stubs send and read is what quotad means."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Running

PYTHON = Path(os.environ["GATEWAYS"]) / "venv/bin/python"


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_the_published_stubs(serve: Callable[..., Running], front: str) -> None:
    """every field that quotad fills in stands where the stubs look for it, and none that they do not know."""
    running = serve(front=front)
    # -P: the script's own folder has an envoy.py, and is not to be searched.
    script = Path(__file__).with_name("envoy_stubs.py")
    done = subprocess.run(
        [PYTHON, "-P", script, running.addresses.data], capture_output=True, text=True, timeout=60, check=False
    )
    assert 0 == done.returncode, done.stderr
    passed, refused = map(json.loads, done.stdout.splitlines())

    prompts = {"name": "prompts-5h", "requestsPerUnit": 80}
    searches = {"name": "mcp-month", "requestsPerUnit": 100, "unit": "MONTH"}
    left = {"currentLimit": prompts, "durationUntilReset": "18000s"}
    unused = {"code": "OK", "currentLimit": searches, "limitRemaining": 100}
    assert {"overallCode": "OK", "statuses": [{"code": "OK", **left}, unused]} == passed

    body = json.loads(base64.b64decode(refused.pop("rawBody")))
    headers = {header["key"]: header["value"] for header in refused.pop("responseHeadersToAdd")}
    assert {"overallCode": "OVER_LIMIT", "statuses": [{"code": "OVER_LIMIT", **left}, unused]} == refused
    assert "rate_limit_error" == body["error"]["type"]
    assert "Usage limit reached for 5 hour. Your limit will reset at 2026-07-06 20:00:00" in body["error"]["message"]
    assert ("18000", "false", "application/json") == tuple(
        headers[name] for name in ("retry-after", "x-should-retry", "content-type")
    )
