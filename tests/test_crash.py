"""What was acknowledged survives kill -9. `make crash` runs hundreds of rounds."""

from __future__ import annotations

from pathlib import Path

from crash import Rounds


def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    """every answered id is known, every account stands where its answers add up to, whenever the kill comes."""
    rounds = Rounds(tmp_path, seed=5)
    for _ in range(24):
        rounds.run()

    assert rounds.acknowledged > 24
