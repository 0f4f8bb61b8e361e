"""Tools around the store: audit log, backup and restore, dump and load, repair."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from conftest import HandTime, Running
from lived import CATALOG, Serve, live, state, used

from quota.cli import main
from quota.client import admit_request
from quota.errors import FailedPrecondition, StoreError
from quota.store.backup import check_store, restore_store
from quota.store.journal import NAME, NAMES
from quota.v1 import admin_pb2, quota_pb2

Quotad = Callable[..., tuple[int, str, str]]


@pytest.fixture
def quotad(capsys: pytest.CaptureFixture[str]) -> Quotad:
    """Run a command, against a running server if one is given; return status, output and errors."""

    def run(*arguments: str, server: Running | None = None) -> tuple[int, str, str]:
        at = ("--admin-server", server.addresses.control) if server is not None else ()
        status = main([*arguments, *at])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def error_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Return status and text of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()


# ---- The audit log ---------------------------------------------------------------------------------------------------


def test_every_change_is_in_the_audit_log(serve: Serve, tmp_path: Path, hand_time: HandTime) -> None:
    """who, what and when, the latest first; refused changes and questions are not."""
    running = serve(data=str(tmp_path / "data"))
    admin = running.admin
    admin.put_account(admin_pb2.Account(id="ada", plan="lite", overrides=[{"limit_id": "calls", "limit": 8}]))
    hand_time.advance(60)
    admin.import_accounts([admin_pb2.Account(id="ben", plan="pro"), admin_pb2.Account(id="bad", plan="gold")])
    admin.adjust_usage("ada", pool="prompts", micro=2_000_000, reason="a test")
    admin.load_catalog(CATALOG)
    admin.set_capacity(800_000)
    admin.delete_account("ben", purge=True)
    admin.accept_clock()
    admin.load_accounts([admin_pb2.AccountRecord(account=admin_pb2.Account(id="eve", plan="max"))])
    for call in (lambda: admin.delete_account("nobody"), lambda: admin.put_account(admin_pb2.Account(id="x"))):
        error_of(call)
    admin.get_account("ada")
    list(admin.dump_accounts())
    entries = list(admin.list_audit(3))
    details = {entry.what: json.loads(entry.details) for entry in entries}

    assert [
        "LoadAccounts", "AcceptClock", "DeleteAccount", "SetCapacity", "LoadCatalog", "AdjustUsage", "ImportAccounts",
        "PutAccount",
    ] == [entry.what for entry in entries]  # fmt: skip
    assert list(range(8, 0, -1)) == [entry.number for entry in entries]
    assert {hand_time.now_ms, hand_time.now_ms - 60_000} == {entry.at_ms for entry in entries}
    assert all(entry.who.startswith("127.0.0.1:") for entry in entries)
    assert ("ada", {"calls": 8}) == (details["PutAccount"]["id"], details["PutAccount"]["overrides"])
    assert {"accounts": ["ben"]} == details["ImportAccounts"]
    assert {"id": "ben", "purge": True} == details["DeleteAccount"]
    assert ("a test", 2_000_000) == (details["AdjustUsage"]["reason"], details["AdjustUsage"]["moved"]["prompts-5h"])
    assert "lumen" == details["LoadCatalog"]["catalog"]


def test_the_audit_log_outlives_the_process(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """numbers go on where they were, and `quotad audit` shows the latest."""
    first = serve(data=str(tmp_path))
    first.admin.set_capacity(1)
    first.server.stop()
    second = serve(data=str(tmp_path))
    second.admin.set_capacity(2)
    status, out, _ = quotad("audit", server=second)
    _, latest, _ = quotad("audit", "-n", "1", "--json", server=second)

    assert 0 == status
    assert ['SetCapacity {"factor_micro": 2}', 'SetCapacity {"factor_micro": 1}'] == [
        line.split(" ", 5)[5] for line in out.splitlines()
    ]
    assert (2, '{"factor_micro": 2}') == (json.loads(latest)["number"], json.loads(latest)["details"])


def test_wrong_pages_of_the_audit_log(serve: Serve, tmp_path: Path) -> None:
    """INVALID_ARGUMENT by name; without a store FAILED_PRECONDITION, as for Backup."""
    running = serve(data=str(tmp_path))
    stub = running.admin._stub
    for request, field in (({"page_size": -1}, "page_size"), ({"page_token": "x"}, "page_token")):
        status, text = error_of(lambda request=request: stub.ListAudit(admin_pb2.ListAuditRequest(**request)))
        assert (grpc.StatusCode.INVALID_ARGUMENT, field) == (status, text.split(":")[0])
    ephemeral = serve()
    for call in (lambda: list(ephemeral.admin.list_audit()), lambda: list(ephemeral.admin.backup())):
        assert (grpc.StatusCode.FAILED_PRECONDITION, "the server has no store: it runs with --ephemeral") == (
            error_of(call)
        )


def test_a_failed_store_is_told_as_such(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """it is the server that answers UNAVAILABLE: the command says what it said, and nothing was changed."""
    running = serve(data=str(tmp_path))
    with closing(sqlite3.connect(tmp_path / "quotad.db")) as database:
        database.execute("DROP TABLE audit")
    first = quotad("capacity", "set", "0.5", server=running)
    second = quotad("capacity", "set", "0.25", server=running)

    for status, out, err in (first, second):
        assert (1, "") == (status, out)
        assert err.startswith("quotad: UNAVAILABLE: the store has failed")
    assert 500_000 == running.admin.get_capacity().factor_micro
    with pytest.raises(StoreError):
        running.server.stop()


# ---- Backup and restore ----------------------------------------------------------------------------------------------


def test_a_backup_restores_what_was(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """a server on a restored backup answers as the first one did when it was taken, tombstones and audit log included."""
    running = live(serve, tmp_path / "data")
    before = state(running)
    file = tmp_path / "quotad.backup"
    assert (0, f"{file}: {{}} bytes\n") == _backed_up(quotad, running, file)
    running.data.admit(admit_request("ada-4"))
    assert (0, f"{tmp_path}/new: restored\n") == quotad("restore", str(file), "--data", f"{tmp_path}/new")[:2]
    restored = serve(data=str(tmp_path / "new"))

    assert before == state(restored)
    assert before != state(running)
    restored.admin.put_account(admin_pb2.Account(id="ada-3", catalog="lumen", plan="basic"))
    assert 3 == used(restored, "ada-3")
    assert "LoadCatalog" == list(restored.admin.list_audit())[-1].what
    assert [] == [path.name for path in tmp_path.glob("data/backup-*")]


def _backed_up(quotad: Quotad, running: Running, file: Path) -> tuple[int, str]:
    status, out, _ = quotad("backup", str(file), server=running)
    return status, out.replace(f"{file.stat().st_size}", "{}")


def test_a_backup_of_a_server_under_load_is_of_one_moment(serve: Serve, tmp_path: Path) -> None:
    """what was acknowledged before it is in it; it is whole, whatever is written meanwhile."""
    running = live(serve, tmp_path / "data")
    count = 0
    for turn in range(3):
        for _ in range(30):
            running.data.admit(admit_request("demo-max", model="glm-4.7", tool="cline"))
            count += 1
        acknowledged = count
        file = tmp_path / f"{turn}.backup"
        with file.open("wb") as opened:
            for part in running.admin.backup():
                opened.write(part.data)
                count += quota_pb2.ALLOWED == (
                    running.data.admit(admit_request("demo-max", model="glm-4.7", tool="cline")).verdict
                )
        restore_store(file, tmp_path / f"{turn}", replace=False, aside="")
        restored = serve(data=str(tmp_path / f"{turn}"))
        assert acknowledged <= used(restored, "demo-max") <= count


def test_nothing_is_overwritten_unasked(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """neither a file by backup nor a directory by restore; told to, restore puts the old store aside."""
    running = live(serve, tmp_path / "data")
    before = state(running)
    file = tmp_path / "a.backup"
    quotad("backup", str(file), server=running)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")

    assert (1, "", f"quotad: {file}: exists; --replace overwrites it\n") == quotad("backup", str(file), server=running)
    assert (1, "") == quotad("restore", str(file), "--data", f"{tmp_path}/other")[:2]
    with pytest.raises(StoreError, match="in use by another quotad"):
        restore_store(file, tmp_path / "data", replace=True, aside=".old")
    running.server.stop()
    with pytest.raises(FailedPrecondition, match="not empty"):
        restore_store(file, tmp_path / "data", replace=False, aside=".old")
    old = restore_store(file, tmp_path / "data", replace=True, aside=".old")
    assert tmp_path / "data/quotad.db.old" == old
    check_store(old)
    assert [] == list((tmp_path / "data").glob(NAMES))
    assert [f"{NAME.format(1)}.old"] == [path.name for path in (tmp_path / "data").glob("journal-0*")]
    assert state(serve(data=str(tmp_path / "data"))) == before


def test_what_is_no_backup_is_refused_by_name(tmp_path: Path) -> None:
    """a text, a database of something else, a store with a damaged page, one of a later format."""
    text, other = tmp_path / "text", tmp_path / "other.db"
    text.write_text("no database" * 1000)
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE numbers (number)")
    for file in (text, other):
        with pytest.raises(StoreError, match=rf"{file.name}: "):
            restore_store(file, tmp_path / "new", replace=False, aside="")
    assert not (tmp_path / "new").exists()


# ---- Dump and load ---------------------------------------------------------------------------------------------------


def dumped(quotad: Quotad, running: Running, file: Path) -> list[dict[str, object]]:
    assert 0 == quotad("dump", str(file), server=running)[0]
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_dump_loads_as_it_was(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """accounts, own limits, usage and holds, in a server that had others; only deleted accounts are not in it."""
    running = live(serve, tmp_path / "data")
    rows = {row["id"]: row for row in dumped(quotad, running, tmp_path / "a.jsonl")}
    other = serve(data=str(tmp_path / "other"))
    other.admin.load_catalog(CATALOG)
    other.admin.set_capacity(500_000)
    for _ in range(7):
        other.data.admit(admit_request("demo-pro", model="glm-4.7", tool="cline"))

    assert {"demo-lite", "demo-pro", "demo-max", "ada-0", "ada-1", "ada-2", "ada-4"} == set(rows)
    assert ({"requests-hour": 4_000_000}, {"requests-hour": 14}) == (
        rows["ada-4"]["used_micro"],
        rows["ada-4"]["overrides"],
    )
    assert (0, "7 accounts loaded, 0 bad lines\n") == quotad("load", f"{tmp_path}/a.jsonl", server=other)[:2]
    assert state(running) == state(other)
    other.server.stop()
    assert state(running) == state(serve(data=str(tmp_path / "other")))


def test_an_edited_dump(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """a plan changed in a line holds, with what was used; without the record the account starts from nothing."""
    running = live(serve, tmp_path / "data")
    rows = {row["id"]: row for row in dumped(quotad, running, tmp_path / "a.jsonl")}
    rows["demo-pro"]["plan"] = "max"
    rows["ada-4"]["overrides"] = {}
    del rows["ada-2"]["record"]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    other = serve()
    other.admin.load_catalog(CATALOG)
    quotad("load", f"{tmp_path}/b.jsonl", server=other)

    assert ("max", 1) == (other.admin.get_account("demo-pro").plan, used(other, "demo-pro"))
    assert ([], 4) == (list(other.admin.get_account("ada-4").overrides), used(other, "ada-4"))
    assert (1, 0) == (used(other, "ada-1"), used(other, "ada-2"))


def test_bad_lines_of_a_dump_are_named(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """each by its number, and the good ones are loaded."""
    running = live(serve, tmp_path / "data")
    good = next(row for row in dumped(quotad, running, tmp_path / "a.jsonl") if row["id"] == "demo-max")
    lines = [
        json.dumps(good),
        "nonsense",
        json.dumps({**good, "id": 7}),
        json.dumps({**good, "id": "somebody else"}),
        json.dumps({**good, "record": "*"}),
        json.dumps({**good, "colour": "red"}),
        json.dumps({**good, "expires_at_ms": -1}),
        json.dumps({**good, "overrides": ["calls"]}),
        json.dumps({**good, "record": "", "plan": "gold"}),
        json.dumps({**good, "record": good["record"][:-8] + "AAAAAAA="}),
    ]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    status, out, err = quotad("load", f"{tmp_path}/bad.jsonl", server=serve())

    assert (1, "1 accounts loaded, 9 bad lines\n") == (status, out)
    assert [
        "2: not JSON",
        "3: id: 7 is not allowed",
        "4: record: '{} bytes' is not allowed",
        "5: record: '*' is not allowed",
        "6: 'colour' is no key",
        "7: expires_at_ms: -1 is not allowed",
        "8: overrides: ['calls'] is not allowed",
        "9: plan: 'gold' is not allowed",
        "10: record: '{} bytes' is not allowed",
    ] == [
        line.removeprefix(f"{tmp_path}/bad.jsonl:").split(";")[0].replace(str(len(b64decode(good["record"]))), "{}")
        for line in err.splitlines()
        if line.startswith(str(tmp_path))
    ]


def test_a_dump_to_stdout(serve: Serve, tmp_path: Path, capsysbinary: pytest.CaptureFixture) -> None:
    """- writes the lines to stdout, where another program reads them."""
    running = live(serve, tmp_path / "data")
    assert 0 == main(["dump", "-", "--admin-server", running.addresses.control])

    assert 7 == capsysbinary.readouterr().out.count(b"\n")
