"""Power cuts: what a disk holds that has lost all writes not answered for by an fsync, and what is made of it.

`power_cut.c`, loaded into a process, keeps such a disk beside the directory that the process works on.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import crash
import pytest

SOURCE = Path(__file__).parent / "power_cut.c"
WRITER = """
import sqlite3, sys
file, synchronous, checkpoint_pages = sys.argv[1:]
db = sqlite3.connect(file, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute(f"PRAGMA synchronous = {synchronous}")
db.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
db.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, filling BLOB)")
last = db.execute("SELECT ifnull(max(number), -1) FROM numbers").fetchone()[0]
for number in range(last + 1, last + 100_000):
    db.execute("INSERT INTO numbers VALUES (?, zeroblob(?))", (number, number * 37 % 3000))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""

Cut = Callable[..., int]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built from its source."""
    built = tmp_path_factory.mktemp("power_cut") / "power_cut.so"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-fPIC", "-shared", "-o", built, SOURCE], check=True)
    return built


class Machine:
    """A directory of a machine whose power can fail. `disk` is what it finds when it comes back."""

    def __init__(self, library: Path, place: Path, *, leak_percent: int = 0, seed: int = 0) -> None:
        self.live, self.disk = place / "live", place / "disk"
        self.live.mkdir()
        self.disk.mkdir()
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "POWER_CUT_LIVE": str(self.live),
            "POWER_CUT_DISK": str(self.disk),
            "POWER_CUT_LEAK": str(leak_percent),
            "POWER_CUT_SEED": str(seed),
        }

    def come_back(self) -> None:
        """Start again with what the disk has: the directory becomes a copy of it."""
        for unnamed in self.disk.glob(".unnamed-*"):
            unnamed.unlink()
        shutil.rmtree(self.live)
        shutil.copytree(self.disk, self.live)


def numbers_written(machine: Machine, synchronous: str, checkpoint_pages: int, seconds: float) -> int:
    """Write numbers into a database until the power fails; return the last one that was acknowledged."""
    file = machine.live / "numbers.db"
    command = [sys.executable, "-c", WRITER, str(file), synchronous, str(checkpoint_pages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=machine.environment) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        return int((first + process.stdout.read()).rpartition("\n")[0].split()[-1])


def numbers_kept(machine: Machine) -> list[int]:
    """Return what a database holds after the power cut, as a copy tells: opening changes it."""
    machine.come_back()
    copy = shutil.copytree(machine.live, machine.live.parent / "copy", dirs_exist_ok=True)
    db = sqlite3.connect(copy / "numbers.db")
    try:
        assert [("ok",)] == db.execute("PRAGMA integrity_check").fetchall()
        return [number for (number,) in db.execute("SELECT number FROM numbers ORDER BY number")]
    finally:
        db.close()
        shutil.rmtree(copy)


@pytest.mark.parametrize("leak_percent", [0, 50])
def test_what_was_synced_survives(library: Path, tmp_path: Path, leak_percent: int) -> None:
    """SQLite with synchronous = FULL keeps every commit that returned, cut after cut, whatever else reached the disk."""
    machine = Machine(library, tmp_path, leak_percent=leak_percent, seed=leak_percent)
    for _ in range(6):
        last = numbers_written(machine, "FULL", 20, random.uniform(0, 0.1))
        kept = numbers_kept(machine)

        assert list(range(len(kept))) == kept
        assert last < len(kept) <= last + 2


def test_what_was_not_synced_is_lost(library: Path, tmp_path: Path) -> None:
    """the same database with synchronous = NORMAL loses commits that returned: the library does hold writes back."""
    machine = Machine(library, tmp_path)
    last = numbers_written(machine, "NORMAL", 1_000_000, 0.1)

    assert last > 10
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        numbers_kept(machine)


@pytest.mark.parametrize("leak_percent", [0, 50])
def test_what_a_server_acknowledged_survives(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leak_percent: int
) -> None:
    """every answered id is known and every account adds up, power cut after power cut, also in the middle of folding."""
    machine = Machine(library, tmp_path, leak_percent=leak_percent, seed=leak_percent + 1)
    for name in ("LD_PRELOAD", "POWER_CUT_LIVE", "POWER_CUT_DISK", "POWER_CUT_LEAK", "POWER_CUT_SEED"):
        monkeypatch.setenv(name, machine.environment[name])

    class PoweredServer(crash.Server):
        def kill(self) -> None:
            super().kill()
            machine.come_back()

    monkeypatch.setattr(crash, "Server", PoweredServer)
    rounds = crash.Rounds(machine.live, seed=leak_percent)
    for _ in range(3):
        rounds.run()

    assert rounds.acknowledged > 20
