"""The command, as a person and as a script use it: real servers, and the entry point in process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import HandTime, Running

from quota import __version__
from quota.cli import main, show

SHIPPED = Path(__file__).parent.parent / "quota/catalog/shipped"
CATALOG = """\
catalog: lumen
time_zone: UTC
meters:
  request: {pool: requests}
default_meter: request
plans:
  basic: {level: 1, pools: {requests: [{id: requests-hour, window: {sliding: 1h}, limit: 2}]}}
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, object]:
        """What was printed, as JSON."""
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def quotad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run a command and return what became of it."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()

    def run(*arguments: str) -> Outcome:
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = exit_.code
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    yield run
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def client(quotad: Command, running: Running, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command against the running server."""
    monkeypatch.setenv("QUOTAD_SERVER", running.addresses.data)
    monkeypatch.setenv("QUOTAD_ADMIN_SERVER", running.addresses.control)
    return quotad


ADMIT = ("admit", "demo-lite", "--model", "glm-4.7", "--tool", "claude-code")

# ---- admit and peek --------------------------------------------------------------------------------------------------


def test_eighty_admits_and_the_next(client: Command, running: Running) -> None:
    """80 are allowed, and the 81st says which limit, how long, until when, and the vendor's words; exit 3."""
    outcomes = [client(*ADMIT) for _ in range(80)]
    running.time.advance(2)
    refused = client(*ADMIT)

    assert {Outcome(0, "ALLOWED GLM-4.7: charged prompts 1 (weight 1)\n", "")} == set(outcomes)
    assert 3 == refused.status
    assert (
        "LIMIT_EXHAUSTED prompts-5h: retry in 4h 59m 58s (resets 2026-07-06 20:00:00 CST); vendor 1308 "
        '"Usage limit reached for 5 hour. Your limit will reset at 2026-07-06 20:00:00"\n'
    ) == refused.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--model", "glm-5", "--tool", "cline"),
            "MODEL_NOT_IN_PLAN models.GLM-5: waiting will not help; vendor 1311 ",
        ),
        (("--model", "glm-4.7", "--tool", "curl"), "TOOL_UNSUPPORTED tools: waiting will not help; vendor 1113 "),
        (("--tool", "cline", "--draw", "prompt=81"), "MODEL_UNKNOWN models: waiting will not help; vendor 1211 "),
    ],
)
def test_refusals_in_a_line(client: Command, arguments: tuple[str, ...], line: str) -> None:
    """verdict, rule, whether waiting helps, and the vendor's code."""
    outcome = client("admit", "demo-lite", *arguments)

    assert 3 == outcome.status
    assert outcome.out.startswith(line)


def test_peek_charges_nothing(client: Command) -> None:
    """peek says what would be charged."""
    outcome = client("peek", "demo-pro", "--model", "glm-5", "--tool", "cline", "--draw", "prompt=2")

    assert Outcome(0, "ALLOWED GLM-5: would charge prompts 6 (weight 3)\n", "") == outcome
    assert "0 of 400" in client("usage", "demo-pro").out


def test_answers_as_json(client: Command, running: Running) -> None:
    """--json prints the answer under the proto's names, numbers as numbers, and absent fields left out."""
    outcome = client(*ADMIT, "--draw", "prompt=80", "--draw", "web_search=1", "--json")
    refused = client(*ADMIT, "--json")

    assert 1 == outcome.out.count("\n")
    assert "ALLOWED" == outcome.data["verdict"]
    assert [{"pool": "prompts", "micro": 80_000_000}, {"pool": "mcp", "micro": 1_000_000}] == outcome.data["charged"]
    assert "retry_after_ms" not in outcome.data
    assert (3, "LIMIT_EXHAUSTED", 18_000_000) == (
        refused.status,
        refused.data["verdict"],
        refused.data["retry_after_ms"],
    )
    assert "prompts-5h" == refused.data["limits"][0]["id"]


