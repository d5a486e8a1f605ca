"""An address service over HTTP: real US zip codes, and the bad days of a real service. Knows nothing of contacts.

`POST /zip-codes` takes `{"addresses": [[street, city, state], …]}` and answers `{"zip_codes": [code or null, …]}`.
Every sixth call is answered 503. Every fifteenth hangs, and in the nastier way: it sends a blank now and then, so that
no read times out. `GET /calls` tells how many calls ended how.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen
from zlib import crc32

import zipcodes

HANG = 60.0


def real_places() -> list[dict[str, str]]:
    """Every zip code of the United States that has streets, with its city and state."""
    places: list[dict[str, str]] = zipcodes.filter_by(zip_code_type="STANDARD")  # type: ignore[no-untyped-call]
    return places


class AddressService(ThreadingHTTPServer):
    """Which fate a call has depends on how many were made before it, and on nothing else."""

    daemon_threads = True

    def __init__(self, port: int = 0, *, latency: float = 0.1, busy_every: int = 6, hang_every: int = 15) -> None:
        super().__init__(("127.0.0.1", port), Call)
        self.latency = latency
        self.busy_every, self.hang_every = busy_every, hang_every
        self.calls: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.zip_codes: dict[tuple[str, str], list[str]] = defaultdict(list)
        for place in real_places():
            self.zip_codes[place["city"].lower(), place["state"]].append(place["zip_code"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fate(self) -> str:
        with self.lock:
            number = self.calls.total() + 1
            if self.hang_every and number % self.hang_every == 0:
                fate = "hung"
            elif self.busy_every and number % self.busy_every == 0:
                fate = "busy"
            else:
                fate = "answered"
            self.calls[fate] += 1
            return fate

    def look_up(self, street: str, city: str, state: str) -> str | None:
        """The zip code; in a place that has several, the data set knows no streets, so the street's hash decides."""
        codes = self.zip_codes.get((city.strip().lower(), state.strip().upper()))
        return codes[crc32(street.encode()) % len(codes)] if codes else None


class Call(BaseHTTPRequestHandler):
    @property
    def service(self) -> AddressService:
        assert isinstance(self.server, AddressService)
        return self.server

    def do_GET(self) -> None:
        if self.path == "/calls":
            self._reply(200, dict(self.service.calls))
        else:
            self._reply(404, {"error": "there are GET /calls and POST /zip-codes"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.service.next_fate()
        time.sleep(self.service.latency)
        if fate == "hung":
            self._hang()
        elif fate == "busy":
            self._reply(503, {"error": "too busy"})
        else:
            try:
                addresses = json.loads(body)["addresses"]
                self._reply(200, {"zip_codes": [self.service.look_up(*address) for address in addresses]})
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._reply(400, {"error": str(error)})

    def _reply(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang(self) -> None:
        self.send_response(200)
        self.end_headers()
        until = time.monotonic() + HANG
        with suppress(OSError):  # the caller hangs up, which is what it should do
            while time.monotonic() < until:
                self.wfile.write(b" ")
                time.sleep(0.5)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: `GET /calls` has the sums."""


@contextmanager
def address_service(port: int = 0) -> Iterator[str]:
    """The service in a process of its own; its URL."""
    command = [sys.executable, "-m", "workers.demo.address_service", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the address service did not start; is port {port} taken?")
            yield url
        finally:
            process.stdin.close()  # it ends when its standard input does: so it also ends when we are killed
            process.wait()


def read_calls(url: str) -> dict[str, int]:
    with urlopen(f"{url}/calls", timeout=5) as response:
        calls: dict[str, int] = json.load(response)
        return calls


def main() -> None:
    service = AddressService(int(sys.argv[1]))
    threading.Thread(target=service.serve_forever, daemon=True).start()
    print(service.url, flush=True)
    with suppress(KeyboardInterrupt):
        sys.stdin.read()


if __name__ == "__main__":
    main()
