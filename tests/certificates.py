"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


class Authority:
    """Signs. Its own certificate is `pair.cert`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self.pair = self._make(name, "-addext", "basicConstraints=critical,CA:TRUE")

    def sign(self, name: str, *names: str) -> Pair:
        """Make a certificate with such a subjectAltName: `DNS:localhost`, `URI:spiffe://x/y`."""
        signed = ("-CA", str(self.pair.cert), "-CAkey", str(self.pair.key))
        return self._make(name, *signed, "-addext", f"subjectAltName={','.join(names)}")

    def _make(self, name: str, *more: str) -> Pair:
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        files = ("-keyout", str(pair.key), "-out", str(pair.cert))
        command = ["openssl", "req", "-x509", *EC, *files, "-days", "2", "-subj", f"/CN={name}", *more]
        subprocess.run(command, check=True, capture_output=True)
        return pair
