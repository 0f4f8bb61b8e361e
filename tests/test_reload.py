"""Files that are read again while the server runs: on change or when asked to, and never a bad one in place of a good one."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from conftest import Running
from plans import catalog_text

from quota.client import admit_request
from quota.server import rounds
from quota.settings import SETTINGS
from quota.v1 import admin_pb2, admin_pb2_grpc, quota_pb2

Serve = Callable[..., Running]


def text(name: str, limit: int, *, plan: str = "only") -> str:
    """A catalog whose one plan has so many units in five hours."""
    limits = f"[{{id: {name}-5h, window: {{sliding: 5h}}, limit: {limit}}}]"
    return catalog_text(limits, name=name).replace("only:", f"{plan}:")


def versions(running: Running) -> dict[str, str]:
    return {catalog.name: catalog.version for catalog in running.admin.list_catalogs()}


def page(running: Running, size: int) -> int:
    """How many accounts a page of that size has."""
    with grpc.insecure_channel(running.addresses.control) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        return len(stub.ListAccounts(admin_pb2.ListAccountsRequest(page_size=size), timeout=5).accounts)


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of refused readings, and is forgotten then."""
    found = [record.problem for record in caplog.records if record.message.startswith("reload refused")]
    caplog.clear()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two catalogs, `acme` and `beta`."""
    folder = tmp_path / "catalogs"
    folder.mkdir()
    (folder / "acme.yaml").write_text(text("acme", 3))
    (folder / "beta.yaml").write_text(text("beta", 3))
    return folder


# ---- Catalogs ----


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_a_changed_catalog_decides(serve: Serve, folder: Path, front: str) -> None:
    """from then on, with what was drawn kept; each answer names the version that made it; the other one stays as it was."""
    running = serve(catalogs=(str(folder),), front=front)
    running.admin.put_account(admin_pb2.Account(id="ada", catalog="acme", plan="only"))
    before = versions(running)
    first = [running.data.admit(admit_request("ada", model="m")) for _ in range(4)]
    (folder / "acme.yaml").write_text(text("acme", 5))
    assert "ok" == running.reload("catalogs")
    after = versions(running)
    then = [running.data.admit(admit_request("ada", model="m")) for _ in range(3)]

    assert [True, True, True, False] == [it.verdict == quota_pb2.ALLOWED for it in first]
    assert [True, True, False] == [it.verdict == quota_pb2.ALLOWED for it in then]
    assert {("acme", before["acme"])} == {(it.catalog.name, it.catalog.version) for it in first}
    assert {("acme", after["acme"])} == {(it.catalog.name, it.catalog.version) for it in then}
    assert before["acme"] != after["acme"]
    assert {**before, "acme": after["acme"]} == after


def test_a_volume_of_kubernetes(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files there are links through a link `..data`, which is replaced by a rename; that is noticed without being asked."""
    monkeypatch.setattr(rounds, "LOOK_SECONDS", 0.01)
    volume = tmp_path / "volume"

    def publish(number: int) -> None:
        (volume / f"..{number}").mkdir(parents=True)
        (volume / f"..{number}" / "acme.yaml").write_text(text("acme", number))
        (volume / "..new").symlink_to(f"..{number}")
        (volume / "..new").rename(volume / "..data")

    publish(1)
    (volume / "acme.yaml").symlink_to("..data/acme.yaml")
    running = serve(catalogs=(str(volume),))
    before, counts = versions(running), running.reloads("catalogs")
    publish(2)

    assert (0, 0) == counts
    assert "ok" == running.reloaded("catalogs", counts)
    assert before["acme"] != versions(running)["acme"]
    assert (1, 0) == running.reloads("catalogs")


