"""The store: what is in force comes back, and a file that is not as it was written is refused."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from held_up import held_up
from journals import journal_rows, last_segment, opened_journal, overwrite

from quota import Engine, Mode, Request
from quota.errors import StoreError, Unavailable
from quota.store import Durability, Store, fold, journal, writer
from quota.store.audit import audit_page
from quota.store.format import checksum, pack, pack_note, unpack
from quota.store.journal import NAMES
from quota.store.segment import Kind

NOW_MS = 1_783_321_200_000
STRICT = Durability()


class Process:
    """An engine with a store, as a server has them."""

    def __init__(self, directory: Path, durability: Durability = STRICT, in_memory_max: int = 0) -> None:
        self.engine = Engine(["glm-2026"])
        self.store = Store.open(directory, durability=durability, in_memory_max=in_memory_max)
        self.store.restore(self.engine.ledger)
        self.failures: list[str] = []
        self.store.start(self.engine.ledger, lambda: NOW_MS * 1000, on_failure=self.failures.append)

    def charge(self, account: str, request_id: str = "") -> int:
        request = Request(account, model="glm-4.7", tool="cline", mode=Mode.RECORD, request_id=request_id)
        return self.engine.admit(request, now_ms=NOW_MS).ticket

    def put(self, account: str) -> None:
        self.engine.put_account(account, plan="max", now_ms=NOW_MS)

    def states(self) -> dict[str, bytes | None]:
        accounts, _ = self.engine.list_accounts()
        return {account.id: self.engine.ledger.encode(account.id, 0) for account in accounts}


Begin = Callable[..., Process]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begin processes; those not closed by the test are closed after it."""
    begun: list[Process] = []

    def open_one(directory: Path, durability: Durability = STRICT, in_memory_max: int = 0) -> Process:
        begun.append(Process(directory, durability, in_memory_max))
        return begun[-1]

    yield open_one
    for process in begun:
        if not process.failures:
            process.store.close()


def copied(source: Path, target: Path) -> Path:
    """What a kill at this moment would leave behind."""
    shutil.copytree(source, target)
    return target


def altered(file: Path, sql: str, *parameters: object) -> None:
    with sqlite3.connect(file, isolation_level=None) as database:
        database.execute(sql, parameters)
    database.close()


# ---- What comes back ----


def test_what_was_waited_for_is_there(begin: Begin, tmp_path: Path) -> None:
    """whatever else happens to the process afterwards, and its request id is known."""
    process = begin(tmp_path / "a")
    process.put("ada")
    for number in range(20):
        process.store.wait(process.charge("ada", f"r{number}"))
    after = begin(copied(tmp_path / "a", tmp_path / "b"))

    assert process.states() == after.states()
    after.charge("ada", "r7")
    assert 1 == after.engine.replays_count


def test_a_closed_store_holds_everything(begin: Begin, tmp_path: Path) -> None:
    """also what nobody waited for."""
    process = begin(tmp_path)
    for account in ("ada", "bob", "eve"):
        process.put(account)
        process.charge(account)
    before = process.states()
    process.store.close()

    assert not (tmp_path / "quotad.db-wal").exists()
    assert before == begin(tmp_path).states()


def test_a_change_and_what_was_noted_of_it_come_back_together(tmp_path: Path) -> None:
    """a crash right after the journal had them, and before the tables did: the next start puts them there."""
    process = Process(tmp_path)
    process.put("ada")
    process.store.wait_all()
    process.store.close()
    process.put("bob")  # in memory alone
    packed = pack(b"bob", process.engine.ledger.encode("bob", 0))
    notes = [("audit", (1, 5, "127.0.0.1:1", "PutAccount", "b\u00fcb")), ("meta", ("capacity_micro", "500000"))]
    with closing(opened_journal(tmp_path)) as opened:
        opened.start(lambda first: None)
        opened.append([(Kind.ACCOUNTS, packed), *((Kind.NOTE, pack_note(note)) for note in notes)], NOW_MS * 1000)
    after = Process(tmp_path)
    after.store.audit("127.0.0.1:1", "PutAccount", "eve")
    after.store.close()
    entries = audit_page(tmp_path / "quotad.db", 9, 9)

    assert ({"ada", "bob"}, 500_000) == (set(after.states()), after.store.kept.capacity_micro)
    assert [(2, "eve"), (1, "b\u00fcb")] == [(entry.number, entry.details) for entry in entries]


