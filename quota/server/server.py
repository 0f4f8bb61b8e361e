"""The only place that wires: settings to engine and store, these to services, services to ports."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from quota.catalog import SHIPPED, load
from quota.clock import Clock
from quota.engine import Engine
from quota.envoy import rls_pb2
from quota.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from quota.server.admin_service import AdminService
from quota.server.domains import Domains
from quota.server.grpcio_front import GrpcioFront
from quota.server.http import HttpServer
from quota.server.metrics import RpcTimer, build_registry, commit_observer
from quota.server.native import NativeFront
from quota.server.ports import address_text, cannot_listen
from quota.server.quota_service import QuotaService
from quota.server.rate_limit_service import RateLimitService
from quota.server.rpc import answerings, service_handler
from quota.server.state import keep_catalogs, open_store
from quota.server.tls import tls_files
from quota.server.tokens import Tokens
from quota.settings import Settings
from quota.store import Store, StoreFailed
from quota.types import Bounds
from quota.v1 import admin_pb2, quota_pb2
from quota.yaml_file import YamlFileError

QUOTA_SERVICE: Final = quota_pb2.DESCRIPTOR.services_by_name["QuotaService"]
RATE_LIMIT_SERVICE: Final = rls_pb2.DESCRIPTOR.services_by_name["RateLimitService"]
ADMIN_SERVICE: Final = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
SERVICES: Final = (QUOTA_SERVICE.full_name, RATE_LIMIT_SERVICE.full_name, ADMIN_SERVICE.full_name)
DEMO_CATALOG: Final = "glm-2026"
DEMO_PLANS: Final = ("lite", "pro", "max")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens, each as HOST:PORT."""

    data: str
    control: str
    http: str


