"""The benchmarks' workloads are what they are said to be, and their page says what was measured. Nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


def test_workloads_hold() -> None:
    """Every way to ask touches five limits with logs as full as promised, and nearly all is allowed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(BENCHMARKS / "decisions.py"),
        "--accounts=100",
        "--benchmark-disable",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert 0 == done.returncode, done.stdout


def test_an_empty_log_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world whose logs hold less than promised is refused before anything is timed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import workload

    world = workload.World(10, "light")
    world.entries += 1

    with pytest.raises(workload.WorkloadError, match="not 4 charges"):
        world.check()
    world.close()


@pytest.mark.skipif(not (BENCHMARKS / "results.json").exists(), reason="no figures are kept yet")
def test_page_is_made_from_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/benchmarks.md is what the kept figures give: nobody has written a figure in by hand."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    results = json.loads((BENCHMARKS / "results.json").read_text())

    assert report.page(results) == (ROOT / "docs" / "benchmarks.md").read_text()
