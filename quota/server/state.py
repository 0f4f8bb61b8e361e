"""From what the store holds to an engine that goes on where the last process ended."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

from quota.clock import STEP_NS, Clock
from quota.engine import Engine
from quota.errors import CatalogError, StoreError
from quota.settings import Settings
from quota.store import Durability, Store
from quota.types import CatalogVersion

GAP_US_MAX: Final = 3_600_000_000

logger = logging.getLogger(__name__)


def open_store(settings: Settings, engine: Engine, clock: Clock, *, taken: Collection[str]) -> Store:
    """Open the store and put all it holds in force. `taken` are the catalogs that come from files.

    Raises StoreError, which says what to do: in use, damaged, of a newer format, or of a time yet to come.
    """
    store = Store.open(
        Path(settings.data),
        durability=Durability.parse(settings.durability),
        in_memory_max=settings.accounts_in_memory_max,
    )
    try:
        _load_catalogs(store, engine, taken)
        store.restore(engine.ledger)
        if store.kept.capacity_micro is not None:
            engine.ledger.set_capacity(store.kept.capacity_micro)
        _take_time(store, clock, accept_clock=settings.accept_clock)
    except BaseException:
        store.close()
        raise
    return store


def _load_catalogs(store: Store, engine: Engine, taken: Collection[str]) -> None:
    for catalog in store.kept.catalogs:
        if catalog.name in taken:
            logger.warning(
                "a catalog was loaded at run time once, and now comes from a file, which holds",
                extra={"catalog": catalog.name},
            )
            continue
        try:
            engine.load_catalog(catalog.yaml, loaded_at_us=catalog.loaded_at_us)
        except CatalogError as error:
            raise StoreError(
                f"{store.file}: catalog {catalog.name}, loaded at run time: {error}; "
                "a catalog of its name under --catalogs takes its place"
            ) from error


def _take_time(store: Store, clock: Clock, *, accept_clock: bool) -> None:
    """Go on from the time that the store has seen; refuse to go back, unless told otherwise."""
    kept_us = store.kept.time_us
    if not kept_us:
        return
    ahead_us = clock.now_us() - kept_us
    if ahead_us < -STEP_NS // 1000 and not accept_clock:
        raise StoreError(
            f"{store.file}: the wall clock is {-ahead_us / 1e6:.0f} s before the time that the store has seen: set it right, "
            "or start with --accept-clock (time then goes on from the kept one, until the wall clock has caught up)"
        )
    if ahead_us > GAP_US_MAX:
        logger.warning(
            "the store last saw a time long ago; if quotad ran since, the wall clock is wrong",
            extra={"hours": round(ahead_us / 3.6e9, 1)},
        )
    clock.go_on_from(kept_us)


def keep_catalogs(store: Store, engine: Engine) -> None:
    """Keep every catalog that is loaded from now on."""

    def keep(source: str | Path, loaded: CatalogVersion, loaded_at_us: int) -> None:
        store.put_catalog(loaded.name, str(source), loaded.version, loaded_at_us)

    engine.on_load = keep
