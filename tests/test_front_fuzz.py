"""A few seconds of what `make fuzz` does for ten minutes."""

from __future__ import annotations

from front_fuzz import CORPUS, PREFACE, frames_of, fuzz

CASES = range(1, 1501)
SECONDS_MAX = 60.0


def test_the_corpus_is_whole() -> None:
    """each file is a preface and frames, the client's SETTINGS first."""
    assert len(CORPUS) >= 8
    for path in CORPUS:
        conversation = path.read_bytes()
        frames = frames_of(conversation)
        assert conversation == PREFACE + b"".join(frames)
        assert (4, 0) == (frames[0][3], frames[0][4] & 1)


def test_damaged_conversations() -> None:
    """the server goes on, whatever clients send."""
    assert len(CASES) == fuzz(CASES, SECONDS_MAX)
