"""The stub of the compiled core says what the core is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_stub_matches_the_core():
    """mypy's stubtest finds no difference between `_core.pyi` and the built module."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "quota._core", "--allowlist", "tests/stubtest_allowlist.txt"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout
