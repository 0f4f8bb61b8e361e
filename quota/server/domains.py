"""Domains: what the entries of Envoy's descriptors mean, from a file. docs/envoy.md is its reference.

domains:
  quotad:
    entries: {account: account, model: model, meter: meter, request_id: request_id, path: path}
    meter: prompt
    hold: {entry: phase, value: start, hold_ms: 600000}
    record: {entry: phase, value: done}
    styles: {/v1/messages: anthropic, /v1/chat/completions: openai}
    headers: refused
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from quota._core import HOLD_MS_MAX, NAME_BYTES_MAX
from quota.errors import FailedPrecondition
from quota.server.reload import Put, stamps
from quota.settings import Settings
from quota.yaml_file import YamlFileError, compose

FILE_BYTES_MAX: Final = 1_000_000
DOMAINS_MAX: Final = 64
ENTRIES_MAX: Final = 64
STYLES_MAX: Final = 64
DESCRIPTORS_MAX: Final = 16
"""Of one call, as core/domain.pxd has it."""
FIELDS: Final = (
    "account", "model", "tool", "endpoint", "client", "request_id", "prompt_id", "path", "style", "meter",
)  # fmt: skip
"""What an entry may be, numbered as in core/domain.pxd."""
KEYS: Final = ("entries", "meter", "record", "hold", "styles", "headers")
EXAMPLE: Final = "domains: {quotad: {entries: {account: account, model: model}}}"
TEXT_ALLOWED: Final = f"1 to {NAME_BYTES_MAX} bytes of text"


class Style(IntEnum):
    """How a refusal is written for the gateway's client. Numbered as in core/domain.pxd."""

    VENDOR = 0
    ANTHROPIC = 1
    OPENAI = 2


STYLES: Final = {style.name.lower(): style for style in Style}


class Headers(IntEnum):
    """Whose answers carry `ratelimit` and `ratelimit-policy`. Numbered as in core/domain.pxd."""

    NEVER = 0
    REFUSED = 1
    ALWAYS = 2


@dataclass(frozen=True, slots=True)
class Marker:
    """An entry that says what kind of call it is."""

    entry: str
    value: str


@dataclass(frozen=True, slots=True)
class Domain:
    """What descriptors mean. `entries` maps their keys to indices of FIELDS; `styles` maps beginnings of paths."""

    name: str
    entries: Mapping[str, int]
    meter: str = ""
    record: Marker | None = None
    hold: Marker | None = None
    hold_ms: int = 0
    styles: Mapping[str, Style] = field(default_factory=lambda: MappingProxyType({}))
    headers: Headers = Headers.REFUSED

    def style_of(self, style: str, path: str) -> Style:
        """Return the style of that name, or else that of the longest beginning of the path. Raises KeyError for another name."""
        if style:
            return STYLES[style]
        found = [prefix for prefix in self.styles if path.startswith(prefix)]
        return self.styles[max(found, key=lambda prefix: len(prefix.encode()))] if found else Style.VENDOR


DEFAULT: Final = Domain(
    "quotad",
    {name: index for index, name in enumerate(FIELDS)},
    record=Marker("phase", "done"),
    hold=Marker("phase", "start"),
    hold_ms=600_000,
    styles={"/v1/messages": Style.ANTHROPIC, "/v1/chat/completions": Style.OPENAI},
)
"""What holds without a file: entries are called as the fields of AdmitRequest."""


