"""Ids that come over the wire."""

from __future__ import annotations

from quota._core import ACCOUNT_BYTES_MAX
from quota.errors import InvalidArgument


def checked_id(field: str, id: str) -> str:
    """Return the id of an account or a request that is asked for. Raises InvalidArgument for what nothing can be called.

    The engine answers such an id with "no such account", which is true but hides the caller's mistake.
    """
    if not 1 <= len(id.encode()) <= ACCOUNT_BYTES_MAX:
        raise InvalidArgument(field, id, f"1 to {ACCOUNT_BYTES_MAX} bytes of UTF-8")
    return id
