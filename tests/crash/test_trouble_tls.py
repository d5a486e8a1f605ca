"""Redis behind TLS, with certificates made on the fly: workers, producers and the command line, and what is refused.

The server's end of TLS is the proxy's: the bundled server has none, and it is our end that is tested.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from click.testing import CliRunner

from flowlib import ServerError
from flowlib.cli import main
from flowlib.metrics import render
from flowlib.server import Server
from flowlib.store import Store
from tests import access

from .proxy import Proxy
from .troubled import Fleet


class Guarded:
    """A server that shows a certificate of its own authority, and takes only clients that have one, too."""

    def __init__(self, server: Server, folder: Path) -> None:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        authority.configure_trust(tls)
        tls.verify_mode = ssl.CERT_REQUIRED
        self.direct = server.url
        self.proxy = Proxy(server.socket, tls)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("worker.example").private_key_and_cert_chain_pem.write_to_path(folder / "worker.pem")
        self._own, self._ca = quote(str(folder / "worker.pem")), quote(str(folder / "ca.pem"))

    def url(self, scheme: str = "rediss", *, trusting: bool = True, known: bool = True) -> str:
        ours = f"&ssl_certfile={self._own}&ssl_keyfile={self._own}" if known else ""
        theirs = f"&ssl_ca_certs={self._ca}" if trusting else ""
        user = f"{access.USER}:{access.PASSWORD}"
        return f"{scheme}://{user}@127.0.0.1:{self.proxy.port}/0?socket_timeout=2{theirs}{ours}"


@pytest.fixture
def guarded(fresh_server: Server, tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(fresh_server, tmp_path)
    yield guarded
    guarded.proxy.close()


@pytest.mark.slow
def test_workers_and_producers_speak_tls_and_go_on_when_connections_are_cut(guarded: Guarded, tmp_path: Path) -> None:
    """BEHAVIOURS 146."""
    fleet = Fleet(guarded.direct, guarded.url(), tmp_path / "notes")
    try:
        fleet.start(workers=1, runs=10)
        guarded.proxy.cut()
        assert fleet.faults() == []
    finally:
        fleet.close()


def test_the_command_line_and_the_metrics_speak_tls(guarded: Guarded) -> None:
    for command in ("runs", "functions", "doctor", "metrics --once"):
        said = CliRunner().invoke(main, [*command.split(), "--redis-url", guarded.url()])
        assert said.exit_code == 0, (command, said.output)
    assert b"flow_redis_up 1.0" in render(Store(guarded.url()))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"trusting": False}, "certificate verify failed", id="a-server-that-nobody-vouches-for"),
        pytest.param({"known": False}, "certificate required|Connection", id="a-client-without-a-certificate"),
        pytest.param({"scheme": "redis", "trusting": False, "known": False}, "Connection", id="no-tls-at-all"),
    ],
)
def test_what_is_not_to_be_trusted_is_refused_in_one_line(guarded: Guarded, wrong: dict[str, Any], reason: str) -> None:
    url = guarded.url(**wrong)
    store = Store(url)
    with pytest.raises(ServerError, match=reason):
        store.check_server()
    store.close()
    said = CliRunner().invoke(main, ["runs", "--redis-url", url])
    assert said.exit_code == 1
    assert said.stderr.count("\n") == 1
    assert access.PASSWORD not in said.output
