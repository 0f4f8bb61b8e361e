"""A server with a store on which something has happened, and all that it answers about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import Running

from quota.client import admit_request
from quota.v1 import admin_pb2

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
