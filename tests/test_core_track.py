"""Tracking: what has changed is taken once, whole, and put back as it was."""

from __future__ import annotations

import random

import pytest
from plans import START_MS, catalog_text, engine_with

from quota import Engine, NotFound, Outcome, Request
from quota.errors import CorruptRecord

LIMITS = "[{id: s, window: {sliding: 1h}, limit: 1000}, {id: c, window: {cycle: 2h}, limit: 1000}]"


def tracked():
    engine = engine_with(LIMITS)
    engine.ledger.track()
    return engine


def admit(engine, account="ada", request_id="", at_ms=0):
    return engine.admit(Request(account, model="m", request_id=request_id), now_ms=START_MS + at_ms)


def ids_of(packed):
    """The ids in a packed row, in order; those purged with a minus."""
    ids, at = [], 0
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 2], "little")
        id = packed[at + 2 : at + 2 + size].decode()
        blob_size = int.from_bytes(packed[at + 2 + size : at + 6 + size], "little")
        ids.append(id if blob_size else f"-{id}")
        at += 6 + size + blob_size
    return ids


def test_nothing_is_noted_before_it_is_asked_for():
    """Without a store nothing is kept for one."""
    engine = engine_with(LIMITS)
    decision = admit(engine)

    assert (0, 0, (b"", 0)) == (decision.ticket, engine.ledger.ticket, engine.ledger.take(1 << 20))


def test_every_change_has_a_ticket_and_looking_has_none():
    """Admissions, settlements, renewals, adjustments and puts ascend; refusals and peeks wait for nothing; replays for everything."""
    engine = tracked()
    ledger = engine.ledger
    assert [1, 2] == [admit(engine).ticket, admit(engine, request_id="r").ticket]
    assert 0 == engine.peek(Request("ada", model="m"), now_ms=START_MS).ticket
    assert 0 == admit(engine, "nobody").ticket
    engine.put_account("ben", plan="only", subscribed_at_ms=START_MS)
    assert (3, 3) == (ledger.ticket, admit(engine, request_id="r").ticket)
    engine.settle("ada", "r", outcome=Outcome.COMMIT, now_ms=START_MS)
    engine.adjust_usage("ada", pool="p", micro=1, reason="test", now_ms=START_MS)
    assert 5 == ledger.ticket
    with pytest.raises(NotFound):
        engine.settle("ada", "unknown", outcome=Outcome.CANCEL, now_ms=START_MS)
    assert 5 == ledger.ticket


def test_each_account_is_taken_once_as_it_stands():
    """However often it changed; and not again until it changes again."""
    engine = tracked()
    for _ in range(5):
        admit(engine)
    packed, ticket = engine.ledger.take(1 << 20)

    assert (["ada"], 5) == (ids_of(packed), ticket)
    assert (b"", 5) == engine.ledger.take(1 << 20)
    admit(engine)
    assert (["ada"], 6) == (ids_of(engine.ledger.take(1 << 20)[0]), engine.ledger.ticket)


def test_a_take_in_pieces_covers_what_is_complete():
    """A bound on the bytes leaves some for later, and the ticket says how far what was taken reaches."""
    engine = tracked()
    for i in range(200):
        engine.put_account(f"a{i}", plan="only", subscribed_at_ms=START_MS)
    for i in range(200):
        admit(engine, f"a{i}")
    seen, tickets = [], []
    while not tickets or tickets[-1] < engine.ledger.ticket:
        packed, ticket = engine.ledger.take(2000)
        seen += ids_of(packed)
        tickets.append(ticket)

    assert sorted(seen) == sorted(f"a{i}" for i in range(200))
    assert tickets == sorted(tickets)
    assert 400 == tickets[-1]
    assert all(ticket < 200 for ticket in tickets[:-1])


def test_what_was_taken_restores_the_same_accounts():
    """Another process that has the rows has the accounts: every usage, every id, every tombstone."""
    dice = random.Random(5)
    engine, other = tracked(), Engine([catalog_text(LIMITS)])
    admit(engine)
    for i in range(50):
        engine.put_account(f"a{i}", plan="only", subscribed_at_ms=START_MS)
    for step in range(600):
        account = f"a{dice.randrange(50)}"
        try:
            if dice.random() < 0.03:
                engine.delete_account(account, purge=dice.random() < 0.5, now_ms=START_MS + step)
            elif dice.random() < 0.05:
                engine.put_account(
                    account, plan="only", subscribed_at_ms=START_MS, overrides={"s": dice.randrange(900)}
                )
            else:
                admit(engine, account, f"r{step}", step)
        except NotFound:
            pass
        if step % 7 == 0:
            other.ledger.restore(engine.ledger.take(dice.choice([100, 5000]))[0])
    other.ledger.restore(engine.ledger.take(1 << 20)[0])
    other.ledger.check()

    assert engine.accounts_count == other.accounts_count
    for i in range(50):
        assert engine.ledger.encode(f"a{i}", 1) == other.ledger.encode(f"a{i}", 1)
    assert engine.ledger.accounts_by_plan() == other.ledger.accounts_by_plan()


