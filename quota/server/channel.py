"""TLS for the native front: one channel a connection, from bytes to bytes, and the certificates they are made from.

The loop moves the bytes. Only HTTP/2 is spoken: a peer that does not choose `h2` by ALPN is hung up on.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from quota.errors import FailedPrecondition
from quota.server.stamps import LOOK_SECONDS, stamps

PROTOCOL: Final = "h2"
READ_BYTES: Final = 65_536

logger = logging.getLogger(__name__)


class Channels:
    """Makes channels from certificate files, and reads these again when they change; bad ones never replace good ones.

    With `client_ca` every peer shows a certificate that it signed, and with `client_names` one of these names (DNS names or
    URIs of the certificate's subjectAltName). Raises FailedPrecondition if the files cannot be used.
    """

    def __init__(
        self, cert: Path, key: Path, client_ca: Path | None = None, client_names: Collection[str] = ()
    ) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._client_names = frozenset(client_names)
        self._read_at = stamps((self._cert, self._key, self._client_ca))
        self._context = self._read()
        self._look_at = time.monotonic() + LOOK_SECONDS

    def __call__(self) -> Channel:
        """Return the channel of a connection that was just accepted."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._read_again()
        return Channel(self._context, self._client_names)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([PROTOCOL])
        try:
            context.load_cert_chain(self._cert, self._key, password="")  # not asked for on a terminal
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:  # also ssl.SSLError
            files = ", ".join(str(file) for file in (self._cert, self._key, self._client_ca) if file)
            raise FailedPrecondition(f"TLS cannot be served with {files}: {error}") from error
        return context

    def _read_again(self) -> None:
        found = stamps((self._cert, self._key, self._client_ca))
        if found == self._read_at:
            return
        self._read_at = found
        try:
            self._context = self._read()
            logger.info("%s: read again", self._cert)
        except FailedPrecondition as error:
            logger.error("%s; the certificates read before stay", error)


class Channel:
    """One connection's TLS. `decrypt` what arrives, `encrypt` what goes; whatever either raises ends the connection."""

    def __init__(self, context: ssl.SSLContext, client_names: frozenset[str]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._client_names = client_names
        self._early: bytes | None = b""  # what is to be sent once the handshake is done; None: it is

    def decrypt(self, data: bytes) -> bytes | None:
        """Return what the peer has said so far, which may be nothing; None if it has said good-bye."""
        self._incoming.write(data)
        if self._early is not None and not self._shake_hands(self._early):
            return b""
        parts = []
        try:
            while part := self._tls.read(READ_BYTES):
                parts.append(part)
        except ssl.SSLWantReadError:
            return b"".join(parts)
        return b"".join(parts) or None

    def encrypt(self, data: bytes) -> bytes:
        """Return what is to be sent: the data, as soon as the handshake is done, behind what TLS itself has to say."""
        if self._early is not None:
            self._early += data
        elif data:
            self._tls.write(data)
        return self._outgoing.read()

    def _shake_hands(self, early: bytes) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        if self._tls.selected_alpn_protocol() != PROTOCOL:
            raise ssl.SSLError(f"the peer does not speak {PROTOCOL}")
        if self._client_names and not self._client_names & _names(self._tls.getpeercert()):
            raise ssl.SSLError("the peer's certificate bears no name that is allowed")
        self._early = None
        if early:
            self._tls.write(early)
        return True


def _names(certificate: object) -> frozenset[str]:
    """The DNS names and URIs of a certificate, as ssl gives it."""
    names = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return frozenset(name for kind, name in names if kind in ("DNS", "URI"))
