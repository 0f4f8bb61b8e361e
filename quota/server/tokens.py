"""Tokens: who may call what, from a file that may be read again.

    - name: gateway
      token: VXqB1m0cK3r8dZp5JtLw
      role: write
    - {name: dashboard, token: nT7sQe2aHy4uFb9kXc6v, role: read}

A caller shows his token as `authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Final

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from quota.errors import FailedPrecondition
from quota.server.reload import Put, stamps
from quota.settings import Settings
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
    """The tokens of a file; without one nobody needs any. Raises FailedPrecondition, naming setting, file and line."""

    what: Final = "tokens"
    keys: Final = ("tokens",)

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._key = secrets.token_bytes(32)
        self._told: list[Callable[[list[tuple[bytes, int]]], None]] = []
        self.first_stamps = stamps([file])
        self._roles: dict[bytes, Role] = {}
        self._put(file, _read(file) if file else {})

    def roles(self) -> list[tuple[bytes, int]]:
        """Return every token and its role's number."""
        return [(token, int(role)) for token, role in self._roles.items()]

    def role_of(self, authorization: str | bytes | None) -> Role:
        """Return what the bearer of such a header may do.

        Everything where there are no tokens. Found by a keyed digest, so that the time it takes tells nothing of a token.
        """
        if not self._by_digest:
            return Role.WRITE
        shown = authorization.encode("utf-8", "replace") if isinstance(authorization, str) else authorization
        if shown is None or shown[:7] not in (b"Bearer ", b"bearer "):
            return Role.NONE
        return self._by_digest.get(self._digest(shown[7:]), Role.NONE)

    def tell(self, told: Callable[[list[tuple[bytes, int]]], None]) -> None:
        """Have `told` get the tokens now, and again whenever others come in force."""
        self._told.append(told)
        told(self.roles())

    # ---- As a source of reload.Reloads ----

    def files(self) -> list[Path | None]:
        return [self._file]

    def read(self, settings: Settings) -> Put:
        file = Path(settings.tokens) if settings.tokens else None
        if file is None and self._roles:  # a configuration file cut short must not let everybody in
            raise FailedPrecondition(
                "setting tokens: a server that asks for tokens asks for them until it is restarted"
            )
        roles = _read(file) if file else {}
        return lambda: self._put(file, roles)

    def _put(self, file: Path | None, roles: dict[bytes, Role]) -> dict[str, object]:
        changed = roles != self._roles  # the front keeps memory for each set that it is told
        self._file, self._roles = file, roles
        self._by_digest = {self._digest(token): role for token, role in roles.items()}
        for told in self._told if changed else ():
            told(self.roles())
        return {"file": str(file or ""), "tokens": len(roles)}

    def _digest(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, key=self._key, digest_size=32).digest()


def _read(file: Path) -> dict[bytes, Role]:
    try:
        return _roles(file)
    except YamlFileError as error:
        raise FailedPrecondition(f"setting tokens: {error}") from error


def _roles(file: Path) -> dict[bytes, Role]:
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
