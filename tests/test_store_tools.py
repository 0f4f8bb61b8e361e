"""Tools around the store: audit log, backup and restore, dump and load, repair."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from conftest import HandTime, Running

from quota import Request
from quota.cli import main
from quota.client import admit_request
from quota.errors import FailedPrecondition, StoreError
from quota.store.backup import check_store, restore_store
from quota.store.fold import Folder
from quota.store.format import checksum
from quota.v1 import admin_pb2, quota_pb2

CATALOG = """\
catalog: lumen
time_zone: UTC
meters:
  request: {pool: requests}
default_meter: request
plans:
  basic:
    level: 1
    pools:
      requests: [{id: requests-hour, window: {sliding: 1h}, limit: 20}]
"""

Serve = Callable[..., Running]
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


def live(serve: Serve, directory: Path) -> Running:
    """A server with a store, on which something has happened: charges, holds, own limits, a catalog, a deleted account."""
    running = serve(data=str(directory))
    running.admin.load_catalog(CATALOG)
    for number in range(5):
        account = admin_pb2.Account(id=f"ada-{number}", catalog="lumen", plan="basic")
        account.overrides.add(limit_id="requests-hour", limit=10 + number)
        running.admin.put_account(account)
        for _ in range(number):
            running.data.admit(admit_request(account.id))
    running.data.admit(
        admit_request("demo-pro", model="glm-4.7", tool="cline", request_id="r1", prompt_id="p1", hold_ms=60_000)
    )
    running.admin.delete_account("ada-3")
    running.admin.set_capacity(500_000)
    return running


def state(running: Running) -> list[str]:
    """All that a server would answer about its accounts, catalogs and capacity."""
    accounts = sorted(running.admin.list_accounts(), key=lambda account: account.id)
    usages = [running.data.usage(account.id) for account in accounts]
    catalogs = running.admin.list_catalogs()
    return [*map(str, accounts), *map(str, usages), *map(str, catalogs), str(running.admin.get_capacity())]


def used(running: Running, account: str) -> int:
    return running.data.usage(account).limits[0].used_micro // 1_000_000


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


# ---- Repair ----------------------------------------------------------------------------------------------------------


def stopped(serve: Serve, directory: Path) -> list[str]:
    """Make a store with a few hundred accounts in snapshot and journal, stop its server, and return what it answered."""
    running = live(serve, directory)
    for number in range(300):
        running.server.engine.put_account(f"many-{number}", catalog="glm-2026", plan="lite")
        running.server.engine.admit(Request(f"many-{number}", model="glm-4.7", tool="cline"))
    running.admin.set_capacity(500_000)
    answers = state(running)
    running.server.stop()
    fold(directory / "quotad.db")
    running = serve(data=str(directory))
    running.data.admit(admit_request("many-7", model="glm-4.7", tool="cline"))
    running.data.admit(admit_request("many-8", model="glm-4.7", tool="cline"))
    answers = state(running)
    running.server.stop()
    return answers


def fold(file: Path) -> None:
    """Fold the journal into the snapshot, as the server does when it has grown."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        folder = Folder(database, 0)
        while database.execute("SELECT count(*) FROM journal").fetchone()[0]:
            folder.fold()


def damage(directory: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(directory / "quotad.db", isolation_level=None)) as database:
        assert 1 == database.execute(statement, values).rowcount


