"""The floor and the generator of benchmarks/front: compiled, and the generator run on its core."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asked import Ask
from workload import WorkloadError

SOURCES = Path(__file__).with_name("front")
LIBRARIES = ("-lnghttp2", "-lssl", "-lcrypto")
CERTIFICATE = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, GENERATOR_CORE = CORES[0], CORES[-1]


def compile_into(directory: Path) -> None:
    """Compile `floor` and `load`. Raises SystemExit naming what is missing."""
    for name in ("floor", "load"):
        command = ["cc", "-O2", f"-o{directory / name}", str(SOURCES / f"{name}.c"), *LIBRARIES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stderr}\nneeded: a C compiler, libnghttp2-dev and libssl-dev")


def make_certificate(directory: Path) -> bool:
    """Make cert.pem and key.pem for localhost; false without an openssl command."""
    if shutil.which("openssl") is None:
        return False
    command = ["openssl", "req", *CERTIFICATE.split(), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return True


class Generator:
    """Runs `load` with files of messages that it keeps in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(
        self,
        ask: Ask,
        port: int,
        pids: Iterable[int],
        *,
        connections: int,
        streams: int,
        seconds: float,
        rate: float = 0,
        tls: bool = False,
    ) -> dict[str, Any]:
        """One measurement, as load.c prints it; `failed` counts calls that failed. Raises WorkloadError if there is none."""
        messages = self._directory / f"{ask.name}.messages"
        if not messages.exists():
            ask.write(messages)
        command = ["taskset", "-c", str(GENERATOR_CORE), str(self._directory / "load")]
        command += [f"--connections={connections}", f"--streams={streams}", f"--seconds={seconds}"]
        command += [f"--warm-up={seconds / 4}", f"--rate={rate}", f"--expect={ask.expect}", f"--digits={ask.digits}"]
        command += [f"--pid={pid}" for pid in pids] + ["--tls"] * tls
        command += [str(port), ask.path, str(messages)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.stdout:
            raise WorkloadError(done.stderr.strip())
        found: dict[str, Any] = json.loads(done.stdout)
        failed = ("http_failed", "grpc_failed", "message_failed", "reset", "unanswered")
        found["failed"] = sum(found.pop(key) for key in failed)
        found["why"] = done.stderr.strip()
        return found
