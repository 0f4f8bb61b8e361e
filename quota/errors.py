"""What can go wrong. A refusal is no error: it is a Decision.

    QuotaError
      CatalogError          a catalog file is wrong: which file, line and key, and what is allowed
      InvalidArgument       a call's field is out of its range: which field, its value, what is allowed
      AlreadyExists         the id is taken by something else
      NotFound              no such account, catalog or id
      FailedPrecondition    right in itself, but not now: what stands in the way
      CorruptRecord         a stored record does not decode: it is not served, and never taken for an empty one
      StoreError            the store cannot be opened, or cannot go on: which directory or file, and why
      Unavailable           what was asked cannot be kept safe now: the store has failed, or the disk does not answer

The server turns each into one gRPC status, in `quota/server/status.py`.
"""

from __future__ import annotations


class QuotaError(Exception):
    """Anything that quota raises on purpose."""


class CatalogError(QuotaError):
    """A catalog that cannot be served. `problems` holds every one found, in the order of the file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InvalidArgument(QuotaError):
    """A field out of its range. Nothing was charged or changed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{field}: {shown} is not allowed; allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class AlreadyExists(QuotaError):
    """The id is taken by something else."""


class NotFound(QuotaError):
    """No such account, catalog or id."""


class FailedPrecondition(QuotaError):
    """Right in itself, but something stands in the way. The message says what."""


class CorruptRecord(QuotaError):
    """A stored record does not decode. The message names the account and what is wrong."""


class StoreError(QuotaError):
    """A store that cannot be opened, or cannot go on. The message names directory or file, and why."""


class Unavailable(QuotaError):
    """What was asked cannot be kept safe now. It may have been charged: its id finds it, once the server is back."""