def test_explain_shows_limits(client: Command) -> None:
    """every limit touched, also those with room."""
    out = client(*ADMIT, "--explain").out

    assert out.startswith("ALLOWED GLM-4.7")
    assert "prompts-5h" in out
    assert "prompts-week" in out
    assert "mcp-month" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("admit",),
        ("admit", "a", "--draw", "prompt"),
        ("admit", "a", "--draw", "prompt=-1"),
        ("admit", "a", "--draw", "prompt=1.5"),
        ("admit", "a", "--request-id", "r1", "--hold", "5"),
        ("settle", "a", "r1"),
        ("settle", "a", "r1", "--commit", "--cancel"),
        ("renew", "a", "r1"),
        ("capacity", "set"),
        ("capacity", "set", "1.000001"),
        ("capacity", "show", "1"),
        ("accounts", "put", "ada", "--plan", "lite", "--override", "prompts-5h"),
        ("accounts", "adjust", "ada", "--pool", "prompts", "--take", "5"),
        ("accounts", "adjust", "ada", "--pool", "prompts", "--take", "0", "--reason", "x"),
        ("accounts", "adjust", "ada", "--take", "5", "--reason", "x"),
        ("accounts", "adjust", "ada", "--pool", "a", "--limit", "b", "--take", "5", "--reason", "x"),
        ("nosuch",),
        (),
        ("accounts",),
        ("accounts", "put", "ada"),
        ("accounts", "put", "ada", "--plan", "lite", "--subscribed-at", "yesterday"),
        ("serve", "--nosuch"),
        ("audit", "-n", "all"),
        ("backup",),
        ("restore", "a.backup"),
        ("repair",),
    ],
)
def test_a_wrong_command_line_is_exit_2(quotad: Command, arguments: tuple[str, ...]) -> None:
    """told on stderr, with the usage."""
    outcome = quotad(*arguments)

    assert (2, "") == (outcome.status, outcome.out)
    assert outcome.err.startswith("usage: quotad")


def test_errors_are_one_line(client: Command) -> None:
    """what the server refuses is told on stderr with its status; exit 1."""
    outcome = client("admit", "demo-lite", "--draw", "prompt=1000000001")
    twice = client("admit", "demo-lite", "--draw", "prompt=1", "--draw", "prompt=1")

    assert (1, "") == (outcome.status, outcome.out)
    assert outcome.err.startswith("quotad: INVALID_ARGUMENT: ")
    assert 1 == outcome.err.count("\n")
    assert "each meter once" in twice.err


def test_no_server_is_one_line(quotad: Command) -> None:
    """it says where it was looked for and how to say otherwise."""
    outcome = quotad("admit", "ada", "--server", "127.0.0.1:1")
    control = quotad("accounts", "list", "--admin-server", "127.0.0.1:1")

    assert (1, "") == (outcome.status, outcome.out)
    assert (
        "quotad: no server answers at 127.0.0.1:1; --server or $QUOTAD_SERVER say where it is, "
        "`quotad serve` starts one\n"
    ) == outcome.err
    assert "--admin-server or $QUOTAD_ADMIN_SERVER" in control.err


# ---- Held requests ---------------------------------------------------------------------------------------------------

HELD = (*ADMIT, "--request-id", "r1", "--hold", "5m")


