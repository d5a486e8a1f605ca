"""The metrics as text and over HTTP: complete, readable by every parser, and nothing else on that port."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import prometheus_client
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

import flowlib
from flowlib import ConfigError, trigger
from flowlib.dispatch import Dispatcher
from flowlib.metrics import NAMES, render, serve
from flowlib.metrics.families import RUN_EDGES, WAIT_EDGES
from flowlib.server import Server
from flowlib.store import Store

from .conftest import Desk
from .numbers import Numbers

promtool = shutil.which("promtool")


def test_the_edges_of_the_buckets_are_those_of_the_scripts() -> None:
    script = (Path(flowlib.__file__).parent / "lua/lib/metrics.lua").read_text()
    edges = {name: tuple(json.loads(f"[{inside}]")) for name, inside in re.findall(r"(\w+_EDGES) = {(.*)}", script)}
    assert edges == {"WAIT_EDGES": WAIT_EDGES, "RUN_EDGES": RUN_EDGES}


@pytest.fixture
def busy(desk: Desk) -> Desk:
    """All that can be told of has happened once, and strange names were used."""
    done = desk.at_step(event_id="done")
    desk.commit(done)
    desk.finish(done)
    desk.fail(desk.at_step(event_id="again"))
    desk.commit(desk.at_step('say "hi"\n\\|größe', event_id="strange"), step='say "hi"\n\\|größe')
    desk.store.fire_due()
    asks = replace(desk.function, triggers=(trigger("go", when=lambda event: event.data["key"]),))
    desk.store.join_events("desk")
    desk.store.send_events([("odd", "go", b"\x80", 0, "")])
    dispatcher = Dispatcher("desk", {"errand": asks}, "nowhere:app", desk.store, "anna", idle_ms=0)
    assert dispatcher.dispatch(dispatcher.fresh()) == []
    desk.store.plan_ticks("desk", "anna", ["errand|@daily UTC"], starting=True)
    upto = desk.store.client.hget(desk.store.keys.cron("desk"), "upto|errand|@daily UTC")
    desk.store.send_all([desk.store.start_ticks("desk", [("errand|@daily UTC", "errand", upto, 1, 1, 1, 0, None)])])
    return desk


def test_every_name_is_reported_and_every_report_is_a_name(busy: Desk) -> None:
    reported = {re.sub(r"_(bucket|sum|count)$", "", name) for name in Numbers.at(busy.store.url).names}
    assert reported == set(NAMES)


@pytest.mark.skipif(promtool is None, reason="promtool is not installed (Debian: apt-get install prometheus)")
def test_promtool_has_nothing_to_say_against_them(busy: Desk) -> None:
    text = render(busy.store)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def site(busy: Desk) -> Iterator[Callable[..., Any]]:
    """A function that gets a path from a site that serves metrics, one of this process's own among them."""
    own = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("my_mails", "Mails sent by a step.", registry=own).inc(3)
    port = free_port()
    stop = serve(busy.store, port=port, also=own)
    yield lambda path, **headers: urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=10)
    stop()
    with pytest.raises(URLError):
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_metrics_are_served_beside_those_of_the_process(site: Callable[..., Any]) -> None:
    with site("/metrics") as reply:
        assert reply.headers["content-type"].startswith("text/plain; version=")
        told = Numbers(reply.read())
    assert told("redis_up") == 1
    assert told.samples["my_mails_total", frozenset()] == 3


def test_who_asks_for_openmetrics_gets_it(site: Callable[..., Any]) -> None:
    with site("/metrics", Accept="application/openmetrics-text; version=1.0.0") as reply:
        assert reply.headers["content-type"].startswith("application/openmetrics-text")
        families = {family.name for family in parse_openmetrics(reply.read().decode())}  # type: ignore[no-untyped-call]
    assert families == {name.removesuffix("_total") for name in NAMES} | {"my_mails"}


def test_one_metric_can_be_asked_for(site: Callable[..., Any]) -> None:
    with site("/metrics?name[]=flow_redis_up") as reply:
        assert Numbers(reply.read()).samples == {("flow_redis_up", frozenset()): 1}


def test_health_is_answered_and_nothing_else_is_there(site: Callable[..., Any]) -> None:
    with site("/healthz") as reply:
        assert (reply.status, reply.read()) == (200, b"ok\n")
    for path in ("/", "/metrics/x", "/favicon.ico"):
        with pytest.raises(HTTPError, match="404") as refused:
            site(path)
        refused.value.close()


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux has all of 127.0.0.0/8")
def test_only_this_machine_is_served_unless_told_otherwise(server: Server, redis_url: str) -> None:
    """What listens on 0.0.0.0 would answer on 127.0.0.2 too."""
    store, port = Store(server.url), free_port()
    stop = serve(store, port=port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    stop()
    store.close()


def test_a_port_that_is_taken_is_refused_in_one_line(server: Server) -> None:
    store = Store(server.url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics cannot be served on 127.0.0.1:{port}: .*another --port"):
            serve(store, port=port)
    store.close()
