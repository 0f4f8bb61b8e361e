"""Tokens: who may call what, from a file that is read again when it changes.

    - name: gateway
      token: VXqB1m0cK3r8dZp5JtLw
      role: write
    - {name: dashboard, token: nT7sQe2aHy4uFb9kXc6v, role: read}

A caller shows his token as `authorization: Bearer TOKEN`. A file that has become bad changes nothing: the tokens read before
stay, and the log says what is the matter.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Final

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from quota.errors import FailedPrecondition
from quota.server.stamps import LOOK_SECONDS, stamps
from quota.yaml_file import YamlFileError, compose

FILE_BYTES_MAX: Final = 1_000_000
TOKENS_MAX: Final = 256
KEYS: Final = ("name", "token", "role")
EXAMPLE: Final = "a list of {name: gateway, token: TOKEN, role: write}"
TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")
TOKEN_ALLOWED: Final = "16 to 256 letters, digits and -._~+/="

READING: Final = frozenset({
    "Peek", "GetUsage", "GetAccount", "ListAccounts", "ListCatalogs", "CheckCatalog", "GetCapacity", "GetClock",
    "ListAudit", "DumpAccounts", "ServerReflectionInfo",
})  # fmt: skip
HEALTH: Final = "/grpc.health.v1.Health/"
UNKNOWN: Final = "authorization: a bearer token that the server knows is needed"
ONLY_READ: Final = "authorization: the token's role is read; this method needs write"

logger = logging.getLogger(__name__)


class Role(IntEnum):
    """What a caller may do; each includes the one before. Numbered as in core/front.pxd."""

    NONE = 0
    READ = 1
    WRITE = 2


def least_role(path: str) -> Role:
    """Return the least role that may call a method, given as `/package.Service/Method`. Whoever probes health needs none."""
    if path.startswith(HEALTH):
        return Role.NONE
    return Role.READ if path.rpartition("/")[2] in READING else Role.WRITE


class Tokens:
    """The tokens of a file. `watch` it, and `close` it."""

    def __init__(self, file: Path) -> None:
        """Read the file. Raises FailedPrecondition, naming setting, file and line."""
        self._file = file
        self._key = secrets.token_bytes(32)
        self._stamps = stamps([file])
        try:
            self._roles = _read(file)
        except YamlFileError as error:
            raise FailedPrecondition(f"setting tokens: {error}") from error
        self._by_digest = self._digested()
        self._told: list[Callable[[list[tuple[bytes, int]]], None]] = []
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def roles(self) -> list[tuple[bytes, int]]:
        """Return every token and its role's number."""
        return [(token, int(role)) for token, role in self._roles.items()]

    def role_of(self, authorization: str | bytes | None) -> Role:
        """Return what the bearer of such a header may do.

        Found by a keyed digest, so that the time it takes tells nothing of a token.
        """
        shown = authorization.encode("utf-8", "replace") if isinstance(authorization, str) else authorization
        if shown is None or shown[:7] not in (b"Bearer ", b"bearer "):
            return Role.NONE
        return self._by_digest.get(self._digest(shown[7:]), Role.NONE)

    def watch(self, told: Callable[[list[tuple[bytes, int]]], None] | None = None) -> None:
        """Read the file again whenever it changes, from now on; `told` gets the tokens now, and again after a change."""
        if told is not None:
            self._told.append(told)
            told(self.roles())
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="tokens", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Read the file again if it has changed."""
        found = stamps([self._file])
        if found == self._stamps:
            return
        self._stamps = found
        try:
            self._roles = _read(self._file)
        except YamlFileError as error:
            logger.error("setting tokens: %s; the tokens read before stay", error)
            return
        self._by_digest = self._digested()
        logger.info("%s: read again, %d tokens", self._file, len(self._roles))
        for told in self._told:
            told(self.roles())

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            self.look()

    def _digested(self) -> dict[bytes, Role]:
        return {self._digest(token): role for token, role in self._roles.items()}

    def _digest(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, key=self._key, digest_size=32).digest()


def _read(file: Path) -> dict[bytes, Role]:
    """Read a file of tokens. Raises YamlFileError."""
    root = compose(file, FILE_BYTES_MAX, EXAMPLE)
    if not isinstance(root, SequenceNode) or not root.value:
        line = root.start_mark.line + 1 if root is not None else 1
        raise YamlFileError(f"{file}:{line}: no tokens; allowed: {EXAMPLE}")
    if len(root.value) > TOKENS_MAX:
        raise YamlFileError(f"{file}: {len(root.value)} tokens, {TOKENS_MAX} are allowed at most")
    roles: dict[bytes, Role] = {}
    names: dict[str, int] = {}
    for node in root.value:
        place = f"{file}:{node.start_mark.line + 1}"
        entry = _entry(node, file)
        if entry["name"] in names:
            raise YamlFileError(f"{place}: name: {entry['name']!r} stands in line {names[entry['name']]} already")
        names[entry["name"]] = node.start_mark.line + 1
        token = entry["token"].encode()
        if token in roles:
            raise YamlFileError(f"{place}: token: another name has the same")
        roles[token] = Role[entry["role"].upper()]
    return roles


def _entry(node: Node, file: Path) -> dict[str, str]:
    """Return name, token and role of one entry. What is said of a bad one never shows the token."""
    place = f"{file}:{node.start_mark.line + 1}"
    found: dict[str, str] = {}
    for key, value in node.value if isinstance(node, MappingNode) else ():
        if not isinstance(key, ScalarNode) or key.value not in KEYS or key.value in found:
            raise YamlFileError(f"{file}:{key.start_mark.line + 1}: allowed are {', '.join(KEYS)}, each once")
        found[key.value] = value.value if isinstance(value, ScalarNode) else ""
    missing = [key for key in KEYS if key not in found]
    if missing:
        raise YamlFileError(f"{place}: {missing[0]} is missing; allowed: {EXAMPLE}")
    if not 1 <= len(found["name"].encode()) <= 128 or not found["name"].isprintable():
        raise YamlFileError(f"{place}: name: allowed: 1 to 128 bytes")
    if not TOKEN.fullmatch(found["token"]):
        raise YamlFileError(f"{place}: token of {found['name']!r}: allowed: {TOKEN_ALLOWED}")
    if found["role"] not in ("read", "write"):
        raise YamlFileError(f"{place}: role: {found['role']!r} is not allowed; allowed: read, write")
    return found
