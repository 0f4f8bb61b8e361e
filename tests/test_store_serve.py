"""A server with a store: what is in force after a restart, what the clock may have done meanwhile, what is measured."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from conftest import HandTime, Running

from quota.catalog import shipped
from quota.client import admit_request
from quota.errors import InvalidArgument, StoreError
from quota.server.server import Server
from quota.settings import Settings
from quota.v1 import admin_pb2, quota_pb2

Serve = Callable[..., Running]
OWN = Path(shipped.__path__[0], "glm-2026.yaml").read_text().replace("catalog: glm-2026", "catalog: own")


def settings(directory: Path, **more: object) -> Settings:
    return Settings(port=0, admin_port=0, http_port=0, data=str(directory), **more)


def test_everything_in_force_survives_a_restart(serve: Serve, tmp_path: Path) -> None:
    """charges, ids, holds, accounts, overrides, capacity, catalogs with their version, and the audit log."""
    first = serve(data=str(tmp_path))
    loaded = first.admin.load_catalog(OWN).catalog
    account = admin_pb2.Account(
        id="ada", catalog="own", plan="pro", overrides=[admin_pb2.Override(limit_id="calls", limit=3)]
    )
    first.admin.put_account(account)
    first.admin.delete_account("demo-pro")
    first.admin.set_capacity(250_000)
    ask = admit_request("ada", model="glm-4.7", tool="cline", request_id="r1", hold_ms=60_000)
    answer = first.data.admit(ask)
    usage, put = first.data.usage("ada"), first.admin.get_account("ada")
    first.server.stop()
    second = serve(data=str(tmp_path), demo=False)

    assert answer == second.data.admit(ask)
    assert usage == second.data.usage("ada")
    assert put == second.admin.get_account("ada")
    assert 250_000 == second.admin.get_capacity().factor_micro
    assert loaded.version in {catalog.version for catalog in second.admin.list_catalogs()}
    assert ["ada", "demo-lite", "demo-max"] == sorted(account.id for account in second.admin.list_accounts())
    assert 4 == len(list(second.admin.list_audit()))


def test_a_settlement_survives(serve: Serve, tmp_path: Path) -> None:
    """it gives the same answer again after a restart, and moves nothing."""
    first = serve(data=str(tmp_path))
    for number in range(2):
        first.data.admit(
            admit_request("demo-pro", model="glm-4.7", tool="cline", request_id=f"r{number}", hold_ms=60_000)
        )
    answer = first.data.settle("demo-pro", "r0", quota_pb2.CANCEL)
    expires_at_ms = first.data.renew("demo-pro", "r1", 120_000).hold_expires_at_ms
    usage = first.data.usage("demo-pro")
    first.server.stop()
    second = serve(data=str(tmp_path))

    assert answer == second.data.settle("demo-pro", "r0", quota_pb2.CANCEL)
    assert usage == second.data.usage("demo-pro")
    assert [("r1", expires_at_ms)] == [(hold.request_id, hold.expires_at_ms) for hold in usage.holds]


def test_a_file_takes_the_place_of_a_catalog(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """of its name that was loaded at run time; who was on that is on the file's."""
    first = serve(data=str(tmp_path / "data"))
    first.admin.load_catalog(OWN)
    first.admin.put_account(admin_pb2.Account(id="ada", catalog="own", plan="pro"))
    first.server.stop()
    file = tmp_path / "own.yaml"
    file.write_text(OWN + "# by hand\n")
    second = serve(data=str(tmp_path / "data"), catalogs=(str(file),))

    assert "a catalog was loaded at run time once, and now comes from a file, which holds" in caplog.messages
    assert [True] == [catalog.from_file for catalog in second.admin.list_catalogs() if catalog.name == "own"]
    assert quota_pb2.ALLOWED == second.data.admit(admit_request("ada", model="glm-4.7", tool="cline")).verdict


def test_accounts_of_a_catalog_that_is_gone(serve: Serve, tmp_path: Path) -> None:
    """are no reason to forget them: the start is refused, naming account and catalog."""
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    first = serve(data=str(tmp_path / "data"), catalogs=(str(file),))
    first.admin.put_account(admin_pb2.Account(id="ada", catalog="own", plan="pro"))
    first.server.stop()

    with pytest.raises(StoreError, match=r"quotad.db: journal row \d+: .*ada.*no catalog 'own' is loaded"):
        Server(settings(tmp_path / "data"))
    serve(data=str(tmp_path / "data"), catalogs=(str(file),))