def test_deleted_accounts_come_back_as_deleted(begin: Begin, tmp_path: Path) -> None:
    """a purged one is gone; one only deleted finds what it had drawn."""
    process = begin(tmp_path)
    for account in ("gone", "purged"):
        process.put(account)
        process.charge(account)
        process.store.wait_all()
        process.engine.delete_account(account, purge=account == "purged", now_ms=NOW_MS)
    process.store.close()
    after = begin(tmp_path)

    assert {} == after.states()
    for account in ("gone", "purged"):
        after.put(account)
    used = {account: after.engine.usage(account, now_ms=NOW_MS).limits[0].used_micro for account in ("gone", "purged")}
    assert {"gone": 1_000_000, "purged": 0} == used


def test_folding_changes_nothing(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rows go into the snapshot and out of the journal, the latest of an account holds, and what is purged goes too."""
    monkeypatch.setattr(fold, "FOLD_BYTES", 0)
    process = begin(tmp_path / "a")
    for number in range(300):
        account = f"account-{number % 100}"
        process.put(account)
        process.store.wait(process.charge(account))
    process.engine.delete_account("account-7", purge=True, now_ms=NOW_MS)
    process.store.wait_all()
    deadline = time.monotonic() + 10
    while process.store.folder.journal_bytes and time.monotonic() < deadline:
        time.sleep(0.01)
    directory = copied(tmp_path / "a", tmp_path / "b")

    assert 0 == process.store.folder.journal_bytes
    with sqlite3.connect(directory / "quotad.db") as database:
        assert (99,) == database.execute("SELECT count(*) FROM snapshot").fetchone()
    database.close()
    assert [] == journal_rows(directory)
    assert process.states() == begin(directory).states()


def test_what_was_written_again_since_is_not_folded(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands further on in the journal; the snapshot has the others, and a kill at any moment finds all as it was."""
    monkeypatch.setattr(fold, "FOLD_BYTES", 400_000)
    monkeypatch.setattr(fold, "ERA_BYTES", 8_000)
    process = begin(tmp_path / "a")
    dice = random.Random(7)
    accounts = [f"account-{number}" for number in range(200)]
    for account in accounts:
        process.put(account)
    process.store.wait_all()
    for step in range(1_500):
        account = dice.choice(accounts[:5])
        if step % 100 == 50:
            again = dice.choice(accounts)
            process.engine.delete_account(again, purge=dice.random() < 0.5, now_ms=NOW_MS)
            process.put(again)
        process.store.wait(process.charge(account))
        if step % 300 == 299:
            after = begin(copied(tmp_path / "a", tmp_path / f"b{step}"))
            assert process.states() == after.states()
    with sqlite3.connect(tmp_path / "a/quotad.db") as database:
        (folded,) = database.execute("SELECT value FROM meta WHERE key = 'folded'").fetchone()
        (kept,) = database.execute("SELECT count(*) FROM snapshot").fetchone()
    database.close()

    assert int(folded) > 1_000
    assert 195 == kept
    assert process.store.folder.folded_bytes_count > 100_000


def test_rows_of_an_earlier_process_are_folded_with_care(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows of their eras: an account is left out only if this process has written it again."""
    process = begin(tmp_path)
    for account in ("ada", "bob", "eve"):
        process.put(account)
        process.store.wait(process.charge(account))
    process.store.close()
    process = begin(tmp_path)
    process.store.wait(process.charge("eve"))
    before = process.states()
    process.store.close()
    monkeypatch.setattr(fold, "FOLD_BYTES", 0)
    process = begin(tmp_path)
    deadline = time.monotonic() + 10
    while process.store.folder.journal_bytes and time.monotonic() < deadline:
        time.sleep(0.01)
    process.store.close()

    assert (0, before) == (process.store.folder.journal_bytes, begin(tmp_path).states())


def test_a_full_journal_is_folded_first(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """the files are bounded, however fast changes come."""
    monkeypatch.setattr(fold, "FOLD_BYTES", 0)
    monkeypatch.setattr(fold, "JOURNAL_BYTES_MAX", 10_000)
    monkeypatch.setattr(journal, "SEGMENT_BYTES_MIN", 16_384)
    monkeypatch.setattr(journal, "SEGMENT_BYTES_MAX", 16_384)
    process = begin(tmp_path)
    most = 0
    for number in range(2_000):
        process.put(f"account-{number}")
        if number % 20 == 0:
            process.store.wait_all()
            most = max(most, process.store.folder.journal_bytes)
    process.store.wait_all()

    assert most < 20_000
    assert process.store.folder.folded_bytes_count > 100_000
    assert sum(path.stat().st_size for path in tmp_path.glob("journal-*")) == process.store.journal.file_bytes <= 65_536


def test_many_threads_share_commits(begin: Begin, tmp_path: Path) -> None:
    """each waits for its own charge, and there are fewer commits than charges."""
    process = begin(tmp_path / "a")
    for number in range(16):
        process.put(f"account-{number}")

    def charge(account: str) -> None:
        for _ in range(50):
            process.store.wait(process.charge(account))

    threads = [threading.Thread(target=charge, args=(f"account-{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert process.store.writer.commits_count < 800
    assert process.states() == begin(copied(tmp_path / "a", tmp_path / "b")).states()


# ---- More accounts than memory may have ----


def used(process: Process, account: str) -> int:
    return process.engine.usage(account, now_ms=NOW_MS).limits[0].used_micro


@pytest.mark.parametrize("fold_bytes", [0, 5_000, 1_000_000])
def test_demoted_accounts_come_back(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold_bytes: int
) -> None:
    """from the journal or from the snapshot, also while one is folded into the other, and after a kill."""
    monkeypatch.setattr(fold, "FOLD_BYTES", fold_bytes)
    monkeypatch.setattr(writer, "DEMOTE_SECONDS", 0)
    dice = random.Random(fold_bytes)
    process = begin(tmp_path / "a", in_memory_max=10)
    wanted = {f"account-{number}": 0 for number in range(120)}
    for account in wanted:
        process.put(account)
    for step in range(1_000):
        account = dice.choice(list(wanted))
        ticket = process.charge(account)
        wanted[account] += 1_000_000
        if step % 5 == 0:
            process.store.wait(ticket)
    process.store.wait_all()
    process.store.wait_all()
    demoted = process.engine.ledger.demoted_count
    after = begin(copied(tmp_path / "a", tmp_path / "b"), in_memory_max=10)

    assert demoted > 50
    assert wanted == {account: used(process, account) for account in wanted}
    assert after.engine.ledger.demoted_count >= 50
    assert wanted == {account: used(after, account) for account in wanted}
    assert 120 == after.engine.accounts_count


def test_a_demoted_account_that_is_damaged_is_no_empty_one(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """it is an error that names file and account, and nothing is decided."""
    monkeypatch.setattr(writer, "DEMOTE_SECONDS", 0)
    process = begin(tmp_path, in_memory_max=1)
    for number in range(100):
        process.put(f"account-{number}")
        process.store.wait_all()
    for row in journal_rows(tmp_path):
        overwrite(tmp_path, row, 0, bytes(50))
    refused = []
    for number in range(100):
        try:
            used(process, f"account-{number}")
        except StoreError as error:
            refused.append(str(error))

    assert process.engine.ledger.demoted_count == len(refused) > 50
    assert all(re.search(r"quotad.db: account 'account-\d+' cannot be read: .*: journal row", text) for text in refused)


# ---- Interval ----


def test_interval_answers_leave_at_once(begin: Begin, tmp_path: Path) -> None:
    """a commit for many answers, and no change older than the interval is left unwritten."""
    process = begin(tmp_path / "a", Durability(100))
    process.put("ada")
    for _ in range(200):
        process.store.wait(process.charge("ada"))
    commits = process.store.writer.commits_count
    time.sleep(0.3)

    assert commits < 20
    assert 0 == process.store.writer.unwritten_seconds()
    assert process.states() == begin(copied(tmp_path / "a", tmp_path / "b")).states()


def test_interval_answers_wait_when_the_disk_stalls(begin: Begin, tmp_path: Path) -> None:
    """no more than the interval's charges are ever answered and not kept."""
    process = begin(tmp_path, Durability(50))
    process.put("ada")
    process.store.wait_all()
    began = time.monotonic()
    answered = []

    def charge() -> None:
        while time.monotonic() - began < 0.7:
            process.store.wait(process.charge("ada"))
            answered.append(time.monotonic() - began)

    thread = threading.Thread(target=charge)
    with held_up(tmp_path):
        thread.start()
        thread.join(0.6)
    thread.join()

    assert [] == [at for at in answered if 0.2 < at < 0.55]


# ---- What is refused ----


def test_a_second_process_is_refused_by_name(begin: Begin, tmp_path: Path) -> None:
    """directory and process are told; the first one goes on."""
    program = f"""
import sys
from pathlib import Path
from quota.store import Store
Store.open(Path({str(tmp_path)!r}))
print("open", flush=True)
sys.stdin.read()
"""
    first = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    first.stdout.readline()
    with pytest.raises(StoreError, match=f"^{tmp_path}: in use by another quotad, process {first.pid}$"):
        Store.open(tmp_path)
    first.kill()
    first.communicate()

    begin(tmp_path).put("ada")


def test_what_cannot_be_a_directory(tmp_path: Path) -> None:
    """a file in its place is told as such."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match=f"^{tmp_path}/file: cannot be made: File exists"):
        Store.open(tmp_path / "file")


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two accounts in the snapshot and three journal rows after them."""
    directory = tmp_path / "filled"
    process = Process(directory)
    for account in ("ada", "bob"):
        process.put(account)
    process.store.wait_all()
    process.store.close()
    with monkeypatch.context() as folding:
        folding.setattr(fold, "FOLD_BYTES", 0)
        process = Process(directory)
        while process.store.folder.journal_bytes:
            time.sleep(0.01)
        process.store.close()
    process = Process(directory)
    for _ in range(3):
        process.store.wait(process.charge("ada"))
    process.store.close()
    return directory


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE snapshot SET blob = zeroblob(40) WHERE id = x'626f62'", "snapshot 'bob' has changed since"),
        ("UPDATE snapshot SET id = x'626f63' WHERE id = x'626f62'", "snapshot 'boc' has changed since"),
        ("UPDATE meta SET value = '99' WHERE key = 'folded'", "meta 'folded' has changed since"),
        ("UPDATE meta SET value = 1 WHERE key = 'time_us'", "meta 'time_us' has changed since"),
        ("DROP TABLE catalogs", "no such table: catalogs"),
    ],
)
def test_altered_rows_refuse_the_start(filled: Path, sql: str, words: str) -> None:
    """file, table and row are named."""
    altered(filled / "quotad.db", sql)

    with pytest.raises(StoreError) as raised:
        Process(filled)

    assert str(raised.value).startswith(f"{filled}/quotad.db: {words}")
    assert "repair" in str(raised.value)


