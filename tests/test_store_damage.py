"""Damaged stores: every flipped bit is noticed or harms nothing, repair keeps what is good, and old formats are read."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from journals import fold, journal_rows, last_segment, overwrite
from lived import CATALOG, Serve, live, state, used

from quota import Engine, Request
from quota.cli import main
from quota.client import admit_request
from quota.errors import StoreError
from quota.store import Store
from quota.store.format import checksum
from quota.store.journal import NAME
from quota.store.load import Kept
from quota.store.segment import HEADER_BYTES
from quota.store.wal import check_log
from quota.v1 import admin_pb2, quota_pb2

Quotad = Callable[..., tuple[int, str, str]]


@pytest.fixture
def quotad(capsys: pytest.CaptureFixture[str]) -> Quotad:
    """Run a command that needs no server; return status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# ---- Flipped bits ----------------------------------------------------------------------------------------------------


def image(place: Path) -> Path:
    """Return a directory as kill -9 leaves it: accounts in snapshot and journal, a catalog, much in the write-ahead log."""
    for part in ("folded", "journal"):
        engine, store = opened(place / "live")
        store.start(engine.ledger, engine.clock.now_us, on_failure=lambda reason: None)
        store.put_catalog("lumen", CATALOG, engine.load_catalog(CATALOG).version, engine.clock.now_us())
        engine.set_capacity(0.5)
        for number in range(60):
            engine.put_account(f"many-{number}", catalog="lumen", plan="basic")
            engine.admit(Request(f"many-{number}", request_id=f"{part}-{number}", hold_ms=60_000))
            store.audit("127.0.0.1:1", "PutAccount", f"{number}")
            if number % 5 == 0:
                store.wait_all()
        store.wait_all()
        if part == "journal":
            shutil.copytree(place / "live", place / "image")
        store.close()
        fold(place / "live")
    return place / "image"


def opened(directory: Path) -> tuple[Engine, Store]:
    """Load a store into an engine. Raises StoreError."""
    engine = Engine(["glm-2026"])
    store = Store.open(directory)
    try:
        for catalog in store.kept.catalogs:
            engine.load_catalog(catalog.yaml, loaded_at_us=catalog.loaded_at_us)
        store.restore(engine.ledger)
    except BaseException:
        store.close()
        raise
    return engine, store


def all_of(directory: Path) -> tuple[object, Kept, object]:
    """Return everything that a directory's store holds: accounts, what it knows beside them, audit log. Raises StoreError."""
    engine, store = opened(directory)
    accounts, _ = engine.list_accounts()
    blobs = sorted((account.id, engine.ledger.encode(account.id, 0)) for account in accounts)
    store.close()
    with closing(sqlite3.connect(directory / "quotad.db")) as database:
        return blobs, store.kept, database.execute("SELECT * FROM audit").fetchall()


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    """in file, log and journal, anywhere: the start is refused, or everything is as it was."""
    dice = random.Random(8)
    original = image(tmp_path)
    shutil.copytree(original, tmp_path / "copy")
    whole = all_of(tmp_path / "copy")
    refused = 0
    for turn in range(80):
        shutil.rmtree(tmp_path / "copy")
        shutil.copytree(original, tmp_path / "copy")
        file = tmp_path / "copy" / ("quotad.db", "quotad.db-wal", last_segment(original).name)[turn % 3]
        content = bytearray(file.read_bytes())
        at, bit = dice.randrange(len(content.rstrip(b"\0"))), dice.randrange(8)
        content[at] ^= 1 << bit
        file.write_bytes(content)
        try:
            assert whole == all_of(tmp_path / "copy"), (file.name, at, bit)
        except StoreError:
            refused += 1

    assert 20 < refused < 80


def test_a_torn_last_transaction_is_no_damage(tmp_path: Path) -> None:
    """a power cut leaves some of its sectors unwritten: the store starts with all that came before."""
    dice = random.Random(9)
    log = image(tmp_path) / "quotad.db-wal"
    whole = log.read_bytes()
    frame_bytes = 24 + 4096
    ours = [at for at in range(32, len(whole), frame_bytes) if whole[at + 8 : at + 16] == whole[16:24]]
    commits = [at for at in ours if any(whole[at + 4 : at + 8])]
    sectors = range(commits[-2] + frame_bytes, commits[-1] + frame_bytes, 512)
    for _ in range(100):
        torn = bytearray(whole)
        for at in dice.sample(sectors, dice.randint(1, len(sectors))):
            torn[at : at + 512] = bytes(512)
        log.write_bytes(torn[: len(whole)])
        check_log(log)


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
    fold(directory)
    running = serve(data=str(directory))
    running.data.admit(admit_request("many-7", model="glm-4.7", tool="cline"))
    running.data.admit(admit_request("many-8", model="glm-4.7", tool="cline"))
    answers = state(running)
    running.server.stop()
    return answers


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
    overwrite(tmp_path, journal_rows(tmp_path)[0], -1, b"\0")
    with pytest.raises(StoreError, match=r"journal row \d+ has changed since it was written, .*; `quotad repair`"):
        serve(data=str(tmp_path))
    status, out, err = quotad("repair", str(tmp_path))
    assert (0, "") == (status, err)
    running = serve(data=str(tmp_path))

    assert "an earlier state of it is kept" in out
    assert [1, 2] == [used(running, f"many-{number}") for number in (7, 8)]