def test_a_held_request_by_command(client: Command) -> None:
    """admit, admit again, renew, settle, settle again; another settlement is an error."""
    held = "ALLOWED GLM-4.7: charged prompts 2 (weight 1); held until 2026-07-06 15:05:00 CST\n"
    assert held == client(*HELD, "--draw", "prompt=2").out
    assert held == client(*HELD, "--draw", "prompt=2").out
    assert "held until 2026-07-06 15:10:00 CST\n" == client("renew", "demo-lite", "r1", "--hold", "10m").out
    settle = ("settle", "demo-lite", "r1", "--commit", "--draw", "prompt=5", "--draw", "web_search=1")
    assert "committed: prompts 3 on top, mcp 1 on top\n" == client(*settle).out
    assert "committed: prompts 3 on top, mcp 1 on top\n" == client(*settle).out
    assert client("settle", "demo-lite", "r1", "--cancel").err.startswith("quotad: ALREADY_EXISTS: ")
    assert client("renew", "demo-lite", "r1", "--hold", "10m").err.startswith("quotad: FAILED_PRECONDITION: ")
    assert client("settle", "demo-lite", "r2", "--commit").err.startswith("quotad: NOT_FOUND: ")


def test_settlements_in_words(client: Command, running: Running) -> None:
    """kept, given back, late."""
    for number in range(3):
        client(*ADMIT, "--request-id", f"r{number}", "--hold", "90s")
    kept = client("settle", "demo-lite", "r0", "--commit")
    back = client("settle", "demo-lite", "r1", "--cancel")
    running.time.advance(90)
    late = client("settle", "demo-lite", "r2", "--cancel", "--json")
    again = client("settle", "demo-lite", "r2", "--cancel")

    assert (0, "committed: nothing moved\n") == (kept.status, kept.out)
    assert "cancelled: prompts 1 given back\n" == back.out
    assert {"charged": [], "refunded": [{"pool": "prompts", "micro": 1_000_000}], "late": True} == late.data
    assert "cancelled: prompts 1 given back; late: its hold had closed by itself, or there was none\n" == again.out


def test_places_in_words(client: Command, running: Running) -> None:
    """usage shows places as a bar and every hold; past the last place it is CONCURRENCY; peek says what would be."""
    for number in range(3):
        client(*ADMIT, "--request-id", f"r{number}", "--hold", "1h")
        running.time.advance(60)
    lines = client("usage", "demo-lite").out.splitlines()
    peeked = client("peek", *ADMIT[1:], "--request-id", "r3", "--hold", "1h")
    client(*ADMIT, "--request-id", "r3", "--hold", "1h")
    refused = client(*ADMIT, "--request-id", "r4", "--hold", "1h")

    start = next(index for index, line in enumerate(lines) if line.startswith("concurrency"))
    assert re.fullmatch(r"calls +█{10}░{4} +75% 3 of 4 *", lines[start + 1])
    assert re.fullmatch(r"hold +model +since \(CST\) +closes by itself *", lines[start + 3])
    assert re.fullmatch(r"r0 +GLM-4.7 +2026-07-06 15:00:00 +2026-07-06 16:00:00 *", lines[start + 4])
    assert start + 7 == len(lines)
    assert all(len(line) <= 80 for line in lines)
    assert peeked.out.endswith("would charge prompts 1 (weight 1); would be held until 2026-07-06 16:03:00 CST\n")
    assert 3 == refused.status
    assert refused.out.startswith("CONCURRENCY calls: retry in 1s; vendor 1302 ")


def test_many_holds_are_cut_short(client: Command) -> None:
    """a person sees the 20 oldest, and how many there are beside."""
    client("accounts", "put", "ada", "--plan", "lite", "--override", "calls=50")
    for number in range(23):
        client("admit", "ada", *ADMIT[2:], "--request-id", f"r{number}", "--hold", "1h")
    lines = client("usage", "ada").out.splitlines()

    assert "and 3 more (--json shows all)" == lines[-1]
    assert 23 == len(client("usage", "ada", "--json").data["holds"])


def test_prompts_and_recording_by_command(client: Command) -> None:
    """calls of a prompt cost one; --record charges what has happened past the limit."""
    first = client(*ADMIT, "--prompt-id", "p1")
    second = client(*ADMIT, "--prompt-id", "p1")
    client(*ADMIT, "--draw", "prompt=79")
    recorded = client(*ADMIT, "--record", "--draw", "prompt=2", "--client", "laptop")

    assert "ALLOWED GLM-4.7: charged prompts 1 (weight 1)\n" == first.out
    assert "ALLOWED GLM-4.7: charged nothing (weight 1)\n" == second.out
    assert (0, "ALLOWED GLM-4.7: charged prompts 2 (weight 1)\n") == (recorded.status, recorded.out)
    assert "82 of 80" in client("usage", "demo-lite").out


