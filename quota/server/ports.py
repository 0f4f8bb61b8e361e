"""Ports: taking them, and saying what is the matter where one cannot be had."""

from __future__ import annotations

import socket
from typing import Final

from quota.errors import FailedPrecondition

BACKLOG: Final = 1024  # connections that the system keeps until they are accepted


def listening(host: str, port: int, setting: str) -> list[socket.socket]:
    """Listen on every address that `host` stands for, on one port, and do not block. Port 0 takes any free one.

    Raises FailedPrecondition, naming address and settings.
    """
    taken: list[socket.socket] = []
    try:
        for family, kind, _, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            listener = socket.socket(family, kind)
            taken.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], taken[0].getsockname()[1] if len(taken) > 1 else port, *address[2:]))
            listener.listen(BACKLOG)
            listener.setblocking(False)
    except OSError as error:
        for listener in taken:
            listener.close()
        raise cannot_listen(host, port, setting, error) from error
    return taken


def cannot_listen(host: str, port: int, setting: str, error: Exception) -> FailedPrecondition:
    """Return the error that says which settings ask for a port that cannot be had, and why it cannot."""
    reason = error.strerror if isinstance(error, OSError) else "the address cannot be had"
    listen = setting.replace("port", "listen")
    return FailedPrecondition(
        f"cannot listen on {address_text(host, port)} (settings {listen} and {setting}): {reason}"
    )


def address_text(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