def test_a_record_that_does_not_decode_is_named(filled: Path) -> None:
    """though its row is as it was written."""
    with closing(opened_journal(filled)) as opened:
        opened.start(lambda first: None)
        opened.append([(Kind.ACCOUNTS, pack(b"bob", b"no blob"))], 1)

    with pytest.raises(StoreError, match=r"quotad.db: journal row 5: .*bob"):
        Process(filled)


def test_a_newer_format_is_refused_by_name(filled: Path) -> None:
    """it is not damaged, and repair is no help."""
    altered(filled / "quotad.db", "UPDATE meta SET value = '4', crc = ? WHERE key = 'format'", checksum("format", "4"))

    with pytest.raises(StoreError, match=r"is of format 4, and this quotad knows formats up to 3: use a newer one$"):
        Store.open(filled)


def test_an_altered_row_of_the_journal_refuses_the_start(filled: Path) -> None:
    """segment and row are named."""
    overwrite(filled, journal_rows(filled)[1], 10, b"\xff\xff\xff")

    with pytest.raises(StoreError, match=r"journal-0+1: journal row 3 has changed since .* `quotad repair`"):
        Process(filled)


def test_a_missing_segment_refuses_the_start(filled: Path) -> None:
    """also the newest, which nothing follows."""
    last_segment(filled).unlink()

    with pytest.raises(StoreError, match=r"journal-0+1: is missing, and the last rows .* `quotad repair`"):
        Process(filled)