def test_the_capacity_by_command(client: Command) -> None:
    """half of the four places of lite are two; what the plan would give is OVERLOADED."""
    shown = client("capacity")
    halved = client("capacity", "set", "0.5")
    as_json = client("capacity", "show", "--json")
    outcomes = [client(*ADMIT, "--request-id", f"r{number}", "--hold", "1m") for number in range(3)]

    assert ("capacity factor 1\n", "capacity factor 0.5\n") == (shown.out, halved.out)
    assert {"factor_micro": 500_000} == as_json.data
    assert [0, 0, 3] == [outcome.status for outcome in outcomes]
    assert outcomes[2].out.startswith("OVERLOADED calls: retry in 1s; vendor 1305 ")


# ---- usage -----------------------------------------------------------------------------------------------------------


def test_usage_draws_bars(client: Command) -> None:
    """each limit with a bar, percent, amounts, and when it comes back, in 80 columns."""
    client(*ADMIT, "--draw", "prompt=40")
    outcome = client("usage", "demo-lite")
    lines = outcome.out.splitlines()

    assert 0 == outcome.status
    assert "demo-lite: plan lite of glm-2026" == lines[0]
    assert "comes back (CST)" in lines[1]
    assert re.match(r"prompts-5h +sliding 5h +█{7}░{7} +50% 40 of 80 +in ", lines[2])
    assert "2026-07-06 20:00:00" == lines[3].strip()
    assert re.match(r"prompts-week anniversary 7d +█░{13} +10% 40 of 400 +in ", lines[4])
    assert re.match(r"mcp-month +anniversary 1mo +░{14} +0% 0 of 100 +nothing drawn", lines[6])
    assert all(len(line) <= 80 for line in lines)


def test_usage_as_json(client: Command) -> None:
    """the same for machines, and an account that does not exist is an error."""
    client(*ADMIT)
    usage = client("usage", "demo-lite", "--json").data
    nobody = client("usage", "nobody")

    assert ["prompts-5h", "prompts-week", "mcp-month"] == [limit["id"] for limit in usage["limits"]]
    assert 1_000_000 == usage["limits"][0]["used_micro"]
    assert "resets_at_ms" not in usage["limits"][2]
    assert Outcome(1, "", "quotad: NOT_FOUND: no account 'nobody'\n") == nobody


# ---- accounts --------------------------------------------------------------------------------------------------------


def test_an_account_by_command(client: Command) -> None:
    """put, get, list, delete."""
    put = client(
        "accounts", "put", "ada", "--plan", "pro", "--subscribed-at", "2026-01-02T03:04:05+08:00", "--period", "year",
        "--expires-at", "2027-01-02",
    )  # fmt: skip
    got = client("accounts", "get", "ada", "--json")
    deleted = client("accounts", "delete", "ada")

    assert put.out == (
        "ada: plan pro of glm-2026, by the year, subscribed 2026-01-02 03:04:05 CST, expires 2027-01-02 08:00:00 CST\n"
    )
    assert ("ada", "pro", 1_767_294_245_000) == tuple(got.data[key] for key in ("id", "plan", "subscribed_at_ms"))
    assert Outcome(0, "", "") == deleted
    assert Outcome(1, "", "quotad: NOT_FOUND: no account 'ada'\n") == client("accounts", "delete", "ada", "--purge")


