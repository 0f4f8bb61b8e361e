"""A port served by grpcio: the control port always, and the data port as the reference of the native one."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from quota.server.access import Access
from quota.server.ports import address_text, cannot_listen
from quota.server.tls import GrpcCertificates, TlsFiles
from quota.server.tokens import Tokens
from quota.settings import Settings


class GrpcioFront:
    """Serves handlers and health on one port. `listen`, `start`, and `stop`. `reflected` are services to be described."""

    def __init__(
        self,
        settings: Settings,
        handlers: Sequence[grpc.GenericRpcHandler],
        *,
        tokens: Tokens,
        reflected: Sequence[str] = (),
        tls: TlsFiles | None = None,
    ) -> None:
        self._settings = settings
        self.certificates = GrpcCertificates(tls) if tls else None
        """What TLS is spoken with, a source of reload.Reloads; None: nothing."""
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(settings.rpc_threads, thread_name_prefix="rpc"),
            handlers=list(handlers),
            interceptors=[Access(tokens, tls.client_names if tls else frozenset())],
            options=(
                # Without this a second server on a taken port would share its calls instead of failing.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.message_bytes_max),
            ),
            maximum_concurrent_rpcs=settings.rpc_pending_max,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflected:
            reflection.enable_server_reflection(reflected, self._server)

    def listen(self, host: str, port: int, setting: str) -> str:
        """Take the port, and return the address. Raises FailedPrecondition.

        Tried with plain sockets first: their errors say what is the matter.
        """
        try:
            for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                with socket.socket(family, kind) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
            return address_text(host, self._take(address_text(host, port)))
        except (OSError, RuntimeError) as error:
            raise cannot_listen(host, port, setting, error) from error

    def _take(self, address: str) -> int:
        if self.certificates is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self.certificates.credentials())

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()

    def take(self, settings: Settings) -> None:
        """Go by these settings, as far as they may change while it runs."""
        self._settings = settings

    def send_traces(self) -> None:
        """Nothing is left to send: calls are spanned while they are served."""

    def set_health(self, statuses: Mapping[str, int]) -> None:
        """Say how services are: name to the number of grpc.health.v1."""
        for service, status in statuses.items():
            self._health.set(service, health_pb2.HealthCheckResponse.ServingStatus.ValueType(status))

    def stop(self) -> None:
        """Take no more, and let those be answered that are on their way, for `grace_ms` at most."""
        self._server.stop(self._settings.grace_ms / 1000).wait()
