"""The HTTP port: /metrics for Prometheus, /healthz and /readyz for whoever restarts and routes.

Bounded in every direction: so many requests at once, so long each, and nothing is read but the head of a GET.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from quota.server.ports import cannot_listen
from quota.settings import Settings

REQUESTS_MAX: Final = 16
REQUEST_SECONDS_MAX: Final = 5.0
TEXT: Final = "text/plain; charset=utf-8"

logger = logging.getLogger(__name__)

READY: Final = "ready"
LOADING: Final = "loading"

Answer = tuple[int, str, bytes]
"""Status, content type, body."""


class HttpServer(ThreadingHTTPServer):
    """Serves GET and HEAD, before there is anything behind it too: what `registry` and `standing` say may change meanwhile."""

    daemon_threads = True
    allow_reuse_port = False
    request_queue_size = 64

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry = CollectorRegistry()
        """What is measured."""
        self.standing = LOADING
        """Why no calls are to be sent here; READY if they are."""
        self._slots = threading.BoundedSemaphore(REQUESTS_MAX)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        super().__init__((host, port), _Handler)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more, and give the port back."""
        self._closing.set()
        self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread at once, where shutdown() would wait for its poll
        self._thread.join()
        self.server_close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            self.handle_request()

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the address, which may take long and serves nothing here."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def answer(self, path: str, accept: str) -> Answer:
        """Return what a path answers."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            try:
                return 200, content_type, encode(self.registry)
            except Exception:
                logger.exception("metrics cannot be read")
                return 500, TEXT, b"metrics cannot be read; the log says why\n"
        if path == "/healthz":
            return 200, TEXT, b"ok\n"
        if path == "/readyz":
            return 200 if self.standing == READY else 503, TEXT, f"{self.standing}\n".encode()
        return 404, TEXT, b"not found; there are /metrics, /healthz and /readyz\n"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread of its own, or close it if too many are being served."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, and hang up on a client that dawdles."""
        deadline = threading.Timer(REQUEST_SECONDS_MAX, _hang_up, (request,))
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up or dawdles is no event."""


def open_http(settings: Settings) -> HttpServer:
    """Return the HTTP port, answering that the server is loading. Raises FailedPrecondition if it cannot be had."""
    host, port = settings.http_listen, settings.http_port
    try:
        server = HttpServer(host, port)
    except OSError as error:
        raise cannot_listen(host, port, "http_port", error) from error
    server.start()
    return server


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    server_version = "quotad"
    sys_version = ""

    def do_GET(self) -> None:
        self._send(body_wanted=True)

    def do_HEAD(self) -> None:
        self._send(body_wanted=False)

    def _send(self, *, body_wanted: bool) -> None:
        path = self.path.partition("?")[0]
        status, content_type, body = self.server.answer(path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body_wanted:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Probes and scrapes are not worth a line each."""
