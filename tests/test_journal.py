"""The journal's files: what was acknowledged is found again, a torn commit is no damage, and every changed bit is noticed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from journals import last_segment

from quota.errors import StoreError
from quota.store import journal as module
from quota.store.journal import NAMES, SPARE, Journal
from quota.store.segment import HEADER_BYTES, PAGE_BYTES, Kind, all_rows, key_within

KEY = 7
LARGE = 5_000  # bytes of a row of which three fill a segment


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES_MIN", 6 * PAGE_BYTES)
    monkeypatch.setattr(module, "SEGMENT_BYTES_MAX", 6 * PAGE_BYTES)


def opened(directory: Path, folded: int = 0, newest: int = 0) -> Journal:
    return Journal.open(directory, KEY, folded, newest)


def append(journal: Journal, *rows: bytes) -> None:
    journal.append([(Kind.ACCOUNTS, row) for row in rows], 1)


def appended(directory: Path, *commits: list[bytes], folded: int = 0) -> None:
    with closing(opened(directory, folded)) as journal:
        journal.start(lambda first: None)
        for rows in commits:
            append(journal, *rows)


def found(directory: Path, folded: int = 0) -> list[bytes]:
    with closing(opened(directory, folded)) as journal:
        rows = [row.packed for row in journal.rows(folded)]
        assert journal.sequence == folded + len(rows)
        return rows


def files(directory: Path) -> Iterator[Path]:
    return iter(sorted(directory.glob(NAMES)))


# ---- What was appended ----


def test_what_was_appended_is_found_in_its_order(tmp_path: Path) -> None:
    """over several files, in commits of one row and of many, and goes on after each opening."""
    rows = [bytes([number]) * (number * 300) for number in range(1, 24)]
    appended(tmp_path, rows[:3], rows[3:4], rows[4:9])
    appended(tmp_path, *([row] for row in rows[9:]))

    assert rows == found(tmp_path)
    assert rows[5:] == found(tmp_path, 5)
    assert 4 <= len(list(files(tmp_path)))


def test_a_row_says_when_in_which_commit_and_what_it_is(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.start(lambda first: None)
        journal.append([(Kind.ACCOUNTS, b"a"), (Kind.NOTE, b"n")], 10)
        journal.append([(Kind.NOTE, b"")], 20)
        rows = list(journal.rows(0))

    assert [(1, 1, 10, Kind.ACCOUNTS, b"a"), (2, 1, 10, Kind.NOTE, b"n"), (3, 3, 20, Kind.NOTE, b"")] == [
        (row.seq, row.commit, row.at_us, row.kind, row.packed) for row in rows
    ]


def test_a_commit_larger_than_a_segment_has_one_that_is_large_enough(tmp_path: Path) -> None:
    rows = [b"large" * 20_000, b"after", b"last" * 25_000, b"end" * 1_000]
    with closing(opened(tmp_path)) as journal:
        journal.start(lambda first: None)
        for row in rows:
            append(journal, row)
        journal.let_go(1)
        assert rows[1:] == [row.packed for row in journal.rows(1)]

    assert rows[1:] == found(tmp_path, 1)
    assert 100_000 < max(path.stat().st_size for path in files(tmp_path)) < 110_000


def test_segments_grow_with_what_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """each as large as those before it, up to the most; and the spare is full before it is needed."""
    monkeypatch.setattr(module, "SEGMENT_BYTES_MIN", 64 * PAGE_BYTES)
    monkeypatch.setattr(module, "SEGMENT_BYTES_MAX", 256 * PAGE_BYTES)
    with closing(opened(tmp_path)) as journal:
        journal.start(lambda first: None)
        sizes = []
        for _ in range(1_000):
            missing = journal.file_bytes
            append(journal, b"x" * 3_000)
            journal.prepare()
            sizes.append(journal.file_bytes - missing)

    pages = [path.stat().st_size // PAGE_BYTES for path in files(tmp_path)]
    assert [64, 64, 128, 256, 256] == pages[:5]
    assert max(sizes) <= 20 * PAGE_BYTES  # a little at a time, never a segment at once


# ---- Torn ----


def test_a_commit_torn_at_any_byte_is_no_damage(tmp_path: Path) -> None:
    """Rows before it are all there, of its own those that are whole, and the next commit meets nothing of it."""
    appended(tmp_path, [b"first" * 9], [b"torn" * 30, b"apart" * 5])
    file = next(files(tmp_path))
    whole = file.read_bytes()
    sizes = [HEADER_BYTES + 120, 2 * HEADER_BYTES + 145]
    for cut in range(sizes[1]):
        file.write_bytes(whole[: PAGE_BYTES + cut] + bytes(len(whole) - PAGE_BYTES - cut))
        row_end = sizes[0] if cut < sizes[0] else sizes[1]
        missing = int.from_bytes(whole[PAGE_BYTES + cut : PAGE_BYTES + row_end])
        if missing.bit_count() == 1:  # then it looks like a changed bit
            with pytest.raises(StoreError, match="by one bit"):
                opened(tmp_path)
        else:
            assert [b"first" * 9] + [b"torn" * 30] * (cut >= sizes[0]) == found(tmp_path)


def test_a_commit_torn_the_other_way_round_is_no_damage_and_does_not_come_back(tmp_path: Path) -> None:
    """Its second row reached the disk and its first did not; a new row of the first's size does not bring it back."""
    appended(tmp_path, [b"first"], [b"lost" * 8, b"stale"])
    file = next(files(tmp_path))
    data = bytearray(file.read_bytes())
    data[PAGE_BYTES : PAGE_BYTES + HEADER_BYTES] = bytes(HEADER_BYTES)
    file.write_bytes(data)
    assert [b"first"] == found(tmp_path)
    appended(tmp_path, [b"anew" * 8])

    assert [b"first", b"anew" * 8] == found(tmp_path)


