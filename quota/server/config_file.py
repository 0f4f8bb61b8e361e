"""The configuration file while the server runs: what may change in it does, what may not is told and stays as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from quota.server.reload import Put, Source, stamps
from quota.settings import SETTINGS, Configuration, Settings


class ConfigFile:
    """`load` puts flags, environment and file together anew; `taken` is told what is then in force, as the server is.

    To be made before the file is read for the first time.
    """

    what: Final = "settings"
    keys: Final = ()

    def __init__(
        self, file: Path, load: Callable[[], Configuration], taken: Callable[[Settings], None] = lambda settings: None
    ) -> None:
        self._file = file
        self._load = load
        self._taken = taken
        self.first_stamps = stamps([file])
        self._sources: Sequence[Source] = ()
        self._apply: Callable[[Settings], None] = lambda settings: None

    def lead(self, sources: Sequence[Source], apply: Callable[[Settings], None]) -> None:
        """Have these read what other settings name, and `apply` told of the settings that are then in force."""
        self._sources, self._apply = sources, apply

    # ---- As a source of reload.Reloads ----

    def files(self) -> list[Path]:
        return [self._file]

    def read(self, settings: Settings) -> Put:
        """Read the file, and all that it names anew. One that is bad, or names what is bad, changes nothing at all."""
        read = self._load().settings
        changed = [it for it in SETTINGS if getattr(read, it.key) != getattr(settings, it.key)]
        live = [it.key for it in changed if it.live]
        restart = [it.key for it in changed if not it.live]
        chosen = dataclasses.replace(settings, **{key: getattr(read, key) for key in live})
        puts = [source.read(chosen) for source in self._sources if not set(live).isdisjoint(source.keys)]

        def put() -> dict[str, object]:
            for it in puts:  # the catalogs' is the first, and the only one that may still say no
                it()
            self._apply(chosen)
            self._taken(chosen)
            return {"file": str(self._file), "changed": live, "needs_restart": restart}

        return put
