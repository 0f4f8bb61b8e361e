"""The engine: catalogs, accounts and decisions in one process. What the server serves, and a library in itself.

    from quota import Engine, Request

    engine = Engine(catalogs=["glm-2026", "path/to/own.yaml"])
    engine.put_account("ada", catalog="glm-2026", plan="lite")
    decision = engine.admit(Request("ada", model="glm-4.7", tool="claude-code"))

Every method that depends on time takes `now_ms` (Unix milliseconds); left out, the engine's clock is asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from quota._core import Gate, time_us
from quota.catalog import SHIPPED, Catalog, compile_catalog, load, parse
from quota.catalog.spec import CatalogSpec, PlanSpec
from quota.clock import Clock, TimeSource
from quota.errors import InvalidArgument, NotFound
from quota.ranges import check_adjustment, check_bounds, check_overrides, check_target, factor_micro, one_of
from quota.types import PERIODS, Account, Adjustment, Bounds, CatalogVersion, Usage, Verdict

ACCOUNTS_PAGE_MAX = 10_000
BOUNDS_DEFAULT = Bounds()


@dataclass(frozen=True, slots=True)
class CatalogInfo:
    """A catalog in force."""

    name: str
    version: str
    loaded_at_ms: int
    plans: tuple[str, ...]
    accounts: int


class Engine(Gate):
    """Decide, charge, and answer for what was charged.

    `catalogs` are shipped names or files; raises CatalogError if one is wrong. `catalog_default` is the catalog of accounts put
    without one, and words the refusal of unknown accounts; left out, it is the first one loaded. `bounds` are what one account may
    have open or remembered; raises InvalidArgument for one out of range.
    """

    def __init__(
        self,
        catalogs: Iterable[str | Path] = SHIPPED,
        *,
        clock: TimeSource | None = None,
        catalog_default: str | None = None,
        bounds: Bounds = BOUNDS_DEFAULT,
    ) -> None:
        super().__init__(clock or Clock(), os.urandom(16))
        check_bounds(bounds)
        self.ledger.bound(bounds)
        self._loaded_at_ms: dict[str, int] = {}
        self.on_load: Callable[[str | Path, CatalogVersion, int], None] | None = None
        """Told of source, version and load time in microseconds by `load_catalog`, before any account can be put on it."""
        self._changing = threading.Lock()  # one change of accounts or catalogs at a time; decisions do not take it
        for source in catalogs:
            self.load_catalog(source)
        if not self._loaded_at_ms:
            raise InvalidArgument("catalogs", (), "at least one catalog")
        self.catalog_default = next(iter(self._loaded_at_ms)) if catalog_default is None else catalog_default
        if self.catalog_default not in self._loaded_at_ms:
            raise InvalidArgument("catalog_default", catalog_default, one_of(self._loaded_at_ms))
        self.ledger.word_unknown_by(self.catalog_default)

    # ---- Usage and capacity; admit, admit_many, peek, settle and renew are the Gate's ----

    def usage(self, account: str, *, now_ms: int | None = None) -> Usage:
        """Return every limit of the account's plan as it stands, and what is in flight. Raises NotFound."""
        usage = self.ledger.usage(account, self.now_us(now_ms))
        if usage is None:
            raise no_account(account)
        return usage

    def adjust_usage(
        self,
        account: str,
        *,
        pool: str = "",
        limit_id: str = "",
        micro: int,
        reason: str,
        now_ms: int | None = None,
    ) -> Adjustment:
        """Take from an account (`micro` above 0, even past a limit) or give back (below 0, the latest use first).

        Moves every limit of a pool of its plan, or one limit. A bucket gives nothing back. Each call moves anew. `reason` is for
        whoever asks later; keeping it is the caller's. Raises InvalidArgument and NotFound.
        """
        check_adjustment(micro, reason)
        with self._changing:  # so that the plan looked at is the plan moved
            check_target(*self._plan_of(account), pool, limit_id, micro)
            adjustment = self.ledger.adjust(account, pool, limit_id, micro, self.now_us(now_ms))
        if adjustment is None:
            raise no_account(account)
        return adjustment

    def set_capacity(self, factor: int | float | str | Fraction | Decimal) -> None:
        """Leave all accounts only a part of their concurrency, from 0 to 1, taken as it is written: 0.1 is a tenth.

        At least 1 of each limit remains; holds that are open stay so. Raises InvalidArgument.
        """
        self.ledger.set_capacity(factor_micro(factor))

    @property
    def capacity_micro(self) -> int:
        """The capacity factor, in millionths."""
        return self.ledger.capacity_micro

    def decisions(self) -> list[tuple[str, str, str, str, str, int]]:
        """Return (catalog, plan, model, verdict, rule, count) of every kind of decision so far; Peek is not counted."""
        return [
            (catalog, plan, model, Verdict(verdict).name, rule, count)
            for catalog, plan, model, verdict, rule, count in self.ledger.decisions()
        ]

    def units(self) -> list[tuple[str, str, str, bool, int]]:
        """Return (catalog, plan, pool, whether given back, micro-units) of all charges and refunds so far.

        Charged are decisions, settlements and adjustments; the plan is the one that the account had then.
        """
        return self.ledger.units()

    def census(self, *, now_ms: int | None = None) -> tuple[int, int, int]:
        """Return how many holds are open, prompts can be joined, and request ids are remembered: looks at every account."""
        return self.ledger.census(self.now_us(now_ms))

    # ---- Accounts ----

    def put_account(
        self,
        id: str,
        *,
        catalog: str = "",
        plan: str,
        subscribed_at_ms: int = 0,
        period: str = "month",
        expires_at_ms: int = 0,
        overrides: Mapping[str, int] | None = None,
        now_ms: int | None = None,
    ) -> Account:
        """Add an account, or change one: the new plan holds at once, what was drawn stays drawn.

        `subscribed_at_ms` 0 means now for a new account and no change for an old one; `expires_at_ms` 0 means no end. `overrides`
        maps ids of limits, bursts and concurrency limits to whole units that hold in place of the plan's; 0 blocks. They replace
        those there were. Raises InvalidArgument.
        """
        with self._changing:
            self._put(id, catalog, plan, subscribed_at_ms, period, expires_at_ms, overrides, now_ms)
            return self.get_account(id)

    def _put(
        self,
        id: str,
        catalog: str,
        plan: str,
        subscribed_at_ms: int,
        period: str,
        expires_at_ms: int,
        overrides: Mapping[str, int] | None,
        now_ms: int | None,
    ) -> None:
        before = self.ledger.get(id)
        now_us = self.now_us(now_ms)
        name = catalog or self.catalog_default
        rules = {rules.name: rules for rules in self.ledger.rules()}
        if name not in rules:
            raise InvalidArgument("catalog", catalog, one_of(rules))
        plans = [it.name for it in rules[name].spec.plans]
        if plan not in plans:
            raise InvalidArgument("plan", plan, one_of(plans))
        if period not in PERIODS:
            raise InvalidArgument("period", period, one_of(PERIODS))
        own = dict(overrides or {})
        check_overrides(rules[name].spec, own)
        subscribed_at_us = before[3] if before and not subscribed_at_ms else now_us
        if subscribed_at_ms:
            subscribed_at_us = time_us(subscribed_at_ms, "subscribed_at_ms")
        expires_at_us = time_us(expires_at_ms, "expires_at_ms") if expires_at_ms else 0
        if expires_at_us and expires_at_us <= subscribed_at_us:
            raise InvalidArgument("expires_at_ms", expires_at_ms, "0 for no end, or a moment after the subscription's")
        self.ledger.put(
            id, name, plan, subscribed_at_us, PERIODS.index(period), expires_at_us, overrides=tuple(own.items())
        )

    def get_account(self, id: str) -> Account:
        """Return the account. Raises NotFound."""
        row = self.ledger.get(id)
        if row is None:
            raise no_account(id)
        return account_from(row)

    def list_accounts(self, page_size: int = 1000, page_token: str = "") -> tuple[list[Account], str]:
        """Return about `page_size` accounts, in no particular order, and the token of the next page; "" after the last one.

        Accounts added or deleted meanwhile may or may not be seen; all others are, once. Raises InvalidArgument.
        """
        if not 1 <= page_size <= ACCOUNTS_PAGE_MAX:
            raise InvalidArgument("page_size", page_size, f"1 to {ACCOUNTS_PAGE_MAX}")
        try:
            start = int(page_token or "0", 16)
        except ValueError:
            start = -1
        if not 0 <= start < 2**64:
            raise InvalidArgument("page_token", page_token, "a token from the page before, or empty")
        rows, following = self.ledger.page(start, page_size)
        return [account_from(row) for row in rows], "" if following is None else f"{following:x}"

    def delete_account(self, id: str, *, purge: bool = False, now_ms: int | None = None) -> None:
        """Delete an account. Raises NotFound.

        What it has drawn is found again if it is put before its longest window has ended; with `purge` it is forgotten at once.
        """
        with self._changing:
            if not self.ledger.delete(id, self.now_us(now_ms), purge):
                raise no_account(id)

    @property
    def accounts_count(self) -> int:
        return self.ledger.account_count

    def accounts_by_plan(self) -> dict[tuple[str, str], int]:
        """Return how many accounts each plan in force has, by (catalog, plan)."""
        counts = self.ledger.accounts_by_plan()
        return {
            (rules.name, plan.name): counts.get((rules.name, plan.name), 0)
            for rules in self.ledger.rules()
            for plan in rules.spec.plans
        }

    @property
    def clock_behind_count(self) -> int:
        """Decisions that came more than 5 s before the account's last admission: a clock went back somewhere."""
        return self.ledger.behind_count

    @property
    def replays_count(self) -> int:
        """Requests answered again by their id; they are no decisions."""
        return self.ledger.replay_count

    @property
    def forgotten_ids_count(self) -> int:
        """Request ids forgotten before their time, for want of room."""
        return self.ledger.forgotten_ids_count

    @property
    def forgotten_prompts_count(self) -> int:
        """Prompts forgotten before their time, for want of room."""
        return self.ledger.forgotten_prompts_count

    def _plan_of(self, account: str) -> tuple[CatalogSpec, PlanSpec]:
        row = self.ledger.get(account)
        if row is None:
            raise no_account(account)
        spec = next(rules.spec for rules in self.ledger.rules() if rules.name == row[1])
        return spec, next(plan for plan in spec.plans if plan.name == row[2])

    # ---- Catalogs ----

    def load_catalog(self, source: str | Path, *, loaded_at_us: int | None = None) -> CatalogVersion:
        """Put a catalog in force: a shipped name, a path, or YAML text (it has a line break). It replaces the one of its name.

        `loaded_at_us` is when it was first loaded; left out, that is now. It is part of the version.
        Raises CatalogError, or FailedPrecondition if accounts are on a plan that it lacks. The old one then goes on deciding.
        """
        catalog = read_catalog(source)
        if loaded_at_us is None:
            loaded_at_us = self.clock.now_us()
        version = _version(catalog, loaded_at_us)
        spec = compile_catalog(catalog)
        with self._changing:
            self.ledger.load(spec, version.version)
            if self.on_load is not None:
                self.on_load(source, version, loaded_at_us)
        self._loaded_at_ms[catalog.name] = loaded_at_us // 1000
        return version

    def load_catalogs(self, catalogs: Iterable[Catalog]) -> tuple[CatalogVersion, ...]:
        """Put several catalogs in force, all of them or none, each in place of the one of its name; their names differ.

        For those that come from files, and are read again at the next start: `on_load` is not told. Decisions go on meanwhile.
        Raises CatalogError, or FailedPrecondition if accounts are on a plan that one of them lacks.
        """
        now_us = self.clock.now_us()
        compiled = [(compile_catalog(catalog), _version(catalog, now_us)) for catalog in catalogs]
        with self._changing:
            self.ledger.load_all((spec, version.version) for spec, version in compiled)
        self._loaded_at_ms.update((spec.name, now_us // 1000) for spec, _ in compiled)
        return tuple(version for _, version in compiled)

    def catalogs(self) -> tuple[CatalogInfo, ...]:
        """Return the catalogs in force, in order of their first load."""
        accounts: dict[str, int] = {}
        for (name, _), count in self.ledger.accounts_by_plan().items():
            accounts[name] = accounts.get(name, 0) + count
        return tuple(
            CatalogInfo(
                rules.name,
                rules.version,
                self._loaded_at_ms[rules.name],
                tuple(plan.name for plan in rules.spec.plans),
                accounts.get(rules.name, 0),
            )
            for rules in self.ledger.rules()
        )


def read_catalog(source: str | Path) -> Catalog:
    """Text if it has a line break, else a shipped name or a path. Raises CatalogError."""
    return parse(source) if isinstance(source, str) and "\n" in source else load(source)


def _version(catalog: Catalog, loaded_at_us: int) -> CatalogVersion:
    loaded_at = datetime.fromtimestamp(loaded_at_us / 1_000_000, UTC)
    moment = f"{loaded_at:%Y-%m-%dT%H:%M:%S}.{loaded_at_us // 1000 % 1000:03d}Z"
    return CatalogVersion(catalog.name, f"{catalog.content_hash}@{moment}")


def account_from(row: tuple[str, str, str, int, int, int, tuple[tuple[str, int], ...]]) -> Account:
    id, catalog, plan, subscribed_at_us, period, expires_at_us, overrides = row
    return Account(id, catalog, plan, subscribed_at_us // 1000, PERIODS[period], expires_at_us // 1000, dict(overrides))


def no_account(id: str) -> NotFound:
    return NotFound(f"no account {id!r}")