def test_a_listing_is_an_import_file(client: Command, running: Running, tmp_path: Path) -> None:
    """what list prints, import reads back: odd names, moments to the millisecond, no end."""
    names = ["plain", 'quo"te', "com,ma", "好", "line\nbreak"]
    rows = [f'"{name.replace(chr(34), chr(34) * 2)}",pro,{1_767_294_245_123 + n},' for n, name in enumerate(names)]
    file = tmp_path / "in.csv"
    rows = [f"{row},{cell}" for row, cell in zip(rows, ["", "calls=3", "", "prompts-5h=0;calls=9", ""], strict=True)]
    file.write_text("id,plan,subscribed_at_ms,expires_at_ms,overrides\n" + "\n".join(rows) + "\n")
    first = client("accounts", "import", str(file))
    listing = client("accounts", "list").out
    before = {account.id: account for account in running.admin.list_accounts()}
    for name in before:
        running.admin.delete_account(name)
    file.write_text(listing)
    second = client("accounts", "import", str(file))

    assert "5 accounts loaded, 0 bad lines\n" == first.out
    assert "8 accounts loaded, 0 bad lines\n" == second.out
    assert before == {account.id: account for account in running.admin.list_accounts()}
    assert set(names) <= set(before)
    assert [("prompts-5h", 0), ("calls", 9)] == [(it.limit_id, it.limit) for it in before["好"].overrides]


def test_bad_lines_are_named_by_number(client: Command, running: Running, tmp_path: Path) -> None:
    """whatever is wrong with a line, it is told with its number, and the good ones are loaded; exit 1."""
    file = tmp_path / "accounts.csv"
    file.write_bytes(
        b"\xef\xbb\xbfid, plan,catalog,expires_at,overrides\r\n"  # 1, as spreadsheets write it
        b"a1,lite,,,\r\n"  # 2
        b"a2,gold,,,\r\n"  # 3: no such plan
        b"\r\n"  # 4: empty
        b"a3,lite\r\n"  # 5: too few cells
        b'"a\r\n4",lite,,,\r\n'  # 6 and 7: good
        b"a5,lite,,soon,\r\n"  # 8: no moment
        b"a\xff6,lite,,,\r\n"  # 9: no UTF-8
        b",lite,,,\r\n"  # 10: no id
        b'"a7"x,lite,,,\r\n'  # 11: quotes in the wrong place
        b"a8,lite,zai-2025,2030-01-01,\r\n"  # 12
        b"a9,lite,,,calls=8;prompts-5h\r\n"  # 13: no number
        b"a10,lite,,,nosuch=8\r\n"  # 14: no such limit
    )
    outcome = client("accounts", "import", str(file))
    bad = [line for line in outcome.err.splitlines() if line.startswith(f"{file}:")]

    assert (1, "3 accounts loaded, 8 bad lines\n") == (outcome.status, outcome.out)
    assert ["3", "5", "8", "9", "10", "11", "13", "14"] == [line.removeprefix(f"{file}:").split(":")[0] for line in bad]
    assert "plan: 'gold' is not allowed; allowed: one of lite, pro, max" in bad[0]
    assert "2 cells, but 5 columns" in bad[1]
    assert "expires_at: 'soon' is not allowed" in bad[2]
    assert "id: not UTF-8" in bad[3]
    assert "overrides: 'prompts-5h' is not allowed; allowed: such as prompts-5h=200;calls=8" in bad[6]
    assert "overrides: 'nosuch' is not allowed; allowed: one of " in bad[7]
    assert "zai-2025" == running.admin.get_account("a8").catalog
    assert "lite" == running.admin.get_account("a\r\n4").plan