@pytest.mark.parametrize("left", ["quotad.db-wal", NAMES])
def test_a_file_that_is_gone_is_not_taken_for_a_new_one(begin: Begin, tmp_path: Path, left: str) -> None:
    """its log or its journal says that there was one."""
    begin(tmp_path / "a").put("ada")
    directory = copied(tmp_path / "a", tmp_path / "b")
    for path in directory.iterdir():
        if not path.match(left):
            path.unlink()

    with pytest.raises(StoreError, match=r"quotad.db: is gone, but .* is there: put it back"):
        Store.open(directory)


def test_a_bad_frame_with_transactions_behind_it_is_refused(begin: Begin, tmp_path: Path) -> None:
    """wherever in the log the bit is; only in the last transaction could it be a power cut."""
    process = begin(tmp_path / "a")
    process.put("ada")
    for number in range(4):
        process.charge("ada")
        process.store.audit("127.0.0.1:1", "PutAccount", f"{number}")
        process.store.wait_all()
    directory = copied(tmp_path / "a", tmp_path / "b")
    log = directory / "quotad.db-wal"
    whole = log.read_bytes()
    for at in [*range(56), *range(56, len(whole) - 2 * 4120, 97)]:
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StoreError, match=r"quotad.db-wal: .* has changed since it was written"):
            Store.open(directory)
    log.write_bytes(whole[:-100])
    torn = begin(directory)

    assert 4_000_000 == used(torn, "ada")
    assert ["3", "2", "1", "0"] == [entry.details for entry in audit_page(directory / "quotad.db", 9, 9)]


