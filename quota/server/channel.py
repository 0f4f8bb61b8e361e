"""TLS for the native front: one channel a connection, from bytes to bytes, and the certificates they are made from.

The loop moves the bytes. Only HTTP/2 is spoken: a peer that does not choose `h2` by ALPN is hung up on.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from quota.server.reload import Put, stamps
from quota.server.tls import TlsFiles
from quota.settings import Settings

PROTOCOL: Final = "h2"
READ_BYTES: Final = 65_536


class Channels:
    """Makes channels from certificates; those that are read again hold for the connections to come."""

    keys: Final = ()

    def __init__(self, files: TlsFiles) -> None:
        self.what = files.what
        self._files = files
        self.first_stamps = stamps(files.paths)
        self._context = self._make()

    def __call__(self) -> Channel:
        """Return the channel of a connection that was just accepted."""
        return Channel(self._context, self._files.client_names)

    # ---- As a source of reload.Reloads ----

    def files(self) -> tuple[Path | None, ...]:
        return self._files.paths

    def read(self, settings: Settings) -> Put:
        context = self._make()

        def put() -> dict[str, object]:
            self._context = context
            return {"file": str(self._files.cert)}

        return put

    def _make(self) -> ssl.SSLContext:
        context = self._files.context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([PROTOCOL])
        return context


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