def test_what_is_the_same_is_not_loaded_anew(serve: Serve, folder: Path) -> None:
    """Versions say since when a catalog decides, so one that is touched, or moved, keeps its own."""
    running = serve(catalogs=(str(folder),))
    before = versions(running)
    os.utime(folder / "acme.yaml", ns=(1, 1))
    (folder / "beta.yaml").rename(folder / "gamma.yaml")
    (folder / ".hidden.yaml").write_text("what an editor keeps for itself")

    assert "ok" == running.reload("catalogs")
    assert before == versions(running)


BAD = {
    "no YAML": ("acme.yaml", "catalog: [", r"{folder}/acme.yaml:1: "),
    "a wrong key": ("acme.yaml", text("acme", 9) + "zone: UTC\n", r"{folder}/acme.yaml:\d+: .*zone"),
    "a name twice": ("more.yaml", text("beta", 9), "allowed: a catalog not named beta, as {folder}/beta.yaml is already"),
    "a plan that is lived on": ("acme.yaml", text("acme", 9, plan="new"), "catalog acme: accounts are on plans .*: 1 on only"),
    "too long": ("acme.yaml", text("acme", 9) + "#" * 300_000, r"{folder}/acme.yaml.* 262144|256 KiB"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "bad", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_catalog_changes_nothing(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture, file: str, bad: str, words: str
) -> None:
    """Nor do the good ones beside it: all or none. It is logged with file and line, counted, and over once it is mended."""
    running = serve(catalogs=(str(folder),))
    running.admin.put_account(admin_pb2.Account(id="ada", catalog="acme", plan="only"))
    before = versions(running)
    (folder / "beta.yaml").write_text(text("beta", 7))
    (folder / file).write_text(bad)
    refused = running.reload("catalogs")
    kept, found = versions(running), problems(caplog)
    metrics = running.get("/metrics")[1]
    if file not in ("acme.yaml", "beta.yaml"):
        (folder / file).unlink()
    (folder / "acme.yaml").write_text(text("acme", 3))

    assert ("refused", before) == (refused, kept)
    assert re.search(words.replace("{folder}", re.escape(str(folder))), found[0])
    assert 'quotad_reload_last_ok{what="catalogs"} 0.0' in metrics
    assert "ok" == running.reload("catalogs")
    assert {"beta"} == {name for name in before if before[name] != versions(running)[name]}
    assert 'quotad_reload_last_ok{what="catalogs"} 1.0' in running.get("/metrics")[1]


def test_a_catalog_without_its_file(serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """goes on, with a warning; a folder without any is taken for a mistake."""
    running = serve(catalogs=(str(folder),))
    before = versions(running)
    (folder / "acme.yaml").unlink()
    assert "ok" == running.reload("catalogs")
    warned = [(it.catalog, it.file) for it in caplog.records if it.message.startswith("a catalog's file is gone")]
    (folder / "beta.yaml").unlink()

    assert "refused" == running.reload("catalogs")
    assert before == versions(running)
    assert [("acme", f"{folder}/acme.yaml")] == warned


def test_a_file_takes_the_place_of_a_catalog_that_was_loaded(serve: Serve, folder: Path, tmp_path: Path) -> None:
    """by a call, and calls cannot take it back; after a restart it is still so."""
    data, catalogs = str(tmp_path / "data"), (str(folder),)
    running = serve(catalogs=catalogs, data=data)
    running.admin.load_catalog(text("gamma", 1))
    (folder / "gamma.yaml").write_text(text("gamma", 2))
    assert "ok" == running.reload("catalogs")
    version = versions(running)["gamma"]
    with pytest.raises(grpc.RpcError, match="catalog gamma is shipped or comes from a file of the server"):
        running.admin.load_catalog(text("gamma", 3))
    running.server.stop()
    again = serve(catalogs=catalogs, data=data)

    assert [True] == [it.from_file for it in again.admin.list_catalogs() if it.name == "gamma"]
    assert version.partition("@")[0] == versions(again)["gamma"].partition("@")[0]


# ---- The configuration file ----


def test_settings_that_may_change_do(
    serve: Serve, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """others are told and stay; what a flag says holds over the file."""
    caplog.set_level(logging.INFO)
    config = tmp_path / "quotad.yaml"
    running = serve(config=config, prompts_max=7)
    config.write_text(
        f"catalogs: [{folder}]\nhold_ms_max: 5000\npage_accounts_max: 2\nport: 1\nrpc_threads: 3\nprompts_max: 1\n"
    )
    assert "ok" == running.reload("settings")
    fields = next(it for it in caplog.records if it.message == "reloaded" and it.what == "settings").__dict__
    hold = admit_request("demo-max", model="glm-4.7", tool="cline", request_id="r1", hold_ms=5001)

    assert ["catalogs", "hold_ms_max", "page_accounts_max"] == sorted(fields["changed"])
    assert ["rpc_threads"] == fields["needs_restart"]
    assert {"acme", "beta"} <= versions(running).keys()
    with pytest.raises(grpc.RpcError, match="hold_ms: 5001 is not allowed; allowed: at most 5000"):
        running.data.admit(hold)
    with pytest.raises(grpc.RpcError, match=r"page_size: 3 is not allowed; allowed: 0 to 2"):
        page(running, 3)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hold_ms_max: never", "{config}:2: hold_ms_max: 'never' is not allowed; allowed: a whole number from 1 to"),
        ("hold_ms: 1", "{config}:2: 'hold_ms' is no setting; allowed: "),
        ("catalogs: [{folder}/none.yaml]", "{folder}/none.yaml: No such file"),
        ("tokens: {folder}/acme.yaml", "setting tokens: {folder}/acme.yaml:1: no tokens; allowed: "),
    ],
)
def test_a_bad_configuration_changes_nothing(
    serve: Serve, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, words: str
) -> None:
    """of all that it says, whether it is bad itself or names what is."""
    config = tmp_path / "quotad.yaml"
    running = serve(config=config)
    config.write_text(f"page_accounts_max: 2\n{line.format(folder=folder)}\n")

    assert "refused" == running.reload("settings")
    assert problems(caplog)[0].startswith(words.format(folder=folder, config=config))
    assert 3 == page(running, 3)
    assert "glm-2026" in versions(running)


def test_the_page_names_the_settings_that_may_change() -> None:
    """all of them, and no other."""
    page = Path(__file__).parent.parent.joinpath("docs/reload.md").read_text()
    listed = re.search(r"^May change while it runs: (.*?)\.$", page, re.MULTILINE | re.DOTALL)

    assert listed is not None
    assert sorted(it.key for it in SETTINGS if it.live) == sorted(re.findall(r"`(\w+)`", listed[1]))


# ---- What reads ----


def test_a_change_is_read_once_it_stands_still(serve: Serve, folder: Path) -> None:
    """What is being written is not taken for a mistake. Looked at by hand, instead of once a second."""
    reloads = serve(catalogs=(str(folder),)).server.reloads
    file = folder / "acme.yaml"

    def counts() -> tuple[int, ...]:
        family = next(iter(reloads.collect()))
        return tuple(int(it.value) for it in family.samples if it.labels["what"] == "catalogs")

    seen = []
    for half in (text("acme", 4)[:30], text("acme", 4)[:60], text("acme", 4)):
        file.write_text(half)
        reloads.look()
        seen.append(counts())
    reloads.look()
    seen.append(counts())
    reloads.look()

    assert [(0, 0)] * 3 + [(1, 0)] == seen
    assert (1, 0) == counts()


def test_one_look_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in one does not end the others, nor itself."""
    monkeypatch.setattr(rounds, "LOOK_SECONDS", 0.01)
    looked = threading.Semaphore(0)
    made = rounds.Rounds((lambda: {}["bug"], looked.release))
    made.start()
    seen = [looked.acquire(timeout=10) for _ in range(3)]
    made.close()

    assert [True] * 3 == seen
    assert {"a look failed"} == set(caplog.messages)
