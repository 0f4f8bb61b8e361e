"""TLS: the files that the settings name, checked, and what grpcio serves them with."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from quota.errors import FailedPrecondition, InvalidArgument
from quota.server.stamps import stamps
from quota.settings import Settings

logger = logging.getLogger(__name__)


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
    def paths(self) -> tuple[Path | None, ...]:
        return self.cert, self.key, self.client_ca

    def check(self) -> None:
        """Raise FailedPrecondition, naming settings and files, if they cannot be used."""
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
        except ssl.SSLError as error:
            raise FailedPrecondition(
                f"setting {self.prefix}tls_client_ca: {self.client_ca}: no certificates in PEM: {_reason(error)}"
            ) from error


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
    files.check()
    return files


class GrpcCertificates:
    """Gives grpcio the certificates at every handshake, read again when the files change; bad ones never replace good ones."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps = stamps(files.paths)

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            self._read(), cast(Any, self._read_again), require_client_authentication=self._files.client_ca is not None
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        pair = (files.key.read_bytes(), files.cert.read_bytes())
        return grpc.ssl_server_certificate_configuration(
            [pair], root_certificates=files.client_ca.read_bytes() if files.client_ca else None
        )

    def _read_again(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is new, None if nothing is."""
        found = stamps(self._files.paths)
        if found == self._stamps:
            return None
        self._stamps = found
        try:
            self._files.check()
            made = self._read()
        except (FailedPrecondition, OSError) as error:
            logger.error("%s; the certificates read before stay", error)
            return None
        logger.info("%s: read again", self._files.cert)
        return made


def _reason(error: Exception) -> str:
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