def test_rows_that_are_missing_are_told(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """a journal row, a catalog: what depended on it is kept as far as it goes."""
    stopped(serve, tmp_path)
    row = journal_rows(tmp_path)[0]
    overwrite(tmp_path, row, -len(row.packed) - HEADER_BYTES, bytes(HEADER_BYTES))
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


@pytest.mark.parametrize("name", ["quotad.db", "quotad.db-wal", NAME.format(1)])
def test_repair_after_a_flipped_bit_keeps_nearly_all(tmp_path: Path, quotad: Quotad, name: str) -> None:
    """wherever it is, the store starts again; what is missing is told, and is a few accounts at most."""
    dice = random.Random(name)
    original = image(tmp_path)
    damaged = 0
    for _ in range(20):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(original, tmp_path / "copy")
        content = bytearray((original / name).read_bytes())
        content[dice.randrange(len(content.rstrip(b"\0")))] ^= 1 << dice.randrange(8)
        (tmp_path / "copy" / name).write_bytes(content)
        _, out, _ = quotad("repair", f"{tmp_path}/copy")
        _, store = opened(tmp_path / "copy")
        store.close()
        counted = re.search(r": (\d+) accounts; (\d+|nothing)", out)
        damaged += counted[2] != "nothing"

        assert 57 <= int(counted[1]) <= 60, out

    assert damaged > 1


def test_a_damaged_list_of_tables(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """the first page says which tables there are; every store's says the same, and so it is put back."""
    before = stopped(serve, tmp_path)
    file = tmp_path / "quotad.db"
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE snapshot", b"CREATE TABLE sn\xffpshot", 1))
    with pytest.raises(StoreError):
        serve(data=str(tmp_path))
    _, out, _ = quotad("repair", str(tmp_path))

    assert "the list of its tables was damaged" in out
    assert before == state(serve(data=str(tmp_path)))


def test_repair_works_alone(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """not beside a server, and not where there is nothing."""
    live(serve, tmp_path / "data")

    assert f"quotad: {tmp_path}/data: in use by another quotad" in quotad("repair", f"{tmp_path}/data")[2]
    assert (1, "", f"quotad: {tmp_path}/none/quotad.db: is not there\n") == quotad("repair", f"{tmp_path}/none")


# ---- The format ------------------------------------------------------------------------------------------------------

STORES = Path(__file__).parent / "stores"
"""Each made by quotad 0.1.0 when it wrote that format, by `live`; then: folded, ada-1 drew once more under the id `again`,
ada-2 was given one back, the hold of demo-pro was committed, demo-lite purged."""


@pytest.mark.parametrize("in_memory_max", [0, 1])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_every_format_is_read(serve: Serve, tmp_path: Path, version: int, in_memory_max: int) -> None:
    """whatever later versions do: accounts, usage, ids, tombstones, catalog, capacity, audit log. It is of the latest then."""
    shutil.copytree(STORES / f"format-{version}", tmp_path, dirs_exist_ok=True)
    running = serve(data=str(tmp_path), demo=False, accounts_in_memory_max=in_memory_max)
    with closing(sqlite3.connect(tmp_path / "quotad.db")) as database:
        assert ("3",) == database.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
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


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_every_format_is_repaired(tmp_path: Path, quotad: Quotad, version: int) -> None:
    """what is whole is left alone; a damaged list of tables is put back, and nothing is lost."""
    directory = shutil.copytree(STORES / f"format-{version}", tmp_path / "data")
    file = directory / "quotad.db"
    assert f"{directory}: 7 accounts; nothing is damaged\n" == quotad("repair", str(directory))[1]
    whole = all_of(shutil.copytree(directory, tmp_path / "whole"))
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE snapshot", b"CREATE TABLE sn\xffpshot", 1))
    _, out, _ = quotad("repair", str(directory))

    assert out.startswith(f"file : the list of its tables was damaged\n{directory}: 7 accounts; 1 damaged")
    accounts, kept, audit = all_of(directory)
    assert (accounts, audit) == (whole[0], whole[2])
    assert (kept.catalogs, kept.capacity_micro, kept.time_us) == (
        whole[1].catalogs, whole[1].capacity_micro, whole[1].time_us,
    )  # fmt: skip
    assert [f"{path.name}.before" for path in sorted((STORES / f"format-{version}").iterdir())] == [
        path.name.rpartition("-repair-")[0] for path in sorted(directory.glob("*.before-repair-*"))
    ]


def test_a_later_format_is_left_alone(serve: Serve, tmp_path: Path, quotad: Quotad) -> None:
    """start, restore and repair refuse it by name, and change nothing."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data/quotad.db"
    shutil.copyfile(STORES / "format-2/quotad.db", file)
    damage(tmp_path / "data", "UPDATE meta SET value = '4', crc = ? WHERE key = 'format'", checksum("format", "4"))
    before = file.read_bytes()

    with pytest.raises(StoreError, match=r"format 4, .* up to 3"):
        serve(data=str(tmp_path / "data"))
    for arguments in (("repair", f"{tmp_path}/data"), ("restore", str(file), "--data", f"{tmp_path}/new")):
        status, out, err = quotad(*arguments)
        assert (1, "") == (status, out)
        assert "format 4, " in err
    assert before == file.read_bytes()