class Domains:
    """The domains in force: those of a file, or the default one. Raises FailedPrecondition, naming setting, file and line."""

    what: Final = "envoy_domains"
    keys: Final = ("envoy_domains",)

    def __init__(self, settings: Settings) -> None:
        file = _file(settings)
        self.first_stamps = stamps([file])
        self._told: list[Callable[[tuple[Domain, ...]], None]] = []
        self._put(file, _read(file, settings.hold_ms_max))

    def tell(self, told: Callable[[tuple[Domain, ...]], None]) -> None:
        """Have `told` get the domains now, and again whenever others come in force."""
        self._told.append(told)
        told(self._domains)

    # ---- As a source of reload.Reloads ----

    def files(self) -> list[Path | None]:
        return [self._file]

    def read(self, settings: Settings) -> Put:
        file = _file(settings)
        domains = _read(file, settings.hold_ms_max)
        return lambda: self._put(file, domains)

    def _put(self, file: Path | None, domains: tuple[Domain, ...]) -> dict[str, object]:
        self._file, self._domains = file, domains
        for told in self._told:
            told(domains)
        return {"file": str(file or ""), "domains": len(domains)}


def _file(settings: Settings) -> Path | None:
    return Path(settings.envoy_domains) if settings.envoy_domains else None


def _read(file: Path | None, hold_ms_max: int) -> tuple[Domain, ...]:
    """Read a file under the server's own bound, or return the default. Raises FailedPrecondition."""
    if file is None:
        return (replace(DEFAULT, hold_ms=min(DEFAULT.hold_ms, hold_ms_max)),)
    try:
        domains = read_domains(file)
    except YamlFileError as error:
        raise FailedPrecondition(f"setting envoy_domains: {error}") from error
    for domain in domains:
        if domain.hold_ms > hold_ms_max:
            place = f"{file}: domains.{domain.name}.hold.hold_ms"
            allowed = f"at most {hold_ms_max} (hold_ms_max)"
            raise FailedPrecondition(
                f"setting envoy_domains: {place}: {domain.hold_ms} is not allowed; allowed: {allowed}"
            )
    return domains


# ---- The file -------------------------------------------------------------------------------------------------------


def read_domains(file: Path) -> tuple[Domain, ...]:
    """Read a file of domains. Raises YamlFileError with file, line, and what is allowed."""
    root = compose(file, FILE_BYTES_MAX, EXAMPLE)
    if root is None:
        raise YamlFileError(f"{file}:1: no domains; allowed: {EXAMPLE}")
    return _Reader(file).domains(root)


Word = TypeVar("Word", bound=IntEnum)


