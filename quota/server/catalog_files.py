"""The catalogs that come with the server: those shipped, and those in the files that the setting `catalogs` names.

A catalog whose file is gone stays in force until the next start: accounts are on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from quota.catalog import SHIPPED, Catalog, load
from quota.engine import Engine
from quota.errors import FailedPrecondition, InvalidArgument
from quota.server.reload import Put, stamps
from quota.settings import Settings

logger = logging.getLogger(__name__)


class CatalogFiles:
    """Reads them, and once there is an `engine` reads them again. Raises CatalogError and InvalidArgument."""

    what: Final = "catalogs"
    keys: Final = ("catalogs",)

    def __init__(self, settings: Settings) -> None:
        self._paths = settings.catalogs
        self.first_stamps = stamps(self.files())
        self._files = {name: file for name, (file, _) in _read(settings.catalogs).items()}
        self._owned = frozenset((*SHIPPED, *self._files))
        self._changing = threading.Lock()
        self._engine: Engine | None = None

    @property
    def names(self) -> frozenset[str]:
        """The catalogs that are shipped, or were in a file since the start."""
        return self._owned

    @property
    def sources(self) -> tuple[str | Path, ...]:
        """What an engine is to load at the start."""
        return (*(name for name in SHIPPED if name not in self._files), *self._files.values())

    def keep_in_force(self, engine: Engine) -> None:
        """Have what is read again decide in this engine."""
        self._engine = engine

    @contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """Let a catalog of that name come by call, and none by file meanwhile. Raises FailedPrecondition if one has."""
        with self._changing:
            if name in self._owned:
                raise FailedPrecondition(
                    f"catalog {name} is shipped or comes from a file of the server: give this one another name, "
                    "or put it into a file under --catalogs"
                )
            yield

    # ---- As a source of reload.Reloads ----

    def files(self) -> list[Path]:
        return [file for path in map(Path, self._paths) for file in _files_of(path)]

    def read(self, settings: Settings) -> Put:
        found = _read(settings.catalogs)

        def put() -> dict[str, object]:
            with self._changing:
                return self._put(found, settings.catalogs)

        return put

    def _put(self, found: dict[str, tuple[Path, Catalog]], paths: tuple[str, ...]) -> dict[str, object]:
        assert self._engine is not None
        in_force = {it.name: it.version.partition("@")[0] for it in self._engine.ledger.rules()}
        changed = [it for _, it in found.values() if in_force.get(it.name) != it.content_hash]
        loaded = self._engine.load_catalogs(changed)
        for gone in self._files.keys() - found.keys():
            logger.warning(
                "a catalog's file is gone, and it stays in force until the next start",
                extra={"catalog": gone, "file": str(self._files[gone])},
            )
        self._files = {name: file for name, (file, _) in found.items()}
        self._owned |= found.keys()
        self._paths = paths
        return {"files": len(found), "versions": [f"{it.name} {it.version}" for it in loaded]}


def _read(paths: Iterable[str]) -> dict[str, tuple[Path, Catalog]]:
    """Read every file that the setting `catalogs` stands for, by the name of its catalog."""
    found: dict[str, tuple[Path, Catalog]] = {}
    for path in map(Path, paths):
        files = _files_of(path)
        if not files:
            raise InvalidArgument("catalogs", str(path), "a directory with *.yaml files, or a file")
        for file in files:
            catalog = load(file)
            if catalog.name in found:
                raise InvalidArgument(
                    "catalogs", str(file), f"a catalog not named {catalog.name}, as {found[catalog.name][0]} is already"
                )
            found[catalog.name] = (file, catalog)
            for warning in catalog.warnings:
                logger.warning("%s", warning)
    return found


def _files_of(path: Path) -> list[Path]:
    """The file itself, or those in a directory that end in .yaml or .yml and are not hidden."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in (*path.glob("*.yaml"), *path.glob("*.yml")) if not file.name.startswith("."))
