"""Accounts as messages, both ways, and as the audit log tells them."""

from __future__ import annotations

from quota import Account
from quota.engine import Engine
from quota.errors import InvalidArgument, QuotaError
from quota.server.status import details, status_number
from quota.v1 import admin_pb2


def put_account(engine: Engine, message: admin_pb2.Account) -> Account:
    """Put an account as a message has it. Raises InvalidArgument."""
    overrides: dict[str, int] = {}
    for index, override in enumerate(message.overrides):
        if override.limit_id in overrides:
            raise InvalidArgument(f"overrides[{index}].limit_id", override.limit_id, "each limit once")
        overrides[override.limit_id] = override.limit
    return engine.put_account(
        message.id,
        catalog=message.catalog,
        plan=message.plan,
        subscribed_at_ms=message.subscribed_at_ms,
        period=message.period or "month",
        expires_at_ms=message.expires_at_ms,
        overrides=overrides,
    )


def account_message(account: Account) -> admin_pb2.Account:
    return admin_pb2.Account(
        id=account.id,
        catalog=account.catalog,
        plan=account.plan,
        subscribed_at_ms=account.subscribed_at_ms,
        period=account.period,
        expires_at_ms=account.expires_at_ms,
        overrides=(admin_pb2.Override(limit_id=id, limit=limit) for id, limit in account.overrides.items()),
    )


def account_details(account: Account) -> dict[str, object]:
    return {
        "id": account.id,
        "catalog": account.catalog,
        "plan": account.plan,
        "subscribed_at_ms": account.subscribed_at_ms,
        "period": account.period,
        "expires_at_ms": account.expires_at_ms,
        "overrides": dict(account.overrides),
    }


def import_error(index: int, account_id: str, error: QuotaError) -> admin_pb2.ImportError:
    return admin_pb2.ImportError(
        index=index,
        id=account_id,
        code=status_number(error),
        field=error.field if isinstance(error, InvalidArgument) else "",
        message=details(error),
    )
