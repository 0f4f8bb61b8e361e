"""Names that come over the wire."""

from __future__ import annotations

from quota._core import ACCOUNT_BYTES_MAX
from quota.errors import InvalidArgument


def account_name(field: str, name: str) -> str:
    """Return the name of an account that is asked for. Raises InvalidArgument for what no account can be called.

    The engine answers such a name with "no such account", which is true but hides the caller's mistake.
    """
    if not 1 <= len(name.encode()) <= ACCOUNT_BYTES_MAX:
        raise InvalidArgument(field, name, f"1 to {ACCOUNT_BYTES_MAX} bytes of UTF-8")
    return name
