"""What survives the process: the embedded store."""

from quota.store.durability import Durability
from quota.store.store import Store

__all__ = ["Durability", "Store"]
