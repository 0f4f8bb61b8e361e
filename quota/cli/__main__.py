"""`python -m quota.cli` is `quotad`."""

from __future__ import annotations

import sys

from quota.cli import main

sys.exit(main())