class _Reader:
    """Nodes of one file to domains."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def fail(self, node: Node, text: str) -> YamlFileError:
        return YamlFileError(f"{self._file}:{node.start_mark.line + 1}: {text}")

    def domains(self, root: Node) -> tuple[Domain, ...]:
        found = self._fields(root, "", ("domains",), EXAMPLE)
        entries = self._mapping(found["domains"], "domains", DOMAINS_MAX, EXAMPLE) if found else []
        if not entries:
            raise self.fail(root, f"no domains; allowed: {EXAMPLE}")
        return tuple(self._domain(self.text(key, "domains", TEXT_ALLOWED), value) for key, value in entries)

    def _domain(self, name: str, node: Node) -> Domain:
        place = f"domains.{name}"
        found = self._fields(node, place, KEYS, f"{', '.join(KEYS)}, each once")
        entries = self._entries(found["entries"], f"{place}.entries") if "entries" in found else DEFAULT.entries
        record, _ = self._marker(found.get("record"), f"{place}.record", ())
        hold, hold_ms = self._marker(found.get("hold"), f"{place}.hold", ("hold_ms",))
        if hold is not None and "request_id" not in (FIELDS[index] for index in entries.values()):
            raise self.fail(found["hold"], f"{place}.hold: allowed only where some entry is the request_id")
        if hold is not None and hold == record:
            raise self.fail(found["hold"], f"{place}.hold: the same as record; allowed: another entry or value")
        meter = found.get("meter")
        return Domain(
            name,
            entries,
            meter="" if meter is None else self.text(meter, f"{place}.meter", TEXT_ALLOWED),
            record=record,
            hold=hold,
            hold_ms=hold_ms,
            styles=self._styles(found.get("styles"), f"{place}.styles"),
            headers=self._word(found["headers"], f"{place}.headers", Headers)
            if "headers" in found
            else Headers.REFUSED,
        )

    def _entries(self, node: Node, place: str) -> dict[str, int]:
        allowed = f"a mapping of entries' keys to fields: {', '.join(FIELDS)}"
        entries: dict[str, int] = {}
        for key, value in self._mapping(node, place, ENTRIES_MAX, allowed):
            name = self.text(key, place, TEXT_ALLOWED)
            told = self.text(value, f"{place}.{name}", ", ".join(FIELDS))
            if told not in FIELDS:
                raise self.fail(value, f"{place}.{name}: {told!r} is not allowed; allowed: {', '.join(FIELDS)}")
            entries[name] = FIELDS.index(told)
        if 0 not in entries.values():
            raise self.fail(node, f"{place}: no entry is the account; allowed: one or more that are")
        return entries

    def _marker(self, node: Node | None, place: str, more: tuple[str, ...]) -> tuple[Marker | None, int]:
        """An entry with its value, and the milliseconds that may go with it."""
        if node is None:
            return None, 0
        keys = ("entry", "value", *more)
        found = self._fields(node, place, keys, f"{', '.join(keys)}, each once")
        for key in keys:
            if key not in found:
                raise self.fail(node, f"{place}: {key} is missing; allowed: {', '.join(keys)}")
        hold_ms = self._hold_ms(found["hold_ms"], f"{place}.hold_ms") if more else 0
        entry, value = (self.text(found[key], f"{place}.{key}", TEXT_ALLOWED) for key in ("entry", "value"))
        return Marker(entry, value), hold_ms

    def _hold_ms(self, node: Node, place: str) -> int:
        allowed = f"a whole number from 1 to {HOLD_MS_MAX}"
        text = self.text(node, place, allowed)
        if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= HOLD_MS_MAX:
            raise self.fail(node, f"{place}: {text!r} is not allowed; allowed: {allowed}")
        return int(text)

    def _styles(self, node: Node | None, place: str) -> dict[str, Style]:
        if node is None:
            return {}
        entries = self._mapping(node, place, STYLES_MAX, "a mapping of beginnings of paths to styles")
        return {
            self.text(key, place, TEXT_ALLOWED): self._word(value, f"{place}.{key.value}", Style)
            for key, value in entries
        }

    # ---- Nodes ----

    def _mapping(self, node: Node, place: str, count_max: int, allowed: str) -> list[tuple[Node, Node]]:
        if not isinstance(node, MappingNode):
            raise self.fail(node, f"{place}: not a mapping; allowed: {allowed}")
        if len(node.value) > count_max:
            raise self.fail(node, f"{place}: {len(node.value)} of them; allowed: {count_max} at most")
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = self.text(key, place, TEXT_ALLOWED)
            if name in seen:
                raise self.fail(key, f"{place}.{name}: stands in line {seen[name]} already")
            seen[name] = key.start_mark.line + 1
        pairs: list[tuple[Node, Node]] = node.value
        return pairs

    def _fields(self, node: Node, place: str, keys: Iterable[str], allowed: str) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for key, value in self._mapping(node, place or "the file", len(FIELDS), allowed):
            if key.value not in keys:
                raise self.fail(
                    key, f"{place + '.' if place else ''}{key.value}: there is no such key; allowed: {allowed}"
                )
            found[key.value] = value
        return found

    def text(self, node: Node, place: str, allowed: str) -> str:
        text = node.value if isinstance(node, ScalarNode) else None
        if not isinstance(text, str) or not 1 <= len(text.encode()) <= NAME_BYTES_MAX:
            raise self.fail(node, f"{place}: not {TEXT_ALLOWED}; allowed: {allowed}")
        return text

    def _word(self, node: Node, place: str, words: type[Word]) -> Word:
        allowed = ", ".join(word.name.lower() for word in words)
        text = self.text(node, place, allowed)
        for word in words:
            if word.name.lower() == text:
                return word
        raise self.fail(node, f"{place}: {text!r} is not allowed; allowed: {allowed}")
