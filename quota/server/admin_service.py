"""AdminService: accounts, catalogs, capacity and the clock, for operators. What concerns the store is in `store_service`.

Every change is made, noted in the audit log, and answered once both are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Final

from quota.catalog import compile_catalog, parse
from quota.clock import Clock
from quota.engine import Engine
from quota.errors import CatalogError, InvalidArgument, QuotaError
from quota.ranges import MICRO
from quota.server.account_messages import account_details, account_message, import_error, put_account
from quota.server.catalog_files import CatalogFiles
from quota.server.keeper import Keeper
from quota.server.names import checked_id
from quota.server.quota_service import limit_messages
from quota.server.rpc import Method
from quota.server.store_service import StoreService
from quota.server.traces import UNTRACED, Traces
from quota.store import Store
from quota.v1 import admin_pb2, quota_pb2

IMPORT_ERRORS_MAX: Final = 1_000  # told one by one; the rest is counted
PAGE_ACCOUNTS_DEFAULT: Final = 1_000
YAML_NAME: Final = "<yaml>"  # stands for the file's name where a catalog came as text


class AdminService:
    """Serves AdminService. What `catalog_files` has is not LoadCatalog's to replace.

    Without a `store` changes last as long as the process.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        *,
        catalog_files: CatalogFiles,
        page_accounts_max: int,
        store: Store | None = None,
        traces: Traces = UNTRACED,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._catalog_files = catalog_files
        self.page_accounts_max = page_accounts_max
        self._keeper = Keeper(store, traces)
        self._store_service = StoreService(engine, store, self._keeper)

    def methods(self) -> Mapping[str, Method]:
        """Return what is served, by the method's name in the proto."""
        return {
            "PutAccount": self.put_account,
            "GetAccount": self.get_account,
            "ListAccounts": self.list_accounts,
            "DeleteAccount": self.delete_account,
            "ImportAccounts": self.import_accounts,
            "ListCatalogs": self.list_catalogs,
            "LoadCatalog": self.load_catalog,
            "CheckCatalog": self.check_catalog,
            "SetCapacity": self.set_capacity,
            "GetCapacity": self.get_capacity,
            "AdjustUsage": self.adjust_usage,
            "GetClock": self.get_clock,
            "AcceptClock": self.accept_clock,
            **self._store_service.methods(),
        }

    # ---- Accounts ----------------------------------------------------------------------------------------------------

    def put_account(self, message: admin_pb2.PutAccountRequest) -> admin_pb2.Account:
        self._keeper.check()
        account = put_account(self._engine, message.account)
        self._keeper.keep("PutAccount", account_details(account))
        return account_message(account)

    def get_account(self, message: admin_pb2.GetAccountRequest) -> admin_pb2.Account:
        return account_message(self._engine.get_account(checked_id("id", message.id)))

    def list_accounts(self, message: admin_pb2.ListAccountsRequest) -> admin_pb2.ListAccountsResponse:
        most = self.page_accounts_max
        if not 0 <= message.page_size <= most:
            raise InvalidArgument("page_size", message.page_size, f"0 to {most} (page_accounts_max)")
        page_size = message.page_size or min(PAGE_ACCOUNTS_DEFAULT, most)
        accounts, next_page_token = self._engine.list_accounts(page_size=page_size, page_token=message.page_token)
        return admin_pb2.ListAccountsResponse(
            accounts=(account_message(account) for account in accounts), next_page_token=next_page_token
        )

    def delete_account(self, message: admin_pb2.DeleteAccountRequest) -> admin_pb2.DeleteAccountResponse:
        self._keeper.check()
        self._engine.delete_account(checked_id("id", message.id), purge=message.purge)
        self._keeper.keep("DeleteAccount", {"id": message.id, "purge": message.purge})
        return admin_pb2.DeleteAccountResponse()

    def import_accounts(self, messages: Iterator[admin_pb2.ImportAccountsRequest]) -> admin_pb2.ImportAccountsResponse:
        response = admin_pb2.ImportAccountsResponse()
        index = 0
        for message in messages:
            self._keeper.check()
            put: list[str] = []
            for account in message.accounts:
                try:
                    put.append(put_account(self._engine, account).id)
                except QuotaError as error:
                    response.failed += 1
                    if response.failed <= IMPORT_ERRORS_MAX:
                        response.errors.append(import_error(index, account.id, error))
                index += 1
            response.loaded += len(put)
            if put:
                self._keeper.keep("ImportAccounts", {"accounts": put})
        return response

    # ---- Catalogs ----------------------------------------------------------------------------------------------------

    def list_catalogs(self, message: admin_pb2.ListCatalogsRequest) -> admin_pb2.ListCatalogsResponse:
        return admin_pb2.ListCatalogsResponse(
            catalogs=(
                admin_pb2.CatalogInfo(
                    name=catalog.name,
                    version=catalog.version,
                    loaded_at_ms=catalog.loaded_at_ms,
                    plans=catalog.plans,
                    accounts=catalog.accounts,
                    from_file=catalog.name in self._catalog_files.names,
                )
                for catalog in sorted(self._engine.catalogs(), key=lambda catalog: catalog.name)
            )
        )

    def load_catalog(self, message: admin_pb2.LoadCatalogRequest) -> admin_pb2.LoadCatalogResponse:
        catalog = parse(message.yaml, YAML_NAME)
        with self._catalog_files.beside(catalog.name):
            self._keeper.check()
            # The engine takes a text without a newline for a path; a caller must never choose a file of the server's.
            version = self._engine.load_catalog(message.yaml + "\n")
        self._keeper.keep("LoadCatalog", {"catalog": version.name, "version": version.version})
        return admin_pb2.LoadCatalogResponse(
            catalog=quota_pb2.CatalogVersion(name=version.name, version=version.version), warnings=catalog.warnings
        )

    def check_catalog(self, message: admin_pb2.CheckCatalogRequest) -> admin_pb2.CheckCatalogResponse:
        try:
            catalog = parse(message.yaml, YAML_NAME)
            compile_catalog(catalog)
        except CatalogError as error:
            return admin_pb2.CheckCatalogResponse(problems=error.problems)
        return admin_pb2.CheckCatalogResponse(warnings=catalog.warnings)

    # ---- Capacity and usage ------------------------------------------------------------------------------------------

    def set_capacity(self, message: admin_pb2.SetCapacityRequest) -> admin_pb2.CapacityState:
        micro = message.factor_micro if message.HasField("factor_micro") else None
        if micro is None or not 0 <= micro <= MICRO:
            raise InvalidArgument("factor_micro", micro, f"0 to {MICRO}")
        self._keeper.check()
        self._engine.set_capacity(Fraction(micro, MICRO))
        self._keeper.keep("SetCapacity", {"factor_micro": micro})
        return self._capacity()

    def get_capacity(self, message: admin_pb2.GetCapacityRequest) -> admin_pb2.CapacityState:
        return self._capacity()

    def adjust_usage(self, message: admin_pb2.AdjustUsageRequest) -> admin_pb2.AdjustUsageResponse:
        self._keeper.check()
        adjustment = self._engine.adjust_usage(
            checked_id("account", message.account),
            pool=message.pool,
            limit_id=message.limit_id,
            micro=message.micro,
            reason=message.reason,
        )
        asked = {name: value for name, value in (("pool", message.pool), ("limit_id", message.limit_id)) if value}
        self._keeper.keep(
            "AdjustUsage",
            {"account": message.account, **asked, "micro": message.micro, "reason": message.reason,
             "moved": dict(adjustment.moved)},
        )  # fmt: skip
        return admin_pb2.AdjustUsageResponse(
            moved=(admin_pb2.Movement(limit_id=id, micro=micro) for id, micro in adjustment.moved.items()),
            limits=limit_messages(adjustment.limits),
        )

    def _capacity(self) -> admin_pb2.CapacityState:
        return admin_pb2.CapacityState(factor_micro=self._engine.capacity_micro)

    # ---- The clock ---------------------------------------------------------------------------------------------------

    def get_clock(self, message: admin_pb2.GetClockRequest) -> admin_pb2.ClockState:
        reading = self._clock.read()
        return admin_pb2.ClockState(
            now_ms=reading.now_us // 1000,
            wall_ms=reading.wall_us // 1000,
            step_ms=reading.step_us // 1000,
            alarms=reading.alarms_count,
        )

    def accept_clock(self, message: admin_pb2.AcceptClockRequest) -> admin_pb2.AcceptClockResponse:
        self._keeper.check()
        adopted_ms = self._clock.accept() // 1000
        self._keeper.keep("AcceptClock", {"adopted_ms": adopted_ms})
        return admin_pb2.AcceptClockResponse(adopted_ms=adopted_ms)
