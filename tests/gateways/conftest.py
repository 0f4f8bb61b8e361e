"""Tests that need what `make test-gateways` installs: real gateways, real scrapers, real charts.

They run with $GATEWAYS set, as `make test-gateways` does, and nothing is skipped then: what is missing fails. Without it
they are not collected.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if "GATEWAYS" in os.environ else ["test_*.py"]
