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


def test_holds_are_what_they_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of request has as many open holds and remembered ids as it should, before and after its rounds."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import holds

    rows = holds.measure(holds.KINDS, turns=1, accounts_count=holds.ACCOUNTS)

    assert [kind.name for kind in holds.KINDS] == [row["kind"] for row in rows]


def test_a_hold_too_few_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts with fewer open holds than promised are refused before anything is timed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import holds
    import workload

    lane = holds.Lane(holds.Kind("none", open=10, remembered=20, has_id=True), 100)
    lane.warm_up()

    with pytest.raises(workload.WorkloadError, match=r"0\.0 open an account, 10\.0"):
        lane.check()
    lane.world.close()


@pytest.mark.parametrize("kind", ["hold", "id", "prompt"])
def test_what_is_remembered_is_there(kind: str) -> None:
    """Each account has as many as its bytes are divided by."""
    command = [sys.executable, str(BENCHMARKS / "remembered.py"), "--kind", kind, "--each", "3", "--accounts", "1000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert 0 == done.returncode, done.stderr
    assert 3 == json.loads(done.stdout)["each"]


def test_what_is_timed_as_kept_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every way to wait runs in every mode, and what the stores kept is what memory has."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import store

    part = store.measure("light", turns=1, accounts_count=100, directory=tmp_path, journal_bytes=0)

    assert len(store.MODES) * len(store.WAITING) == len(part["rows"])
    assert {"interval:50ms": 100, "strict": 100} == part["kept"]
    assert 1 == store.WAITING[0].decisions / next(it["commits"] for it in part["rows"] if it["mode"] == "strict")


def test_a_restart_finds_all_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The store that a restart is timed with is folded, and has all that was charged."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import restart

    figures = restart.measure(tmp_path, accounts_count=500, starts=1)

    assert 500 == figures["rows"]
    assert figures["warm"]["s"] > figures["warm"]["restore_s"] > 0


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="nothing here is known to be in memory")
def test_memory_is_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that no power cut survives is refused before anything is timed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import disk
    import workload

    with pytest.raises(workload.WorkloadError, match="in memory"):
        disk.describe(Path("/dev/shm"))


@pytest.mark.skipif(not (BENCHMARKS / "results.json").exists(), reason="no figures are kept yet")
def test_page_is_made_from_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/benchmarks.md is what the kept figures give: nobody has written a figure in by hand."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    results = json.loads((BENCHMARKS / "results.json").read_text())
    if missing := [name for name in report.PARTS if name not in results]:
        pytest.skip(f"the figures kept are older than {', '.join(missing)}")

    assert report.page(results) == (ROOT / "docs" / "benchmarks.md").read_text()