def test_a_file_that_was_named_and_never_written_is_no_damage(tmp_path: Path) -> None:
    """the power failed between the two, at any of the steps of beginning a segment."""
    told: list[int] = []
    with closing(opened(tmp_path)) as journal:
        journal.start(told.append)
        for number in range(4):
            append(journal, b"%d" % number * LARGE)
    assert [1, 4] == told
    newest = last_segment(tmp_path)
    newest.write_bytes(bytes(newest.stat().st_size))
    before = [b"%d" % number * LARGE for number in range(3)]
    assert before == found(tmp_path)
    with closing(opened(tmp_path, newest=4)) as journal:
        assert 3 == journal.sequence
    newest.rename(tmp_path / SPARE)

    assert before == found(tmp_path)
    appended(tmp_path, [b"4"])
    assert [*before, b"4"] == found(tmp_path)


# ---- Damaged ----


def test_every_changed_bit_of_a_row_is_noticed(tmp_path: Path) -> None:
    """in the middle, and in the last commit too."""
    appended(tmp_path, [b"first" * 4, b"second"], [b"last" * 4])
    file = next(files(tmp_path))
    whole = file.read_bytes()
    for start, size in ((0, 2 * HEADER_BYTES + 26), (PAGE_BYTES, HEADER_BYTES + 16)):
        for bit in range(start * 8, (start + size) * 8):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            file.write_bytes(data)
            with pytest.raises(StoreError, match=r"journal-0+1: journal row \d has changed"):
                opened(tmp_path)


def test_larger_damage_before_another_commit_is_noticed(tmp_path: Path) -> None:
    appended(tmp_path, [b"first" * 4], [b"last" * 4])
    file = next(files(tmp_path))
    file.write_bytes(bytes(PAGE_BYTES) + file.read_bytes()[PAGE_BYTES:])

    with pytest.raises(StoreError, match=r"journal row 1 has changed since it was written, and others follow it"):
        opened(tmp_path)


def test_damage_while_it_is_in_use_is_noticed(tmp_path: Path) -> None:
    """by whoever reads the row next; once it is folded nobody needs it."""
    with closing(opened(tmp_path)) as journal:
        journal.start(lambda first: None)
        append(journal, b"first")
        append(journal, b"second")
        with next(files(tmp_path)).open("r+b") as file:
            file.seek(PAGE_BYTES + HEADER_BYTES)
            file.write(b"?")
        assert journal.row(1).packed == b"first"
        with pytest.raises(StoreError, match="journal row 2 is missing, or has changed"):
            journal.row(2)
        journal.let_go(2)
        assert journal.row(2) is None


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_missing_file_is_noticed(tmp_path: Path, gone: int) -> None:
    """the oldest, one between, and the newest, of whose first use the store has kept the number."""
    told: list[int] = []
    with closing(opened(tmp_path)) as journal:
        journal.start(told.append)
        for _ in range(8):
            append(journal, b"x" * LARGE)
    assert [1, 4, 7] == told
    list(files(tmp_path))[gone].unlink()

    with pytest.raises(StoreError, match=r"journal row \d is missing|journal-0+7: is missing, and the last rows"):
        opened(tmp_path, newest=told[-1])


