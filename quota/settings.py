"""What a server is told: defaults, then the YAML file, then the environment, then flags; the later one holds.

Each field of `Settings` is one setting: `key` in the file, `QUOTAD_KEY` in the environment, `--key` as a flag.
Everything is checked before anything starts, and every fault is named with its place, value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from quota.errors import QuotaError
from quota.ranges import BOUNDS_MOST
from quota.store.durability import ALLOWED as DURABILITY_ALLOWED
from quota.store.durability import Durability
from quota.types import Bounds
from quota.yaml_file import YamlFileError, compose

Value = str | int | bool | tuple[str, ...]

CONFIG_BYTES_MAX: Final = 1_000_000
EXAMPLE: Final = "lines such as `port: 50051`"
ENVIRONMENT_PREFIX: Final = "QUOTAD_"
# Variables that the client commands read; no settings of the server, and no mistakes either.
CLIENT_VARIABLES: Final = frozenset({
    "QUOTAD_SERVER", "QUOTAD_ADMIN_SERVER", "QUOTAD_TOKEN_FILE", "QUOTAD_TLS", "QUOTAD_CA", "QUOTAD_CERT", "QUOTAD_KEY",
})  # fmt: skip


class SettingsError(QuotaError):
    """Settings that a server cannot run with. `problems` holds every one found, each with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _NotAllowedError(Exception):
    """A value that a setting does not take; turned into a problem by whoever knows the place."""


# ---- What a value may be --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one setting is read. `read` takes a string, or what the file holds, and raises _NotAllowedError."""

    read: Callable[[object], Value]
    allowed: str


def _whole(least: int, most: int) -> _Kind:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _NotAllowedError
        return value

    return _Kind(read, f"a whole number from {least} to {most}")


def _switch() -> _Kind:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or value.lower() not in words:
            raise _NotAllowedError
        return words[value.lower()]

    return _Kind(read, "true or false")


def _host() -> _Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or not value:
            raise _NotAllowedError
        try:
            ipaddress.ip_address(value)
        except ValueError:
            if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?", value):
                raise _NotAllowedError from None
        return value

    return _Kind(read, "an address or a host name, without a port, such as 127.0.0.1 or ::1")


def _word() -> _Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or not 1 <= len(value.encode()) <= 128 or not value.isprintable():
            raise _NotAllowedError
        return value

    return _Kind(read, "a name of 1 to 128 bytes")


def _choice(*words: str) -> _Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise _NotAllowedError
        return value.lower()

    return _Kind(read, ", ".join(words))


def _paths() -> _Kind:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = value.split(os.pathsep)
        if not isinstance(value, list | tuple) or not all(isinstance(path, str) and path for path in value):
            raise _NotAllowedError
        return tuple(value)

    return _Kind(read, f"a list of files or directories (in the environment with {os.pathsep!r} between them)")


def _names() -> _Kind:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = value.split(",") if value else []
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
            raise _NotAllowedError
        return tuple(value)

    return _Kind(read, "a list of names (in the environment with ',' between them)")


def _file() -> _Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise _NotAllowedError
        return value

    return _Kind(read, "a file, or nothing")


def _path() -> _Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise _NotAllowedError
        return value

    return _Kind(read, "a directory")


def _durability() -> _Kind:
    def read(value: object) -> str:
        try:
            return str(Durability.parse(str(value)))
        except ValueError:
            raise _NotAllowedError from None

    return _Kind(read, DURABILITY_ALLOWED)


# ---- The settings ---------------------------------------------------------------------------------------------------


def _setting(default: Value | Callable[[], Value], kind: _Kind, meaning: str, *, live: bool = False) -> Any:
    """`live` settings may change while a server runs; the others hold until it is started again."""
    metadata = {"kind": kind, "help": meaning, "live": live}
    return (
        field(default_factory=default, metadata=metadata)
        if callable(default)
        else field(default=default, metadata=metadata)
    )


def state_directory() -> str:
    """Return where the store is unless told otherwise: where XDG wants what a program keeps between its runs."""
    for state in (os.environ.get("XDG_STATE_HOME", ""), os.path.expanduser("~/.local/state")):
        if state.startswith("/"):
            return str(Path(state, "quotad"))
    return "/var/lib/quotad"  # nobody's home: a container that runs as some number


