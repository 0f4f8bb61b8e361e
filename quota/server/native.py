"""The native data port: `quota._core`'s front on its own threads, and the few threads of Python that it hands calls to.

A call comes here if the core cannot answer it alone: an error that has to be put into words, an account that has to be
fetched from the store, a compressed message, or a method that is Python's anyway. The handlers are those that grpcio serves.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from quota import _core
from quota._core import SERVED_METHODS, Front, Handed, Loop, Service
from quota.engine import Engine
from quota.server.channel import Channels
from quota.server.domains import Domains
from quota.server.ports import address_text, listening
from quota.server.rpc import Answering, Call
from quota.server.status import STATUS, details, status_number
from quota.server.tls import TlsFiles
from quota.server.tokens import Tokens, least_role
from quota.server.traces import UNTRACED, Traces
from quota.settings import Settings
from quota.store import Store

SERVED: Final = ("/quota.v1.QuotaService/", "/envoy.service.ratelimit.v3.RateLimitService/")
HEALTH_PATH: Final = "/grpc.health.v1.Health/Check"
HEALTH: Final = 7  # kinds of methods beside the core's own, as core/front.pxd numbers them
PYTHON: Final = 8
WARN_SECONDS: Final = 0.2  # from the first step of leaving to the second: a round trip, and some
UNKNOWN: Final = 2  # statuses of gRPC's that no error of ours has
NOT_FOUND: Final = 5
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13
GZIP_WBITS: Final = 16  # zlib's way to say gzip

logger = logging.getLogger(__name__)


class NativeFront:
    """Serves QuotaService and health on one port. `listen`, `start`, and `stop`.

    `answerings` maps full paths to the handlers in Python.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        answerings: Mapping[str, Answering],
        *,
        store: Store | None,
        tokens: Tokens,
        tls: TlsFiles | None = None,
        domains: Domains | None = None,
        traces: Traces = UNTRACED,
    ) -> None:
        self._settings = settings
        self._answerings = answerings
        service = Service(engine.ledger, settings.batch_items_max)
        if domains is not None:
            domains.tell(lambda told: service.set_domains(_core.Domains(told)))
        self._front = Front(
            [*map(_method, answerings), (HEALTH_PATH, HEALTH, 0)],
            settings,
            service=service,
            watermark=store.watermark if store else None,
        )
        self.loops = [Loop(self._front, engine.clock, settings) for _ in range(settings.front_threads)]
        self._health: Mapping[str, int] = {}
        key = secrets.token_bytes(16)
        tokens.tell(lambda roles: self._front.set_tokens(roles, key))
        self.certificates = Channels(tls) if tls else None
        """What TLS is spoken with, a source of reload.Reloads; None: nothing."""
        for loop in self.loops if tls else ():
            loop.secure(self.certificates)
        self._traces = traces
        self._traces_lost = 0
        for loop in self.loops if traces is not UNTRACED else ():
            loop.trace()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._helpers: list[threading.Thread] = []

    def listen(self, host: str, port: int, setting: str) -> str:
        """Take the port, and return the address. Raises FailedPrecondition."""
        self._sockets = listening(host, port, setting)
        for loop in self.loops:
            for taken in self._sockets:
                loop.listen(taken.fileno())
        return address_text(host, self._sockets[0].getsockname()[1])

    def start(self) -> None:
        """Answer from now on."""
        for index, loop in enumerate(self.loops):
            self._threads.append(threading.Thread(target=loop.run, name=f"front-{index}", daemon=True))
        for index in range(self._settings.rpc_threads):
            self._helpers.append(threading.Thread(target=self._help, name=f"handed-{index}", daemon=True))
        for thread in (*self._threads, *self._helpers):
            thread.start()

    def take(self, settings: Settings) -> None:
        """Go by these settings, as far as they may change while it runs."""
        self._settings = settings
        for loop in self.loops:
            loop.take_patience(settings)

    def set_health(self, statuses: Mapping[str, int]) -> None:
        """Say how services are: name to the number of grpc.health.v1."""
        self._health = statuses
        self._front.set_health(statuses)

    def stop(self) -> None:
        """Take no more, let those be answered that are on their way, and close. Takes `grace_ms` at most, and a little."""
        for taken in self._sockets:
            taken.shutdown(socket.SHUT_RDWR)  # closed when no loop knows their numbers any more
        for loop in self.loops:
            loop.warn()
        if self._threads:
            self._threads[0].join(min(WARN_SECONDS, self._settings.grace_ms / 1000))
        for loop in self.loops:
            loop.leave()
        for thread in self._threads:
            thread.join(self._settings.grace_ms / 1000 + 1)
        for loop in self.loops:
            loop.end()
        self._front.close()
        for thread in (*self._threads, *self._helpers):
            thread.join()
        for taken in self._sockets:
            taken.close()
        self._sockets = []

    def send_traces(self) -> None:
        """Send spans of the calls that were traced since the last time. To be called once a second, by one thread at a time."""
        for loop in self.loops:
            self._traces.native(loop.traced())
        lost = sum(loop.traces_lost_count for loop in self.loops)
        if lost > self._traces_lost:
            logger.warning("traced calls left out", extra={"count": lost - self._traces_lost})
            self._traces_lost = lost

    # ---- Figures, of all loops together ----

    def calls(self) -> Iterator[tuple[str, int, int]]:
        """Yield path, status and number of calls; the path is empty for those that are not served."""
        counts: Counter[tuple[str, int]] = Counter()
        for loop in self.loops:
            counts.update({(path, status): count for path, status, count in loop.calls()})
        return ((path, status, count) for (path, status), count in counts.items())

    def times(self) -> Iterator[tuple[str, list[int], int]]:
        """Yield path, calls by the time they took as front_metrics.RPC_SECONDS_BUCKETS divides it, and all their nanoseconds."""
        for rows in zip(*(loop.times() for loop in self.loops), strict=True):
            yield (
                rows[0][0],
                [sum(counts) for counts in zip(*(row[1] for row in rows), strict=True)],
                sum(row[2] for row in rows),
            )

    def decision_times(self) -> tuple[list[int], int]:
        """Return the decisions that were timed, as front_metrics.DECISION_SECONDS_BUCKETS divides them, and all their nanoseconds."""
        rows = [loop.decision_times() for loop in self.loops]
        return [sum(counts) for counts in zip(*(row[0] for row in rows), strict=True)], sum(row[1] for row in rows)

    def ended(self) -> Counter[str]:
        """Return how many connections were ended from here, by reason."""
        counts: Counter[str] = Counter()
        for loop in self.loops:
            counts.update(loop.ended())
        return counts

    def figures(self) -> dict[str, int]:
        """Return what happened so far, by name, and how many connections there may be."""
        counts: Counter[str] = Counter()
        for loop in self.loops:
            counts.update(loop.figures())
        return {
            **counts,
            "connections_max": len(self.loops) * self._settings.connections_max,
            "calls_handed": self._front.handed_count,
        }

    # ---- Calls in Python's hands ----

    def _help(self) -> None:
        while (handed := self._front.next()) is not None:
            self._answer(handed)

    def _answer(self, handed: Handed) -> None:
        try:
            message = _plain(handed, self._settings.message_bytes_max)
            answering = self._check_health if handed.path == HEALTH_PATH else self._answerings[handed.path]
            handed.answer(answering(message, handed))
        except _RefusedError as error:
            handed.fail(error.status, str(error))
        except tuple(STATUS) as error:
            handed.fail(status_number(error), details(error))
        except Exception as error:  # a bug: the caller is told, and the thread goes on
            logger.exception("%s", handed.path)
            handed.fail(UNKNOWN, f"Exception calling application: {error}")

    def _check_health(self, message: bytes, _: Call) -> bytes:
        """Answer what the core has left: a compressed request, one with unknown fields, a service that there is not."""
        try:
            service = health_pb2.HealthCheckRequest.FromString(message).service
        except DecodeError:
            raise _RefusedError(INTERNAL, "Exception deserializing request!") from None  # grpcio's words
        if service not in self._health:
            raise _RefusedError(NOT_FOUND, "")
        status = health_pb2.HealthCheckResponse.ServingStatus.ValueType(self._health[service])
        return health_pb2.HealthCheckResponse(status=status).SerializeToString()


