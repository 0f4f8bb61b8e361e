"""Clients of a running server: the stubs with arguments by name, answers as messages.

Calls raise `grpc.RpcError`; its `code()` and `details()` say what is wrong, as the comments of the protos tell. A
refusal is no error: look at `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc

from quota.v1 import admin_pb2, admin_pb2_grpc, quota_pb2, quota_pb2_grpc

SERVER: Final = "127.0.0.1:50051"
ADMIN_SERVER: Final = "127.0.0.1:50052"
TIMEOUT_S: Final = 10.0
MESSAGE_ACCOUNTS: Final = 500  # accounts sent in one message of an import

# An answer may be longer than what grpcio takes unless told: a batch of 10,000, a page of 10,000 accounts.
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # the server is a neighbour; a proxy set for the web does not know it
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Secrets:
    """What a server asks for, and what it is to show. Certificates and keys are PEM."""

    token: str = ""
    tls: bool = False
    """Speak TLS; so does whoever gives one of the following."""
    ca: bytes | None = None
    """Who may have signed the server's certificate; None: those whom the system trusts."""
    cert: bytes | None = None
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return what a channel is secured with; None: nothing."""
        if not (self.tls or self.ca or self.cert):
            return None
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


NO_SECRETS: Final = Secrets()


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Shows a token with every call."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_with_header(client_call_details, self._header), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_with_header(client_call_details, self._header), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(_with_header(client_call_details, self._header), request_iterator)


@dataclass(frozen=True, slots=True)
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


def _with_header(details: grpc.ClientCallDetails, header: tuple[str, str]) -> _Details:
    return _Details(
        details.method, details.timeout, (*(details.metadata or ()), header), details.credentials,
        details.wait_for_ready, details.compression,
    )  # fmt: skip


class _Channel:
    """A connection that closes at the end of a `with`. `timeout_s` bounds each call but those on whole files."""

    def __init__(self, address: str, timeout_s: float, secrets: Secrets) -> None:
        credentials = secrets.credentials()
        self._channel = (
            grpc.secure_channel(address, credentials, options=_OPTIONS)
            if credentials
            else grpc.insecure_channel(address, options=_OPTIONS)
        )
        self._calls = grpc.intercept_channel(self._channel, _Bearer(secrets.token)) if secrets.token else self._channel
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()


class QuotaClient(_Channel):
    """Asks the data port."""

    def __init__(self, address: str = SERVER, *, timeout_s: float = TIMEOUT_S, secrets: Secrets = NO_SECRETS) -> None:
        super().__init__(address, timeout_s, secrets)
        self._stub = quota_pb2_grpc.QuotaServiceStub(self._calls)

    def admit(self, request: quota_pb2.AdmitRequest) -> quota_pb2.AdmitResponse:
        """Decide and charge."""
        return self._stub.Admit(request, timeout=self._timeout_s)

    def admit_batch(self, requests: Iterable[quota_pb2.AdmitRequest]) -> list[quota_pb2.AdmitResult]:
        """Decide and charge each on its own, in order."""
        batch = quota_pb2.AdmitBatchRequest(requests=requests)
        return list(self._stub.AdmitBatch(batch, timeout=self._timeout_s).results)

    def peek(self, request: quota_pb2.AdmitRequest) -> quota_pb2.AdmitResponse:
        """Say what admit would say; nothing changes."""
        return self._stub.Peek(request, timeout=self._timeout_s)

    def settle(
        self,
        account: str,
        request_id: str,
        outcome: quota_pb2.Outcome.ValueType,
        draws: Iterable[quota_pb2.Draw] = (),
    ) -> quota_pb2.SettleResponse:
        """Say how a request ended; `draws` are the whole actual use, none keeps the charge."""
        request = quota_pb2.SettleRequest(account=account, request_id=request_id, outcome=outcome, draws=draws)
        return self._stub.Settle(request, timeout=self._timeout_s)

    def renew(self, account: str, request_id: str, hold_ms: int) -> quota_pb2.RenewResponse:
        """Keep a hold open for so long from now."""
        request = quota_pb2.RenewRequest(account=account, request_id=request_id, hold_ms=hold_ms)
        return self._stub.Renew(request, timeout=self._timeout_s)

    def usage(self, account: str) -> quota_pb2.Usage:
        """Show every limit of an account's plan, and what is in flight."""
        return self._stub.GetUsage(quota_pb2.GetUsageRequest(account=account), timeout=self._timeout_s)