_BOUNDS: Final = Bounds()


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything a server is told, checked. Lengths in bytes, times in milliseconds, as the names say."""

    listen: str = _setting("127.0.0.1", _host(), "address of the data port")
    admin_listen: str = _setting(
        "127.0.0.1",
        _host(),
        "address of the control port; whoever reaches it may do anything, unless tokens or admin_tls_client_ca is set",
    )
    http_listen: str = _setting("127.0.0.1", _host(), "address of the HTTP port")
    port: int = _setting(50051, _whole(0, 65535), "data port: QuotaService; 0 = any free one")
    admin_port: int = _setting(50052, _whole(0, 65535), "control port: AdminService, reflection; 0 = any free one")
    http_port: int = _setting(8080, _whole(0, 65535), "HTTP port: /metrics, /healthz, /readyz; 0 = any free one")
    catalogs: tuple[str, ...] = _setting(
        (),
        _paths(),
        "catalog files, or directories of *.yaml, served beside the shipped ones; relative paths start at the working "
        "directory; a catalog that has a shipped one's name takes its place",
        live=True,
    )
    catalog_default: str = _setting(
        "glm-2026", _word(), "catalog of accounts put without one, and of refusals to unknown accounts"
    )
    demo: bool = _setting(False, _switch(), "add the accounts demo-lite, demo-pro and demo-max where absent")
    data: str = _setting(
        state_directory,
        _path(),
        "directory of the store, made if absent: what is drawn and in force survives the process",
    )
    ephemeral: bool = _setting(False, _switch(), "keep no store: what is drawn and in force ends with the process")
    durability: str = _setting(
        str(Durability()),
        _durability(),
        "strict: an answer leaves after the commit that holds its charge; interval:50ms: at once, and a crash loses the "
        "charges of 50 ms at most",
    )
    accept_clock: bool = _setting(
        False,
        _switch(),
        "start though the wall clock is more than 5 s before the time that the store has seen; time goes on from there",
    )
    accounts_in_memory_max: int = _setting(
        0,
        _whole(0, 1_000_000_000),
        "about how many accounts stay in memory, the latest used; others are read from the store when asked for; 0 = all",
    )
    hold_ms_max: int = _setting(
        _BOUNDS.hold_ms_max,
        _whole(1, BOUNDS_MOST.hold_ms_max),
        "how long one Admit or Renew may open a hold for, at most; a gateway that dies keeps its places for so long",
        live=True,
    )
    holds_max: int = _setting(
        _BOUNDS.holds_max,
        _whole(1, BOUNDS_MOST.holds_max),
        "open holds of one account, at most, whatever its plan says; they are never forgotten, so they need a bound",
        live=True,
    )
    request_ids_max: int = _setting(
        _BOUNDS.request_ids_max,
        _whole(1, BOUNDS_MOST.request_ids_max),
        "request ids of one account remembered beside those of its open holds, at most; past it the one whose 120 s are "
        "over first is forgotten, and its retry would be charged again: raise it for accounts with more than 2 requests "
        "a second",
        live=True,
    )
    prompts_max: int = _setting(
        _BOUNDS.prompts_max,
        _whole(1, BOUNDS_MOST.prompts_max),
        "open prompts of one account, at most; past it the one unused for longest is forgotten, and its next call pays "
        "anew",
        live=True,
    )
    tokens: str = _setting(
        "",
        _file(),
        "YAML file with the bearer tokens that callers of both gRPC ports show: a list of {name, token, role}, role read or "
        "write; read again when it changes; none: nobody needs one",
        live=True,
    )
    envoy_domains: str = _setting(
        "",
        _file(),
        "YAML file that says what the descriptors of Envoy's rate limit protocol mean, by domain; none: one domain `quotad`, "
        "whose entries are called as the fields of AdmitRequest; docs/envoy.md",
        live=True,
    )
    tls_cert: str = _setting(
        "", _file(), "certificate, PEM, that the data port shows, and those that signed it; none: no TLS there"
    )
    tls_key: str = _setting("", _file(), "key of tls_cert, PEM, unencrypted")
    tls_client_ca: str = _setting(
        "",
        _file(),
        "certificates, PEM: peers of the data port must show one that one of these signed; none: they need not",
    )
    tls_client_names: tuple[str, ...] = _setting(
        (), _names(), "with tls_client_ca: DNS names or URIs, one of which a peer's certificate must bear; none: any"
    )
    admin_tls_cert: str = _setting(
        "", _file(), "certificate, PEM, that the control port shows, and those that signed it; none: no TLS there"
    )
    admin_tls_key: str = _setting("", _file(), "key of admin_tls_cert, PEM, unencrypted")
    admin_tls_client_ca: str = _setting(
        "",
        _file(),
        "certificates, PEM: peers of the control port must show one that one of these signed; none: they need not",
    )
    admin_tls_client_names: tuple[str, ...] = _setting(
        (),
        _names(),
        "with admin_tls_client_ca: DNS names or URIs, one of which a peer's certificate must bear; none: any",
    )
    batch_items_max: int = _setting(10_000, _whole(1, 1_000_000), "requests in one AdmitBatch, at most")
    page_accounts_max: int = _setting(
        10_000, _whole(1, 100_000), "accounts in one page of ListAccounts, at most", live=True
    )
    message_bytes_max: int = _setting(
        8_388_608, _whole(1_024, 1_073_741_824), "length of one message received, at most"
    )
    rpc_threads: int = _setting(
        16, _whole(1, 256), "threads on each of the two gRPC ports; a call holds one from its beginning to its end"
    )
    rpc_pending_max: int = _setting(
        1_000, _whole(1, 1_000_000), "calls running or waiting for a thread, on each of the two gRPC ports, at most"
    )
    front: str = _setting(
        "native",
        _choice("native", "grpcio"),
        "what serves the data port: native, on libnghttp2 without Python; or grpcio, the reference, a hundred times slower",
    )
    front_threads: int = _setting(
        1,
        _whole(1, 64),
        "threads of the native front; one serves some 200,000 calls a second, and decisions take turns",
    )
    connections_max: int = _setting(
        10_000,
        _whole(1, 1_000_000),
        "connections to each thread of the native front, at most; others are closed at once",
    )
    streams_max: int = _setting(
        1_000, _whole(1, 100_000), "calls at once on one connection of the native front, at most"
    )
    header_bytes_max: int = _setting(
        16_384, _whole(1_024, 65_536), "header list of one call to the native front, at most, as HTTP/2 counts it"
    )
    input_bytes_max: int = _setting(
        33_554_432,
        _whole(65_536, 4_294_967_296),
        "messages arriving at once on one connection of the native front, at most",
    )
    output_bytes_max: int = _setting(
        4_194_304,
        _whole(65_536, 4_294_967_296),
        "answers that a peer of the native front has not fetched; with more, nothing is read from it",
    )
    waiting_max: int = _setting(
        100_000, _whole(1, 10_000_000), "answers of one thread of the native front that wait for the disk, at most"
    )
    control_frames_max: int = _setting(
        1_000,
        _whole(10, 1_000_000),
        "PING, SETTINGS, PRIORITY, RST_STREAM and empty DATA frames of one connection at once, beyond one a millisecond and "
        "one a call; with more it is closed with ENHANCE_YOUR_CALM",
    )
    handshake_ms_max: int = _setting(
        10_000, _whole(100, 600_000), "time for TLS and the beginning of HTTP/2, at most", live=True
    )
    idle_ms_max: int = _setting(
        600_000, _whole(100, 86_400_000), "time that a connection to the native front may be without a call", live=True
    )
    stalled_ms_max: int = _setting(
        20_000, _whole(100, 600_000), "time that a peer of the native front may leave its answers unfetched", live=True
    )
    keepalive_ms: int = _setting(
        60_000,
        _whole(100, 86_400_000),
        "time without a byte after which the native front asks by a PING whether the peer lives",
        live=True,
    )
    keepalive_timeout_ms: int = _setting(
        20_000, _whole(100, 600_000), "time that the peer has to answer that PING", live=True
    )
    connection_age_ms_max: int = _setting(
        0,
        _whole(0, 604_800_000),
        "age at which a connection to the native front is asked to go, up to a tenth earlier, so that clients spread anew; 0 = any",
    )
    grace_ms: int = _setting(5_000, _whole(0, 600_000), "time that running calls have to end at a stop", live=True)
    traces: bool = _setting(
        False,
        _switch(),
        "send spans of calls by OpenTelemetry, which quotad[otel] installs; its variables OTEL_... say where to",
    )
    log_level: str = _setting(
        "info", _choice("debug", "info", "warning", "error"), "what is logged, and all above it", live=True
    )
    log_format: str = _setting(
        "text",
        _choice("text", "json"),
        "how it is logged, a line each: text for people, json for collectors",
        live=True,
    )
    log_refusals_ms: int = _setting(
        10_000,
        _whole(0, 86_400_000),
        "time from one line of the log about refusals of a plan by a rule to the next, which has their count; 0 = none",
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting's names and meaning."""

    key: str
    allowed: str
    help: str
    live: bool
    """Whether a server that runs takes another value from its configuration file."""
    read: Callable[[object], Value]

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.key.upper()

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")