def _method(path: str) -> tuple[str, int, int]:
    """The method as the core numbers it: path, kind, least role."""
    name = path.rpartition("/")[2]
    kind = SERVED_METHODS.index(name) if path.startswith(SERVED) else PYTHON
    return path, kind, least_role(path)


class _RefusedError(Exception):
    """What gRPC has a status for, and quotad has no error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _plain(handed: Handed, bytes_max: int) -> bytes:
    """The message, uncompressed, but no longer than a plain one may be."""
    if not handed.encoding:
        return handed.message
    if not handed.message:  # as grpcio sends and takes what is empty
        return b""
    inflating = zlib.decompressobj(wbits=zlib.MAX_WBITS + (GZIP_WBITS if handed.encoding == "gzip" else 0))
    try:
        message = inflating.decompress(handed.message, bytes_max + 1)
    except zlib.error as error:
        raise _RefusedError(INTERNAL, f"The message is not {handed.encoding}: {error}") from error
    if len(message) > bytes_max:
        raise _RefusedError(RESOURCE_EXHAUSTED, "The message is longer than message_bytes_max")
    if not inflating.eof or inflating.unused_data:
        fault = "there is more behind its end" if inflating.eof else "it ends too early"
        raise _RefusedError(INTERNAL, f"The message is not {handed.encoding}: {fault}")
    return message
