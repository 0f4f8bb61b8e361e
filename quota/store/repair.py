"""A damaged store made one that starts again: what is good is kept, what is not goes into a report, nothing is lost silently.

Works on a copy, while no server does. What the damage hid from SQLite itself is made visible first: a bad frame of the
write-ahead log would end it, so the pages of all frames are taken, and the rows' own checksums tell what is wrong. Of a
damaged segment of the journal all is taken that looks like a row. The new file has the journal folded in: where an
account's latest state is damaged, the one before it holds, and the report says so.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from quota.errors import CorruptRecord, QuotaError, StoreError
from quota.store import segment
from quota.store.backup import exchange
from quota.store.earlier import EARLIER_SCHEMA, has_table
from quota.store.format import (
    FILE,
    FORMAT,
    PUT_AUDIT,
    PUT_CATALOG,
    PUT_META,
    PUT_SNAPSHOT,
    Note,
    checked,
    checksum,
    unpack,
    unpack_note,
)  # fmt: skip
from quota.store.journal import NAME, NAMES
from quota.store.load import put_notes
from quota.store.lock import DirectoryLock
from quota.store.pages import records
from quota.store.salvage import Row, journal_rows, mend, salvaged
from quota.store.segment import Kind
from quota.store.store import create

Decode = Callable[[str, bytes], None]
"""Tries an account's id and blob. Raises CorruptRecord."""
LoadCatalog = Callable[[str], object]
"""Tries a catalog's text. Raises QuotaError."""
NOT_ITS_FAULT: Final = ("no catalog ", "its catalog has no plan ")
"""How a CorruptRecord begins that is about catalogs that are not here, and not about the record."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was set aside, or that is not there."""

    table: str
    key: str
    reason: str
    data: bytes = b""

    def line(self) -> str:
        return json.dumps(
            {"table": self.table, "key": self.key, "reason": self.reason, "data": b64encode(self.data).decode()},
            ensure_ascii=False,
        )


@dataclass(slots=True)
class Repair:
    """What came of it. Without findings nothing was touched. `unknown` are catalogs and plans of accounts that are not here."""

    findings: list[Finding] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    accounts_count: int = 0
    report: Path | None = None
    old: Path | None = None


def repair(directory: Path, load_catalog: LoadCatalog, decode: Decode, when: str) -> Repair:
    """Repair a directory's store. `when` names the report and the old file, which is kept. Raises StoreError."""
    file = directory / FILE
    if not file.exists():
        raise StoreError(f"{file}: is not there")
    try:
        with closing(DirectoryLock(directory)), tempfile.TemporaryDirectory(prefix="repair-", dir=directory) as work:
            for companion in ("", "-wal"):
                if (directory / (FILE + companion)).exists():
                    shutil.copyfile(directory / (FILE + companion), Path(work) / ("copy" + companion))
            salvage = Salvage(load_catalog, decode)
            create(Path(work))
            (Path(work) / "earlier").mkdir()
            create(Path(work) / "earlier", EARLIER_SCHEMA)
            samples = [Path(work) / FILE, Path(work) / "earlier" / FILE]
            segments = sorted(directory.glob(NAMES))
            salvage.read(Path(work) / "copy", samples if segments else samples[::-1], segments)
            done = salvage.done
            if done.findings:
                done.report = directory / f"repair-{when}.jsonl"
                done.report.write_text("".join(f"{finding.line()}\n" for finding in done.findings), "utf-8")
                salvage.write(Path(work) / FILE)
                arriving = (Path(work) / FILE).rename(directory / f"{FILE}.arriving")
                done.old = exchange(directory, arriving, f".before-repair-{when}")
            return done
    except OSError as error:
        raise StoreError(f"{directory}: {error.strerror}") from error