def test_an_import_shows_progress(client: Command, tmp_path: Path) -> None:
    """on stderr, so that stdout stays the result."""
    file = tmp_path / "accounts.csv"
    file.write_text("id,plan\n" + "".join(f"account-{number},lite\n" for number in range(5000)))
    outcome = client("accounts", "import", str(file), "--json")

    assert {"loaded": 5000, "failed": 0} == outcome.data
    assert "accounts.csv" in outcome.err
    assert "100%" in outcome.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: the file is empty; allowed: a first line such as id,plan"),
        ("id,plan,color\n", ":1: 'color' is no column; allowed: id, catalog, plan, "),
        ("id\na\n", ":1: column plan is missing"),
        ("id,plan,id\n", ":1: column id stands twice"),
        ("id,plan,expires_at,expires_at_ms\n", ":1: expires_at and expires_at_ms say the same"),
    ],
)
def test_a_file_that_is_no_import(client: Command, tmp_path: Path, text: str, words: str) -> None:
    """nothing is loaded, and the first line is blamed."""
    file = tmp_path / "accounts.csv"
    file.write_text(text)
    outcome = client("accounts", "import", str(file))

    assert (1, "") == (outcome.status, outcome.out)
    assert f"quotad: {file}{words}" in outcome.err


def test_a_file_that_is_not_there(client: Command, quotad: Command, tmp_path: Path) -> None:
    """one line, exit 1; likewise a server that is not there."""
    absent = tmp_path / "absent.csv"
    file = tmp_path / "accounts.csv"
    file.write_text("id,plan\na,lite\n")

    assert Outcome(1, "", f"quotad: {absent}: cannot be read: No such file or directory\n") == client(
        "accounts", "import", str(absent)
    )
    outcome = quotad("accounts", "import", str(file), "--admin-server", "127.0.0.1:1")
    assert 1 == outcome.status
    assert "quotad: no server answers at 127.0.0.1:1" in outcome.err


def test_overrides_by_command(client: Command) -> None:
    """put replaces them all; get and list show them."""
    put = ("accounts", "put", "ada", "--plan", "lite")
    given = client(*put, "--override", "prompts-5h=2", "--override", "calls=8")
    listed = client("accounts", "list")
    got = client("accounts", "get", "ada", "--json")
    allowed = [client("admit", "ada", *ADMIT[2:]).status for _ in range(3)]
    unknown = client(*put, "--override", "nosuch=1")
    taken_away = client(*put)

    assert given.out.endswith(", without an end, overrides prompts-5h=2;calls=8\n")
    assert re.search(r"^ada,.*,prompts-5h=2;calls=8$", listed.out, re.MULTILINE)
    assert [{"limit_id": "prompts-5h", "limit": 2}, {"limit_id": "calls", "limit": 8}] == got.data["overrides"]
    assert [0, 0, 3] == allowed
    assert "quotad: INVALID_ARGUMENT: overrides: 'nosuch' is not allowed; allowed: one of prompts-5h, " in unknown.err
    assert taken_away.out.endswith(", without an end\n")


def test_usage_is_adjusted_by_command(client: Command) -> None:
    """given back on every limit of the pool, taken from one; what moved and how it stands then."""
    client(*ADMIT, "--draw", "prompt=10")
    adjust = ("accounts", "adjust", "demo-lite", "--reason", "outage")
    back = client(*adjust, "--pool", "prompts", "--give-back", "2.5")
    taken = client(*adjust, "--limit", "prompts-week", "--take", "1", "--json")
    nothing = client(*adjust, "--pool", "mcp", "--give-back", "1")
    wrong = client(*adjust, "--pool", "nosuch", "--take", "1")

    assert "prompts-5h 2.5 given back, prompts-week 2.5 given back" == back.out.splitlines()[0]
    assert "7.5 of 80" in back.out
    assert [{"limit_id": "prompts-week", "micro": 1_000_000}] == taken.data["moved"]
    assert 8_500_000 == taken.data["limits"][0]["used_micro"]
    assert (0, "mcp-month 0 given back") == (nothing.status, nothing.out.splitlines()[0])
    assert "pool: 'nosuch' is not allowed; allowed: one of prompts, mcp" in wrong.err


# ---- catalogs, clock, check ------------------------------------------------------------------------------------------


