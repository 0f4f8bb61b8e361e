"""The rivals that are found on the PATH, each with one limit an account, kept in memory (or by a Redis on the same core)."""

from __future__ import annotations

import shutil
from pathlib import Path

from asked import RIVAL_LIMIT, RIVAL_LIMIT_MS
from served import Served, free_port

# Name -> what it is asked, and the commands it needs.
RIVALS = {
    "limitador": ("descriptor", ("limitador-server",)),
    "gubernator": ("rate limit", ("gubernator",)),
    "ratelimit": ("descriptor", ("ratelimit", "redis-server")),
}


def missing(name: str) -> list[str]:
    """The commands of a rival that are not on the PATH."""
    return [command for command in RIVALS[name][1] if shutil.which(command) is None]


def start(name: str, directory: Path) -> Served:
    """Start a rival and return it once it listens."""
    served = Served(name, directory)
    starts = {"limitador": start_limitador, "gubernator": start_gubernator, "ratelimit": start_ratelimit}
    starts[name](served, directory)
    return served


def start_limitador(served: Served, directory: Path) -> None:
    limits = directory / "limitador.yaml"
    limits.write_text(
        f"- namespace: bench\n  max_value: {RIVAL_LIMIT}\n  seconds: {RIVAL_LIMIT_MS // 1000}\n"
        "  conditions: []\n  variables: [\"descriptors[0]['account']\"]\n"
    )
    command = ["limitador-server", "--rls-ip", "127.0.0.1", "--rls-port", str(served.port)]
    command += ["--http-ip", "127.0.0.1", "--http-port", str(free_port()), str(limits), "memory", "--cache", "100000"]
    served.start(command, variables={"RUST_LOG": "error"})


def start_gubernator(served: Served, directory: Path) -> None:
    itself = f"127.0.0.1:{free_port()}"
    variables = {
        "GUBER_GRPC_ADDRESS": f"127.0.0.1:{served.port}",
        "GUBER_ADVERTISE_ADDRESS": f"127.0.0.1:{served.port}",
        "GUBER_HTTP_ADDRESS": f"127.0.0.1:{free_port()}",
        "GUBER_MEMBERLIST_ADDRESS": itself,
        "GUBER_MEMBERLIST_BIND_ADDRESS": itself,
        "GUBER_MEMBERLIST_KNOWN_NODES": itself,  # it is alone, but has to find itself
        "GUBER_CACHE_SIZE": "100000",
        "GUBER_LOG_LEVEL": "error",
        "OTEL_TRACES_EXPORTER": "none",
    }
    served.start(["gubernator"], variables=variables)


def start_ratelimit(served: Served, directory: Path) -> None:
    redis_port = free_port()
    command = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    served.start(command, redis_port)
    config = directory / "ratelimit" / "bench" / "config" / "bench.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        "domain: bench\ndescriptors:\n  - key: account\n    rate_limit:\n"
        f"      unit: day\n      requests_per_unit: {RIVAL_LIMIT}\n"
    )
    variables = {
        "USE_STATSD": "false",
        "LOG_LEVEL": "error",
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"127.0.0.1:{redis_port}",
        "RUNTIME_ROOT": str(directory / "ratelimit"),
        "RUNTIME_SUBDIRECTORY": "bench",
        "RUNTIME_WATCH_ROOT": "false",
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "DEBUG_HOST": "127.0.0.1",
        "DEBUG_PORT": str(free_port()),
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(served.port),
    }
    served.start(["ratelimit"], variables=variables)
