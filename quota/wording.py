"""Wording: a refusal in the words of the vendor whose plan it is."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from quota.types import VendorRefusal

if TYPE_CHECKING:
    from quota.catalog.spec import RefusalSpec

PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
EPOCH = datetime(1970, 1, 1)  # a wall reading: it has no zone


def wall_text(local_us: int | None) -> str:
    """A wall reading, microseconds since 1970-01-01T00:00 in whole seconds, as vendors write it: `2026-07-12 04:30:37`."""
    if local_us is None:
        return "never"
    return str(EPOCH + timedelta(microseconds=local_us))


def worded(
    refusal: RefusalSpec, *, number: int, unit: str, resets_at_local_us: int | None, model: str, meter: str
) -> VendorRefusal:
    """Fill in a refusal's message. One pass, so that a name that looks like a placeholder stays what it is."""
    values = {
        "number": str(number),
        "unit": unit,
        "next_flush_time": wall_text(resets_at_local_us),
        "model_name": model,
        "meter": meter,
    }
    message = PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), refusal.message)
    return VendorRefusal(refusal.code, refusal.http_status, message)
