"""The journal's files: what was acknowledged is found again, a torn commit is no damage, and every changed bit is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quota.errors import StoreError
from quota.store import segments
from quota.store.segments import HEADER_BYTES, PAGE_BYTES, SPARE, Journal

KEY = 7


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 4 * PAGE_BYTES)


def appended(directory: Path, *commits: list[bytes], folded: int = 0) -> None:
    journal = Journal.open(directory, KEY, folded)
    journal.clear()
    for at_us, rows in enumerate(commits):
        journal.append(rows, at_us)
    journal.close()


def found(directory: Path, folded: int = 0) -> list[bytes]:
    journal = Journal.open(directory, KEY, folded)
    rows = [row.packed for row in journal.rows(folded)]
    assert journal.sequence == folded + len(rows)
    journal.close()
    return rows


def files(directory: Path) -> Iterator[Path]:
    return iter(sorted(directory.glob("journal-0*")))


def test_what_was_appended_is_found_in_its_order(tmp_path: Path) -> None:
    """over several files, in commits of one row and of many, and goes on after each opening."""
    rows = [bytes([number]) * (number * 300) for number in range(1, 24)]
    appended(tmp_path, rows[:3], rows[3:4], rows[4:9])
    appended(tmp_path, *([row] for row in rows[9:]))
    assert rows == found(tmp_path)
    assert rows[5:] == found(tmp_path, 5)
    assert 5 <= len(list(files(tmp_path)))


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
                Journal.open(tmp_path, KEY, 0)
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
                Journal.open(tmp_path, KEY, 0)


def test_larger_damage_before_another_commit_is_noticed(tmp_path: Path) -> None:
    appended(tmp_path, [b"first" * 4], [b"last" * 4])
    file = next(files(tmp_path))
    file.write_bytes(bytes(PAGE_BYTES) + file.read_bytes()[PAGE_BYTES:])
    with pytest.raises(StoreError, match=r"journal row 1 has changed since it was written, and others follow it"):
        Journal.open(tmp_path, KEY, 0)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_missing_file_is_noticed(tmp_path: Path, gone: int) -> None:
    appended(tmp_path, *([b"x" * 5000] for _ in range(6)))
    list(files(tmp_path))[gone].unlink()
    with pytest.raises(StoreError, match=r"journal row \d is missing"):
        Journal.open(tmp_path, KEY, 0)


@pytest.mark.parametrize("last", range(1, 9))
def test_a_file_is_used_again_and_its_old_rows_are_not_taken_for_new(tmp_path: Path, last: int) -> None:
    """wherever in a file the last row is that was folded, at its end too."""
    packed = {number: b"%d" % number * 5000 for number in range(1, 12)}
    journal = Journal.open(tmp_path, KEY, 0)
    for number in range(1, 9):
        journal.append([packed[number]], number)
    journal.drop(next(row for row in journal.rows(0) if row.seq == last))
    assert [packed[number] for number in range(last + 1, 9)] == [row.packed for row in journal.rows(last)]
    assert (last >= 2) == (tmp_path / SPARE).exists()
    for number in range(9, 12):
        journal.append([packed[number]], number)
    assert not (tmp_path / SPARE).exists()
    assert [packed[number] for number in range(last + 1, 12)] == [row.packed for row in journal.rows(last)]
    journal.close()
    assert [packed[number] for number in range(last + 1, 12)] == found(tmp_path, last)


def test_a_crash_between_folding_and_letting_go_costs_nothing(tmp_path: Path) -> None:
    """Files whose rows are in the snapshot already are passed over, however many."""
    appended(tmp_path, *([b"%d" % number * 5000] for number in range(1, 9)))
    for folded in range(9):
        assert [b"%d" % number * 5000 for number in range(folded + 1, 9)] == found(tmp_path, folded)


def test_rows_of_another_store_are_none(tmp_path: Path) -> None:
    appended(tmp_path, [b"first"])
    journal = Journal.open(tmp_path, KEY + 1, 0)
    assert 0 == journal.sequence
    journal.close()
