"""The only place that wires: settings to engine and store, these to services, services to ports."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from quota.clock import Clock
from quota.engine import Engine
from quota.envoy import rls_pb2
from quota.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from quota.server.admin_service import AdminService
from quota.server.catalog_files import CatalogFiles
from quota.server.config_file import ConfigFile
from quota.server.domains import Domains
from quota.server.front_metrics import RpcTimer
from quota.server.grpcio_front import GrpcioFront
from quota.server.http import READY, HttpServer, open_http
from quota.server.metrics import build_registry, commit_observer
from quota.server.native import NativeFront
from quota.server.ports import address_text
from quota.server.quota_service import QuotaService
from quota.server.rate_limit_service import RateLimitService
from quota.server.refusal_log import RefusalLog
from quota.server.reload import Reloads, Source
from quota.server.rounds import Rounds
from quota.server.rpc import answerings, service_handler
from quota.server.state import keep_catalogs, open_store
from quota.server.tls import tls_files
from quota.server.tokens import Tokens
from quota.server.traces import open_traces
from quota.settings import Settings
from quota.store import Store, StoreFailed
from quota.types import Bounds
from quota.v1 import admin_pb2, quota_pb2
from quota.version import VERSION

QUOTA_SERVICE: Final = quota_pb2.DESCRIPTOR.services_by_name["QuotaService"]
RATE_LIMIT_SERVICE: Final = rls_pb2.DESCRIPTOR.services_by_name["RateLimitService"]
ADMIN_SERVICE: Final = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
SERVICES: Final = (QUOTA_SERVICE, RATE_LIMIT_SERVICE, ADMIN_SERVICE)
DEMO_CATALOG: Final = "glm-2026"
DEMO_PLANS: Final = ("lite", "pro", "max")
DRAINING: Final = "draining"

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
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        http: HttpServer | None = None,
        config_file: ConfigFile | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Load catalogs and store. `on_failure` is called if the store fails later: the process is then to be stopped.

        `http` answers already that the server is loading; without it there is no HTTP port before the start. `config_file` is
        where `settings` came from and may change.
        Raises CatalogError, InvalidArgument for settings that do not go together, FailedPrecondition for files of tokens or TLS
        that cannot be used, and StoreError.
        """
        self._settings = settings
        self._on_failure = on_failure
        self._began = time.monotonic()
        self._http = http
        self._standing = ""
        self._clock = clock or Clock()
        self._traces = open_traces(wanted=settings.traces)
        tokens = Tokens(Path(settings.tokens) if settings.tokens else None)
        self.domains = Domains(settings)
        data_tls, control_tls = tls_files(settings), tls_files(settings, "admin_")
        catalogs = CatalogFiles(settings)
        self.engine = _build_engine(settings, catalogs, self._clock)
        catalogs.keep_in_force(self.engine)
        self._store = self._open_store(catalogs.names)
        self._registry = build_registry(self.engine, self._clock, self._store)
        timer = RpcTimer(self._registry)
        quota_service = QuotaService(
            self.engine, batch_items_max=settings.batch_items_max, store=self._store, traces=self._traces
        )
        self._admin_service = AdminService(
            self.engine,
            self._clock,
            catalog_files=catalogs,
            page_accounts_max=settings.page_accounts_max,
            store=self._store,
            traces=self._traces,
        )
        rate_limit_service = RateLimitService(self.engine, store=self._store, traces=self._traces)
        self.domains.tell(rate_limit_service.set_domains)
        services = {QUOTA_SERVICE: quota_service.methods(), RATE_LIMIT_SERVICE: rate_limit_service.methods()}
        self._data: NativeFront | GrpcioFront
        if settings.front == "native":
            self._data = NativeFront(
                settings,
                self.engine,
                {path: it for service in services.items() for path, it in answerings(*service).items()},
                store=self._store,
                tokens=tokens,
                tls=data_tls,
                domains=self.domains,
                traces=self._traces,
            )
            timer.observe_native(self._data)
        else:
            handlers = [service_handler(*service, timer, self._traces) for service in services.items()]
            self._data = GrpcioFront(settings, handlers, tokens=tokens, tls=data_tls)
        names = (QUOTA_SERVICE.full_name, ADMIN_SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        control = service_handler(ADMIN_SERVICE, self._admin_service.methods(), timer, self._traces)
        self._control = GrpcioFront(settings, [control], reflected=names, tokens=tokens, tls=control_tls)
        self._set_health(serving=False)
        refusals = RefusalLog(self.engine, self._in_force)
        reloads = self._watch(config_file, (catalogs, tokens, self.domains))
        self._rounds = Rounds((reloads, refusals.look, self._data.send_traces))
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
            self._http = self._http or open_http(settings)
        except FailedPrecondition:
            self._data.stop()
            self._control.stop()
            raise
        self._http.registry = self._registry
        self._data.start()
        self._control.start()
        self._rounds.start()
        self._stand(READY)
        addresses = Addresses(data, control, address_text(settings.http_listen, self._http.server_port))
        self._log_start(addresses)
        return addresses

    def reload(self) -> None:
        """Read all files again, soon; what is bad changes nothing, and the log tells."""
        self.reloads.ask()
        self._rounds.hurry()

    def stop(self) -> None:
        """Say that nothing more is served, let running calls end within `grace_ms`, close the ports and the store.

        Raises StoreFailed if the store has failed, or fails now.
        """
        if self._standing == READY:
            self._stand(DRAINING)
        stopping = [threading.Thread(target=front.stop) for front in (self._data, self._control)]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._rounds.close()
        self._data.send_traces()
        self._traces.close()
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
        self._stand(reason)
        logger.critical("store failed", extra={"reason": reason})
        self._on_failure()

    def _stand(self, standing: str) -> None:
        """Tell everybody who asks: READY, or why no calls are to be sent here."""
        self._standing = standing
        if self._http is not None:
            self._http.standing = standing
        self._set_health(serving=standing == READY)

    # ---- What may change while it runs ----

    def _watch(self, config_file: ConfigFile | None, files: tuple[Source, ...]) -> Callable[[], None]:
        certificates = (self._data.certificates, self._control.certificates)
        sources: list[Source] = [*files, *(it for it in certificates if it is not None)]
        if config_file is not None:
            config_file.lead(tuple(sources), self._take)
            sources.insert(0, config_file)
        self.reloads = Reloads(sources, self._in_force, traces=self._traces)
        self._registry.register(self.reloads)
        return self.reloads.look

    def _in_force(self) -> Settings:
        return self._settings

    def _take(self, settings: Settings) -> None:
        self._settings = settings
        self.engine.ledger.bound(_bounds(settings))
        self._admin_service.page_accounts_max = settings.page_accounts_max
        self._data.take(settings)
        self._control.take(settings)

    def _log_start(self, addresses: Addresses) -> None:
        fields = {
            "version": VERSION,
            **dataclasses.asdict(addresses),
            "catalogs": [f"{it.name} {it.version}" for it in self.engine.catalogs()],
            "accounts": self.engine.accounts_count,
            "store": str(self._store.directory) if self._store else "none",
            "durability": str(self._store.durability) if self._store else "none",
            "seconds": round(time.monotonic() - self._began, 3),
        }
        logger.info("serving", extra=fields)

    def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        statuses = dict.fromkeys(("", *(it.full_name for it in SERVICES)), int(status))
        self._data.set_health(statuses)
        self._control.set_health(statuses)


def run(build: Callable[[Callable[[], None]], Server], started: Callable[[Addresses], None]) -> None:
    """Build a server, start it, report where, and stop it at SIGINT or SIGTERM. For the main thread of a process.

    At SIGHUP the server reads its files again.

    `build` is given what stops the process from within, if the store fails. StoreFailed is then raised.

    The signals are blocked before there is any other thread, so that all of them inherit it and none is lost. A second
    signal, while the server is stopping, ends the process at once.
    """
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        server = build(lambda: os.kill(os.getpid(), signal.SIGTERM))
        started(server.start())
        while (received := signal.sigwait(signals)) == signal.SIGHUP:
            server.reload()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    logger.info("stopping", extra={"signal": signal.Signals(received).name})
    server.stop()
    logger.info("stopped")


def _build_engine(settings: Settings, catalogs: CatalogFiles, clock: Clock) -> Engine:
    if settings.catalog_default not in catalogs.names:
        raise InvalidArgument("catalog_default", settings.catalog_default, ", ".join(sorted(catalogs.names)))
    return Engine(catalogs.sources, clock=clock, catalog_default=settings.catalog_default, bounds=_bounds(settings))


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        hold_ms_max=settings.hold_ms_max,
        holds_max=settings.holds_max,
        request_ids_max=settings.request_ids_max,
        prompts_max=settings.prompts_max,
    )


def add_demo_accounts(engine: Engine) -> None:
    """Add an account for each plan of the demo's catalog, and leave those that exist as they are."""
    for plan in DEMO_PLANS:
        try:
            engine.get_account(f"demo-{plan}")
        except NotFound:
            engine.put_account(f"demo-{plan}", catalog=DEMO_CATALOG, plan=plan)