def test_catalogs_by_command(client: Command, tmp_path: Path) -> None:
    """load, list and check on a running server."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(CATALOG)
    bad.write_text(CATALOG.replace("limit: 2", "limit: 0"))
    loaded = client("catalogs", "load", str(good))
    refused = client("catalogs", "load", str(bad))

    assert re.fullmatch(r"lumen decides, version \S+\n", loaded.out)
    assert 1 == refused.status
    assert refused.out.startswith(f"{bad}:7: ")
    assert (0, 1) == (client("catalogs", "check", str(good)).status, client("catalogs", "check", str(bad)).status)
    assert re.search(r"^lumen \S+: plans basic; 0 accounts; loaded by command ", client("catalogs", "list").out, re.M)
    assert 4 == len(client("catalogs", "list", "--json").out.splitlines())


def test_the_clock_by_command(client: Command, running: Running) -> None:
    """show says what is not followed, accept adopts it."""
    running.time.set_wall(90)
    shown = client("clock", "show")
    as_json = client("clock", "show", "--json")
    accepted = client("clock", "accept")

    assert "server 2026-07-06 15:00:00 CST, wall clock 2026-07-06 15:01:30 CST, alarms 1" == shown.out.splitlines()[0]
    assert "the wall clock was set forward by 1m 30s; the server has not followed" == shown.out.splitlines()[1]
    assert 90_000 == as_json.data["step_ms"]
    assert "the server's clock went forward by 1m 30s\n" == accepted.out
    assert "there was no step to accept\n" == client("clock", "accept").out
    running.time.set_wall(-90)
    assert client("clock", "accept").err.startswith(
        "quotad: FAILED_PRECONDITION: the wall clock was set back by 90.0 s"
    )


def test_check_tells_good_from_bad(quotad: Command, tmp_path: Path) -> None:
    """catalogs, configuration and Envoy's domains alike; every problem with file and line; exit 1 if any."""
    domains, wrong = tmp_path / "d.yaml", tmp_path / "w.yaml"
    domains.write_text("# Envoy\ndomains: {quotad: {meter: prompt}}\n")
    wrong.write_text("domains:\n  quotad:\n    metre: prompt\n")
    catalog, settings, broken = tmp_path / "c.yaml", tmp_path / "s.yaml", tmp_path / "b.yaml"
    catalog.write_text(CATALOG.replace("limit: 2", "limit: 0"))
    settings.write_text("port: 1\nprot: 2\n")
    broken.write_text("catalog: [\n")
    good = quotad("check", str(domains), *map(str, sorted(SHIPPED.glob("*.yaml"))))
    bad = quotad("check", str(catalog), str(settings), str(broken), str(wrong), str(tmp_path / "absent.yaml"))

    assert 0 == good.status
    assert f"{SHIPPED / 'glm-2026.yaml'}: catalog glm-2026, plans lite, pro, max: good" in good.out.splitlines()
    assert f"{domains}: domains quotad: good" in good.out.splitlines()
    assert 1 == bad.status
    assert [f"{catalog}:7:", f"{settings}:2:", f"{broken}:2:", f"{wrong}:3:", f"{tmp_path / 'absent.yaml'}:"] == [
        line.split(" ")[0] for line in bad.out.splitlines()
    ]


# ---- help, settings, words -------------------------------------------------------------------------------------------


def test_help_and_version(quotad: Command) -> None:
    """every command explains itself, and exits 0."""
    assert Outcome(0, f"quotad {__version__}\n", "") == quotad("--version")
    commands = (
        "", "serve", "check", "admit", "peek", "settle", "renew", "usage", "accounts", "accounts put", "accounts adjust",
        "accounts import", "catalogs", "capacity", "clock", "audit", "backup", "restore", "dump", "load", "repair",
    )  # fmt: skip
    for command in commands:
        outcome = quotad(*command.split(), "--help")
        assert 0 == outcome.status
        assert outcome.out.startswith(f"usage: quotad {command}".rstrip())
    assert "exit status" in quotad("--help").out


