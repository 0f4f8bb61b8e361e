"""What survives the process: the embedded store."""

from quota.store.durability import Durability
from quota.store.store import Store
from quota.store.writer import StoreFailed

__all__ = ["Durability", "Store", "StoreFailed"]