def test_nothing_is_repaired_that_is_whole(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """and no file is touched."""
    stopped(serve, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert (0, f"{tmp_path}: 308 accounts; nothing is damaged\n", "") == quotad("repair", str(tmp_path))
    assert before.keys() == {path.name for path in tmp_path.iterdir()}
    assert before["quotad.db"] == (tmp_path / "quotad.db").read_bytes()


def test_a_damaged_account_is_set_aside_and_the_rest_kept(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """the start is refused and names it; after repair all others are as they were, and the report has its bytes."""
    before = stopped(serve, tmp_path)
    with closing(sqlite3.connect(tmp_path / "quotad.db")) as database:
        blob = bytearray(database.execute("SELECT blob FROM snapshot WHERE id = ?", (b"many-42",)).fetchone()[0])
    blob[20] ^= 4
    damage(tmp_path, "UPDATE snapshot SET blob = ? WHERE id = ?", bytes(blob), b"many-42")
    with pytest.raises(StoreError, match=r"quotad.db: snapshot 'many-42' .*quotad repair"):
        serve(data=str(tmp_path))
    status, out, _ = quotad("repair", str(tmp_path))
    found = [json.loads(line) for path in tmp_path.glob("repair-*.jsonl") for line in path.read_text().splitlines()]
    after = state(serve(data=str(tmp_path)))

    assert 0 == status
    assert "snapshot many-42: the checksum does not match" in out
    assert [bytes(blob)] == [b64decode(it["data"]) for it in found if it["key"] == "many-42"]
    assert [line for line in before if '"many-42"' not in line and "accounts: " not in line] == [
        line for line in after if "accounts: " not in line
    ]
    assert 1 == len(list(tmp_path.glob("quotad.db.before-repair-*")))


def test_a_damaged_journal_row_leaves_the_state_before_it(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """the account falls back to what was folded, and that is told; accounts of other rows are untouched."""
    stopped(serve, tmp_path)
    damage(
        tmp_path,
        "UPDATE journal SET packed = CAST(substr(packed, 1, length(packed) - 1) || x'00' AS BLOB) "
        "WHERE seq = (SELECT min(seq) FROM journal)",
    )
    with pytest.raises(StoreError, match=r"journal \d+ has changed since it was written; `quotad repair`"):
        serve(data=str(tmp_path))
    status, out, err = quotad("repair", str(tmp_path))
    assert (0, "") == (status, err)
    running = serve(data=str(tmp_path))

    assert "an earlier state of it is kept" in out
    assert [1, 2] == [used(running, f"many-{number}") for number in (7, 8)]


def test_rows_that_are_missing_are_told(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """a journal row, a catalog: what depended on it is kept as far as it goes."""
    stopped(serve, tmp_path)
    damage(tmp_path, "DELETE FROM journal WHERE seq = (SELECT min(seq) FROM journal)")
    damage(tmp_path, "UPDATE catalogs SET yaml = 'x' WHERE name = 'lumen'")
    damage(tmp_path, "UPDATE meta SET value = '7' WHERE key = 'capacity_micro'")
    status, out, err = quotad("repair", str(tmp_path))
    assert (0, "") == (status, err)

    assert "missing: older states of accounts may hold" in out
    assert "catalogs lumen: the checksum does not match" in out
    assert "meta capacity_micro: the checksum does not match" in out
    assert "no catalog 'lumen' is loaded: its accounts are kept" in out
    with pytest.raises(StoreError, match="no catalog 'lumen' is loaded"):
        serve(data=str(tmp_path))
    (tmp_path / "lumen.yaml").write_text(CATALOG)
    running = serve(data=str(tmp_path), catalogs=(str(tmp_path / "lumen.yaml"),))
    assert (4, 1_000_000) == (used(running, "ada-4"), running.admin.get_capacity().factor_micro)


@pytest.mark.parametrize("page", [0, 1, 2])
def test_damaged_pages_lose_no_others(serve: Serve, tmp_path: Path, quotad: Quotad, page: int) -> None:
    """a page of the snapshot overwritten: the accounts of all other pages are kept."""
    stopped(serve, tmp_path)
    file = tmp_path / "quotad.db"
    content = bytearray(file.read_bytes())
    pages = [at for at in range(0, len(content), 4096) if content.count(b"many-", at, at + 4096) > 3]
    on_page = content.count(b"many-", pages[page], pages[page] + 4096)
    content[pages[page] : pages[page] + 4096] = random.Random(page).randbytes(4096)
    file.write_bytes(content)
    with pytest.raises(StoreError):
        serve(data=str(tmp_path))
    status, out, err = quotad("repair", str(tmp_path))
    assert (0, "") == (status, err)
    count = len(list(serve(data=str(tmp_path)).admin.list_accounts()))

    assert "snapshot" in out
    assert 308 - 2 * on_page <= count < 308


def test_repair_works_alone(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """not beside a server, and not where there is nothing."""
    live(serve, tmp_path / "data")

    assert f"quotad: {tmp_path}/data: in use by another quotad" in quotad("repair", f"{tmp_path}/data")[2]
    assert (1, "", f"quotad: {tmp_path}/none/quotad.db: is not there\n") == quotad("repair", f"{tmp_path}/none")


# ---- The format ------------------------------------------------------------------------------------------------------

FORMAT_1 = Path(__file__).parent / "stores/format-1.db"
"""Made by quotad 0.1.0, by `live` above; then: folded, ada-1 drew once more under the id `again`, ada-2 was given one back,
the hold of demo-pro was committed, demo-lite purged."""


def test_a_file_of_format_1_is_read(serve: Serve, tmp_path: Path) -> None:
    """whatever later versions do: accounts, usage, ids, tombstones, catalog, capacity, audit log."""
    shutil.copyfile(FORMAT_1, tmp_path / "quotad.db")
    running = serve(data=str(tmp_path), demo=False)
    running.admin.put_account(admin_pb2.Account(id="ada-3", catalog="lumen", plan="basic"))
    again = running.data.admit(admit_request("ada-1", request_id="again"))

    assert {"ada-0", "ada-1", "ada-2", "ada-3", "ada-4", "demo-max", "demo-pro"} == {
        account.id for account in running.admin.list_accounts()
    }
    assert quota_pb2.ALLOWED == again.verdict
    assert [0, 2, 1, 3, 4] == [used(running, f"ada-{number}") for number in range(5)]
    assert [("requests-hour", 14)] == [(it.limit_id, it.limit) for it in running.admin.get_account("ada-4").overrides]
    assert 1 == used(running, "demo-pro")
    assert 500_000 == running.admin.get_capacity().factor_micro
    entries = list(running.admin.list_audit())
    reasons = [json.loads(entry.details)["reason"] for entry in entries if entry.what == "AdjustUsage"]
    assert (11, "LoadCatalog", ["outage"]) == (len(entries), entries[-1].what, reasons)


def test_a_later_format_is_left_alone(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """start, restore and repair refuse it by name, and change nothing."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data/quotad.db"
    shutil.copyfile(FORMAT_1, file)
    damage(tmp_path / "data", "UPDATE meta SET value = '2', crc = ? WHERE key = 'format'", checksum("format", "2"))
    before = file.read_bytes()

    with pytest.raises(StoreError, match=r"format 2, .* up to 1"):
        serve(data=str(tmp_path / "data"))
    for arguments in (("repair", f"{tmp_path}/data"), ("restore", str(file), "--data", f"{tmp_path}/new")):
        status, out, err = quotad(*arguments)
        assert (1, "") == (status, out)
        assert "format 2, " in err
    assert before == file.read_bytes()