def test_print_config(quotad: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """the settings in force, each with where it comes from, and nothing is started."""
    file = tmp_path / "quotad.yaml"
    file.write_text("demo: true\n")
    monkeypatch.setenv("QUOTAD_GRACE_MS", "7")
    outcome = quotad("serve", "--config", str(file), "--port", "0", "--print-config")

    assert 0 == outcome.status
    assert {f"demo: true  # {file}:1", "grace_ms: 7  # $QUOTAD_GRACE_MS", "port: 0  # --port"} <= set(
        outcome.out.splitlines()
    )


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0s"),
        (1, "1s"),
        (1000, "1s"),
        (17_998_000, "4h 59m 58s"),
        (17_999_001, "5h"),
        (86_399_000, "23h 59m 59s"),
        (86_400_000, "1d"),
        (86_400_001, "1d 1m"),
        (604_799_000, "7d"),
        (-5, "0s"),
    ],
)
def test_waits_in_words(ms: int, words: str) -> None:
    """rounded up, so that who waits as long as told is not told again."""
    assert words == show.duration(ms)


@pytest.mark.parametrize(
    ("micro", "words"), [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (80_000_000, "80"), (-2_500_000, "-2.5")]
)
def test_amounts_in_units(micro: int, words: str) -> None:
    """exact, without needless digits."""
    assert words == show.units(micro)


@pytest.mark.parametrize(
    ("text", "ms"), [("500ms", 500), ("90s", 90_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)]
)
def test_durations_are_read(text: str, ms: int) -> None:
    """a whole number and a unit."""
    assert ms == show.parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "m", "1.5h", "-5m", "5 m", "5d", "1h30m", "5M", "٥m"])
def test_what_is_no_duration(text: str) -> None:
    """refused, not guessed at."""
    with pytest.raises(ValueError, match="no duration"):
        show.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "micro"), [("5", 5_000_000), ("0.25", 250_000), ("0.000001", 1), ("1000000000000", 10**18)]
)
def test_amounts_are_read(text: str, micro: int) -> None:
    """exact."""
    assert micro == show.parse_units(text)


@pytest.mark.parametrize("text", ["", "-1", "1.", ".5", "0.0000001", "1e3", "1,5", "10000000000000000"])
def test_what_is_no_amount(text: str) -> None:
    """refused, not rounded."""
    with pytest.raises(ValueError, match="no amount"):
        show.parse_units(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1767294245123", 1_767_294_245_123),
        ("2026-01-01T19:04:05.123Z", 1_767_294_245_123),
        ("2026-01-02T03:04:05.123+08:00", 1_767_294_245_123),
        ("2026-01-01 19:04:05.123", 1_767_294_245_123),
        ("1970-01-01", 0),
    ],
)
def test_moments_are_read(text: str, ms: int) -> None:
    """milliseconds or ISO 8601, in UTC where no offset is given."""
    assert ms == show.parse_moment(text)


def test_a_reader_that_hangs_up_is_no_error(client: Command, running: Running) -> None:
    """`quotad accounts list | head` ends quietly."""
    for number in range(2000):
        running.server.engine.put_account(f"account-{number:0200}", plan="lite")
    command = f"{sys.executable} -m quota.cli accounts list | head -1"
    result = subprocess.run(["bash", "-c", command], env=dict(os.environ), capture_output=True, text=True, timeout=30)

    assert ("id,catalog,plan,subscribed_at,period,expires_at,overrides\n", "") == (result.stdout, result.stderr)


def test_time_is_what_the_server_says(hand_time: HandTime, client: Command) -> None:
    """waits in refusals do not depend on this machine's clock."""
    client(*ADMIT, "--draw", "prompt=80")
    hand_time.advance(3600)

    assert "retry in 4h (resets 2026-07-06 20:00:00 CST)" in client(*ADMIT).out
