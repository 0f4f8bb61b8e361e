"""The vendors' own clients, each request in a process of the Python that has them: see sdk.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from gateways.envoy import BUILT

KEYS = {"anthropic": "key-of-ann", "openai": "key-of-bob"}
SECONDS_MAX = 60
PROGRAM = (str(BUILT / "venv/bin/python"), str(Path(__file__).parent / "sdk.py"))


def begin(client: str, url: str, *how: str) -> subprocess.Popen[str]:
    """Start a client on one request, with its key of the example."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = (*PROGRAM, client, url, KEYS[client], *how)
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


def ended(client: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what the client made of it: `text`, or `error`, `message`, `status`, `body` and `headers`; and `seconds`."""
    output, _ = client.communicate(timeout=SECONDS_MAX)
    return dict(json.loads(output))
