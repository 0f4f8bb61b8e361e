"""The file of Envoy's domains: what it may say, and what is said of a bad one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quota.errors import FailedPrecondition
from quota.server.domains import DEFAULT, FIELDS, Domain, Domains, Headers, Marker, Style, read_domains
from quota.server.server import Server
from quota.settings import Settings
from quota.yaml_file import YamlFileError

DOCS = Path(__file__).parent.parent / "docs/envoy.md"


def read(folder: Path, text: str) -> tuple[Domain, ...]:
    (folder / "domains.yaml").write_text(text)
    return read_domains(folder / "domains.yaml")


def test_everything_there_is(tmp_path: Path) -> None:
    """each key, and what holds where it is left out."""
    text = """
domains:
  gate:
    entries: {user: account, model: model, id: request_id, again: account}
    meter: call
    record: {entry: stage, value: end}
    hold: {entry: stage, value: begin, hold_ms: 3600000}
    styles: {/a: openai, /a/b: anthropic}
    headers: always
  plain: {}
"""
    gate, plain = read(tmp_path, text)

    entries = {"user": 0, "model": 1, "id": FIELDS.index("request_id"), "again": 0}
    styles = {"/a": Style.OPENAI, "/a/b": Style.ANTHROPIC}
    marks = {"record": Marker("stage", "end"), "hold": Marker("stage", "begin"), "hold_ms": 3_600_000}
    assert Domain("gate", entries, "call", styles=styles, headers=Headers.ALWAYS, **marks) == gate
    assert Domain("plain", DEFAULT.entries) == plain
    assert (Headers.REFUSED, None, None, "") == (plain.headers, plain.record, plain.hold, plain.meter)


def test_the_default_is_the_one_of_the_docs(tmp_path: Path) -> None:
    """what holds without a file is written down as a file that says the same."""
    found = re.search(r"```yaml\n(# Without a file.*?)```", DOCS.read_text(), re.DOTALL)

    assert found is not None
    assert (DEFAULT,) == read(tmp_path, found[1])


BAD = {
    "": "1: no domains; allowed: domains: ",
    "[]": "1: the file: not a mapping; allowed: domains: ",
    "{}": "1: no domains; allowed: domains: ",
    "domains:": "1: domains: not a mapping; allowed: domains: ",
    "domains: {}": "1: no domains; allowed: domains: ",
    "domains: [": "not YAML: ",
    "domain: {a: {}}": "1: domain: there is no such key; allowed: domains: ",
    "domains: {a: {}}\nmore: 1": "2: more: there is no such key",
    "domains:\n  a: {}\n  a: {}": "3: domains.a: stands in line 2 already",
    "domains: {a: x}": "1: domains.a: not a mapping; allowed: entries, meter, record, hold, styles, headers",
    "domains: {a: {metre: x}}": "domains.a.metre: there is no such key; allowed: entries, meter, record, hold, styles",
    "domains: {a: {entries: {}}}": "domains.a.entries: no entry is the account; allowed: one or more that are",
    "domains: {a: {entries: {m: model}}}": "domains.a.entries: no entry is the account",
    "domains:\n  a:\n    entries:\n      u: user": "4: domains.a.entries.u: 'user' is not allowed; allowed: account, model,",
    "domains: {a: {entries: {u: [account]}}}": "domains.a.entries.u: not 1 to 256 bytes of text; allowed: account, model,",
    "domains: {a: {meter: ''}}": "domains.a.meter: not 1 to 256 bytes of text",
    f"domains: {{{'a' * 257}: {{}}}}": "domains: not 1 to 256 bytes of text",
    "domains: {a: {record: {entry: x}}}": "domains.a.record: value is missing; allowed: entry, value",
    "domains: {a: {record: {entry: x, value: y, hold_ms: 1}}}": "domains.a.record.hold_ms: there is no such key",
    "domains: {a: {hold: {entry: x, value: y}}}": "domains.a.hold: hold_ms is missing; allowed: entry, value, hold_ms",
    "domains: {a: {hold: {entry: x, value: y, hold_ms: 0}}}": "domains.a.hold.hold_ms: '0' is not allowed; allowed: a whole number",
    "domains: {a: {hold: {entry: x, value: y, hold_ms: 3600001}}}": "hold_ms: '3600001' is not allowed; allowed: a whole",
    "domains: {a: {hold: {entry: x, value: y, hold_ms: 1m}}}": "domains.a.hold.hold_ms: '1m' is not allowed",
    "domains: {a: {entries: {u: account}, hold: {entry: x, value: y, hold_ms: 1}}}": "a.hold: allowed only where some entry is",
    "domains: {a: {hold: {entry: x, value: y, hold_ms: 1}, record: {entry: x, value: y}}}": "a.hold: the same as record; allowed: an",
    "domains: {a: {styles: {/a: curt}}}": "domains.a.styles./a: 'curt' is not allowed; allowed: vendor, anthropic, openai",
    "domains: {a: {headers: yes}}": "domains.a.headers: 'yes' is not allowed; allowed: never, refused, always",
    f"domains: {{{', '.join(f'd{i}: {{}}' for i in range(65))}}}": "domains: 65 of them; allowed: 64 at most",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_said_of_a_bad_one(tmp_path: Path, text: str) -> None:
    """file, line, key, what stands there and what is allowed."""
    with pytest.raises(YamlFileError) as caught:
        read(tmp_path, text)

    assert str(caught.value).startswith(f"{tmp_path}/domains.yaml:")
    assert BAD[text] in str(caught.value)


def test_a_hold_is_no_longer_than_the_server_allows(tmp_path: Path) -> None:
    """a file that asks for more is refused; the default takes what there is."""
    file = tmp_path / "domains.yaml"
    file.write_text("domains: {gate: {hold: {entry: x, value: y, hold_ms: 1001}}}")
    told: list[int] = []
    Domains(Settings(hold_ms_max=1000)).tell(lambda domains: told.extend(domain.hold_ms for domain in domains))
    Domains(Settings()).tell(lambda domains: told.extend(domain.hold_ms for domain in domains))

    assert [1000, 600_000] == told
    with pytest.raises(FailedPrecondition, match=r"gate\.hold\.hold_ms: 1001 is not allowed; allowed: at most 1000 "):
        Domains(Settings(envoy_domains=str(file), hold_ms_max=1000))


def test_a_server_does_not_start_with_a_bad_one(tmp_path: Path) -> None:
    """it names the setting, and the file."""
    with pytest.raises(FailedPrecondition, match=f"setting envoy_domains: {tmp_path}/none: cannot be read"):
        Server(Settings(ephemeral=True, envoy_domains=str(tmp_path / "none")))
