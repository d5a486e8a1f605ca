"""The numbers as text, once or over HTTP: `/metrics`, and `/healthz` for whoever wants to know that the process lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socket import AF_INET6
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app

from flowlib.errors import ConfigError
from flowlib.store import Store

from .collector import Collector

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST, PORT = "127.0.0.1", 9464


def render(store: Store) -> bytes:
    """All metrics, in Prometheus' text format.

    >>> print(render(app.store).decode())
    """
    collector = Collector(store)
    try:
        return generate_latest(_registry(collector))
    finally:
        collector.close()


def serve(
    store: Store, host: str = HOST, port: int = PORT, *, also: CollectorRegistry | None = None
) -> Callable[[], None]:
    """Serve them from a daemon thread until the function that is returned is called.

    `also` are metrics of this very process, such as those that user code counts into prometheus_client's own REGISTRY.
    Raises ConfigError when nobody can listen there.

    >>> stop = serve(app.store, "0.0.0.0", 9464)
    """
    collector = Collector(store)
    registry = _registry(collector)
    if also is not None:
        registry.register(also)
    family = _Server6 if ":" in host else _Server
    try:
        server = make_server(host, port, _site(make_wsgi_app(registry)), family, _Handler)
    except (OSError, OverflowError) as error:
        collector.close()
        raise ConfigError(f"metrics cannot be served on {host}:{port}: {error}: choose another --port") from None
    thread = threading.Thread(target=server.serve_forever, name="flow-metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()
        collector.close()

    return stop


def _registry(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def _site(metrics: WSGIApplication) -> WSGIApplication:
    def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start_response)
            case "/healthz":
                status, text = "200 OK", b"ok\n"
            case _:
                status, text = "404 Not Found", b"there is /metrics, and /healthz\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text]

    return site


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds for a client that says nothing

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""