def test_a_damaged_file_gives_all_rows_that_look_like_some(tmp_path: Path) -> None:
    """those that are whole are told from the others; the store's number is found in it."""
    appended(tmp_path, [b"a" * 40, b"b" * 40], [b"c" * 40])
    data = bytearray(next(files(tmp_path)).read_bytes())
    data[HEADER_BYTES + 3] ^= 255
    rows = list(all_rows(memoryview(data), KEY))

    assert [(1, False), (3, True)] == [(row.seq, row.whole) for row in rows]
    assert KEY == key_within(memoryview(data))


def test_rows_of_another_store_are_none(tmp_path: Path) -> None:
    appended(tmp_path, [b"first"])
    with closing(Journal.open(tmp_path, KEY + 1, 0, 0)) as journal:
        assert 0 == journal.sequence


# ---- Let go of ----


@pytest.mark.parametrize("last", range(1, 9))
def test_a_file_is_used_again_and_its_old_rows_are_not_taken_for_new(tmp_path: Path, last: int) -> None:
    """wherever in a file the last row is that was folded, at its end too."""
    packed = {number: b"%d" % number * LARGE for number in range(1, 12)}
    with closing(opened(tmp_path)) as journal:
        journal.start(lambda first: None)
        for number in range(1, 9):
            append(journal, packed[number])
        journal.let_go(last)
        assert [packed[number] for number in range(last + 1, 9)] == [row.packed for row in journal.rows(last)]
        assert (last >= 3) == (tmp_path / SPARE).exists()
        for number in range(9, 12):
            append(journal, packed[number])
        assert not (tmp_path / SPARE).exists()
        assert [packed[number] for number in range(last + 1, 12)] == [row.packed for row in journal.rows(last)]

    assert [packed[number] for number in range(last + 1, 12)] == found(tmp_path, last)


def test_nothing_is_let_go_of_that_is_pinned(tmp_path: Path) -> None:
    """who reads has all rows until the end, whatever is folded meanwhile; then they go."""
    with closing(opened(tmp_path)) as journal:
        journal.start(lambda first: None)
        for number in range(8):
            append(journal, b"%d" % number * LARGE)
        with journal.pinned():
            journal.let_go(8)
            assert 8 == len(list(journal.rows(0)))
        journal.let_go(8)
        assert journal.row(1) is None
        assert 1 == len(list(files(tmp_path)))


def test_a_crash_between_folding_and_letting_go_costs_nothing(tmp_path: Path) -> None:
    """Files whose rows are in the snapshot already are passed over, however many, and go with the next start."""
    appended(tmp_path, *([b"%d" % number * LARGE] for number in range(1, 9)))
    for folded in range(9):
        assert [b"%d" % number * LARGE for number in range(folded + 1, 9)] == found(tmp_path, folded)
    appended(tmp_path, [b"9"], folded=8)

    assert 1 == len(list(files(tmp_path)))
    assert [b"9"] == found(tmp_path, 8)


# ---- A disk that fails ----


def test_a_disk_that_takes_only_a_part_at_a_time(tmp_path: Path) -> None:
    """a write that is cut short goes on where it ended, and one that cannot is an error that says why."""
    program = f"""
import sys
from pathlib import Path
from quota.errors import StoreError
from quota.store.journal import Journal
from quota.store.segment import Kind
journal = Journal.open(Path({str(tmp_path)!r}), {KEY}, 0, 0)
journal.start(lambda first: None)
try:
    journal.append([(Kind.ACCOUNTS, bytes(2_000_000))], 1)
except StoreError as error:
    sys.exit(str(error))
"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, preexec_fn=limit)

    assert (1, f"{tmp_path}: the journal cannot be written: File too large\n") == (done.returncode, done.stderr)
    assert 1_500_000 == os.stat(tmp_path / SPARE).st_size


def test_it_is_measured_while_it_is_let_go_of(tmp_path: Path) -> None:
    """what is folded meanwhile counts for nothing, whichever row was asked about."""
    with closing(opened(tmp_path)) as journal:
        journal.start(lambda first: None)
        for number in range(8):
            append(journal, b"%d" % number * LARGE)
        sizes = [journal.bytes_after(seq) for seq in range(9)]
        journal.let_go(7)
        assert [sizes[7]] * 8 + [0] == [journal.bytes_after(seq) for seq in range(9)]
    assert sizes == sorted(sizes, reverse=True)