class Salvage:
    """What could be read of a store."""

    def __init__(self, load_catalog: LoadCatalog, decode: Decode) -> None:
        self._load_catalog = load_catalog
        self._decode = decode
        self.done = Repair()
        self.meta: dict[str, str] = {}
        self.catalogs: list[Row] = []
        self.audit: list[Row] = []
        self.accounts: dict[bytes, bytes] = {}
        self.notes: list[Note] = []
        self._unread = False  # whether there may be rows that no tree led to

    # ---- Reading ----

    def read(self, copy: Path, samples: list[Path], segments: list[Path]) -> None:
        """Read all that can be, and note what cannot; `samples` are empty stores. Raises StoreError if nothing can.

        The segments of the journal are read where they lie.
        """
        for reason in mend(copy, samples):
            self._unread = True
            self._found("file", "", reason)
        try:
            with closing(sqlite3.connect(copy, isolation_level=None)) as database:
                database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that all pages are in the one file
                self._check_pages(database)
                self._read_tables(database, copy, segments)
        except sqlite3.Error as error:
            raise StoreError(f"nothing can be read: {error}; take a backup (quotad restore)") from error

    def _check_pages(self, database: sqlite3.Connection) -> None:
        try:
            problems = [text for (text,) in database.execute("PRAGMA integrity_check(20)")]
        except sqlite3.DatabaseError as error:
            problems = [f"{error}"]
        for problem in problems:
            if problem != "ok":
                self._unread = True
                self._found("file", "", " ".join(str(problem).split()))

    def _read_tables(self, database: sqlite3.Connection, copy: Path, segments: list[Path]) -> None:
        self.meta = {str(row[0]): str(row[1]) for row in self._good(database, "meta")}
        version = self.meta.get("format", str(FORMAT))
        if not version.isdecimal() or int(version) > FORMAT:
            raise StoreError(
                f"the file is of format {version}, and this quotad knows formats up to {FORMAT}: use a newer one"
            )
        for row in self._good(database, "catalogs"):
            try:
                self._load_catalog(str(row[1]))
            except QuotaError as error:
                self._found("catalogs", row[0], str(error), _raw(row[1]))
                continue
            self.catalogs.append(row)
        self.audit = sorted(self._good(database, "audit"))
        snapshot = {id: (blob, crc) for id, blob, crc in self._rows(database, "snapshot")}
        table = {seq: row for seq, *row in self._rows(database, "journal")} if has_table(database) else {}
        if self._unread:
            self._read_pages(copy, snapshot, table)
        for id, (blob, crc) in snapshot.items():
            self._take_snapshot(id, blob, crc)
        self._take_journal([self._table_row(seq, *row) for seq, row in table.items()] + self._read_segments(segments))
        self.done.accounts_count = len(self.accounts)

    def _read_pages(self, copy: Path, snapshot: dict[Any, Any], journal: dict[Any, Any]) -> None:
        """Look for rows that no tree leads to any more; their checksums tell them from what only looks like one."""
        found = 0
        for rowid, columns in records(copy):
            match columns:
                case (bytes(id), bytes(blob), int(crc)) if id not in snapshot and crc == crc32(blob, crc32(id)):
                    if self.meta.get(id.decode("utf-8", "replace")) == blob.decode("utf-8", "replace"):
                        continue  # a row of that table, which looks the same
                    snapshot[id] = blob, crc
                case (None, int(at_us), bytes(packed), int(crc)) if rowid not in journal and crc == checksum(
                    rowid, at_us, packed
                ):
                    journal[rowid] = at_us, packed, crc
                case _:
                    continue
            found += 1
        if found:
            self._found("file", "", f"{found} rows were found in pages that nothing led to")

    def _take_snapshot(self, id: object, blob: object, crc: object) -> None:
        if not isinstance(id, bytes) or not isinstance(blob, bytes):
            self._found("snapshot", id, "not an account", _raw(blob))
        elif crc != crc32(blob, crc32(id)):
            self._found("snapshot", id, "the checksum does not match", blob)
        else:
            self._take("snapshot", id, blob)

    def _table_row(self, seq: int, at_us: object, packed: object, crc: object) -> segment.Row:
        """Return a row of the table that earlier formats have."""
        whole = crc == checksum(seq, at_us, packed)
        if not isinstance(packed, bytes) or not isinstance(at_us, int):
            self._found("journal", seq, "not a row", _raw(packed))
            at_us, packed = 0, b""
        return segment.Row(seq, seq, at_us, Kind.ACCOUNTS, packed, 0, whole)

    def _read_segments(self, paths: list[Path]) -> list[segment.Row]:
        """Read the rows of the journal; of a damaged segment all that look like some."""
        rows: list[segment.Row] = []
        for path in paths:
            found, reason = journal_rows(path, self.meta.get("key", ""))
            if reason:
                self._found("file", path.name, reason)
            rows += found
        newest = int(self.meta.get("journal", "0"))
        if newest > max((int(it.name.removeprefix("journal-"), 16) for it in paths), default=0):
            self._found("file", NAME.format(newest), "is missing, and the last rows of the journal with it")
        return rows

    def _take_journal(self, rows: list[segment.Row]) -> None:
        """Let later states replace earlier ones, in the order of the rows."""
        by_seq = {row.seq: row for row in sorted(rows, key=lambda it: it.whole)}
        known = self.meta.get("folded", "")
        last = int(known) if known.isdecimal() else min(by_seq, default=1) - 1
        time_us = int(self.meta.get("time_us", "0"))
        for seq in sorted(it for it in by_seq if it > last):
            row = by_seq[seq]
            if seq != last + 1:
                self._found("journal", f"{last + 1} to {seq - 1}", "missing: older states of accounts may hold")
            last = seq
            if row.whole:
                time_us = max(time_us, row.at_us)
            else:
                self._found("journal", seq, "the checksum does not match; its accounts are looked at one by one")
            if row.kind == Kind.ACCOUNTS:
                self._take_row(seq, row.packed)
            elif row.whole:
                self._take_note(seq, unpack_note(row.packed))
        self.meta |= {"folded": str(last), "time_us": str(time_us)}

    def _take_note(self, seq: int, note: Note) -> None:
        table, columns = note
        if table == "catalogs":
            try:
                self._load_catalog(str(columns[1]))
            except QuotaError as error:
                self._found(f"journal row {seq}", columns[0], str(error), _raw(columns[1]))
                return
        self.notes.append(note)

    def _take_row(self, seq: int, packed: bytes) -> None:
        try:
            for id, blob in unpack(packed):
                self._take(f"journal row {seq}", id, blob)
        except ValueError as error:
            self._found("journal", seq, f"its accounts cannot be told apart: {error}", packed)

    def _take(self, place: str, id: bytes, blob: bytes) -> None:
        """Keep an account's state, in place of an earlier one, if it decodes."""
        if not blob:
            self.accounts.pop(id, None)
            return
        try:
            self._decode(id.decode(), blob)
        except UnicodeDecodeError:
            self._found(place, id, "the id is not UTF-8", blob)
            return
        except CorruptRecord as error:
            reason = str(error).rpartition(f"{id.decode()!r}: ")[2]
            if not reason.startswith(NOT_ITS_FAULT):
                kept = "; an earlier state of it is kept" if id in self.accounts else ""
                self._found(place, id, f"{reason}{kept}", blob)
                return
            self.done.unknown.add(reason)
        self.accounts[id] = blob

    def _good(self, database: sqlite3.Connection, table: str) -> Iterable[Row]:
        """Yield the rows whose checksums match."""
        for row in self._rows(database, table):
            if row[-1] == checksum(*row[:-1]):
                yield row
            else:
                self._found(table, row[0], "the checksum does not match", b"\0".join(map(_raw, row[1:-1])))

    def _rows(self, database: sqlite3.Connection, table: str) -> Iterable[Row]:
        def lost(key: object, reason: str) -> None:
            self._unread = True
            self._found(table, key, reason)

        return salvaged(database, table, lost)

    def _found(self, table: str, key: object, reason: str, data: bytes = b"") -> None:
        shown = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
        self.done.findings.append(Finding(table, shown, reason, data))

    # ---- Writing ----

    def write(self, file: Path) -> None:
        """Write what was kept into an empty store."""
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("BEGIN")
            database.executemany(PUT_CATALOG, self.catalogs)
            database.executemany(PUT_AUDIT, self.audit)
            snapshot = ((id, blob, crc32(blob, crc32(id))) for id, blob in self.accounts.items())
            database.executemany(PUT_SNAPSHOT, snapshot)
            for key in ("folded", "time_us", "capacity_micro"):
                if key in self.meta:
                    database.execute(PUT_META, checked(key, self.meta[key]))
            database.execute("COMMIT")
            put_notes(database, self.notes)


def _raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
