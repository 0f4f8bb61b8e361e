"""Demotion: what nobody asks for leaves a stub, and comes back as it was when somebody does."""

from __future__ import annotations

import random

import pytest
from plans import START_MS, engine_with
from shelf import Shelf

from quota import NotFound, Outcome, Request

LIMITS = "[{id: s, window: {sliding: 1h}, limit: 50}, {id: c, window: {cycle: 2h}, limit: 40}]"
DAY_MS = 86_400_000


def shelved():
    engine = engine_with(LIMITS)
    shelf = Shelf(engine)
    for i in range(20):
        engine.put_account(f"a{i}", plan="only", subscribed_at_ms=START_MS)
    return engine, shelf


def admit(engine, account, at_ms, request_id=""):
    return engine.admit(Request(account, model="m", request_id=request_id), now_ms=START_MS + at_ms)


def test_a_demoted_account_decides_as_it_would_have():
    """Two engines, one of which forgets all it can after every step: the same answers, the same usage."""
    dice = random.Random(3)
    (engine, shelf), (plain, _) = shelved(), shelved()
    now_ms = 0
    for step in range(1500):
        now_ms += dice.choice([0, 1000, 60_000, 600_000])
        account, what = f"a{dice.randrange(22)}", dice.random()
        answers = []
        for it in (engine, plain):
            if what < 0.7:
                decision = admit(it, account, now_ms, f"r{step}" if what < 0.2 else "")
                answers.append((decision.verdict, decision.retry_after_ms, decision.charged))
            elif what < 0.8:
                many = it.admit_many([Request(f"a{i}", model="m") for i in range(20)], now_ms=START_MS + now_ms)
                answers.append([decision.verdict for decision in many])
            else:
                answers.append(told(it, account, now_ms, what))
        assert answers[0] == answers[1]
        shelf.put_away(START_MS + now_ms)
        if step % 50 == 0:
            engine.ledger.check()
    assert shelf.fetched > 500
    for i in range(20):
        assert usage(engine, f"a{i}", now_ms) == usage(plain, f"a{i}", now_ms)
    assert engine.accounts_count == plain.accounts_count


def told(engine, account, now_ms, what):
    """What the other verbs say: puts, deletions, adjustments, peeks, usage."""
    try:
        if what < 0.82:
            return engine.delete_account(account, now_ms=START_MS + now_ms)
        if what < 0.86:
            return engine.put_account(account, plan="only", subscribed_at_ms=START_MS)
        if what < 0.9:
            return engine.adjust_usage(account, pool="p", micro=-1_500_000, reason="t", now_ms=START_MS + now_ms).moved
        if what < 0.95:
            return engine.peek(Request(account, model="m"), now_ms=START_MS + now_ms).verdict
        return usage(engine, account, now_ms)
    except NotFound as error:
        return str(error)


def usage(engine, account, now_ms):
    try:
        return engine.usage(account, now_ms=START_MS + now_ms).limits
    except NotFound:
        return None


def test_who_is_asked_for_stays_and_who_is_not_goes():
    """The hand passes by those who have asked since it last came."""
    engine, shelf = shelved()
    admit(engine, "a3", 0)
    shelf.put_away(START_MS, 14)
    admit(engine, "a3", 0)

    assert 0 == shelf.fetched
    assert 14 <= engine.ledger.demoted_count <= 20


def test_nothing_goes_that_is_not_yet_written_or_still_counts():
    """Changed accounts, ids, open holds, prompts and limits of their own stay until they count no more."""
    engine, shelf = shelved()
    shelf.put_away(START_MS)
    engine.put_account("a1", plan="only", overrides={"s": 9})
    admit(engine, "a2", 0, "r")
    engine.admit(Request("a4", model="m", prompt_id="p"), now_ms=START_MS)
    assert 18 == engine.ledger.demoted_count
    assert 0 == engine.ledger.demote(100, START_MS * 1000)
    assert 0 == shelf.put_away(START_MS)
    assert 1 == shelf.put_away(START_MS + 121_000)
    assert 1 == shelf.put_away(START_MS + DAY_MS + 1000)
    assert 20 == engine.ledger.demoted_count
    assert {"s": 9} == dict(engine.get_account("a1").overrides)


def test_an_account_that_cannot_be_fetched_is_an_error_and_no_empty_one():
    """The store is away: nothing is decided as if nothing had been drawn, and later it goes on."""
    engine, shelf = shelved()
    admit(engine, "a1", 0)
    shelf.put_away(START_MS)
    shelf.put_away(START_MS)
    blob = shelf.blobs.pop(b"a1")
    with pytest.raises(KeyError):
        admit(engine, "a1", 1000)
    with pytest.raises(KeyError):
        engine.settle("a1", "r", outcome=Outcome.CANCEL)
    shelf.blobs[b"a1"] = blob

    assert admit(engine, "a1", 1000).allowed
    assert 2_000_000 == engine.usage("a1", now_ms=START_MS + 1000).limits[0].used_micro


def test_unknown_accounts_cost_no_look_into_the_store():
    """Who is no account is known to be none."""
    engine, shelf = shelved()
    shelf.put_away(START_MS)
    assert "ACCOUNT_UNKNOWN" == admit(engine, "nobody", 0).verdict.name
    assert 0 == shelf.fetched


@pytest.mark.parametrize("count", [90, 1500, 3000])
def test_a_table_that_stopped_growing_half_way_demotes_all_the_same(count):
    """Inserts move an old table over; when none come any more, demotion does it."""
    engine, shelf = shelved()
    for i in range(count):
        engine.put_account(f"b{i}", plan="only", subscribed_at_ms=START_MS)

    assert engine.accounts_count == shelf.put_away(START_MS)
    engine.ledger.check()
