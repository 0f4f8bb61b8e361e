"""AdminService over the wire: accounts, catalogs and the clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from conftest import Running
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from quota.client import admit_request
from quota.v1 import admin_pb2, quota_pb2

CATALOG = """\
catalog: lumen
time_zone: UTC
meters:
  request: {pool: requests}
default_meter: request
plans:
  basic:
    level: 1
    pools:
      requests:
        - {id: requests-hour, window: {sliding: 1h}, limit: 2}
"""
THREE = CATALOG.replace("limit: 2", "limit: 3")
PLUS = """\
  plus:
    level: 2
    pools:
      requests:
        - {id: requests-day, window: {calendar: day}, limit: 50}
    burst: {id: pace, pool: requests, rate: 1/1h, depth: 5}
"""


def put(running: Running, account: str, **fields: object) -> admin_pb2.Account:
    return running.admin.put_account(admin_pb2.Account(id=account, **{"plan": "lite", **fields}))


def error_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Return status and text of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()


# ---- Accounts --------------------------------------------------------------------------------------------------------


def test_an_account_comes_changes_and_goes(running: Running) -> None:
    """put, get, put again, delete; each answer is the account as it is."""
    added = put(running, "ada")
    running.time.advance(100)
    changed = put(running, "ada", plan="pro", period="year", expires_at_ms=running.time.now_ms + 1000)

    assert ("ada", "glm-2026", "lite", "month", 0) == (
        added.id, added.catalog, added.plan, added.period, added.expires_at_ms,
    )  # fmt: skip
    assert added.subscribed_at_ms == changed.subscribed_at_ms == running.time.now_ms - 100_000
    assert ("pro", "year") == (changed.plan, changed.period)
    assert changed == running.admin.get_account("ada")
    running.admin.delete_account("ada")
    assert (grpc.StatusCode.NOT_FOUND, "no account 'ada'") == error_of(lambda: running.admin.get_account("ada"))
    assert grpc.StatusCode.NOT_FOUND == error_of(lambda: running.admin.delete_account("ada"))[0]


def test_a_new_plan_holds_at_once_and_keeps_what_was_drawn(running: Running) -> None:
    """80 of 80 drawn under lite are 80 of 400 under pro."""
    ask = admit_request("demo-lite", model="glm-4.7", tool="cline")
    for _ in range(80):
        running.data.admit(ask)
    before = running.data.admit(ask).verdict
    put(running, "demo-lite", plan="pro")
    usage = running.data.usage("demo-lite")

    assert quota_pb2.LIMIT_EXHAUSTED == before
    assert quota_pb2.ALLOWED == running.data.admit(ask).verdict
    assert ("pro", 80_000_000, 400_000_000) == (usage.plan, usage.limits[0].used_micro, usage.limits[0].limit_micro)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": "", "plan": "lite"}, "id: ''"),
        ({"id": "x" * 257, "plan": "lite"}, "id: 'xxx"),
        ({"id": "a", "plan": "gold"}, "plan: 'gold' is not allowed; allowed: one of lite, pro, max"),
        ({"id": "a", "plan": ""}, "plan: ''"),
        ({"id": "a", "plan": "lite", "catalog": "nope"}, "catalog: 'nope' is not allowed; allowed: one of glm-2025"),
        ({"id": "a", "plan": "lite", "period": "week"}, "period: 'week' is not allowed; allowed: one of month"),
        ({"id": "a", "plan": "lite", "subscribed_at_ms": 1}, "subscribed_at_ms: 1 "),
        ({"id": "a", "plan": "lite", "expires_at_ms": -1}, "expires_at_ms: -1 "),
        ({"id": "a", "plan": "lite", "expires_at_ms": 2**62}, f"expires_at_ms: {2**62} "),
        (
            {"id": "a", "plan": "lite", "overrides": [{"limit_id": "nosuch"}]},
            "overrides: 'nosuch' is not allowed; allowed: ",
        ),
        (
            {"id": "a", "plan": "lite", "overrides": [{"limit_id": "calls", "limit": 10**12 + 1}]},
            "overrides: {'calls': ",
        ),
        (
            {"id": "a", "plan": "lite", "overrides": [{"limit_id": f"{n}"} for n in range(17)]},
            "overrides: '17 limits' ",
        ),
        ({"id": "a", "plan": "lite", "overrides": [{"limit_id": "x"}] * 2}, "overrides[1].limit_id: 'x' "),
    ],
)
def test_a_bad_account_is_refused_by_name(running: Running, fields: dict[str, object], words: str) -> None:
    """INVALID_ARGUMENT with field, value and what is allowed; no account comes of it."""
    status, text = error_of(lambda: running.admin.put_account(admin_pb2.Account(**fields)))

    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert text.startswith(words)
    assert 3 == len(list(running.admin.list_accounts()))


def test_accounts_are_listed_page_by_page(running: Running) -> None:
    """following the tokens gives each account once."""
    names = {f"account-{number}" for number in range(50)} | {"demo-lite", "demo-pro", "demo-max"}
    for name in names:
        put(running, name)
    stub = running.admin._stub
    pages = [stub.ListAccounts(admin_pb2.ListAccountsRequest(page_size=7))]
    while pages[-1].next_page_token:
        request = admin_pb2.ListAccountsRequest(page_size=7, page_token=pages[-1].next_page_token)
        pages.append(stub.ListAccounts(request))
    listed = [account.id for page in pages for account in page.accounts]

    assert len(pages) > 3
    assert sorted(names) == sorted(listed)
    assert sorted(names) == sorted(account.id for account in running.admin.list_accounts())


def test_a_page_has_bounds(serve: Callable[..., Running]) -> None:
    """a size past page_accounts_max, a negative one and a made-up token are named."""
    running = serve(page_accounts_max=2)
    requests = [
        admin_pb2.ListAccountsRequest(page_size=3),
        admin_pb2.ListAccountsRequest(page_size=-1),
        admin_pb2.ListAccountsRequest(page_token="made up"),
    ]
    errors = [error_of(lambda request=request: running.admin._stub.ListAccounts(request)) for request in requests]

    assert [grpc.StatusCode.INVALID_ARGUMENT] * 3 == [status for status, _ in errors]
    assert "page_size: 3 is not allowed; allowed: 0 to 2 (page_accounts_max)" == errors[0][1]
    assert errors[2][1].startswith("page_token: 'made up'")
    assert 3 == len(list(running.admin.list_accounts()))


def test_an_import_loads_the_good_ones(running: Running) -> None:
    """bad accounts are told by their place in the stream, over the borders of messages, and the others are loaded."""
    accounts = [admin_pb2.Account(id=f"a{number}", plan="lite") for number in range(1200)]
    accounts[3].plan = "gold"
    accounts[1100].id = ""
    response = running.admin.import_accounts(accounts)

    assert (1198, 2) == (response.loaded, response.failed)
    assert [(3, "a3", 3, "plan"), (1100, "", 3, "id")] == [
        (error.index, error.id, error.code, error.field) for error in response.errors
    ]
    assert "lite" == running.admin.get_account("a1199").plan
    assert 1201 == running.server.engine.accounts_count


def test_an_import_tells_a_thousand_errors(running: Running) -> None:
    """errors past the first 1,000 are counted only."""
    response = running.admin.import_accounts(admin_pb2.Account(id=f"a{n}", plan="gold") for n in range(1500))

    assert (0, 1500, 1000) == (response.loaded, response.failed, len(response.errors))


def test_an_import_that_breaks_keeps_what_came_before(running: Running) -> None:
    """bytes that are no message end the stream with INVALID_ARGUMENT, and the server goes on."""

    def bodies() -> Iterator[bytes]:
        yield admin_pb2.ImportAccountsRequest(accounts=[admin_pb2.Account(id="ada", plan="lite")]).SerializeToString()
        yield b"\xff"

    with grpc.insecure_channel(running.addresses.control) as channel:
        call = channel.stream_unary("/quota.v1.AdminService/ImportAccounts")
        status, text = error_of(lambda: call(bodies(), timeout=5))

    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert text.startswith("message: 1 bytes that are no quota.v1.ImportAccountsRequest")
    assert "ada" == running.admin.get_account("ada").id


def test_an_import_of_nothing(running: Running) -> None:
    """an empty stream is fine."""
    assert admin_pb2.ImportAccountsResponse() == running.admin.import_accounts([])


def test_limits_of_its_own(running: Running) -> None:
    """overrides hold at once, in Get, List and usage; 0 blocks without a wait; the next put replaces them."""
    own = [
        {"limit_id": "prompts-5h", "limit": 2},
        {"limit_id": "mcp-month", "limit": 0},
        {"limit_id": "calls", "limit": 1},
    ]
    changed = put(running, "demo-lite", overrides=own)
    shown = [running.admin.get_account("demo-lite"), *running.admin.list_accounts()]
    ask = admit_request("demo-lite", model="glm-4.7", tool="cline")
    search = admit_request("demo-lite", tool="cline", draws={"web_search": 1})
    verdicts = [running.data.admit(ask).verdict for _ in range(3)]
    blocked = running.data.admit(search)
    usage = running.data.usage("demo-lite")
    back = put(running, "demo-lite")

    assert own == [{"limit_id": it.limit_id, "limit": it.limit} for it in changed.overrides]
    assert 2 == shown.count(changed)
    assert [quota_pb2.ALLOWED, quota_pb2.ALLOWED, quota_pb2.LIMIT_EXHAUSTED] == verdicts
    assert (quota_pb2.LIMIT_EXHAUSTED, "mcp-month") == (blocked.verdict, blocked.rule)
    assert not blocked.HasField("retry_after_ms")
    assert [(2_000_000, 100), (400_000_000, 0), (0, 100)] == [(it.limit_micro, it.percent) for it in usage.limits]
    assert [quota_pb2.ConcurrencyState(id="calls", limit=1)] == list(usage.concurrency)
    assert not back.overrides
    assert quota_pb2.ALLOWED == running.data.admit(search).verdict


def test_a_limit_that_the_plan_lacks_sleeps(running: Running) -> None:
    """an override for another plan of the catalog is kept, and holds once the account is there."""
    running.admin.load_catalog(CATALOG + PLUS)
    own = [{"limit_id": "requests-day", "limit": 1}]
    put(running, "ada", catalog="lumen", plan="basic", overrides=own)
    before = [running.data.admit(admit_request("ada")).verdict for _ in range(2)]
    put(running, "ada", catalog="lumen", plan="plus", overrides=own)
    after = [running.data.admit(admit_request("ada")) for _ in range(2)]

    assert [quota_pb2.ALLOWED] * 2 == before
    assert [(quota_pb2.ALLOWED, ""), (quota_pb2.LIMIT_EXHAUSTED, "requests-day")] == [
        (it.verdict, it.rule) for it in after
    ]


# ---- Capacity and usage ----------------------------------------------------------------------------------------------


def test_the_capacity_factor(running: Running) -> None:
    """it starts at all, multiplies what a plan gives, leaves 1, and closes no hold."""
    started = running.admin.get_capacity().factor_micro

    def hold(number: int) -> int:
        ask = admit_request("demo-pro", model="glm-4.7", tool="cline", request_id=f"r{number}", hold_ms=60_000)
        return running.data.admit(ask).verdict

    full = [hold(number) for number in range(3)]
    limits = []
    for micro in (250_000, 100_000, 0, 1_000_000):
        assert micro == running.admin.set_capacity(micro).factor_micro == running.admin.get_capacity().factor_micro
        limits.append(running.data.usage("demo-pro").concurrency[0].limit)
    running.admin.set_capacity(250_000)
    refused = hold(3)

    assert 1_000_000 == started
    assert [quota_pb2.ALLOWED] * 3 == full
    assert [2, 1, 1, 8] == limits
    assert (quota_pb2.OVERLOADED, 3) == (refused, running.data.usage("demo-pro").concurrency[0].in_flight)


@pytest.mark.parametrize("fields", [{}, {"factor_micro": -1}, {"factor_micro": 1_000_001}])
def test_a_wrong_capacity_is_refused(running: Running, fields: dict[str, int]) -> None:
    """also none at all: an empty message does not close the shop."""
    request = admin_pb2.SetCapacityRequest(**fields)
    status, text = error_of(lambda: running.admin._stub.SetCapacity(request, timeout=5))

    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert re.fullmatch(r"factor_micro: \S+ is not allowed; allowed: 0 to 1000000", text)
    assert 1_000_000 == running.admin.get_capacity().factor_micro


def test_usage_is_given_back_and_taken(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """every limit of a pool or one, the latest first, at most what counts; past a limit; logged without account and reason."""
    caplog.set_level("INFO", "quota.server.keeper")
    running.data.admit(admit_request("demo-lite", model="glm-4.7", tool="cline", draws={"prompt": 80}))
    back = running.admin.adjust_usage("demo-lite", pool="prompts", micro=-3_500_000, reason="outage of Tuesday")
    taken = running.admin.adjust_usage("demo-lite", limit_id="prompts-5h", micro=10_000_000, reason="shared account")
    rest = running.admin.adjust_usage("demo-lite", pool="prompts", micro=-(10**18), reason="start afresh")

    def moved(response: admin_pb2.AdjustUsageResponse) -> list[tuple[str, int, int]]:
        return [
            (it.limit_id, it.micro, limit.used_micro) for it, limit in zip(response.moved, response.limits, strict=True)
        ]

    assert [("prompts-5h", -3_500_000, 76_500_000), ("prompts-week", -3_500_000, 76_500_000)] == moved(back)
    assert [("prompts-5h", 10_000_000, 86_500_000)] == moved(taken)
    assert [("prompts-5h", -86_500_000, 0), ("prompts-week", -76_500_000, 0)] == moved(rest)
    logged = [record.__dict__ for record in caplog.records]
    assert [("AdjustUsage", -3_500_000), ("AdjustUsage", 10_000_000), ("AdjustUsage", -(10**18))] == [
        (it["what"], it["micro"]) for it in logged
    ]
    assert not re.search("demo-lite|outage", repr(logged))


def test_a_bucket_gives_nothing_back(running: Running) -> None:
    """by its pool it is passed over, by its id refused; taking fills it."""
    running.admin.load_catalog(CATALOG + PLUS)
    put(running, "ada", catalog="lumen", plan="plus")
    for _ in range(2):
        running.data.admit(admit_request("ada"))
    back = running.admin.adjust_usage("ada", pool="requests", micro=-1_000_000, reason="x")
    status, text = error_of(lambda: running.admin.adjust_usage("ada", limit_id="pace", micro=-1, reason="x"))
    taken = running.admin.adjust_usage("ada", limit_id="pace", micro=5_000_000, reason="x")

    assert [("requests-day", -1_000_000)] == [(it.limit_id, it.micro) for it in back.moved]
    assert (grpc.StatusCode.INVALID_ARGUMENT, "micro: -1 is not allowed") == (status, text.split(";")[0])
    assert [("pace", 5_000_000)] == [(it.limit_id, it.micro) for it in taken.moved]
    assert quota_pb2.BURST == running.data.admit(admit_request("ada")).verdict


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"account": ""}, "account: ''"),
        ({"pool": "", "limit_id": ""}, "pool: '' is not allowed; allowed: exactly one of pool and limit_id"),
        ({"limit_id": "prompts-5h"}, "pool: 'prompts' is not allowed; allowed: exactly one"),
        ({"pool": "nosuch"}, "pool: 'nosuch' is not allowed; allowed: one of prompts, mcp"),
        ({"pool": "", "limit_id": "calls"}, "limit_id: 'calls' is not allowed; allowed: one of prompts-5h, "),
        ({"micro": 0}, "micro: 0 "),
        ({"micro": 10**18 + 1}, f"micro: {10**18 + 1} "),
        ({"micro": -(10**18) - 1}, f"micro: {-(10**18) - 1} "),
        ({"reason": ""}, "reason: ''"),
        ({"reason": "好" * 171}, "reason: "),
    ],
)
def test_a_wrong_adjustment_is_refused_by_name(running: Running, fields: dict[str, object], words: str) -> None:
    """INVALID_ARGUMENT with field, value and what is allowed; nothing moves."""
    given = {"account": "demo-lite", "pool": "prompts", "micro": 1_000_000, "reason": "x", **fields}
    status, text = error_of(lambda: running.admin._stub.AdjustUsage(admin_pb2.AdjustUsageRequest(**given), timeout=5))

    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert text.startswith(words)
    assert 0 == running.data.usage("demo-lite").limits[0].used_micro


def test_nobody_is_adjusted(running: Running) -> None:
    """NOT_FOUND where there is no such account."""
    status, _ = error_of(lambda: running.admin.adjust_usage("nobody", pool="prompts", micro=1, reason="x"))

    assert grpc.StatusCode.NOT_FOUND == status


# ---- Catalogs --------------------------------------------------------------------------------------------------------


def test_a_catalog_decides_once_loaded(running: Running) -> None:
    """a loaded catalog takes accounts, and a later one of its name replaces it at once."""
    loaded = running.admin.load_catalog(CATALOG)
    put(running, "ada", catalog="lumen", plan="basic")
    ask = admit_request("ada")
    first = [running.data.admit(ask) for _ in range(3)]
    running.time.advance(1)
    replaced = running.admin.load_catalog(THREE)
    second = [running.data.admit(ask) for _ in range(2)]

    allowed, exhausted = quota_pb2.ALLOWED, quota_pb2.LIMIT_EXHAUSTED
    assert [allowed, allowed, exhausted] == [response.verdict for response in first]
    assert [allowed, exhausted] == [response.verdict for response in second]
    assert loaded.catalog == first[0].catalog
    assert replaced.catalog == second[0].catalog
    assert loaded.catalog != replaced.catalog


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        (THREE.replace("limit: 3", "limit: 0"), "<yaml>:11: "),
        (THREE.replace("time_zone", "time_zoen"), "<yaml>:2: "),
        (THREE.replace("UTC", "Mars/Olympus"), "<yaml>:2: "),
        (THREE + "  basic: {}\n", "<yaml>:12: "),
        ("", "<yaml>"),
        ("glm-2026", "<yaml>"),
        ("/etc/passwd", "<yaml>"),
        ("catalog: [", "<yaml>"),
    ],
)
def test_a_bad_catalog_leaves_the_old_one_deciding(running: Running, yaml: str, words: str) -> None:
    """LoadCatalog with any error names it, and the catalog of that name decides as before."""
    before = running.admin.load_catalog(CATALOG)
    put(running, "ada", catalog="lumen", plan="basic")
    running.data.admit(admit_request("ada"))
    status, text = error_of(lambda: running.admin.load_catalog(yaml))
    running.data.admit(admit_request("ada"))
    after = running.data.admit(admit_request("ada"))

    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert words in text
    assert (quota_pb2.LIMIT_EXHAUSTED, before.catalog) == (after.verdict, after.catalog)
    assert 4 == len(running.admin.list_catalogs())


def test_a_plan_in_use_does_not_vanish(running: Running) -> None:
    """dropping a plan that accounts use is refused, with how many."""
    running.admin.load_catalog(CATALOG)
    for name in ("ada", "bob"):
        put(running, name, catalog="lumen", plan="basic")
    status, text = error_of(lambda: running.admin.load_catalog(CATALOG.replace("basic", "better")))

    assert grpc.StatusCode.FAILED_PRECONDITION == status
    assert "2" in text
    assert "basic" in text
    assert quota_pb2.ALLOWED == running.data.admit(admit_request("ada")).verdict


def test_a_shipped_catalog_is_not_replaced(running: Running) -> None:
    """LoadCatalog on a shipped name is refused, and says so."""
    status, text = error_of(lambda: running.admin.load_catalog(CATALOG.replace("lumen", "glm-2026")))

    assert grpc.StatusCode.FAILED_PRECONDITION == status
    assert text.startswith("catalog glm-2026 is shipped or comes from a file of the server")
    assert 400_000_000 == running.data.usage("demo-pro").limits[0].limit_micro


def test_a_files_catalog_is_not_replaced(serve: Callable[..., Running], tmp_path: Path) -> None:
    """nor one from a file or a directory that the server was given."""
    (tmp_path / "lumen.yaml").write_text(CATALOG)
    running = serve(catalogs=(str(tmp_path),), catalog_default="lumen", demo=False)
    status, _ = error_of(lambda: running.admin.load_catalog(THREE))

    assert grpc.StatusCode.FAILED_PRECONDITION == status
    assert "lumen" == put(running, "ada", plan="basic").catalog
    assert quota_pb2.ALLOWED == running.data.admit(admit_request("ada")).verdict


def test_a_file_takes_a_shipped_catalogs_place(serve: Callable[..., Running], tmp_path: Path) -> None:
    """so that a shipped catalog is extended by a line without a change of name."""
    file = tmp_path / "own.yaml"
    file.write_text(CATALOG.replace("lumen", "glm-2025"))
    running = serve(catalogs=(str(file),))

    assert [("glm-2025", ["basic"]), ("glm-2026", ["lite", "pro", "max"]), ("zai-2025", ["lite", "pro", "max"])] == [
        (catalog.name, list(catalog.plans)) for catalog in running.admin.list_catalogs()
    ]


def test_catalogs_are_listed(running: Running) -> None:
    """name, version as decisions give it, plans, accounts, owner."""
    running.time.advance(60)
    version = running.admin.load_catalog(CATALOG).catalog.version
    shipped, lumen = running.admin.list_catalogs()[1:3]

    assert (
        admin_pb2.CatalogInfo(
            name="lumen",
            version=version,
            loaded_at_ms=running.time.now_ms,
            plans=["basic"],
            accounts=0,
            from_file=False,
        )
        == lumen
    )
    assert ("glm-2026", 3, True) == (shipped.name, shipped.accounts, shipped.from_file)


def test_check_catalog_lists_every_problem(running: Running) -> None:
    """all problems with their lines, nothing loaded; none for a good one."""
    bad = THREE.replace("limit: 3", "limit: 0").replace("time_zone", "time_zoen")
    problems = running.admin.check_catalog(bad).problems

    assert len(problems) >= 2
    assert all(problem.startswith("<yaml>:") for problem in problems)
    assert admin_pb2.CheckCatalogResponse() == running.admin.check_catalog(CATALOG)
    assert 3 == len(running.admin.list_catalogs())


# ---- The clock -------------------------------------------------------------------------------------------------------


def test_a_step_of_the_wall_clock_frees_nothing_until_accepted(running: Running) -> None:
    """a forward step is shown and adopted on request; only then does the sliding window move on."""
    ask = admit_request("demo-lite", model="glm-4.7", tool="cline", draws={"prompt": 80})
    running.data.admit(ask)
    running.time.set_wall(5 * 3600)
    running.time.advance(2)
    before = running.data.admit(ask).verdict
    state = running.admin.get_clock()
    adopted_ms = running.admin.accept_clock()
    after = running.data.admit(ask).verdict

    assert (quota_pb2.LIMIT_EXHAUSTED, quota_pb2.ALLOWED) == (before, after)
    assert (5 * 3600_000, 1) == (state.step_ms, state.alarms)
    assert state.wall_ms == state.now_ms + state.step_ms
    assert 5 * 3600_000 == adopted_ms
    assert 0 == running.admin.accept_clock()


def test_a_backward_step_is_never_adopted(running: Running) -> None:
    """FAILED_PRECONDITION, and time goes on."""
    running.time.set_wall(-60)
    running.time.advance(2)
    status, text = error_of(running.admin.accept_clock)

    assert grpc.StatusCode.FAILED_PRECONDITION == status
    assert "set back by 60.0 s" in text


# ---- The port --------------------------------------------------------------------------------------------------------


def test_reflection_shows_both_services(running: Running) -> None:
    """a tool can learn both services from the control port."""
    with grpc.insecure_channel(running.addresses.control) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert {"quota.v1.QuotaService", "quota.v1.AdminService", "grpc.health.v1.Health"} <= services


def test_the_data_port_serves_no_administration(running: Running) -> None:
    """who may ask may not thereby rule."""
    with grpc.insecure_channel(running.addresses.data) as channel:
        call = channel.unary_unary("/quota.v1.AdminService/ListCatalogs")
        status, _ = error_of(lambda: call(b"", timeout=5))

    assert grpc.StatusCode.UNIMPLEMENTED == status
