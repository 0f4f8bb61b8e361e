"""The part of AdminService that is about the store: its audit log, its backup, and accounts with all that they have used."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from quota.engine import Engine
from quota.errors import CorruptRecord, FailedPrecondition, InvalidArgument, NotFound, QuotaError
from quota.server.account_messages import account_message, import_error, put_account
from quota.server.keeper import Keeper
from quota.server.quota_service import limit_messages
from quota.server.rpc import Method, caller
from quota.store import Store
from quota.store.audit import audit_page
from quota.store.backup import copy_store
from quota.v1 import admin_pb2

AUDIT_PAGE_DEFAULT: Final = 100
AUDIT_PAGE_MAX: Final = 1_000
BACKUP_PART_BYTES: Final = 1_048_576
BACKUP_PREFIX: Final = "backup-"  # of the copy being made, in the store's directory, where there is room for one
DUMP_PART_ACCOUNTS: Final = 200
ERRORS_MAX: Final = 1_000  # told one by one; the rest is counted
NUMBER_MAX: Final = 2**63 - 1
TOLD_SECONDS: Final = 0.2

logger = logging.getLogger(__name__)


class StoreService:
    """Serves what needs the store; accounts are dumped and loaded without one too."""

    def __init__(self, engine: Engine, store: Store | None, keeper: Keeper) -> None:
        self._engine = engine
        self._store = store
        self._keeper = keeper
        if store is not None:
            for left_behind in store.directory.glob(BACKUP_PREFIX + "*"):  # by a process that was killed
                shutil.rmtree(left_behind)

    def methods(self) -> Mapping[str, Method]:
        """Return what is served, by the method's name in the proto."""
        return {
            "ListAudit": self.list_audit,
            "Backup": self.backup,
            "DumpAccounts": self.dump_accounts,
            "LoadAccounts": self.load_accounts,
        }

    def list_audit(self, message: admin_pb2.ListAuditRequest) -> admin_pb2.ListAuditResponse:
        store = self._required()
        if not 0 <= message.page_size <= AUDIT_PAGE_MAX:
            raise InvalidArgument("page_size", message.page_size, f"0 to {AUDIT_PAGE_MAX}")
        token = message.page_token or f"{NUMBER_MAX}"
        if not (token.isascii() and token.isdigit() and int(token) <= NUMBER_MAX):
            raise InvalidArgument("page_token", message.page_token, "a token from the page before, or empty")
        count = message.page_size or AUDIT_PAGE_DEFAULT
        entries = audit_page(store.file, int(token), count)
        return admin_pb2.ListAuditResponse(
            entries=(
                admin_pb2.AuditEntry(number=it.number, at_ms=it.at_ms, who=it.who, what=it.what, details=it.details)
                for it in entries
            ),
            next_page_token=f"{entries[-1].number}" if len(entries) == count else "",
        )

    # ---- Backup ------------------------------------------------------------------------------------------------------

    def backup(self, message: admin_pb2.BackupRequest) -> Iterator[admin_pb2.BackupPart]:
        store, who = self._required(), caller()
        store.wait_all()  # in interval mode what was answered may not be in the file yet
        with tempfile.TemporaryDirectory(prefix=BACKUP_PREFIX, dir=store.directory) as directory:
            file = Path(directory) / "copy"
            yield from _copied(store, file)
            bytes_total = file.stat().st_size
            with file.open("rb") as opened:
                while data := opened.read(BACKUP_PART_BYTES):
                    yield admin_pb2.BackupPart(data=data, bytes_total=bytes_total)
        logger.info("backup sent", extra={"who": who, "bytes": bytes_total})

    # ---- Accounts with their usage -----------------------------------------------------------------------------------

    def dump_accounts(self, message: admin_pb2.DumpAccountsRequest) -> Iterator[admin_pb2.DumpAccountsPart]:
        token = ""
        while True:
            accounts, token = self._engine.list_accounts(page_size=DUMP_PART_ACCOUNTS, page_token=token)
            records = [record for account in accounts if (record := self._record(account.id)) is not None]
            yield admin_pb2.DumpAccountsPart(accounts=records, accounts_total=self._engine.accounts_count)
            if not token:
                return

    def _record(self, id: str) -> admin_pb2.AccountRecord | None:
        """Return an account with its usage; None if it has been deleted meanwhile."""
        record = self._engine.ledger.encode(id, 0)
        try:
            account, usage = self._engine.get_account(id), self._engine.usage(id)
        except NotFound:
            return None
        if record is None:
            return None
        return admin_pb2.AccountRecord(
            account=account_message(account), record=record, limits=limit_messages(usage.limits)
        )

    def load_accounts(self, messages: Iterator[admin_pb2.LoadAccountsRequest]) -> admin_pb2.LoadAccountsResponse:
        response = admin_pb2.LoadAccountsResponse()
        index = 0
        for message in messages:
            self._keeper.check()
            loaded: list[str] = []
            for record in message.accounts:
                try:
                    self._load(record)
                    loaded.append(record.account.id)
                except QuotaError as error:
                    response.failed += 1
                    if response.failed <= ERRORS_MAX:
                        response.errors.append(import_error(index, record.account.id, error))
                index += 1
            response.loaded += len(loaded)
            if loaded:
                self._keeper.keep("LoadAccounts", {"accounts": loaded})
        return response

    def _load(self, record: admin_pb2.AccountRecord) -> None:
        account = record.account
        if record.record:
            try:
                self._engine.ledger.decode(account.id, record.record)
            except CorruptRecord as error:
                raise InvalidArgument("record", f"{len(record.record)} bytes", f"as it was dumped; {error}") from error
            if account_message(self._engine.get_account(account.id)) == account:
                return
        put_account(self._engine, account)

    def _required(self) -> Store:
        if self._store is None:
            raise FailedPrecondition("the server has no store: it runs with --ephemeral")
        return self._store


def _copied(store: Store, target: Path) -> Iterator[admin_pb2.BackupPart]:
    """Copy the store in a thread of its own, and tell how far it is."""
    percent = 0

    def progress(done: int, total: int) -> None:
        nonlocal percent
        percent = done * 100 // max(total, 1)

    with ThreadPoolExecutor(1, thread_name_prefix="backup") as pool:
        copying = pool.submit(copy_store, store.file, store.journal, target, progress)
        while not copying.done():
            yield admin_pb2.BackupPart(copied_percent=percent)
            with suppress(TimeoutError):
                copying.result(TOLD_SECONDS)
        copying.result()
