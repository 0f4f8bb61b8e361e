"""Reloading: files are read again when they change, and at SIGHUP; what is bad never takes the place of what is good.

Files are looked at by their names, once a second, rather than watched with inotify: a volume of Kubernetes changes by the
renaming of a link that they lie behind, and a network file system tells of nothing; a look sees both, and costs a few stat().
A change is read once it has stood still from one look to the next, so that nothing half written, and no certificate without
its new key, is taken for a mistake.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quota.errors import CatalogError, QuotaError
from quota.server.traces import UNTRACED, Traces
from quota.settings import Settings, SettingsError

PROBLEMS_MAX: Final = 20  # of one refused reading that are logged, a line each

Stamp = tuple[int, int, int] | None
"""None: the file cannot be seen."""
Put = Callable[[], dict[str, object]]
"""Puts what was read in force; returns the fields of the line that the log gets."""

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Something in force that came from files."""

    @property
    def what(self) -> str:
        """Its name in metrics and logs."""
        ...

    @property
    def first_stamps(self) -> list[Stamp]:
        """Stamps of its files, taken before they were first read."""
        ...

    @property
    def keys(self) -> Collection[str]:
        """The settings that name its files and may change while it is in force."""
        ...

    def files(self) -> Iterable[Path | None]:
        """Return the files that it came from; None stands for none."""
        ...

    def read(self, settings: Settings) -> Put:
        """Read the files that these settings name, and change nothing. Raises QuotaError, as may what is returned."""
        ...


@dataclass(slots=True)
class _Watched:
    source: Source
    seen: list[Stamp]
    moving: list[Stamp] | None = None  # stamps that were new at the last look
    counts: dict[str, int] = field(default_factory=lambda: {"ok": 0, "refused": 0})
    last_ok: bool = True


class Reloads(Collector):
    """Reads sources again. `look` once a second, from one thread; `ask` from any. `settings` returns those in force."""

    def __init__(
        self, sources: Sequence[Source], settings: Callable[[], Settings], *, traces: Traces = UNTRACED
    ) -> None:
        self._settings = settings
        self._traces = traces
        self._watched = [_Watched(source, source.first_stamps) for source in sources]
        self._asked = threading.Event()

    def ask(self) -> None:
        """Have everything read at the next look, whether it has changed or not."""
        self._asked.set()

    def look(self) -> None:
        """Read what has changed and stands still, or everything if asked to."""
        asked = self._asked.is_set()
        self._asked.clear()
        for watched in self._watched:
            found = stamps(watched.source.files())
            if asked or found == watched.moving:
                watched.seen, watched.moving = found, None
                with self._traces.work(f"reload {watched.source.what}"):
                    self._read(watched)
            else:
                watched.moving = None if found == watched.seen else found

    def collect(self) -> Iterator[Metric]:
        reloads = CounterMetricFamily(
            "quotad_reloads", "Times that files were read again, by what they are and how it went: ok, refused.",
            labels=["what", "result"],
        )  # fmt: skip
        last_ok = GaugeMetricFamily(
            "quotad_reload_last_ok", "While the files, as last read, are bad and what was read before goes on 0, else 1.",
            labels=["what"],
        )  # fmt: skip
        for watched in self._watched:
            for result, count in watched.counts.items():
                reloads.add_metric([watched.source.what, result], count)
            last_ok.add_metric([watched.source.what], watched.last_ok)
        yield reloads
        yield last_ok

    def _read(self, watched: _Watched) -> None:
        what = watched.source.what
        try:
            fields = watched.source.read(self._settings())()
        except QuotaError as error:
            watched.last_ok = False
            for problem in _problems(error)[:PROBLEMS_MAX]:
                logger.error("reload refused, what was read before stays", extra={"what": what, "problem": problem})
        else:
            watched.last_ok = True
            logger.info("reloaded", extra={"what": what, **fields})
        watched.counts["ok" if watched.last_ok else "refused"] += 1


def stamps(files: Iterable[Path | None]) -> list[Stamp]:
    """Return a stamp for each file; another one once it was written or replaced."""
    return [_stamp(file) for file in files if file is not None]


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _problems(error: QuotaError) -> list[str]:
    return error.problems if isinstance(error, CatalogError | SettingsError) else [str(error)]