class Server:
    """One engine on three ports. Make it, `start` it, and `stop` it; a test gives its own clock."""

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        """Load catalogs and store. `on_failure` is called if the store fails later: the process is then to be stopped.

        Raises CatalogError, InvalidArgument for settings that do not go together, FailedPrecondition for files of tokens or TLS
        that cannot be used, and StoreError.
        """
        self._settings = settings
        self._on_failure = on_failure
        self._clock = clock or Clock()
        self._tokens = Tokens(Path(settings.tokens)) if settings.tokens else None
        self.domains = _domains(settings)
        data_tls, control_tls = tls_files(settings), tls_files(settings, "admin_")
        files = _catalog_files(settings.catalogs)
        shipped = tuple(name for name in SHIPPED if name not in files)
        self.engine = _build_engine(settings, (*shipped, *files.values()), self._clock, (*shipped, *files))
        self._ready = threading.Event()
        self._store = self._open_store((*shipped, *files))
        self._registry = build_registry(self.engine, self._clock, self._store)
        timer = RpcTimer(self._registry)
        quota_service = QuotaService(self.engine, batch_items_max=settings.batch_items_max, store=self._store)
        admin_service = AdminService(
            self.engine,
            self._clock,
            file_catalogs=frozenset((*shipped, *files)),
            page_accounts_max=settings.page_accounts_max,
            store=self._store,
        )
        rate_limit_service = RateLimitService(self.engine, store=self._store)
        self.domains.tell(rate_limit_service.set_domains)
        services = {QUOTA_SERVICE: quota_service.methods(), RATE_LIMIT_SERVICE: rate_limit_service.methods()}
        self._data: NativeFront | GrpcioFront
        if settings.front == "native":
            self._data = NativeFront(
                settings,
                self.engine,
                {path: it for service in services.items() for path, it in answerings(*service).items()},
                store=self._store,
                tokens=self._tokens,
                tls=data_tls,
                domains=self.domains,
            )
            timer.observe_native(self._data)
        else:
            handlers = [service_handler(*service, timer) for service in services.items()]
            self._data = GrpcioFront(settings, handlers, tokens=self._tokens, tls=data_tls)
        names = (QUOTA_SERVICE.full_name, ADMIN_SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        control = service_handler(ADMIN_SERVICE, admin_service.methods(), timer)
        self._control = GrpcioFront(settings, [control], reflected=names, tokens=self._tokens, tls=control_tls)
        self._set_health(serving=False)
        self._http: HttpServer | None = None
        if self._store is not None:
            self._start_store(self._store)
        if settings.demo:
            add_demo_accounts(self.engine)
            self._keep_demo_accounts()

    def start(self) -> Addresses:
        """Listen and answer. Raises FailedPrecondition, naming address and settings, if a port cannot be had."""
        settings = self._settings
        try:
            data = self._data.listen(settings.listen, settings.port, "port")
            control = self._control.listen(settings.admin_listen, settings.admin_port, "admin_port")
            self._http = self._build_http()
        except FailedPrecondition:
            self._data.stop()
            self._control.stop()
            raise
        if self._tokens is not None:
            self._tokens.watch()
        self._data.start()
        self._control.start()
        self._http.start()
        self._set_health(serving=True)
        self._ready.set()
        return Addresses(data, control, address_text(settings.http_listen, self._http.server_port))

    def stop(self) -> None:
        """Say that nothing more is served, let running calls end within `grace_ms`, close the ports and the store.

        Raises StoreFailed if the store has failed, or fails now.
        """
        self._ready.clear()
        self._set_health(serving=False)
        stopping = [threading.Thread(target=front.stop) for front in (self._data, self._control)]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if self._tokens is not None:
            self._tokens.close()
        if self._http is not None:
            self._http.close()
            self._http = None
        if self._store is not None:
            store, self._store = self._store, None
            store.close()

    def _open_store(self, catalogs: Collection[str]) -> Store | None:
        settings = self._settings
        if not settings.ephemeral:
            return open_store(settings, self.engine, self._clock, taken=catalogs)
        if settings.accounts_in_memory_max:
            raise InvalidArgument("accounts_in_memory_max", settings.accounts_in_memory_max, "0 where no store is kept")
        return None

    def _start_store(self, store: Store) -> None:
        keep_catalogs(store, self.engine)
        store.start(
            self.engine.ledger,
            self._clock.now_us,
            on_failure=self._fail,
            observe_commit=commit_observer(self._registry),
        )

    def _keep_demo_accounts(self) -> None:
        if self._store is not None:
            try:
                self._store.wait_all()
            except Unavailable as error:  # nobody calls yet: it is the start that fails
                raise StoreFailed(str(error)) from error

    def _fail(self, reason: str) -> None:
        """The store has failed: say first that nothing is served here, so that calls go elsewhere."""
        self._ready.clear()
        self._set_health(serving=False)
        logger.critical("%s", reason)
        self._on_failure()

    def _build_http(self) -> HttpServer:
        host, port = self._settings.http_listen, self._settings.http_port
        try:
            return HttpServer(host, port, registry=self._registry, ready=self._ready.is_set)
        except OSError as error:
            raise cannot_listen(host, port, "http_port", error) from error

    def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        statuses = dict.fromkeys(("", *SERVICES), int(status))
        self._data.set_health(statuses)
        self._control.set_health(statuses)


def run(build: Callable[[Callable[[], None]], Server], started: Callable[[Addresses], None]) -> None:
    """Build a server, start it, report where, and stop it at SIGINT or SIGTERM. For the main thread of a process.

    `build` is given what stops the process from within, if the store fails. StoreFailed is then raised.

    The signals are blocked before there is any other thread, so that all of them inherit it and none is lost. A second
    signal, while the server is stopping, ends the process at once.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        server = build(lambda: os.kill(os.getpid(), signal.SIGTERM))
        started(server.start())
        received = signal.sigwait(signals)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    logger.info("%s: stopping", signal.Signals(received).name)
    server.stop()


def _catalog_files(paths: Iterable[str]) -> dict[str, Path]:
    """Return the files that the setting `catalogs` stands for, by the name of their catalog."""
    files: dict[str, Path] = {}
    for path in map(Path, paths):
        found = sorted((*path.glob("*.yaml"), *path.glob("*.yml"))) if path.is_dir() else [path]
        if not found:
            raise InvalidArgument("catalogs", str(path), "a directory with *.yaml files, or a file")
        for file in found:
            catalog = load(file)
            if catalog.name in files:
                raise InvalidArgument(
                    "catalogs", str(file), f"a catalog not named {catalog.name}, as {files[catalog.name]} is already"
                )
            files[catalog.name] = file
            for warning in catalog.warnings:
                logger.warning("%s", warning)
    return files


def _domains(settings: Settings) -> Domains:
    try:
        return Domains(Path(settings.envoy_domains) if settings.envoy_domains else None)
    except YamlFileError as error:
        raise FailedPrecondition(f"setting envoy_domains: {error}") from error


def _build_engine(settings: Settings, sources: Iterable[str | Path], clock: Clock, names: Iterable[str]) -> Engine:
    if settings.catalog_default not in names:
        raise InvalidArgument("catalog_default", settings.catalog_default, ", ".join(sorted(names)))
    bounds = Bounds(
        hold_ms_max=settings.hold_ms_max,
        holds_max=settings.holds_max,
        request_ids_max=settings.request_ids_max,
        prompts_max=settings.prompts_max,
    )
    return Engine(sources, clock=clock, catalog_default=settings.catalog_default, bounds=bounds)


def add_demo_accounts(engine: Engine) -> None:
    """Add an account for each plan of the demo's catalog, and leave those that exist as they are."""
    for plan in DEMO_PLANS:
        try:
            engine.get_account(f"demo-{plan}")
        except NotFound:
            engine.put_account(f"demo-{plan}", catalog=DEMO_CATALOG, plan=plan)
