"""What quotad ought to answer: naive models in plain Python, simple, slow and obviously right.

They read the validated `Catalog` and do their arithmetic with integers, fractions and zoneinfo; nothing of the core or of the
compiler is used. `Oracle` follows the merge rule and must agree with the core on every answer. `FullLogs` forgets nothing and
bounds what the merge rule may cost.
"""

from oracle.full_log import FullLogs
from oracle.model import Oracle
from oracle.values import Answer, Ask, Conflict, Ended, Invalid, Unknown, Unsuitable, Wrong

__all__ = [
    "Answer", "Ask", "Conflict", "Ended", "FullLogs", "Invalid", "Oracle", "Unknown", "Unsuitable", "Wrong",
]  # fmt: skip