class AdminClient(_Channel):
    """Asks the control port."""

    def __init__(
        self, address: str = ADMIN_SERVER, *, timeout_s: float = TIMEOUT_S, secrets: Secrets = NO_SECRETS
    ) -> None:
        super().__init__(address, timeout_s, secrets)
        self._stub = admin_pb2_grpc.AdminServiceStub(self._calls)

    def put_account(self, account: admin_pb2.Account) -> admin_pb2.Account:
        """Create or change an account; return it as it is now."""
        return self._stub.PutAccount(admin_pb2.PutAccountRequest(account=account), timeout=self._timeout_s)

    def get_account(self, account_id: str) -> admin_pb2.Account:
        return self._stub.GetAccount(admin_pb2.GetAccountRequest(id=account_id), timeout=self._timeout_s)

    def list_accounts(self) -> Iterator[admin_pb2.Account]:
        """Yield every account, asking page by page."""
        request = admin_pb2.ListAccountsRequest()
        while True:
            page = self._stub.ListAccounts(request, timeout=self._timeout_s)
            yield from page.accounts
            if not page.next_page_token:
                return
            request = admin_pb2.ListAccountsRequest(page_token=page.next_page_token)

    def delete_account(self, account_id: str, *, purge: bool = False) -> None:
        self._stub.DeleteAccount(admin_pb2.DeleteAccountRequest(id=account_id, purge=purge), timeout=self._timeout_s)

    def import_accounts(self, accounts: Iterable[admin_pb2.Account]) -> admin_pb2.ImportAccountsResponse:
        """Put many accounts, read from `accounts` as they are sent, however long it takes."""
        return self._stub.ImportAccounts(_import_messages(accounts))

    def list_catalogs(self) -> list[admin_pb2.CatalogInfo]:
        response = self._stub.ListCatalogs(admin_pb2.ListCatalogsRequest(), timeout=self._timeout_s)
        return list(response.catalogs)

    def load_catalog(self, yaml: str) -> admin_pb2.LoadCatalogResponse:
        return self._stub.LoadCatalog(admin_pb2.LoadCatalogRequest(yaml=yaml), timeout=self._timeout_s)

    def check_catalog(self, yaml: str) -> admin_pb2.CheckCatalogResponse:
        return self._stub.CheckCatalog(admin_pb2.CheckCatalogRequest(yaml=yaml), timeout=self._timeout_s)

    def set_capacity(self, factor_micro: int) -> admin_pb2.CapacityState:
        """Leave accounts so many millionths of their concurrency."""
        request = admin_pb2.SetCapacityRequest(factor_micro=factor_micro)
        return self._stub.SetCapacity(request, timeout=self._timeout_s)

    def get_capacity(self) -> admin_pb2.CapacityState:
        return self._stub.GetCapacity(admin_pb2.GetCapacityRequest(), timeout=self._timeout_s)

    def adjust_usage(
        self, account_id: str, *, pool: str = "", limit_id: str = "", micro: int, reason: str
    ) -> admin_pb2.AdjustUsageResponse:
        """Take (above 0) or give back (below 0), on every limit of a pool or on one. Each call moves anew."""
        request = admin_pb2.AdjustUsageRequest(
            account=account_id, pool=pool, limit_id=limit_id, micro=micro, reason=reason
        )
        return self._stub.AdjustUsage(request, timeout=self._timeout_s)

    def get_clock(self) -> admin_pb2.ClockState:
        return self._stub.GetClock(admin_pb2.GetClockRequest(), timeout=self._timeout_s)

    def accept_clock(self) -> int:
        """Adopt a forward step of the wall clock; return how far, in milliseconds."""
        return self._stub.AcceptClock(admin_pb2.AcceptClockRequest(), timeout=self._timeout_s).adopted_ms

    def list_audit(self, page_size: int = 0) -> Iterator[admin_pb2.AuditEntry]:
        """Yield every change made through the control port, the latest first, asking page by page."""
        request = admin_pb2.ListAuditRequest(page_size=page_size)
        while True:
            page = self._stub.ListAudit(request, timeout=self._timeout_s)
            yield from page.entries
            if not page.next_page_token:
                return
            request = admin_pb2.ListAuditRequest(page_size=page_size, page_token=page.next_page_token)

    def backup(self) -> Iterator[admin_pb2.BackupPart]:
        """Yield the parts of a copy of the store, however long it takes."""
        yield from self._stub.Backup(admin_pb2.BackupRequest())

    def dump_accounts(self) -> Iterator[admin_pb2.DumpAccountsPart]:
        """Yield all accounts with what they have used, however long it takes."""
        yield from self._stub.DumpAccounts(admin_pb2.DumpAccountsRequest())

    def load_accounts(self, records: Iterable[admin_pb2.AccountRecord]) -> admin_pb2.LoadAccountsResponse:
        """Put accounts with what they have used, read from `records` as they are sent, however long it takes."""
        return self._stub.LoadAccounts(_load_messages(records))


def admit_request(
    account: str,
    *,
    model: str = "",
    tool: str = "",
    endpoint: str = "",
    mode: quota_pb2.Mode.ValueType = quota_pb2.ENFORCE,
    draws: Mapping[str, int] | None = None,
    request_id: str = "",
    prompt_id: str = "",
    hold_ms: int = 0,
    client: str = "",
    explain: bool = False,
) -> quota_pb2.AdmitRequest:
    """Make a request; `draws` maps meters to amounts, none means one of the catalog's default meter."""
    return quota_pb2.AdmitRequest(
        account=account,
        model=model,
        tool=tool,
        endpoint=endpoint,
        mode=mode,
        draws=(quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in (draws or {}).items()),
        request_id=request_id,
        prompt_id=prompt_id,
        hold_ms=hold_ms,
        client=client,
        explain=explain,
    )


def _import_messages(accounts: Iterable[admin_pb2.Account]) -> Iterator[admin_pb2.ImportAccountsRequest]:
    message = admin_pb2.ImportAccountsRequest()
    for account in accounts:
        message.accounts.append(account)
        if len(message.accounts) == MESSAGE_ACCOUNTS:
            yield message
            message = admin_pb2.ImportAccountsRequest()
    if message.accounts:
        yield message


def _load_messages(records: Iterable[admin_pb2.AccountRecord]) -> Iterator[admin_pb2.LoadAccountsRequest]:
    message = admin_pb2.LoadAccountsRequest()
    for record in records:
        message.accounts.append(record)
        if len(message.accounts) == MESSAGE_ACCOUNTS:
            yield message
            message = admin_pb2.LoadAccountsRequest()
    if message.accounts:
        yield message
