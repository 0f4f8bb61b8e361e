"""Settings: where they come from, which one holds, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from quota.settings import SETTINGS, Settings, SettingsError, check_file, load, print_config


def write(folder: Path, text: str) -> Path:
    file = folder / "quotad.yaml"
    file.write_text(text)
    return file


def test_defaults_run() -> None:
    """without anything said, all is as the class says and listens on loopback alone."""
    configuration = load({}, {})

    assert Settings() == configuration.settings
    assert {"default"} == set(configuration.origins.values())
    assert ("127.0.0.1",) * 3 == (Settings().listen, Settings().admin_listen, Settings().http_listen)


def test_the_later_source_holds(tmp_path: Path) -> None:
    """flags over environment over file over defaults, and each origin is known."""
    file = write(tmp_path, "port: 1\nadmin_port: 2\nhttp_port: 3\n")

    configuration = load(
        {"port": "7", "admin_port": None}, {"QUOTAD_PORT": "5", "QUOTAD_ADMIN_PORT": "6", "PATH": "/bin"}, file
    )

    settings = configuration.settings
    assert (7, 6, 3) == (settings.port, settings.admin_port, settings.http_port)
    assert "--port" == configuration.origins["port"]
    assert "$QUOTAD_ADMIN_PORT" == configuration.origins["admin_port"]
    assert f"{file}:3" == configuration.origins["http_port"]
    assert "default" == configuration.origins["listen"]


def test_print_config_reads_back(tmp_path: Path) -> None:
    """what --print-config prints, as a file, yields the same settings."""
    flags = {"catalogs": ["a b", 'c"d\\'], "demo": True, "listen": "::1", "grace_ms": "0"}
    configuration = load(flags, {})

    printed = print_config(configuration)
    again = load({}, {}, write(tmp_path, printed))

    assert configuration.settings == again.settings
    assert 'listen: "::1"  # --listen' in printed.splitlines()
    assert "port: 50051  # default" in printed.splitlines()
    assert len(SETTINGS) == len(printed.splitlines())


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("prot: 1\n", 1, "'prot' is no setting; allowed: listen, admin_listen"),
        ("\nport: many\n", 2, "port: 'many' is not allowed; allowed: a whole number from 0 to 65535"),
        ("port: 65536\n", 1, "port: 65536 is not allowed; allowed: a whole number from 0 to 65535"),
        ("port: -1\n", 1, "port: -1 is not allowed"),
        ("hold_ms_max: 3600001\n", 1, "hold_ms_max: 3600001 is not allowed; allowed: a whole number from 1 to 3600000"),
        ("holds_max: 0\n", 1, "holds_max: 0 is not allowed; allowed: a whole number from 1 to 10000"),
        ("request_ids_max: 10001\n", 1, "request_ids_max: 10001 is not allowed"),
        ("prompts_max: 1001\n", 1, "prompts_max: 1001 is not allowed; allowed: a whole number from 1 to 1000"),
        ("port: true\n", 1, "port: True is not allowed"),
        ("port:\n", 1, "port: None is not allowed"),
        ("port: [1]\n", 1, "port: [1] is not allowed"),
        ("demo: maybe\n", 1, "demo: 'maybe' is not allowed; allowed: true or false"),
        ("demo: 1\n", 1, "demo: 1 is not allowed"),
        ("listen: 1.2.3.4:5\n", 1, "listen: '1.2.3.4:5' is not allowed; allowed: an address or a host name"),
        ("catalogs: [a, {b: c}]\n", 1, "catalogs: ['a', None] is not allowed; allowed: a list of files"),
        ("log_level: loud\n", 1, "log_level: 'loud' is not allowed; allowed: debug, info, warning, error"),
        ("port: 1\ndemo: true\nport: 2\n", 3, "port stands in line 1 already"),
        ("catalogs: &a [*a]\n", 1, "catalogs: [None] is not allowed"),
        ("- port\n", 1, "not settings"),
        ("port: {\n", 2, "not YAML"),
        ("port: *x\n", 1, "not YAML: found undefined alias 'x'"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    """file, line, value and what is allowed."""
    file = write(tmp_path, text)

    problems = check_file(file)

    assert 1 == len(problems)
    assert problems[0].startswith(f"{file}:{line}: {words}")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """one wrong setting does not hide the next, whatever source it comes from."""
    file = write(tmp_path, "port: x\nfoo: 1\n")

    with pytest.raises(SettingsError) as raised:
        load({"grace_ms": "soon"}, {"QUOTAD_DEMO": "perhaps", "QUOTAD_PROT": "1"}, file)

    starts = [problem.split(" ")[0] for problem in raised.value.problems]
    assert [f"{file}:2:", f"{file}:1:", "$QUOTAD_DEMO:", "$QUOTAD_PROT:", "--grace-ms:"] == starts


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """absent, no UTF-8, far too long or far too deep."""
    absent = tmp_path / "absent.yaml"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"port: \xff\n")
    deep = tmp_path / "deep.yaml"
    deep.write_text("catalogs: " + "[" * 500)
    long = tmp_path / "long.yaml"
    long.write_bytes(b"#" * 1_000_001)

    assert [f"{absent}: cannot be read: No such file or directory"] == check_file(absent)
    assert [f"{binary}: not UTF-8"] == check_file(binary)
    assert [f"{deep}: nested too deeply; allowed: lines such as `port: 50051`"] == check_file(deep)
    assert [f"{long}: longer than 1000000 bytes, which is allowed at most"] == check_file(long)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    """comments alone are no settings."""
    assert Settings() == load({}, {}, write(tmp_path, "# nothing\n")).settings


def test_words_from_the_environment() -> None:
    """switches and lists are written as people write them there."""
    settings = load(
        {}, {"QUOTAD_DEMO": "yes", "QUOTAD_CATALOGS": "a.yaml:b", "QUOTAD_SERVER": "h:1", "QUOTAD_LOG_LEVEL": "INFO"}
    ).settings

    assert settings.demo is True
    assert ("a.yaml", "b") == settings.catalogs
    assert "info" == settings.log_level


def test_the_store_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """under $XDG_STATE_HOME if that is an absolute path, else under ~/.local/state."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib")
    told = load({}, {}).settings.data
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    ignored = load({}, {}).settings.data

    assert "/var/lib/quotad" == told
    assert f"{tmp_path}/.local/state/quotad" == ignored


@pytest.mark.parametrize(
    ("text", "read"),
    [("strict", "strict"), ("interval:50ms", "interval:50ms"), ("interval: 5 ms", "interval:5ms")],
)
def test_durability_as_it_is_written(text: str, read: str) -> None:
    """both modes; it is printed in one form."""
    assert read == load({"durability": text}, {}).settings.durability


@pytest.mark.parametrize("text", ["", "lax", "interval", "interval:0ms", "interval:60001ms", "interval:5s"])
def test_durability_that_is_none(text: str) -> None:
    """anything else is refused, with what is allowed."""
    with pytest.raises(
        SettingsError, match=r"--durability: .* is not allowed; allowed: strict, or interval:Nms with N"
    ):
        load({"durability": text}, {})
