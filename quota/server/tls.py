"""TLS: the files that the settings name, checked, and what grpcio serves them with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import grpc

from quota.errors import FailedPrecondition, InvalidArgument
from quota.server.reload import Put, stamps
from quota.settings import Settings


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What one port is served with. With `client_ca` every peer shows a certificate that it signed.

    With `client_names` that certificate bears one of these names: DNS names or URIs of its subjectAltName.
    """

    prefix: str
    """Of the settings that name the files: empty, or `admin_`."""
    cert: Path
    key: Path
    client_ca: Path | None
    client_names: frozenset[str]

    @property
    def what(self) -> str:
        return f"{self.prefix}tls"

    @property
    def paths(self) -> tuple[Path | None, ...]:
        return self.cert, self.key, self.client_ca

    def context(self) -> ssl.SSLContext:
        """Return what ssl serves them with. Raises FailedPrecondition, naming settings and files, if they cannot be used."""
        named = (("tls_cert", self.cert), ("tls_key", self.key), ("tls_client_ca", self.client_ca))
        for name, path in named:
            try:
                if path is not None:
                    path.read_bytes()
            except OSError as error:
                raise FailedPrecondition(
                    f"setting {self.prefix}{name}: {path}: cannot be read: {error.strerror}"
                ) from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password="")  # not asked for on a terminal
        except (ssl.SSLError, ValueError) as error:
            raise FailedPrecondition(
                f"settings {self.prefix}tls_cert and {self.prefix}tls_key: {self.cert} and {self.key} are no certificate "
                f"and its unencrypted key in PEM: {_reason(error)}"
            ) from error
        try:
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as error:
            raise FailedPrecondition(
                f"setting {self.prefix}tls_client_ca: {self.client_ca}: no certificates in PEM: {_reason(error)}"
            ) from error
        return context


def tls_files(settings: Settings, prefix: str = "") -> TlsFiles | None:
    """Return the files for the data port, or with the prefix `admin_` for the control port; None: no TLS there.

    Raises InvalidArgument for settings that do not go together, and FailedPrecondition for files that cannot be used.
    """
    cert, key, client_ca = (getattr(settings, f"{prefix}tls_{name}") for name in ("cert", "key", "client_ca"))
    names = getattr(settings, f"{prefix}tls_client_names")
    if cert and not key:
        raise InvalidArgument(f"{prefix}tls_key", key, f"the file with the key of {prefix}tls_cert")
    if not cert and (key or client_ca):
        raise InvalidArgument(f"{prefix}tls_cert", cert, "the file with the certificate that the server shows")
    if names and not client_ca:
        raise InvalidArgument(f"{prefix}tls_client_ca", client_ca, f"a file, where {prefix}tls_client_names is set")
    if not cert:
        return None
    files = TlsFiles(prefix, Path(cert), Path(key), Path(client_ca) if client_ca else None, frozenset(names))
    files.context()
    return files


class GrpcCertificates:
    """What grpcio serves with; certificates that are read again hold from the next handshake on."""

    keys: Final = ()

    def __init__(self, files: TlsFiles) -> None:
        self.what = files.what
        self._files = files
        self.first_stamps = stamps(files.paths)
        self._made = self._make()
        self._next: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            self._made, cast(Any, self._take_next), require_client_authentication=self._files.client_ca is not None
        )

    # ---- As a source of reload.Reloads ----

    def files(self) -> tuple[Path | None, ...]:
        return self._files.paths

    def read(self, settings: Settings) -> Put:
        self._files.context()
        made = self._make()

        def put() -> dict[str, object]:
            self._next = made
            return {"file": str(self._files.cert)}

        return put

    def _make(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        pair = (files.key.read_bytes(), files.cert.read_bytes())
        return grpc.ssl_server_certificate_configuration(
            [pair], root_certificates=files.client_ca.read_bytes() if files.client_ca else None
        )

    def _take_next(self) -> grpc.ServerCertificateConfiguration | None:
        """What grpcio is to go on with; None: as before. Asked at every handshake."""
        made, self._next = self._next, None
        return made


def _reason(error: Exception) -> str:
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
