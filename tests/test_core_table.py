"""The table and the records in it: growth, removal, paging, and invariants after each."""

from __future__ import annotations

import random

import pytest
from plans import START_MS, catalog_text, engine_with

from quota import Engine, InvalidArgument, NotFound, Request

LIMITS = "[{id: l, window: {sliding: 1h}, limit: 100}, {id: d, window: {calendar: day}, limit: 1000}]"


def all_ids(engine, page_size):
    """Every id that paging gives, in its order."""
    ids, token = [], ""
    while True:
        accounts, token = engine.list_accounts(page_size, token)
        ids += [account.id for account in accounts]
        if not token:
            return ids


@pytest.mark.parametrize("page_size", [1, 7, 1000])
def test_paging_gives_every_account_once(page_size):
    """Whatever the page's size, through growth of the table."""
    engine = Engine([catalog_text(LIMITS)])
    for i in range(300):
        engine.put_account(f"account-{i}", plan="only")
        if i % 37 == 0:
            assert sorted(f"account-{j}" for j in range(i + 1)) == sorted(all_ids(engine, page_size))

    assert sorted(f"account-{i}" for i in range(300)) == sorted(all_ids(engine, page_size))


def test_paging_while_accounts_come_and_go():
    """Accounts that are there all the time are seen exactly once, though the table grows between pages."""
    engine = Engine([catalog_text(LIMITS)])
    for i in range(500):
        engine.put_account(f"stays-{i}", plan="only")
    seen, token, step = [], "", 0
    while True:
        accounts, token = engine.list_accounts(53, token)
        seen += [account.id for account in accounts]
        if not token:
            break
        for i in range(200):
            engine.put_account(f"comes-{step}-{i}", plan="only")
        if step:
            for i in range(150):
                engine.delete_account(f"comes-{step - 1}-{i}", purge=True)
        step += 1

    assert sorted(f"stays-{i}" for i in range(500)) == sorted(id for id in seen if id.startswith("stays"))
    engine.ledger.check()


def test_a_bad_page_token_is_named():
    """A token that no page gave is an error, not the first page."""
    with pytest.raises(InvalidArgument, match="page_token"):
        engine_with(LIMITS).list_accounts(10, "not hex")


def test_random_inserts_removals_and_charges_agree_with_a_dict():
    """A long random history against the obvious model; memory's invariants hold all along."""
    engine = Engine([catalog_text(LIMITS)])
    chance = random.Random(7)
    drawn: dict[str, int] = {}
    for step in range(20_000):
        id = f"a{chance.randrange(3000)}"
        what = chance.random()
        if what < 0.4:
            engine.put_account(id, plan="only", subscribed_at_ms=START_MS)
            drawn.setdefault(id, 0)
        elif what < 0.6 and id in drawn:
            engine.delete_account(id, purge=True)
            del drawn[id]
        elif id in drawn:
            drawn[id] += engine.admit(Request(id, model="m"), now_ms=START_MS + step).allowed
        else:
            with pytest.raises(NotFound):
                engine.get_account(id)
        if step % 2000 == 0:
            engine.ledger.check()

    engine.ledger.check()
    assert len(drawn) == engine.accounts_count
    now_ms = START_MS + 20_000
    assert drawn == {id: engine.usage(id, now_ms=now_ms).limits[0].used_micro // 10**6 for id in all_ids(engine, 500)}


@pytest.mark.parametrize("id", ["a", "é" * 128, "x" * 256, "with space\n", "\u0000"])
def test_ids_are_any_utf8_of_1_to_256_bytes(id):
    """What fits is stored and given back as it came."""
    engine = engine_with(LIMITS)
    engine.put_account(id, plan="only")

    assert id == engine.get_account(id).id
    assert engine.admit(Request(id, model="m")).allowed


@pytest.mark.parametrize("id", ["", "x" * 257, "é" * 129, "\ud800"])
def test_ids_out_of_range_are_refused_by_name(id):
    """Too short, too long in bytes, or no UTF-8 at all."""
    engine = engine_with(LIMITS)
    with pytest.raises(InvalidArgument, match=r"^account: "):
        Request(id, model="m")
    with pytest.raises(InvalidArgument, match=r"^id: "):
        engine.put_account(id, plan="only")
    with pytest.raises(NotFound):
        engine.get_account(id)
    with pytest.raises(NotFound):
        engine.usage(id)
    with pytest.raises(NotFound):
        engine.delete_account(id)
    assert 1 == engine.accounts_count