def test_a_deleted_account_is_found_again_if_it_is_put():
    """Nobody sees a tombstone; a put finds what was drawn, unless it was purged."""
    engine = tracked()
    admit(engine)
    engine.delete_account("ada", now_ms=START_MS)
    assert 0 == engine.accounts_count
    assert "ACCOUNT_UNKNOWN" == admit(engine).verdict.name
    assert ([], "") == engine.list_accounts()
    with pytest.raises(NotFound):
        engine.delete_account("ada")
    engine.put_account("ada", plan="only", subscribed_at_ms=START_MS)
    assert 1_000_000 == engine.usage("ada", now_ms=START_MS).limits[0].used_micro
    engine.delete_account("ada", purge=True)
    engine.put_account("ada", plan="only", subscribed_at_ms=START_MS)
    assert 0 == engine.usage("ada", now_ms=START_MS).limits[0].used_micro
    assert ["-ada", "ada"] == ids_of(engine.ledger.take(1 << 20)[0])


def test_tombstones_are_dropped_when_no_window_of_theirs_runs_any_more():
    """A year and a day after the deletion nothing is left, and the store is told."""
    engine = tracked()
    for i in range(40):
        engine.put_account(f"a{i}", plan="only", subscribed_at_ms=START_MS)
        engine.delete_account(f"a{i}", now_ms=START_MS + i * 1000)
    engine.ledger.take(1 << 20)
    day_us = 86_400_000_000
    assert 0 == engine.ledger.drop_tombstones(START_MS * 1000 + 366 * day_us)
    assert 20 == engine.ledger.drop_tombstones((START_MS + 19_000) * 1000 + 367 * day_us)
    engine.ledger.check()
    assert sorted(f"-a{i}" for i in range(20)) == sorted(ids_of(engine.ledger.take(1 << 20)[0]))
    assert 20 == engine.ledger.drop_tombstones(START_MS * 1000 + 400 * day_us)
    assert 1 == engine.accounts_count


@pytest.mark.parametrize("cut", [1, 2, 5, 9, 40])
def test_damaged_rows_are_noticed(cut):
    """A row that ends early puts what is whole and says where it broke."""
    engine = tracked()
    admit(engine)
    packed = engine.ledger.take(1 << 20)[0]
    with pytest.raises(CorruptRecord):
        Engine([catalog_text(LIMITS)]).ledger.restore(packed[:-cut])


def test_what_was_taken_since_in_another_era_is_told_apart():
    """An account whose later state stands further on is left out; one that is gone, replaced, or of no known era is not."""
    engine = tracked()
    for account in ("ben", "eve", "gone", "new"):
        engine.put_account(account, plan="only", subscribed_at_ms=START_MS)
    first = engine.ledger.take(1 << 20, 14)[0]
    assert first == engine.ledger.latest(first, 14)
    admit(engine, "ben")
    engine.delete_account("gone", purge=True)
    engine.ledger.decode("new", engine.ledger.encode("new", 7))
    second = engine.ledger.take(1 << 20, 15)[0]
    assert ["-gone", "ben", "new"] == ids_of(second)

    assert ["eve", "gone"] == ids_of(engine.ledger.latest(first, 14))
    assert second == engine.ledger.latest(second, 15)
    assert ["-gone"] == ids_of(engine.ledger.latest(second, 0))
    admit(engine, "eve")
    engine.ledger.take(1 << 20, 1)
    assert (["gone"], second) == (
        ids_of(engine.ledger.latest(first, 14)),
        engine.ledger.latest(second, 15),
    )


def test_a_recalled_account_is_of_no_known_era():
    """What was put back in memory may be the latest anywhere."""
    engine = tracked()
    admit(engine)
    packed = engine.ledger.take(1 << 20, 3)[0]
    assert b"" == engine.ledger.latest(packed, 2)
    engine.ledger.decode("ada", engine.ledger.encode("ada", 1))

    assert packed == engine.ledger.latest(packed, 2) == engine.ledger.latest(packed, 3)


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_row_that_ends_early_is_noticed_when_it_is_seen_again(cut):
    """Nothing of it is passed on."""
    engine = tracked()
    admit(engine)
    packed = engine.ledger.take(1 << 20, 1)[0]

    with pytest.raises(CorruptRecord):
        engine.ledger.latest(packed[:-cut], 1)