# ---- Failing ----


def test_an_answer_waits_so_long_and_no_longer(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """a disk that does not answer is told; what was charged is kept all the same once it does."""
    monkeypatch.setattr(writer, "WAIT_SECONDS_MAX", 0.1)
    process = begin(tmp_path / "a")
    process.put("ada")
    process.store.wait_all()
    with (
        held_up(tmp_path / "a"),
        pytest.raises(Unavailable, match="the disk has not answered for 0 s; the change may yet be kept"),
    ):
        process.store.wait(process.charge("ada"))
    monkeypatch.undo()
    process.store.wait_all()

    assert process.states() == begin(copied(tmp_path / "a", tmp_path / "b")).states()


def test_a_failed_store_takes_nothing(tmp_path: Path) -> None:
    """who waits is told, who asks is told, and closing says why; the reason is told once, and first."""
    process = Process(tmp_path)
    process.put("ada")
    process.store.wait_all()
    stall = sqlite3.connect(tmp_path / "quotad.db", isolation_level=None)
    stall.execute("DROP TABLE audit")
    stall.close()
    process.store.audit("127.0.0.1:1", "PutAccount", "ada")

    with pytest.raises(Unavailable, match="the store has failed and takes nothing any more: no such table: audit"):
        process.store.wait(process.charge("ada"))
    with pytest.raises(Unavailable):
        process.store.check()
    with pytest.raises(StoreError, match="no such table"):
        process.store.close()
    assert 1 == len(process.failures)


# ---- Packed rows ----


def test_packed_rows_read_back() -> None:
    """ids and blobs of any bytes; sizes that do not add up are no row."""
    accounts = [(b"a", b"blob"), ("ü".encode(), b""), (b"\0" * 256, b"\xff" * 70_000)]
    packed = b"".join(pack(id, blob) for id, blob in accounts)

    assert accounts == list(unpack(packed))
    for cut in (1, 5, len(packed) - 1):
        with pytest.raises(ValueError, match="cut off"):
            list(unpack(packed[:cut]))