def test_memory_is_bounded_only_with_a_store(serve: Serve, tmp_path: Path) -> None:
    """accounts that memory has no room for are served like all others; without a store there is nowhere to put them."""
    running = serve(data=str(tmp_path), accounts_in_memory_max=1)
    for number in range(60):
        running.admin.put_account(admin_pb2.Account(id=f"a{number}", plan="lite"))
    running.server.stop()
    again = serve(data=str(tmp_path), accounts_in_memory_max=1)
    found = re.search(r"^quotad_accounts_demoted (\S+)$", again.get("/metrics")[1], re.MULTILINE)

    assert float(found[1]) > 30
    assert {"lite"} == {again.admin.get_account(f"a{number}").plan for number in range(60)}
    with pytest.raises(
        InvalidArgument, match="accounts_in_memory_max: 1 is not allowed; allowed: 0 where no store is kept"
    ):
        Server(Settings(ephemeral=True, accounts_in_memory_max=1))


# ---- The clock ----


def test_a_clock_set_back_is_noticed_at_start(serve: Serve, hand_time: HandTime, tmp_path: Path) -> None:
    """it is refused, unless accepted: then time goes on from the kept one."""
    serve(data=str(tmp_path)).server.stop()
    kept_ms = hand_time.now_ms
    hand_time.set_wall(-60)

    with pytest.raises(
        StoreError, match=r"the wall clock is 60 s before the time that the store has seen: .*--accept-clock"
    ):
        Server(settings(tmp_path), clock=hand_time.clock())
    accepted = serve(data=str(tmp_path), accept_clock=True)
    hand_time.advance(2)
    clock = accepted.admin.get_clock()

    assert (kept_ms + 2_000, -60_000) == (clock.now_ms, clock.step_ms)


def test_a_clock_a_little_behind_goes_on(serve: Serve, hand_time: HandTime, tmp_path: Path) -> None:
    """up to 5 s are made up, and time does not go back."""
    serve(data=str(tmp_path)).server.stop()
    kept_ms = hand_time.now_ms
    hand_time.set_wall(-4)
    clock = serve(data=str(tmp_path)).admin.get_clock()

    assert (0, 0) == (clock.step_ms, clock.now_ms - kept_ms)


def test_a_long_gap_is_told(
    serve: Serve, hand_time: HandTime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """more than an hour: the server was off, or the clock is wrong."""
    serve(data=str(tmp_path)).server.stop()
    hand_time.advance(3_000)
    serve(data=str(tmp_path)).server.stop()
    quiet = caplog.text
    hand_time.advance(9_000)
    serve(data=str(tmp_path))

    assert "last saw" not in quiet
    assert [2.5] == [record.hours for record in caplog.records if "last saw a time long ago" in record.message]


# ---- What is said of it ----


def test_metrics_say_how_durable_it_is(serve: Serve, tmp_path: Path) -> None:
    """the mode, and what was written."""
    for number, (durability, wanted) in enumerate((("strict", "strict"), ("interval:50ms", "interval:50ms"))):
        running = serve(data=str(tmp_path / str(number)), durability=durability)
        running.data.admit(admit_request("demo-lite", model="glm-4.7", tool="cline"))
        text = running.get("/metrics")[1]
        assert f'quotad_store_info{{durability="{wanted}"}} 1.0' in text
        assert re.search(r"^quotad_store_written_bytes_total [1-9]", text, re.MULTILINE)
        assert re.search(r"^quotad_store_commit_seconds_count [1-9]", text, re.MULTILINE)
        assert re.search(r"^quotad_store_failed 0", text, re.MULTILINE)
    assert 'quotad_store_info{durability="none"} 1.0' in serve().get("/metrics")[1]


def test_the_start_says_what_it_read(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """how many records, and how fast."""
    serve(data=str(tmp_path)).server.stop()
    with caplog.at_level(logging.INFO):
        serve(data=str(tmp_path))

    assert re.search(rf"store: {tmp_path}/quotad.db: 3 records read in 0.\d s, [\d,]+ a second", caplog.text)


def test_a_failed_store_answers_unavailable(serve: Serve, tmp_path: Path) -> None:
    """charges and changes alike; refusals, peeks and usage too need no disk and go on; readiness is gone."""
    running = serve(data=str(tmp_path))
    running.server._store.writer._fail(OSError("unplugged"))
    ask = admit_request("demo-lite", model="glm-4.7", tool="cline")
    batch = [ask, ask]
    for call in (
        lambda: running.data.admit(ask),
        lambda: running.data.admit_batch(batch),
        lambda: running.data.settle("demo-lite", "r1", quota_pb2.CANCEL),
        lambda: running.data.renew("demo-lite", "r1", 1000),
        lambda: running.admin.put_account(admin_pb2.Account(id="ada", plan="lite")),
        lambda: running.admin.set_capacity(1),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            call()
        assert grpc.StatusCode.UNAVAILABLE == raised.value.code()
        assert "unplugged" in raised.value.details()

    assert quota_pb2.ALLOWED == running.data.peek(ask).verdict
    assert 0 == running.data.usage("demo-lite").limits[0].used_micro
    assert (503, "the store has failed and takes nothing any more: unplugged\n") == running.get("/readyz")
    with pytest.raises(StoreError, match="unplugged"):
        running.server.stop()