SETTINGS: Final[tuple[Setting, ...]] = tuple(
    Setting(f.name, f.metadata["kind"].allowed, f.metadata["help"], f.metadata["live"], f.metadata["kind"].read)
    for f in dataclasses.fields(Settings)
)
_BY_KEY: Final = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings in force, and where each comes from: `default`, `FILE:LINE`, `$QUOTAD_KEY` or `--key`."""

    settings: Settings
    origins: Mapping[str, str]


# ---- Reading them ---------------------------------------------------------------------------------------------------


def load(
    flags: Mapping[str, object], environment: Mapping[str, str], config: str | Path | None = None
) -> Configuration:
    """Put the settings together. `flags` maps keys to values as given; keys mapped to None were not given.

    Raises SettingsError with every problem of every source.
    """
    problems: list[str] = []
    values: dict[str, Value] = {}
    origins = {setting.key: "default" for setting in SETTINGS}

    def take(setting: Setting, value: object, origin: str, place: str) -> None:
        try:
            values[setting.key] = setting.read(value)
            origins[setting.key] = origin
        except _NotAllowedError:
            problems.append(f"{place}: {_shown(value)} is not allowed; allowed: {setting.allowed}")

    if config is not None:
        for setting, value, line in _read_file(Path(config), problems):
            take(setting, value, f"{config}:{line}", f"{config}:{line}: {setting.key}")
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in CLIENT_VARIABLES:
            named = _BY_KEY.get(variable.removeprefix(ENVIRONMENT_PREFIX).lower())
            if named is None or variable != named.variable:
                allowed = ", ".join(setting.variable for setting in SETTINGS)
                problems.append(f"${variable}: no such setting; allowed: {allowed}")
            else:
                take(named, text, f"${variable}", f"${variable}")
    for key, value in flags.items():
        if value is not None:
            setting = _BY_KEY[key]
            take(setting, value, setting.flag, setting.flag)
    if problems:
        raise SettingsError(problems)
    return Configuration(Settings(**values), origins)  # type: ignore[arg-type]  # each value was read by its own field's kind


def check_file(path: str | Path) -> list[str]:
    """Return every problem of a configuration file, each with file and line."""
    try:
        load({}, {}, path)
    except SettingsError as error:
        return error.problems
    return []


def print_config(configuration: Configuration) -> str:
    """Write the settings in force as a YAML file that yields the same, each with its origin as a comment."""
    lines = []
    for setting in SETTINGS:
        value = getattr(configuration.settings, setting.key)
        lines.append(f"{setting.key}: {_as_yaml(value)}  # {configuration.origins[setting.key]}")
    return "\n".join(lines) + "\n"


def _read_file(path: Path, problems: list[str]) -> list[tuple[Setting, object, int]]:
    """Return the settings that a file names, with value and line; what is wrong with the file goes to `problems`."""
    try:
        root = compose(path, CONFIG_BYTES_MAX, EXAMPLE)
    except YamlFileError as error:
        problems.append(str(error))
        return []
    if root is None:
        return []
    if not isinstance(root, MappingNode):
        problems.append(f"{path}:{root.start_mark.line + 1}: not settings; allowed: {EXAMPLE}")
        return []
    return _read_keys(path, root, problems)


def _read_keys(path: Path, root: MappingNode, problems: list[str]) -> list[tuple[Setting, object, int]]:
    found: list[tuple[Setting, object, int]] = []
    seen: dict[str, int] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        setting = _BY_KEY.get(key_node.value) if isinstance(key_node, ScalarNode) else None
        if setting is None:
            name = key_node.value if isinstance(key_node, ScalarNode) else "?"
            allowed = ", ".join(setting.key for setting in SETTINGS)
            problems.append(f"{path}:{line}: {_shown(name)} is no setting; allowed: {allowed}")
        elif setting.key in seen:
            problems.append(f"{path}:{line}: {setting.key} stands in line {seen[setting.key]} already")
        else:
            seen[setting.key] = line
            found.append((setting, _plain(value_node), line))
    return found


def _plain(node: Node) -> object:
    """Return what a node holds as str, bool, int or a list of these; None for what no setting takes."""
    if isinstance(node, SequenceNode):
        return [_plain_scalar(item) for item in node.value]
    return _plain_scalar(node)


def _plain_scalar(node: Node) -> str | bool | int | None:
    if not isinstance(node, ScalarNode):
        return None
    text: str = node.value
    if node.style is None and node.tag == "tag:yaml.org,2002:bool":
        return text.lower() == "true"
    if node.style is None and node.tag == "tag:yaml.org,2002:int":
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    return None if node.tag == "tag:yaml.org,2002:null" else text


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _as_yaml(value: Value) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_as_yaml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'
