"""The version of what is installed."""

from __future__ import annotations

import importlib.metadata
from typing import Final

VERSION: Final = importlib.metadata.version("quotad")
